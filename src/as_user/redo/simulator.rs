//! The proof: every state that a crash may leave is rebuilt, recovered and compared.
//!
//! The very code of commit and recovery runs on files that remember each operation. A crash may
//! come between any two of them; of what was not synced by then, any subset may be on the disk,
//! each write also torn. `POPA3D_SIMULATOR_CASES` sets how many random mailboxes are tried.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use super::commit::{Costs, commit};
use super::recover::{Recovered, recover};
use super::{Error, Storage};
use crate::channel::Range;

/// Disks tear writes at multiples of this; small, so that small cases are torn often.
const SECTOR: usize = 64;

/// Small mailboxes are to go the ways of large ones.
const COSTS: Costs = Costs { piece: 160, least_piece: 64, direct: 200, chunks: 16 };

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
    /// All messages are copies of one.
    is_alike: bool,
}

impl Case {
    fn random(random: &mut Random) -> Self {
        let count = 1 + random.below(9);
        let (mut old, mut new, mut doomed) = (Vec::new(), Vec::new(), Vec::new());
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
            } else {
                new.extend(&message);
            }
        }
        Self { old, doomed, new, is_alike: alike }
    }
}

/// What a crash leaves on the disk: `log` up to `crash`, with a choice among what was not synced.
fn survivors(
    start: (&[u8], &[u8]),
    log: &[(Which, Operation)],
    random: &mut Random,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let synced = |which| {
        let last = log.iter().rposition(|(other, op)| *other == which && *op == Operation::Sync);
        last.map_or(0, |at| at + 1)
    };
    let (mailbox_synced, record_synced) = (synced(Which::Mailbox), synced(Which::Record));
    let is_synced = |index: usize, which| match which {
        Which::Mailbox => index < mailbox_synced,
        Which::Record => index < record_synced,
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
            let (mut mailbox, mut record) = (start.0.to_vec(), start.1.to_vec());
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
                match which {
                    Which::Mailbox => apply(&mut mailbox, &operation),
                    Which::Record => apply(&mut record, &operation),
                }
            }
            (mailbox, record)
        })
        .collect()
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

/// A commit on recorded files: what was done, whether it succeeded.
fn committed(case: &Case) -> Vec<(Which, Operation)> {
    let log = Log::default();
    let mailbox = Recorded::new(Which::Mailbox, &case.old, &log);
    let record = Recorded::new(Which::Record, &[], &log);
    commit(&mailbox, &record, &case.doomed, COSTS).unwrap();
    assert_eq!(*mailbox.content.borrow(), case.new);
    log.take()
}

/// A recovery on recorded files: the mailbox after it, and what was done.
fn recovered(mailbox: &[u8], record: &[u8]) -> Result<(Vec<u8>, Steps), Error> {
    let log = Log::default();
    let mailbox = Recorded::new(Which::Mailbox, mailbox, &log);
    let record = Recorded::new(Which::Record, record, &log);
    recover(&mailbox, &record, COSTS)?;
    Ok((mailbox.content.into_inner(), log.take()))
}

/// Every crash of one commit, recovered; how many states that were. The error names a lost one.
fn every_crash_of(
    case: &Case,
    log: &[(Which, Operation)],
    random: &mut Random,
) -> Result<usize, String> {
    let decided = first_entry_is_durable(log);
    let mut states = 0;
    for crash in 0..=log.len() {
        for (mailbox, record) in survivors((&case.old, &[]), &log[..crash], random) {
            let appended: &[u8] = match random.below(3) {
                0 => b"",
                1 => b"From new\n\nmail\n\n",
                _ => &case.old[..case.old.len().min(700)],
            };
            let mut found = mailbox.clone();
            found.extend(appended);
            let is_right = |after: &[u8]| {
                let is_new = after.strip_suffix(appended) == Some(&case.new);
                let is_old = after.strip_suffix(appended) == Some(&case.old);
                is_new || (is_old && crash < decided)
            };
            let (after, again) =
                recovered(&found, &record).map_err(|error| format!("crash {crash}: {error}"))?;
            states += 1;
            if !is_right(&after) {
                return Err(format!("crash {crash}: neither old nor new"));
            }
            // A second crash, inside recovery, with still more mail behind it.
            let second = random.below(again.len() + 1);
            for (mailbox, record) in survivors((&found, &record), &again[..second], random) {
                states += 1;
                let (after, _) = recovered(&mailbox, &record)
                    .map_err(|error| format!("crash {crash}, then {second}: {error}"))?;
                if !is_right(&after) {
                    return Err(format!("crash {crash}, then {second}: neither old nor new"));
                }
            }
        }
    }
    Ok(states)
}

