//! A message as POP3 sends it: CRLF line ends, dots stuffed. Runs in the worker.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use memchr::memchr_iter;

use super::Message;
use super::line_ends::completion;

/// Read at a time. What comes of it, at most twice as much, stays in the second-level cache
/// until the socket has taken it. Small in tests, so that lines lie across its edges.
const BLOCK: usize = if cfg!(test) { 5 } else { 128 * 1024 };

/// Read first for TOP, which mostly ends within the first lines of a body.
const TOP_BLOCK: usize = if cfg!(test) { 3 } else { 16 * 1024 };

/// Why a message was not sent.
#[derive(Debug)]
pub enum TransmitError {
    /// The mailbox could not be read.
    Read(io::Error),
    /// The mailbox ends within the message: another program shortened it.
    Shrunk,
    /// The sink did not take what it got.
    Sink(io::Error),
}

impl TransmitError {
    fn reading(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Shrunk } else { Self::Read(error) }
    }
}

impl fmt::Display for TransmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(_) => write!(f, "read a message from the mailbox"),
            Self::Shrunk => write!(f, "mailbox was shortened within a message"),
            Self::Sink(_) => write!(f, "send a message"),
        }
    }
}

impl std::error::Error for TransmitError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(error) | Self::Sink(error) => Some(error),
            Self::Shrunk => None,
        }
    }
}

/// Buffers, to be made once a session; as large as the largest message needed so far, and no larger than
/// a block.
#[derive(Default)]
pub struct Workspace {
    input: Vec<u8>,
    output: Vec<u8>,
}

/// Where the octets of a message come from.
pub trait Source {
    /// Fills `buffer` with what is at `offset` of the mailbox.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when the mailbox ends before; whatever else keeps it from being read.
    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Source for &File {
    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(*self, buffer, offset)
    }
}

/// Gives `message` to `sink` in pieces as large as possible, without the final ".CRLF". With
/// `lines`, the header, the empty line and that many lines of the body (TOP); else all (RETR).
pub fn transmit(
    workspace: &mut Workspace,
    source: &mut impl Source,
    message: &Message,
    lines: Option<u64>,
    sink: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), TransmitError> {
    let mut served = message.served();
    let mut encoder = Encoder::new();
    let mut top = lines.map(Top::new);
    // TOP is mostly about a header.
    let mut block = if top.is_some() { TOP_BLOCK } else { BLOCK };
    while !served.is_empty() {
        let left = usize::try_from(served.end - served.start).unwrap_or(usize::MAX);
        let want = left.min(block);
        block = BLOCK;
        if workspace.input.len() < want {
            workspace.input.resize(want, 0);
        }
        let Some(mut input) = workspace.input.get_mut(..want) else { break };
        source.read_exact_at(input, served.start).map_err(TransmitError::reading)?;
        served.start += input.len() as u64;
        if let Some(end) = top.as_mut().and_then(|top| top.end(input)) {
            input = input.get_mut(..end).unwrap_or_default();
            served.end = served.start;
        }
        workspace.output.clear();
        // A block of nothing but line ends becomes twice as long; one that begins with a dot, by one.
        workspace.output.reserve(2 * input.len() + 1);
        encoder.encode(input, &mut workspace.output);
        if served.is_empty() {
            workspace.output.extend_from_slice(completion(encoder.before));
        }
        sink(&workspace.output).map_err(TransmitError::Sink)?;
    }
    Ok(())
}

/// Turns bytes of an mbox into what a client gets, block by block.
struct Encoder {
    /// The last byte of the block before.
    before: Option<u8>,
}

impl Encoder {
    fn new() -> Self {
        Self { before: None }
    }

    fn encode(&mut self, input: &[u8], output: &mut Vec<u8>) {
        let mut rest = input;
        let mut taken = 0;
        for at in memchr_iter(b'\n', input) {
            let Some((line, behind)) = rest.split_at_checked(at - taken) else { return };
            self.part_of_line(line, output);
            let crlf: &[u8] = if self.before == Some(b'\r') { b"\n" } else { b"\r\n" };
            output.extend_from_slice(crlf);
            self.before = Some(b'\n');
            rest = behind.get(1..).unwrap_or_default();
            taken = at + 1;
        }
        self.part_of_line(rest, output);
    }

