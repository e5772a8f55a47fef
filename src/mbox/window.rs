//! The buffer of the scan: a window that slides over a part of a file. Runs in the worker.
//!
//! Fresh bytes always land at the same, page-aligned place of the buffer and come from a
//! block-aligned place of the file, so that the kernel copies whole pages; the few bytes that are
//! still needed from the block before are moved in front of them.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Fits the second-level cache with room to spare, so that the passes over a block after the
/// first find it there. Small in tests, where everything has to lie across an edge once.
pub(super) const BLOCK: usize = if cfg!(test) { 150 } else { 128 * 1024 };

/// Room for what is kept of the block before. [`LOOKAHEAD`] and [`LOOKBEHIND`] fit in.
const CARRY: usize = 4096;

/// Bytes that are there behind the position when a decision is taken, unless the range ends
/// earlier: longer than any start of a line that means something.
pub(super) const LOOKAHEAD: usize = 128;

/// Bytes before the position that stay there: the end of a line and an empty line.
pub(super) const LOOKBEHIND: usize = 3;

/// A part of a file, seen piece by piece. Indices are those of the buffer and are valid until
/// the next [`Window::slide`].
pub(super) struct Window {
    buffer: Vec<u8>,
    /// The bytes that are there.
    filled: Range<usize>,
    /// Where `buffer[CARRY]` comes from.
    block: u64,
    /// Where the next block begins.
    next: u64,
    end: u64,
    seals: Option<Seals>,
}

/// Checksums of the blocks of a range, for whoever reads it again and wants the same.
pub(super) struct Seals {
    key: u64,
    sums: Vec<u64>,
}

impl Window {
    pub(super) fn new() -> Self {
        Self {
            // Grows to what is read at once: most mailboxes are smaller than a block.
            buffer: vec![0; CARRY],
            filled: CARRY..CARRY,
            block: 0,
            next: 0,
            end: 0,
            seals: None,
        }
    }

    /// One that notes the checksums of what it reads.
    pub(super) fn sealing(key: u64) -> Self {
        Self { seals: Some(Seals { key, sums: Vec::new() }), ..Self::new() }
    }

    /// The checksums of what was read.
    pub(super) fn into_seals(self) -> Option<Seals> {
        self.seals
    }

    /// Starts over at the beginning of `range`.
    pub(super) fn open(&mut self, file: &File, range: Range<u64>) -> io::Result<usize> {
        self.filled = CARRY..CARRY;
        self.block = range.start;
        self.next = range.start;
        self.end = range.end.max(range.start);
        self.slide(file, CARRY)
    }

    /// Reads the next block. What lies more than [`LOOKBEHIND`] bytes before `position` is
    /// forgotten; returns where `position` is now.
    pub(super) fn slide(&mut self, file: &File, position: usize) -> io::Result<usize> {
        let keep = position.saturating_sub(LOOKBEHIND).max(self.filled.start);
        let kept = self.filled.end.saturating_sub(keep).min(CARRY);
        let from = self.filled.end.saturating_sub(kept);
        let to = CARRY.saturating_sub(kept);
        self.buffer.copy_within(from..self.filled.end, to);

        let left = usize::try_from(self.end.saturating_sub(self.next)).unwrap_or(usize::MAX);
        let want = left.min(BLOCK);
        if self.buffer.len() < CARRY + want {
            self.buffer.resize(CARRY + want, 0);
        }
        if let Some(room) = self.buffer.get_mut(CARRY..CARRY + want) {
            file.read_exact_at(room, self.next)?;
            if let Some(seals) = &mut self.seals {
                seals.sums.push(xxh3_64_with_seed(room, seals.key));
            }
        }
        self.block = self.next;
        self.next += want as u64;
        self.filled = to..CARRY + want;
        Ok(position.saturating_sub(from) + to)
    }

    /// Where the bytes that are there end.
    pub(super) fn len(&self) -> usize {
        self.filled.end
    }

    /// Nothing comes behind what is there.
    pub(super) fn is_last(&self) -> bool {
        self.next >= self.end
    }

    /// The offset in the file of the byte at `index`.
    pub(super) fn offset(&self, index: usize) -> u64 {
        (self.block + index as u64).saturating_sub(CARRY as u64)
    }

    /// The bytes from `from` to `to`, or none where that is no part of what is there.
    pub(super) fn bytes(&self, from: usize, to: usize) -> &[u8] {
        if from < self.filled.start || to > self.filled.end {
            return &[];
        }
        self.buffer.get(from..to).unwrap_or(&[])
    }

    /// The bytes from `from` on.
    pub(super) fn rest(&self, from: usize) -> &[u8] {
        self.bytes(from, self.filled.end)
    }
}

impl Seals {
    /// Whether `octets` are those of block number `block`.
    pub(super) fn fit(&self, block: usize, octets: &[u8]) -> bool {
        self.sums.get(block) == Some(&xxh3_64_with_seed(octets, self.key))
    }
}
