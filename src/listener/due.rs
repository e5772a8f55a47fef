//! What the listener does when it is time, whether or not anybody connects.

use std::io;
use std::time::Duration;

use nix::sys::epoll::EpollTimeout;

use super::accept::Listener;
use super::{now, service};
use crate::event::{Event, Session as Log};

impl Listener {
    /// Goes on accepting, tells the journal and the service manager what they are to know by now.
    ///
    /// # Errors
    ///
    /// epoll(7)'s.
    pub(super) fn do_what_is_due(&mut self) -> io::Result<()> {
        let now = now();
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
            self.watch_sockets()?;
        }
        if let Some(unlogged) = self.refusals.overdue(now) {
            Log::default().log(&Event::RefusalsNotLogged(unlogged));
        }
        if self.status.due().is_some_and(|due| due <= now) {
            let text = self.counts();
            self.status.show(text, now);
        }
        if let Some((every, last)) = &mut self.watchdog {
            if *last + *every <= now {
                *last = now;
                service::alive();
            }
        }
        Ok(())
    }

    /// How long to wait when nothing happens.
    pub(super) fn timeout(&self) -> EpollTimeout {
        let now = now();
        let due = [
            self.paused_until,
            self.refusals.due(),
            self.status.due(),
            self.watchdog.map(|(every, last)| last + every),
        ];
        match due.into_iter().flatten().min() {
            None => EpollTimeout::NONE,
            Some(due) => {
                // Rounded up: waking early would spin.
                let left = due.saturating_sub(now).saturating_add(Duration::from_micros(999));
                EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX)
            }
        }
    }

    /// For the status.
    pub(super) fn counts(&self) -> String {
        format!(
            "sessions: {} now, {} of them not logged in, {} in all; refused: {}",
            self.slots.count(),
            self.slots.unauthenticated(),
            self.served,
            self.refusals.total()
        )
    }
}
