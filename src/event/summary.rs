//! The summary of a session, the last that the journal hears of it.

use std::fmt;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::Session;
use crate::channel::Totals;

/// What a session came to, as far as it has come.
#[derive(Debug, Clone)]
pub struct Summary {
    /// How it ended. Before it did, a signal is what can end it.
    pub conclusion: Conclusion,
    /// When it began.
    pub began: Instant,
    /// Messages that RETR sent in full; known when the worker lived to say so.
    pub retrieved: Option<Totals>,
    /// Once the maildrop was open: what UPDATE removed, and what is left.
    pub maildrop: Option<(Totals, Totals)>,
    /// How long UPDATE took, if there was one.
    pub update: Option<Duration>,
    /// How long others kept the maildrop locked while this session wanted it; `None` when it never did.
    pub lock_wait: Option<Duration>,
}

/// How a session ended: POPA3D_ENDING.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// QUIT, and all that it wanted is done.
    Quit,
    /// QUIT, and not all that was marked could be removed.
    UpdateFailed,
    /// By the client or a time-out, and nobody had tried to log in.
    NoLoginAttempt,
    /// The client closed or broke the connection.
    Disconnected,
    /// The client was silent, or not logged in, for too long.
    TimedOut,
    /// Too many logins were refused.
    LoginAttemptsUsedUp,
    /// TLS could not be had.
    TlsFailed,
    /// The PROXY header was none that can be used, or none was allowed.
    ProxyRefused,
    /// The client that a proxy named had as many sessions as it may have.
    NotAdmitted,
    /// A signal told it to end.
    Stopped,
    /// PAM did not answer in time.
    PamHangs,
    /// The worker died, or asked for what it may not.
    WorkerFailed,
    /// This host could not serve it.
    ServerFailure,
    /// The connection had to be closed in the middle of something.
    BrokenOff,
}

impl Conclusion {
    /// The word for POPA3D_ENDING.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::UpdateFailed => "update-failed",
            Self::NoLoginAttempt => "no-login-attempt",
            Self::Disconnected => "disconnected",
            Self::TimedOut => "timed-out",
            Self::LoginAttemptsUsedUp => "login-attempts-used-up",
            Self::TlsFailed => "tls-failed",
            Self::ProxyRefused => "proxy-refused",
            Self::NotAdmitted => "not-admitted",
            Self::Stopped => "stopped",
            Self::PamHangs => "pam-hangs",
            Self::WorkerFailed => "worker-failed",
            Self::ServerFailure => "server-failure",
            Self::BrokenOff => "broken-off",
        }
    }

    /// The same in the words of 1.0.3, where it had some.
    fn text(self) -> &'static str {
        match self {
            Self::Quit | Self::UpdateFailed => "Session ended",
            Self::NoLoginAttempt => "Didn't attempt authentication",
            Self::Disconnected => "Premature disconnect",
            Self::TimedOut => "Connection timed out",
            Self::LoginAttemptsUsedUp => "Too many refused logins, connection closed",
            Self::TlsFailed => "Session ended without TLS",
            Self::ProxyRefused | Self::NotAdmitted => "Client turned away",
            Self::Stopped => "Session ended by a signal",
            Self::PamHangs | Self::WorkerFailed | Self::ServerFailure | Self::BrokenOff => {
                "Session ended by a failure"
            }
        }
    }
}

impl Default for Summary {
    fn default() -> Self {
        Self {
            conclusion: Conclusion::Stopped,
            began: Instant::now(),
            retrieved: None,
            maildrop: None,
            update: None,
            lock_wait: None,
        }
    }
}

impl Summary {
    /// Adds to [`Summary::lock_wait`].
    pub fn add_lock_wait(&mut self, wait: Duration) {
        // One of them may be a helper's to say.
        let all = self.lock_wait.get_or_insert_default();
        *all = all.saturating_add(wait);
    }

