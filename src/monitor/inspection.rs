//! Looking at a mailbox for an admin, or for its user: opened and locked as for a session, and read by a
//! process that is confined as a worker. Nothing is changed.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::stat::fstat;
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Group, Pid, geteuid, getpid};

use super::account::{self, Account};
use super::helper::{Helper, Opened, task};
use super::maildrop::describe;
use super::prepared::Prepared;
use super::session_lock::{Acquired, SessionLock};
use super::worker_process::{confinement, judge, limits};
use super::{redo_records, remembered_ids};
use crate::channel::{Order, Seen, ToInspector, Totals, pair};
use crate::ffi::process::fork_without_modules;
use crate::settings::Settings;
use crate::worker::{self, Confinement};

/// A mailbox, while its messages are read.
#[derive(Debug)]
pub struct Inspection {
    /// What is known before that.
    pub overview: Overview,
    reader: Option<Reader>,
}

/// A mailbox as a whole.
#[derive(Debug)]
pub struct Overview {
    /// Its user, as the name service has it.
    pub user: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its file; `None` when there is none, which makes an empty maildrop.
    pub file: Option<Facts>,
    /// What is in the maildrop.
    pub totals: Totals,
    /// What was odd before anything was read.
    pub remarks: Vec<Remark>,
}

/// What stat(2) says of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// In octets on disk.
    pub size: u64,
    /// The name of its group, or the number of one that has no name.
    pub group: String,
    /// Permissions.
    pub mode: u32,
    /// Seconds since 1970.
    pub modified: i64,
}

/// What an admin should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remark {
    /// A crash interrupted an update: what is here may be half-way, until it is finished.
    RedoRecord,
    /// The spool allows no dotlock, so that the kernel's lock is all there was.
    WithoutDotlock,
    /// The unique-ids that are remembered are root's to read.
    IdsNotKnown,
}

/// The process that reads.
#[derive(Debug)]
struct Reader {
    pid: Pid,
    channel: ToInspector,
}

impl Inspection {
    /// Opens the mailbox of `user` and finds its messages; then it is unlocked again.
    ///
    /// # Errors
    ///
    /// Says why it cannot be looked at.
    pub fn begin(user: &str, settings: &Settings) -> Result<Self, String> {
        let is_root = geteuid().is_root();
        let account = account_of(user)?;
        let prepared = &Prepared::default();
        let mut task = task(&account, settings, prepared, None);
        let confinement = if is_root {
            confinement(settings, prepared)?
        } else {
            // This group is for root to lend.
            task.locking.spool_group = None;
            Confinement { parent: getpid(), jail: None, limits: limits(settings) }
        };
        let overview = Overview {
            user: account.name,
            path: task.mailbox.clone(),
            file: None,
            totals: Totals::default(),
            remarks: Vec::new(),
        };
        let mut inspection = Self { overview, reader: None };
        let at = task.mailbox.display();
        match Helper::open(&task).map_err(|error| format!("{at}: as-user helper: {error}"))? {
            Opened::Mailbox { helper, mailbox, without_dotlock, .. } => {
                if without_dotlock {
                    inspection.overview.remarks.push(Remark::WithoutDotlock);
                }
                inspection.read(mailbox, &confinement).map_err(|why| format!("{at}: {why}"))?;
                // Nobody is kept from the mailbox by somebody who reads slowly.
                let unlocked = helper.finish(&Order::Release).map_err(|error| error.to_string());
                unlocked.and_then(|done| done).map_err(|why| format!("unlocking {at}: {why}"))?;
            }
            Opened::Missing => inspection.overview.look_for_record(),
            Opened::InUse(holder) => return Err(format!("{at} is locked: {holder}")),
            Opened::Refused { reason, .. } => return Err(format!("{at}: {reason}")),
        }
        Ok(inspection)
    }

