//! Keys for the tickets by which clients resume TLS sessions (RFC 5077, RFC 8446 section 4.6.1).
//!
//! Each connection has processes of its own, so the keys are in a file: root's alone, in memory
//! (/run), and new every few hours.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use nix::fcntl::{Flock, FlockArg};
use zeroize::Zeroizing;

/// A key seals for this many seconds, and opens for as many more.
const PERIOD: u64 = 6 * 3600;

/// How long a key opens tickets, in seconds. What clients are told to keep them for is the worker's to say, and
/// not longer.
const LIFETIME: u64 = 2 * PERIOD;

/// No user is called so: names do not begin with a dot.
const FILE: &str = "/run/popa3d/.ticket-keys";

const NAME: usize = 16;
const KEY: usize = 32;
const BORN: usize = 8;
const ENTRY: usize = NAME + KEY + BORN;

/// One key, as it is in the file.
#[derive(Clone)]
struct TicketKey {
    /// What stands before a ticket, to tell the keys apart.
    name: [u8; NAME],
    key: Zeroizing<[u8; KEY]>,
    /// Seconds since 1970.
    born: u64,
}

/// The keys that hold now: the newest one seals.
pub(super) struct TicketKeys(Vec<TicketKey>);

impl TicketKeys {
    /// Reads the keys, and makes a new one when it is time.
    ///
    /// # Errors
    ///
    /// Those of the file system; the kernel has no random numbers.
    pub(super) fn load() -> io::Result<Self> {
        Self::load_from(Path::new(FILE), now())
    }

    fn load_from(path: &Path, now: u64) -> io::Result<Self> {
        let keys = Self::read(path, now)?;
        if keys.can_seal(now) {
            return Ok(keys);
        }
        let directory = path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(path.with_extension("lock"))?;
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
        // Somebody else may have made one meanwhile.
        let mut keys = Self::read(path, now)?;
        if !keys.can_seal(now) {
            keys.0.insert(0, TicketKey::new(now)?);
            keys.store(path)?;
        }
        Ok(keys)
    }

    /// Encrypts `plain`; what comes out is longer by 44 octets.
    pub(super) fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let key = self.0.first()?;
        let mut sealed = plain.to_vec();
        let nonce = key.cipher()?.seal_in_place_append_tag(Aad::from(&key.name), &mut sealed);
        let nonce = nonce.ok()?;
        Some([&key.name[..], nonce.as_ref(), &sealed].concat())
    }

    /// Decrypts what [`Self::seal`] made, with this key or the one before it.
    pub(super) fn open(&self, ticket: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = self.0.iter().find(|key| key.name == *name)?;
        let mut octets = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key.cipher()?.open_in_place(nonce, Aad::from(name), &mut octets).ok()?.len();
        octets.truncate(length);
        Some(octets)
    }

    /// Those in the file that are not too old; a file that is damaged, or of another time, has
    /// none.
    fn read(path: &Path, now: u64) -> io::Result<Self> {
        let octets = match std::fs::read(path) {
            Ok(octets) => Zeroizing::new(octets),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self(Vec::new())),
            Err(error) => return Err(error),
        };
        let keys = octets.chunks(ENTRY).filter_map(TicketKey::parse);
        Ok(Self(keys.filter(|key| key.age(now).is_some_and(|age| age < LIFETIME)).collect()))
    }

    fn can_seal(&self, now: u64) -> bool {
        self.0.first().and_then(|key| key.age(now)).is_some_and(|age| age < PERIOD)
    }

    fn store(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        let mut octets = Zeroizing::new(Vec::with_capacity(self.0.len() * ENTRY));
        for key in &self.0 {
            octets.extend_from_slice(&key.name);
            octets.extend_from_slice(&*key.key);
            octets.extend_from_slice(&key.born.to_le_bytes());
        }
        let mut options = OpenOptions::new();
        let mut file: File =
            options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&octets)?;
        std::fs::rename(new, path)
    }
}

impl TicketKey {
    fn new(now: u64) -> io::Result<Self> {
        let mut key = Self { name: [0; NAME], key: Zeroizing::new([0; KEY]), born: now };
        getrandom::fill(&mut key.name)?;
        getrandom::fill(&mut *key.key)?;
        Ok(key)
    }

    fn parse(entry: &[u8]) -> Option<Self> {
        let (name, rest) = entry.split_first_chunk::<NAME>()?;
        let (key, born) = rest.split_first_chunk::<KEY>()?;
        let born = u64::from_le_bytes(born.try_into().ok()?);
        Some(Self { name: *name, key: Zeroizing::new(*key), born })
    }

    /// Seconds; `None` for a key from the future.
    fn age(&self, now: u64) -> Option<u64> {
        now.checked_sub(self.born)
    }

    fn cipher(&self) -> Option<RandomizedNonceKey> {
        RandomizedNonceKey::new(&AES_256_GCM, &*self.key).ok()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            let name = format!("popa3d-ticket-keys-{:016x}", getrandom::u64().unwrap());
            Self(std::env::temp_dir().join(name))
        }

        fn load(&self, now: u64) -> TicketKeys {
            TicketKeys::load_from(&self.0.join("run/.ticket-keys"), now).unwrap()
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn opened(keys: &TicketKeys, ticket: &[u8]) -> Option<Vec<u8>> {
        keys.open(ticket).map(|octets| octets.to_vec())
    }

    #[test]
    fn ticket_of_one_process_is_opened_by_another() {
        let directory = Directory::new();
        let ticket = directory.load(1000).seal(b"state").unwrap();
        assert_eq!(opened(&directory.load(1000 + PERIOD - 1), &ticket).unwrap(), b"state");
    }

    #[test]
    fn key_opens_for_one_more_period_and_is_gone_then() {
        let directory = Directory::new();
        let ticket = directory.load(1000).seal(b"state").unwrap();
        let later = directory.load(1000 + PERIOD);
        assert!(opened(&later, &ticket).is_some());
        assert_ne!(later.seal(b"state").unwrap()[..NAME], ticket[..NAME], "not a new key");
        assert_eq!(opened(&directory.load(1000 + LIFETIME), &ticket), None);
        let kept = std::fs::read(directory.0.join("run/.ticket-keys")).unwrap();
        assert!(kept.len() <= 2 * ENTRY);
    }

    #[test]
    fn clock_that_was_put_back_makes_a_new_key() {
        let directory = Directory::new();
        let ticket = directory.load(10_000).seal(b"state").unwrap();
        assert_eq!(opened(&directory.load(500), &ticket), None);
    }

    #[test]
    fn no_other_ticket_is_opened() {
        let directory = Directory::new();
        let keys = directory.load(1000);
        let ticket = keys.seal(b"state").unwrap();
        for at in 0..ticket.len() {
            let mut other = ticket.clone();
            other[at] ^= 1;
            assert_eq!(opened(&keys, &other), None, "octet {at}");
            assert_eq!(opened(&keys, &ticket[..at]), None, "first {at} octets");
        }
    }

    #[test]
    fn damaged_file_is_as_good_as_none() {
        let directory = Directory::new();
        directory.load(1000);
        std::fs::write(directory.0.join("run/.ticket-keys"), b"nonsense").unwrap();
        let keys = directory.load(1000);
        assert!(opened(&keys, &keys.seal(b"state").unwrap()).is_some());
    }

    #[test]
    fn keys_are_for_root_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = Directory::new();
        directory.load(1000);
        let file = std::fs::metadata(directory.0.join("run/.ticket-keys")).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
    }
}
