//! A closer look at one message, for people who wonder about a mailbox. Runs in a process that is
//! confined as a worker.
//!
//! Nothing of it changes what clients get; where messages begin and end is the scan's to say.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use memchr::{memchr, memchr_iter};

use super::field::{self, FirstField};
use super::scan::FROM;
use super::{Index, Message, message_id};

/// Octets that are read at once.
const CHUNK: usize = 64 * 1024;

/// Octets of a line that are looked at; enough for a field name and a value of 998 octets.
const LINE: usize = 1024;

/// Most octets of a Message-ID that are kept.
const MESSAGE_ID: usize = 998;

/// What a message is like.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Inspected {
    /// The value of the first Message-ID, unfolded and at most 998 octets of it.
    pub message_id: Option<Vec<u8>>,
    /// Whether there is a line behind the From_ line.
    pub has_content: bool,
    /// Whether an empty line ends the header.
    pub header_ends: bool,
    /// Lines of the header that are neither fields nor their continuation.
    pub no_fields: u64,
    /// Lines that look like From_ lines, where no empty line is before them.
    pub from_lines: u64,
    /// Lines that end in CRLF.
    pub crlf_lines: u64,
    /// NUL octets.
    pub nul_octets: u64,
    /// Octets of the longest line, without its end.
    pub longest_line: u64,
    /// Whether the last line has an end.
    pub last_line_ends: bool,
}

/// Reads a message.
///
/// # Errors
///
/// pread(2)'s, and `UnexpectedEof` when the mailbox is shorter by now.
pub fn inspect(file: &File, message: &Message) -> io::Result<Inspected> {
    let mut look = Look::new();
    read(file, message.start..message.end, |chunk| look.take(chunk))?;
    Ok(look.finish())
}

/// What is in front of the first message.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Front {
    /// Empty lines at the beginning of the file.
    pub empty_lines: u64,
    /// Whether a message behind them is hidden from clients.
    pub is_something_hidden: bool,
}

/// Looks at what the scan passed over, in a file of `size` octets.
///
/// # Errors
///
/// As [`inspect`].
pub fn front(file: &File, index: &Index, size: u64) -> io::Result<Front> {
    let end = index.messages().first().map_or(size, |first| first.start);
    let mut front = Front::default();
    read(file, 0..end, |chunk| {
        let length = chunk.iter().position(|octet| !matches!(octet, b'\r' | b'\n'));
        let empty = chunk.get(..length.unwrap_or(chunk.len())).unwrap_or_default();
        if !front.is_something_hidden {
            front.empty_lines += memchr_iter(b'\n', empty).count() as u64;
            front.is_something_hidden = length.is_some();
        }
    })?;
    Ok(front)
}

fn read(file: &File, range: std::ops::Range<u64>, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut at = range.start;
    while at < range.end {
        let length = usize::try_from(range.end - at).map_or(CHUNK, |rest| rest.min(CHUNK));
        let chunk = buffer.get_mut(..length).unwrap_or_default();
        file.read_exact_at(chunk, at)?;
        take(chunk);
        at += length as u64;
    }
    Ok(())
}

/// Where in a message.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    FromLine,
    Header,
    Body,
}

struct Look {
    found: Inspected,
    message_id: FirstField,
    place: Place,
    /// The beginning of the line that is being read.
    line: Vec<u8>,
    /// All of its octets, without the LF.
    length: u64,
    /// Its last one so far.
    last: u8,
    is_behind_empty_line: bool,
}

impl Look {
    fn new() -> Self {
        Self {
            found: Inspected::default(),
            message_id: FirstField::new(message_id::NAME, MESSAGE_ID),
            place: Place::default(),
            line: Vec::new(),
            length: 0,
            last: 0,
            is_behind_empty_line: false,
        }
    }

    fn take(&mut self, chunk: &[u8]) {
        self.found.nul_octets += memchr_iter(0, chunk).count() as u64;
        let mut rest = chunk;
        while let Some(at) = memchr(b'\n', rest) {
            let (piece, behind) = rest.split_at(at);
            self.piece(piece);
            self.end_line();
            rest = behind.get(1..).unwrap_or_default();
        }
        self.piece(rest);
    }

    fn piece(&mut self, piece: &[u8]) {
        let room = LINE.saturating_sub(self.line.len()).min(piece.len());
        self.line.extend_from_slice(piece.get(..room).unwrap_or_default());
        self.length += piece.len() as u64;
        self.last = piece.last().copied().unwrap_or(self.last);
        if !piece.is_empty() {
            self.found.last_line_ends = false;
        }
    }

    fn end_line(&mut self) {
        if self.length > 0 && self.last == b'\r' {
            self.found.crlf_lines += 1;
            self.length -= 1;
            self.line.truncate(usize::try_from(self.length).unwrap_or(LINE));
        }
        self.line_is_whole();
        self.found.last_line_ends = true;
    }

    fn line_is_whole(&mut self) {
        self.found.longest_line = self.found.longest_line.max(self.length);
        let line = std::mem::take(&mut self.line);
        if self.place != Place::FromLine {
            self.found.has_content = true;
            if !self.is_behind_empty_line && is_from_line(&line) {
                self.found.from_lines += 1;
            }
        }
        match self.place {
            Place::FromLine => self.place = Place::Header,
            Place::Header if self.length == 0 => {
                self.found.header_ends = true;
                self.place = Place::Body;
            }
            Place::Header => {
                self.message_id.line(&line);
                if !field::is_continuation(&line) && field::split(&line).is_none() {
                    self.found.no_fields += 1;
                }
            }
            Place::Body => {}
        }
        self.is_behind_empty_line = self.length == 0;
        self.line = line;
        self.line.clear();
        self.length = 0;
    }

