use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::thread;

use super::*;

const MAIL: &str = "From a\nReceived: 1\n\ntext\n\nFrom b\nReceived: 2\n\nmore\n\n";

/// A new file with this name.
fn new(name: &str, content: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("popa3d-{name}-{}", std::process::id()));
    fs::write(&path, content).unwrap();
    path
}

fn open(path: &PathBuf) -> (Mailbox, Index) {
    let limits = Limits { messages: 10, file_size: None };
    Mailbox::scan(File::open(path).unwrap().into(), &limits, 1).unwrap()
}

/// The message as its finder reads it.
fn read(mailbox: &Mailbox, found: Result<(Message, Proof), Lost>) -> Result<String, Lost> {
    let (message, mut proof) = found?;
    let range = message.range();
    let mut octets = vec![0; usize::try_from(range.end - range.start).unwrap()];
    mailbox
        .reader(&mut proof)
        .read_exact_at(&mut octets, range.start)
        .map_err(|_| Lost::Changing)?;
    Ok(String::from_utf8(octets).unwrap())
}

fn until_settled(mailbox: &Mailbox) {
    while !State::of(&mailbox.file).unwrap().settled {
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn new_mail_costs_no_search() {
    let path = new("growing", MAIL);
    let (mut mailbox, index) = open(&path);
    for _ in 0..300 {
        let mut writer = OpenOptions::new().append(true).open(&path).unwrap();
        writer.write_all(b"From c\n\nlate\n\n").unwrap();
        let found = mailbox.find(&index, 1);
        assert!(MAIL.ends_with(&read(&mailbox, found).unwrap()));
    }
    assert_eq!(mailbox.searches, SEARCHES);
    fs::remove_file(path).unwrap();
}

#[test]
fn a_change_after_which_a_program_set_the_time_back_is_seen() {
    let path = new("set-back", MAIL);
    until_settled(&open(&path).0);
    let (mut mailbox, index) = open(&path);
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, MAIL.replace("text", "test")).unwrap();
    let writer = OpenOptions::new().write(true).open(&path).unwrap();
    writer.set_modified(before).unwrap();
    assert!(!State::of(&mailbox.file).unwrap().settled);
    assert!(matches!(mailbox.find(&index, 0), Err(Lost::Changing)));
    assert!(mailbox.find(&index, 1).is_ok());
    fs::remove_file(path).unwrap();
}

#[test]
fn what_changes_after_a_message_was_found_is_not_read() {
    for settled in [true, false] {
        let path = new("found", MAIL);
        if settled {
            until_settled(&open(&path).0);
        }
        let (mut mailbox, index) = open(&path);
        let found = [0, 1].map(|number| mailbox.find(&index, number));
        fs::write(&path, MAIL.replace("text", "test")).unwrap();
        let read = found.map(|found| read(&mailbox, found).is_ok());
        assert_eq!(read, [false, !settled]);
        fs::remove_file(path).unwrap();
    }
}

/// Stands for a write that goes on while the file is scanned.
#[test]
fn a_scan_without_locks_does_not_show_that_nothing_changed() {
    let path = new("unlocked", MAIL);
    until_settled(&open(&path).0);
    let (mut mailbox, index) = open(&path);
    assert!(mailbox.state.settled && mailbox.is_unchanged_in(&mailbox.file));
    let (a, b) = MAIL.split_at(MAIL.find("From b").unwrap());
    fs::write(&path, [b, a].concat()).unwrap();
    mailbox.scan_again(&index).unwrap();
    fs::write(&path, MAIL).unwrap();
    until_settled(&mailbox);
    mailbox.state = State::of(&mailbox.file).unwrap();
    assert!(mailbox.state.settled && !mailbox.is_unchanged_in(&mailbox.file));
    for (number, text) in [a, b].into_iter().enumerate() {
        assert!(mailbox.surely_at(&index, number).is_none());
        let found = mailbox.find(&index, number);
        assert_eq!(read(&mailbox, found).as_deref(), Ok(text));
    }
    fs::remove_file(path).unwrap();
}
