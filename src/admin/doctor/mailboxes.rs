//! The names in the spool: mailboxes that are not served, or that others can read, and old lock files. Users
//! can bring that about, and are not to decide the exit status: these are warnings.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use nix::unistd::User;

use super::finding::{Finding, word};
use crate::as_user::boot;
use crate::event::printable;

/// Names that are looked at, and for how long: a spool may have a million, and the name service may be far
/// away.
const MOST: usize = 20_000;
const PATIENCE: Duration = Duration::from_secs(5);

/// A lock file holds a process id, maybe with the name of a host.
const LARGEST_LOCK: u64 = 128;

const READABLE_BY_ALL: u32 = 0o006;
const READABLE_BY_GROUP: u32 = 0o060;

/// Something that more than one mailbox may suffer from.
#[derive(Debug, Default)]
struct Tally {
    count: usize,
    first: String,
}

impl Tally {
    fn add(&mut self, name: &str) {
        self.count += 1;
        // Directories have no order; people do.
        if self.first.is_empty() || name < self.first.as_str() {
            name.clone_into(&mut self.first);
        }
    }

    /// "alice", or "alice and 3 more".
    fn names(&self) -> String {
        let first = printable(self.first.as_bytes());
        if self.count > 1 { format!("{first} and {} more", self.count - 1) } else { first }
    }
}

/// What a mailbox looks like from outside.
#[derive(Debug, Clone, Copy)]
struct Facts {
    is_file: bool,
    owner: u32,
    group: u32,
    mode: u32,
}

/// Who a name in the spool belongs to, as the name service has it.
#[derive(Debug, Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
}

#[derive(Debug, Default)]
struct Ward {
    not_files: Tally,
    of_others: Tally,
    open: Tally,
    /// Lock files that are older than they should become, by whose mailbox they are for.
    locks: Tally,
    /// What has the name of a lock file, and is none that a login could remove.
    no_locks: Tally,
}

impl Ward {
    fn admit(&mut self, name: &str, facts: Facts, owner: Owner, spool_group: Option<u32>) {
        let readable_by_group = facts.mode & READABLE_BY_GROUP != 0
            && facts.group != owner.gid
            && Some(facts.group) != spool_group
            && facts.group != 0;
        if !facts.is_file {
            self.not_files.add(name);
        } else if facts.owner != owner.uid {
            self.of_others.add(name);
        } else if facts.mode & READABLE_BY_ALL != 0 || readable_by_group {
            self.open.add(name);
        }
    }

    fn findings(&self, directory: &Path) -> Vec<Finding> {
        let place = directory.display();
        let path = |tally: &Tally| word(&directory.join(&tally.first).to_string_lossy());
        let mut findings = Vec::new();
        if self.not_files.count > 0 {
            findings.push(Finding::warning(
                format!(
                    "{place}: {} cannot log in, the mailbox is a link or no file at all",
                    self.not_files.names()
                ),
                format!(
                    "look at it (ls -l {}), and put the file itself there",
                    path(&self.not_files)
                ),
            ));
        }
        if self.of_others.count > 0 {
            let name = word(&self.of_others.first);
            findings.push(Finding::warning(
                format!(
                    "{place}: {} cannot log in, the mailbox is somebody else's",
                    self.of_others.names()
                ),
                format!("run: chown {name} {}", path(&self.of_others)),
            ));
        }
        if self.open.count > 0 {
            findings.push(Finding::warning(
                format!(
                    "{place}: other users can read or write the mailbox of {}",
                    self.open.names()
                ),
                format!("run: chmod o= {0} && chgrp mail {0}", path(&self.open)),
            ));
        }
        if self.locks.count > 0 {
            let lock = format!("{}.lock", self.locks.first);
            let lock = word(&directory.join(lock).to_string_lossy());
            findings.push(Finding::warning(
                format!(
                    "{place}: the lock file of {} is old; as long as a process has the number in it, logins get \
                     [IN-USE]",
                    self.locks.names()
                ),
                format!(
                    "look at which one that is (cat -v {lock}), and if it does nothing with mail, run: rm {lock}"
                ),
            ));
        }
        if self.no_locks.count > 0 {
            let lock = format!("{}.lock", self.no_locks.first);
            let lock = word(&directory.join(lock).to_string_lossy());
            findings.push(Finding::warning(
                format!(
                    "{place}: the lock file of {} is a link or no file at all, and each login gets [IN-USE]",
                    self.no_locks.names()
                ),
                format!("look at it (ls -ld {lock}), and move it away"),
            ));
        }
        findings
    }
}

