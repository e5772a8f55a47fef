//! When sessions may begin no more.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Rings after a time, or when so many sessions have begun.
pub(crate) struct Bell {
    begun: Instant,
    length: Duration,
    most: u32,
    sessions: AtomicU32,
    rung: OnceLock<Instant>,
}

impl Bell {
    pub(crate) fn new(length: Duration, most: u32) -> Self {
        let sessions = AtomicU32::new(0);
        Self { begun: Instant::now(), length, most, sessions, rung: OnceLock::new() }
    }

    /// Asked before each session; the first that may not begin rings.
    pub(crate) fn lets_begin(&self) -> bool {
        let is_early = self.begun.elapsed() < self.length
            && self.sessions.fetch_add(1, Ordering::Relaxed) < self.most;
        if !is_early {
            self.rung.get_or_init(Instant::now);
        }
        is_early
    }

    /// Sessions a second until the bell, of those that were over by then. A few that a server leaves
    /// waiting do not count, while the others' time does: how long the last one took is told apart.
    pub(crate) fn rate(&self, ends: &[Instant]) -> f64 {
        let rung = self.rung.get().copied().unwrap_or_else(Instant::now);
        let over = u32::try_from(ends.iter().filter(|end| **end <= rung).count());
        f64::from(over.unwrap_or(u32::MAX)) / (rung - self.begun).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_sessions_begin_than_may() {
        let bell = Bell::new(Duration::from_secs(3600), 2);
        assert_eq!([bell.lets_begin(), bell.lets_begin(), bell.lets_begin()], [true, true, false]);
    }

    #[test]
    fn no_session_begins_when_the_time_is_over() {
        assert!(!Bell::new(Duration::ZERO, 2).lets_begin());
    }

    #[test]
    fn a_session_that_ends_behind_the_bell_is_no_part_of_the_rate() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let bell = Bell { begun, ..Bell::new(Duration::from_secs(2), 9) };
        let _ = bell.rung.set(at(2));
        assert!((bell.rate(&[at(1), at(2), at(60)]) - 1.0).abs() < 1e-9);
    }
}
