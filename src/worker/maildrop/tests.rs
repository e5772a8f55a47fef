use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use super::*;
use crate::worker::client::Client;

const LIMITS: Limits = Limits { messages: 1000, file_size: None };

/// A mailbox, and a session that scanned it.
struct Session {
    path: PathBuf,
    maildrop: Maildrop,
    client: Client,
    peer: UnixStream,
}

impl Session {
    fn new(mailbox: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("popa3d-maildrop-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, mailbox).unwrap();
        let file = File::open(&path).unwrap();
        let maildrop = Maildrop::scan(file.into(), &LIMITS, 7).unwrap();
        let (socket, peer) = UnixStream::pair().unwrap();
        let client = Client::new(socket.into(), Duration::from_secs(60));
        Self { path, maildrop, client, peer }
    }

    /// The session on a mailbox that nobody has changed for a while.
    fn on_old_mailbox(mailbox: &str) -> Self {
        let mut session = Self::new(mailbox);
        thread::sleep(Duration::from_millis(150));
        let file = File::open(&session.path).unwrap();
        session.maildrop = Maildrop::scan(file.into(), &LIMITS, 7).unwrap();
        session
    }

    fn prepare(&mut self, index: u32) -> bool {
        self.maildrop.prepare(MessageNumber::from_index(index).unwrap());
        self.maildrop.prepared.of.is_some()
    }

    /// What another program does that keeps the inode.
    fn rewrite(&self, mailbox: &str) {
        fs::write(&self.path, mailbox).unwrap();
    }

    /// RETR as its client sees it; the reply has to be shorter than what a socket holds.
    fn retr(&mut self, index: u32) -> Result<String, Unsent> {
        let number = MessageNumber::from_index(index).unwrap();
        let sent = self.maildrop.send(number, None, &mut self.client.output);
        self.client.output.flush().unwrap();
        sent.map(|()| {
            let mut reply = Vec::new();
            while !reply.ends_with(b"\r\n.\r\n") {
                let mut piece = [0; 65536];
                let count = self.peer.read(&mut piece).unwrap();
                reply.extend_from_slice(&piece[..count]);
            }
            String::from_utf8(reply).unwrap()
        })
    }

    /// RETR of a mailbox that nobody changes any more.
    fn retr_at_rest(&mut self, index: u32) -> Option<String> {
        for _ in 0..2000 {
            match self.retr(index) {
                Ok(reply) => return Some(reply),
                Err(Unsent::Gone) => return None,
                Err(Unsent::Changing) => thread::sleep(Duration::from_millis(5)),
                Err(Unsent::Broken(error)) => panic!("{error}"),
            }
        }
        panic!("still changing");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Message `number` with more header lines, as it is stored.
fn noted(number: usize, notes: &str) -> String {
    let text = format!("line of message {number}\n").repeat(number * 5 + 1);
    format!("From a\nReceived: {number}\nSubject: {number}\n{notes}\n{text}\n")
}

fn stored(number: usize) -> String {
    noted(number, "")
}

/// The reply that sends what is stored.
fn reply(stored: &str) -> String {
    let (_, content) = stored.split_once('\n').unwrap();
    let content = content.strip_suffix('\n').unwrap().replace('\n', "\r\n");
    format!("+OK {} octets\r\n{content}.\r\n", content.len())
}

fn mailbox(numbers: &[usize]) -> String {
    numbers.iter().map(|number| stored(*number)).collect()
}

#[test]
fn messages_are_sent_from_wherever_they_are() {
    let mut session = Session::new(&mailbox(&[0, 1, 2, 3]));
    for order in [[3, 2, 1, 0], [1, 0, 3, 2], [0, 1, 2, 3]] {
        session.rewrite(&mailbox(&order));
        for number in 0..4 {
            let expected = Some(reply(&stored(number as usize)));
            assert_eq!(session.retr_at_rest(number), expected);
        }
    }
}

#[test]
fn notes_of_other_programs_are_sent_and_counted_and_list_stays() {
    let mut session = Session::new(&mailbox(&[0, 1, 2]));
    let number = MessageNumber::from_index(1).unwrap();
    let listed = pop3::Maildrop::octets(&session.maildrop, number);
    let read = noted(1, "Status: RO\nX-Status: A\n");
    session.rewrite(&[stored(0), read.clone(), stored(2)].concat());
    assert_eq!(session.retr_at_rest(1), Some(reply(&read)));
    assert_eq!(session.retr_at_rest(2), Some(reply(&stored(2))));
    assert_eq!(pop3::Maildrop::octets(&session.maildrop, number), listed);
}

#[test]
fn a_message_that_is_gone_is_refused_and_the_others_are_sent() {
    for gone in 0..3 {
        let mut session = Session::new(&mailbox(&[0, 1, 2]));
        let left: Vec<usize> = (0..3).filter(|number| *number != gone).collect();
        session.rewrite(&mailbox(&left));
        for number in 0..3 {
            let expected = (number != gone).then(|| reply(&stored(number)));
            assert_eq!(session.retr_at_rest(u32::try_from(number).unwrap()), expected);
        }
    }
}

#[test]
fn an_edited_message_is_refused_and_the_others_are_sent() {
    let mut session = Session::new(&mailbox(&[0, 1, 2]));
    session.rewrite(&mailbox(&[0, 1, 2]).replacen("line of message 1", "line of message !", 1));
    assert_eq!(session.retr_at_rest(0), Some(reply(&stored(0))));
    assert_eq!(session.retr_at_rest(1), None);
    assert_eq!(session.retr_at_rest(2), Some(reply(&stored(2))));
}

#[test]
fn what_comes_back_is_sent_again() {
    let mut session = Session::new(&mailbox(&[0, 1]));
    for nothing in ["", "From a\n", "no mailbox\n", &stored(0)[..9]] {
        session.rewrite(nothing);
        assert_eq!(session.retr_at_rest(1), None, "{nothing:?}");
        session.rewrite(&mailbox(&[5, 1]));
        assert_eq!(session.retr_at_rest(1), Some(reply(&stored(1))));
    }
}

#[test]
fn a_mailbox_that_was_replaced_or_removed_is_still_sent() {
    let mut session = Session::new(&mailbox(&[0, 1]));
    let other = session.path.with_extension("new");
    fs::write(&other, mailbox(&[7])).unwrap();
    fs::rename(&other, &session.path).unwrap();
    assert_eq!(session.retr(1).unwrap(), reply(&stored(1)));
    fs::remove_file(&session.path).unwrap();
    assert_eq!(session.retr(0).unwrap(), reply(&stored(0)));
}

#[test]
fn a_program_that_keeps_rewriting_is_not_followed_for_ever() {
    let mut session = Session::new(&mailbox(&[0, 1]));
    let orders = [mailbox(&[1, 0]), mailbox(&[0, 1])];
    let refused = orders.iter().cycle().take(1000).position(|order| {
        session.rewrite(order);
        match session.retr(0) {
            Ok(sent) => {
                assert_eq!(sent, reply(&stored(0)));
                false
            }
            Err(unsent) => {
                assert!(matches!(unsent, Unsent::Changing), "{unsent:?}");
                true
            }
        }
    });
    assert!(refused.is_some());
    // But messages are sent again once it has stopped.
    assert_eq!(session.retr_at_rest(0), Some(reply(&stored(0))));
}

/// A message that no buffer holds.
fn large() -> String {
    let mut text = String::from("From a\nReceived: large\nSubject: large\n\n");
    for number in 0..60_000 {
        writeln!(text, "line {number}").unwrap();
    }
    text.push('\n');
    text
}

/// Has the large message sent, changes the mailbox when the client has some of it, and returns
/// what the client got.
fn change_half_way(
    session: &mut Session,
    change: impl FnOnce() + Send,
) -> (Result<(), Unsent>, String) {
    let Session { maildrop, client, peer, .. } = session;
    thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut got = vec![0; 150_000];
            peer.read_exact(&mut got).unwrap();
            change();
            peer.read_to_end(&mut got).unwrap();
            String::from_utf8(got).unwrap()
        });
        let number = MessageNumber::from_index(1).unwrap();
        let sent = maildrop.send(number, None, &mut client.output);
        client.output.flush().unwrap();
        // The reader reads to the end.
        let (socket, _) = UnixStream::pair().unwrap();
        drop(std::mem::replace(client, Client::new(socket.into(), Duration::ZERO)));
        (sent, reader.join().unwrap())
    })
}