    /// The line of the journal.
    pub(super) fn write(&self, session: &Session, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_quit = matches!(self.conclusion, Conclusion::Quit | Conclusion::UpdateFailed);
        let removal = self.maildrop.filter(|(deleted, _)| has_quit || deleted.messages > 0);
        match removal {
            Some(_) if has_quit => {}
            Some(_) => write!(f, "{}, ", self.conclusion.text())?,
            None => f.write_str(self.conclusion.text())?,
        }
        if let Some((deleted, left)) = removal {
            write!(
                f,
                "{} ({}) deleted, {} ({}) left",
                deleted.messages, deleted.octets, left.messages, left.octets
            )?;
        }
        f.write_str("; ")?;
        if let Some(user) = &session.user {
            write!(f, "{user} from ")?;
        }
        f.write_str(&session.client_text())?;
        if let Some(retrieved) = self.retrieved {
            write!(f, ", {} ({}) retrieved", retrieved.messages, retrieved.octets)?;
        }
        write!(f, ", {:.1} s", self.began.elapsed().as_secs_f32())
    }
}

/// The processor time of this process and of its children that have ended and been waited for.
pub(super) fn processor_time() -> Option<Duration> {
    let times = [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN].map(|who| {
        let usage = getrusage(who).ok()?;
        let total = usage.user_time() + usage.system_time();
        u64::try_from(total.num_microseconds()).ok().map(Duration::from_micros)
    });
    let [own, childrens] = times;
    Some(own? + childrens?)
}

/// As a field has it; half a million years are enough.
pub(super) fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line of a session from this host, up to its last figure, which differs.
    fn line(conclusion: Conclusion, maildrop: Option<(u32, u32)>) -> String {
        struct Line(Session);
        impl fmt::Display for Line {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.summary.write(&self.0, f)
            }
        }
        let of = |messages: u32| Totals { messages, octets: u64::from(messages) * 10 };
        let maildrop = maildrop.map(|(deleted, left)| (of(deleted), of(left)));
        let retrieved = maildrop.map(|_| of(1));
        let user = maildrop.map(|_| "alice".to_owned());
        let summary = Summary { conclusion, maildrop, retrieved, ..Summary::default() };
        let line = Line(Session { user, summary, ..Session::default() }).to_string();
        line.rsplit_once(", ").unwrap().0.to_owned()
    }

    #[test]
    fn quit_tells_what_it_removed_and_left_even_when_that_is_nothing() {
        for (conclusion, deleted) in [(Conclusion::Quit, 1), (Conclusion::UpdateFailed, 0)] {
            let line = line(conclusion, Some((deleted, 2)));
            let expected = format!(
                "{deleted} ({}) deleted, 2 (20) left; alice from this host, 1 (10) retrieved",
                deleted * 10
            );
            assert_eq!(line, expected);
        }
    }

    #[test]
    fn another_ending_has_its_own_words_and_tells_of_what_was_removed_all_the_same() {
        assert_eq!(
            line(Conclusion::NoLoginAttempt, None),
            "Didn't attempt authentication; this host"
        );
        assert_eq!(
            line(Conclusion::Disconnected, Some((0, 2))),
            "Premature disconnect; alice from this host, 1 (10) retrieved"
        );
        assert_eq!(
            line(Conclusion::Disconnected, Some((1, 2))),
            "Premature disconnect, 1 (10) deleted, 2 (20) left; alice from this host, 1 (10) retrieved"
        );
    }

    #[test]
    fn waits_of_any_length_can_be_added() {
        let mut summary = Summary::default();
        summary.add_lock_wait(Duration::from_secs(1));
        summary.add_lock_wait(Duration::MAX);
        assert_eq!(summary.lock_wait, Some(Duration::MAX));
    }

    #[test]
    fn processor_time_counts_what_this_process_does() {
        let before = processor_time().unwrap();
        let mut number = 1_u64;
        while processor_time().unwrap() == before {
            number = std::hint::black_box(number.wrapping_mul(3));
        }
        assert!(processor_time().unwrap() > before);
    }
}