/// From which point of a log on the new mailbox is decided on: the first sync of the record.
fn first_entry_is_durable(log: &[(Which, Operation)]) -> usize {
    // Where nothing has to move there is no record, and the last sync decides.
    let decides = |entry: &(Which, Operation)| *entry == (Which::Record, Operation::Sync);
    log.iter().position(decides).map_or(log.len(), |at| at + 1)
}

fn cases() -> u64 {
    std::env::var("POPA3D_SIMULATOR_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000)
}

#[test]
fn every_crash_leaves_what_recovers_to_exactly_the_old_or_the_new_mailbox() {
    let mut states = 0;
    for seed in 0..cases() {
        let mut random = Random(seed);
        let case = Case::random(&mut random);
        let log = committed(&case);
        match every_crash_of(&case, &log, &mut random) {
            Ok(count) => states += count,
            Err(what) => panic!("seed {seed}: {what}"),
        }
    }
    // What `cargo test -- --nocapture` is asked for.
    let text = format!("{} mailboxes, {states} crash states recovered\n", cases());
    io::Write::write_all(&mut io::stdout(), text.as_bytes()).unwrap();
}

/// Whether the simulator notices that `mutate` was done to the log of a commit.
fn is_noticed(mutate: impl Fn(&mut Vec<(Which, Operation)>)) -> bool {
    (0..300).any(|seed| {
        let mut random = Random(seed);
        let case = Case::random(&mut random);
        let mut log = committed(&case);
        mutate(&mut log);
        every_crash_of(&case, &log, &mut random).is_err()
    })
}

#[test]
fn each_sync_that_is_left_out_is_noticed() {
    for which in [Which::Mailbox, Which::Record] {
        assert!(
            is_noticed(|log| log.retain(|entry| *entry != (which, Operation::Sync))),
            "without any sync of the {which:?}"
        );
    }
    assert!(
        is_noticed(|log| {
            let decides = |entry: &(Which, Operation)| *entry == (Which::Record, Operation::Sync);
            if let Some(first) = log.iter().position(decides) {
                log.remove(first);
            }
        }),
        "without the sync that decides"
    );
}

#[test]
fn steps_in_the_wrong_order_are_noticed() {
    // The mailbox is cut before the record says that it may be.
    assert!(is_noticed(|log| {
        let is_cut = |(which, op): &(Which, Operation)| {
            *which == Which::Mailbox && matches!(op, Operation::Resize(_))
        };
        if let Some(cut) = log.iter().position(is_cut) {
            let operation = log.remove(cut);
            log.insert(cut.saturating_sub(2), operation);
        }
    }));
    // Mail is written over before the record holds it.
    assert!(is_noticed(|log| {
        let is_mail = |(which, op): &(Which, Operation)| {
            *which == Which::Mailbox && matches!(op, Operation::Write(..))
        };
        if let Some(mail) = log.iter().position(is_mail) {
            let operation = log.remove(mail);
            log.insert(0, operation);
        }
    }));
}

#[test]
fn record_of_a_finished_removal_does_nothing_however_the_mailbox_grew() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let case = Case::random(&mut random);
        let (mut mailbox, mut record) = (case.old.clone(), Vec::new());
        for (which, operation) in committed(&case) {
            match which {
                Which::Mailbox => apply(&mut mailbox, &operation),
                Which::Record => apply(&mut record, &operation),
            }
        }
        mailbox.extend(&case.old);
        let (after, _) = recovered(&mailbox, &record).unwrap();
        assert!(after == mailbox, "seed {seed}");
    }
}

