//! Keeping the unique-ids that differ from those of popa3d 1.0.3 (see `mbox::remembered`).
//!
//! For root they are octets in a file; the worker reads and writes their meaning.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const DIRECTORY: &str = "/var/lib/popa3d/unique-ids";

/// Opens the file of `user` for the worker; `None` in the usual case that there is none.
///
/// # Errors
///
/// It is there and cannot be opened.
pub(super) fn open(user: &str) -> io::Result<Option<File>> {
    match File::open(Path::new(DIRECTORY).join(user)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces the file of `user`, at once and durably; removes it when there is nothing to keep.
///
/// # Errors
///
/// Those of the file system; the old file is still there then.
pub(super) fn store(user: &str, text: &str) -> io::Result<()> {
    store_in(Path::new(DIRECTORY), user, text)
}

fn store_in(directory: &Path, user: &str, text: &str) -> io::Result<()> {
    let path = directory.join(user);
    if text.is_empty() {
        return match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
    }
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // The session lock keeps two from using this name; no user's name begins with a dot.
    let temporary: PathBuf = directory.join(format!(".{user}.new"));
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_found_again_and_nothing_else_remains() {
        let directory = std::env::temp_dir().join(format!("popa3d-ids-{}", std::process::id()));
        store_in(&directory, "alice", "one\n").unwrap();
        store_in(&directory, "alice", "two\n").unwrap();
        assert_eq!(std::fs::read_to_string(directory.join("alice")).unwrap(), "two\n");
        store_in(&directory, "alice", "").unwrap();
        store_in(&directory, "alice", "").unwrap();
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
        std::fs::remove_dir(&directory).unwrap();
    }
}
