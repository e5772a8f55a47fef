//! Which request is allowed when. Anything else ends the session.

use crate::channel::Request;

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Behind a proxy, which has yet to say who the client is.
    AwaitingProxy,
    /// Nobody is logged in.
    AwaitingLogin,
    /// Nobody is logged in, and a TLS handshake is under way.
    Handshaking,
    /// There is no TLS, or the client was turned away, so there is no session either; or UPDATE was
    /// tried.
    Finished,
    /// Logged in; the worker reads the mailbox, which is locked.
    Scanning,
    /// TRANSACTION; the mailbox is not locked.
    MaildropOpen,
    /// UPDATE; the mailbox is locked and the worker says what to remove.
    Updating,
    /// It is done, and the worker says what each of the messages was.
    Expunged,
}

/// The table.
pub(super) fn allows(phase: Phase, request: &Request) -> bool {
    use Phase::{
        AwaitingLogin, AwaitingProxy, Expunged, Finished, Handshaking, MaildropOpen, Scanning,
        Updating,
    };
    matches!(
        (phase, request),
        (
            AwaitingProxy,
            Request::NoLandlock
                | Request::Proxied { .. }
                | Request::ProxyRefused(_)
                | Request::End { .. }
        ) | (
            AwaitingLogin,
            Request::NoLandlock
                | Request::ProxyRefused(_)
                | Request::OffersTls
                | Request::BeginTls
                | Request::HandshakeFailed(_)
                | Request::PlaintextRefused
                | Request::AttemptRefused { .. }
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
                | Request::ProxyRefused(_)
                | Request::End { .. }
        ) | (
            Scanning,
            Request::NotRemembered(_)
                | Request::Remember(_)
                | Request::Scanned(_)
                | Request::Unservable(_)
        ) | (Finished, Request::End { .. })
            | (Expunged, Request::Expunged(_))
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
    use crate::channel::{Method, NotRemembered, Secret, Totals, Trouble};

    const ALL: [Phase; 8] = [
        Phase::AwaitingProxy,
        Phase::AwaitingLogin,
        Phase::Handshaking,
        Phase::Finished,
        Phase::Scanning,
        Phase::MaildropOpen,
        Phase::Updating,
        Phase::Expunged,
    ];

    #[test]
    fn nothing_touches_a_mailbox_before_login() {
        for request in [
            Request::Scanned(Totals::default()),
            Request::Unservable(Trouble::NotMbox),
            Request::NotRemembered(NotRemembered::Damaged(1)),
            Request::Remember(String::new()),
            Request::Lock,
            Request::Delete(Vec::new()),
            Request::Commit { deleted: Totals::default(), left: Totals::default() },
            Request::Abandon(Trouble::Changed),
        ] {
            for phase in [Phase::AwaitingProxy, Phase::AwaitingLogin] {
                assert!(!allows(phase, &request), "{phase:?} {request:?}");
            }
        }
    }

    #[test]
    fn nothing_is_signed_but_in_a_handshake() {
        let sign = Request::Sign { certificate: 0, scheme: 0x0804, input: Vec::new() };
        assert!(allows(Phase::Handshaking, &sign));
        for phase in ALL.into_iter().filter(|phase| *phase != Phase::Handshaking) {
            assert!(!allows(phase, &sign), "{phase:?}");
            assert!(!allows(phase, &Request::OpenTicket(Vec::new())), "{phase:?}");
            assert!(!allows(phase, &Request::SealTicket(Secret::new(b""))), "{phase:?}");
        }
    }

    #[test]
    fn a_client_is_named_where_a_proxy_has_to_and_nowhere_else() {
        let proxied = Request::Proxied { client: None, tls: None };
        assert!(allows(Phase::AwaitingProxy, &proxied));
        for phase in ALL.into_iter().filter(|phase| *phase != Phase::AwaitingProxy) {
            assert!(!allows(phase, &proxied), "{phase:?}");
        }
    }

    #[test]
    fn nothing_but_the_header_of_a_proxy_comes_first() {
        for request in [
            Request::OffersTls,
            Request::BeginTls,
            Request::PlaintextRefused,
            Request::HandshakeFailed(String::new()),
            Request::LoginByCertificate { user: Vec::new() },
        ] {
            assert!(!allows(Phase::AwaitingProxy, &request), "{request:?}");
        }
    }

    #[test]
    fn header_is_refused_before_login_or_not_at_all() {
        let refused = Request::ProxyRefused(String::new());
        for phase in ALL {
            let may_be =
                matches!(phase, Phase::AwaitingProxy | Phase::AwaitingLogin | Phase::Handshaking);
            assert_eq!(allows(phase, &refused), may_be, "{phase:?}");
        }
    }

    #[test]
    fn nobody_logs_in_twice() {
        let login = || Request::Login {
            user: Vec::new(),
            password: Secret::new(b""),
            method: Method::UserPass,
        };
        for phase in ALL.into_iter().filter(|phase| *phase != Phase::AwaitingLogin) {
            assert!(!allows(phase, &login()), "{phase:?}");
            let refused = Request::AttemptRefused { method: Method::Plain, why: String::new() };
            assert!(!allows(phase, &refused), "{phase:?}");
            let by_certificate = Request::LoginByCertificate { user: Vec::new() };
            assert!(!allows(phase, &by_certificate), "{phase:?}");
        }
    }

    #[test]
    fn nothing_was_removed_but_by_an_update_that_is_done_and_nothing_else_follows_that() {
        for phase in ALL {
            let is_done = phase == Phase::Expunged;
            assert_eq!(allows(phase, &Request::Expunged(Vec::new())), is_done, "{phase:?}");
        }
        assert!(!allows(Phase::Expunged, &Request::Lock));
        assert!(!allows(Phase::Finished, &Request::Lock));
    }

    #[test]
    fn nothing_is_removed_unless_the_mailbox_is_locked_for_update() {
        for phase in ALL.into_iter().filter(|phase| *phase != Phase::Updating) {
            let commit = Request::Commit { deleted: Totals::default(), left: Totals::default() };
            assert!(!allows(phase, &commit), "{phase:?}");
            assert!(!allows(phase, &Request::Delete(Vec::new())), "{phase:?}");
        }
    }
}
