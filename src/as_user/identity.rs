//! Becoming the mail user.

use std::io;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, geteuid, setegid, setgroups, setresgid, setresuid};

use super::Task;

/// Takes the user's ids for good, with nothing of root left.
///
/// The group of the spool stays behind as the saved group id, so that [`with_group`] can put it on
/// for making files there: the dotlock, and a mailbox for mail that is put back.
///
/// # Errors
///
/// Says which step failed, and why; the process must end then.
pub(super) fn become_user(task: &Task) -> Result<(), String> {
    if task.uid.is_root() {
        return Err("that is root".to_owned());
    }
    // A limit that PAM set for the user's own files must not stop an UPDATE half-way. Where it cannot
    // be lifted, [`may_write`] sees that before anything is changed.
    let _ = setrlimit(Resource::RLIMIT_FSIZE, RLIM_INFINITY, RLIM_INFINITY);
    // Whoever looks at his own mailbox has them, and could not set them.
    if geteuid().is_root() {
        setgroups(&task.groups).map_err(|error| format!("setgroups: {error}"))?;
        setresgid(task.gid, task.gid, task.locking.spool_group.unwrap_or(task.gid))
            .map_err(|error| format!("setresgid: {error}"))?;
        setresuid(task.uid, task.uid, task.uid).map_err(|error| format!("setresuid: {error}"))?;
    } else if geteuid() != task.uid {
        return Err(format!("this process has uid {}", geteuid()));
    }
    capctl::prctl::set_no_new_privs().map_err(|error| format!("no_new_privs: {error}"))?;
    capctl::prctl::set_dumpable(false).map_err(|error| format!("dumpable: {error}"))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    Ok(())
}

/// Whether this process may write to a file as far as `size`.
pub(super) fn may_write(size: u64) -> bool {
    getrlimit(Resource::RLIMIT_FSIZE).is_ok_and(|(most, _)| most >= size)
}

/// Runs `act` with `group` as the effective group.
///
/// # Errors
///
/// setegid(2)'s.
pub(super) fn with_group<T>(group: Option<Gid>, act: impl FnOnce() -> T) -> io::Result<T> {
    let Some(group) = group else { return Ok(act()) };
    let own = nix::unistd::getegid();
    setegid(group)?;
    let result = act();
    setegid(own)?;
    Ok(result)
}
