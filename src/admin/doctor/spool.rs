//! Where mailboxes are: whether users reach them, lock them, and nobody takes them away.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{NFS_SUPER_MAGIC, statfs};
use nix::unistd::{Gid, Group, Uid, User};

use super::finding::{Finding, Severity, why, word};
use super::systemd::Confinement;
use super::{mailboxes, room, users};
use crate::as_user::is_spool;
use crate::monitor::SPOOL_GROUP;
use crate::settings::{Settings, Spool};

/// Bits of a mode.
const STICKY: u32 = 0o1000;
const WRITABLE_BY_GROUP: u32 = 0o020;
const SEARCHABLE_BY_GROUP: u32 = 0o010;
const WRITABLE_BY_ALL: u32 = 0o002;
const SEARCHABLE_BY_ALL: u32 = 0o001;

pub(super) fn look(settings: &Settings, confinement: Option<Confinement<'_>>) -> Vec<Finding> {
    let directory = match settings.mailbox.spool() {
        Spool::Homes => {
            let places = users::places_of_homes(settings);
            let hidden = confinement.and_then(|confinement| judge_homes(confinement, &places));
            return vec![hidden.unwrap_or_else(|| Finding::fine("mailboxes: in homes"))];
        }
        Spool::Below(directory) => {
            let mut findings =
                vec![Finding::fine(format!("mailboxes: below {}", directory.display()))];
            findings
                .extend(confinement.and_then(|confinement| judge_place(confinement, directory)));
            return findings;
        }
        Spool::Directory(directory) => directory,
    };
    let name = directory.display();
    let found = match std::fs::metadata(directory) {
        Ok(found) if found.is_dir() => found,
        other => {
            let what = other.map_or_else(|error| why(&error), |_| "it is no directory".to_owned());
            let text = format!("{name}: {what}, and every maildrop is empty");
            return vec![Finding::error(text, mend(directory))];
        }
    };
    let facts = Facts::of(directory, &found);
    let mut findings = facts.judge(directory, settings.dotlock);
    findings.extend(confinement.and_then(|confinement| judge_place(confinement, directory)));
    if statfs(directory).is_ok_and(|found| found.filesystem_type() == NFS_SUPER_MAGIC) {
        findings.push(Finding::hint(
            format!("{name}: it is on NFS; that a user has one session at a time holds for each host alone"),
            "let one host serve a user (see Behind HAProxy in README)",
        ));
    }
    findings.extend(room::of_spool(directory));
    let old = settings.dotlock.then_some(settings.dotlock_stale_after.0);
    findings.extend(mailboxes::look(directory, facts.spool_group, old));
    if findings.iter().all(|finding| finding.severity < Severity::Warning) {
        findings.push(Finding::fine(format!("{name}: fine ({facts})")));
    }
    findings
}

/// What decides who can do what in the spool.
struct Facts {
    owner: u32,
    group: u32,
    mode: u32,
    /// The group whose members may make lock files.
    spool_group: Option<u32>,
    /// No user has a say in which directory this is.
    is_roots: bool,
    /// Users are members of its group.
    is_users_group: bool,
}

impl Facts {
    fn of(directory: &Path, found: &Metadata) -> Self {
        Self {
            owner: found.uid(),
            group: found.gid(),
            mode: found.mode() & 0o7777,
            spool_group: Group::from_name(SPOOL_GROUP)
                .ok()
                .flatten()
                .map(|group| group.gid.as_raw()),
            is_roots: is_spool(&directory.join("user.lock")),
            is_users_group: found.mode() & (SEARCHABLE_BY_GROUP | WRITABLE_BY_GROUP) != 0
                && users::are_in(found.gid(), directory),
        }
    }

