//! What a session does with a maildrop: opening it after a login, and locking it.
//!
//! The mailbox is never touched here: a helper under its user's ids does that.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::helper::{Helper, Opened, task};
use super::login::LoggedIn;
use super::permission::Phase;
use super::session::{Broken, Session};
use super::session_lock::{Acquired, SessionLock};
use super::{random_number, recovery, redo_records, remembered_ids};
use crate::as_user::Task;
use crate::channel::{Answer, Memory, NotRemembered, Order, Recovery, Refusal, Trouble};
use crate::event::Event;

/// Octets of remembered unique-ids that a worker may send for each message that is allowed.
const REMEMBERED_PER_MESSAGE: u64 = 80;

/// Octets of the smallest message in a mailbox: `From `, at its very end.
pub(super) const SMALLEST_MESSAGE: u64 = 5;

/// Somebody who is logged in, and what goes with that.
pub(super) struct MailUser {
    pub(super) logged_in: LoggedIn,
    task: Task,
    lock: SessionLock,
    /// The file of unique-ids that are remembered.
    file_of_ids: FileOfIds,
    /// What is to take its place, as the worker sends it piece by piece.
    to_remember: Option<String>,
    /// Messages that there can be: a worker is not to fill a disk, nor the journal.
    pub(super) most_messages: u64,
}

/// What is known of the file of unique-ids.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FileOfIds {
    Usable,
    /// The journal knows.
    Damaged,
    /// The journal knows. It is not to be replaced: what is in it may be had later.
    OutOfReach,
}

impl MailUser {
    pub(super) fn mailbox(&self) -> String {
        self.task.mailbox.display().to_string()
    }
}

