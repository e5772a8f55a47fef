//! Opening a mailbox, and nothing that merely lies at its place.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::libc::{ELOOP, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK};
use nix::unistd::Uid;

use super::Task;
use super::dotlock::is_spool;
use super::identity::with_group;
use crate::channel::Report;

/// Opens `path` for reading and writing; `None` when there is nothing at that place.
///
/// # Errors
///
/// The report for the monitor: not a regular file, not the user's, not accessible.
pub(super) fn open_mailbox(path: &Path, uid: Uid) -> Result<Option<File>, Report> {
    let mut options = OpenOptions::new();
    // Neither wait for the other end of a FIFO nor follow a link to somebody else's file.
    options.read(true).write(true).custom_flags(O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(ELOOP) => {
            return Err(refused("it is a symbolic link"));
        }
        Err(error) => return Err(cannot_open(&error)),
    };
    let metadata = file.metadata().map_err(|error| cannot_open(&error))?;
    check(&metadata, uid)?;
    Ok(Some(file))
}

/// Makes an empty mailbox, as delivery agents do (Debian Policy 11.6: owned by its user, mode 600), whose
/// name is durable.
///
/// # Errors
///
/// The report for the monitor: the spool does not allow it, or somebody else was quicker.
pub(super) fn create_mailbox(task: &Task) -> Result<File, Report> {
    let cannot_make = |error: io::Error| {
        let reason = format!("there is none, and making one: {error}");
        Report::Refused { reason, permanent: false }
    };
    let group = task.locking.spool_group.filter(|_| is_spool(&task.mailbox));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600).custom_flags(O_NOFOLLOW);
    let made = with_group(group, || options.open(&task.mailbox)).and_then(|made| made);
    let file = made.map_err(cannot_make)?;
    // The directory may be one that only lets us make files.
    nix::unistd::syncfs(&file).map_err(|error| cannot_make(error.into()))?;
    Ok(file)
}

/// Opens the file that `open_mailbox` found once more, for reading only; `None` when something else, or
/// nothing, has taken its place.
///
/// # Errors
///
/// The report for the monitor.
pub(super) fn open_for_reading(path: &Path, same_as: &Metadata) -> Result<Option<File>, Report> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ELOOP) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(cannot_open(&error)),
    };
    let metadata = file.metadata().map_err(|error| cannot_open(&error))?;
    Ok(is_same_file(&metadata, same_as).then_some(file))
}

/// Whether two looks met one file.
pub(super) fn is_same_file(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn check(metadata: &Metadata, uid: Uid) -> Result<(), Report> {
    if !metadata.is_file() {
        return Err(refused("it is not a regular file"));
    }
    if metadata.uid() != uid.as_raw() {
        return Err(refused(&format!("it belongs to uid {}, not {uid}", metadata.uid())));
    }
    Ok(())
}

fn refused(reason: &str) -> Report {
    Report::Refused { reason: reason.to_owned(), permanent: true }
}

fn cannot_open(error: &io::Error) -> Report {
    let permanent = matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::ReadOnlyFilesystem
    );
    Report::Refused { reason: format!("opening it: {error}"), permanent }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_whose_place_was_taken_is_not_opened_and_that_is_no_error() {
        let own = std::env::temp_dir().join(format!("popa3d-replaced-{}", std::process::id()));
        let replaced = own.with_extension("old");
        std::fs::write(&own, b"").unwrap();
        let before = std::fs::metadata(&own).unwrap();
        assert!(open_for_reading(&own, &before).unwrap().is_some());
        std::fs::rename(&own, &replaced).unwrap();
        assert!(open_for_reading(&own, &before).unwrap().is_none());
        std::fs::write(&own, b"").unwrap();
        assert!(open_for_reading(&own, &before).unwrap().is_none());
        std::fs::remove_file(&own).unwrap();
        std::os::unix::fs::symlink(&replaced, &own).unwrap();
        assert!(open_for_reading(&own, &before).unwrap().is_none());
        std::fs::remove_file(&own).unwrap();
        std::fs::remove_file(&replaced).unwrap();
    }
}
