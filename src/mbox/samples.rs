//! Mailboxes for the tests of this folder, and a slow, obvious reading of them to compare with.

use std::fs::{self, File};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Index, Limits, scan};

/// The key of fingerprints in tests.
pub(super) const KEY: u64 = 0x0123_4567_89ab_cdef;

/// A file that has these bytes and no name.
pub(super) fn file(bytes: &[u8]) -> File {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("popa3d-mbox-{}-{number}", std::process::id());
    let path = std::env::temp_dir().join(name);
    fs::write(&path, bytes).unwrap();
    let file = File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    file
}

/// The index of a mailbox with these bytes, ids not yet made unique.
pub(super) fn index(bytes: &[u8]) -> Index {
    let limits = Limits { messages: 1_000_000, file_size: None };
    scan(&file(bytes), bytes.len() as u64, &limits, KEY).unwrap()
}

/// Numbers that look random and are the same in each run (xorshift64*).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    fn pick<'a>(&mut self, from: &[&'a [u8]]) -> &'a [u8] {
        from[self.below(from.len())]
    }
}

/// Made of the lines that mean something and of what looks like them.
pub(super) fn mailbox(seed: u64) -> Vec<u8> {
    const LINES: &[&[u8]] = &[
        b"",
        b"",
        b"",
        b"",
        b"From a",
        b"From ",
        b"From",
        b"from a",
        b">From a",
        b"Received: a",
        b"received: b",
        b"Date: a",
        b"DATE:b",
        b"Message-ID: a",
        b"Delivered-To: a",
        b"X-Delivery-ID: a",
        b"x-delivery-id: b",
        b" more",
        b"\tmore",
        b"Status: RO",
        b"X-Keywords: a",
        b"Content-Length: 7",
        b"Subject: a",
        b".",
        b"..",
        b".a",
        b"\0",
        b"\xff",
        b"a\rb",
        b"\r",
        b"\r\r",
        b"Received",
        b" ",
    ];
    let mut random = Random::new(seed);
    let mut bytes = b"\n".repeat(random.below(8).saturating_sub(5));
    bytes.extend_from_slice(b"From first\n");
    for _ in 0..random.below(30) {
        bytes.extend_from_slice(random.pick(LINES));
        if random.below(12) == 0 {
            bytes.extend(b"long ".repeat(random.below(100)));
        }
        bytes.extend_from_slice(random.pick(&[b"\n", b"\n", b"\n", b"\r\n"]));
        if random.below(8) == 0 {
            bytes
                .extend_from_slice(random.pick(&[b"\nFrom b\n", b"\r\nFrom b\r\nReceived: c\r\n"]));
        }
    }
    if random.below(4) == 0 {
        bytes.extend_from_slice(random.pick(&[b"end", b".", b"From z", b"\r", b"."]));
    }
    bytes
}

/// Made of single octets, so that line ends and From_ lines come about in every way.
pub(super) fn noise(seed: u64) -> Vec<u8> {
    const PIECES: &[&[u8]] =
        &[b"\n", b"\n", b"\r", b"\r\n", b"From ", b"From", b"a", b".", b":", b" "];
    let mut random = Random::new(seed);
    let mut bytes = b"From ".to_vec();
    for _ in 0..random.below(200) {
        bytes.extend_from_slice(random.pick(PIECES));
    }
    bytes
}

/// A message as the obvious reading finds it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Lines as the client gets them, without line ends and stuffed dots.
    pub(super) header_lines: usize,
    pub(super) lines: Vec<Vec<u8>>,
}

impl Read {
    /// What RETR sends, or TOP when it stops after `lines` of the body.
    pub(super) fn sent(&self, lines: Option<u64>) -> Vec<u8> {
        let count = match lines {
            Some(lines) => self.header_lines + usize::try_from(lines).unwrap(),
            None => usize::MAX,
        };
        let stuffed = |line: &Vec<u8>| {
            let dot: &[u8] = if line.starts_with(b".") { b"." } else { b"" };
            [dot, line, b"\r\n"].concat()
        };
        self.lines.iter().take(count).flat_map(stuffed).collect()
    }

    pub(super) fn octets(&self) -> u64 {
        self.lines.iter().map(|line| line.len() as u64 + 2).sum()
    }
}

/// Reads line by line, with all of it in memory.
pub(super) fn read(mailbox: &[u8]) -> Vec<Read> {
    let mut messages: Vec<Vec<(u64, &[u8])>> = Vec::new();
    let mut before: &[u8] = b"\n";
    let mut offset = 0;
    for line in mailbox.split_inclusive(|byte| *byte == b'\n') {
        let behind_from_line = messages.last().is_some_and(|message| message.len() == 1);
        if line.starts_with(b"From ") && (is_empty(before) || behind_from_line) {
            messages.push(Vec::new());
        }
        if let Some(message) = messages.last_mut() {
            message.push((offset, line));
        }
        before = line;
        offset += line.len() as u64;
    }
    messages.iter().map(|lines| one(lines)).collect()
}

fn one(lines: &[(u64, &[u8])]) -> Read {
    let (last_offset, last) = lines[lines.len() - 1];
    let content = &lines[1..];
    let header_end = content.iter().position(|(_, line)| is_empty(line));
    let header_lines = header_end.map_or(content.len(), |at| at + 1);
    let separated = header_lines < content.len() && is_empty(last);
    let served = &content[..content.len() - usize::from(separated)];
    Read {
        start: lines[0].0,
        end: last_offset + last.len() as u64,
        header_lines,
        lines: served.iter().map(|(_, line)| without_end(line)).collect(),
    }
}

fn is_empty(line: &[u8]) -> bool {
    line == b"\n" || line == b"\r\n"
}

fn without_end(line: &[u8]) -> Vec<u8> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line).to_vec()
}
