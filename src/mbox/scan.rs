//! One pass over a mailbox: where each message is, how large, its unique-id and its fingerprint.
//! Runs in the worker.
//!
//! The pass reads the file once through one buffer. Headers are looked at line by line, bodies
//! only by searches and counts that run at memory speed, so that no line is ever copied and its
//! length does not matter. Nothing is taken from what a message says of itself: Content-Length
//! is ignored.

use std::fs::File;
use std::ops::Range;

use md5::{Digest as _, Md5};
use memchr::memchr;
use memchr::memmem::Finder;

use super::content::{ContentHash, Fingerprint};
use super::error::ScanError;
use super::header::{Header, Meaning};
use super::line_ends::{completion, crlfs, empty_line, line_feeds, trailing_empty_line};
use super::unique_id::BaseId;
use super::window::{LOOKAHEAD, LOOKBEHIND, Window};
use super::{Index, Limits, Message, NOT_DISTINGUISHED, Octets};

/// How a From_ line begins.
const FROM: &[u8] = b"From ";

const LINE_FEEDS: [u8; 64] = [b'\n'; 64];

/// Finds the messages in the first `size` bytes of `file`. `key` is random and the same for all
/// scans of a session: fingerprints are compared only between these.
pub fn scan(file: &File, size: u64, limits: &Limits, key: u64) -> Result<Index, ScanError> {
    if let Some(limit) = limits.file_size.filter(|limit| size > *limit) {
        return Err(ScanError::TooLarge { size, limit });
    }
    let mut messages: Vec<Message> = Vec::new();
    let mut first = true;
    Pass::new(Fingerprint::new(key)).run(file, 0..size, &mut |found| {
        if std::mem::take(&mut first) && found.is_folder_internal_data {
            return Ok(());
        }
        if messages.len() >= limits.messages as usize {
            return Err(ScanError::TooManyMessages { limit: limits.messages });
        }
        if messages.len() == messages.capacity() {
            // Doubling would waste up to as much again as the index needs.
            messages.reserve_exact((messages.len() / 4).max(64));
        }
        messages.push(found.message());
        Ok(())
    })?;
    Ok(Index { messages, distinctions: Vec::new() })
}

/// A message that the pass has seen the end of.
pub(super) struct Found<H> {
    start: u64,
    content: u64,
    end: u64,
    octets: Octets,
    separator: u8,
    base: BaseId,
    pub(super) hash: H,
    is_folder_internal_data: bool,
}

impl Found<u64> {
    pub(super) fn message(&self) -> Message {
        Message {
            start: self.start,
            content: self.content,
            end: self.end,
            octets: self.octets,
            fingerprint: self.hash,
            base: self.base,
            distinction: NOT_DISTINGUISHED,
            separator: self.separator,
        }
    }
}

/// The pass, for one kind of hash over the contents.
pub(super) struct Pass<C: ContentHash> {
    window: Window,
    from_line: Finder<'static>,
    hash: C,
    identity: Md5,
    current: Current,
}

/// The message that is being read.
#[derive(Default)]
struct Current {
    start: u64,
    content: u64,
    /// Where the body begins; behind everything as long as there is none.
    body: u64,
    header: Header,
    octets: u64,
    separator: u8,
}

/// What comes at the position.
#[derive(Clone, Copy)]
enum State {
    /// A line in front of the first message.
    Preamble,
    /// The rest of a From_ line.
    FromLine,
    /// The line behind a From_ line, where another From_ line is one too.
    FirstLine,
    /// A line of the header.
    HeaderLine,
    /// The rest of a line of the header that is longer than the window.
    HeaderLineRest(Meaning),
    /// Anything in a body.
    Body,
}

/// Why a step stopped, and where.
enum Step {
    /// Something else comes.
    On(State, usize),
    /// More of the file is needed, or this is its end.
    More(State, usize),
    /// The message ends here.
    Ended(usize),
}

