//! The proof: every state that a crash may leave is rebuilt, recovered and compared.
//!
//! The very code of commit and recovery runs on files that remember each operation. A crash may
//! come between any two of them; of what was not synced by then, any subset may be on the disk,
//! each write also torn. More random mailboxes than the usual 2,000:
//!
//! ```text
//! POPA3D_SIMULATOR_CASES=10000 cargo test --lib every_crash
//! ```

mod growing;
mod keeping;
mod proofs;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use super::{Removal, Storage};
use crate::channel::{Range, Totals};

/// Disks tear writes at multiples of this; small, so that small cases are torn often.
const SECTOR: usize = 64;

/// Subsets of unsynced operations that are tried after each crash, when there are more.
const SUBSETS: usize = 12;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operation {
    Write(Vec<u8>, usize),
    Resize(usize),
    Sync,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Mailbox,
    Record,
    Kept,
}

/// What is on the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Disk {
    mailbox: Vec<u8>,
    record: Vec<u8>,
    /// What a removal keeps.
    kept: Vec<u8>,
}

impl Disk {
    fn of(mailbox: &[u8]) -> Self {
        Self { mailbox: mailbox.to_vec(), ..Self::default() }
    }

    fn file(&mut self, which: Which) -> &mut Vec<u8> {
        match which {
            Which::Mailbox => &mut self.mailbox,
            Which::Record => &mut self.record,
            Which::Kept => &mut self.kept,
        }
    }
}

/// What was done, in order.
type Steps = Vec<(Which, Operation)>;

type Log = Rc<RefCell<Steps>>;

/// A file that remembers what was done to it.
struct Recorded {
    which: Which,
    content: RefCell<Vec<u8>>,
    log: Log,
}

impl Recorded {
    fn new(which: Which, content: &[u8], log: &Log) -> Self {
        Self { which, content: RefCell::new(content.to_vec()), log: Rc::clone(log) }
    }

    fn done(&self, operation: Operation) {
        apply(&mut self.content.borrow_mut(), &operation);
        self.log.borrow_mut().push((self.which, operation));
    }
}

impl Storage for Recorded {
    fn identity(&self) -> io::Result<u64> {
        Ok(1)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.content.borrow().len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.content.borrow();
        let rest = content.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, octets: &[u8], offset: u64) -> io::Result<()> {
        self.done(Operation::Write(octets.to_vec(), usize::try_from(offset).unwrap()));
        Ok(())
    }

    fn reserve(&self, size: u64) -> io::Result<()> {
        self.done(Operation::Resize(usize::try_from(size).unwrap()));
        Ok(())
    }

    fn reserve_behind(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.done(Operation::Resize(usize::try_from(size).unwrap()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.done(Operation::Sync);
        Ok(())
    }
}

fn apply(content: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::Write(octets, offset) => {
            content.resize(content.len().max(offset + octets.len()), 0);
            content[*offset..offset + octets.len()].copy_from_slice(octets);
        }
        Operation::Resize(size) => content.resize(*size, 0),
        Operation::Sync => {}
    }
}

/// Random numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap()
    }
}

/// A mailbox, what is to be removed from it, and what shall be left.
struct Case {
    old: Vec<u8>,
    doomed: Vec<Range>,
    new: Vec<u8>,
    /// What is removed.
    gone: Vec<u8>,
    /// All messages are copies of one.
    is_alike: bool,
}

impl Case {
    fn random(random: &mut Random) -> Self {
        let count = 1 + random.below(9);
        let (mut old, mut new, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        let mut doomed = Vec::new();
        // Sometimes all alike, so that what moved is hard to tell from what was there.
        let alike = random.below(4) == 0;
        let length = random.below(150);
        let likely = 1 + random.below(4);
        for number in 0..count {
            let body = if alike { length } else { random.below(220) };
            let name = if alike { 0 } else { number };
            let mut message = format!("From {name}\n\n").into_bytes();
            message.extend((0..body).map(|n| b'a' + u8::try_from((n + 7 * name) % 26).unwrap()));
            message.extend(b"\n\n");
            let start = old.len() as u64;
            old.extend(&message);
            if random.below(4) < likely {
                doomed.push(Range { start, end: old.len() as u64 });
                gone.extend(&message);
            } else {
                new.extend(&message);
            }
        }
        Self { old, doomed, new, gone, is_alike: alike }
    }

    fn removal(&self) -> Removal<'_> {
        removal_of(&self.doomed)
    }
}

