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

    /// Waits for one of `wanted`.
    ///
    /// # Errors
    ///
    /// `TimedOut` when the deadline passes first, and poll(2)'s.
    pub(super) fn wait_for(self, wanted: &mut [PollFd<'_>]) -> io::Result<()> {
        loop {
            let left = self.0.saturating_duration_since(Instant::now());
            // Rounded up to whole milliseconds: waking early would spin.
            let left = left.saturating_add(Duration::from_micros(999));
            let limit = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(wanted, limit) {
                Ok(0) if Instant::now() >= self.0 => return Err(io::ErrorKind::TimedOut.into()),
                Ok(0) | Err(nix::Error::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
