//! Ending a process that does not end by itself.

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, Uid, geteuid, seteuid};

/// Ends the child `pid`, which runs as `uid`, whatever it does or was stopped by.
///
/// Without CAP_KILL it takes that user's id to signal it, and the kernel does not do it at the end of
/// this process either (PR_SET_PDEATHSIG). The real and the saved id stay, so that the user cannot
/// signal this process meanwhile.
pub(super) fn end(pid: Pid, uid: Uid) {
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
        end(pid, geteuid());
        assert_eq!(kill(pid, None), Err(nix::Error::ESRCH));
    }
}
