//! One session a maildrop at a time (RFC 1939 section 4).

use std::convert::Infallible;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Root's alone; a file for each user who is logged in.
pub const DIRECTORY: &str = "/run/popa3d";
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Octets of the line that says who holds a lock.
const MAX_SIGNATURE: u64 = 80;

/// Held for the session; the kernel's, so that nothing of it survives the process.
#[derive(Debug)]
pub(super) struct SessionLock {
    path: PathBuf,
    lock: Flock<File>,
    waited: Duration,
}

/// What trying to acquire a lock came to.
#[derive(Debug)]
pub(super) enum Acquired {
    /// It is ours.
    Lock(SessionLock),
    /// Another session goes on; which, for the journal.
    HeldBy(String),
}

impl SessionLock {
    /// Waits up to `patience` for the session of `user` that is under way, then makes session
    /// number `id` the one.
    ///
    /// # Errors
    ///
    /// The lock file cannot be made.
    pub(super) fn acquire(user: &str, id: u64, patience: Duration) -> io::Result<Acquired> {
        let sleep = |pause| {
            std::thread::sleep(pause);
            Ok::<_, Infallible>(())
        };
        match Self::acquire_in(Path::new(DIRECTORY), user, id, patience, sleep)? {
            Ok(acquired) => Ok(acquired),
            Err(never) => match never {},
        }
    }

    /// The same, and meanwhile `wait` looks for what else may happen.
    ///
    /// # Errors
    ///
    /// The outer one: the lock file cannot be made. The inner one: that of `wait`.
    pub(super) fn acquire_with<E>(
        user: &str,
        id: u64,
        patience: Duration,
        wait: impl FnMut(Duration) -> Result<(), E>,
    ) -> io::Result<Result<Acquired, E>> {
        Self::acquire_in(Path::new(DIRECTORY), user, id, patience, wait)
    }

    /// How long the session before held it; zero when there was none.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }

    fn acquire_in<E>(
        directory: &Path,
        user: &str,
        id: u64,
        patience: Duration,
        mut wait: impl FnMut(Duration) -> Result<(), E>,
    ) -> io::Result<Result<Acquired, E>> {
        let path = directory.join(user);
        let asked = Instant::now();
        let deadline = asked + patience;
        let mut waited = Duration::ZERO;
        let mut pause = Duration::from_millis(1);
        loop {
            let mut file = open(directory, &path)?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) if is_current(&lock, &path) => {
                    sign(&lock, id);
                    return Ok(Ok(Acquired::Lock(Self { path, lock, waited })));
                }
                // The session before removed it between our opening and locking it.
                Ok(_) => continue,
                Err((unlocked, Errno::EWOULDBLOCK)) => file = unlocked,
                Err((_, error)) => return Err(error.into()),
            }
            if Instant::now() >= deadline {
                let mut holder = String::new();
                // Who holds it is a help for the reader of the journal, no more.
                let _ = file.take(MAX_SIGNATURE).read_to_string(&mut holder);
                return Ok(Ok(Acquired::HeldBy(holder.trim().to_owned())));
            }
            drop(file);
            if let Err(reason) = wait(pause) {
                return Ok(Err(reason));
            }
            waited = asked.elapsed();
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

/// Whether a session of `user` goes on.
pub(super) fn is_held(user: &str) -> bool {
    let Ok(file) = File::open(Path::new(DIRECTORY).join(user)) else { return false };
    // Let go of at once; a login that meets it tries again.
    matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, Errno::EWOULDBLOCK)))
}

/// Says in the lock file who holds it.
fn sign(file: &File, id: u64) {
    let signature = format!("process {}, POPA3D_SESSION={id:016x}\n", std::process::id());
    let _ = file.set_len(0).and_then(|()| file.write_all_at(signature.as_bytes(), 0));
}

fn open(directory: &Path, path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
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
        let acquire_within = |id, patience| {
            SessionLock::acquire_in(&directory, "alice", id, patience, |_| Err("interrupted"))
        };
        let acquire = |id| match acquire_within(id, Duration::ZERO).unwrap() {
            Ok(Acquired::Lock(lock)) => Ok(lock),
            Ok(Acquired::HeldBy(holder)) => Err(holder),
            Err(interrupted) => panic!("{interrupted}"),
        };
        let first = acquire(1).unwrap();
        let holder = acquire(2).unwrap_err();
        assert!(holder.ends_with("POPA3D_SESSION=0000000000000001"), "{holder}");
        let interrupted = acquire_within(2, Duration::from_secs(86_400)).unwrap();
        assert_eq!(interrupted.err(), Some("interrupted"));
        drop(first);
        let again = acquire(3).unwrap();
        assert!(acquire(4).is_err());
        drop(again);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "a lock file remains");
        std::fs::remove_dir(&directory).unwrap();
    }
}
