//! The user that workers run as, and the directory that they are locked in.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;

use nix::unistd::User;

use super::finding::{Finding, why, word};
use crate::as_user::WRITABLE_BY_OTHERS;
use crate::event::printable;
use crate::monitor::{EMPTY_ROOT, WORKER_USER};

const WRITABLE: u32 = 0o222;

pub(super) fn look() -> Vec<Finding> {
    let mut findings = match User::from_name(WORKER_USER) {
        Ok(Some(user)) => {
            let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
            let mut findings = judge(&user, &namesakes(&passwd, user.uid.as_raw()));
            match std::fs::read_to_string("/etc/shadow") {
                Ok(shadow) => findings.extend(judge_password(&shadow)),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    findings.push(Finding::unseen(format!("the password of user {WORKER_USER}")));
                }
                // Without the file there is no password.
                Err(_) => {}
            }
            findings
        }
        Ok(None) => vec![Finding::error(
            format!("user {WORKER_USER}: there is none, and nobody is served"),
            "run: systemd-sysusers popa3d.conf",
        )],
        Err(error) => vec![Finding::error(
            format!("user {WORKER_USER}: the name service does not answer: {error}"),
            "see passwd in /etc/nsswitch.conf",
        )],
    };
    findings.extend(directory());
    if findings.iter().all(|finding| finding.severity <= super::Severity::Unseen) {
        findings.push(Finding::fine(format!("user {WORKER_USER}, {EMPTY_ROOT}: fine")));
    }
    findings
}

fn judge(user: &User, namesakes: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let anew = format!("run: userdel {WORKER_USER} && systemd-sysusers popa3d.conf");
    if user.uid.is_root() || user.gid.as_raw() == 0 {
        findings.push(Finding::error(
            format!("user {WORKER_USER}: its user or group is root, and nobody is served"),
            "edit /etc/passwd: it needs ids of its own",
        ));
    }
    if let Some(other) = namesakes.first() {
        findings.push(Finding::error(
            format!(
                "user {WORKER_USER}: {} has the same number {}, and could meddle with workers",
                printable(other.as_bytes()),
                user.uid
            ),
            anew,
        ));
    }
    let shell = user.shell.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    if !matches!(&*shell, "nologin" | "false") {
        findings.push(Finding::warning(
            format!(
                "user {WORKER_USER}: it has a shell, {}",
                printable(user.shell.as_os_str().as_encoded_bytes())
            ),
            format!("run: usermod --shell /usr/sbin/nologin {WORKER_USER}"),
        ));
    }
    findings
}

/// Other local users with this number.
fn namesakes(passwd: &str, uid: u32) -> Vec<String> {
    let user = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        (number == uid && name != WORKER_USER).then(|| name.to_owned())
    };
    passwd.lines().filter_map(user).collect()
}

fn judge_password(shadow: &str) -> Option<Finding> {
    let line = shadow.lines().find_map(|line| line.strip_prefix(WORKER_USER)?.strip_prefix(':'))?;
    let password = line.split(':').next()?;
    let is_locked = password.starts_with(['!', '*']);
    (!is_locked).then(|| {
        Finding::warning(
            format!("user {WORKER_USER}: it has a password"),
            format!("run: usermod --lock {WORKER_USER}"),
        )
    })
}

fn directory() -> Option<Finding> {
    let make = format!("run: install -d -o root -g root -m 0555 {EMPTY_ROOT}");
    let found = match std::fs::symlink_metadata(EMPTY_ROOT) {
        Ok(found) if found.is_dir() => found,
        Ok(_) => {
            let text = format!("{EMPTY_ROOT}: it is no directory, and nobody is served");
            return Some(Finding::error(text, format!("remove it and {make}")));
        }
        Err(error) => {
            let text = format!("{EMPTY_ROOT}: {}, and nobody is served", why(&error));
            return Some(Finding::error(text, make));
        }
    };
    judge_directory(&found, make).or_else(|| {
        let mut entries = std::fs::read_dir(EMPTY_ROOT).ok()?;
        let first = entries.next()?.ok()?;
        let first = printable(first.file_name().as_encoded_bytes());
        Some(Finding::warning(
            format!("{EMPTY_ROOT}: it is not empty, {first} is in it, which workers could see"),
            format!("look at it, and run: find {} -mindepth 1 -delete", word(EMPTY_ROOT)),
        ))
    })
}

fn judge_directory(found: &Metadata, make: String) -> Option<Finding> {
    let mode = found.mode() & 0o7777;
    if found.uid() != 0 || mode & WRITABLE_BY_OTHERS != 0 {
        let text = format!("{EMPTY_ROOT}: others than root can write there (mode {mode:04o})");
        return Some(Finding::error(text, make));
    }
    (mode & WRITABLE != 0).then(|| {
        let text = format!("{EMPTY_ROOT}: its mode is {mode:04o}, it should be 0555");
        Finding::warning(text, format!("run: chmod 0555 {EMPTY_ROOT}"))
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::path::PathBuf;

    use nix::unistd::{Gid, Uid};

    use super::*;

    fn user(uid: u32, shell: &str) -> User {
        User {
            name: WORKER_USER.to_owned(),
            passwd: CString::default(),
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(uid),
            gecos: CString::default(),
            dir: PathBuf::new(),
            shell: shell.into(),
        }
    }

    fn said(user: &User, passwd: &str) -> Vec<String> {
        let found = judge(user, &namesakes(passwd, user.uid.as_raw()));
        found.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn user_as_sysusers_makes_it_is_fine() {
        let passwd = "root:x:0:0::/root:/bin/sh\npopa3d:x:997:997::/:/usr/sbin/nologin\n";
        assert_eq!(said(&user(997, "/usr/sbin/nologin"), passwd), Vec::<String>::new());
    }

    #[test]
    fn number_that_another_user_has_as_well_is_an_error() {
        let passwd = "alice:x:997:100::/:/bin/sh\npopa3d:x:997:997::/:/usr/sbin/nologin\nbroken\n";
        let said = said(&user(997, "/bin/false"), passwd);
        assert_eq!(said.len(), 1);
        assert!(
            said[0].starts_with("error: user popa3d: alice has the same number 997"),
            "{said:?}"
        );
    }

    #[test]
    fn shell_and_root_are_found() {
        assert!(said(&user(997, "/bin/bash"), "")[0].contains("it has a shell, /bin/bash"));
        assert!(said(&user(0, "/bin/false"), "")[0].contains("is root"));
    }

    #[test]
    fn password_is_found() {
        for locked in ["popa3d:!*:1:::::\n", "popa3d:!:1:::::\n", "popa3d:*:1:::::\n", "other::1\n"]
        {
            assert!(judge_password(locked).is_none(), "{locked}");
        }
        for open in ["root:*:1\npopa3d:$y$j9T$x:1:::::\n", "popa3d::1:::::\n"] {
            assert!(judge_password(open).is_some(), "{open}");
        }
    }
}
