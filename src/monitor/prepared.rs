//! What each session needs and finds out by itself, unless the listener did before it forked.

use std::ffi::CStr;
use std::os::fd::RawFd;
use std::sync::OnceLock;

use nix::unistd::{Gid, Group, Uid, User};

use super::account;
use super::pam_stack::{self, NotStarted, Stack};
use crate::ffi::pam::Transaction;
use crate::ffi::process::{Mappings, occupy_descriptors, open_descriptors};
use crate::worker;

/// The system user that workers run as.
pub const USER: &str = "popa3d";

/// The group that may make files in the spool (Debian Policy 11.6).
pub const SPOOL_GROUP: &str = "mail";

/// A name that nobody has, so that all modules of the name service are asked.
const NOBODY: &CStr = c"popa3d no such user";

/// What is known already; what is not is looked up. Nothing of it is secret.
#[derive(Debug, Default)]
pub struct Prepared {
    /// For the first login of a session: the stack is read, from these files, and its modules are
    /// loaded.
    pam: Option<(Transaction, Stack)>,
    /// Keeps the modules loaded when a session ends the other one; never used.
    _anchor: Option<(Transaction, Stack)>,
    /// Where the modules of both are in memory.
    modules: Mappings,
    /// What libraries have left open, such as syslog(3) when libpam had something to say.
    left_open: Vec<RawFd>,
    worker: Option<(Uid, Gid)>,
    spool_group: Option<Option<Gid>>,
}

impl Prepared {
    /// Looks everything up, as it is now. What cannot be had now is looked up by those who need it, who
    /// have somebody to tell.
    #[must_use]
    pub fn new() -> Self {
        static BEFORE: OnceLock<Mappings> = OnceLock::new();
        let open = open_descriptors().unwrap_or_default();
        let before = BEFORE.get_or_init(|| {
            let before = Mappings::now().unwrap_or_default();
            worker::prepare();
            // What this loads stays; a name service that is slow is waited for once.
            let _ = account::find(NOBODY);
            before
        });
        let start = || pam_stack::start().ok();
        let mut prepared = Self { pam: start(), _anchor: start(), ..Self::default() };
        prepared.worker = prepared.worker_ids().ok();
        prepared.spool_group = Some(prepared.spool_group());
        prepared.left_open = open_descriptors().unwrap_or_default();
        prepared.left_open.retain(|number| !open.contains(number));
        // Without knowing what was there before, nothing can be told to be a module.
        if !before.is_empty() {
            prepared.modules = Mappings::now().unwrap_or_default().added_since(before);
        }
        prepared
    }

    /// The same again, after the stack was edited.
    #[must_use]
    pub fn anew(&self) -> Self {
        let mut prepared = Self::new();
        prepared.left_open.extend(&self.left_open);
        prepared.left_open.sort_unstable();
        prepared.left_open.dedup();
        prepared
    }

    /// Makes what was prepared this process's own, which has closed what it does not know.
    pub(super) fn take_over(&self) {
        // Neither workers nor helpers have any use for them.
        self.modules.keep_from_children();
        // Libraries do not know, and would write to what gets these numbers next, or close it.
        occupy_descriptors(&self.left_open);
    }

    /// A transaction without a user, of the stack that is there now.
    pub(super) fn transaction(&mut self) -> Result<Transaction, NotStarted> {
        match self.pam.take() {
            Some((transaction, stack)) if stack == Stack::now() => Ok(transaction),
            // It was edited since.
            Some(_) | None => pam_stack::start().map(|(transaction, _)| transaction),
        }
    }

    /// The ids of workers.
    ///
    /// # Errors
    ///
    /// Says what is missing on this host.
    pub(super) fn worker_ids(&self) -> Result<(Uid, Gid), String> {
        if let Some(known) = self.worker {
            return Ok(known);
        }
        let user = User::from_name(USER)
            .map_err(|error| format!("looking for the system user {USER}: {error}"))?
            .ok_or_else(|| format!("there is no system user {USER}; systemd-sysusers makes it"))?;
        if user.uid.is_root() {
            return Err(format!("the system user {USER} is root"));
        }
        Ok((user.uid, user.gid))
    }

    /// The group of the spool, where there is one.
    pub(super) fn spool_group(&self) -> Option<Gid> {
        self.spool_group
            .unwrap_or_else(|| Group::from_name(SPOOL_GROUP).ok().flatten().map(|group| group.gid))
    }
}