/// Looks at the names in `directory`, none of which is opened. Lock files count from this age on, if at all.
pub(super) fn look(
    directory: &Path,
    spool_group: Option<u32>,
    old: Option<Duration>,
) -> Vec<Finding> {
    let place = directory.display();
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return vec![Finding::unseen(format!("mailboxes in {place}"))];
        }
        Err(error) => return vec![Finding::error(format!("{place}: {error}"), "")],
    };
    let begun = Instant::now();
    let boot = boot();
    let mut ward = Ward::default();
    for (number, entry) in entries.flatten().enumerate() {
        if number >= MOST || begun.elapsed() > PATIENCE {
            let text =
                format!("{place}: the first {number} names in it were looked at, and no more");
            let mut findings = ward.findings(directory);
            findings.push(Finding::hint(text, ""));
            return findings;
        }
        let Ok(name) = entry.file_name().into_string() else { continue };
        let locked = name.strip_suffix(".lock");
        let Some(owner) = owner(locked.unwrap_or(&name)) else { continue };
        // Of a link itself.
        let Ok(found) = entry.metadata() else { continue };
        if let Some(name) = locked {
            match old {
                Some(_) if !found.is_file() => ward.no_locks.add(name),
                Some(old) if is_old_lock(&found, old, boot) => ward.locks.add(name),
                Some(_) | None => {}
            }
            continue;
        }
        let facts = Facts {
            is_file: found.is_file(),
            owner: found.uid(),
            group: found.gid(),
            mode: found.mode(),
        };
        ward.admit(&name, facts, owner, spool_group);
    }
    ward.findings(directory)
}

/// Whether it may stay: the next login removes one from before this boot, and one without a number.
fn is_old_lock(found: &Metadata, old: Duration, boot: Option<SystemTime>) -> bool {
    let Ok(changed) = found.modified() else { return false };
    let is_old = SystemTime::now().duration_since(changed).is_ok_and(|age| age >= old);
    let is_older_than_boot = boot.is_some_and(|boot| changed < boot);
    // What is longer may be the mailbox of a user whose name ends so.
    (1..=LARGEST_LOCK).contains(&found.len()) && is_old && !is_older_than_boot
}

/// The user that a mailbox of this name is for; root has none here.
fn owner(name: &str) -> Option<Owner> {
    let user = (!name.starts_with('.')).then(|| User::from_name(name).ok().flatten()).flatten()?;
    (!user.uid.is_root()).then(|| Owner { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: u32 = 8;
    const OWNER: Owner = Owner { uid: 1000, gid: 1000 };

    fn said(mailboxes: &[(&str, Facts)]) -> Vec<String> {
        let mut ward = Ward::default();
        for (name, facts) in mailboxes {
            ward.admit(name, *facts, OWNER, Some(MAIL));
        }
        ward.findings(Path::new("/var/mail")).iter().map(Finding::to_string).collect()
    }

    fn facts(mode: u32, group: u32) -> Facts {
        Facts { is_file: true, owner: OWNER.uid, group, mode }
    }

    #[test]
    fn mailboxes_as_delivery_agents_make_them_are_fine() {
        let usual = [(0o660, MAIL), (0o600, OWNER.gid), (0o660, OWNER.gid), (0o600, 100)];
        for (mode, group) in usual {
            assert_eq!(said(&[("alice", facts(mode, group))]), Vec::<String>::new(), "{mode:o}");
        }
    }

    #[test]
    fn mailboxes_that_others_can_read_are_counted() {
        for (mode, group) in [(0o664, MAIL), (0o602, MAIL), (0o640, 100)] {
            let said = said(&[("bob", facts(mode, group)), ("alice", facts(mode, group))]);
            assert_eq!(said.len(), 1);
            let text = "warning: /var/mail: other users can read or write the mailbox of alice and 1 more; ";
            assert!(said[0].starts_with(text), "{said:?}");
        }
    }

    #[test]
    fn old_lock_files_are_counted() {
        let file = std::env::temp_dir().join(format!("popa3d-lock-{}", std::process::id()));
        let with = |text: &str| {
            std::fs::write(&file, text).unwrap();
            std::fs::metadata(&file).unwrap()
        };
        let is_old = |text: &str| is_old_lock(&with(text), Duration::ZERO, None);
        assert!(is_old("1\n"));
        assert!(!is_old_lock(&with("1\n"), Duration::from_secs(3600), None));
        assert!(!is_old(&"x".repeat(200)));
        // What the next login removes.
        assert!(!is_old(""));
        let later = SystemTime::now() + Duration::from_secs(3600);
        assert!(!is_old_lock(&with("1\n"), Duration::ZERO, Some(later)));
        std::fs::remove_file(&file).unwrap();
        let mut ward = Ward::default();
        ward.locks.add("alice");
        ward.no_locks.add("bob");
        let said = ward.findings(Path::new("/var/mail"));
        assert_eq!(said.len(), 2);
        let second = said[1].to_string();
        assert!(second.contains("of bob is a link or no file at all"), "{second}");
        assert!(second.ends_with("(ls -ld /var/mail/bob.lock), and move it away"), "{second}");
        let said = said[0].to_string();
        assert!(said.starts_with("warning: /var/mail: the lock file of alice is old; "), "{said}");
        assert!(said.ends_with("run: rm /var/mail/alice.lock"), "{said}");
    }

    #[test]
    fn links_and_mailboxes_of_others_are_found() {
        let link = Facts { is_file: false, ..facts(0o777, MAIL) };
        let stolen = Facts { owner: 33, ..facts(0o600, MAIL) };
        let said = said(&[("alice", link), ("bob", stolen)]);
        assert!(
            said[0].starts_with("warning: /var/mail: alice cannot log in, the mailbox is a link")
        );
        assert!(said[1].ends_with("run: chown bob /var/mail/bob"), "{said:?}");
    }
}
