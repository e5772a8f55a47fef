//! Ending a process that does not end by itself.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, Uid, geteuid, seteuid};

/// Between looks at a process that is about to end: it usually does at once.
const SHORTEST_PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Whether a signal has stopped the child `pid`, which goes on only if whoever sent it wants that.
pub(super) fn is_stopped(pid: Pid) -> bool {
    let look = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    matches!(waitid(Id::Pid(pid), look), Ok(WaitStatus::Stopped(..)))
}

/// Waits up to `patience` for the end of the child `pid`, which runs as `uid`, and ends it then, or when it
/// is stopped; how it ended by itself, if it did.
///
/// # Errors
///
/// waitpid(2)'s: it is no child.
pub(super) fn await_end(pid: Pid, uid: Uid, patience: Duration) -> nix::Result<Option<WaitStatus>> {
    let deadline = Instant::now() + patience;
    let mut pause = SHORTEST_PAUSE;
    loop {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if Instant::now() < deadline && !is_stopped(pid) => {}
            Ok(WaitStatus::StillAlive) => {
                end(pid, uid);
                return Ok(None);
            }
            Ok(status) => return Ok(Some(status)),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error),
        }
        sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Ends the child `pid`, which runs as `uid`, whatever it does or was stopped by.
///
/// Without CAP_KILL it takes that user's id to signal it, and the kernel does not do it at the end of
/// this process either (PR_SET_PDEATHSIG). The real and the saved id stay, so that the user cannot
/// signal this process meanwhile.
fn end(pid: Pid, uid: Uid) {
    let own = geteuid();
    if seteuid(uid).is_err() {
        return;
    }
    let killed = kill(pid, Signal::SIGKILL);
    if seteuid(own).is_err() {
        // The saved id allows it; with another one nothing here could go on.
        std::process::abort();
    }
    if killed.is_ok() {
        let _ = waitpid(pid, None);
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::{alarm, pause};

    use super::*;
    use crate::ffi::process::fork;

    #[test]
    fn process_that_was_stopped_is_ended() {
        let pid = fork(|| {
            alarm::set(60);
            pause();
            0
        });
        let pid = pid.unwrap();
        kill(pid, Signal::SIGSTOP).unwrap();
        assert_eq!(await_end(pid, geteuid(), Duration::from_secs(3600)), Ok(None));
        assert_eq!(kill(pid, None), Err(nix::Error::ESRCH));
    }
}
