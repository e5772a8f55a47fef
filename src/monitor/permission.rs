//! Which request is allowed when. Anything else ends the session.

use crate::channel::Request;

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nobody is logged in.
    AwaitingLogin,
    /// Logged in; the worker reads the mailbox, which is locked.
    Scanning,
    /// TRANSACTION; the mailbox is not locked.
    MaildropOpen,
    /// UPDATE; the mailbox is locked and the worker says what to remove.
    Updating,
}

/// The table.
pub(super) fn allows(phase: Phase, request: &Request) -> bool {
    use Phase::{AwaitingLogin, MaildropOpen, Scanning, Updating};
    matches!(
        (phase, request),
        (AwaitingLogin, Request::NoLandlock | Request::Login { .. } | Request::End { .. })
            | (Scanning, Request::Remember(_) | Request::Scanned(_) | Request::Unservable(_))
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
    use crate::channel::{Secret, Totals, Trouble};

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
    fn nobody_logs_in_twice() {
        let login = || Request::Login { user: Vec::new(), password: Secret::new(b"") };
        for phase in [Phase::Scanning, Phase::MaildropOpen, Phase::Updating] {
            assert!(!allows(phase, &login()), "{phase:?}");
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
