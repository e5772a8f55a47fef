use std::collections::HashSet;

use super::*;
use crate::mbox::samples::{KEY, file, index, mailbox};

const A: &str = "From a\nSubject: a\n\nfirst\n\n";
const B: &str = "From b\nSubject: b\n\nsecond\n\n";
const C: &str = "From c\nSubject: c\n\nthird\n\n";

fn places(old: &str, new: &str) -> Vec<Option<usize>> {
    relocate(&index(old.as_bytes()), &index(new.as_bytes()), |_| false)
}

#[test]
fn every_message_of_an_unchanged_mailbox_is_still_there() {
    for seed in 0..300 {
        let mailbox = mailbox(seed);
        let mut bare = false;
        for message in index(&mailbox).messages() {
            let there = still_there(&file(&mailbox), message, KEY).unwrap();
            assert!(there || bare, "seed {seed}");
            bare = message.content == message.end;
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
fn a_sealed_message_is_read_as_it_was_or_not_at_all() {
    let body = "some text\n".repeat(50);
    let mailbox = format!("{A}From b\nStatus: O\n\n{body}\n{C}");
    let message = index(mailbox.as_bytes()).messages()[1];
    let range = A.len()..mailbox.len() - C.len();
    let sealed = || seal(&file(mailbox.as_bytes()), &message, KEY).unwrap().unwrap();
    for (from, until) in [(0, 1), (0, 150), (149, 151), (100, 500), (0, range.len())] {
        let read = |content: &[u8]| {
            let mut octets = vec![0; until - from];
            let offset = (range.start + from) as u64;
            sealed().read_exact_at(&file(content), &mut octets, offset).map(|()| octets)
        };
        let expected = &mailbox.as_bytes()[range.start + from..range.start + until];
        for at in 0..mailbox.len() {
            let mut changed = mailbox.clone().into_bytes();
            changed[at] ^= 4;
            match read(&changed) {
                Ok(octets) => assert_eq!(octets, expected, "byte {at}, from {from}"),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                    assert!(range.contains(&at), "byte {at}, from {from}");
                }
            }
        }
        assert_eq!(read(format!("{mailbox}{B}").as_bytes()).unwrap(), expected);
        assert!(read(A.as_bytes()).is_err());
    }
    let behind = &mut [0; 2];
    assert!(sealed().read_exact_at(&file(mailbox.as_bytes()), behind, message.end - 1).is_err());
    assert!(sealed().read_exact_at(&file(mailbox.as_bytes()), behind, 0).is_err());
}

#[test]
fn a_message_behind_the_end_is_not_there() {
    let message = index(format!("{A}{B}").as_bytes()).messages()[1];
    assert!(!still_there(&file(A.as_bytes()), &message, KEY).unwrap());
}

#[test]
fn a_message_that_became_part_of_another_is_not_there() {
    let messages = index(format!("{A}{B}").as_bytes()).messages().to_vec();
    let whole = |mailbox: &str, number: usize| {
        still_there(&file(mailbox.as_bytes()), &messages[number], KEY).unwrap()
    };
    // The empty line between them is gone, and one octet more stands before it.
    let merged = format!("{}x\n{B}", A.strip_suffix("\n\n").unwrap());
    assert_eq!(merged.len(), A.len() + B.len() - 1 + 1);
    assert!(!whole(&merged, 1));
    // More was written to what was the last message when it was scanned.
    assert!(!whole(&format!("{A}{B}and more\n"), 1));
    assert!(!whole(&format!("{A}{B}Fro"), 1));
    assert!(whole(&format!("{A}{B}{C}"), 1));
    let unfinished = &B[..B.len() - 1];
    let old = format!("{A}{unfinished}");
    let message = index(old.as_bytes()).messages()[1];
    assert!(still_there(&file(old.as_bytes()), &message, KEY).unwrap());
    assert!(!still_there(&file(format!("{old}{C}").as_bytes()), &message, KEY).unwrap());
}

#[test]
fn a_message_behind_from_lines_alone_is_there_while_they_are() {
    let mailbox = format!("{B}From x\nFrom y\n{A}");
    let message = *index(mailbox.as_bytes()).messages().last().unwrap();
    let is_there = |mailbox: &str| still_there(&file(mailbox.as_bytes()), &message, KEY).unwrap();
    assert!(is_there(&mailbox));
    for (old, new) in [("From y", "Xrom y"), ("x\nFrom y", "x From y"), ("\n\nFrom x", "\nxFrom x")]
    {
        let changed = mailbox.replace(old, new);
        assert_eq!(changed.len(), mailbox.len());
        let starts = index(changed.as_bytes()).messages().iter().any(|it| it.is_at(&message));
        assert_eq!(is_there(&changed), starts, "{changed:?}");
    }
}

#[test]
fn a_from_line_alone_that_became_part_of_another_is_not_there() {
    let mailbox = format!("From x\n{A}");
    let message = index(mailbox.as_bytes()).messages()[0];
    let is_there = |mailbox: &str| still_there(&file(mailbox.as_bytes()), &message, KEY).unwrap();
    assert!(is_there(&mailbox));
    assert!(!is_there(&mailbox.replace("x\nFrom", "x From")));
}

#[test]
fn of_copies_the_marked_one_is_missing_first() {
    let [old, new] =
        [format!("{A}{A}{B}{A}"), format!("{B}{A}{A}")].map(|mailbox| index(mailbox.as_bytes()));
    assert_eq!(relocate(&old, &new, |number| number == 0), [None, Some(1), Some(0), Some(2)]);
    assert_eq!(relocate(&old, &old, |number| number == 0), [0, 1, 2, 3].map(Some));
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
fn a_last_line_that_got_its_line_end_is_the_same() {
    for unfinished in ["From b\nSubject: b\n\nsecond", "From b\nSubject: b\n\nsecond\r"] {
        let places = places(&format!("{A}{unfinished}"), &format!("{A}{unfinished}\n\n{C}"));
        assert_eq!(places, [Some(0), Some(1)]);
    }
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
        let places = relocate(&old, &new, |_| false);
        let found: Vec<_> = places.iter().flatten().collect();
        assert_eq!(found.len(), found.iter().collect::<HashSet<_>>().len());
        for (message, place) in old.messages().iter().zip(&places) {
            if let Some(place) = place {
                assert_eq!(message.fingerprint, new.messages()[*place].fingerprint);
            }
        }
    }
}
