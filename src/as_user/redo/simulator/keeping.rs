//! Each message is in exactly one of the mailbox and what is kept, whenever a crash comes: while a
//! removal keeps it, and while it is put back.
//!
//! The monitor's part is modelled by its rule: what the record says (`Recovered`) decides whether the
//! prepared files of kept mail take their places or are dropped.

use super::proofs::COSTS;
use super::{
    Case, Disk, Killed, Log, Operation, Random, Recorded, Steps, Which, removal_of, survivors,
};
use crate::as_user::redo::Error;
use crate::as_user::redo::commit::commit;
use crate::as_user::redo::put_back::{MAIL, put_back};
use crate::as_user::redo::recover::{Recovered, recover};
use crate::channel::Range;

const CASES: u64 = 1_000;

/// What may lie behind the mailbox by the time of a recovery.
const APPENDED: [&[u8]; 3] = [b"", b"From new\n\nmail\n\n", b"\nFrom\n\n"];

/// A removal that keeps, or that puts back what was kept, and what it is to leave.
struct Change {
    before: Disk,
    /// The mailbox after it.
    after: Vec<u8>,
    /// What is to be in the file of kept mail when the record says that it happened.
    kept: Vec<u8>,
    log: Steps,
}

fn removal(case: &Case) -> Change {
    let log = Log::default();
    let [mailbox, record, kept] = [
        Recorded::new(Which::Mailbox, &case.old, &log),
        Recorded::new(Which::Record, &[], &log),
        Recorded::new(Which::Kept, &[], &log),
    ];
    commit(&mailbox, &record, Some(&kept), case.removal(), COSTS).unwrap();
    assert_eq!(*mailbox.content.borrow(), case.new);
    Change {
        before: Disk::of(&case.old),
        after: case.new.clone(),
        kept: case.gone.clone(),
        log: log.take(),
    }
}

/// A removal of all from one place on, which keeps nothing.
fn cut(case: &Case) -> Change {
    let place = case.doomed.first().map_or(0, |range| range.start);
    let doomed = [Range { start: place, end: case.old.len() as u64 }];
    let log = Log::default();
    let mailbox = Recorded::new(Which::Mailbox, &case.old, &log);
    let record = Recorded::new(Which::Record, &[], &log);
    commit(&mailbox, &record, None::<&Recorded>, removal_of(&doomed), COSTS).unwrap();
    let after = mailbox.content.into_inner();
    assert_eq!(after, case.old[..usize::try_from(place).unwrap()]);
    Change { before: Disk::of(&case.old), after, kept: Vec::new(), log: log.take() }
}

/// Puts back what `case` removed, behind a mailbox that may lack its last line ends.
fn return_of(case: &Case, random: &mut Random) -> Change {
    let mut mailbox = case.new.clone();
    mailbox.truncate(mailbox.len().saturating_sub(random.below(3)));
    let mut record = vec![0; usize::try_from(MAIL).unwrap()];
    record.extend(&case.gone);
    let before = Disk { mailbox, record, kept: Vec::new() };
    let log = Log::default();
    let mailbox = Recorded::new(Which::Mailbox, &before.mailbox, &log);
    // The monitor does not sync it.
    let record = Recorded::new(Which::Record, &[], &log);
    record.done(Operation::Write(before.record.clone(), 0));
    put_back(&mailbox, &record).unwrap();
    let after = mailbox.content.borrow().clone();
    let between = after.strip_prefix(before.mailbox.as_slice()).unwrap();
    let between = between.strip_suffix(case.gone.as_slice()).unwrap();
    assert!(matches!(between, b"" | b"\n" | b"\n\n"));
    let old = after.strip_suffix(case.gone.as_slice()).unwrap();
    assert!(old.is_empty() || old.ends_with(b"\n\n"));
    let before = Disk { record: Vec::new(), ..before };
    Change { before, after, kept: Vec::new(), log: log.take() }
}

/// A recovery: what it says, the mailbox after it, and what was done.
fn recovered(mailbox: &[u8], record: &[u8]) -> Result<(Recovered, Vec<u8>, Steps), Error> {
    let log = Log::default();
    let mailbox = Recorded::new(Which::Mailbox, mailbox, &log);
    let record = Recorded::new(Which::Record, record, &log);
    let outcome = recover(&mailbox, &record, COSTS)?;
    Ok((outcome, mailbox.content.into_inner(), log.take()))
}

/// What the record says about the mailbox has to be so; what is kept when it counts, whole.
fn judge(change: &Change, disk: &Disk, outcome: Recovered, mailbox: &[u8]) -> Result<(), String> {
    match outcome {
        Recovered::NothingBegun if mailbox != change.before.mailbox => {
            Err("it says that nothing began, and the mailbox is another".to_owned())
        }
        Recovered::Finished(_) | Recovered::WasFinished(_) if mailbox != change.after => {
            Err("it says that all is done, and the mailbox is not the new one".to_owned())
        }
        Recovered::Finished(_) | Recovered::WasFinished(_) if disk.kept != change.kept => {
            Err("the mailbox is the new one, and what is kept is not what was removed".to_owned())
        }
        Recovered::NothingBegun | Recovered::Finished(_) | Recovered::WasFinished(_) => Ok(()),
    }
}

