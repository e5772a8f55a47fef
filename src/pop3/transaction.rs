//! The TRANSACTION state (RFC 1939 section 5, RFC 1460 for LAST).

use std::io::{self, Write};

use super::capability::Offers;
use super::{Command, MessageNumber, capability, reply};

/// What the state needs to know of a maildrop.
pub trait Maildrop {
    /// How many messages there are.
    fn count(&self) -> u32;
    /// The size of a message (RFC 1939 section 11); `None` when there is no such message.
    fn octets(&self, number: MessageNumber) -> Option<u64>;
    /// Writes the unique-id of a message (RFC 1939 section 7).
    ///
    /// # Errors
    ///
    /// Those of `out`.
    fn write_unique_id(&self, number: MessageNumber, out: &mut impl Write) -> io::Result<()>;
}

/// A client that has logged in, and what it did so far.
#[derive(Debug)]
pub struct Transaction {
    /// One a message: marked as deleted.
    marked: Vec<bool>,
    kept: u32,
    kept_octets: u64,
    /// What CAPA lists besides what it always lists.
    offers: Offers,
    /// LAST's answer: the highest number retrieved or marked since login or RSET, or 0.
    highest: u32,
}

/// What a command in TRANSACTION leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The reply is written; nothing else to do.
    Replied,
    /// Send this message, whole (`None`) or its header and that many lines of its body.
    Send(MessageNumber, Option<u64>),
    /// The client says goodbye: enter UPDATE.
    Quit,
}

impl Transaction {
    /// Begins with nothing marked.
    #[must_use]
    pub fn new(maildrop: &impl Maildrop, offers: Offers) -> Self {
        let count = maildrop.count();
        let mut new = Self { marked: Vec::new(), kept: 0, kept_octets: 0, offers, highest: 0 };
        new.marked.resize(count as usize, false);
        new.reset(maildrop);
        new
    }

    /// Messages that are not marked, and their octets.
    #[must_use]
    pub fn kept(&self) -> (u32, u64) {
        (self.kept, self.kept_octets)
    }

    /// Whether a message is marked as deleted.
    #[must_use]
    pub fn is_marked(&self, number: MessageNumber) -> bool {
        self.marked.get(number.index() as usize).copied().unwrap_or(false)
    }

    /// Notes that a message was sent in full.
    pub fn retrieved(&mut self, number: MessageNumber) {
        self.highest = self.highest.max(number.get());
    }

    /// Answers `command`.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn on(
        &mut self,
        command: Command<'_>,
        maildrop: &impl Maildrop,
        out: &mut impl Write,
    ) -> io::Result<Step> {
        match command {
            Command::Capa => capability::after_login(self.offers, out)?,
            Command::Stat => write!(out, "+OK {} {}\r\n", self.kept, self.kept_octets)?,
            Command::List(None) => self.list(maildrop, out)?,
            Command::List(Some(number)) => {
                if let Some(octets) = self.present(number, maildrop, out)? {
                    write!(out, "+OK {} {octets}\r\n", number.get())?;
                }
            }
            Command::Uidl(None) => self.unique_ids(maildrop, out)?,
            Command::Uidl(Some(number)) => {
                if self.present(number, maildrop, out)?.is_some() {
                    write!(out, "+OK {} ", number.get())?;
                    maildrop.write_unique_id(number, out)?;
                    out.write_all(b"\r\n")?;
                }
            }
            Command::Retr(number) => {
                if self.present(number, maildrop, out)?.is_some() {
                    return Ok(Step::Send(number, None));
                }
            }
            Command::Top(number, lines) => {
                if self.present(number, maildrop, out)?.is_some() {
                    return Ok(Step::Send(number, Some(lines)));
                }
            }
            Command::Dele(number) => {
                if let Some(octets) = self.present(number, maildrop, out)? {
                    self.mark(number, octets);
                    write!(out, "+OK message {} deleted\r\n", number.get())?;
                }
            }
            Command::Rset => {
                self.reset(maildrop);
                self.write_summary(out)?;
            }
            Command::Last => write!(out, "+OK {}\r\n", self.highest)?,
            Command::Noop => reply::ok(out, "nothing done")?,
            Command::Quit => return Ok(Step::Quit),
            Command::User(_)
            | Command::Pass(_)
            | Command::Auth(..)
            | Command::Stls
            | Command::Utf8 => reply::err(out, "already logged in")?,
        }
        Ok(Step::Replied)
    }

    /// The size of a message that is there and not marked, or else the reply that says so.
    fn present(
        &self,
        number: MessageNumber,
        maildrop: &impl Maildrop,
        out: &mut impl Write,
    ) -> io::Result<Option<u64>> {
        let octets = maildrop.octets(number);
        if octets.is_none() {
            write!(out, "-ERR no such message, only {} in maildrop\r\n", maildrop.count())?;
            Ok(None)
        } else if self.is_marked(number) {
            write!(out, "-ERR message {} already deleted\r\n", number.get())?;
            Ok(None)
        } else {
            Ok(octets)
        }
    }

    fn mark(&mut self, number: MessageNumber, octets: u64) {
        if let Some(marked) = self.marked.get_mut(number.index() as usize) {
            *marked = true;
            self.kept = self.kept.saturating_sub(1);
            self.kept_octets = self.kept_octets.saturating_sub(octets);
            self.highest = self.highest.max(number.get());
        }
    }

    fn reset(&mut self, maildrop: &impl Maildrop) {
        self.marked.fill(false);
        self.kept = maildrop.count();
        self.kept_octets = numbers(maildrop).filter_map(|number| maildrop.octets(number)).sum();
        self.highest = 0;
    }

    fn write_summary(&self, out: &mut impl Write) -> io::Result<()> {
        write!(out, "+OK {} messages ({} octets)\r\n", self.kept, self.kept_octets)
    }

    fn list(&self, maildrop: &impl Maildrop, out: &mut impl Write) -> io::Result<()> {
        self.write_summary(out)?;
        for number in numbers(maildrop).filter(|number| !self.is_marked(*number)) {
            if let Some(octets) = maildrop.octets(number) {
                write!(out, "{} {octets}\r\n", number.get())?;
            }
        }
        out.write_all(b".\r\n")
    }

    fn unique_ids(&self, maildrop: &impl Maildrop, out: &mut impl Write) -> io::Result<()> {
        reply::ok(out, "unique-ids follow")?;
        for number in numbers(maildrop).filter(|number| !self.is_marked(*number)) {
            write!(out, "{} ", number.get())?;
            maildrop.write_unique_id(number, out)?;
            out.write_all(b"\r\n")?;
        }
        out.write_all(b".\r\n")
    }
}