impl<C: ContentHash> Pass<C> {
    pub(super) fn new(hash: C) -> Self {
        Self {
            window: Window::new(),
            from_line: Finder::new(b"\nFrom "),
            hash,
            identity: Md5::new(),
            current: Current::default(),
        }
    }

    /// Reads `range` of `file` and gives every message in it to `found`.
    pub(super) fn run(
        &mut self,
        file: &File,
        range: Range<u64>,
        found: &mut impl FnMut(Found<C::Output>) -> Result<(), ScanError>,
    ) -> Result<(), ScanError> {
        let mut position = self.window.open(file, range)?;
        let mut state = State::Preamble;
        loop {
            let step = match state {
                State::Preamble => self.preamble(position)?,
                State::FromLine => self.rest_of_from_line(position),
                State::FirstLine | State::HeaderLine => self.header(state, position),
                State::HeaderLineRest(meaning) => self.header_line_rest(meaning, position),
                State::Body => self.body(position),
            };
            (state, position) = match step {
                Step::On(state, position) => (state, position),
                Step::More(state, position) if !self.window.is_last() => {
                    (state, self.window.slide(file, position)?)
                }
                Step::More(State::Preamble, _) => return Ok(()),
                Step::More(_, end) => return found(self.finish(end)),
                Step::Ended(end) => {
                    found(self.finish(end))?;
                    self.begin(end);
                    (State::FromLine, end)
                }
            };
        }
    }

    fn begin(&mut self, position: usize) {
        let start = self.window.offset(position);
        self.current = Current { start, body: u64::MAX, ..Current::default() };
    }

    /// How far decisions may be taken: behind that, there is not enough to look ahead to.
    fn decided(&self) -> usize {
        let ahead = if self.window.is_last() { 0 } else { LOOKAHEAD };
        self.window.len().saturating_sub(ahead)
    }

    fn preamble(&mut self, start: usize) -> Result<Step, ScanError> {
        let decided = self.decided();
        let mut position = start;
        while position < decided {
            let rest = self.window.rest(position);
            if rest.starts_with(FROM) {
                self.begin(position);
                return Ok(Step::On(State::FromLine, position));
            }
            position += match empty_line(rest) {
                // A file that is nothing but line feeds is passed over by leaps.
                Some(_) if rest.starts_with(&LINE_FEEDS) => LINE_FEEDS.len(),
                Some(length) => usize::from(length),
                None => return Err(ScanError::NotMbox { offset: self.window.offset(position) }),
            };
        }
        Ok(Step::More(State::Preamble, position))
    }

    fn rest_of_from_line(&mut self, position: usize) -> Step {
        let (next, complete) = self.line_end(position);
        self.current.content = self.window.offset(next);
        if complete { Step::On(State::FirstLine, next) } else { Step::More(State::FromLine, next) }
    }

    /// Takes whole lines as long as there are any.
    fn header(&mut self, mut state: State, start: usize) -> Step {
        let decided = self.decided();
        let mut position = start;
        // Lines are counted and hashed many at a time: `hashed` is how far the latter got.
        let mut hashed = start;
        let step = loop {
            if position >= decided {
                break Step::More(state, position);
            }
            let rest = self.window.rest(position);
            if let Some(length) = empty_line(rest) {
                position += usize::from(length);
                self.current.body = self.window.offset(position);
                break Step::On(State::Body, position);
            }
            if matches!(state, State::FirstLine) && rest.starts_with(FROM) {
                break Step::Ended(position);
            }
            state = State::HeaderLine;
            let meaning = self.current.header.line(rest);
            let (next, complete) = self.line_end(position);
            if !complete {
                break Step::On(State::HeaderLineRest(meaning), position);
            }
            if meaning.identifies {
                self.identity.update(self.window.bytes(position, next));
            }
            if meaning.status {
                self.hash.header(self.window.bytes(hashed, position));
                hashed = next;
            }
            position = next;
        };
        self.hash.header(self.window.bytes(hashed, position));
        self.count(start, position, line_feeds(self.window.bytes(start, position)));
        step
    }

