//! Odd mailboxes, one by one.

use super::*;
use crate::mbox::samples::{KEY, file, index, mailbox, noise, read};

const NO_LIMITS: Limits = Limits { messages: u32::MAX, file_size: None };

fn octets(mailbox: &[u8]) -> Vec<u64> {
    index(mailbox).messages().iter().map(|message| message.octets().0).collect()
}

#[test]
fn places_and_sizes_are_those_of_an_obvious_reading() {
    for mailbox in (0..3000).flat_map(|seed| [mailbox(seed), noise(seed)]) {
        let found: Vec<_> = index(&mailbox)
            .messages()
            .iter()
            .map(|message| (message.start, message.end, message.octets().0))
            .collect();
        let expected: Vec<_> = read(&mailbox)
            .iter()
            .map(|message| (message.start, message.end, message.octets()))
            .collect();
        assert_eq!(found, expected, "{}", mailbox.escape_ascii());
    }
}

#[test]
fn messages_lie_without_a_gap_to_the_end_of_the_file() {
    for seed in 0..300 {
        let mailbox = mailbox(seed);
        let index = index(&mailbox);
        let ends: Vec<_> = index.messages().iter().map(|message| message.end).collect();
        let starts: Vec<_> = index.messages().iter().map(|message| message.start).collect();
        assert_eq!(ends[..ends.len() - 1], starts[1..]);
        assert_eq!(ends.last(), Some(&(mailbox.len() as u64)));
    }
}

#[test]
fn a_missing_last_line_end_counts() {
    assert_eq!(octets(b"From a\nSubject: x\n\nbody"), [20]);
    assert_eq!(octets(b"From a\nSubject: x\n\nbody\r"), [20]);
    assert_eq!(octets(b"From a\nSubject: x"), [12]);
}

#[test]
fn the_empty_line_between_messages_is_no_part_of_a_body() {
    assert_eq!(octets(b"From a\nS: x\n\nx\n\nFrom b\nS: x\n\n\n"), [11, 8]);
    assert_eq!(octets(b"From a\nS: x\n\nFrom b\nS: x\n"), [8, 6]);
}

#[test]
fn crlf_counts_as_two_and_separates_messages() {
    assert_eq!(octets(b"From a\r\nS: x\r\n\r\nx\r\n\r\nFrom b\r\nS: x\r\n\r\n"), [11, 8]);
}

#[test]
fn a_from_line_alone_is_a_message_of_no_octets() {
    assert_eq!(octets(b"From a\nS: x\n\nx\n\nFrom b\n"), [11, 0]);
    assert_eq!(octets(b"From a\nFrom b\nS: x\n\n"), [0, 8]);
    assert_eq!(octets(b"From "), [0]);
}

#[test]
fn empty_lines_before_the_first_message_are_passed_over_at_any_number() {
    for count in [0, 1, 63, 64, 65, 1000] {
        let mailbox = [b"\n".repeat(count), b"\r\nFrom a\nS: x\n\n".to_vec()].concat();
        assert_eq!(octets(&mailbox), [8]);
    }
    assert_eq!(octets(b"\n\n"), [0; 0]);
    assert_eq!(octets(b""), [0; 0]);
}

#[test]
fn anything_else_before_the_first_message_is_no_mbox() {
    for (mailbox, at) in [(&b"hello\n\nFrom a\n"[..], 0), (b"\n\n \nFrom a\n", 2)] {
        let scanned = scan(&file(mailbox), mailbox.len() as u64, &NO_LIMITS, KEY);
        assert!(matches!(scanned, Err(ScanError::NotMbox { offset }) if offset == at));
    }
}

#[test]
fn folder_internal_data_is_hidden_and_nothing_else() {
    let data = "From a\nSubject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\n\
                X-IMAP: 1 2\nStatus: RO\n\nThis text is part of the internal format.\n\n";
    let mail = "From b\nS: x\n\n";
    let hidden = index(format!("{data}{mail}").as_bytes());
    assert_eq!(hidden.messages().len(), 1);
    assert_eq!(hidden.messages()[0].range(), data.len() as u64..(data.len() + mail.len()) as u64);
    assert_eq!(index(format!("{mail}{data}").as_bytes()).messages().len(), 2);
    assert_eq!(index(data.replace("X-IMAP", "X-MAP").as_bytes()).messages().len(), 1);
}

#[test]
fn a_fingerprint_changes_with_content_and_not_with_status() {
    let fingerprint = |mailbox: &str| index(mailbox.as_bytes()).messages()[0].fingerprint;
    let plain = fingerprint("From a\nSubject: x\n\nbody\n");
    assert_eq!(plain, fingerprint("From a\nStatus: RO\nSubject: x\nX-UID: 7\n\nbody\n\n"));
    assert_eq!(plain, fingerprint("From a\nSubject: x\nX-Keywords: a\n b\n\nbody\n"));
    assert_ne!(plain, fingerprint("From a\nSubject: x\n\nbodY\n"));
    assert_ne!(plain, fingerprint("From a\nSubject: y\n\nbody\n"));
    assert_ne!(plain, fingerprint("From a\nSubject: x\n\nStatus: RO\nbody\n"));
}

#[test]
fn limits_are_the_last_that_is_allowed() {
    let mailbox = b"From a\nS: x\n\nFrom b\nS: x\n\n";
    let size = mailbox.len() as u64;
    let scanned = |messages, file_size| {
        scan(&file(mailbox), size, &Limits { messages, file_size: Some(file_size) }, KEY)
    };
    assert!(scanned(2, size).is_ok());
    assert!(matches!(scanned(1, size), Err(ScanError::TooManyMessages { limit: 1 })));
    assert!(matches!(scanned(2, size - 1), Err(ScanError::TooLarge { .. })));
}

#[test]
fn a_file_that_ends_before_its_size_is_noticed() {
    let scanned = scan(&file(b"From a\nS: x\n\n"), 400, &NO_LIMITS, KEY);
    assert!(matches!(scanned, Err(ScanError::Shrunk)));
}