#[test]
fn what_changes_elsewhere_while_a_message_is_sent_does_not_disturb() {
    let old = [stored(0), large()].concat();
    for replacement in [stored(2), "From a\nReceived: other\n\n\n".to_owned()] {
        let mut session = Session::new(&old);
        let writer = fs::OpenOptions::new().write(true).open(&session.path).unwrap();
        let (sent, got) = change_half_way(&mut session, || {
            writer.write_all_at(replacement.as_bytes(), old.len() as u64).unwrap();
            writer.write_all_at(b"x", stored(0).len() as u64 - 3).unwrap();
        });
        sent.unwrap();
        assert_eq!(got, reply(&large()));
    }
}

#[test]
fn a_message_that_moves_while_it_is_sent_breaks_off_before_a_wrong_octet() {
    for new in [[large(), stored(0)].concat(), [stored(0), stored(1), large()].concat(), stored(0)]
    {
        let mut session = Session::new(&[stored(0), large()].concat());
        let path = session.path.clone();
        let (sent, got) = change_half_way(&mut session, || fs::write(&path, new).unwrap());
        assert!(
            matches!(sent, Err(Unsent::Broken(error)) if error.kind() == io::ErrorKind::InvalidData)
        );
        assert!(reply(&large()).starts_with(&got));
        assert!(got.len() < large().len());
    }
}

