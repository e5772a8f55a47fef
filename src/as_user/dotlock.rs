//! The lock file beside a mailbox: `/var/mail/USER.lock`.
//!
//! It appears under its name by link(2), complete with our process id, so that it is never seen
//! half-made, on NFS too.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc::{O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_TMPFILE};
use nix::sys::signal::kill;
use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, F2FS_SUPER_MAGIC, FsType, OVERLAYFS_SUPER_MAGIC,
    TMPFS_MAGIC, XFS_SUPER_MAGIC, fstatfs,
};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Gid, Pid, linkat};

use super::Locking;
use super::identity::with_group;
use super::lock::describe_process;
use super::open::is_same_file;

/// Other programs read the process id in it.
const MODE: u32 = 0o644;

/// A lock file holds a process id, maybe with the name of a host; never as much as a message.
const LARGEST: u64 = 128;

/// Whoever is not root may change what is in a directory.
pub const WRITABLE_BY_OTHERS: u32 = 0o022;

/// File systems of one host alone. On any other, a lock file may be another host's, of which neither the
/// processes nor the boot of this one tell anything.
const LOCAL: [FsType; 8] = [
    EXT4_SUPER_MAGIC, // of ext2 and ext3, too
    XFS_SUPER_MAGIC,
    BTRFS_SUPER_MAGIC,
    F2FS_SUPER_MAGIC,
    TMPFS_MAGIC,
    OVERLAYFS_SUPER_MAGIC,
    FsType(0xca45_1a4e), // bcachefs
    FsType(0x2fc1_2fc1), // ZFS
];

/// Made anew at each boot, and early.
const RUN: &str = "/run";

/// Most names and links on the way to a spool; more than any path has that is not a circle.
const MOST_STEPS: usize = 256;

/// A lock file that is ours.
#[derive(Debug)]
pub(super) struct Dotlock {
    path: PathBuf,
    made: Metadata,
    group: Option<Gid>,
}

/// Why there is no lock file of ours.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// There is one already; whose, as far as can be told.
    Held(String),
    /// The directory does not let us make one, or has no room for it.
    NotAllowed,
    /// Something else.
    Failed(io::Error),
}

impl Dotlock {
    /// Makes the lock file of `mailbox`, after removing one that was left behind.
    ///
    /// Must be called with the kernel's lock held: it keeps two of us from removing one stale
    /// lock file both, the second one being the first one's new one.
    pub(super) fn create(mailbox: &Path, locking: &Locking) -> Result<Self, Obstacle> {
        let path = lock_path(mailbox);
        let group = locking.spool_group.filter(|_| is_spool(&path));
        for _ in 0..2 {
            match with_group(group, || make(&path)).map_err(Obstacle::Failed)? {
                Ok(made) => return Ok(Self { path, made, group }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) if is_not_allowed(&error) => return Err(Obstacle::NotAllowed),
                Err(error) => return Err(Obstacle::Failed(error)),
            }
            let removed = with_group(group, || remove_if_stale(&path, locking.stale_after, boot()));
            match removed.map_err(Obstacle::Failed)? {
                Verdict::Gone => {}
                Verdict::Held(holder) => return Err(Obstacle::Held(holder)),
            }
        }
        Err(Obstacle::Held("a dotlock that comes back".to_owned()))
    }

    /// Removes it, unless somebody already did and made one of his own.
    pub(super) fn remove(&self) {
        let _ = with_group(self.group, || {
            if std::fs::symlink_metadata(&self.path).is_ok_and(|now| is_same_file(&now, &self.made))
            {
                let _ = std::fs::remove_file(&self.path);
            }
        });
    }
}

