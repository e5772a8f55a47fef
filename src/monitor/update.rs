//! What a session does in UPDATE (RFC 1939 section 6).
//!
//! The mailbox is never touched here: a helper under its user's ids does that.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use super::expunged::Unnamed;
use super::helper::{Helper, Opened, task};
use super::kept::{self, Decision};
use super::maildrop::{MailUser, describe};
use super::permission::Phase;
use super::session::{Broken, Session};
use super::{expiry, redo_records};
use crate::channel::{Answer, Order, Outcome, Range, Recovery, Refusal, Totals, Trouble};
use crate::event::Event;

/// How far UPDATE is, of which there is one in a session.
#[derive(Debug, Default)]
pub(super) struct Update {
    /// When it began, while it is under way.
    began: Option<Instant>,
    /// Whether it removed nothing, and should have.
    pub(super) failed: bool,
    /// How many ranges the worker named; a helper keeps them in memory.
    ranges: u64,
    /// Octets in these.
    doomed_octets: u64,
    /// How many of the removed messages the worker has yet to name for the journal.
    pub(super) unnamed: Unnamed,
}

impl Session<'_> {
    /// UPDATE begins. There is one in a session, however it ends.
    pub(super) fn lock(&mut self) -> Result<Phase, Broken> {
        let Some(user) = self.user.take() else { return Ok(Phase::Finished) };
        self.update.began = Some(Instant::now());
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
        self.worker.answer(&answer, mailbox.as_ref().map(AsFd::as_fd))?;
        Ok(if mailbox.is_some() { Phase::Updating } else { Phase::Finished })
    }

    pub(super) fn delete(&mut self, ranges: Vec<Range>) -> Result<(), Broken> {
        self.update.ranges += ranges.len() as u64;
        for range in &ranges {
            let octets = range.end.saturating_sub(range.start);
            self.update.doomed_octets = self.update.doomed_octets.saturating_add(octets);
        }
        if self.update.ranges > u64::from(self.settings.max_messages.0) {
            return Err(Broken::Worker("more ranges to delete than messages".to_owned()));
        }
        if let Some(helper) = &mut self.helper {
            // Without it nothing is removed, and the client is told when the worker wants that done.
            let _ = helper.order(&Order::Delete(ranges));
        }
        Ok(())
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
        self.worker.answer(&answer, None)?;
        Ok(phase)
    }

    /// UPDATE is over; what it came to, when it came to something.
    fn end_update(&mut self, removed_and_left: Option<(Totals, Totals)>) {
        let summary = &mut self.log.summary;
        summary.update = self.update.began.take().map(|began| began.elapsed());
        match removed_and_left {
            Some(_) => summary.maildrop = removed_and_left,
            None => self.update.failed = true,
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
            && !kept::is_too_much(self.update.doomed_octets, self.settings)
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
}
