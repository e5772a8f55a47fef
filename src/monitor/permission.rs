//! Which request is allowed when. Anything else ends the session.

use crate::channel::Request;

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nobody is logged in.
    AwaitingLogin,
    /// Nobody is logged in, and a TLS handshake is under way.
    Handshaking,
    /// There is no TLS, so there is no session either.
    Finished,
    /// Logged in; the worker reads the mailbox, which is locked.
    Scanning,
    /// TRANSACTION; the mailbox is not locked.
    MaildropOpen,
    /// UPDATE; the mailbox is locked and the worker says what to remove.
    Updating,
}

/// The table.
pub(super) fn allows(phase: Phase, request: &Request) -> bool {
    use Phase::{AwaitingLogin, Finished, Handshaking, MaildropOpen, Scanning, Updating};
    matches!(
        (phase, request),
        (
            AwaitingLogin,
            Request::NoLandlock
                | Request::OffersTls
                | Request::BeginTls
                | Request::HandshakeFailed(_)
                | Request::PlaintextRefused
                | Request::Login { .. }
                | Request::LoginByCertificate { .. }
                | Request::End { .. }
        ) | (
            Handshaking,
            Request::Sign { .. }
                | Request::SealTicket(_)
                | Request::OpenTicket(_)
                | Request::Encrypted(_)
                | Request::HandshakeFailed(_)
                | Request::End { .. }
        ) | (Scanning, Request::Remember(_) | Request::Scanned(_) | Request::Unservable(_))
            | (Finished, Request::End { .. })
            | (MaildropOpen, Request::Lock | Request::End { .. })
            | (
                Updating,
                Request::Delete(_)
                    | Request::Remember(_)
                    | Request::Commit { .. }
                    | Request::Abandon(_)
            )
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Method, Secret, Totals, Trouble};

    #[test]
    fn nothing_touches_a_mailbox_before_login() {
        for request in [
            Request::Scanned(Totals::default()),
            Request::Unservable(Trouble::NotMbox),
            Request::Remember(String::new()),
            Request::Lock,
            Request::Delete(Vec::new()),
            Request::Commit { deleted: Totals::default(), left: Totals::default() },
            Request::Abandon(Trouble::Changed),
        ] {
            assert!(!allows(Phase::AwaitingLogin, &request), "{request:?}");
        }
    }

    #[test]
    fn nothing_is_signed_but_in_a_handshake() {
        let sign = Request::Sign { certificate: 0, scheme: 0x0804, input: Vec::new() };
        assert!(allows(Phase::Handshaking, &sign));
        for phase in [Phase::AwaitingLogin, Phase::Scanning, Phase::MaildropOpen, Phase::Updating] {
            assert!(!allows(phase, &sign), "{phase:?}");
            assert!(!allows(phase, &Request::OpenTicket(Vec::new())), "{phase:?}");
            assert!(!allows(phase, &Request::SealTicket(Secret::new(b""))), "{phase:?}");
        }
    }

    #[test]
    fn nobody_logs_in_twice() {
        let login = || Request::Login {
            user: Vec::new(),
            password: Secret::new(b""),
            method: Method::UserPass,
        };
        for phase in [Phase::Handshaking, Phase::Scanning, Phase::MaildropOpen, Phase::Updating] {
            assert!(!allows(phase, &login()), "{phase:?}");
            let by_certificate = Request::LoginByCertificate { user: Vec::new() };
            assert!(!allows(phase, &by_certificate), "{phase:?}");
        }
    }

    #[test]
    fn nothing_is_removed_unless_the_mailbox_is_locked_for_update() {
        for phase in [Phase::AwaitingLogin, Phase::Scanning, Phase::MaildropOpen] {
            let commit = Request::Commit { deleted: Totals::default(), left: Totals::default() };
            assert!(!allows(phase, &commit), "{phase:?}");
            assert!(!allows(phase, &Request::Delete(Vec::new())), "{phase:?}");
        }
    }
}