    fn judge(&self, directory: &Path, dotlock: bool) -> Vec<Finding> {
        let name = directory.display();
        let mut findings = Vec::new();
        let mut error = |what: &str| {
            findings.push(Finding::error(format!("{name}: {what} ({self})"), mend(directory)));
        };
        if self.owner != 0 {
            error("its owner can take away everybody's mail");
        }
        if self.mode & WRITABLE_BY_ALL != 0 && self.mode & STICKY == 0 {
            error("every user can take away everybody's mail");
        }
        let by_group = self.mode & SEARCHABLE_BY_GROUP != 0 && self.is_users_group;
        if self.mode & SEARCHABLE_BY_ALL == 0 && !by_group {
            error("users do not reach their mailboxes in it");
        }
        if findings.is_empty() && dotlock && !self.allows_dotlocks() {
            findings.push(Finding::warning(
                format!(
                    "{name}: users can make no lock file there ({self}), so programs that use nothing else \
                     are not kept away"
                ),
                format!("{} (or set dotlock = false)", mend(directory)),
            ));
        }
        findings
    }

    /// As-user helpers have the group for lock files besides the user's own, where the directory is root's.
    fn allows_dotlocks(&self) -> bool {
        let is_lent = self.is_roots && self.spool_group == Some(self.group);
        let by_group = self.mode & WRITABLE_BY_GROUP != 0 && (is_lent || self.is_users_group);
        self.mode & WRITABLE_BY_ALL != 0 || by_group
    }
}

impl std::fmt::Display for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let user = User::from_uid(Uid::from_raw(self.owner)).ok().flatten();
        let group = Group::from_gid(Gid::from_raw(self.group)).ok().flatten();
        let user = user.map_or_else(|| self.owner.to_string(), |user| user.name);
        let group = group.map_or_else(|| self.group.to_string(), |group| group.name);
        write!(f, "{user}:{group} {:04o}", self.mode)
    }
}

/// As Debian has it.
fn mend(directory: &Path) -> String {
    format!("run: install -d -o root -g mail -m 2775 {}", word(&directory.to_string_lossy()))
}

fn judge_homes(confinement: Confinement<'_>, places: &[PathBuf]) -> Option<Finding> {
    let unit = confinement.unit;
    places.iter().find_map(|place| {
        let (what, how) = trouble(confinement, place)?;
        let name = place.display();
        Some(Finding::error(
            format!("mailboxes: homes in {name}, where they are, are {what} {unit}"),
            format!("run: systemctl edit {unit} and have it say [Service], {how}; then restart it"),
        ))
    })
}

/// Whether the unit's sessions can write where mailboxes are.
fn judge_place(confinement: Confinement<'_>, directory: &Path) -> Option<Finding> {
    let (what, how) = trouble(confinement, directory)?;
    let (name, unit) = (directory.display(), confinement.unit);
    Some(Finding::error(
        format!("{name}: it is {what} {unit}, and mail cannot be deleted"),
        format!("run: systemctl edit {unit} and have it say [Service], {how}; then restart it"),
    ))
}

/// What ProtectHome= is about (systemd.exec(5)).
const PROTECTED_HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

