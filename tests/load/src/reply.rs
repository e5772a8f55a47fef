//! Reading replies: lines, and where a reply of many lines ends.

use std::io::{self, Read};

use memchr::memchr;
use memchr::memmem::Finder;

/// Behind the last line of a reply of many lines (RFC 1939 section 3). Dots at the beginning of a
/// line are doubled, so that it cannot be met earlier, and the status line ends with CRLF itself.
const END: &[u8] = b"\r\n.\r\n";

const ROOM: usize = 256 * 1024;

/// What a server sent and was not taken yet.
pub(crate) struct Replies {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    finder: Finder<'static>,
}

impl Replies {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; ROOM], start: 0, end: 0, finder: Finder::new(END) }
    }

    /// The next line without its end.
    pub(crate) fn line(&mut self, source: &mut impl Read) -> io::Result<String> {
        let mut seen = 0;
        loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some(at) = memchr(b'\n', &unread[seen..]) {
                let line = String::from_utf8_lossy(&unread[..seen + at]).trim_end().to_owned();
                self.start += seen + at + 1;
                return Ok(line);
            }
            seen = unread.len();
            self.fill(source)?;
        }
    }

    /// Takes a whole reply of many lines, and returns how many octets it had.
    pub(crate) fn skip_lines(&mut self, source: &mut impl Read) -> io::Result<u64> {
        if self.start == self.end {
            self.fill(source)?;
        }
        if self.buffer[self.start] != b'+' {
            let line = self.line(source)?;
            return Err(io::Error::other(format!("refused: {line}")));
        }
        let mut octets = 0;
        loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some(at) = self.finder.find(unread) {
                self.start += at + END.len();
                return Ok(octets + (at + END.len()) as u64);
            }
            // The end may be in two halves.
            let passed = unread.len().saturating_sub(END.len() - 1);
            self.start += passed;
            octets += passed as u64;
            self.fill(source)?;
        }
    }

    fn fill(&mut self, source: &mut impl Read) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let room = &mut self.buffer[self.end..];
        if room.is_empty() {
            return Err(io::Error::other("a line that is far too long"));
        }
        match source.read(room)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.end += count;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out the octets in pieces of one size.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(room.len());
            let (piece, rest) = self.0.split_at(count);
            room[..count].copy_from_slice(piece);
            self.0 = rest;
            Ok(count)
        }
    }

    #[test]
    fn replies_are_told_apart_however_they_are_cut() {
        let sent = b"+OK\r\n.\r\n+OK x\r\na\r\n..\r\n\r\n.\r\n+OK 7\r\n-ERR no\r\n";
        for size in 1..=sent.len() {
            let (mut source, mut replies) = (Pieces(sent, size), Replies::new());
            assert_eq!(replies.skip_lines(&mut source).unwrap(), 8);
            assert_eq!(replies.skip_lines(&mut source).unwrap(), 19);
            assert_eq!(replies.line(&mut source).unwrap(), "+OK 7");
            assert!(replies.skip_lines(&mut source).is_err(), "-ERR is no message");
        }
    }
}
