//! Ends a monitor that PAM does not let go of.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::getpid;

use crate::event::{Event, Session};

/// What a worker needs to tell its client.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A thread that kills this process unless it is dropped in time.
///
/// PAM modules run in the monitor and cannot be interrupted; the worker tells its client when the
/// monitor is gone.
#[derive(Debug)]
pub(super) struct Watchdog {
    stop: Option<Sender<()>>,
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
        let (stop, stopped) = channel();
        let worker = worker.try_clone_to_owned()?;
        let log = Arc::new(Mutex::new(log.clone()));
        let for_thread = Arc::clone(&log);
        let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(move || {
            if stopped.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                let log = for_thread.lock().unwrap_or_else(PoisonError::into_inner);
                log.log(&Event::PamHangs(limit.as_secs()));
                // The end of its channel is an answer, too; the worker dies with this process, so
                // it needs a moment to pass that on to its client.
                let _ = shutdown(worker.as_raw_fd(), Shutdown::Both);
                std::thread::sleep(LAST_WORDS);
                // Not a way out that waits for other threads or runs their exit handlers.
                let _ = kill(getpid(), Signal::SIGKILL);
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread), log })
    }

    /// Tells it whose login it is, once that is known.
    pub(super) fn name(&self, log: &Session) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = log.clone();
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // Joined, so that the process has one thread again when it forks.
            let _ = thread.join();
        }
    }
}
