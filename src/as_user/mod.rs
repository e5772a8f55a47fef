//! The as-user helper: opens, locks and changes a mailbox, and nothing else.
//!
//! Runs in a process of its own, forked from the monitor for one operation, under the mail
//! user's ids: whatever it is talked into, it can do no more than that user could. It hands out a
//! read-only descriptor of the locked mailbox, waits for orders, and ends. When the monitor is
//! gone it unlocks and ends too.

mod dotlock;
mod identity;
mod lock;
mod open;
mod redo;

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::SigSet;
use nix::unistd::{Gid, Uid};

use crate::channel::{FromHelper, Order, Outcome, Range, Recovery, Report};
use crate::ffi::process::{close_all_except, occupy_descriptors};
pub use dotlock::{WRITABLE_BY_OTHERS, boot, is_spool};

/// Everything that a helper has to know.
#[derive(Debug)]
pub struct Task {
    /// Whose mailbox it is, and whose ids the helper takes.
    pub uid: Uid,
    /// The user's primary group.
    pub gid: Gid,
    /// The user's supplementary groups.
    pub groups: Vec<Gid>,
    /// Where the mailbox is.
    pub mailbox: PathBuf,
    /// How to lock it.
    pub locking: Locking,
    /// The redo record that a crash left behind, if there is one.
    pub record: Option<File>,
    /// What to do when there is no mailbox.
    pub missing: WhenMissing,
}

/// What to do when there is no mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenMissing {
    /// Say so.
    Report,
    /// Make an empty one.
    Create,
}

/// Octets at the beginning of a redo record that the helper writes when mail is put back; the mail
/// comes behind them.
pub const PUT_BACK_HEAD: u64 = redo::MAIL;

/// How a mailbox is locked.
#[derive(Debug, Clone)]
pub struct Locking {
    /// How long to wait for those who hold it.
    pub timeout: Duration,
    /// Whether to make a dotlock (Debian Policy 11.6) besides the kernel's lock.
    pub dotlock: bool,
    /// Age from which a dotlock counts as left behind that names no process of this host.
    pub stale_after: Duration,
    /// The group that may create files in the spool: the dotlock, and a mailbox where there is none.
    pub spool_group: Option<Gid>,
}

/// The body of the helper process: returns its exit status.
#[must_use]
pub fn run(task: &Task, mut monitor: FromHelper) -> i32 {
    let report = match prepare(task, &monitor).and_then(|()| lock::open_and_lock(task)) {
        Ok(Some((held, waited))) => match recover(&held, task.record.as_ref()) {
            Ok(recovery) => {
                let without_dotlock = held.is_without_dotlock();
                let opened = Report::Opened { without_dotlock, waited, recovery };
                return obey(&held, &opened, &mut monitor);
            }
            Err(report) => {
                held.unlock();
                report
            }
        },
        Ok(None) => Report::Missing,
        Err(report) => report,
    };
    i32::from(monitor.send(&report, None).is_err())
}

/// Becomes the user, with nothing of the monitor's left.
fn prepare(task: &Task, monitor: &FromHelper) -> Result<(), Report> {
    let refused = |reason| Report::Refused { reason, permanent: false };
    // A commit is not to be interrupted, and a file size limit is to be an error, not a signal.
    SigSet::all()
        .thread_block()
        .map_err(|error| refused(format!("helper blocking signals: {error}")))?;
    close_all_but(monitor, task.record.as_ref())
        .map_err(|error| refused(format!("helper closing files: {error}")))?;
    identity::become_user(task)
        .map_err(|why| refused(format!("cannot become uid {}: {why}", task.uid)))
}

fn close_all_but(monitor: &FromHelper, record: Option<&File>) -> std::io::Result<()> {
    match record {
        Some(record) => close_all_except(&[monitor.as_fd(), record.as_fd()]),
        None => close_all_except(&[monitor.as_fd()]),
    }?;
    // Whoever has no memory says so on standard error, and no file that comes is to be that.
    occupy_descriptors(&[0, 1, 2]);
    Ok(())
}

/// Finishes an UPDATE that a crash interrupted, before anybody reads the mailbox.
fn recover(held: &lock::Held, record: Option<&File>) -> Result<Option<Recovery>, Report> {
    let Some(record) = record else { return Ok(None) };
    Ok(Some(match redo::recover(held.for_writing(), record, redo::COSTS) {
        Ok(redo::Recovered::NothingBegun) => Recovery::NothingBegun,
        Ok(redo::Recovered::WasFinished(removed)) => Recovery::WasFinished(removed),
        Ok(redo::Recovered::Finished(removed)) => Recovery::Finished(removed),
        Err(redo::Error::Conflict(why)) => Recovery::Conflict(why.to_owned()),
        Err(error) => {
            let reason = format!("finishing an interrupted update: {error}");
            return Err(Report::Refused { reason, permanent: false });
        }
    }))
}

