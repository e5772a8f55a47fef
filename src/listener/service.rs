//! What the service manager is told of the listener, if there is one (sd_notify(3)).

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use libsystemd::daemon::{NotifyState as WithDescriptor, notify_with_fds};
use sd_notify::NotifyState;

/// Whether a service manager started this program and waits to hear of it.
pub(super) fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// How often it wants to hear that the listener is well; `None` when it does not.
pub(super) fn watchdog() -> Option<Duration> {
    // Half of the time, as sd_watchdog_enabled(3) recommends.
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// Connections are accepted.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The settings are read again.
pub(super) fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now());
    tell(&states);
}

/// No connection is accepted any more.
pub(super) fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// What `systemctl status` shows.
fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// The listener is well.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// The status is shown once in so long, when it has changed.
const STATUS_PAUSE: Duration = Duration::from_secs(1);

/// What is shown, and when.
#[derive(Debug, Default)]
pub(super) struct Status {
    shown: String,
    at: Duration,
    /// Whether something has happened since.
    pub(super) is_old: bool,
}

impl Status {
    /// When it is to be shown again.
    pub(super) fn due(&self) -> Option<Duration> {
        self.is_old.then(|| self.at + STATUS_PAUSE)
    }

    pub(super) fn show(&mut self, text: String, now: Duration) {
        self.is_old = false;
        if text != self.shown {
            status(&text);
            (self.shown, self.at) = (text, now);
        }
    }
}

/// Gives a socket to keep across a restart (FileDescriptorStoreMax=, systemd.service(5)).
pub(super) fn keep(name: &str, socket: BorrowedFd<'_>) {
    let states = [WithDescriptor::Fdstore, WithDescriptor::Fdname(name.to_owned())];
    // Without it a restart refuses connections for a moment.
    let _ = notify_with_fds(false, &states, &[socket.as_raw_fd()]);
}

/// Takes back all that [`keep`] gave under this name.
pub(super) fn let_go(name: &str) {
    let states = [WithDescriptor::FdstoreRemove, WithDescriptor::Fdname(name.to_owned())];
    let _ = notify_with_fds(false, &states, &[]);
}

fn tell(states: &[NotifyState<'_>]) {
    // Nothing depends on it but the service manager itself, which notices.
    let _ = sd_notify::notify(states);
}
