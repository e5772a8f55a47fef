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
use super::window::{LOOKAHEAD, LOOKBEHIND, Seals, Window};
use super::{Index, Limits, Message, NOT_DISTINGUISHED, Octets};

/// How a From_ line begins.
pub(super) const FROM: &[u8] = b"From ";

const LINE_FEEDS: [u8; 64] = [b'\n'; 64];

/// Finds the messages in the first `size` bytes of `file`. `key` is random and the same for all
/// scans of a session: fingerprints are compared only between these.
pub fn scan(file: &File, size: u64, limits: &Limits, key: u64) -> Result<Index, ScanError> {
    find(file, size, limits, key, First::MayBeHidden)
}

/// The same in what was cut out of a mailbox, where no message is hidden: the first one of that stood
/// anywhere.
pub fn scan_cutting(file: &File, size: u64, limits: &Limits) -> Result<Index, ScanError> {
    find(file, size, limits, 0, First::IsMail)
}

/// What the first message may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    /// Data of UW-IMAP or Alpine, which no client is to see.
    MayBeHidden,
    IsMail,
}

fn find(
    file: &File,
    size: u64,
    limits: &Limits,
    key: u64,
    first: First,
) -> Result<Index, ScanError> {
    if let Some(limit) = limits.file_size.filter(|limit| size > *limit) {
        return Err(ScanError::TooLarge { size, limit });
    }
    let mut messages: Vec<Message> = Vec::new();
    let mut may_be_hidden = first == First::MayBeHidden;
    Pass::new(Fingerprint::new(key)).run(file, 0..size, &mut |found| {
        if std::mem::take(&mut may_be_hidden) && found.is_folder_internal_data {
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

    /// The pass that also notes checksums of what it reads; to be run once.
    pub(super) fn sealing(hash: C, key: u64) -> Self {
        Self { window: Window::sealing(key), ..Self::new(hash) }
    }

    /// These checksums.
    pub(super) fn into_seals(self) -> Option<Seals> {
        self.window.into_seals()
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
        if !completion.is_empty() && current.body < offset {
            // Whoever delivers the next message first writes the line end that is missing.
            self.hash.body(b"\n");
        }
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
mod tests;
