//! The monitor's side of an as-user helper.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, Uid};

use super::account::Account;
use super::force;
use super::prepared::Prepared;
use crate::as_user::{self, Locking, Task, WhenMissing};
use crate::channel::{Order, Outcome, Recovery, Report, ToHelper, Totals, pair};
use crate::event::printable_up_to;
use crate::ffi::process::fork_without_modules;
use crate::settings::Settings;

/// How much longer than the lock's time-out opening may take, on a slow file system.
const PATIENCE: Duration = Duration::from_secs(60);

/// The same when an interrupted update has to be finished first. A user can stop the process that
/// works as him, but not those of others who wait behind him.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(300);

/// Between looks at a helper that is about to end.
const PAUSE: Duration = Duration::from_micros(100);

/// What a helper has to know to open the mailbox of `account`, and to finish what `record` says.
pub(super) fn task(
    account: &Account,
    settings: &Settings,
    prepared: &Prepared,
    record: Option<File>,
) -> Task {
    Task {
        uid: account.uid,
        gid: account.gid,
        groups: account.groups.clone(),
        mailbox: settings.mailbox.path(&account.name, &account.home),
        locking: Locking {
            timeout: settings.lock_timeout.0,
            dotlock: settings.dotlock,
            stale_after: settings.dotlock_stale_after.0,
            spool_group: prepared.spool_group(),
        },
        record,
        missing: WhenMissing::Report,
    }
}

/// A helper process that has not been seen ending.
#[derive(Debug)]
pub(super) struct Helper {
    pid: Pid,
    uid: Uid,
    /// `None` while being dropped: the helper ends when its channel does.
    channel: Option<ToHelper>,
}

/// What opening a mailbox came to.
#[derive(Debug)]
pub(super) enum Opened {
    /// Locked until the helper is told otherwise, and readable by this descriptor.
    Mailbox {
        helper: Helper,
        mailbox: OwnedFd,
        without_dotlock: bool,
        /// How long others held it.
        waited: Duration,
        /// What became of the task's redo record.
        recovery: Option<Recovery>,
    },
    /// There is none.
    Missing,
    /// Somebody else holds it.
    InUse(String),
    /// It is not to be served; whether that lasts.
    Refused { reason: String, permanent: bool },
}

impl Helper {
    /// Forks a helper that opens and locks a mailbox.
    ///
    /// # Errors
    ///
    /// There is no process or no memory for it, or it died.
    pub(super) fn open(task: &Task) -> io::Result<Opened> {
        let (ours, theirs) = pair()?;
        let pid = fork_without_modules(|| as_user::run(task, theirs))?;
        let mut helper = Self { pid, uid: task.uid, channel: Some(ours) };
        // Finishing an interrupted update takes as long as writing the mailbox.
        let patience = if task.record.is_some() { RECOVERY_PATIENCE } else { PATIENCE };
        Ok(match helper.report(Some(task.locking.timeout + patience))? {
            (Report::Opened { without_dotlock, waited, recovery }, Some(mailbox)) => {
                Opened::Mailbox { helper, mailbox, without_dotlock, waited, recovery }
            }
            (Report::Missing, None) => Opened::Missing,
            (Report::Locked { holder }, None) => Opened::InUse(one_line(&holder)),
            (Report::Refused { reason, permanent }, None) => {
                Opened::Refused { reason: one_line(&reason), permanent }
            }
            (
                Report::Opened { .. }
                | Report::Missing
                | Report::Locked { .. }
                | Report::Refused { .. }
                | Report::Done
                | Report::Failed { .. },
                _,
            ) => return Err(unexpected()),
        })
    }

    /// Tells the helper what to do, without waiting for it.
    ///
    /// # Errors
    ///
    /// It died.
    pub(super) fn order(&mut self, order: &Order) -> io::Result<()> {
        self.channel_mut()?.send(order, None)
    }

    /// Has what was named removed, which are the messages `deleted`, by an empty redo record, and kept in an
    /// empty file if there is one.
    ///
    /// # Errors
    ///
    /// What went wrong, and what that means for the mailbox.
    pub(super) fn commit(
        mut self,
        deleted: Totals,
        record: &File,
        kept: Option<&File>,
    ) -> Result<(), (String, Outcome)> {
        if let Some(kept) = kept {
            let sent = self.channel_mut().and_then(|to| to.send(&Order::Keep, Some(kept.as_fd())));
            sent.map_err(|error| (error.to_string(), Outcome::Untouched))?;
        }
        self.change(&Order::Commit(deleted), record)
    }

    /// Has the mail in a redo record appended.
    ///
    /// # Errors
    ///
    /// As of [`Self::commit`].
    pub(super) fn put_back(self, record: &File) -> Result<(), (String, Outcome)> {
        self.change(&Order::PutBack, record)
    }

    fn change(mut self, order: &Order, record: &File) -> Result<(), (String, Outcome)> {
        // Once it has the record nobody but the record knows how far it came.
        let died = |error: io::Error| (error.to_string(), Outcome::Unfinished);
        let channel = self.channel_mut().map_err(died)?;
        channel.send(order, Some(record.as_fd())).map_err(died)?;
        // However long it takes, it is worth waiting for.
        match self.report(None).map_err(died)? {
            (Report::Done, None) => Ok(()),
            (Report::Failed { reason, mailbox }, None) => Err((one_line(&reason), mailbox)),
            _ => Err(died(unexpected())),
        }
    }

    /// Gives the last order and waits for its end; what went wrong is text.
    ///
    /// # Errors
    ///
    /// It died: what it did is uncertain.
    pub(super) fn finish(mut self, order: &Order) -> io::Result<Result<(), String>> {
        self.order(order)?;
        match self.report(Some(PATIENCE))? {
            (Report::Done, None) => Ok(Ok(())),
            (Report::Failed { reason, .. }, None) => Ok(Err(one_line(&reason))),
            (
                Report::Done
                | Report::Failed { .. }
                | Report::Opened { .. }
                | Report::Missing
                | Report::Locked { .. }
                | Report::Refused { .. },
                _,
            ) => Err(unexpected()),
        }
    }

    fn report(&mut self, limit: Option<Duration>) -> io::Result<(Report, Option<OwnedFd>)> {
        let channel = self.channel_mut()?;
        let limit = limit.map_or(PollTimeout::NONE, |limit| {
            PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX)
        });
        let mut readable = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut readable, limit) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => break,
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        channel.receive()
    }

    fn channel_mut(&mut self) -> io::Result<&mut ToHelper> {
        self.channel.as_mut().ok_or_else(unexpected)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.channel = None;
        // Without its channel it ends at once, unless its user stopped it.
        let deadline = Instant::now() + PATIENCE;
        while waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive) {
            if Instant::now() >= deadline {
                // It would keep the mailbox locked, and with others of its kind use up the processes.
                return force::end(self.pid, self.uid);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// What a helper says may hold the name of any process, and that anything.
fn one_line(text: &str) -> String {
    printable_up_to(300, text.as_bytes())
}

fn unexpected() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the as-user helper gave no proper answer")
}