    fn read(&mut self, mailbox: OwnedFd, confinement: &Confinement) -> Result<(), String> {
        self.overview.file = Some(facts(&mailbox)?);
        let remembered = if geteuid().is_root() {
            self.overview.look_for_record();
            let user = &self.overview.user;
            remembered_ids::open(user).map_err(|error| format!("unique-ids: {error}"))?
        } else {
            self.overview.remarks.push(Remark::IdsNotKnown);
            None
        };
        let failed = |error: std::io::Error| format!("starting a process that reads it: {error}");
        let (ours, theirs) = pair().map_err(failed)?;
        let remembered = remembered.map(OwnedFd::from);
        let reads = || worker::inspect(confinement, mailbox, remembered, &theirs);
        let pid = fork_without_modules(reads).map_err(failed)?;
        drop(theirs);
        let reader = self.reader.insert(Reader { pid, channel: ours });
        match reader.channel.receive() {
            Ok((Seen::Scanned(totals), None)) => {
                self.overview.totals = totals;
                Ok(())
            }
            Ok((Seen::Unservable(trouble), None)) => Err(describe(trouble)),
            Ok(_) => Err(NONSENSE.to_owned()),
            Err(_) => Err(self.end_of_reader()),
        }
    }

    /// The next thing that is seen; the last one is [`Seen::End`].
    ///
    /// # Errors
    ///
    /// The process that reads is out of order.
    pub fn see(&mut self) -> Result<Seen, String> {
        let Some(reader) = &self.reader else { return Ok(Seen::End(Vec::new())) };
        let at = self.overview.path.display().to_string();
        match reader.channel.receive() {
            Ok((seen @ (Seen::Message(_) | Seen::End(_)), None)) => Ok(seen),
            Ok(_) => Err(format!("{at}: {NONSENSE}")),
            Err(_) => Err(format!("{at}: {}", self.end_of_reader())),
        }
    }

    fn end_of_reader(&mut self) -> String {
        let Some(reader) = self.reader.take() else { return NONSENSE.to_owned() };
        let judged = waitpid(reader.pid, None).map_err(|error| error.to_string()).map(judge);
        let why =
            judged.and_then(|judged| judged).err().unwrap_or_else(|| "ended early".to_owned());
        format!("the process that reads it: {why}")
    }
}

impl Overview {
    /// A record that belongs to a session is none of a crash.
    fn look_for_record(&mut self) {
        let is_left = || redo_records::exists(&self.user);
        if !geteuid().is_root() || !is_left() {
            return;
        }
        let lock = SessionLock::acquire(&self.user, 0, Duration::ZERO);
        if matches!(lock, Ok(Acquired::Lock(_))) && is_left() {
            self.remarks.push(Remark::RedoRecord);
        }
    }
}

const NONSENSE: &str = "the process that reads it makes no sense";

/// The account, if whoever asks may see its mail.
fn account_of(user: &str) -> Result<Account, String> {
    let found = account::find_typed(user);
    let found = found.map_err(|error| format!("looking for the user {user}: {error}"))?;
    let account = found.ok_or_else(|| format!("there is no user {user}"))?;
    if account.uid.is_root() {
        return Err(format!("{user}: the mail of root is not served"));
    }
    if !geteuid().is_root() && account.uid != geteuid() {
        return Err("only root can look at the mailbox of somebody else".to_owned());
    }
    Ok(account)
}

fn facts(mailbox: &OwnedFd) -> Result<Facts, String> {
    let status = fstat(mailbox.as_fd()).map_err(|error| format!("fstat: {error}"))?;
    let group = Gid::from_raw(status.st_gid);
    let name = Group::from_gid(group).ok().flatten().map(|group| group.name);
    Ok(Facts {
        size: u64::try_from(status.st_size).unwrap_or_default(),
        group: name.unwrap_or_else(|| group.to_string()),
        mode: status.st_mode & 0o7777,
        modified: status.st_mtime,
    })
}
