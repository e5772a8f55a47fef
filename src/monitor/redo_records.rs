//! Where redo records are kept (what is in them: `as_user::redo`).
//!
//! The directory and its files are root's; a helper gets one of them, by descriptor.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::session_lock;

const DIRECTORY: &str = "/var/lib/popa3d/redo";

/// Records that fit no mailbox any more, for an admin to look at.
pub const ASIDE: &str = "/var/lib/popa3d/redo-aside";

/// How many of them are kept for each user, the newest: nobody is to fill root's disk with his.
const KEPT_ASIDE: usize = 3;

/// Makes an empty record for `user`, whose name is durable.
///
/// # Errors
///
/// Those of the file system; one is there already, which a login should have dealt with.
pub(super) fn create(user: &str) -> io::Result<File> {
    let directory = Path::new(DIRECTORY);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let record = match options.open(directory.join(user)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            directory.parent().map_or(Ok(()), sync_directory)?;
            options.open(directory.join(user))?
        }
        result => result?,
    };
    sync_directory(directory)?;
    Ok(record)
}

/// Opens the record that a crash left behind for `user`; `None` in the usual case.
///
/// # Errors
///
/// It is there and cannot be opened.
pub(super) fn open(user: &str) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    match options.read(true).write(true).open(path(user)) {
        Ok(record) => Ok(Some(record)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a `record` says anything: one that a helper did not get to does not, nor does room for a head.
///
/// # Errors
///
/// read(2)'s.
pub(super) fn says_something(record: &File) -> io::Result<bool> {
    let mut beginning = [0; 8];
    record.read_at(&mut beginning, 0)?;
    Ok(beginning != [0; 8])
}

/// Where the record of `user` is, if there is one.
pub(super) fn path(user: &str) -> PathBuf {
    Path::new(DIRECTORY).join(user)
}

/// Whether there is a record of `user`; a session has one for a moment, too.
pub(super) fn exists(user: &str) -> bool {
    path(user).exists()
}

/// Drops the record of `user`, which has done its work. Should a crash bring it back, it is known
/// for a finished one.
///
/// # Errors
///
/// unlink(2)'s.
pub(super) fn remove(user: &str) -> io::Result<()> {
    std::fs::remove_file(path(user))
}

/// Keeps the record of `user` where no login looks for it; returns the new path.
///
/// # Errors
///
/// Those of the file system.
pub(super) fn set_aside(user: &str) -> io::Result<PathBuf> {
    let own = Path::new(ASIDE).join(user);
    DirBuilder::new().recursive(true).mode(0o700).create(&own)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let path = own.join(format!("{now:020}"));
    std::fs::rename(self::path(user), &path)?;
    forget_oldest(&own)?;
    Ok(path)
}

fn forget_oldest(directory: &Path) -> io::Result<()> {
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        kept.push(entry?.path());
    }
    // Names are numbers of equal length, so this is the order of time.
    kept.sort_unstable();
    let surplus = kept.len().saturating_sub(KEPT_ASIDE);
    kept.iter().take(surplus).try_for_each(std::fs::remove_file)
}

/// The users that have a record.
///
/// # Errors
///
/// The directory is there and cannot be read.
pub(super) fn users() -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut users = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            users.extend(entry.file_name().into_string().ok());
        }
    }
    users.sort_unstable();
    Ok(users)
}

/// The users whose update was interrupted: they have a record, and no session that writes it.
///
/// # Errors
///
/// The directory is there and cannot be read.
pub fn waiting() -> io::Result<Vec<String>> {
    Ok(users()?.into_iter().filter(|user| !session_lock::is_held(user)).collect())
}

/// The users of whom records are kept aside.
///
/// # Errors
///
/// The directory is there and cannot be read.
pub fn aside() -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(ASIDE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut users = Vec::new();
    for entry in entries {
        let entry = entry?;
        if std::fs::read_dir(entry.path())?.next().is_some() {
            users.extend(entry.file_name().into_string().ok());
        }
    }
    users.sort_unstable();
    Ok(users)
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
