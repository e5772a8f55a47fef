//! Sessions whose worker does what a test wants.

use std::os::fd::{AsFd, AsRawFd};

use super::prepared::Prepared;
use super::progress::Progress;
use super::session::{self, Failure};
use super::starter::Starter;
use super::worker_process::WorkerProcess;
use crate::channel::{Request, ToMonitor, pair};
use crate::event::{Conclusion, Session as Log};
use crate::ffi::process::{close_all_except_numbers, fork};
use crate::settings::Settings;

/// What the monitor knows of a session whose worker does this, and how it ends the session. The worker
/// says whether it got what it wanted.
pub(super) fn session(
    mut log: Log,
    settings: &Settings,
    worker: impl FnOnce(&ToMonitor) -> bool,
) -> (Log, Result<Conclusion, Failure>) {
    let (ours, theirs) = pair().unwrap();
    let pid = fork(|| {
        // Without the monitor's end it sees when that is closed.
        let kept = vec![1, 2, theirs.as_fd().as_raw_fd()];
        i32::from(close_all_except_numbers(kept).is_err() || !worker(&theirs))
    });
    drop(theirs);
    let worker = WorkerProcess::of(pid.unwrap(), ours);
    let progress = Progress::new(Starter::SuperServer, None);
    let end = session::run(worker, settings, progress, &mut Prepared::default(), &mut log);
    (log, end)
}

/// Sends a request; whether the monitor is still there is seen by its answer.
pub(super) fn say(monitor: &ToMonitor, request: &Request) {
    let _ = monitor.send(request, None);
}

/// Why the session ended, which has to be something that the worker did.
pub(super) fn misbehaviour(end: Result<Conclusion, Failure>) -> String {
    match end {
        Err(Failure::Worker(what)) => what,
        other => panic!("{other:?}"),
    }
}
