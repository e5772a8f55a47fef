//! What `systemctl status` shows of a session.

use sd_notify::NotifyState;

/// Tells the service manager, if there is one.
pub(super) fn show(text: &str) {
    // Nobody depends on it.
    let _ = sd_notify::notify(&[NotifyState::Status(text)]);
}
