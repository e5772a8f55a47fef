//! What identifies a message by its content, whatever other programs note in its header. Runs
//! in the worker.
//!
//! Two kinds: the fingerprint, which is fast, keyed but for the sums over the body, and means something
//! within one session; and the digest, which is the same for ever and takes a second pass over the few
//! messages that need one.

use md5::{Digest as _, Md5};
use xxhash_rust::xxh3::Xxh3;

use super::line_ends::line_feeds;

/// Hashes the served bytes of messages, one after another, without their status headers.
pub(super) trait ContentHash {
    /// What comes out.
    type Output: Copy;

    /// Takes a part of the header.
    fn header(&mut self, bytes: &[u8]);

    /// Takes a part of the body and counts the line feeds in it, as both cost little more than
    /// one.
    fn body(&mut self, bytes: &[u8]) -> u64;

    /// The hash of one message; the next one begins.
    fn finish(&mut self) -> Self::Output;
}

/// XXH3 over the header and over the sums of the body, seeded with what nobody who sends mail
/// knows.
pub(super) struct Fingerprint {
    hash: Xxh3,
    body: Sums,
}

impl Fingerprint {
    pub(super) fn new(key: u64) -> Self {
        Self { hash: Xxh3::with_seed(key), body: Sums::default() }
    }
}

impl ContentHash for Fingerprint {
    type Output = u64;

    fn header(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
    }

    fn body(&mut self, bytes: &[u8]) -> u64 {
        self.body.add(bytes)
    }

    fn finish(&mut self) -> u64 {
        std::mem::take(&mut self.body).finish(&mut self.hash);
        let fingerprint = self.hash.digest();
        self.hash.reset();
        fingerprint
    }
}

/// Fletcher's checksum in four lanes of 64 bits: a sum of the words, which sees what they are,
/// and a sum of these sums, which sees where they are.
///
/// No change that happens by itself leaves both sums as they are. One made for that purpose
/// gains nothing: it takes somebody who may write to the mailbox anyway. It is used because the
/// strong hash in its place would alone take a fifth of the scan (31 ms a GB; this and the count of line
/// feeds 23 ms together, that count alone 21 ms).
#[derive(Default)]
struct Sums {
    lanes: Lanes,
    /// Less than a block that waits for the rest of it.
    waiting: [u8; BLOCK],
    length: u64,
}

#[derive(Clone, Copy, Default)]
struct Lanes {
    words: [u64; BLOCK / 8],
    sums: [u64; BLOCK / 8],
}

const BLOCK: usize = 32;

/// Blocks whose line feeds a byte can count.
const RUN: usize = 255;

impl Sums {
    fn add(&mut self, bytes: &[u8]) -> u64 {
        let waiting = usize::try_from(self.length % BLOCK as u64).unwrap_or_default();
        self.length += bytes.len() as u64;
        let missing = (BLOCK - waiting) % BLOCK;
        let (start, rest) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
        let mut line_feeds_found = line_feeds(start);
        if let Some(room) = self.waiting.get_mut(waiting..waiting + start.len()) {
            room.copy_from_slice(start);
        }
        if !start.is_empty() && start.len() == missing {
            self.lanes.add(&self.waiting);
        }
        let mut lanes = self.lanes;
        for run in rest.chunks(BLOCK * RUN) {
            let mut counts = [0_u8; BLOCK];
            let mut blocks = run.chunks_exact(BLOCK);
            for block in &mut blocks {
                let Ok(block) = <&[u8; BLOCK]>::try_from(block) else { break };
                for (count, byte) in counts.iter_mut().zip(block) {
                    *count += u8::from(*byte == b'\n');
                }
                lanes.add(block);
            }
            line_feeds_found += counts.into_iter().map(u64::from).sum::<u64>();
            let end = blocks.remainder();
            line_feeds_found += line_feeds(end);
            if let Some(room) = self.waiting.get_mut(..end.len()) {
                room.copy_from_slice(end);
            }
        }
        self.lanes = lanes;
        line_feeds_found
    }

    fn finish(self, hash: &mut Xxh3) {
        if self.length == 0 {
            return;
        }
        let waiting = usize::try_from(self.length % BLOCK as u64).unwrap_or_default();
        hash.update(self.waiting.get(..waiting).unwrap_or_default());
        for word in self.lanes.words.into_iter().chain(self.lanes.sums).chain([self.length]) {
            hash.update(&word.to_le_bytes());
        }
    }
}

impl Lanes {
    #[inline]
    fn add(&mut self, block: &[u8; BLOCK]) {
        let lanes = self.words.iter_mut().zip(&mut self.sums);
        for ((word_sum, sum), word) in lanes.zip(block.chunks_exact(8)) {
            let word = <[u8; 8]>::try_from(word).map_or(0, u64::from_le_bytes);
            *word_sum = word_sum.wrapping_add(word);
            *sum = sum.wrapping_add(*word_sum);
        }
    }
}

/// MD5, as the unique-id itself.
#[derive(Default)]
pub(super) struct ContentDigest(Md5);

impl ContentHash for ContentDigest {
    type Output = [u8; 16];

    fn header(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn body(&mut self, bytes: &[u8]) -> u64 {
        self.0.update(bytes);
        line_feeds(bytes)
    }

    fn finish(&mut self) -> [u8; 16] {
        self.0.finalize_reset().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mbox::samples::Random;

    fn fingerprint(pieces: &[&[u8]]) -> u64 {
        let mut fingerprint = Fingerprint::new(1);
        for piece in pieces {
            let counted = piece.iter().filter(|byte| **byte == b'\n').count() as u64;
            assert_eq!(fingerprint.body(piece), counted);
        }
        fingerprint.finish()
    }

    #[test]
    fn a_fingerprint_does_not_depend_on_the_pieces() {
        let mut random = Random::new(1);
        let bytes: Vec<u8> = (0..20_000).map(|_| b"\nab"[random.below(3)]).collect();
        let whole = fingerprint(&[&bytes]);
        for _ in 0..200 {
            let (first, rest) = bytes.split_at(random.below(bytes.len()));
            let (second, third) = rest.split_at(random.below(40).min(rest.len()));
            assert_eq!(fingerprint(&[first, second, &[], third]), whole);
        }
    }

    #[test]
    fn a_fingerprint_sees_each_byte_and_each_swap() {
        let mut random = Random::new(2);
        let bytes: Vec<u8> = (0..200).map(|_| b"\nabcdefg"[random.below(8)]).collect();
        let whole = fingerprint(&[&bytes]);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x80;
            assert_ne!(fingerprint(&[&changed]), whole);
            for other in 0..at {
                let mut swapped = bytes.clone();
                swapped.swap(at, other);
                assert_eq!(fingerprint(&[&swapped]) == whole, swapped == bytes, "{other} {at}");
            }
        }
        assert_ne!(fingerprint(&[&bytes, b"\0"]), whole);
    }

    #[test]
    fn one_message_leaves_nothing_to_the_next() {
        let mut both = Fingerprint::new(1);
        for _ in 0..2 {
            both.header(b"Subject: a\n\n");
            both.body(b"some text, longer than one block is\n");
            let mut alone = Fingerprint::new(1);
            alone.header(b"Subject: a\n\n");
            alone.body(b"some text, longer than one block is\n");
            assert_eq!(both.finish(), alone.finish());
        }
    }
}