#[test]
fn whatever_another_program_writes_at_any_moment_no_wrong_octet_is_sent() {
    let states = [
        mailbox(&[0, 1, 2]),
        [stored(0), noted(1, "Status: O\n"), stored(2)].concat(),
        mailbox(&[2, 1, 0]),
        mailbox(&[0, 1, 2, 3]),
        mailbox(&[1, 0]),
        mailbox(&[0, 1, 2]).replace("line of message 1", "line of message !"),
        String::new(),
    ];
    let right: Vec<Vec<String>> = (0..3)
        .map(|number| ["", "Status: O\n"].map(|notes| reply(&noted(number, notes))).to_vec())
        .collect();
    let mut session = Session::new(&states[0]);
    let done = AtomicBool::new(false);
    let path = session.path.clone();
    let sent: Vec<(u32, Result<String, Unsent>)> = thread::scope(|scope| {
        scope.spawn(|| {
            let writer = fs::OpenOptions::new().write(true).open(&path).unwrap();
            for state in states.iter().cycle() {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                // Piece by piece, as programs that copy a mailbox back do.
                for (number, piece) in state.as_bytes().chunks(64).enumerate() {
                    writer.write_all_at(piece, number as u64 * 64).unwrap();
                }
                writer.set_len(state.len() as u64).unwrap();
                thread::sleep(Duration::from_micros(300));
            }
        });
        let numbers = (0..3).cycle().take(3000);
        let sent = numbers.map(|number| (number, session.retr(number))).collect();
        done.store(true, Ordering::Relaxed);
        sent
    });
    for (number, sent) in &sent {
        match sent {
            Ok(reply) => assert!(right[*number as usize].contains(reply), "{number}: {reply}"),
            Err(unsent) => assert!(!matches!(unsent, Unsent::Broken(_)), "{unsent:?}"),
        }
    }
    assert!(
        sent.iter().any(|(_, sent)| sent.is_ok()) && sent.iter().any(|(_, sent)| sent.is_err())
    );
    session.rewrite(&states[2]);
    for number in 0..3 {
        assert_eq!(session.retr_at_rest(number).as_ref(), Some(&right[number as usize][0]));
    }
}

const THREE: &str =
    "From a\nSubject: a\n\nfirst\n\nFrom b\nSubject: b\n\n.second\n\nFrom c\n\nthird\n";
const SECOND: &str = "+OK 23 octets\r\nSubject: b\r\n\r\n..second\r\n.\r\n";

#[test]
fn a_prepared_reply_is_that_of_its_message_and_given_once() {
    let mut session = Session::on_old_mailbox(THREE);
    for _ in 0..2 {
        assert!(session.prepare(1));
        assert_eq!(session.retr(1).unwrap(), SECOND);
        assert!(session.maildrop.prepared.of.is_none());
    }
    assert_eq!(session.retr(1).unwrap(), SECOND);
}