/// Every crash, recovered; then a second one inside recovery. How many states that were.
fn every_crash_of(change: &Change, random: &mut Random) -> Result<usize, String> {
    let mut states = 0;
    for crash in 0..=change.log.len() {
        let (found, killed) = Killed::at(&change.before, &change.log[..crash]);
        let fails = |error: Error| format!("killed at {crash}: {error}");
        let (outcome, after, again) = recovered(&found.mailbox, &found.record).map_err(fails)?;
        judge(change, &found, outcome, &after)
            .map_err(|what| format!("killed at {crash}: {what}"))?;
        let second = random.below(again.len() + 1);
        for disk in killed.survivors(&again[..second], random) {
            let fails = |error: Error| format!("killed at {crash}, then crash {second}: {error}");
            let (outcome, after, _) = recovered(&disk.mailbox, &disk.record).map_err(fails)?;
            judge(change, &disk, outcome, &after)
                .map_err(|what| format!("killed at {crash}, then crash {second}: {what}"))?;
            states += 1;
        }
        for disk in survivors(&change.before, &change.log[..crash], random) {
            let appended = APPENDED[random.below(APPENDED.len())];
            let mut found = disk.mailbox.clone();
            found.extend(appended);
            let judged = |outcome, after: &[u8]| {
                let mailbox = after.strip_suffix(appended).ok_or("mail was lost that came in")?;
                judge(change, &disk, outcome, mailbox)
            };
            let fails = |error: Error| format!("crash {crash}: {error}");
            let (outcome, after, again) = recovered(&found, &disk.record).map_err(fails)?;
            judged(outcome, &after).map_err(|what| format!("crash {crash}: {what}"))?;
            states += 1;
            let second = random.below(again.len() + 1);
            let start = Disk { mailbox: found, ..disk.clone() };
            for disk in survivors(&start, &again[..second], random) {
                let (outcome, after, _) = recovered(&disk.mailbox, &disk.record).map_err(fails)?;
                judged(outcome, &after)
                    .map_err(|what| format!("crash {crash}, then {second}: {what}"))?;
                states += 1;
            }
        }
    }
    Ok(states)
}

fn prove(change_of: impl Fn(&Case, &mut Random) -> Change, what: &str) {
    let mut states = 0;
    for seed in 0..CASES {
        let mut random = Random(seed);
        let case = Case::random(&mut random);
        if case.doomed.is_empty() {
            continue;
        }
        let change = change_of(&case, &mut random);
        match every_crash_of(&change, &mut random) {
            Ok(count) => states += count,
            Err(what) => panic!("seed {seed}: {what}"),
        }
    }
    let text = format!("{what}: {states} crash states recovered\n");
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes()).unwrap();
}

#[test]
fn every_crash_leaves_each_removed_message_in_the_mailbox_or_kept_and_not_in_both() {
    prove(|case, _| removal(case), "removals that keep");
}

#[test]
fn every_crash_leaves_a_record_that_tells_whether_all_mail_from_one_place_on_was_removed() {
    prove(|case, _| cut(case), "all from one place on removed");
}

#[test]
fn every_crash_leaves_each_returning_message_kept_or_in_the_mailbox_and_not_in_both() {
    prove(return_of, "mail put back");
}

/// Whether the simulator notices that `mutate` was done to the log of a change.
fn is_noticed(
    change_of: impl Fn(&Case, &mut Random) -> Change,
    mutate: impl Fn(&mut Steps),
) -> bool {
    (0..300).any(|seed| {
        let mut random = Random(seed);
        let case = Case::random(&mut random);
        if case.doomed.is_empty() {
            return false;
        }
        let mut change = change_of(&case, &mut random);
        mutate(&mut change.log);
        every_crash_of(&change, &mut random).is_err()
    })
}

#[test]
fn each_sync_that_is_left_out_is_noticed() {
    let without =
        |which| move |log: &mut Steps| log.retain(|step| *step != (which, Operation::Sync));
    assert!(is_noticed(|case, _| removal(case), without(Which::Kept)));
    assert!(is_noticed(return_of, without(Which::Record)));
    assert!(is_noticed(return_of, without(Which::Mailbox)));
}

#[test]
fn removal_that_keeps_after_it_has_begun_is_noticed() {
    assert!(is_noticed(
        |case, _| removal(case),
        |log| {
            let (kept, others): (Steps, Steps) =
                log.drain(..).partition(|(which, _)| *which == Which::Kept);
            log.extend(others);
            log.extend(kept);
        }
    ));
}

#[test]
fn mail_put_back_that_others_changed_meanwhile_is_left_alone_and_stays_kept() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let case = Case::random(&mut random);
        if case.gone.is_empty() {
            continue;
        }
        let change = return_of(&case, &mut random);
        let mut disk = change.before.clone();
        for (which, operation) in &change.log {
            super::apply(disk.file(*which), operation);
        }
        let place = change.before.mailbox.len() + 1 + random.below(3);
        disk.mailbox.splice(place..place, *b"Status: RO\n");
        let (outcome, after, _) = recovered(&disk.mailbox, &disk.record).unwrap();
        assert_eq!(
            (outcome, after == disk.mailbox),
            (Recovered::NothingBegun, true),
            "seed {seed}"
        );
    }
}
