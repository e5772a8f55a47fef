//! What was removed and is kept: showing it, and putting it back, for an admin.
//!
//! The mailbox is touched by a helper under its user's ids, as always; what is kept is only copied here,
//! and read by a process that is locked in.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

use nix::sys::signal::{SigSet, Signal};

use super::account::{self, Account};
use super::helper::{Helper, Opened, task};
use super::kept::{self, Decision, Removal};
use super::kept_reader::KeptReader;
use super::prepared::Prepared;
use super::session_lock::{Acquired, SessionLock};
use super::{random_number, recovery, redo_records};
use crate::as_user::{PUT_BACK_HEAD, WhenMissing};
use crate::channel::{KeptMessage, Order, Outcome, Range};
use crate::event::{Event, Session as Log};
use crate::settings::Settings;

/// Octets that are copied at once.
const COPY: u64 = 1024 * 1024;

/// A message that was removed and is kept.
#[derive(Debug)]
pub struct Kept {
    /// When it was removed.
    pub removed: SystemTime,
    /// What is known of it; texts are as they stand in it.
    pub message: KeptMessage,
}

/// Shows what is kept for `user` to `each`, the oldest removal first, in the order of the mailbox; returns
/// which files cannot be read, and why.
///
/// # Errors
///
/// Says what is wrong.
pub fn list_kept(
    user: &str,
    settings: &Settings,
    each: &mut impl FnMut(&Kept),
) -> Result<Vec<String>, String> {
    let (name, exists) = match account_of(user)? {
        Some(account) => (account.name, true),
        // What is kept of a user who is gone is there as well.
        None if account::is_name(user.as_bytes()) => (user.to_owned(), false),
        None => return Err("that is no user name".to_owned()),
    };
    let looked = look(&name, settings, &mut |kept, _| each(&kept))?;
    if looked.removals.is_empty() && !exists {
        return Err("there is no such user on this host, and nothing is kept of one".to_owned());
    }
    Ok(looked.unreadable)
}

fn account_of(user: &str) -> Result<Option<Account>, String> {
    account::find_typed(user).map_err(|error| format!("name service: {error}"))
}

/// What was looked into.
struct Looked {
    removals: Vec<Removal>,
    /// Which of them cannot be read, and why: what is damaged keeps nobody from the rest.
    unreadable: Vec<String>,
}

/// Shows each message, with which removal it belongs to.
fn look(
    user: &str,
    settings: &Settings,
    each: &mut impl FnMut(Kept, usize),
) -> Result<Looked, String> {
    let removals = kept::removals(user).map_err(|error| format!("what is kept: {error}"))?;
    let mut unreadable = Vec::new();
    let mut reader = None;
    for (number, Removal { time, path }) in removals.iter().enumerate() {
        let file = match File::open(path) {
            // It expired meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file.map_err(|error| format!("{}: {error}", path.display()))?,
        };
        let running = match reader.take() {
            Some(running) => running,
            None => KeptReader::start(settings)?,
        };
        // None of a file that turns out to be damaged.
        let mut found = Vec::new();
        match reader.insert(running).look_into(&file, &mut |message| found.push(message)) {
            Ok(()) => {
                let kept = found.into_iter().map(|message| Kept { removed: *time, message });
                kept.for_each(|kept| each(kept, number));
            }
            Err(why) => {
                unreadable.push(format!("{}: {why}", path.display()));
                // It may be what the file made of it that is out of order.
                reader = None;
            }
        }
    }
    Ok(Looked { removals, unreadable })
}

/// What was put back.
#[derive(Debug)]
pub struct Returned {
    /// How many messages.
    pub messages: u64,
    /// Where they are now.
    pub mailbox: String,
    /// Which files of what is kept cannot be read, and why.
    pub unreadable: Vec<String>,
}

