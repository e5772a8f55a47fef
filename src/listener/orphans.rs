//! What sessions leave running when they are killed: programs that PAM modules had started.
//!
//! systemd ends all of a unit with its main process, but here that is the listener. So each session
//! gets to be the parent of what its own children leave behind, and the listener of what it leaves.

use std::fs;
use std::process::id;

use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// From here on this process is the parent of those whose own parents, its descendants, have ended.
///
/// # Errors
///
/// The kernel's.
pub(super) fn adopt() -> nix::Result<()> {
    set_child_subreaper(true)
}

/// Ends the children of this process that no session needs.
///
/// Not those of mail users: a helper whose monitor is gone comes to its own end, and until then it may
/// be changing a mailbox.
pub(super) fn end(is_session: impl Fn(Pid) -> bool) {
    let children = fs::read_to_string(format!("/proc/self/task/{}/children", id()));
    let children = children.unwrap_or_default();
    let pids = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
    for pid in pids.map(Pid::from_raw).filter(|pid| !is_session(*pid) && is_of_root(*pid)) {
        // One that has ended by itself is as good.
        let _ = kill(pid, Signal::SIGKILL);
    }
}

/// Whether its user is root; not so when that cannot be seen.
fn is_of_root(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut uids = status.lines().filter_map(|line| line.strip_prefix("Uid:"));
    uids.next().is_some_and(|uids| uids.split_ascii_whitespace().next() == Some("0"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn this_process_is_seen_as_what_it_is() {
        assert_eq!(is_of_root(nix::unistd::getpid()), nix::unistd::getuid().is_root());
        assert!(!is_of_root(Pid::from_raw(i32::MAX)));
    }

    #[test]
    fn child_that_is_a_session_stays() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        end(|_| true);
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