/// Whether the directory of a lock file is root's, and no user has a say in which one that is.
///
/// In a directory of his own the spool's group has no business, and by a link in one of them he
/// could lead us into any other that this group may write to, the spool itself for one. So each
/// name on the way must stand where only root writes; links that root made may be followed.
pub fn is_spool(path: &Path) -> bool {
    let mut place = PathBuf::from("/");
    let mut ahead = steps(path.parent().unwrap_or(Path::new("/")));
    for _ in 0..MOST_STEPS {
        let Ok(here) = std::fs::symlink_metadata(&place) else { return false };
        let Some(step) = ahead.pop() else { return here.uid() == 0 };
        if here.uid() != 0 || here.mode() & WRITABLE_BY_OTHERS != 0 {
            return false;
        }
        place.push(step);
        if let Ok(target) = std::fs::read_link(&place) {
            place.pop();
            // An absolute one takes the place of all that is before it.
            if target.is_absolute() {
                place = PathBuf::from("/");
            }
            ahead.extend(steps(&target));
        }
    }
    false
}

/// The names in a path, the first one last. `..` of a link's target stays one: it is looked up in a
/// directory of root's, as any other name.
fn steps(path: &Path) -> Vec<OsString> {
    let names = path.components().filter(|step| !matches!(step, Component::RootDir));
    let mut names: Vec<OsString> = names.map(|step| step.as_os_str().to_owned()).collect();
    names.reverse();
    names
}

fn is_not_allowed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
    )
}

fn lock_path(mailbox: &Path) -> PathBuf {
    let mut path = OsString::from(mailbox);
    path.push(".lock");
    path.into()
}

fn make(path: &Path) -> io::Result<Metadata> {
    match make_unnamed(path) {
        Err(error)
            if matches!(
                Errno::from_raw(error.raw_os_error().unwrap_or_default()),
                Errno::EOPNOTSUPP | Errno::EISDIR | Errno::ENOENT | Errno::EINVAL
            ) =>
        {
            make_from_temporary(path)
        }
        result => result,
    }
}

/// With a file that has no name before it is the lock: nothing is left behind by a crash.
fn make_unnamed(path: &Path) -> io::Result<Metadata> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut options = OpenOptions::new();
    options.write(true).mode(MODE).custom_flags(O_TMPFILE);
    let file = options.open(directory)?;
    write_pid(&file)?;
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(AT_FDCWD, unnamed.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?;
    file.metadata()
}

/// For file systems without O_TMPFILE, such as NFS.
fn make_from_temporary(path: &Path) -> io::Result<Metadata> {
    let host = nix::unistd::gethostname().unwrap_or_default();
    let mut temporary = OsString::from(path);
    temporary.push(format!(".{}.", std::process::id()));
    temporary.push(host);
    let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&temporary)?;
    let made = write_pid(&file).and_then(|()| {
        let linked = std::fs::hard_link(&temporary, path);
        let metadata = file.metadata()?;
        // link(2) over NFS may succeed and report failure: the link count tells.
        if metadata.nlink() == 2 { Ok(metadata) } else { linked.map(|()| metadata) }
    });
    std::fs::remove_file(&temporary)?;
    made
}

