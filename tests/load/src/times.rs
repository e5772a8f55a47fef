//! Durations of one kind, and what they come to.

use std::time::{Duration, Instant};
use std::{fmt, io};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// Runs `work` and notes how long it took.
    pub(crate) fn of<T, E>(&mut self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let begun = Instant::now();
        let done = work()?;
        self.0.push(begun.elapsed());
        Ok(done)
    }

    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }
}

/// What this process has used of the processors until now.
pub(crate) fn processor_time() -> io::Result<Duration> {
    let used = getrusage(UsageWho::RUSAGE_SELF)?;
    let microseconds = (used.user_time() + used.system_time()).num_microseconds();
    Ok(Duration::from_micros(microseconds.unsigned_abs()))
}

/// Milliseconds, as JSON.
impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = |share: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a share of a count of things that were waited for"
            )]
            let rank = ((sorted.len() as f64 * share).ceil() as usize).max(1) - 1;
            sorted.get(rank).map_or(0.0, Duration::as_secs_f64) * 1e3
        };
        write!(
            f,
            r#"{{"n":{},"p50":{:.4},"p99":{:.4},"max":{:.4}}}"#,
            sorted.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        )
    }
}
