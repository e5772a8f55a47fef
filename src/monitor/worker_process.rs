//! The monitor's side of the worker.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{Shutdown, shutdown};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, Uid, getpid};

use super::connection::Connection;
use super::force;
use super::prepared::Prepared;
use crate::channel::{ToWorker, pair};
use crate::ffi::process::fork_without_modules;
use crate::mbox::Limits;
use crate::settings::Settings;
use crate::worker::{self, Start, Strength};

/// The empty directory that workers live in.
pub const EMPTY_ROOT: &str = "/usr/lib/popa3d/empty";

/// How long an ending worker may take to send its last replies and to see its client go: a little
/// longer than it takes at most (`worker::client`).
const PATIENCE: Duration = Duration::from_secs(40);

/// It usually ends at once.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// A worker that has not been seen ending.
#[derive(Debug)]
pub(super) struct WorkerProcess {
    pid: Pid,
    uid: Uid,
    pub(super) channel: ToWorker,
}

impl WorkerProcess {
    /// Forks the worker of `connection`.
    ///
    /// # Errors
    ///
    /// Says what is missing on this host.
    pub(super) fn start(
        connection: &Connection,
        settings: &Settings,
        prepared: &Prepared,
    ) -> Result<Self, String> {
        let failed = |error: io::Error| format!("starting a worker: {error}");
        let start = instructions(Some(connection), settings, prepared)?;
        let (ours, theirs) = pair().map_err(failed)?;
        let socket: OwnedFd = connection.as_fd().try_clone_to_owned().map_err(failed)?;
        let pid = fork_without_modules(|| worker::run(&start, socket, theirs)).map_err(failed)?;
        Ok(Self { pid, uid: start.uid, channel: ours })
    }

    /// A process that a test calls a worker.
    #[cfg(test)]
    pub(super) fn of(pid: Pid, channel: ToWorker) -> Self {
        Self { pid, uid: nix::unistd::geteuid(), channel }
    }

    /// Waits for the end of the process; says what was wrong with it, if anything was.
    pub(super) fn reap(self) -> Result<(), String> {
        // From here on its requests find nobody, and the end of its channel is the end of it.
        let _ = shutdown(self.channel.as_fd().as_raw_fd(), Shutdown::Both);
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_micros(50);
        loop {
            match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) if Instant::now() < deadline => {}
                Ok(WaitStatus::StillAlive) => {
                    force::end(self.pid, self.uid);
                    return Err("does not end".to_owned());
                }
                Ok(status) => return judge(status),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.to_string()),
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Has a process lock itself in as workers do.
///
/// # Errors
///
/// The outer one: there is no such user. The inner one: why it could not be done.
pub fn try_sandbox() -> Result<io::Result<Strength>, String> {
    let start = instructions(None, &Settings::default(), &Prepared::default())?;
    Ok(worker::try_sandbox(&start))
}

/// What the worker of `connection` has to know.
fn instructions(
    connection: Option<&Connection>,
    settings: &Settings,
    prepared: &Prepared,
) -> Result<Start, String> {
    let (uid, gid) = prepared.worker_ids()?;
    let root = CString::new(EMPTY_ROOT).map_err(|error| error.to_string())?;
    let client = connection.and_then(Connection::client);
    Ok(Start {
        parent: getpid(),
        uid,
        gid,
        root,
        limits: Limits {
            messages: settings.max_messages.0,
            file_size: settings.max_mailbox_size.0,
        },
        login_attempts: settings.login_attempts.0,
        login_timeout: settings.login_timeout.0,
        idle_timeout: settings.idle_timeout.0,
        handshake_timeout: settings.handshake_timeout.0,
        log_expunged: settings.log_expunged,
        implicit_tls: connection.is_some_and(Connection::wants_tls),
        behind_proxy: settings.is_proxy(client),
        takes_plaintext: settings.plaintext_login.allows(client.map(|(address, _)| address)),
    })
}

fn judge(status: WaitStatus) -> Result<(), String> {
    match status {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, worker::NO_SANDBOX) => {
            Err("could not lock itself in: is the package whole, is this process root?".to_owned())
        }
        WaitStatus::Exited(_, status) => Err(format!("ended with status {status}")),
        WaitStatus::Signaled(_, Signal::SIGSYS, _) => {
            Err("killed by its system call filter".to_owned())
        }
        WaitStatus::Signaled(_, signal, _) => Err(format!("killed by {signal}")),
        WaitStatus::Stopped(..)
        | WaitStatus::PtraceEvent(..)
        | WaitStatus::PtraceSyscall(_)
        | WaitStatus::Continued(_)
        | WaitStatus::StillAlive => Err(format!("{status:?}")),
    }
}