fn numbers(maildrop: &impl Maildrop) -> impl Iterator<Item = MessageNumber> {
    (0..maildrop.count()).filter_map(MessageNumber::from_index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pop3::parse;

    /// Messages of 100, 200 and 300 octets.
    struct Three;

    impl Maildrop for Three {
        fn count(&self) -> u32 {
            3
        }
        fn octets(&self, number: MessageNumber) -> Option<u64> {
            (number.get() <= 3).then(|| u64::from(number.get()) * 100)
        }
        fn write_unique_id(&self, number: MessageNumber, out: &mut impl Write) -> io::Result<()> {
            write!(out, "id{}", number.get())
        }
    }

    fn last_reply(lines: &[&str]) -> String {
        let mut state = Transaction::new(&Three, Offers::default());
        let mut out = Vec::new();
        for line in lines {
            out.clear();
            if let Ok(Step::Send(number, None)) =
                state.on(parse(line.as_bytes()).unwrap(), &Three, &mut out)
            {
                state.retrieved(number);
            }
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn deleted_messages_vanish_from_stat_list_and_uidl_but_keep_the_numbers_of_others() {
        assert_eq!(last_reply(&["DELE 2", "STAT"]), "+OK 2 400\r\n");
        let list = last_reply(&["DELE 2", "LIST"]);
        assert_eq!(list, "+OK 2 messages (400 octets)\r\n1 100\r\n3 300\r\n.\r\n");
        let ids = last_reply(&["DELE 2", "UIDL"]);
        assert_eq!(ids, "+OK unique-ids follow\r\n1 id1\r\n3 id3\r\n.\r\n");
    }

    #[test]
    fn deleted_message_answers_nothing_but_an_error() {
        for line in ["DELE 2", "RETR 2", "TOP 2 1", "LIST 2", "UIDL 2"] {
            let reply = last_reply(&["DELE 2", line]);
            assert_eq!(reply, "-ERR message 2 already deleted\r\n", "{line}");
        }
    }

    #[test]
    fn number_behind_the_last_message_is_refused() {
        for line in ["DELE 4", "RETR 4", "TOP 4 1", "LIST 4", "UIDL 4294967295"] {
            let reply = last_reply(&[line]);
            assert_eq!(reply, "-ERR no such message, only 3 in maildrop\r\n", "{line}");
        }
    }

    #[test]
    fn rset_brings_everything_back() {
        assert_eq!(last_reply(&["DELE 1", "DELE 3", "RSET", "STAT"]), "+OK 3 600\r\n");
        assert_eq!(last_reply(&["DELE 1", "RSET", "LAST"]), "+OK 0\r\n");
    }

    #[test]
    fn last_is_the_highest_number_retrieved_or_deleted() {
        assert_eq!(last_reply(&["LAST"]), "+OK 0\r\n");
        assert_eq!(last_reply(&["RETR 3", "DELE 1", "LAST"]), "+OK 3\r\n");
        assert_eq!(last_reply(&["TOP 3 1", "DELE 2", "LAST"]), "+OK 2\r\n");
    }

    #[test]
    fn stat_is_two_numbers_and_nothing_else() {
        assert_eq!(last_reply(&["STAT"]), "+OK 3 600\r\n");
    }
}
