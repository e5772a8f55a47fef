//! What identifies a message by its content, whatever other programs note in its header. Runs
//! in the worker.
//!
//! Two kinds: the fingerprint, which is fast, keyed, and means something within one session;
//! and the digest, which is the same for ever and read by a second pass over the few messages that need it.

use md5::{Digest as _, Md5};
use xxhash_rust::xxh3::Xxh3;

/// Hashes the served bytes of messages, one after another, without their status headers.
pub(super) trait ContentHash {
    /// What comes out.
    type Output: Copy;

    fn update(&mut self, bytes: &[u8]);

    /// The hash of one message; the next one begins.
    fn finish(&mut self) -> Self::Output;
}

/// XXH3 with a seed that nobody who sends mail knows.
pub(super) struct Fingerprint(Xxh3);

impl Fingerprint {
    pub(super) fn new(key: u64) -> Self {
        Self(Xxh3::with_seed(key))
    }
}

impl ContentHash for Fingerprint {
    type Output = u64;

    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&mut self) -> u64 {
        let fingerprint = self.0.digest();
        self.0.reset();
        fingerprint
    }
}

/// MD5, as the unique-id itself.
#[derive(Default)]
pub(super) struct ContentDigest(Md5);

impl ContentHash for ContentDigest {
    type Output = [u8; 16];

    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&mut self) -> [u8; 16] {
        self.0.finalize_reset().into()
    }
}