#[test]
fn another_command_gets_its_own_reply_and_forgets_the_prepared_one() {
    let mut session = Session::on_old_mailbox(THREE);
    for other in [0, 2] {
        let alone = session.retr(other).unwrap();
        assert!(session.prepare(1));
        assert_eq!(session.retr(other).unwrap(), alone);
        assert!(session.maildrop.prepared.of.is_none());
    }
    assert!(session.prepare(1));
    let second = MessageNumber::from_index(1).unwrap();
    let mark = session.client.output.mark();
    session.maildrop.send(second, Some(0), &mut session.client.output).unwrap();
    assert!(session.client.output.take_back(mark));
    assert!(session.maildrop.prepared.of.is_none(), "TOP took the reply to RETR");
}

#[test]
fn a_prepared_reply_is_not_given_when_the_message_changed_since() {
    let mut session = Session::on_old_mailbox(THREE);
    assert!(session.prepare(1));
    session.rewrite(&THREE.replace("second", "SECOND"));
    assert!(session.retr(1).is_err());
}

#[test]
fn a_mailbox_that_changed_is_read_when_a_message_is_asked_for() {
    let mut session = Session::on_old_mailbox(THREE);
    assert!(session.prepare(1));
    session.rewrite(&THREE.replace("second", "SECOND"));
    session.rewrite(THREE);
    assert!(!session.prepare(1), "prepared from a mailbox that has just changed");
    assert_eq!(session.retr(1).unwrap(), SECOND);
}

#[test]
fn a_message_that_is_too_long_or_not_there_is_not_prepared() {
    let body = "x".repeat(usize::try_from(LONGEST_PREPARED).unwrap());
    let mut session = Session::on_old_mailbox(&format!("From a\n\n{body}\n"));
    assert!(!session.prepare(0));
    assert!(!session.prepare(1));
}

#[test]
fn what_follows_a_from_line_alone_is_sent_from_a_new_mailbox() {
    let mut session = Session::new(&format!("From x\n{THREE}"));
    for (index, reply) in [(0, "+OK 0 octets\r\n.\r\n"), (2, SECOND)] {
        assert_eq!(session.retr(index).unwrap(), reply);
    }
    assert!(session.retr(1).unwrap().contains("first"));
}

/// What a session on two messages of one unique-id makes of the file at `path`, opened like that.
fn recalled(path: &PathBuf, how: &fs::OpenOptions) -> (Option<NotRemembered>, Session) {
    let mut session = Session::new("From a\n\none\n\nFrom a\n\ntwo\n");
    let wrong = session.maildrop.recall(how.open(path).unwrap().into());
    session.maildrop.distinguish().unwrap();
    (wrong, session)
}

#[test]
fn file_of_unique_ids_that_cannot_be_read_is_not_replaced() {
    let path = std::env::temp_dir().join(format!("popa3d-ids-of-drop-{}", std::process::id()));
    let (read, write) =
        (fs::OpenOptions::new().read(true).clone(), fs::OpenOptions::new().write(true).clone());
    fs::write(&path, "").unwrap();
    let (wrong, session) = recalled(&path, &read);
    assert_eq!(wrong, None);
    let ids = session.maildrop.to_remember(|_| false).unwrap();
    fs::write(&path, &ids).unwrap();
    let (wrong, session) = recalled(&path, &write);
    assert_eq!(wrong, Some(NotRemembered::Unreadable(nix::Error::EBADF as i32)));
    assert_eq!(session.maildrop.to_remember(|_| false), None);
    assert_eq!(session.maildrop.to_remember(|number| number == 0), None);
    let (wrong, session) = recalled(&path, &read);
    assert_eq!((wrong, session.maildrop.to_remember(|_| false)), (None, None));
    fs::remove_file(path).unwrap();
}

#[test]
fn damaged_lines_of_unique_ids_are_told_and_not_written_again() {
    let path = std::env::temp_dir().join(format!("popa3d-ids-damaged-{}", std::process::id()));
    let read = fs::OpenOptions::new().read(true).clone();
    fs::write(&path, "").unwrap();
    let ids = recalled(&path, &read).1.maildrop.to_remember(|_| false).unwrap();
    fs::write(&path, format!("{ids}no entry\nnor this\n")).unwrap();
    let (wrong, session) = recalled(&path, &read);
    assert_eq!(wrong, Some(NotRemembered::Damaged(2)));
    assert_eq!(session.maildrop.to_remember(|_| false), Some(ids));
    fs::remove_file(path).unwrap();
}
