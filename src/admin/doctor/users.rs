//! Users of this host, as far as they stand in its own files: for what has to hold for real ones.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, User, getgrouplist};

use super::finding::Finding;
use crate::event::printable;
use crate::settings::Settings;

/// Ids of people (Debian Policy 9.2.2).
const REGULAR: std::ops::RangeInclusive<u32> = 1000..=59_999;

/// Users that are asked for their groups: the name service may be far away.
const MOST: usize = 50;
/// Names in a spool among which they are looked for.
const MOST_NAMES: usize = 500;

/// A line of passwd(5).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Local {
    name: String,
    uid: u32,
    home: PathBuf,
}

fn local() -> Vec<Local> {
    parse(&std::fs::read_to_string("/etc/passwd").unwrap_or_default())
}

fn parse(passwd: &str) -> Vec<Local> {
    let user = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        Some(Local { name, uid, home: fields.nth(2)?.into() })
    };
    passwd.lines().filter_map(user).collect()
}

/// The directories with the homes, without links, in which there are mailboxes; before there are any, the one
/// with most homes, and without these `/home`.
pub(super) fn places_of_homes(settings: &Settings) -> Vec<PathBuf> {
    let mut served = BTreeSet::new();
    let mut count: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for user in people() {
        let home = user.home.canonicalize().ok();
        let Some(place) = home.as_deref().and_then(Path::parent) else { continue };
        if settings.mailbox.path(&user.name, &user.home).symlink_metadata().is_ok() {
            served.insert(place.to_owned());
        }
        *count.entry(place.to_owned()).or_default() += 1;
    }
    if served.is_empty() {
        let most = count.into_iter().max_by_key(|(_, homes)| *homes);
        served.insert(most.map_or_else(|| "/home".into(), |(place, _)| place));
    }
    served.into_iter().collect()
}

fn people() -> impl Iterator<Item = Local> {
    local().into_iter().filter(|user| REGULAR.contains(&user.uid))
}

/// Whether the users with a mailbox in `spool` are in this group, as far as they were asked; where there is
/// none, those of the host.
pub(super) fn are_in(group: u32, spool: &Path) -> bool {
    let entries = std::fs::read_dir(spool).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut users = asked(names.take(MOST_NAMES));
    if users.is_empty() {
        users = asked(people().map(|user| user.name));
    }
    !users.is_empty() && users.iter().all(|user| is_in(user, Gid::from_raw(group)))
}

fn asked(names: impl Iterator<Item = String>) -> Vec<User> {
    let users = names.filter_map(|name| User::from_name(&name).ok().flatten());
    users.filter(|user| !user.uid.is_root()).take(MOST).collect()
}

fn is_in(user: &User, group: Gid) -> bool {
    let groups = CString::new(user.name.as_str()).ok();
    let groups = groups.and_then(|name| getgrouplist(&name, user.gid).ok());
    groups.is_some_and(|groups| groups.contains(&group))
}

/// Two names of one user have a session each.
pub(super) fn look(settings: &Settings) -> Option<Finding> {
    judge(&local(), settings)
}

fn judge(users: &[Local], settings: &Settings) -> Option<Finding> {
    let mut seen: BTreeMap<(u32, PathBuf), &str> = BTreeMap::new();
    users.iter().filter(|user| user.uid != 0).find_map(|user| {
        let mailbox = settings.mailbox.path(&user.name, &user.home);
        let other = seen.insert((user.uid, mailbox.clone()), &user.name)?;
        let names = [other, &user.name].map(|name| printable(name.as_bytes()));
        let place = printable(mailbox.as_os_str().as_encoded_bytes());
        Some(Finding::warning(
            format!(
                "mailboxes: {} and {} have the same number {} and the same mailbox {place}: both can have a \
                 session at once, and the update of one that a crash interrupted is not finished by the other",
                names[0], names[1], user.uid
            ),
            "let mail be fetched by one of the names, or have {user} in mailbox = (popa3d.toml(5))",
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Place;

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/root:/bin/sh\nbroken\n\
        alice:x:1000:1000:Alice,,,:/home/alice:/bin/sh\nal:x:1000:1000::/home/alice:/bin/sh\n\
        bob:x:1001:1000::/home/alice:/bin/sh\n";

    #[test]
    fn lines_of_passwd_are_read() {
        let users = parse(PASSWD);
        assert_eq!(users.len(), 5);
        let alice = Local { name: "alice".to_owned(), uid: 1000, home: "/home/alice".into() };
        assert_eq!(users[2], alice);
    }

    #[test]
    fn two_names_of_one_user_with_one_mailbox_are_found() {
        let path = std::env::temp_dir().join(format!("popa3d-users-{}.toml", std::process::id()));
        std::fs::write(&path, "mailbox = \"{home}/Mailbox\"\n").unwrap();
        let settings = Settings::load(&Place::File(path.clone())).unwrap();
        std::fs::remove_file(path).unwrap();
        let users = parse(PASSWD);
        let found = judge(&users, &settings).unwrap().to_string();
        assert!(found.starts_with("warning: mailboxes: alice and al have the same"), "{found}");
        assert_eq!(judge(&users, &Settings::default()), None);
        assert_eq!(judge(&users[..3], &settings), None);
    }
}
