//! Being told to end.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Makes the signals that end a service something to wait for, so that a session is closed
/// properly and an UPDATE is finished first.
#[derive(Debug)]
pub(super) struct StopSignal {
    signals: SigSet,
    descriptor: SignalFd,
}

impl StopSignal {
    /// From here on the signals wait; `None` where they cannot.
    pub(super) fn hold() -> Option<Self> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            signals.add(signal);
        }
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let descriptor = SignalFd::with_flags(&signals, flags).ok()?;
        signals.thread_block().ok()?;
        Some(Self { signals, descriptor })
    }

    /// From here on the signals end the process at once, as they do with others: what PAM starts
    /// must not inherit that they wait. True when one came meanwhile.
    pub(super) fn let_go(self) -> bool {
        let mut came = false;
        while let Ok(Some(_)) = self.descriptor.read_signal() {
            came = true;
        }
        let _ = self.signals.thread_unblock();
        came
    }
}

impl AsFd for StopSignal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
