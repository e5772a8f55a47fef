//! Which files libpam takes the stack from, and whether they are still the ones that it read.
//!
//! libpam reads them when a transaction begins, and silently takes the service `other`, which may let
//! anybody in, while there is no file of ours. A session may come by a transaction that began a while
//! ago, so what was read then has to be what is there when somebody logs in.

use std::ffi::{CStr, OsStr, OsString};
use std::fmt;
use std::fs::{Metadata, metadata, read_dir};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::ffi::pam::{Failure, Transaction};

/// This program's name there.
const SERVICE: &CStr = c"popa3d";
const FILE: &str = "popa3d";

/// Where the stack may be (pam.conf(5)): what is changed there changes it.
pub const PAM_DIRECTORIES: &[&str] = &["/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d"];

/// Where libpam looks when the first of these directories does not exist: one file for all services.
const ONE_FILE: &str = "/etc/pam.conf";

/// Why there is no transaction.
#[derive(Debug)]
pub(super) enum NotStarted {
    /// There is no stack of this program.
    NoService,
    /// Somebody is at work on it.
    Edited,
    /// What libpam said.
    Failed(Failure),
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoService => f.write_str("there is no /etc/pam.d/popa3d"),
            Self::Edited => f.write_str("/etc/pam.d was changed while libpam read it"),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

/// Begins a transaction of the stack as it is now, which is returned as well.
pub(super) fn start() -> Result<(Transaction, Stack), NotStarted> {
    let stack = Stack::now();
    if !stack.has_service() {
        return Err(NotStarted::NoService);
    }
    let transaction = Transaction::start(SERVICE).map_err(NotStarted::Failed)?;
    if stack != Stack::now() {
        return Err(NotStarted::Edited);
    }
    Ok((transaction, stack))
}

/// The files that a stack may be made of, none of them read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stack {
    /// Whether there is one directory at least that libpam wants to be there.
    is_in_directories: bool,
    files: Vec<(PathBuf, Option<State>)>,
}

/// What cannot stay the same when a file is written to or becomes another one.
#[derive(Debug, PartialEq, Eq)]
struct State {
    file: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl Stack {
    pub(super) fn now() -> Self {
        Self::of(PAM_DIRECTORIES, ONE_FILE)
    }

    fn of(directories: &[impl AsRef<Path>], one_file: impl AsRef<Path>) -> Self {
        let one_file = one_file.as_ref().to_owned();
        let one_file = (one_file.clone(), state(&one_file));
        let mut files = vec![one_file];
        for directory in directories {
            let directory = directory.as_ref();
            // One that is not there has no files.
            let entries = read_dir(directory).into_iter().flatten().flatten();
            let mut names: Vec<OsString> = entries.map(|entry| entry.file_name()).collect();
            names.sort_unstable();
            files.extend(names.into_iter().map(|name| {
                let path = directory.join(name);
                let state = state(&path);
                (path, state)
            }));
        }
        let is_in_directories = directories.first().is_some_and(|first| first.as_ref().exists());
        Self { is_in_directories, files }
    }

    fn has_service(&self) -> bool {
        let is_ours = |path: &Path| path.file_name() == Some(OsStr::new(FILE));
        let is_there = |(path, state): &(PathBuf, Option<State>)| is_ours(path) && state.is_some();
        !self.is_in_directories || self.files.iter().any(is_there)
    }
}

/// Of the file itself, where the name is a link.
fn state(path: &Path) -> Option<State> {
    let of = |found: Metadata| State {
        file: (found.dev(), found.ino()),
        size: found.size(),
        changed: (found.ctime(), found.ctime_nsec()),
    };
    metadata(path).ok().map(of)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Two directories of a test's own; in the second one is what links point to.
    struct Place(PathBuf);

    impl Place {
        fn new() -> Self {
            let name = format!("popa3d-pam-stack-{:016x}", getrandom::u64().unwrap());
            let place = Self(std::env::temp_dir().join(name));
            fs::create_dir_all(place.path("pam.d")).unwrap();
            fs::create_dir_all(place.path("elsewhere")).unwrap();
            place
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).unwrap();
        }

        fn stack(&self) -> Stack {
            Stack::of(&[self.path("pam.d"), self.path("missing")], self.path("pam.conf"))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn stack_that_nobody_touches_stays_the_same() {
        let place = Place::new();
        place.write("pam.d/popa3d", "auth required pam_deny.so\n");
        assert_eq!(place.stack(), place.stack());
        assert!(place.stack().has_service());
    }

    #[test]
    fn every_way_to_edit_a_stack_makes_it_another_one() {
        type Edit = fn(&Place);
        let ways: [(&str, Edit); 6] = [
            ("written to", |place| place.write("pam.d/popa3d", "auth required pam_deny.so #\n")),
            ("an included one is written to", |place| place.write("pam.d/common-auth", "longer\n")),
            ("the target of a link is", |place| place.write("elsewhere/account", "longer\n")),
            ("added", |place| place.write("pam.d/new", "x")),
            ("removed", |place| fs::remove_file(place.path("pam.d/popa3d")).unwrap()),
            ("replaced by one of the same size", |place| {
                place.write("pam.d/.new", "auth required pam_deny.so\n");
                fs::rename(place.path("pam.d/.new"), place.path("pam.d/popa3d")).unwrap();
            }),
        ];
        for (name, edit) in ways {
            let place = Place::new();
            place.write("pam.d/popa3d", "auth required pam_unix.so\n");
            place.write("pam.d/common-auth", "x\n");
            place.write("elsewhere/account", "x\n");
            symlink(place.path("elsewhere/account"), place.path("pam.d/account")).unwrap();
            let before = place.stack();
            edit(&place);
            assert_ne!(before, place.stack(), "{name}");
        }
    }

    #[test]
    fn only_a_file_of_its_own_is_this_programs_stack() {
        let place = Place::new();
        place.write("pam.d/other", "auth required pam_permit.so\n");
        assert!(!place.stack().has_service());
        symlink(place.path("elsewhere/missing"), place.path("pam.d/popa3d")).unwrap();
        assert!(!place.stack().has_service());
        fs::remove_dir_all(place.path("pam.d")).unwrap();
        assert!(place.stack().has_service(), "there is pam.conf then");
    }
}