/// Puts the messages that `is_chosen` names back into the mailbox of `user`, behind what is in it. Either
/// all of them are there, durably, and kept no longer, or none.
///
/// # Errors
///
/// Says what is wrong.
pub fn put_back(
    user: &str,
    settings: &Settings,
    is_chosen: impl Fn(&Kept) -> bool,
) -> Result<Returned, String> {
    let account = match account_of(user)? {
        Some(account) if !account.uid.is_root() => account,
        Some(_) => return Err("root has no mailbox here".to_owned()),
        None => return Err("there is no such user on this host".to_owned()),
    };
    // What the name service calls the user.
    let user = account.name.as_str();
    let log = Log { id: random_number(), user: Some(user.to_owned()), ..Log::default() };
    let has_record = || redo_records::open(user).map(|record| record.is_some());
    if has_record().map_err(|error| error.to_string())? {
        // What is kept depends on it.
        recovery::recover(user, settings, &log)?;
    }
    let lock = match SessionLock::acquire(user, log.id, settings.session_wait.0) {
        Ok(Acquired::Lock(lock)) => lock,
        Ok(Acquired::HeldBy(holder)) => {
            return Err(format!(
                "a session of this user goes on ({holder}); end that process, or try again when it is over"
            ));
        }
        Err(error) => return Err(format!("session lock: {error}")),
    };
    if has_record().map_err(|error| error.to_string())? {
        return Err("an update was interrupted just now; try again".to_owned());
    }
    // The shell's file size limit is to be an error, not the end half-way.
    let limit: SigSet = [Signal::SIGXFSZ].into_iter().collect();
    limit.thread_block().map_err(|error| format!("blocking SIGXFSZ: {error}"))?;
    let mut chosen: Vec<Chosen> = Vec::new();
    let Looked { removals, unreadable } = look(user, settings, &mut |kept, removal| {
        if is_chosen(&kept) {
            let KeptMessage { range, line_feeds, .. } = kept.message;
            chosen.push(Chosen { removal, range, line_feeds });
        }
    })?;
    if let (true, Some(why)) = (chosen.is_empty(), unreadable.first()) {
        return Err(format!("nothing of that can be read: {why}"));
    }
    if chosen.is_empty() {
        return Err("nothing of that is kept".to_owned());
    }
    let put_back = PutBack { user, account: &account, settings, log: &log };
    let mailbox = match put_back.run(&removals, &chosen) {
        Ok(mailbox) => mailbox,
        Err(Failure::DidNot(reason)) => return Err(reason),
        Err(Failure::Unfinished(reason)) => {
            drop(lock);
            let line = recovery::recover(user, settings, &log)?;
            return Err(format!("{reason}, and then: {line}"));
        }
    };
    let octets = chosen.iter().map(|Chosen { range, .. }| range.end - range.start).sum();
    let messages = chosen.len() as u64;
    log.log(&Event::Undeleted(messages, octets, &mailbox));
    Ok(Returned { messages, mailbox, unreadable })
}

/// A message that is to be put back.
struct Chosen {
    /// Which of the removals it belongs to.
    removal: usize,
    range: Range,
    line_feeds: u8,
}

/// Why messages were not put back.
enum Failure {
    /// The mailbox is as it was, and so is what is kept.
    DidNot(String),
    /// Nobody but the redo record knows.
    Unfinished(String),
}

struct PutBack<'a> {
    user: &'a str,
    account: &'a Account,
    settings: &'a Settings,
    log: &'a Log,
}