/// These octets, as if they were so many messages.
fn removal_of(doomed: &[Range]) -> Removal<'_> {
    let octets = doomed.iter().map(|range| range.end - range.start).sum();
    Removal { doomed, deleted: Totals { messages: u32::try_from(doomed.len()).unwrap(), octets } }
}

/// What a crash leaves on the disk: `log` up to `crash`, with a choice among what was not synced.
fn survivors(start: &Disk, log: &[(Which, Operation)], random: &mut Random) -> Vec<Disk> {
    let synced = |which| {
        let last = log.iter().rposition(|(other, op)| *other == which && *op == Operation::Sync);
        last.map_or(0, |at| at + 1)
    };
    let all_synced = [Which::Mailbox, Which::Record, Which::Kept].map(synced);
    let is_synced = |index: usize, which| {
        let [mailbox, record, kept] = all_synced;
        index
            < match which {
                Which::Mailbox => mailbox,
                Which::Record => record,
                Which::Kept => kept,
            }
    };
    let pending = log
        .iter()
        .enumerate()
        .filter(|(index, (which, op))| !is_synced(*index, *which) && *op != Operation::Sync)
        .count();
    let all = if pending < 3 { 1_usize << pending } else { SUBSETS };
    let torn = if pending == 0 { 0 } else { 3 };
    (0..all + torn)
        .map(|choice| {
            let mut disk = start.clone();
            let mut bit = 0;
            for (index, (which, operation)) in log.iter().enumerate() {
                let mut operation = operation.clone();
                if !is_synced(index, *which) && operation != Operation::Sync {
                    let is_kept = match choice {
                        choice if choice >= all => random.below(3) > 0,
                        choice if pending < 3 => choice >> bit & 1 == 1,
                        0 => false,
                        1 => true,
                        _ => random.below(2) == 0,
                    };
                    bit += 1;
                    if !is_kept {
                        continue;
                    }
                    if choice >= all {
                        operation = tear(operation, random);
                    }
                }
                apply(disk.file(*which), &operation);
            }
            disk
        })
        .collect()
}

/// What a process left that was killed, while the host runs on: others see all that it did, and what it
/// did not sync is not on the disk.
struct Killed {
    start: Disk,
    log: Steps,
}

impl Killed {
    /// What others see, and what is left to lose.
    fn at(start: &Disk, log: &[(Which, Operation)]) -> (Disk, Self) {
        let mut found = start.clone();
        for (which, operation) in log {
            apply(found.file(*which), operation);
        }
        (found, Self { start: start.clone(), log: log.to_vec() })
    }

    /// What a crash leaves after `again` was done to what others see.
    ///
    /// What of the record was not synced is lost or not, whatever is synced since: where a sync failed (EIO),
    /// the kernel takes it for written, and the next one succeeds.
    fn survivors(&self, again: &[(Which, Operation)], random: &mut Random) -> Vec<Disk> {
        let Disk { record, .. } = choose(survivors(&self.start, &self.log, random), random);
        let start = Disk { record, ..self.start.clone() };
        let others = self.log.iter().filter(|(which, _)| *which != Which::Record);
        let log: Steps = others.chain(again).cloned().collect();
        // Some of them: there is a killed process for each crash.
        let first = random.below(3);
        survivors(&start, &log, random).into_iter().skip(first).step_by(3).collect()
    }
}

fn choose<T>(mut all: Vec<T>, random: &mut Random) -> T {
    all.swap_remove(random.below(all.len()))
}

/// Keeps a part of a write, between borders of sectors.
fn tear(operation: Operation, random: &mut Random) -> Operation {
    let Operation::Write(octets, offset) = operation else { return operation };
    let border = |at: usize| ((offset + at).next_multiple_of(SECTOR) - offset).min(octets.len());
    let from = border(random.below(octets.len() + 1));
    let to = border(random.below(octets.len() + 1));
    let (from, to) = (from.min(to), from.max(to));
    let from = if random.below(2) == 0 { 0 } else { from };
    Operation::Write(octets[from..to].to_vec(), offset + from)
}