/// Hands out the mailbox and does what the monitor orders while it is locked.
fn obey(held: &lock::Held, opened: &Report, monitor: &mut FromHelper) -> i32 {
    if monitor.send(opened, Some(held.for_reading())).is_err() {
        held.unlock();
        return 1;
    }
    let mut doomed: Vec<Range> = Vec::new();
    let mut kept = None;
    loop {
        let report = match monitor.receive() {
            Ok((Order::Delete(ranges), None)) => {
                doomed.extend(ranges);
                continue;
            }
            Ok((Order::Keep, Some(file))) => {
                kept = Some(File::from(file));
                continue;
            }
            Ok((Order::Commit(deleted), Some(record))) => {
                let removal = redo::Removal { doomed: &doomed, deleted };
                commit(held, &File::from(record), kept.as_ref(), removal)
            }
            Ok((Order::PutBack, Some(record))) => put_back(held, &File::from(record)),
            Ok((Order::Release, None)) => Report::Done,
            // The monitor is gone: nothing is removed.
            Ok(_) | Err(_) => {
                held.unlock();
                return 1;
            }
        };
        held.unlock();
        return i32::from(monitor.send(&report, None).is_err());
    }
}

fn commit(
    held: &lock::Held,
    record: &File,
    kept: Option<&File>,
    removal: redo::Removal<'_>,
) -> Report {
    if !identity::may_write(size(held.for_writing()).max(redo::LARGEST_RECORD)) {
        return no_size();
    }
    report(redo::commit(held.for_writing(), record, kept, removal, redo::COSTS))
}

fn put_back(held: &lock::Held, record: &File) -> Report {
    if !identity::may_write(size(held.for_writing()).saturating_add(size(record))) {
        return no_size();
    }
    report(redo::put_back(held.for_writing(), record))
}

fn size(file: &File) -> u64 {
    file.metadata().map_or(u64::MAX, |metadata| metadata.len())
}

fn no_size() -> Report {
    let reason = "the file size limit (RLIMIT_FSIZE) is too small".to_owned();
    Report::Failed { reason, mailbox: Outcome::Untouched }
}

fn report(result: Result<(), redo::Error>) -> Report {
    let Err(error) = result else { return Report::Done };
    let mailbox = match error {
        redo::Error::Ranges | redo::Error::Untouched(_) | redo::Error::NotKept(_) => {
            Outcome::Untouched
        }
        redo::Error::Unfinished(_) | redo::Error::Conflict(_) => Outcome::Unfinished,
    };
    Report::Failed { reason: error.to_string(), mailbox }
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::{WaitStatus, waitpid};

    use super::*;
    use crate::channel::{ToHelper, pair};
    use crate::ffi::process::fork;

    #[test]
    fn helper_that_cannot_become_its_user_says_why() {
        let (ours, theirs): (ToHelper, FromHelper) = pair().unwrap();
        let locking = Locking {
            timeout: Duration::ZERO,
            dotlock: true,
            stale_after: Duration::ZERO,
            spool_group: None,
        };
        let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
        let (groups, mailbox, missing) =
            (Vec::new(), PathBuf::from("/nowhere"), WhenMissing::Report);
        let task = Task { uid, gid, groups, mailbox, locking, record: None, missing };
        let pid = fork(|| run(&task, theirs)).unwrap();
        let (report, _) = ours.receive().unwrap();
        let reason = "cannot become uid 0: that is root".to_owned();
        assert_eq!(report, Report::Refused { reason, permanent: false });
        assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0));
    }

    #[test]
    fn no_file_that_a_helper_is_given_becomes_its_standard_error() {
        let (_ours, theirs): (ToHelper, FromHelper) = pair().unwrap();
        let child = || {
            close_all_but(&theirs, None).unwrap();
            let is_null = std::fs::read_link("/proc/self/fd/2").unwrap().ends_with("null");
            let next = File::open("/proc/self/stat").unwrap();
            i32::from(!is_null || std::os::fd::AsRawFd::as_raw_fd(&next) <= 2)
        };
        let pid = fork(child).unwrap();
        assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0));
    }
}
