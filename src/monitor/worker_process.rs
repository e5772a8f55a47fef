//! The monitor's side of the worker.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{Shutdown, shutdown};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Pid, Uid, getpid};

use super::connection::Connection;
use super::force;
use super::prepared::Prepared;
use crate::channel::{Answer, ToWorker, pair};
use crate::ffi::process::fork_without_modules;
use crate::mbox::Limits;
use crate::settings::Settings;
use crate::worker::{self, Confinement, Jail, Start, Strength};

/// The empty directory that workers live in.
pub const EMPTY_ROOT: &str = "/usr/lib/popa3d/empty";

/// How long an ending worker may take to send its last replies and to see its client go: a little
/// longer than it takes at most (`worker::client`).
const PATIENCE: Duration = Duration::from_secs(40);

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
        let start = instructions(connection, settings, prepared)?;
        let jail = start.confinement.jail.as_ref();
        let uid = jail.map_or_else(Uid::current, |jail| jail.uid);
        let (ours, theirs) = pair().map_err(failed)?;
        let socket: OwnedFd = connection.as_fd().try_clone_to_owned().map_err(failed)?;
        let pid = fork_without_modules(|| worker::run(&start, socket, theirs)).map_err(failed)?;
        Ok(Self { pid, uid, channel: ours })
    }

    /// A process that a test calls a worker.
    #[cfg(test)]
    pub(super) fn of(pid: Pid, channel: ToWorker) -> Self {
        Self { pid, uid: nix::unistd::geteuid(), channel }
    }

    /// Answers a request, without waiting: no request has more than two answers, and for those there is
    /// room unless the worker does not read them.
    ///
    /// # Errors
    ///
    /// It does not, or is gone.
    pub(super) fn answer(
        &self,
        answer: &Answer,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        self.channel.send_within(Duration::ZERO, answer, descriptor).map_err(|error| {
            if error.kind() == io::ErrorKind::TimedOut {
                io::Error::new(io::ErrorKind::TimedOut, "it does not read its answers")
            } else {
                error
            }
        })
    }

    /// Waits for the end of the process; says what was wrong with it, if anything was.
    pub(super) fn reap(self) -> Result<(), String> {
        // From here on its requests find nobody, and the end of its channel is the end of it.
        let _ = shutdown(self.channel.as_fd().as_raw_fd(), Shutdown::Both);
        match force::await_end(self.pid, self.uid, PATIENCE) {
            Ok(Some(status)) => judge(status),
            Ok(None) => Err("does not end".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Has a process lock itself in as workers do.
///
/// # Errors
///
/// The outer one: there is no such user. The inner one: why it could not be done.
pub fn try_sandbox() -> Result<io::Result<Strength>, String> {
    let confinement = confinement(&Settings::default(), &Prepared::default())?;
    Ok(worker::try_sandbox(&confinement))
}

/// What the worker of `connection` has to know.
fn instructions(
    connection: &Connection,
    settings: &Settings,
    prepared: &Prepared,
) -> Result<Start, String> {
    let client = connection.client();
    Ok(Start {
        confinement: confinement(settings, prepared)?,
        login_attempts: settings.login_attempts.0,
        login_timeout: settings.login_timeout.0,
        idle_timeout: settings.idle_timeout.0,
        handshake_timeout: settings.handshake_timeout.0,
        log_expunged: settings.log_expunged,
        implicit_tls: connection.wants_tls(),
        behind_proxy: settings.is_proxy(client),
        takes_plaintext: settings.plaintext_login.allows(client.map(|(address, _)| address)),
    })
}

/// How root locks in those who read mail.
///
/// # Errors
///
/// Says what is missing on this host.
pub(super) fn confinement(settings: &Settings, prepared: &Prepared) -> Result<Confinement, String> {
    let (uid, gid) = prepared.worker_ids()?;
    let root = CString::new(EMPTY_ROOT).map_err(|error| error.to_string())?;
    let jail = Some(Jail { uid, gid, root });
    Ok(Confinement { parent: getpid(), jail, limits: limits(settings) })
}

/// Which mailboxes are served.
pub(super) fn limits(settings: &Settings) -> Limits {
    Limits { messages: settings.max_messages.0, file_size: settings.max_mailbox_size.0 }
}

/// What was wrong with a worker that ended so.
///
/// # Errors
///
/// In words.
pub(super) fn judge(status: WaitStatus) -> Result<(), String> {
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
