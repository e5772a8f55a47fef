//! Who started the session, and wants to know how it goes.

use std::net::IpAddr;

use sd_notify::NotifyState;

use crate::channel::{News, ToListener, Verdict};

/// The program that accepted the connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Starter<'a> {
    /// A super-server: each session is a service of its own, with a status.
    SuperServer,
    /// This program's own listener.
    Listener(&'a ToListener),
}

impl Starter<'_> {
    /// Says what the session does, for `systemctl status`.
    pub(super) fn show(self, text: &str) {
        match self {
            // Nobody depends on it.
            Self::SuperServer => drop(sd_notify::notify(&[NotifyState::Status(text)])),
            // The service is the listener's, and it has its own status.
            Self::Listener(_) => {}
        }
    }

    /// Says that somebody has logged in.
    pub(super) fn note_login(self) {
        match self {
            Self::SuperServer => {}
            // Without a listener the session goes on all the same.
            Self::Listener(listener) => drop(listener.send(&News::LoggedIn, None)),
        }
    }

    /// Whether the client that a proxy named may have a session.
    pub(super) fn has_room_for(self, client: IpAddr) -> bool {
        match self {
            Self::SuperServer => true,
            Self::Listener(listener) => {
                let asked = listener.send(&News::Client(client), None);
                match asked.and_then(|()| listener.receive()) {
                    Ok((verdict, _)) => verdict == Verdict::Welcome,
                    // No listener, no limits.
                    Err(_) => true,
                }
            }
        }
    }
}
