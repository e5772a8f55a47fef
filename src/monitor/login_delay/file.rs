//! Where failed logins are remembered: a file of fixed size in memory (/run), root's alone.
//!
//! Each session has processes of its own, so a file is what they have in common. It is locked as a
//! whole, for the few microseconds that a bucket is read and written; the kernel's lock, so that nothing
//! of it survives a process that dies.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use zeroize::Zeroizing;

use super::table::{BUCKET, Bucket};

/// Says what the file is, and how it is laid out: this, the key, the buckets.
const MAGIC: [u8; 32] = *b"popa3d: failed logins, layout 1\n";

/// Octets of the key.
pub(super) const KEY: usize = 32;

/// As many as sources can be remembered, four each: a flood from more of them drives out the oldest.
const BUCKETS: u16 = 1024;

const HEADER: usize = MAGIC.len() + KEY;
const SIZE: usize = HEADER + BUCKETS as usize * BUCKET;

/// Root's alone.
const MODE: u32 = 0o600;

/// Nobody holds the lock for so long unless it was stopped, and logins are not to wait for that.
const PATIENCE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// The file, locked until this is dropped.
pub(super) struct Table {
    file: Flock<File>,
    key: Zeroizing<[u8; KEY]>,
}

impl Table {
    /// Opens the file; `None` when it remembers nothing: there is none, or something else in its
    /// place.
    ///
    /// # Errors
    ///
    /// Those of the file system, and `TimedOut` when somebody keeps it locked.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        match options().open(path) {
            Ok(file) => {
                let file = lock(file)?;
                Ok(read_key(&file)?.map(|key| Self { file, key }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens the file, or makes one: with room for all that it will ever hold, so that a full /run
    /// matters only once, and with a new key.
    ///
    /// # Errors
    ///
    /// As [`Self::open`], and the kernel has no random numbers.
    pub(super) fn open_or_make(path: &Path) -> io::Result<Self> {
        let mut options = options();
        options.create(true);
        let file = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Not every super-server reads our tmpfiles.d.
                let directory = path.parent().unwrap_or(Path::new("/"));
                DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
                options.open(path)?
            }
            result => result?,
        };
        let file = lock(file)?;
        let key = match read_key(&file)? {
            Some(key) => key,
            None => make(&file)?,
        };
        Ok(Self { file, key })
    }

    pub(super) fn key(&self) -> &[u8; KEY] {
        &self.key
    }

    /// The bucket for sources with this number.
    pub(super) fn read(&self, number: u64) -> io::Result<Bucket> {
        let mut octets = [0; BUCKET];
        self.file.read_exact_at(&mut octets, offset(number))?;
        Ok(Bucket::decode(&octets))
    }

    pub(super) fn write(&self, number: u64, bucket: &Bucket) -> io::Result<()> {
        self.file.write_all_at(&bucket.encode(), offset(number))
    }
}

fn offset(number: u64) -> u64 {
    HEADER as u64 + number % u64::from(BUCKETS) * BUCKET as u64
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(MODE);
    // A pipe would make us wait.
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

fn lock(mut file: File) -> io::Result<Flock<File>> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(50);
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((unlocked, Errno::EWOULDBLOCK)) if Instant::now() < deadline => file = unlocked,
            Err((_, Errno::EWOULDBLOCK)) => return Err(io::ErrorKind::TimedOut.into()),
            Err((_, error)) => return Err(error.into()),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The key in a file of ours; `None` for anything else that may be written over.
fn read_key(file: &File) -> io::Result<Option<Zeroizing<[u8; KEY]>>> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    if metadata.len() != SIZE as u64 || metadata.permissions().mode() & 0o7777 != MODE {
        return Ok(None);
    }
    let mut magic = [0; MAGIC.len()];
    let mut key = Zeroizing::new([0; KEY]);
    file.read_exact_at(&mut magic, 0)?;
    file.read_exact_at(&mut *key, MAGIC.len() as u64)?;
    Ok((magic == MAGIC).then_some(key))
}

fn make(file: &File) -> io::Result<Zeroizing<[u8; KEY]>> {
    let mut key = Zeroizing::new([0; KEY]);
    getrandom::fill(&mut *key)?;
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.set_len(0)?;
    file.write_all_at(&vec![0; SIZE - HEADER], HEADER as u64)?;
    file.write_all_at(&*key, MAGIC.len() as u64)?;
    // Last: a process that dies before leaves no file of ours.
    file.write_all_at(&MAGIC, 0)?;
    Ok(key)
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A directory of a test's own, and in it the path of a file.
    pub(in crate::monitor) struct Place {
        directory: PathBuf,
        pub(in crate::monitor) path: PathBuf,
    }

    impl Place {
        pub(in crate::monitor) fn new() -> Self {
            let name = format!("popa3d-login-delays-{:016x}", getrandom::u64().unwrap());
            let directory = std::env::temp_dir().join(name);
            let path = directory.join("run/.login-delays");
            Self { directory, path }
        }

        /// With a file that has this key: whether two marks look alike is not left to chance.
        pub(in crate::monitor) fn with_key(key: &[u8; KEY]) -> Self {
            let place = Self::new();
            let table = Table::open_or_make(&place.path).unwrap();
            table.file.write_all_at(key, MAGIC.len() as u64).unwrap();
            place
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }

    fn marked() -> Bucket {
        Bucket::decode(&[7; BUCKET])
    }

    /// A file in which buckets are marked.
    fn used() -> Place {
        let place = Place::new();
        let table = Table::open_or_make(&place.path).unwrap();
        table.write(0, &marked()).unwrap();
        table.write(1023, &marked()).unwrap();
        place
    }

    #[test]
    fn what_one_process_writes_another_one_reads() {
        let place = used();
        let table = Table::open(&place.path).unwrap().unwrap();
        for (number, expected) in
            [(0, marked()), (1, Bucket::default()), (1023, marked()), (1024, marked())]
        {
            assert_eq!(table.read(number).unwrap(), expected, "{number}");
        }
    }

    #[test]
    fn file_that_is_not_there_remembers_nothing_and_is_not_made_for_that() {
        let place = Place::new();
        assert!(Table::open(&place.path).unwrap().is_none());
        assert!(!place.directory.exists());
    }

    #[test]
    fn file_is_for_root_alone_and_never_grows() {
        let place = used();
        let table = Table::open(&place.path).unwrap().unwrap();
        for number in (0..5000).chain([u64::MAX]) {
            table.write(number, &marked()).unwrap();
        }
        let metadata = std::fs::metadata(&place.path).unwrap();
        assert_eq!((metadata.permissions().mode() & 0o777, metadata.len()), (0o600, 131_136));
    }

    #[test]
    fn each_file_has_a_key_of_its_own() {
        let (one, other) = (used(), used());
        let key = |place: &Place| *Table::open(&place.path).unwrap().unwrap().key();
        assert_ne!(key(&one), key(&other));
        assert_ne!(key(&one), [0; KEY]);
        assert_eq!(key(&one), key(&one));
    }

    #[test]
    fn file_that_is_damaged_or_not_ours_is_made_anew() {
        let damage: [fn(&File); 5] = [
            |file| file.set_len(0).unwrap(),
            |file| file.set_len(SIZE as u64 - 1).unwrap(),
            |file| file.set_len(SIZE as u64 + 1).unwrap(),
            |file| file.write_all_at(b"x", 0).unwrap(),
            |file| file.set_permissions(Permissions::from_mode(0o644)).unwrap(),
        ];
        for (number, damage) in damage.into_iter().enumerate() {
            let place = used();
            let key = *Table::open(&place.path).unwrap().unwrap().key();
            damage(&File::options().write(true).open(&place.path).unwrap());
            assert!(Table::open(&place.path).unwrap().is_none(), "damage {number}");
            drop(Table::open_or_make(&place.path).unwrap());
            let table = Table::open(&place.path).unwrap().unwrap();
            assert_eq!(table.read(0).unwrap(), Bucket::default(), "damage {number}");
            assert_ne!(*table.key(), key, "damage {number}");
        }
    }

    #[test]
    fn what_is_no_file_is_left_alone() {
        let place = Place::new();
        std::fs::create_dir_all(&place.path).unwrap();
        assert!(Table::open_or_make(&place.path).is_err());
        std::fs::remove_dir(&place.path).unwrap();
        let elsewhere = place.directory.join("elsewhere");
        std::fs::write(&elsewhere, "precious").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &place.path).unwrap();
        assert!(Table::open_or_make(&place.path).is_err());
        assert_eq!(std::fs::read(&elsewhere).unwrap(), b"precious");
        std::fs::remove_file(&place.path).unwrap();
        nix::unistd::mkfifo(&place.path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(Table::open_or_make(&place.path).is_err());
    }

    #[test]
    fn somebody_who_keeps_it_locked_holds_nobody_up_for_long() {
        let place = used();
        let held = Table::open(&place.path).unwrap().unwrap();
        let error = Table::open(&place.path).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(held);
        assert!(Table::open(&place.path).unwrap().is_some());
    }
}
