//! Finishing UPDATEs that a crash interrupted: at the user's next login, or for all users at boot.

use std::fs::File;
use std::io::Write;
use std::process::ExitCode;

use super::account;
use super::helper::{Helper, Opened, task};
use super::kept::{self, Decision};
use super::prepared::Prepared;
use super::random_number;
use super::redo_records;
use super::session_lock::{Acquired, SessionLock};
use crate::channel::{Order, Recovery};
use crate::event::{Event, Session as Log};
use crate::settings::{Place, Settings};

/// Drops the redo record of `user`, or keeps it aside when it does not fit; tells the journal, and
/// returns what it told.
pub(super) fn settle(user: &str, mailbox: &str, recovery: &Recovery, log: &Log) -> String {
    let (what, removed, decision) = match recovery {
        Recovery::NothingBegun => {
            ("it had not begun, the mailbox is as it was", None, Decision::DidNot)
        }
        Recovery::WasFinished(removed) => ("it had come to its end", *removed, Decision::Happened),
        Recovery::Finished(removed) => ("it is finished now", *removed, Decision::Happened),
        Recovery::Conflict(why) => (why.as_str(), None, Decision::Unknown),
    };
    // As long as this is not done, the record is needed.
    let settled = kept::settle(user, decision).and_then(|()| match decision {
        Decision::Happened | Decision::DidNot => redo_records::remove(user).map(|()| None),
        Decision::Unknown => redo_records::set_aside(user).map(Some),
    });
    match settled {
        Ok(None) => {
            log.log(&Event::UpdateRecovered { mailbox, how: what, removed });
            format!("{mailbox}: {what}")
        }
        Ok(Some(kept)) => {
            let why = format!("{what}; its redo record is kept as {}", kept.display());
            log.log(&Event::UpdateNotRecovered(mailbox, &why));
            format!("{mailbox}: cannot be finished, {why}")
        }
        Err(error) => {
            let why = format!("{what}; its redo record stays: {error}");
            log.log(&Event::UpdateNotRecovered(mailbox, &why));
            format!("{mailbox}: {why}")
        }
    }
}

/// Settles what a `record` says where there is no mailbox, if that is nothing.
///
/// # Errors
///
/// Why it waits.
pub(super) fn settle_without(
    user: &str,
    mailbox: &str,
    record: Option<&File>,
    log: &Log,
) -> Result<String, String> {
    let says_something = record.map_or(Ok(false), redo_records::says_something);
    if says_something.map_err(|error| format!("redo record: {error}"))? {
        return Err(waits(user, mailbox));
    }
    Ok(settle(user, mailbox, &Recovery::NothingBegun, log))
}

/// Why the redo record of `user` waits: what it belongs to is not there now, as with a spool that is not
/// mounted yet. Only an admin can know that it never will be.
pub(super) fn waits(user: &str, what: &str) -> String {
    let record = redo_records::path(user);
    format!(
        "{what} is not there, and its redo record waits; if it is gone for good, run: rm {}",
        record.display()
    )
}

/// Finishes all interrupted UPDATEs there are (`popa3d --recover`), one after the other: one that
/// fails keeps no other from being finished. Says on standard output what it did.
#[must_use]
pub fn recover_all(config: &Place) -> ExitCode {
    let mut log = Log { id: random_number(), ..Log::default() };
    let settings = match Settings::load(config) {
        Ok(settings) => settings,
        Err(error) => {
            log.log(&Event::SettingsRefused(&error));
            return say(&[error.to_string()], ExitCode::FAILURE);
        }
    };
    let users = match redo_records::users() {
        Ok(users) => users,
        Err(error) => {
            let text = format!("reading the redo records: {error}");
            log.log(&Event::ServerFailure(&text));
            return say(&[text], ExitCode::FAILURE);
        }
    };
    let mut lines = Vec::new();
    let mut status = ExitCode::SUCCESS;
    for user in &users {
        log.user = Some(user.clone());
        match recover(user, &settings, &log) {
            Ok(line) => lines.push(line),
            Err(why) => {
                log.log(&Event::UpdateNotRecovered(user, &why));
                lines.push(format!("{user}: {why}"));
                status = ExitCode::FAILURE;
            }
        }
    }
    if lines.is_empty() {
        lines.push("no update was interrupted".to_owned());
    }
    say(&lines, status)
}

pub(super) fn recover(user: &str, settings: &Settings, log: &Log) -> Result<String, String> {
    // A session of this user may be writing this very record.
    let _lock = match SessionLock::acquire(user, log.id, settings.session_wait.0) {
        Ok(Acquired::Lock(lock)) => lock,
        Ok(Acquired::HeldBy(holder)) => return Err(format!("a session goes on: {holder}")),
        Err(error) => return Err(format!("session lock: {error}")),
    };
    let Some(record) = redo_records::open(user).map_err(|error| error.to_string())? else {
        return Ok(format!("{user}: finished by a session meanwhile"));
    };
    let found = account::find_typed(user);
    let account = match found.map_err(|error| format!("name service: {error}"))? {
        Some(account) if !account.uid.is_root() => account,
        // The name service may just not be up, and say so in the same way.
        Some(_) | None => return Err(waits(user, "the user")),
    };
    let task = task(&account, settings, &Prepared::default(), Some(record));
    let mailbox = task.mailbox.display().to_string();
    match Helper::open(&task).map_err(|error| error.to_string())? {
        Opened::Mailbox { helper, recovery, .. } => {
            let recovery = recovery.unwrap_or(Recovery::NothingBegun);
            let line = settle(user, &mailbox, &recovery, log);
            helper.finish(&Order::Release).map_err(|error| error.to_string())??;
            Ok(line)
        }
        Opened::Missing => settle_without(user, &mailbox, task.record.as_ref(), log),
        Opened::InUse(holder) => Err(format!("{mailbox} is locked: {holder}")),
        Opened::Refused { reason, .. } => Err(format!("{mailbox}: {reason}")),
    }
}

fn say(lines: &[String], status: ExitCode) -> ExitCode {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    // The journal knows it too.
    let _ = std::io::stdout().write_all(text.as_bytes());
    status
}
