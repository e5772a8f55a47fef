//! Cuts what the client sends into lines, and wipes them: they carry passwords.

use zeroize::{Zeroize, Zeroizing};

/// Longest line, in octets, with its line end.
///
/// RFC 2449 section 4 allows 255 for a command. A password may have 511 (PAM_MAX_RESP_SIZE); with two
/// names of 255, in AUTH PLAIN's base64, that makes 1368.
pub const MAX_LINE: usize = 2048;

/// What is read at once: a line, and commands pipelined behind it.
const CAPACITY: usize = 2 * MAX_LINE;

/// What the client sent up to a line end.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// The line without its CRLF or LF.
    Whole(&'a [u8]),
    /// A line of more than [`MAX_LINE`] octets; all of it was thrown away.
    TooLong,
}

/// Octets received and not yet taken as lines.
#[derive(Debug)]
pub struct LineBuffer {
    octets: Zeroizing<Vec<u8>>,
    /// Start of what was not taken yet; what lies before is wiped.
    start: usize,
    end: usize,
    /// Whether the rest of a line that is too long is still to come.
    skipping: bool,
}

impl Default for LineBuffer {
    fn default() -> Self {
        Self { octets: Zeroizing::new(vec![0; CAPACITY]), start: 0, end: 0, skipping: false }
    }
}

impl LineBuffer {
    /// Room for what is received next; never empty when [`Self::has_line`] is false.
    pub fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.octets.copy_within(self.start..self.end, 0);
            let (kept, end) = (self.end - self.start, self.end);
            self.wipe(kept, end);
            (self.start, self.end) = (0, kept);
        }
        if self.end >= MAX_LINE && !self.has_line() {
            // No line end within a line's length: whatever it is, it gets one reply, later.
            self.wipe(0, self.end);
            self.end = 0;
            self.skipping = true;
        }
        self.octets.get_mut(self.end..).unwrap_or_default()
    }

    /// Takes `count` octets, written into [`Self::room`], as received.
    pub fn received(&mut self, count: usize) {
        self.end = self.octets.len().min(self.end + count);
    }

    /// Whether a line end has been received that was not taken yet.
    #[must_use]
    pub fn has_line(&self) -> bool {
        self.pending().contains(&b'\n')
    }

    /// Whether the next line begins with these octets.
    #[must_use]
    pub fn begins_with(&self, octets: &[u8]) -> bool {
        !self.skipping && self.pending().starts_with(octets)
    }

    /// Hands the next line, if it is complete, to `act`, and wipes it afterwards.
    ///
    /// What follows the last line end is no line and is never handed out.
    pub fn take<T>(&mut self, act: impl FnOnce(Line<'_>) -> T) -> Option<T> {
        let pending = self.pending();
        let length = memchr::memchr(b'\n', pending)?;
        let line = pending.get(..length).unwrap_or_default();
        let result = if self.skipping || length >= MAX_LINE {
            act(Line::TooLong)
        } else {
            act(Line::Whole(line.strip_suffix(b"\r").unwrap_or(line)))
        };
        self.skipping = false;
        let start = self.start;
        self.start += length + 1;
        self.wipe(start, self.start);
        Some(result)
    }

    fn pending(&self) -> &[u8] {
        self.octets.get(self.start..self.end).unwrap_or_default()
    }

    fn wipe(&mut self, from: usize, to: usize) {
        if let Some(octets) = self.octets.get_mut(from..to) {
            octets.zeroize();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(buffer: &mut LineBuffer, mut octets: &[u8]) -> Vec<Option<Vec<u8>>> {
        let mut lines = Vec::new();
        while !octets.is_empty() {
            let room = buffer.room();
            let count = room.len().min(octets.len());
            assert!(count > 0, "no room, and no line to make some");
            room[..count].copy_from_slice(&octets[..count]);
            buffer.received(count);
            octets = &octets[count..];
            while let Some(line) = buffer.take(|line| match line {
                Line::Whole(line) => Some(line.to_vec()),
                Line::TooLong => None,
            }) {
                lines.push(line);
            }
        }
        lines
    }

    #[test]
    fn crlf_and_lf_end_a_line_and_nothing_else_does() {
        let lines = feed(&mut LineBuffer::default(), b"NOOP\r\nSTAT\nLIST\r");
        assert_eq!(lines, [Some(b"NOOP".to_vec()), Some(b"STAT".to_vec())]);
    }

    #[test]
    fn line_that_is_too_long_counts_once_however_long() {
        for length in [MAX_LINE, CAPACITY, 10 * CAPACITY + 1] {
            let mut octets = vec![b'x'; length];
            octets.extend_from_slice(b"\nNOOP\n");
            let lines = feed(&mut LineBuffer::default(), &octets);
            assert_eq!(lines, [None, Some(b"NOOP".to_vec())], "{length} octets");
        }
    }

    #[test]
    fn longest_line_is_taken_whole() {
        let mut octets = vec![b'x'; MAX_LINE - 1];
        octets.push(b'\n');
        assert_eq!(
            feed(&mut LineBuffer::default(), &octets)[0].as_ref().unwrap().len(),
            MAX_LINE - 1
        );
    }

    #[test]
    fn lines_arrive_however_they_are_cut_into_packets() {
        let mut buffer = LineBuffer::default();
        let mut lines = Vec::new();
        for octet in b"USER alice\r\nPASS secret\r\n" {
            lines.extend(feed(&mut buffer, &[*octet]));
        }
        assert_eq!(lines, [Some(b"USER alice".to_vec()), Some(b"PASS secret".to_vec())]);
    }

    #[test]
    fn what_was_taken_is_wiped() {
        let mut buffer = LineBuffer::default();
        feed(&mut buffer, b"PASS secret\r\nNO");
        feed(&mut buffer, b"OP\r\n");
        assert!(buffer.octets.iter().all(|octet| *octet == 0));
    }
}