/// A full disk may leave the file empty: a lock all the same.
fn write_pid(mut file: &File) -> io::Result<()> {
    nix::sys::stat::fchmod(file, nix::sys::stat::Mode::from_bits_truncate(MODE))?;
    match file.write_all(format!("{}\n", std::process::id()).as_bytes()) {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ) =>
        {
            Err(error)
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

enum Verdict {
    Gone,
    Held(String),
}

/// Before when a lock file is older than this boot; `None` when that cannot be told.
///
/// When power fails, one of ours stays, empty, since nothing waits for its content to be on the disk, and
/// it must not keep the recovery at boot from the mailbox. The clock may have been set since the boot:
/// forward, so that what was made before seems older, which /run is then, too; or back, which moves the boot
/// as well. So both have to be younger.
#[must_use]
pub fn boot() -> Option<SystemTime> {
    let up = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).ok()?;
    let by_now = SystemTime::now().checked_sub(up)?;
    Some(by_now.min(std::fs::metadata(RUN).ok()?.created().ok()?))
}

/// A lock file is left behind when it is older than this `boot`, when its process is gone from this host,
/// or, with no process id in it, when nobody touched it for `stale_after`, which alone counts where
/// another host may have made it.
fn remove_if_stale(path: &Path, stale_after: Duration, boot: Option<SystemTime>) -> Verdict {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    let opened = options.open(path).and_then(|file| Ok((file.metadata()?, file)));
    let (found, file) = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Verdict::Gone,
        Err(error) => return Verdict::Held(format!("dotlock that cannot be read: {error}")),
    };
    if found.len() > LARGEST {
        // The mailbox of a user whose name ends so, say.
        return Verdict::Held("a file that is no dotlock".to_owned());
    }
    let modified = found.modified().ok();
    let age =
        modified.and_then(|time| SystemTime::now().duration_since(time).ok()).unwrap_or_default();
    let local = fstatfs(&file).is_ok_and(|system| LOCAL.contains(&system.filesystem_type()));
    // By now the number may be that of any other process.
    let is_older_than_boot =
        local && modified.zip(boot).is_some_and(|(modified, boot)| modified < boot);
    let pid = read_pid(file).filter(|_| local);
    let (stale, holder) = match pid {
        Some(pid) => (kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH), describe_process(pid)),
        None => (age >= stale_after, "an unnamed process".to_owned()),
    };
    if (stale || is_older_than_boot)
        && std::fs::symlink_metadata(path).is_ok_and(|now| is_same_file(&now, &found))
        && std::fs::remove_file(path).is_ok()
    {
        return Verdict::Gone;
    }
    Verdict::Held(format!("dotlock of {holder}, {} s old", age.as_secs()))
}

fn read_pid(file: File) -> Option<i32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.split_whitespace().next()?.parse().ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of root's, on every host.
    const ROOTS: &str = "/etc";

    #[test]
    fn a_directory_that_only_root_chose_counts_as_a_spool() {
        assert!(is_spool(&Path::new(ROOTS).join("alice.lock")));
        // A link of root's on Debian, to usr/bin.
        assert!(is_spool(Path::new("/bin/alice.lock")));
        assert!(!is_spool(Path::new("/no such directory/alice.lock")));
    }

    #[test]
    fn a_directory_that_a_users_link_leads_to_does_not() {
        let own = std::env::temp_dir().join(format!("popa3d-spool-{}", std::process::id()));
        std::fs::create_dir(&own).unwrap();
        std::os::unix::fs::symlink(ROOTS, own.join("mail")).unwrap();
        let lock = own.join("mail/alice.lock");
        assert_eq!(std::fs::metadata(lock.parent().unwrap()).unwrap().uid(), 0);
        assert!(!is_spool(&lock));
        std::fs::remove_dir_all(&own).unwrap();
    }

    /// What becomes of a lock file with this content that was made so many seconds after the boot.
    fn is_removed(name: &str, content: &str, after_boot: i64) -> bool {
        let own = std::env::temp_dir().join(format!("popa3d-lock-{}-{name}", std::process::id()));
        std::fs::write(&own, content).unwrap();
        let made = File::options().write(true).open(&own).unwrap();
        let now = SystemTime::now();
        let boot = now - Duration::from_secs(60);
        let after = Duration::from_secs(after_boot.unsigned_abs());
        let time = if after_boot < 0 { boot - after } else { boot + after };
        made.set_modified(time).unwrap();
        let verdict = remove_if_stale(&own, Duration::from_secs(600), Some(boot));
        let is_there = std::fs::remove_file(&own).is_ok();
        assert_eq!(is_there, matches!(verdict, Verdict::Held(_)));
        !is_there
    }

    #[test]
    fn lock_that_is_older_than_this_boot_is_nobodys_whatever_is_in_it() {
        let own_pid = format!("{}\n", std::process::id());
        for content in ["", "0\n", own_pid.as_str()] {
            assert!(is_removed("old", content, -1), "{content:?}");
            assert!(!is_removed("new", content, 1), "{content:?}");
        }
    }

    #[test]
    fn boot_was_before_anything_that_runs() {
        // Where /run is no file system of its own it is the image that is as old.
        let boot = boot().unwrap();
        assert!(boot < SystemTime::now());
        let up = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap();
        assert!(SystemTime::now().duration_since(boot).unwrap() >= up);
    }
}
