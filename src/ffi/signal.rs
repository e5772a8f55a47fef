//! Learning of a signal that is not held back.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use nix::unistd::{getpid, pipe2};

/// Both ends of where signals are noted; never closed, since a handler may write there at any time.
static NOTES: OnceLock<(File, OwnedFd)> = OnceLock::new();

/// For the handler, which may use neither of the above.
static NOTE_IN: AtomicI32 = AtomicI32::new(-1);
static OWNER: AtomicI32 = AtomicI32::new(0);

/// Has the first one of each of `signals` noted, in place of its effect; the next one has that again.
/// In processes that this one forks and in programs that those run, the first one has it, too.
///
/// # Errors
///
/// There is no descriptor left for it.
pub fn note_first(signals: &[Signal]) -> io::Result<()> {
    if NOTES.get().is_none() {
        let (notes, note_in) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        NOTE_IN.store(note_in.as_raw_fd(), Ordering::Relaxed);
        // Only one thread starts sessions.
        let _ = NOTES.set((notes.into(), note_in));
    }
    OWNER.store(getpid().as_raw(), Ordering::Relaxed);
    let flags = SaFlags::SA_RESETHAND | SaFlags::SA_RESTART;
    let action = SigAction::new(SigHandler::Handler(note), flags, SigSet::empty());
    for signal in signals {
        // SAFETY: `note` does nothing but what signal-safety(7) allows, and keeps errno.
        unsafe { sigaction(*signal, &action) }?;
    }
    Ok(())
}

/// Where a note can be read, one octet for each signal: its number. `None` before
/// [`note_first`]; reading does not wait.
#[must_use]
pub fn notes() -> Option<&'static File> {
    NOTES.get().map(|(notes, _)| notes)
}

/// Takes the effect of `signal` on this process away, and on those that it forks, but not on programs that they
/// run: those would be left without one that is ignored (SIG_IGN).
///
/// # Errors
///
/// sigaction(2)'s.
pub fn disregard(signal: Signal) -> io::Result<()> {
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: `nothing` does nothing, which signal-safety(7) allows.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}

extern "C" fn nothing(_: libc::c_int) {}

extern "C" fn note(number: libc::c_int) {
    let errno = Errno::last_raw();
    if getpid().as_raw() == OWNER.load(Ordering::Relaxed) {
        let octet = [u8::try_from(number).unwrap_or_default()];
        let descriptor = NOTE_IN.load(Ordering::Relaxed);
        // SAFETY: write(2) reads one octet from an array of one.
        unsafe { libc::write(descriptor, octet.as_ptr().cast(), octet.len()) };
    } else if let Ok(signal) = Signal::try_from(number) {
        // A child that was forked meanwhile: it ends by it, once this handler is through.
        let _ = raise(signal);
    }
    Errno::set_raw(errno);
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;

    use nix::sys::wait::{WaitStatus, waitpid};

    use super::*;
    use crate::ffi::process::fork;

    #[test]
    fn disregarded_signal_ends_nobody_but_programs_that_are_run() {
        let child = fork(|| {
            disregard(Signal::SIGUSR1).unwrap();
            raise(Signal::SIGUSR1).unwrap();
            let status = std::process::Command::new("sh").args(["-c", "kill -USR1 $$"]).status();
            let ended_by = status.unwrap().signal();
            i32::from(ended_by != Some(Signal::SIGUSR1 as i32))
        });
        assert!(matches!(waitpid(child.unwrap(), None), Ok(WaitStatus::Exited(_, 0))));
    }

    #[test]
    fn first_signal_is_noted_the_second_one_ends_the_process_and_a_child_ends_by_the_first() {
        let child = fork(|| {
            note_first(&[Signal::SIGUSR1]).unwrap();
            let grandchild = fork(|| {
                raise(Signal::SIGUSR1).unwrap();
                0
            });
            let killed = waitpid(grandchild.unwrap(), None).unwrap();
            let mut octet = [0];
            let is_noted = |octet: &mut [u8]| notes().unwrap().read(octet).is_ok();
            if !matches!(killed, WaitStatus::Signaled(_, Signal::SIGUSR1, _))
                || is_noted(&mut octet)
            {
                return 1;
            }
            raise(Signal::SIGUSR1).unwrap();
            if !is_noted(&mut octet) || i32::from(octet[0]) != Signal::SIGUSR1 as i32 {
                return 2;
            }
            raise(Signal::SIGUSR1).unwrap();
            3
        });
        let status = waitpid(child.unwrap(), None).unwrap();
        assert!(matches!(status, WaitStatus::Signaled(_, Signal::SIGUSR1, _)), "{status:?}");
    }
}