    fn finish(mut self) -> Inspected {
        if self.length > 0 {
            self.line_is_whole();
        }
        self.found.message_id = self.message_id.value();
        self.found
    }
}

/// Whether programs that do not care for empty lines would begin a message here: it begins as a From_
/// line, and has a time in it.
fn is_from_line(line: &[u8]) -> bool {
    let is_time = |octets: &[u8]| match octets {
        [a, b, b':', c, d] => [a, b, c, d].iter().all(|digit| digit.is_ascii_digit()),
        _ => false,
    };
    line.starts_with(FROM) && line.windows(5).any(is_time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mbox::samples::{file, index, mailbox};

    fn all(mailbox: &[u8]) -> Vec<Inspected> {
        let (file, index) = (file(mailbox), index(mailbox));
        index.messages().iter().map(|message| inspect(&file, message).unwrap()).collect()
    }

    fn one(mailbox: &[u8]) -> Inspected {
        let mut all = all(mailbox);
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    #[test]
    fn usual_message_has_nothing_odd() {
        let found =
            one(b"From a Mon Nov  2 09:00:00 2026\nMessage-Id:  <1@b> \nA: b\n c\n\nText\n\n");
        let expected = Inspected {
            message_id: Some(b"<1@b>".to_vec()),
            has_content: true,
            header_ends: true,
            longest_line: 31,
            last_line_ends: true,
            ..Inspected::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn message_id_is_the_first_and_unfolded() {
        let id = |header: &str| one(format!("From a\n{header}\n\nb\n").as_bytes()).message_id;
        assert_eq!(id("MESSAGE-ID:\n\t<1@b>\nMessage-ID: <2@b>"), Some(b"<1@b>".to_vec()));
        assert_eq!(id("Message-ID : <1@b>\n <c>\nX: y\n z"), Some(b"<1@b> <c>".to_vec()));
        assert_eq!(id("Message-ID:\nX: y"), None);
        assert_eq!(id("X: y\n\nMessage-ID: <1@b>"), None);
        let long = id(&format!("Message-ID: {}\n {}", "x".repeat(3000), "y".repeat(3000)));
        assert_eq!(long.unwrap().len(), MESSAGE_ID);
    }

    #[test]
    fn lines_that_other_programs_take_for_the_next_message_are_counted() {
        let from = "From b Mon Nov  2 09:00:00 2026";
        let found =
            one(format!("From a\nA: b\n{from}\nC: d\n\ntext\n{from}\nFrom me to you\n").as_bytes());
        assert_eq!((found.from_lines, found.no_fields), (2, 1));
    }

    #[test]
    fn header_may_have_no_end_and_a_message_no_header() {
        let found = all(b"From a\nA: b\nthis is text\nFrom b\n");
        assert!(!found[0].header_ends && found[0].has_content);
        assert_eq!(found[0].no_fields, 2);
        let found = all(b"From a\nFrom b\n\nc");
        assert!(!found[0].has_content && !found[0].header_ends);
        assert!(found[1].has_content && found[1].header_ends && !found[1].last_line_ends);
    }

    #[test]
    fn octets_and_line_ends_are_counted_and_long_lines_measured() {
        let long = "x".repeat(200_000);
        let found = one(format!("From a\r\nA: b\r\n\r\n\0{long}\0\r\nc\r\r\n\n").as_bytes());
        assert_eq!((found.crlf_lines, found.nul_octets), (5, 2));
        assert_eq!(found.longest_line, 200_002);
        assert!(found.header_ends);
    }

    #[test]
    fn what_is_in_front_of_the_first_message_is_told() {
        let look =
            |mailbox: &[u8]| front(&file(mailbox), &index(mailbox), mailbox.len() as u64).unwrap();
        let expected =
            |empty_lines, is_something_hidden| Front { empty_lines, is_something_hidden };
        assert_eq!(look(b"From a\n\nb\n"), expected(0, false));
        assert_eq!(look(b"\n\r\nFrom a\n\nb\n"), expected(2, false));
        assert_eq!(look(b"\n\n"), expected(2, false));
        let notes =
            "From M\nSubject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\nX-IMAP: 1 2\n\n\n";
        assert_eq!(look(notes.as_bytes()), expected(0, true));
        assert_eq!(look(format!("\n{notes}From a\n\nb\n").as_bytes()), expected(1, true));
        assert_eq!(look(&b"\n".repeat(200_000)), expected(200_000, false));
    }

    #[test]
    fn any_mailbox_can_be_looked_at_in_any_pieces() {
        for seed in 0..300 {
            let mailbox = mailbox(seed);
            let index = index(&mailbox);
            for (message, whole) in index.messages().iter().zip(all(&mailbox)) {
                let mut look = Look::new();
                let range =
                    usize::try_from(message.start).unwrap()..usize::try_from(message.end).unwrap();
                mailbox[range].iter().for_each(|octet| look.take(&[*octet]));
                assert_eq!(look.finish(), whole, "seed {seed}");
            }
        }
    }
}