    fn header_line_rest(&mut self, meaning: Meaning, position: usize) -> Step {
        let (next, complete) = self.line_end(position);
        let bytes = self.window.bytes(position, next);
        if meaning.identifies {
            self.identity.update(bytes);
        }
        if !meaning.status {
            self.hash.header(bytes);
        }
        self.count(position, next, u64::from(complete));
        if complete {
            Step::On(State::HeaderLine, next)
        } else {
            Step::More(State::HeaderLineRest(meaning), next)
        }
    }

    fn body(&mut self, position: usize) -> Step {
        let next = match self.next_from_line(position) {
            Some(at) => {
                self.take_last(position, at);
                return Step::Ended(at);
            }
            None if self.window.is_last() => {
                let end = self.window.len();
                self.take_last(position, end);
                return Step::More(State::Body, end);
            }
            // Not the last two bytes: they may be the empty line in front of a From_ line.
            None => self.decided().saturating_sub(2).max(position),
        };
        self.take(position, next);
        Step::More(State::Body, next)
    }

    /// The first From_ line at or behind `position` that begins where decisions may be taken.
    fn next_from_line(&self, position: usize) -> Option<usize> {
        let to = self.window.len().min(self.decided() + FROM.len());
        let mut from = position.saturating_sub(1);
        loop {
            let at = from + self.from_line.find(self.window.bytes(from, to))? + 1;
            if trailing_empty_line(self.window.bytes(at.saturating_sub(LOOKBEHIND), at)) > 0 {
                return Some(at);
            }
            from = at;
        }
    }

    /// Takes what is left of a body up to `end`, but not an empty line in front of that.
    fn take_last(&mut self, position: usize, end: usize) {
        let empty_line =
            trailing_empty_line(self.window.bytes(end.saturating_sub(LOOKBEHIND), end));
        // The empty line in front of an empty body is not the body's.
        let in_body = self.window.offset(end).saturating_sub(self.current.body);
        self.current.separator = if in_body > 0 { empty_line } else { 0 };
        self.take(position, end.saturating_sub(usize::from(self.current.separator)));
    }

    fn take(&mut self, from: usize, to: usize) {
        let line_feeds = self.hash.body(self.window.bytes(from, to));
        self.count(from, to, line_feeds);
    }

    /// Counts what a client gets for the bytes from `from` to `to`, which hold so many line feeds.
    fn count(&mut self, from: usize, to: usize, line_feeds: u64) {
        let before = self.window.bytes(from.saturating_sub(1), from).first().copied();
        let bytes = self.window.bytes(from, to);
        self.current.octets += bytes.len() as u64 + line_feeds - crlfs(before, bytes);
    }

    /// Where the line that `position` is in ends, and whether it does in the window.
    fn line_end(&self, position: usize) -> (usize, bool) {
        match memchr(b'\n', self.window.rest(position)) {
            Some(at) => (position + at + 1, true),
            None => (self.window.len(), false),
        }
    }

    fn finish(&mut self, end: usize) -> Found<C::Output> {
        let current = &self.current;
        let offset = self.window.offset(end);
        let last = self.window.bytes(end.saturating_sub(1), end).first();
        let completion = if current.content < offset { completion(last.copied()) } else { b"" };
        Found {
            start: current.start,
            content: current.content,
            end: offset,
            octets: Octets(current.octets + completion.len() as u64),
            separator: current.separator,
            base: BaseId::new(self.identity.finalize_reset().into()),
            hash: self.hash.finish(),
            is_folder_internal_data: current.header.is_folder_internal_data(),
        }
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(
            hidden.messages()[0].range(),
            data.len() as u64..(data.len() + mail.len()) as u64
        );
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
}
