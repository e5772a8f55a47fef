//! Noticing that files in some directories were changed (inotify(7)).

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// A watch over directories.
#[derive(Debug)]
pub(super) struct Changes(Inotify);

impl Changes {
    /// Watches those of `directories` that are there.
    ///
    /// # Errors
    ///
    /// inotify_init1(2)'s.
    pub(super) fn watch(directories: &[&str]) -> nix::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let changes = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_ATTRIB;
        for directory in directories {
            // One that is not there has nothing to watch.
            let _ = inotify.add_watch(*directory, changes);
        }
        Ok(Self(inotify))
    }

    /// Whether there were any since the last time.
    pub(super) fn are_there(&self) -> bool {
        let mut are_there = false;
        while self.0.read_events().is_ok_and(|events| !events.is_empty()) {
            are_there = true;
        }
        are_there
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_is_noticed_once() {
        let name = format!("popa3d-changes-{:016x}", getrandom::u64().unwrap());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        let missing = directory.join("missing");
        let watched = [&missing, &directory].map(|path| path.to_str().unwrap());
        let changes = Changes::watch(&watched).unwrap();
        assert!(!changes.are_there());
        std::fs::write(directory.join("popa3d"), "auth required pam_deny.so\n").unwrap();
        assert!(changes.are_there());
        assert!(!changes.are_there());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
