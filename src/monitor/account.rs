//! Accounts, as the name service (nsswitch.conf(5)) knows them.

use std::ffi::{CStr, CString};
use std::io;
use std::path::PathBuf;

use nix::unistd::{Gid, Uid, User, getgrouplist};

/// A user who may have mail here.
#[derive(Debug)]
pub(super) struct Account {
    /// The login name; a file name without surprises.
    pub(super) name: String,
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    /// Supplementary groups, the primary one included.
    pub(super) groups: Vec<Gid>,
    pub(super) home: PathBuf,
}

/// Whether `name` can be the name of an account at all, and of a file in the spool.
pub(super) fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.starts_with(b".")
        && !name.starts_with(b"-")
        && std::str::from_utf8(name)
            .is_ok_and(|name| !name.contains(|c: char| c == '/' || c.is_control()))
}

/// Looks `name` up; `None` when this host does not know it or it is not fit to be one.
///
/// # Errors
///
/// The name service is out of order.
pub(super) fn find(name: &CStr) -> io::Result<Option<Account>> {
    let Some(text) = name.to_str().ok().filter(|name| is_name(name.as_bytes())) else {
        return Ok(None);
    };
    let found = User::from_name(text)?.filter(|user| is_name(user.name.as_bytes()));
    let Some(user) = found else { return Ok(None) };
    let groups = getgrouplist(name, user.gid)?;
    Ok(Some(Account {
        // What the name service calls the user, who may have been named otherwise.
        name: user.name,
        uid: user.uid,
        gid: user.gid,
        groups,
        home: user.dir,
    }))
}

/// The same for what an admin typed, which may be anything.
///
/// # Errors
///
/// The name service is out of order.
pub(super) fn find_typed(name: &str) -> io::Result<Option<Account>> {
    CString::new(name).map_or(Ok(None), |name| find(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_spool_are_none() {
        for name in [&b""[..], b".", b"..", b"../x", b"a/b", b"a\nb", b"-x", b".hidden", b"\xff"] {
            assert!(!is_name(name), "{name:?}");
        }
        assert!(is_name(b"alice"));
        assert!(is_name("j\u{f6}rg@example.org".as_bytes()));
        assert!(!is_name(&[b'x'; 256]));
    }
}
