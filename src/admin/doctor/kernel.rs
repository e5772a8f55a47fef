//! The kernel, and what of it confines workers.

use std::path::Path;

use nix::sys::utsname::uname;
use nix::unistd::Uid;

use super::finding::Finding;
use crate::monitor::{EMPTY_ROOT, Strength, try_sandbox};

/// Linux 5.9 was the first with close_range(2).
const OLDEST: (u32, u32) = (5, 9);

/// The first version of Landlock that keeps a process from signalling others (Linux 6.12); all that
/// came later is not needed here.
const WHOLE: u8 = 6;

pub(super) fn look() -> Vec<Finding> {
    let release = uname().map(|name| name.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_default();
    if number(&release).is_some_and(|number| number < OLDEST) {
        let text = format!("kernel {release}: popa3d needs Linux 5.9 or newer");
        return vec![Finding::error(text, "boot a newer one")];
    }
    if !Uid::effective().is_root() {
        return vec![Finding::unseen("the confinement of workers")];
    }
    if !Path::new(EMPTY_ROOT).is_dir() {
        // Which is another finding, as is that there is nobody to confine.
        return Vec::new();
    }
    try_sandbox().map(|tried| vec![judge(&release, tried)]).unwrap_or_default()
}

fn judge(release: &str, tried: std::io::Result<Strength>) -> Finding {
    match tried {
        Ok(Strength::Landlock(version)) => {
            let lacks = if version < WHOLE { ", of which the filter does the rest" } else { "" };
            Finding::fine(format!(
                "kernel {release}: workers are confined, by an empty root, a system call filter and \
                 Landlock (version {version}{lacks})"
            ))
        }
        Ok(Strength::WithoutLandlock) => Finding::warning(
            format!(
                "kernel {release}: there is no Landlock; workers are confined by an empty root and a \
                 system call filter alone"
            ),
            "boot a kernel that has it, with landlock in lsm= (cat /sys/kernel/security/lsm)",
        ),
        Err(error) => Finding::error(
            format!(
                "kernel {release}: a worker cannot lock itself in, and nobody is served: {error}"
            ),
            "a container must allow chroot and seccomp, and a kernel needs CONFIG_SECCOMP_FILTER",
        ),
    }
}

fn number(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        assert_eq!(number("6.1.0-28-amd64"), Some((6, 1)));
        assert_eq!(number("5.10+"), Some((5, 10)));
        assert!(number("5.8.18").is_some_and(|number| number < OLDEST));
        assert!(number("5.10.0").is_some_and(|number| number > OLDEST));
        assert_eq!(number("weird"), None);
    }

    #[test]
    fn what_is_weaker_without_landlock_is_said() {
        let found = judge("5.10", Ok(Strength::WithoutLandlock)).to_string();
        assert!(
            found.starts_with("warning: kernel 5.10: there is no Landlock; workers"),
            "{found}"
        );
        let old = judge("6.1", Ok(Strength::Landlock(2))).to_string();
        assert!(old.contains("(version 2, of which the filter does the rest)"), "{old}");
        let whole = judge("6.12", Ok(Strength::Landlock(6))).to_string();
        assert!(whole.ends_with("Landlock (version 6)"), "{whole}");
    }

    #[test]
    fn worker_that_cannot_be_confined_is_an_error() {
        let error = std::io::Error::from_raw_os_error(nix::libc::EPERM);
        assert!(judge("6.1", Err(error)).to_string().starts_with("error: kernel 6.1: a worker"));
    }
}
