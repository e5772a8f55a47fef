//! Waiting for descriptors, and no longer than allowed.

use std::io;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollTimeout, poll};

/// A point in time that waiting does not move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Deadline(Instant);

impl Deadline {
    pub(super) fn after(span: Duration) -> Self {
        Self(Instant::now() + span)
    }

    pub(super) fn has_passed(self) -> bool {
        Instant::now() >= self.0
    }

    /// Waits for one of `wanted`. Once the deadline has passed there is none, whatever is ready: a
    /// client that never stops sending is not to gain time by it.
    ///
    /// # Errors
    ///
    /// `TimedOut` when the deadline passes first, and poll(2)'s.
    pub(super) fn wait_for(self, wanted: &mut [PollFd<'_>]) -> io::Result<()> {
        while !self.has_passed() {
            let left = self.0.saturating_duration_since(Instant::now());
            // Rounded up to whole milliseconds: waking early would spin.
            let left = left.saturating_add(Duration::from_micros(999));
            let limit = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(wanted, limit) {
                Ok(0) | Err(nix::Error::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}
