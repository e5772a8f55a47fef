//! Being told to end.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::starter::Starter;
use crate::ffi::signal;

/// Those that end a service.
const SIGNALS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// Those of them that end a session.
fn ending(starter: Starter<'_>) -> &'static [Signal] {
    match starter {
        Starter::SuperServer => &SIGNALS,
        // It has the listener reload, and who sends it to all processes of this name wants that.
        Starter::Listener(_) => &[Signal::SIGTERM, Signal::SIGINT],
    }
}

/// Makes the signals that end a service something to wait for, so that a session is closed
/// properly and an UPDATE is finished first.
#[derive(Debug)]
pub(super) struct StopSignal {
    ending: &'static [Signal],
    held: SigSet,
    descriptor: SignalFd,
}

impl StopSignal {
    /// From here on the signals wait in a session that `starter` has started; `None` where they cannot.
    pub(super) fn hold(starter: Starter<'_>) -> Option<Self> {
        let ending = ending(starter);
        let held: SigSet = SIGNALS.into_iter().collect();
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let descriptor = SignalFd::with_flags(&ending.iter().copied().collect(), flags).ok()?;
        held.thread_block().ok()?;
        Some(Self { ending, held, descriptor })
    }

    /// From here on the signals do not wait: what PAM starts must not inherit that they do. The first one
    /// is noted, for the watchdog to end this process ([`noted`]). True when one came meanwhile.
    pub(super) fn let_go(self) -> bool {
        let mut came = false;
        while let Ok(Some(_)) = self.descriptor.read_signal() {
            came = true;
        }
        // Where that cannot be, they end the process at once.
        let _ = signal::note_first(self.ending);
        let others = SIGNALS.iter().filter(|signal| !self.ending.contains(signal));
        others.for_each(|signal| drop(signal::disregard(*signal)));
        let _ = self.held.thread_unblock();
        came
    }
}

impl AsFd for StopSignal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Where signals are noted that did not wait.
pub(super) fn notes() -> Option<BorrowedFd<'static>> {
    signal::notes().map(AsFd::as_fd)
}

/// Such a signal, if there was one.
pub(super) fn noted() -> Option<Signal> {
    let mut number = [0];
    signal::notes()?.read_exact(&mut number).ok()?;
    let [number] = number;
    Signal::try_from(i32::from(number)).ok()
}