#[test]
fn mailbox_that_another_program_edited_half_way_loses_nothing() {
    const LINE: &[u8] = b"Status: RO\n";
    let without_line = |mailbox: &[u8]| {
        let place = mailbox.windows(LINE.len()).position(|part| part == LINE);
        let mut rest = mailbox.to_vec();
        rest.drain(place.map_or(0..0, |place| place..place + LINE.len()));
        rest
    };
    let (mut conflicts, mut finished) = (0, 0);
    for seed in 0..cases() {
        let mut random = Random(seed);
        let case = Case::random(&mut random);
        if case.is_alike {
            continue; // one message less and one message more look alike there
        }
        let log = committed(&case);
        let crash = random.below(log.len() + 1);
        for (mut mailbox, record) in survivors((&case.old, &[]), &log[..crash], &mut random) {
            // A line put in, as a mail reader does; what is behind it moves.
            let place = random.below(mailbox.len() + 1);
            mailbox.splice(place..place, *b"Status: RO\n");
            let log = Log::default();
            let file = Recorded::new(Which::Mailbox, &mailbox, &log);
            let redo = Recorded::new(Which::Record, &record, &log);
            let outcome = recover(&file, &redo, COSTS);
            let after = file.content.into_inner();
            match outcome {
                Ok(Recovered::Finished) => {
                    finished += 1;
                    // A line put into the last message that goes may leave as much behind of it.
                    let rest = without_line(&after);
                    let more = rest.strip_prefix(case.new.as_slice());
                    let more = more.map(<[u8]>::len);
                    assert!(more.is_some_and(|more| more <= LINE.len()), "seed {seed}, {place}");
                }
                Ok(Recovered::NothingBegun | Recovered::WasFinished) | Err(Error::Conflict(_)) => {
                    conflicts += 1;
                    assert!(after == mailbox, "seed {seed}, {place}");
                }
                Err(error) => panic!("seed {seed}, {place}: {error}"),
            }
        }
    }
    assert!(conflicts > 100 && finished > 10, "{conflicts} conflicts, {finished} finished");
}

#[test]
fn no_write_that_fails_loses_anything() {
    /// Fails from its n-th write, sync, truncation or reservation on.
    struct Failing<'a>(&'a Recorded, &'a RefCell<usize>);

    impl Failing<'_> {
        fn try_it(&self) -> io::Result<()> {
            let mut left = self.1.borrow_mut();
            *left = left.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
            Ok(())
        }
    }

    impl Storage for Failing<'_> {
        fn identity(&self) -> io::Result<u64> {
            self.0.identity()
        }
        fn size(&self) -> io::Result<u64> {
            self.0.size()
        }
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            self.0.read_at(buffer, offset)
        }
        fn write_at(&self, octets: &[u8], offset: u64) -> io::Result<()> {
            self.try_it()?;
            self.0.write_at(octets, offset)
        }
        fn reserve(&self, size: u64) -> io::Result<()> {
            self.try_it()?;
            self.0.reserve(size)
        }
        fn truncate(&self, size: u64) -> io::Result<()> {
            self.try_it()?;
            self.0.truncate(size)
        }
        fn sync(&self) -> io::Result<()> {
            self.try_it()?;
            self.0.sync()
        }
    }

    for seed in 0..300 {
        let case = Case::random(&mut Random(seed));
        for failing in 0.. {
            let log = Log::default();
            let mailbox = Recorded::new(Which::Mailbox, &case.old, &log);
            let record = Recorded::new(Which::Record, &[], &log);
            let left = RefCell::new(failing);
            let files = (Failing(&mailbox, &left), Failing(&record, &left));
            match commit(&files.0, &files.1, &case.doomed, COSTS) {
                Ok(()) => break,
                Err(Error::Untouched(_)) => assert!(*mailbox.content.borrow() == case.old),
                Err(Error::Unfinished(_)) => {
                    let (mailbox, record) = (mailbox.content.take(), record.content.take());
                    let (after, _) = recovered(&mailbox, &record).unwrap();
                    assert!(after == case.new || after == case.old, "seed {seed}, {failing}");
                }
                Err(error) => panic!("seed {seed}, {failing}: {error}"),
            }
        }
    }
}
