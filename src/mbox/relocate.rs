//! Finding messages again in a mailbox that other programs changed. Runs in the worker.

use std::fs::File;

use super::content::Fingerprint;
use super::error::ScanError;
use super::scan::Pass;
use super::unique_id::BaseId;
use super::{Index, Message};

/// Whether the very message is still at its place, with nothing changed that a client would see
/// but the notes of other programs in its header.
pub fn still_there(file: &File, message: &Message, key: u64) -> Result<bool, ScanError> {
    let mut pass = Pass::new(Fingerprint::new(key));
    let mut same = None;
    let read = pass.run(file, message.range(), &mut |found| {
        let first = same.is_none();
        same = Some(
            first
                && found.message() == Message { distinction: super::NOT_DISTINGUISHED, ..*message },
        );
        Ok(())
    });
    match read {
        Ok(()) => Ok(same == Some(true)),
        Err(ScanError::Shrunk | ScanError::NotMbox { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// For each message of `old`, where it is in `new`: the same content, whatever other programs
/// noted in its header and whichever order they left. Of copies that can't be told apart, each
/// is matched once, in the order of the file. Both are scans with the same key.
pub fn relocate(old: &Index, new: &Index) -> Vec<Option<usize>> {
    let mut places = vec![None; old.messages.len()];
    let mut candidates = by_identity(new).into_iter().peekable();
    for (identity, number) in by_identity(old) {
        while candidates.next_if(|(other, _)| *other < identity).is_some() {}
        let found = candidates.next_if(|(other, _)| *other == identity);
        if let (Some(place), Some((_, at))) = (places.get_mut(number), found) {
            *place = Some(at);
        }
    }
    places
}

/// Sorted by what identifies them. The base id is part of it, as it holds what the local MTA
/// noted, which nobody who sends mail can choose.
fn by_identity(index: &Index) -> Vec<((BaseId, u64), usize)> {
    let all = index.messages.iter().enumerate();
    let mut all: Vec<_> =
        all.map(|(number, message)| ((message.base, message.fingerprint), number)).collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::mbox::samples::{KEY, file, index, mailbox};

    const A: &str = "From a\nSubject: a\n\nfirst\n\n";
    const B: &str = "From b\nSubject: b\n\nsecond\n\n";
    const C: &str = "From c\nSubject: c\n\nthird\n\n";

    fn places(old: &str, new: &str) -> Vec<Option<usize>> {
        relocate(&index(old.as_bytes()), &index(new.as_bytes()))
    }

    #[test]
    fn every_message_of_an_unchanged_mailbox_is_still_there() {
        for seed in 0..300 {
            let mailbox = mailbox(seed);
            for message in index(&mailbox).messages() {
                assert!(still_there(&file(&mailbox), message, KEY).unwrap(), "seed {seed}");
            }
        }
    }

    #[test]
    fn a_change_of_any_byte_of_a_message_is_seen() {
        let mailbox = format!("{A}{B}{C}");
        let message = index(mailbox.as_bytes()).messages()[1];
        for at in A.len()..A.len() + B.len() - 1 {
            let mut changed = mailbox.clone().into_bytes();
            changed[at] ^= 4;
            let in_from_line = at == A.len() + "From ".len();
            let there = still_there(&file(&changed), &message, KEY).unwrap();
            assert_eq!(there, in_from_line, "byte {at}");
        }
    }

    #[test]
    fn a_message_behind_the_end_is_not_there() {
        let message = index(format!("{A}{B}").as_bytes()).messages()[1];
        assert!(!still_there(&file(A.as_bytes()), &message, KEY).unwrap());
    }

    #[test]
    fn a_status_of_the_same_length_changes_nothing() {
        let old = "From a\nStatus: O\n\nfirst\n";
        let message = index(old.as_bytes()).messages()[0];
        let new = old.replace("Status: O", "Status: R");
        assert!(still_there(&file(new.as_bytes()), &message, KEY).unwrap());
    }

    #[test]
    fn messages_are_found_in_another_order_and_with_another_status() {
        let read = B.replace("\n\nsecond", "\nStatus: RO\nX-Status: A\n\nsecond");
        assert_eq!(
            places(&format!("{A}{B}{C}"), &format!("{C}{read}{A}")),
            [Some(2), Some(1), Some(0)]
        );
    }

    #[test]
    fn deleted_and_edited_messages_are_not_found() {
        let edited = B.replace("second", "secund");
        assert_eq!(places(&format!("{A}{B}{C}"), &format!("{edited}{C}")), [None, None, Some(1)]);
    }

    #[test]
    fn each_copy_is_matched_once() {
        assert_eq!(places(&format!("{A}{A}{A}"), &format!("{A}{B}{A}")), [Some(0), Some(2), None]);
        assert_eq!(places(&format!("{A}{B}"), &format!("{A}{A}{B}")), [Some(0), Some(2)]);
    }

    #[test]
    fn what_is_found_has_the_same_content() {
        for seed in 0..300 {
            let (old, new) =
                (index(&mailbox(seed)), index(&[mailbox(seed), mailbox(seed + 1)].concat()));
            let places = relocate(&old, &new);
            let found: Vec<_> = places.iter().flatten().collect();
            assert_eq!(found.len(), found.iter().collect::<HashSet<_>>().len());
            for (message, place) in old.messages().iter().zip(&places) {
                if let Some(place) = place {
                    assert_eq!(message.fingerprint, new.messages()[*place].fingerprint);
                }
            }
        }
    }
}
