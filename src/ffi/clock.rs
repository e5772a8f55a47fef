//! What the kernel knows of its clock.

use std::io;
use std::mem::MaybeUninit;

use nix::libc;

/// Whether somebody keeps the kernel's clock in step with the time (adjtimex(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronisation {
    /// Somebody does.
    Kept,
    /// Nobody does, or has not yet since the boot.
    Lost,
}

/// Asks the kernel.
///
/// # Errors
///
/// adjtimex(2)'s: containers may not be allowed to ask.
pub fn synchronisation() -> io::Result<Synchronisation> {
    let mut state = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: all fields are numbers, zeroed; modes 0 means that the kernel changes nothing and fills
    // in the structure, which lives until this function returns.
    match unsafe { libc::adjtimex(state.as_mut_ptr()) } {
        -1 => Err(io::Error::last_os_error()),
        libc::TIME_ERROR => Ok(Synchronisation::Lost),
        _ => Ok(Synchronisation::Kept),
    }
}
