//! The monitor's side of an as-user helper.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
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

/// Between looks whether its user has stopped a helper, which nobody waits for.
const BETWEEN_LOOKS: u16 = 1000; // milliseconds

/// A helper process that has not been seen ending.
#[derive(Debug)]
pub(super) struct Helper {
    pid: Pid,
    uid: Uid,
    /// `None` when it is no use any more: the helper ends when its channel does.
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

    /// Tells the helper what to do, without waiting for it to be done.
    ///
    /// # Errors
    ///
    /// It died, or its user stopped it. It has heard no order then that would change the mailbox, and
    /// hears none any more.
    pub(super) fn order(&mut self, order: &Order) -> io::Result<()> {
        self.tell(order, None)
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
            self.tell(&Order::Keep, Some(kept.as_fd())).map_err(untold)?;
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
        self.tell(order, Some(record.as_fd())).map_err(untold)?;
        // Once it has the record nobody but the record knows how far it came.
        let died = |error: io::Error| (error.to_string(), Outcome::Unfinished);
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

    fn tell(&mut self, order: &Order, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let channel = self.channel.as_ref().ok_or_else(gone)?;
        let told = channel.send_within(PATIENCE, order, descriptor);
        if told.is_err() {
            // It is not to go on without having heard one of its orders.
            self.channel = None;
        }
        told
    }

    fn report(&mut self, limit: Option<Duration>) -> io::Result<(Report, Option<OwnedFd>)> {
        let channel = self.channel.as_ref().ok_or_else(gone)?;
        let began = Instant::now();
        let mut readable = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut readable, PollTimeout::from(BETWEEN_LOOKS)) {
                Ok(0) if force::is_stopped(self.pid) => return Err(gone()),
                Ok(0) if limit.is_some_and(|limit| began.elapsed() >= limit) => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Ok(0) => {}
                Ok(_) => break,
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        channel.receive()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.channel = None;
        // Without its channel it ends at once, unless its user stopped it.
        // Then it would keep the mailbox locked, and with others of its kind use up the processes.
        let _ = force::await_end(self.pid, self.uid, PATIENCE);
    }
}

/// What a helper says may hold the name of any process, and that anything.
fn one_line(text: &str) -> String {
    printable_up_to(300, text.as_bytes())
}

/// What is wrong with a helper that did not even get an order to change the mailbox.
fn untold(error: io::Error) -> (String, Outcome) {
    (format!("as-user helper: {error}"), Outcome::Untouched)
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "it died, or its user stopped it")
}

fn unexpected() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the as-user helper gave no proper answer")
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::{alarm, pause};

    use super::*;
    use crate::channel::FromHelper;
    use crate::ffi::process::fork;

    #[test]
    fn helper_that_was_stopped_is_not_waited_for() {
        let (ours, theirs): (ToHelper, FromHelper) = pair().unwrap();
        let pid = fork(|| {
            alarm::set(60);
            pause();
            0
        });
        let pid = pid.unwrap();
        let mut helper = Helper { pid, uid: Uid::current(), channel: Some(ours) };
        kill(pid, Signal::SIGSTOP).unwrap();
        assert_eq!(helper.report(None).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        drop(helper);
        assert_eq!(kill(pid, None), Err(nix::Error::ESRCH));
        drop(theirs);
    }

    #[test]
    fn helper_that_missed_an_order_leaves_the_mailbox_untouched() {
        let (ours, theirs) = pair().unwrap();
        drop(theirs);
        let pid = fork(|| 0).unwrap();
        let mut helper = Helper { pid, uid: Uid::current(), channel: Some(ours) };
        assert!(helper.order(&Order::Delete(Vec::new())).is_err());
        let record = File::open("/dev/null").unwrap();
        let (reason, outcome) = helper.commit(Totals::default(), &record, None).unwrap_err();
        assert_eq!(outcome, Outcome::Untouched);
        assert_eq!(reason, "as-user helper: it died, or its user stopped it");
    }
}
