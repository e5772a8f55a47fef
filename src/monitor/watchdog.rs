//! Ends a monitor that PAM does not let go of.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::{getpid, pipe2, write};

use super::stop_signal;
use crate::event::{Conclusion, Event, Session};

/// What a worker needs to tell its client.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A thread that kills this process unless it is dropped in time, or when a signal tells it to end.
///
/// PAM modules run in the monitor and cannot be interrupted; the worker tells its client when the
/// monitor is gone.
#[derive(Debug)]
pub(super) struct Watchdog {
    /// Where to say that PAM is through. That it is closed would not do: what a module has forked may have
    /// it, too.
    through: OwnedFd,
    thread: Option<JoinHandle<()>>,
    /// Whose login it is, for what the thread may have to say.
    log: Arc<Mutex<Session>>,
}

impl Watchdog {
    /// Gives what follows `limit`. Behind `worker` somebody may wait for an answer.
    pub(super) fn start(
        limit: Duration,
        log: &Session,
        worker: BorrowedFd<'_>,
    ) -> std::io::Result<Self> {
        let (heard, through) = pipe2(OFlag::O_CLOEXEC)?;
        let worker = worker.try_clone_to_owned()?;
        let log = Arc::new(Mutex::new(log.clone()));
        let for_thread = Arc::clone(&log);
        let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(move || {
            let why = watch(heard.as_fd(), limit);
            let mut log = for_thread.lock().unwrap_or_else(PoisonError::into_inner);
            match why {
                Woken::PamIsThrough => {}
                Woken::BySignal(signal) => {
                    log.log(&Event::SessionEnded);
                    // Its second one, which has its usual effect.
                    let _ = kill(getpid(), signal);
                }
                Woken::TooLate => {
                    log.log(&Event::PamHangs(limit.as_secs()));
                    log.summary.conclusion = Conclusion::PamHangs;
                    log.log(&Event::SessionEnded);
                    // The end of its channel is an answer, too; the worker dies with this process, so
                    // it needs a moment to pass that on to its client.
                    let _ = shutdown(worker.as_raw_fd(), Shutdown::Both);
                    std::thread::sleep(LAST_WORDS);
                    // Not a way out that waits for other threads or runs their exit handlers.
                    let _ = kill(getpid(), Signal::SIGKILL);
                }
            }
        })?;
        Ok(Self { through, thread: Some(thread), log })
    }

    /// Tells it whose login it is, once that is known.
    pub(super) fn name(&self, log: &Session) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = log.clone();
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let _ = write(&self.through, &[0]);
        if let Some(thread) = self.thread.take() {
            // Joined, so that the process has one thread again when it forks.
            let _ = thread.join();
        }
    }
}

/// Why the thread of a watchdog goes on.
enum Woken {
    PamIsThrough,
    BySignal(Signal),
    TooLate,
}

/// Waits for a word that PAM is through, for `limit` to be over, or for a signal.
fn watch(heard: BorrowedFd<'_>, limit: Duration) -> Woken {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut wanted = vec![PollFd::new(heard, PollFlags::POLLIN)];
        wanted.extend(stop_signal::notes().map(|notes| PollFd::new(notes, PollFlags::POLLIN)));
        // Rounded up to whole milliseconds: waking early would spin.
        let limit = left.saturating_add(Duration::from_micros(999));
        let woken = poll(&mut wanted, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX));
        let is_through = wanted.first().and_then(PollFd::any).unwrap_or(false);
        match (woken, stop_signal::noted()) {
            (_, Some(signal)) => return Woken::BySignal(signal),
            (Ok(0), None) if left.is_zero() => return Woken::TooLate,
            (Ok(_), None) if is_through => return Woken::PamIsThrough,
            (Ok(_) | Err(_), None) => {}
        }
    }
}
