//! What popa3d keeps: its directories, which are root's alone, and redo records that wait.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::Uid;

use super::finding::{Finding, Severity, why, word};
use super::room;
use crate::as_user::WRITABLE_BY_OTHERS;
use crate::event::printable;
use crate::monitor::{RECORDS_ASIDE, SESSION_LOCKS, records_aside, records_waiting};

const KEPT: &str = "/var/lib/popa3d";
/// Not every version has one.
const CACHE: &str = "/var/cache/popa3d";

const OPEN_TO_OTHERS: u32 = 0o077;

/// Users that a line names.
const MOST_NAMES: usize = 3;

pub(super) fn look() -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        [KEPT, SESSION_LOCKS, CACHE].into_iter().filter_map(directory).collect();
    let are_roots = findings.iter().all(|finding| finding.severity < Severity::Error);
    findings.extend(room::of_records(Path::new(KEPT)));
    // What stands where others can write is not to be opened.
    if are_roots && Uid::effective().is_root() {
        findings.extend(waiting(records_waiting()));
        findings.extend(aside(records_aside()));
    } else if are_roots {
        findings.push(Finding::unseen("redo records"));
    }
    if findings.iter().all(|finding| finding.severity <= Severity::Unseen) {
        findings
            .push(Finding::fine(format!("{KEPT}, {SESSION_LOCKS}: fine, no update is unfinished")));
    }
    findings
}

fn directory(path: &str) -> Option<Finding> {
    let make = format!("run: install -d -o root -g root -m 0700 {path}");
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => judge(path, found.uid(), found.mode() & 0o7777, make),
        Ok(_) => Some(Finding::error(
            format!("{path}: it is no directory"),
            format!("remove it and {make}"),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound && path == CACHE => None,
        Err(error) => {
            let text =
                format!("{path}: {}, and popa3d.service does not start without it", why(&error));
            Some(Finding::warning(text, make))
        }
    }
}

fn judge(path: &str, owner: u32, mode: u32, make: String) -> Option<Finding> {
    if owner != 0 || mode & WRITABLE_BY_OTHERS != 0 {
        let text =
            format!("{path}: others than root can write there (owner {owner}, mode {mode:04o})");
        return Some(Finding::error(text, make));
    }
    (mode & OPEN_TO_OTHERS != 0).then(|| {
        let text = format!("{path}: others than root can look into it (mode {mode:04o})");
        Finding::warning(text, format!("run: chmod 0700 {path}"))
    })
}

fn waiting(users: io::Result<Vec<String>>) -> Option<Finding> {
    let users = match users {
        Ok(users) if users.is_empty() => return None,
        Ok(users) => users,
        Err(error) => return Some(Finding::error(format!("{KEPT}/redo: {error}"), "")),
    };
    Some(Finding::warning(
        format!("a crash interrupted the update of the mailbox of {}", names(&users)),
        "the next login finishes it, or run: popa3d --recover",
    ))
}

fn aside(users: io::Result<Vec<String>>) -> Option<Finding> {
    let users = match users {
        Ok(users) => users,
        Err(error) => return Some(Finding::error(format!("{RECORDS_ASIDE}: {error}"), "")),
    };
    let first = word(&format!("{RECORDS_ASIDE}/{}", users.first()?));
    Some(Finding::warning(
        format!(
            "a redo record of {} is kept aside, since another program changed the mailbox after a crash",
            names(&users)
        ),
        format!(
            "see that no mail is missing there (the record holds some), then run: rm -r {first}"
        ),
    ))
}

/// "alice", or "alice, bob, carol and 3 more".
fn names(users: &[String]) -> String {
    let shown: Vec<_> =
        users.iter().take(MOST_NAMES).map(|user| printable(user.as_bytes())).collect();
    let shown = shown.join(", ");
    match users.len().saturating_sub(MOST_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(names: &[&str]) -> io::Result<Vec<String>> {
        Ok(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn directories_are_roots_alone() {
        let said = |owner, mode| judge("/d", owner, mode, String::new()).map(|it| it.to_string());
        assert_eq!(said(0, 0o700), None);
        assert!(said(0, 0o755).unwrap().starts_with("warning: /d: others than root can look"));
        for (owner, mode) in [(0, 0o770), (0, 0o707), (8, 0o700)] {
            assert!(
                said(owner, mode).unwrap().starts_with("error: /d: others than root can write")
            );
        }
    }

    #[test]
    fn records_that_wait_are_named_with_what_finishes_them() {
        assert!(waiting(users(&[])).is_none());
        let said = waiting(users(&["alice", "b\nob", "carol", "dave", "eve"])).unwrap().to_string();
        assert!(said.contains("of alice, b\\nob, carol and 2 more; "), "{said}");
        assert!(said.ends_with("run: popa3d --recover"), "{said}");
    }

    #[test]
    fn records_kept_aside_are_named() {
        assert!(aside(users(&[])).is_none());
        let said = aside(users(&["alice"])).unwrap().to_string();
        assert!(said.starts_with("warning: a redo record of alice is kept aside"), "{said}");
        assert!(said.ends_with("run: rm -r /var/lib/popa3d/redo-aside/alice"), "{said}");
    }
}
