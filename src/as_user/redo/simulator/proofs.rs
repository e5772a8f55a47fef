//! What holds in every state that a crash may leave, and that a broken commit would be noticed.

use std::cell::RefCell;
use std::io;

use super::{Case, Disk, Killed, Log, Operation, Random, Recorded, Steps, Which, apply, survivors};
use crate::as_user::redo::commit::{Costs, commit};
use crate::as_user::redo::recover::{Recovered, recover};
use crate::as_user::redo::{Error, Storage};

/// Small mailboxes are to go the ways of large ones.
pub(super) const COSTS: Costs = Costs { piece: 160, least_piece: 64, direct: 200, chunks: 16 };

/// A commit on recorded files: what was done, whether it succeeded.
fn committed(case: &Case) -> Vec<(Which, Operation)> {
    let log = Log::default();
    let mailbox = Recorded::new(Which::Mailbox, &case.old, &log);
    let record = Recorded::new(Which::Record, &[], &log);
    commit(&mailbox, &record, None::<&Recorded>, case.removal(), COSTS).unwrap();
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
    let is_expected = |after: &[u8], crash: usize| {
        *after == *case.new || (*after == *case.old && crash < decided)
    };
    let mut states = 0;
    for crash in 0..=log.len() {
        // The process alone dies; what it did and did not sync is on no disk when the power fails, too.
        let (found, killed) = Killed::at(&Disk::of(&case.old), &log[..crash]);
        let fails = |error| format!("killed at {crash}: {error}");
        let (after, again) = recovered(&found.mailbox, &found.record).map_err(fails)?;
        if !is_expected(&after, crash) {
            return Err(format!("killed at {crash}: neither old nor new"));
        }
        let second = random.below(again.len() + 1);
        for Disk { mailbox, record, .. } in killed.survivors(&again[..second], random) {
            let fails = |error| format!("killed at {crash}, then crash {second}: {error}");
            let (after, _) = recovered(&mailbox, &record).map_err(fails)?;
            states += 1;
            if !is_expected(&after, crash) {
                return Err(format!("killed at {crash}, then crash {second}: neither old nor new"));
            }
        }
        for Disk { mailbox, record, .. } in survivors(&Disk::of(&case.old), &log[..crash], random) {
            let appended: &[u8] = match random.below(3) {
                0 => b"",
                1 => b"From new\n\nmail\n\n",
                _ => &case.old[..case.old.len().min(700)],
            };
            let mut found = mailbox.clone();
            found.extend(appended);
            let is_right = |after: &[u8]| {
                after.strip_suffix(appended).is_some_and(|after| is_expected(after, crash))
            };
            let (after, again) =
                recovered(&found, &record).map_err(|error| format!("crash {crash}: {error}"))?;
            states += 1;
            if !is_right(&after) {
                return Err(format!("crash {crash}: neither old nor new"));
            }
            // A second crash, inside recovery, with still more mail behind it.
            let second = random.below(again.len() + 1);
            let start = Disk { mailbox: found, record, kept: Vec::new() };
            for Disk { mailbox, record, .. } in survivors(&start, &again[..second], random) {
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
    let moves = |(which, operation): &(Which, Operation)| {
        *which == Which::Mailbox && matches!(operation, Operation::Write(..))
    };
    // Where nothing has to move there is no entry, and the last sync decides.
    if !log.iter().any(moves) {
        return log.len();
    }
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
    // Not by `print!`, which `cargo test` keeps to itself when all is well.
    let text = format!("{} mailboxes, {states} crash states recovered\n", cases());
    io::Write::write_all(&mut io::stdout(), text.as_bytes()).unwrap();
}

#[test]
fn mail_that_was_delivered_without_a_sync_does_no_harm() {
    const TAIL: &[u8] = b"From mta\n\ndelivered and not synced\n\n";
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut case = Case::random(&mut random);
        let durable = case.old.clone();
        case.old.extend(TAIL);
        case.new.extend(TAIL);
        let mut log = vec![(Which::Mailbox, Operation::Write(TAIL.to_vec(), durable.len()))];
        log.extend(committed(&case));
        for crash in 0..=log.len() {
            for disk in survivors(&Disk::of(&durable), &log[..crash], &mut random) {
                let Disk { mailbox, record, .. } = disk;
                let (after, _) = recovered(&mailbox, &record).unwrap();
                let is_old = after.starts_with(&durable) && after.len() <= case.old.len();
                assert!(is_old || after == case.new, "seed {seed}, crash {crash}");
            }
        }
    }
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
        let mut disk = Disk::of(&case.old);
        for (which, operation) in committed(&case) {
            apply(disk.file(which), &operation);
        }
        let Disk { mut mailbox, record, .. } = disk;
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
        for disk in survivors(&Disk::of(&case.old), &log[..crash], &mut random) {
            let Disk { mut mailbox, record, .. } = disk;
            // A line put in, as a mail reader does; what is behind it moves.
            let place = random.below(mailbox.len() + 1);
            mailbox.splice(place..place, *b"Status: RO\n");
            let log = Log::default();
            let file = Recorded::new(Which::Mailbox, &mailbox, &log);
            let redo = Recorded::new(Which::Record, &record, &log);
            let outcome = recover(&file, &redo, COSTS);
            let after = file.content.into_inner();
            match outcome {
                Ok(Recovered::Finished(removed)) => {
                    finished += 1;
                    assert_eq!(removed, Some(case.removal().deleted));
                    // A line put into the last message that goes may leave as much behind of it.
                    let rest = without_line(&after);
                    let more = rest.strip_prefix(case.new.as_slice());
                    let more = more.map(<[u8]>::len);
                    assert!(more.is_some_and(|more| more <= LINE.len()), "seed {seed}, {place}");
                }
                Ok(Recovered::NothingBegun | Recovered::WasFinished(_))
                | Err(Error::Conflict(_)) => {
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
fn record_that_begins_otherwise_than_ours_decides_nothing() {
    // What std says on standard error for lack of memory, and what another version may write.
    for beginning in [b"memory allocation of 1048576 bytes failed".as_slice(), b"popa3d\0\xff"] {
        for seed in 0..100 {
            let mut random = Random(seed);
            let case = Case::random(&mut random);
            let log = committed(&case);
            let mut disk = Disk::of(&case.old);
            for (which, operation) in &log[..random.below(log.len() + 1)] {
                apply(disk.file(*which), operation);
            }
            apply(&mut disk.record, &Operation::Write(beginning.to_vec(), 0));
            let log = Log::default();
            let mailbox = Recorded::new(Which::Mailbox, &disk.mailbox, &log);
            let record = Recorded::new(Which::Record, &disk.record, &log);
            let outcome = recover(&mailbox, &record, COSTS);
            assert!(matches!(outcome, Err(Error::Conflict(_))), "seed {seed}: {outcome:?}");
            assert!(log.take().is_empty(), "seed {seed}");
        }
    }
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
        fn reserve_behind(&self, size: u64, more: u64) -> io::Result<()> {
            self.0.reserve_behind(size, more)
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
            match commit(&files.0, &files.1, None::<&Recorded>, case.removal(), COSTS) {
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
