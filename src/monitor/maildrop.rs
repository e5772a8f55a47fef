//! What a session does with a maildrop: opening it after a login, and UPDATE.
//!
//! The mailbox is never touched here: a helper under its user's ids does that.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::helper::{Helper, Opened, task};
use super::kept::{self, Decision};
use super::login::LoggedIn;
use super::permission::Phase;
use super::session::{Broken, Session};
use super::session_lock::{Acquired, SessionLock};
use super::{expiry, random_number, recovery, redo_records, remembered_ids};
use crate::as_user::Task;
use crate::channel::{Answer, Order, Outcome, Range, Recovery, Refusal, Totals, Trouble};
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
    /// Unique-ids to be kept, as the worker sends them piece by piece.
    to_remember: Option<String>,
    /// Messages that there can be: a worker is not to fill a disk, nor the journal.
    most_messages: u64,
}

impl MailUser {
    fn mailbox(&self) -> String {
        self.task.mailbox.display().to_string()
    }
}

impl Session<'_> {
    /// Hands the locked mailbox to the worker, or says why not, with the PAM session closed again.
    pub(super) fn open_maildrop(&mut self, logged_in: LoggedIn) -> Result<Option<Refusal>, Broken> {
        let refusal = match self.prepare(&logged_in) {
            Ok((task, lock)) => {
                let mut user =
                    MailUser { logged_in, task, lock, to_remember: None, most_messages: 0 };
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
            Err(refusal) => {
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

    fn prepare(&mut self, logged_in: &LoggedIn) -> Result<(Task, SessionLock), Refusal> {
        let account = &logged_in.account;
        let patience = self.settings.session_wait.0;
        let lock = match SessionLock::acquire(&account.name, self.log.id, patience) {
            Ok(Acquired::Lock(lock)) => {
                self.log.summary.add_lock_wait(lock.waited());
                lock
            }
            Ok(Acquired::HeldBy(other)) => {
                self.log.summary.add_lock_wait(patience);
                let holder = format!("another session of {}: {other}", account.name);
                self.log.log(&Event::MaildropInUse(&holder));
                return Err(Refusal::InUse);
            }
            Err(error) => {
                self.log.log(&Event::ServerFailure(&format!("session lock: {error}")));
                return Err(Refusal::Temporary);
            }
        };
        let record = match redo_records::open(&account.name) {
            Ok(record) => record,
            Err(error) => {
                self.log.log(&Event::ServerFailure(&format!("redo record: {error}")));
                return Err(Refusal::Temporary);
            }
        };
        let task = task(account, self.settings, self.prepared, record);
        Ok((task, lock))
    }

    /// Opens and locks the mailbox; keeps the helper that holds the locks.
    fn open_mailbox(&mut self, user: &MailUser) -> Result<Option<OwnedFd>, Refusal> {
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
                // Served as empty, it would be half-way when it is there again.
                let why = recovery::waits(&user.logged_in.account.name, "the mailbox");
                self.log.log(&Event::UpdateNotRecovered(&user.mailbox(), &why));
                Err(Refusal::Temporary)
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

    fn settle(&self, user: &MailUser, recovery: &Recovery) {
        recovery::settle(&user.logged_in.account.name, &user.mailbox(), recovery, self.log);
    }

    fn most_messages(&self, mailbox: Option<&OwnedFd>) -> u64 {
        let size = mailbox.and_then(|mailbox| nix::sys::stat::fstat(mailbox).ok());
        let size = size.and_then(|status| u64::try_from(status.st_size).ok()).unwrap_or_default();
        u64::from(self.settings.max_messages.0).min(size / SMALLEST_MESSAGE)
    }

    fn hand_over(&mut self, user: &str, mailbox: Option<OwnedFd>) -> Result<(), Broken> {
        let remembered = match remembered_ids::open(user) {
            Ok(remembered) => remembered,
            Err(error) => {
                self.log.log(&Event::UniqueIdsNotKept(&error.to_string()));
                None
            }
        };
        let channel = &mut self.worker.channel;
        let answer =
            Answer::Maildrop { fingerprint_key: random_number(), remembered: remembered.is_some() };
        channel.send(&answer, mailbox.as_ref().map(AsFd::as_fd))?;
        if let Some(file) = remembered {
            channel.send(&Answer::Remembered, Some(file.as_fd()))?;
        }
        Ok(())
    }

    pub(super) fn remember(&mut self, piece: &str) -> Result<(), Broken> {
        let Some(user) = &mut self.user else { return Ok(()) };
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

    /// UPDATE begins. There is one in a session, however it ends.
    pub(super) fn lock(&mut self) -> Result<Phase, Broken> {
        let Some(user) = self.user.take() else { return Ok(Phase::Finished) };
        self.update_began = Some(Instant::now());
        self.progress.begin_update(self.log);
        let opened = self.open_mailbox(&user);
        self.user = Some(user);
        let (answer, mailbox) = match opened {
            Ok(Some(mailbox)) => (Answer::Locked, Some(mailbox)),
            Ok(None) => {
                let mailbox = self.user.as_ref().map(MailUser::mailbox).unwrap_or_default();
                let why = "it is gone, another program removed it";
                self.log.log(&Event::UpdateFailed(&mailbox, why));
                (Answer::MailboxGone, None)
            }
            Err(refusal) => (Answer::NotUpdated(refusal), None),
        };
        if mailbox.is_none() {
            self.end_update(None);
        }
        self.worker.channel.send(&answer, mailbox.as_ref().map(AsFd::as_fd))?;
        Ok(if mailbox.is_some() { Phase::Updating } else { Phase::Finished })
    }

    pub(super) fn delete(&mut self, ranges: Vec<Range>) -> Result<(), Broken> {
        self.ranges += ranges.len() as u64;
        for range in &ranges {
            let octets = range.end.saturating_sub(range.start);
            self.doomed_octets = self.doomed_octets.saturating_add(octets);
        }
        if self.ranges > u64::from(self.settings.max_messages.0) {
            return Err(Broken::Worker("more ranges to delete than messages".to_owned()));
        }
        match &mut self.helper {
            Some(helper) => helper.order(&Order::Delete(ranges)).map_err(helper_died),
            None => Ok(()),
        }
    }

    pub(super) fn commit(&mut self, deleted: Totals, left: Totals) -> Result<Phase, Broken> {
        let (Some(helper), Some(user)) = (self.helper.take(), &self.user) else {
            return Ok(Phase::Finished);
        };
        if u64::from(deleted.messages) > user.most_messages {
            return Err(Broken::Worker("more messages deleted than there were".to_owned()));
        }
        let mut phase = Phase::Finished;
        let answer = match self.commit_with_record(helper, user, deleted) {
            Ok(()) => {
                self.store_remembered();
                self.note_kept(deleted);
                self.end_update(Some((deleted, left)));
                phase = self.expect_names(deleted.messages);
                Answer::Committed
            }
            Err(reason) => {
                self.log.log(&Event::UpdateFailed(&user.mailbox(), &reason));
                self.end_update(None);
                Answer::NotUpdated(Refusal::Temporary)
            }
        };
        self.worker.channel.send(&answer, None)?;
        Ok(phase)
    }

    /// UPDATE is over; what it came to, when it came to something.
    fn end_update(&mut self, removed_and_left: Option<(Totals, Totals)>) {
        let summary = &mut self.log.summary;
        summary.update = self.update_began.take().map(|began| began.elapsed());
        match removed_and_left {
            Some(_) => summary.maildrop = removed_and_left,
            None => self.update_failed = true,
        }
    }

    /// Lets `helper` remove what it was told, by a redo record that stays when it is needed.
    fn commit_with_record(
        &self,
        helper: Helper,
        user: &MailUser,
        deleted: Totals,
    ) -> Result<(), String> {
        let name = &user.logged_in.account.name;
        let failed = |error: io::Error| format!("redo record in /var/lib/popa3d: {error}");
        let not_kept =
            |error: io::Error| format!("keeping what is removed in /var/lib/popa3d: {error}");
        let record = redo_records::create(name).map_err(failed)?;
        let kept = match self.keeps().then(|| kept::create(name)).transpose() {
            Ok(kept) => kept,
            Err(error) => {
                redo_records::remove(name).map_err(failed)?;
                return Err(not_kept(error));
            }
        };
        let settle = |decision| {
            // Where nothing is kept this costs nothing.
            kept.as_ref().map_or(Ok(()), |_| kept::settle(name, decision)).map_err(not_kept)
        };
        match helper.commit(deleted, &record, kept.as_ref()) {
            Ok(()) => {
                settle(Decision::Happened)?;
                redo_records::remove(name).map_err(failed)
            }
            Err((reason, Outcome::Untouched)) => {
                settle(Decision::DidNot)?;
                redo_records::remove(name).map_err(failed)?;
                Err(reason)
            }
            // Whoever looked at the mailbox now would see it half-way: finish it at once.
            Err((reason, Outcome::Unfinished)) => {
                self.log.log(&Event::UpdateFailed(&user.mailbox(), &reason));
                self.finish_commit(user)
            }
        }
    }

    /// Whether what the worker named is to be kept, too.
    fn keeps(&self) -> bool {
        kept::keeps(self.settings).is_some()
            && !kept::is_too_much(self.doomed_octets, self.settings)
    }

    /// Makes room in what is kept, and says so.
    fn note_kept(&self, deleted: Totals) {
        let Some(user) = self.user.as_ref().filter(|_| kept::keeps(self.settings).is_some()) else {
            return;
        };
        if !self.keeps() {
            self.log.log(&Event::NotKept(deleted));
        }
        expiry::prune(&user.logged_in.account.name, self.settings, self.log);
    }

    fn finish_commit(&self, user: &MailUser) -> Result<(), String> {
        let account = &user.logged_in.account;
        let record = redo_records::open(&account.name).map_err(|error| error.to_string())?;
        let opened = Helper::open(&task(account, self.settings, self.prepared, record));
        match opened.map_err(|error| error.to_string())? {
            Opened::Mailbox { helper, recovery: Some(recovery), .. } => {
                self.settle(user, &recovery);
                helper.finish(&Order::Release).map_err(|error| error.to_string())??;
                match recovery {
                    Recovery::Finished(_) | Recovery::WasFinished(_) => Ok(()),
                    Recovery::NothingBegun => Err("nothing was removed".to_owned()),
                    Recovery::Conflict(why) => Err(why),
                }
            }
            Opened::Refused { reason, .. } => Err(reason),
            Opened::InUse(holder) => Err(holder),
            Opened::Mailbox { recovery: None, .. } | Opened::Missing => {
                Err("the mailbox or its redo record is gone".to_owned())
            }
        }
    }

    pub(super) fn abandon(&mut self, trouble: Trouble) -> Result<Phase, Broken> {
        self.release();
        let mailbox = self.user.as_ref().map(MailUser::mailbox).unwrap_or_default();
        self.log.log(&Event::UpdateFailed(&mailbox, &describe(trouble)));
        self.end_update(None);
        Ok(Phase::Finished)
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

fn helper_died(error: io::Error) -> Broken {
    Broken::Worker(format!("as-user helper: {error}"))
}

/// What is wrong with a mailbox, in words.
pub(super) fn describe(trouble: Trouble) -> String {
    match trouble {
        Trouble::NotMbox => "it is not in mbox format: no From_ line at its beginning".to_owned(),
        Trouble::TooManyMessages => "it has more messages than max-messages allows".to_owned(),
        Trouble::TooLarge => "it is larger than max-mailbox-size allows".to_owned(),
        Trouble::Changed => "another program changed it".to_owned(),
        Trouble::Unreadable(errno) => {
            format!("reading it: {}", io::Error::from_raw_os_error(errno))
        }
    }
}