impl PutBack<'_> {
    /// Crash before the redo record holds all of it, and the mailbox the room for it: nothing happened.
    /// After: a recovery finishes it.
    fn run(&self, removals: &[Removal], chosen: &[Chosen]) -> Result<String, Failure> {
        let record = redo_records::create(self.user)
            .map_err(|error| Failure::DidNot(format!("redo record: {error}")))?;
        // What was left without a record cannot have happened.
        let prepared = kept::settle(self.user, Decision::DidNot)
            .and_then(|()| prepare(&record, removals, chosen));
        let opened = prepared
            .map_err(|error| format!("copying what is kept: {error}"))
            .and_then(|()| self.open(&record));
        let (helper, mailbox) = match opened {
            Ok(opened) => opened,
            Err(reason) => return Err(self.drop_all(reason)),
        };
        match helper.put_back(&record) {
            Ok(()) => kept::settle(self.user, Decision::Happened)
                .and_then(|()| redo_records::remove(self.user))
                .map(|()| mailbox)
                .map_err(|error| Failure::Unfinished(error.to_string())),
            Err((reason, Outcome::Untouched)) => Err(self.drop_all(format!("{mailbox}: {reason}"))),
            Err((reason, Outcome::Unfinished)) => {
                Err(Failure::Unfinished(format!("{mailbox}: {reason}")))
            }
        }
    }

    /// The mailbox, locked, and made if there is none.
    fn open(&self, record: &File) -> Result<(Helper, String), String> {
        let mut task = task(self.account, self.settings, &Prepared::default(), None);
        task.missing = WhenMissing::Create;
        let path = task.mailbox.display().to_string();
        match Helper::open(&task).map_err(|error| format!("as-user helper: {error}"))? {
            Opened::Mailbox { helper, mailbox, .. } => {
                let size = |file: &File| Ok(file.metadata()?.len());
                let size: io::Result<u64> = size(record).and_then(|more| {
                    let size = size(&File::from(mailbox))?;
                    Ok(size.saturating_add(more))
                });
                let size = size.map_err(|error| format!("{path}: {error}"))?;
                if self.settings.max_mailbox_size.0.is_some_and(|most| size > most) {
                    let _ = helper.finish(&Order::Release);
                    return Err(format!("{path} would become larger than max-mailbox-size allows"));
                }
                Ok((helper, path))
            }
            Opened::InUse(holder) => Err(format!("{path} is locked: {holder}")),
            Opened::Refused { reason, .. } => Err(format!("{path}: {reason}")),
            Opened::Missing => Err(format!("there is no {path}")),
        }
    }

    /// The mailbox is as it was, and so is what is kept.
    fn drop_all(&self, reason: String) -> Failure {
        let dropped = kept::settle(self.user, Decision::DidNot)
            .and_then(|()| redo_records::remove(self.user));
        if let Err(error) = dropped {
            let text = format!("dropping what was prepared: {error}");
            self.log.log(&Event::ServerFailure(&text));
        }
        Failure::DidNot(reason)
    }
}

/// Writes what is chosen into `record`, as it is to stand in the mailbox, and what is left of each
/// removal into a file that takes its place.
fn prepare(record: &File, removals: &[Removal], chosen: &[Chosen]) -> io::Result<()> {
    let mut mail = Copy { to: record, place: PUT_BACK_HEAD };
    for (number, removal) in removals.iter().enumerate() {
        let of_this = || chosen.iter().filter(|chosen| chosen.removal == number);
        if of_this().next().is_none() {
            continue;
        }
        let kept = File::open(&removal.path)?;
        let rest_file = kept::prepare_rest(removal)?;
        let mut rest = Copy { to: &rest_file, place: 0 };
        let mut from = 0;
        for Chosen { range, line_feeds, .. } in of_this() {
            rest.copy(&kept, Range { start: from, end: range.start })?;
            mail.copy(&kept, *range)?;
            mail.write(&vec![b'\n'; usize::from(*line_feeds)])?;
            from = range.end;
        }
        rest.copy(&kept, Range { start: from, end: kept.metadata()?.len() })?;
        rest_file.sync_all()?;
    }
    record.sync_all()
}

/// A file that is being written.
struct Copy<'a> {
    to: &'a File,
    place: u64,
}

impl Copy<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.to.write_all_at(octets, self.place)?;
        self.place += octets.len() as u64;
        Ok(())
    }

    fn copy(&mut self, from: &File, range: Range) -> io::Result<()> {
        let mut start = range.start;
        let mut buffer = Vec::new();
        while start < range.end {
            let length = (range.end - start).min(COPY);
            buffer.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
            from.read_exact_at(&mut buffer, start)?;
            self.write(&buffer)?;
            start += length;
        }
        Ok(())
    }
}
