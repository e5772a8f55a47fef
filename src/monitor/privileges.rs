//! Giving up what is no longer needed.

use capctl::{Cap, CapSet, CapState, bounding};

/// What the monitor needs once somebody is logged in: becoming the user for UPDATE, PAM's audit record at
/// the end, and that the worker, which has another user, dies with it: the kernel asks whether the
/// parent may do that (PR_SET_PDEATHSIG).
const AFTER_LOGIN: [Cap; 4] = [Cap::SETGID, Cap::SETUID, Cap::AUDIT_WRITE, Cap::KILL];

/// Gives up every capability but those for the rest of a session.
///
/// # Errors
///
/// The kernel's.
pub(super) fn shrink() -> std::io::Result<()> {
    let mut kept = CapSet::empty();
    for cap in AFTER_LOGIN {
        kept.add(cap);
    }
    let mut state = CapState::get_current().map_err(from_code)?;
    kept &= state.permitted;
    for cap in bounding::probe().iter().filter(|cap| !kept.has(*cap)) {
        // Without CAP_SETPCAP the bounding set stays; the other sets shrink all the same.
        let _ = bounding::drop(cap);
    }
    state.effective = kept;
    state.permitted = kept;
    state.inheritable = CapSet::empty();
    state.set_current().map_err(from_code)
}

fn from_code(error: capctl::Error) -> std::io::Error {
    std::io::Error::from_raw_os_error(error.code())
}
