//! The worker: the only process that touches octets from the network and from mail.
//!
//! It runs as the system user `popa3d` in an empty root directory, without capabilities, behind a
//! system call filter (`sandbox`). Mailboxes reach it as read-only descriptors; what it wants
//! done it asks of the monitor.
//!
//! `session` goes through the states of POP3, a file for each. Below it are two things: the client
//! (`client` has lines and replies, `stream` the octets, `tls` their encryption), and its mail
//! (`maildrop` as POP3 sees it, `mailbox` as a file that others may change).

mod authorization;
mod client;
mod deadline;
mod expunged;
mod inspector;
mod kept;
mod mailbox;
mod maildrop;
mod patience;
mod proxied;
mod sandbox;
mod session;
mod stream;
mod syscalls;
mod tls;
mod transaction;
mod update;

pub use kept::read as read_kept;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid};

use crate::channel::{Request, ToMonitor};
use crate::ffi::process::{close_all_except, fork};
use crate::mbox::Limits;
pub use sandbox::Strength;

pub use inspector::inspect;

/// Exit status of a worker that could not lock itself in and did nothing else.
pub const NO_SANDBOX: i32 = 3;

/// How a process is locked in that reads mail.
#[derive(Debug)]
pub struct Confinement {
    /// The monitor, with which it dies.
    pub parent: Pid,
    /// What only root can do; without it the process is the user's whose mail it reads.
    pub jail: Option<Jail>,
    /// Which mailboxes are served: they take memory.
    pub limits: Limits,
}

/// Where a process of root goes.
#[derive(Debug)]
pub struct Jail {
    /// The system user that it becomes.
    pub uid: Uid,
    /// And that user's group.
    pub gid: Gid,
    /// The empty directory that it locks itself in.
    pub root: CString,
}

/// Everything that a worker has to know.
#[derive(Debug)]
pub struct Start {
    /// How it is locked in.
    pub confinement: Confinement,
    /// Failed logins that end the session.
    pub login_attempts: u32,
    /// How long a client may take to log in, from the beginning of the connection.
    pub login_timeout: Duration,
    /// How long a client may be silent, or read next to nothing.
    pub idle_timeout: Duration,
    /// How long a TLS handshake may take, or a PROXY header.
    pub handshake_timeout: Duration,
    /// Whether a proxy's header comes before everything else.
    pub behind_proxy: bool,
    /// Whether TLS begins with the first octet.
    pub implicit_tls: bool,
    /// Whether the journal is told of each message that UPDATE removes.
    pub log_expunged: bool,
    /// Whether this client may send a password without encryption; behind a proxy the monitor says
    /// so later.
    pub takes_plaintext: bool,
}

/// Has the cryptographic library open and map whatever it wants, while that is allowed, and makes the
/// system call filter; what is forked from here has both then.
pub fn prepare() {
    static IS_DONE: std::sync::Once = std::sync::Once::new();
    IS_DONE.call_once(|| {
        tls::prepare();
        syscalls::prepare();
    });
}

/// Has a process lock itself in as a worker does, and end.
///
/// # Errors
///
/// Why it could not; `Other` when that killed it.
pub fn try_sandbox(confinement: &Confinement) -> io::Result<Strength> {
    /// In an exit status: above the versions of Landlock, in front of the numbers of errors.
    const FAILED: i32 = 100;
    let pid = fork(|| {
        prepare();
        match sandbox::enter(confinement) {
            Ok(Strength::WithoutLandlock) => 0,
            Ok(Strength::Landlock(version)) => i32::from(version).min(FAILED - 1),
            Err(error) => FAILED + error.raw_os_error().unwrap_or_default(),
        }
    })?;
    match waitpid(pid, None)? {
        WaitStatus::Exited(_, 0) => Ok(Strength::WithoutLandlock),
        WaitStatus::Exited(_, status) if status < FAILED => {
            Ok(Strength::Landlock(u8::try_from(status).unwrap_or_default()))
        }
        WaitStatus::Exited(_, status) => Err(io::Error::from_raw_os_error(status - FAILED)),
        WaitStatus::Signaled(_, signal, _) => Err(io::Error::other(format!("killed by {signal}"))),
        WaitStatus::Stopped(..)
        | WaitStatus::PtraceEvent(..)
        | WaitStatus::PtraceSyscall(_)
        | WaitStatus::Continued(_)
        | WaitStatus::StillAlive => Err(io::ErrorKind::Interrupted.into()),
    }
}

/// The body of the worker process: returns its exit status.
#[must_use]
pub fn run(start: &Start, socket: OwnedFd, monitor: ToMonitor) -> i32 {
    if close_all_except(&[socket.as_fd(), monitor.as_fd()]).is_err() {
        return NO_SANDBOX;
    }
    prepare();
    let Ok(strength) = sandbox::enter(&start.confinement) else { return NO_SANDBOX };
    if strength == sandbox::Strength::WithoutLandlock
        && monitor.send(&Request::NoLandlock, None).is_err()
    {
        return 1;
    }
    i32::from(session::run(start, socket, monitor).is_err())
}