/// What keeps the unit's sessions from writing there, and what mends that.
fn trouble(confinement: Confinement<'_>, place: &Path) -> Option<(&'static str, String)> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_: io::Error| path.to_owned());
    let wanted = real(place);
    let writable = confinement.writable.split_whitespace();
    let mut writable = writable.map(|path| real(Path::new(path.trim_start_matches(['-', '+']))));
    let mut homes = PROTECTED_HOMES.iter().map(|home| real(Path::new(home)));
    let home = homes.find(|home| wanted.starts_with(home));
    // ProtectSystem=strict leaves these out.
    let open = "ProtectHome=no".to_owned();
    match (confinement.protect_home, home) {
        ("yes", Some(_)) => Some(("hidden from", open)),
        // What is allowed of all of it does not count then.
        ("read-only", Some(home)) => (!writable
            .any(|path| path != home && path.starts_with(&home) && wanted.starts_with(path)))
        .then_some(("read-only for", open)),
        // What is bound into a tmpfs the admin knows best.
        (_, Some(_)) => None,
        (_, None) => {
            let is_writable = confinement.protect_system != "strict"
                || writable.any(|path| wanted.starts_with(path));
            (!is_writable).then(|| ("read-only for", format!("ReadWritePaths={}", place.display())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: u32 = 8;

    /// Of a host whose users are in group 100.
    fn said(owner: u32, group: u32, mode: u32) -> Vec<String> {
        let (is_roots, is_users_group) = (owner == 0, group == 100);
        let spool_group = Some(MAIL);
        let facts = Facts { owner, group, mode, spool_group, is_roots, is_users_group };
        let found = facts.judge(Path::new("/var/mail"), true);
        found.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn spools_as_distributions_make_them_are_fine() {
        let usual = [(MAIL, 0o2775), (MAIL, 0o775), (0, 0o1777), (MAIL, 0o3777), (100, 0o3770)];
        for (group, mode) in usual {
            assert_eq!(said(0, group, mode), Vec::<String>::new(), "{mode:o}");
        }
    }

    #[test]
    fn spool_without_room_for_lock_files_is_a_warning() {
        for (group, mode) in [(MAIL, 0o755), (0, 0o2775)] {
            let said = said(0, group, mode);
            assert_eq!(said.len(), 1, "{mode:o}: {said:?}");
            assert!(
                said[0].starts_with("warning: /var/mail: users can make no lock file"),
                "{said:?}"
            );
            assert!(
                said[0].contains("run: install -d -o root -g mail -m 2775 /var/mail"),
                "{said:?}"
            );
        }
    }

    #[test]
    fn mail_that_others_can_take_away_and_users_cannot_reach_is_an_error() {
        for (owner, mode, what) in [
            (0, 0o777, "every user can take away"),
            (1000, 0o2775, "its owner can take away"),
            (0, 0o2770, "users do not reach"),
            (0, 0o700, "users do not reach"),
        ] {
            let said = said(owner, MAIL, mode);
            assert!(
                said[0].starts_with(&format!("error: /var/mail: {what}")),
                "{mode:o}: {said:?}"
            );
        }
    }

    fn confinement<'a>(home: &'a str, system: &'a str, writable: &'a str) -> Confinement<'a> {
        let unit = "popa3d.service";
        Confinement { unit, protect_home: home, protect_system: system, writable }
    }

    #[test]
    fn homes_have_to_be_in_reach_of_the_unit() {
        let said = |confinement, place: &str| {
            judge_homes(confinement, &[place.into()]).map(|finding| finding.to_string())
        };
        for (home, system, writable, place) in [
            ("no", "no", "", "/home"),
            ("no", "strict", "/var/mail", "/home"),
            ("no", "strict", "-/srv/home", "/srv/home"),
            ("no", "strict", "/", "/srv/home"),
            ("yes", "strict", "/srv", "/srv/home"),
            ("yes", "full", "", "/srv/home"),
            ("read-only", "strict", "/home/alice", "/home/alice"),
            ("tmpfs", "strict", "", "/home"),
        ] {
            assert_eq!(said(confinement(home, system, writable), place), None);
        }
        for (home, writable, place, what, how) in [
            ("yes", "/home", "/home", "hidden from", "ProtectHome=no"),
            ("no", "/home", "/srv/home", "read-only for", "ReadWritePaths=/srv/home"),
            ("no", "/srv/homes", "/srv/home", "read-only for", "ReadWritePaths=/srv/home"),
            ("read-only", "/home", "/home", "read-only for", "ProtectHome=no"),
            ("yes", "/home", "/srv/home", "read-only for", "ReadWritePaths=/srv/home"),
        ] {
            let wanted = format!(
                "error: mailboxes: homes in {place}, where they are, are {what} popa3d.service; run: systemctl \
                 edit popa3d.service and have it say [Service], {how}; then restart it"
            );
            assert_eq!(said(confinement(home, "strict", writable), place), Some(wanted));
        }
    }

    #[test]
    fn place_has_to_be_writable_for_the_unit() {
        let place = Path::new("/nonexistent/mail");
        assert!(judge_place(confinement("yes", "full", ""), place).is_none());
        assert!(judge_place(confinement("yes", "strict", "-/nonexistent/mail"), place).is_none());
        assert!(judge_place(confinement("yes", "strict", "/var/mail"), place).is_some());
    }
}