impl Session<'_> {
    /// Hands the locked mailbox to the worker, or says why not, with the PAM session closed again.
    pub(super) fn open_maildrop(&mut self, logged_in: LoggedIn) -> Result<Option<Refusal>, Broken> {
        let refusal = match self.prepare(&logged_in) {
            Err(broken) => {
                self.log_out(logged_in);
                return Err(broken);
            }
            Ok(Ok((task, lock))) => {
                let mut user = MailUser {
                    logged_in,
                    task,
                    lock,
                    file_of_ids: FileOfIds::Usable,
                    to_remember: None,
                    most_messages: 0,
                };
                match self.open_mailbox(&user) {
                    Ok(mailbox) => {
                        user.task.record = None;
                        user.most_messages = self.most_messages(mailbox.as_ref());
                        // Kept first: whatever fails now, the PAM session is closed.
                        let name = self.user.insert(user).logged_in.account.name.clone();
                        self.hand_over(&name, mailbox)?;
                        return Ok(None);
                    }
                    Err(refusal) => {
                        self.close(user);
                        refusal
                    }
                }
            }
            Ok(Err(refusal)) => {
                self.log_out(logged_in);
                refusal
            }
        };
        self.log.user = None;
        Ok(Some(refusal))
    }

    /// Ends the session of a user.
    pub(super) fn close(&mut self, user: MailUser) {
        // First, so that the user's next session need not wait for PAM.
        drop(user.lock);
        self.log_out(user.logged_in);
    }

    fn log_out(&mut self, logged_in: LoggedIn) {
        self.let_signals_end_this();
        logged_in.log_out(self.settings, self.log, self.worker.channel.as_fd());
        self.hold_signals();
    }

    fn prepare(
        &mut self,
        logged_in: &LoggedIn,
    ) -> Result<Result<(Task, SessionLock), Refusal>, Broken> {
        let account = &logged_in.account;
        let patience = self.settings.session_wait.0;
        let wait = |pause| self.wait_until(Instant::now() + pause);
        let lock = match SessionLock::acquire_with(&account.name, self.log.id, patience, wait) {
            Ok(Err(broken)) => return Err(broken),
            Ok(Ok(Acquired::Lock(lock))) => {
                self.log.summary.add_lock_wait(lock.waited());
                lock
            }
            Ok(Ok(Acquired::HeldBy(other))) => {
                self.log.summary.add_lock_wait(patience);
                let holder = format!("another session of {}: {other}", account.name);
                self.log.log(&Event::MaildropInUse(&holder));
                return Ok(Err(Refusal::InUse));
            }
            Err(error) => {
                self.log.log(&Event::ServerFailure(&format!("session lock: {error}")));
                return Ok(Err(Refusal::Temporary));
            }
        };
        let record = match redo_records::open(&account.name) {
            Ok(record) => record,
            Err(error) => {
                self.log.log(&Event::ServerFailure(&format!("redo record: {error}")));
                return Ok(Err(Refusal::Temporary));
            }
        };
        let task = task(account, self.settings, self.prepared, record);
        Ok(Ok((task, lock)))
    }

    /// Opens and locks the mailbox; keeps the helper that holds the locks.
    pub(super) fn open_mailbox(&mut self, user: &MailUser) -> Result<Option<OwnedFd>, Refusal> {
        let opened = match Helper::open(&user.task) {
            Ok(opened) => opened,
            Err(error) => {
                Opened::Refused { reason: format!("as-user helper: {error}"), permanent: false }
            }
        };
        match opened {
            Opened::Mailbox { helper, mailbox, without_dotlock, waited, recovery } => {
                self.log.summary.add_lock_wait(waited);
                if let Some(recovery) = recovery {
                    self.settle(user, &recovery);
                }
                if without_dotlock {
                    self.log.log(&Event::NoDotlock(&user.mailbox()));
                }
                self.helper = Some(helper);
                Ok(Some(mailbox))
            }
            Opened::Missing if user.task.record.is_some() => {
                let (name, record) = (&user.logged_in.account.name, user.task.record.as_ref());
                match recovery::settle_without(name, &user.mailbox(), record, self.log) {
                    Ok(_) => Ok(None),
                    // Served as empty, it would be half-way when it is there again.
                    Err(why) => {
                        self.log.log(&Event::UpdateNotRecovered(&user.mailbox(), &why));
                        Err(Refusal::Temporary)
                    }
                }
            }
            Opened::Missing => Ok(None),
            Opened::InUse(holder) => {
                self.log.summary.add_lock_wait(self.settings.lock_timeout.0);
                let text = format!("{}: {}", user.mailbox(), holder);
                self.log.log(&Event::MaildropInUse(&text));
                Err(Refusal::InUse)
            }
            Opened::Refused { reason, permanent } => {
                self.log.log(&Event::MaildropRefused(&user.mailbox(), &reason));
                Err(if permanent { Refusal::Permanent } else { Refusal::Temporary })
            }
        }
    }

    pub(super) fn settle(&self, user: &MailUser, recovery: &Recovery) {
        recovery::settle(&user.logged_in.account.name, &user.mailbox(), recovery, self.log);
    }

    fn most_messages(&self, mailbox: Option<&OwnedFd>) -> u64 {
        let size = mailbox.and_then(|mailbox| nix::sys::stat::fstat(mailbox).ok());
        let size = size.and_then(|status| u64::try_from(status.st_size).ok()).unwrap_or_default();
        u64::from(self.settings.max_messages.0).min(size / SMALLEST_MESSAGE)
    }

    fn hand_over(&mut self, user: &str, mailbox: Option<OwnedFd>) -> Result<(), Broken> {
        let (remembered, file) = match remembered_ids::open(user) {
            Ok(Some(file)) => (Memory::Follows, Some(file)),
            Ok(None) => (Memory::Empty, None),
            Err(error) => {
                self.leave_ids_alone(&error);
                (Memory::OutOfReach, None)
            }
        };
        let answer = Answer::Maildrop { fingerprint_key: random_number(), remembered };
        self.worker.answer(&answer, mailbox.as_ref().map(AsFd::as_fd))?;
        if let Some(file) = file {
            self.worker.answer(&Answer::Remembered, Some(file.as_fd()))?;
        }
        Ok(())
    }

    /// The file of unique-ids cannot be read, perhaps only for now.
    fn leave_ids_alone(&mut self, error: &io::Error) {
        if let Some(user) = &mut self.user {
            user.file_of_ids = FileOfIds::OutOfReach;
        }
        let why = format!("reading those that are remembered: {error}");
        self.log.log(&Event::UniqueIdsNotKept(&why));
    }

    /// The worker has met something wrong in the file of unique-ids.
    pub(super) fn not_remembered(&mut self, why: NotRemembered) -> Result<(), Broken> {
        let Some(user) = &mut self.user else { return Ok(()) };
        if user.file_of_ids != FileOfIds::Usable {
            return Err(Broken::Worker("says twice what is wrong with unique-ids".to_owned()));
        }
        match why {
            NotRemembered::Unreadable(errno) => {
                self.leave_ids_alone(&io::Error::from_raw_os_error(errno));
            }
            NotRemembered::Damaged(lines) => {
                user.file_of_ids = FileOfIds::Damaged;
                let why = format!("{lines} damaged lines are dropped");
                self.log.log(&Event::UniqueIdsNotKept(&why));
            }
        }
        Ok(())
    }

    pub(super) fn remember(&mut self, piece: &str) -> Result<(), Broken> {
        let Some(user) = &mut self.user else { return Ok(()) };
        if user.file_of_ids == FileOfIds::OutOfReach {
            return Err(Broken::Worker("unique-ids in place of those not read".to_owned()));
        }
        let text = user.to_remember.get_or_insert_default();
        if (text.len() + piece.len()) as u64 > user.most_messages * REMEMBERED_PER_MESSAGE {
            return Err(Broken::Worker("more unique-ids than messages".to_owned()));
        }
        text.push_str(piece);
        Ok(())
    }

    pub(super) fn store_remembered(&mut self) {
        let Some(user) = &mut self.user else { return };
        let Some(text) = user.to_remember.take() else { return };
        if let Err(error) = remembered_ids::store(&user.logged_in.account.name, &text) {
            self.log.log(&Event::UniqueIdsNotKept(&error.to_string()));
        }
    }

    /// The mailbox is there and the worker cannot serve it.
    pub(super) fn refuse_mailbox(&mut self, trouble: Trouble) -> Result<Phase, Broken> {
        self.release();
        if let Some(user) = self.user.take() {
            let why = describe(trouble);
            self.log.log(&Event::MaildropRefused(&user.mailbox(), &why));
            self.close(user);
        }
        self.log.user = None;
        Ok(Phase::AwaitingLogin)
    }

    /// Has the mailbox unlocked.
    pub(super) fn release(&mut self) {
        if let Some(helper) = self.helper.take() {
            // If it died, its locks died with it, but for the dotlock, which names a dead process.
            if let Err(error) = helper.finish(&Order::Release) {
                self.log.log(&Event::ServerFailure(&format!("unlocking the mailbox: {error}")));
            }
        }
    }
}

/// What is wrong with a mailbox, in words.
pub(super) fn describe(trouble: Trouble) -> String {
    match trouble {
        Trouble::NotMbox => "it is not in mbox format: no From_ line at its beginning".to_owned(),
        Trouble::TooManyMessages => "it has more messages than max-messages allows".to_owned(),
        Trouble::TooLarge => "it is larger than max-mailbox-size allows".to_owned(),
        Trouble::Changed => "another program changed it".to_owned(),
        Trouble::Unreadable(errno) => {
            format!("reading it: {}", std::io::Error::from_raw_os_error(errno))
        }
    }
}