    fn part_of_line(&mut self, part: &[u8], output: &mut Vec<u8>) {
        let (Some(first), Some(last)) = (part.first(), part.last()) else { return };
        if *first == b'.' && matches!(self.before, None | Some(b'\n')) {
            output.push(b'.');
        }
        output.extend_from_slice(part);
        self.before = Some(*last);
    }
}

/// Finds where that ends which TOP sends.
struct Top {
    part: Part,
    /// Lines of the body that are still to come.
    lines: u64,
    /// The last two bytes of the block before.
    before: [u8; 2],
}

enum Part {
    Header,
    Body,
}

impl Top {
    fn new(lines: u64) -> Self {
        Self { part: Part::Header, lines, before: *b"\n\n" }
    }

    /// The end, when it is in `input`.
    fn end(&mut self, input: &[u8]) -> Option<usize> {
        for at in memchr_iter(b'\n', input) {
            match self.part {
                Part::Header if self.is_empty_line(input, at) => self.part = Part::Body,
                Part::Header => continue,
                Part::Body => self.lines -= 1,
            }
            if self.lines == 0 {
                return Some(at + 1);
            }
        }
        self.before = match (input, self.before) {
            ([.., a, b], _) => [*a, *b],
            ([b], [_, a]) => [a, *b],
            ([], before) => before,
        };
        None
    }

    /// Whether the line that ends at `at` is empty.
    fn is_empty_line(&self, input: &[u8], at: usize) -> bool {
        let [a, b] = self.before;
        match input.get(..at).unwrap_or_default() {
            [] => b == b'\n' || [a, b] == *b"\n\r",
            [c] => *c == b'\n' || [b, *c] == *b"\n\r",
            line => line.ends_with(b"\n") || line.ends_with(b"\n\r"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mbox::samples::{file, index, mailbox, noise, read};

    fn sent(mailbox: &[u8], number: usize, lines: Option<u64>) -> Vec<u8> {
        let mut sent = Vec::new();
        let message = index(mailbox).messages()[number];
        let sink = &mut |piece: &[u8]| {
            sent.extend_from_slice(piece);
            Ok(())
        };
        transmit(&mut Workspace::default(), &mut &file(mailbox), &message, lines, sink).unwrap();
        sent
    }

    #[test]
    fn what_is_sent_is_what_an_obvious_reading_sends() {
        for mailbox in (0..1000).flat_map(|seed| [mailbox(seed), noise(seed)]) {
            for (number, message) in read(&mailbox).iter().enumerate() {
                for lines in [None, Some(0), Some(1), Some(3), Some(u64::MAX / 2)] {
                    let (sent, expected) = (sent(&mailbox, number, lines), message.sent(lines));
                    assert_eq!(
                        sent.escape_ascii().to_string(),
                        expected.escape_ascii().to_string(),
                        "message {number}, lines {lines:?} of {}",
                        mailbox.escape_ascii()
                    );
                }
            }
        }
    }

    #[test]
    fn a_size_is_what_is_sent_without_stuffed_dots() {
        for mailbox in (0..1000).flat_map(|seed| [mailbox(seed), noise(seed)]) {
            for (number, message) in index(&mailbox).messages().iter().enumerate() {
                let sent = sent(&mailbox, number, None);
                let stuffed = sent.split_inclusive(|byte| *byte == b'\n');
                let dots = stuffed.filter(|line| line.starts_with(b".")).count() as u64;
                assert_eq!(message.octets().0, sent.len() as u64 - dots);
            }
        }
    }

    #[test]
    fn crlf_stays_as_it_is_and_no_cr_is_doubled() {
        assert_eq!(
            sent(b"From a\r\nS: x\r\n\r\na\nb\r\nc\r", 0, None),
            b"S: x\r\n\r\na\r\nb\r\nc\r\n"
        );
    }

    #[test]
    fn a_file_that_shrank_within_the_message_is_noticed() {
        let mailbox = b"From a\nS: x\n\nbody\n";
        let message = index(mailbox).messages()[0];
        let shrunk = file(&mailbox[..12]);
        let sent =
            transmit(&mut Workspace::default(), &mut &shrunk, &message, None, &mut |_| Ok(()));
        assert!(matches!(sent, Err(TransmitError::Shrunk)));
    }
}
