//! One session a maildrop at a time (RFC 1939 section 4).

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

const DIRECTORY: &str = "/run/popa3d";
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Held for the session; the kernel's, so that nothing of it survives the process.
#[derive(Debug)]
pub(super) struct SessionLock {
    path: PathBuf,
    lock: Flock<File>,
}

impl SessionLock {
    /// Waits up to `patience` for the session of `user` that is under way; `None` when it goes on.
    ///
    /// # Errors
    ///
    /// The lock file cannot be made.
    pub(super) fn acquire(user: &str, patience: Duration) -> io::Result<Option<Self>> {
        Self::acquire_in(Path::new(DIRECTORY), user, patience)
    }

    fn acquire_in(directory: &Path, user: &str, patience: Duration) -> io::Result<Option<Self>> {
        let path = directory.join(user);
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_millis(1);
        loop {
            let mut file = open(directory, &path)?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) if is_current(&lock, &path) => return Ok(Some(Self { path, lock })),
                // The session before removed it between our opening and locking it.
                Ok(_) => continue,
                Err((unlocked, Errno::EWOULDBLOCK)) => file = unlocked,
                Err((_, error)) => return Err(error.into()),
            }
            drop(file);
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl Drop for SessionLock {
    fn drop(&mut self) {
        // Removed while locked: whoever opened it meanwhile finds that it is not current.
        if is_current(&self.lock, &self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn open(directory: &Path, path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Not every super-server reads our tmpfiles.d.
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            options.open(path)
        }
        result => result,
    }
}

fn is_current(lock: &Flock<File>, path: &Path) -> bool {
    match (lock.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(ours), Ok(now)) => (ours.dev(), ours.ino()) == (now.dev(), now.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_session_is_kept_out_until_the_first_one_ends() {
        let directory = std::env::temp_dir().join(format!("popa3d-lock-{}", std::process::id()));
        let acquire = || SessionLock::acquire_in(&directory, "alice", Duration::ZERO).unwrap();
        let first = acquire().unwrap();
        assert!(acquire().is_none());
        drop(first);
        let again = acquire().unwrap();
        assert!(acquire().is_none());
        drop(again);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "a lock file remains");
        std::fs::remove_dir(&directory).unwrap();
    }
}
