//! How long a client may take to read what is sent to it.

use std::cell::Cell;
use std::time::Duration;

use super::deadline::Deadline;

/// A client that is slow is waited for as long as it takes so many octets within each idle time-out.
/// Those that were handed to the kernel count: nobody else knows of others. Less is no reading: with
/// an octet now and then, whoever likes could keep a session.
pub(super) const LEAST: usize = 4 * 1024;

/// How long somebody is waited for who is to take something.
pub(super) enum Patience {
    Until(Deadline),
    /// Counted from the first time that somebody has to wait, and again whenever the client has taken
    /// [`LEAST`] octets; but never beyond the latest time.
    Renewed {
        span: Duration,
        latest: Option<Deadline>,
        deadline: Cell<Option<Deadline>>,
        /// Octets since it was renewed.
        taken: Cell<usize>,
    },
}

impl Patience {
    pub(super) fn new(span: Duration, latest: Option<Deadline>) -> Self {
        Self::Renewed { span, latest, deadline: Cell::default(), taken: Cell::default() }
    }

    pub(super) fn deadline(&self) -> Deadline {
        match self {
            Self::Until(deadline) => *deadline,
            Self::Renewed { span, latest, deadline, .. } => {
                let counted = deadline.get().unwrap_or_else(|| Deadline::after(*span));
                deadline.set(Some(counted));
                latest.map_or(counted, |latest| latest.min(counted))
            }
        }
    }

    pub(super) fn took(&self, octets: usize) {
        if let Self::Renewed { deadline, taken, .. } = self {
            taken.set(taken.get() + octets);
            if taken.get() >= LEAST {
                taken.set(0);
                deadline.set(None);
            }
        }
    }
}
