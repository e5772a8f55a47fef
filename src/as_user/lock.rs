//! Locks against mail delivery and mail readers (Debian Policy 11.6): fcntl, then dotlock.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::dotlock::{Dotlock, Obstacle};
use super::open::{create_mailbox, open_for_reading, open_mailbox};
use super::{Task, WhenMissing};
use crate::channel::Report;

/// Waiting begins with short pauses, since most holders are quick, and grows up to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A mailbox that nobody else who respects locks will touch.
#[derive(Debug)]
pub(super) struct Held {
    writable: File,
    readable: File,
    dotlock: Option<Dotlock>,
    /// A dotlock was wanted and the directory allows none.
    without_dotlock: bool,
}

impl Held {
    /// What the worker may have.
    pub(super) fn for_reading(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }

    /// What UPDATE works on; carries the kernel's lock.
    pub(super) fn for_writing(&self) -> &File {
        &self.writable
    }

    pub(super) fn is_without_dotlock(&self) -> bool {
        self.without_dotlock
    }

    /// Gives both locks back, the later one first.
    pub(super) fn unlock(&self) {
        if let Some(dotlock) = &self.dotlock {
            dotlock.remove();
        }
        let _ = fcntl(&self.writable, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_UNLCK)));
    }
}

/// Opens the mailbox and takes both locks, and says how long others held it; `None` when there is no
/// mailbox.
///
/// Never waits for one lock while holding the other: programs that take them in the other order
/// (Exim, Dovecot, mutt) would wait for us then, and we for them.
///
/// # Errors
///
/// The report for the monitor.
pub(super) fn open_and_lock(task: &Task) -> Result<Option<(Held, Duration)>, Report> {
    let deadline = Instant::now() + task.locking.timeout;
    let mut pause = Duration::from_millis(1);
    let mut held_since: Option<Instant> = None;
    loop {
        let writable = match (open_mailbox(&task.mailbox, task.uid)?, task.missing) {
            (Some(writable), _) => writable,
            (None, WhenMissing::Report) => return Ok(None),
            (None, WhenMissing::Create) => create_mailbox(task)?,
        };
        let holder = match try_to_lock(task, writable)? {
            Attempt::Locked(held) => {
                let waited = held_since.map_or(Duration::ZERO, |since| since.elapsed());
                return Ok(Some((held, waited)));
            }
            Attempt::Replaced => "a program that replaces the file".to_owned(),
            Attempt::Held(holder) => holder,
        };
        let now = Instant::now();
        if now >= deadline {
            return Err(Report::Locked { holder });
        }
        held_since.get_or_insert(now);
        sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

enum Attempt {
    Locked(Held),
    /// By the time that it was locked, another file had taken its place.
    Replaced,
    Held(String),
}

fn try_to_lock(task: &Task, writable: File) -> Result<Attempt, Report> {
    match fcntl(&writable, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
        Ok(_) => {}
        Err(Errno::EAGAIN | Errno::EACCES) => {
            return Ok(Attempt::Held(kernel_lock_holder(&writable)));
        }
        Err(error) => return Err(failed("fcntl lock", &error.into())),
    }
    let (dotlock, without_dotlock) = if task.locking.dotlock {
        match Dotlock::create(&task.mailbox, &task.locking) {
            Ok(dotlock) => (Some(dotlock), false),
            Err(Obstacle::NotAllowed) => (None, true),
            // Dropping `writable` gives the kernel's lock back.
            Err(Obstacle::Held(holder)) => return Ok(Attempt::Held(holder)),
            Err(Obstacle::Failed(error)) => return Err(failed("dotlock", &error)),
        }
    } else {
        (None, false)
    };
    match confirm(&task.mailbox, &writable) {
        Ok(Some(readable)) => {
            Ok(Attempt::Locked(Held { writable, readable, dotlock, without_dotlock }))
        }
        other => {
            if let Some(dotlock) = dotlock {
                dotlock.remove();
            }
            other.map(|_| Attempt::Replaced)
        }
    }
}

/// Looks whether what was locked is still what stands at the mailbox's place.
fn confirm(path: &Path, locked: &File) -> Result<Option<File>, Report> {
    let before = locked.metadata().map_err(|error| failed("fstat", &error))?;
    open_for_reading(path, &before)
}

fn failed(what: &str, error: &io::Error) -> Report {
    Report::Refused { reason: format!("{what}: {error}"), permanent: false }
}

fn whole_file(kind: i32) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Who holds the kernel's lock, for the journal: "process 123 (exim4)".
fn kernel_lock_holder(file: &File) -> String {
    let mut lock = whole_file(libc::F_WRLCK);
    match fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)) {
        Ok(_) if i32::from(lock.l_type) == libc::F_UNLCK => "nobody any more".to_owned(),
        Ok(_) if lock.l_pid > 0 => format!("fcntl lock of {}", describe_process(lock.l_pid)),
        // Locks of an open file description have no process (F_OFD_GETLK says -1).
        Ok(_) => "fcntl lock of an unnamed process, maybe another popa3d".to_owned(),
        Err(_) => "fcntl lock".to_owned(),
    }
}

/// "process 123 (exim4)".
pub(super) fn describe_process(pid: i32) -> String {
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("process {pid} ({})", name.trim()),
        Err(_) => format!("process {pid}"),
    }
}
