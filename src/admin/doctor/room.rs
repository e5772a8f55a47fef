//! Room on the file systems of mailboxes and of redo records.

use std::path::Path;

use nix::sys::statvfs::{FsFlags, Statvfs, statvfs};

use super::finding::Finding;

/// What an update of a usual mailbox takes …
const USUAL: u64 = 300 * 1024;
/// … and what it takes at most.
const MOST: u64 = 64 << 20;

/// Octets and files that a user can have on a file system.
#[derive(Debug, Clone, Copy)]
struct Room {
    octets: u64,
    has_files: bool,
    is_read_only: bool,
}

impl Room {
    fn of(found: &Statvfs) -> Self {
        Self {
            octets: found.blocks_available().saturating_mul(found.fragment_size()),
            // Some make them as they need them, and count none.
            has_files: found.files() == 0 || found.files_available() > 0,
            is_read_only: found.flags().contains(FsFlags::ST_RDONLY),
        }
    }
}

/// Of the file system that mailboxes are on.
pub(super) fn of_spool(directory: &Path) -> Option<Finding> {
    judge_spool(directory, Room::of(&statvfs(directory).ok()?))
}

/// Of the file system that redo records are on.
pub(super) fn of_records(directory: &Path) -> Option<Finding> {
    judge_records(directory, Room::of(&statvfs(directory).ok()?))
}

fn judge_spool(directory: &Path, room: Room) -> Option<Finding> {
    if room.is_read_only {
        return Some(read_only(directory));
    }
    let name = directory.display();
    (room.octets < USUAL || !room.has_files).then(|| {
        Finding::warning(
            format!(
                "{name}: its file system is full, and mail cannot be delivered; deleting works"
            ),
            free(directory),
        )
    })
}

fn read_only(directory: &Path) -> Finding {
    let name = directory.display();
    Finding::error(
        format!("{name}: its file system is read-only, and mail cannot be deleted"),
        format!("run: dmesg | tail; mount -o remount,rw {name}"),
    )
}

fn judge_records(directory: &Path, room: Room) -> Option<Finding> {
    if room.is_read_only {
        return Some(read_only(directory));
    }
    let name = directory.display();
    if room.octets < USUAL || !room.has_files {
        let text = format!("{name}: its file system is full, and mail cannot be deleted");
        return Some(Finding::error(text, free(directory)));
    }
    (room.octets < MOST).then(|| {
        Finding::warning(
            format!(
                "{name}: its file system has {} MiB left, and deleting from a large mailbox may take 64",
                room.octets >> 20
            ),
            free(directory),
        )
    })
}

fn free(directory: &Path) -> String {
    let name = directory.display();
    format!("make room (df -h {name}; df -i {name})")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: Room = Room { octets: 1 << 40, has_files: true, is_read_only: false };

    fn said(room: Room) -> [String; 2] {
        let directory = Path::new("/d");
        [judge_spool(directory, room), judge_records(directory, room)]
            .map(|found| found.map_or_else(String::new, |found| found.to_string()))
    }

    #[test]
    fn plenty_is_not_worth_a_word() {
        assert_eq!(said(PLENTY), ["", ""]);
    }

    #[test]
    fn full_one_stops_deliveries_or_updates() {
        for room in [Room { octets: 200_000, ..PLENTY }, Room { has_files: false, ..PLENTY }] {
            let [spool, records] = said(room);
            assert!(
                spool.starts_with("warning: /d: its file system is full, and mail cannot be del")
            );
            assert!(records.starts_with("error: /d: its file system is full"), "{records}");
        }
    }

    #[test]
    fn little_room_is_too_little_for_the_largest_record() {
        let [spool, records] = said(Room { octets: 20 << 20, ..PLENTY });
        assert_eq!(spool, "");
        assert!(records.starts_with("warning: /d: its file system has 20 MiB left"), "{records}");
    }

    #[test]
    fn read_only_one_lets_nothing_be_deleted() {
        for said in said(Room { is_read_only: true, ..PLENTY }) {
            assert!(said.starts_with("error: /d: its file system is read-only"), "{said}");
        }
    }
}
