//! What a session does to log somebody in.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::login::{self, Denied, LoggedIn};
use super::login_delay::{Attempt, LoginDelays, Turn};
use super::permission::Phase;
use super::session::{Broken, Session};
use super::stop_signal::StopSignal;
use super::tls::Keys;
use crate::channel::{Answer, Method, Refusal, Secret};
use crate::event::{Event, printable};

impl Session<'_> {
    /// Logs in with a password, or by the word of the worker that there is a certificate.
    pub(super) fn log_in(
        &mut self,
        user: &[u8],
        password: Option<Secret>,
        method: Method,
        is_allowed: bool,
    ) -> Result<Phase, Broken> {
        if !is_allowed {
            return Err(Broken::Worker("a login that the settings do not allow".to_owned()));
        }
        self.count_attempt(method)?;
        // PAM modules, and later helpers, need not have them in memory.
        self.keys = Keys::default();
        let refusal = match self.judge(user, password)? {
            Ok(logged_in) => {
                // Before locks are waited for: whoever has proved to be a user need not make room for
                // others.
                self.progress.starter.note_login();
                match self.open_maildrop(logged_in)? {
                    None => return Ok(Phase::Scanning),
                    Some(refusal) => refusal,
                }
            }
            Err(refusal) => refusal,
        };
        self.worker.answer(&Answer::Refused(refusal), None)?;
        Ok(Phase::AwaitingLogin)
    }

    /// There is nothing that PAM could judge: the journal knows of it, as of every attempt that fails.
    pub(super) fn refuse_attempt(&mut self, method: Method, why: &str) -> Result<(), Broken> {
        self.count_attempt(method)?;
        self.log.log(&Event::LoginFailed { why: &reason(why), failures: None });
        Ok(())
    }

    fn count_attempt(&mut self, method: Method) -> Result<(), Broken> {
        if self.attempts >= self.settings.login_attempts.0 {
            return Err(Broken::Worker("more logins than login-attempts".to_owned()));
        }
        self.attempts += 1;
        self.log.method = Some(method);
        Ok(())
    }

    /// Lets PAM judge when it is this attempt's turn. Takes the password, so that it is wiped before a
    /// helper is forked.
    #[expect(clippy::needless_pass_by_value, reason = "dropping it here wipes it")]
    fn judge(
        &mut self,
        user: &[u8],
        password: Option<Secret>,
    ) -> Result<Result<LoggedIn, Refusal>, Broken> {
        let client = self.log.client.map(|(address, _)| address);
        let attempt =
            Attempt { client, user, password: password.as_ref().map_or(&[], Secret::expose) };
        let turn = self.delays(|delays| delays.take_turn(&attempt)).unwrap_or(Turn::Free);
        self.log.login_delay = turn.wait();
        let answer = if let Turn::TooFar(_) = turn {
            // Without its user: looking the name up takes time, and that would tell who there is.
            self.log.log(&Event::LoginDelayed);
            Err(Refusal::Delayed)
        } else {
            self.await_turn()?;
            self.let_signals_end_this();
            let worker = self.worker.channel.as_fd();
            let judged = login::log_in(
                user,
                password.as_ref(),
                self.settings,
                self.log,
                worker,
                self.prepared,
            );
            self.hold_signals();
            self.conclude_attempt(judged, &attempt, turn)?
        };
        self.log.login_delay = None;
        Ok(answer)
    }

    /// Waits for the turn, and holds no lock meanwhile.
    fn await_turn(&mut self) -> Result<(), Broken> {
        let Some(wait) = self.log.login_delay else { return Ok(()) };
        let seconds = wait.as_secs_f32().ceil();
        self.progress.wait(seconds, self.log);
        self.wait_until(Instant::now() + wait)
    }

    /// Remembers and logs what PAM said, and waits until the worker may know it.
    fn conclude_attempt(
        &mut self,
        judged: Result<LoggedIn, Denied>,
        attempt: &Attempt<'_>,
        turn: Turn,
    ) -> Result<Result<LoggedIn, Refusal>, Broken> {
        match judged {
            Ok(logged_in) => {
                if turn != Turn::Free {
                    self.delays(|delays| delays.note_success(attempt));
                }
                self.log.log(&Event::LoginPassed);
                Ok(Ok(logged_in))
            }
            Err(Denied::Credentials { reason, answer_at }) => {
                // Before the wait: attempts on other connections are not to slip in meanwhile.
                let failures = self.delays(|delays| delays.note_failure(attempt));
                self.log.log(&Event::LoginFailed { why: &reason, failures });
                self.log.user = None;
                self.wait_until(answer_at)?;
                Ok(Err(Refusal::Credentials))
            }
            Err(Denied::Impossible(reason)) => {
                self.log.log(&Event::LoginImpossible(&reason));
                self.log.user = None;
                Ok(Err(Refusal::Temporary))
            }
        }
    }

    pub(super) fn wait_until(&self, end: Instant) -> Result<(), Broken> {
        if self.was_stopped {
            return Err(Broken::Stopped);
        }
        wait_until(end, self.worker.channel.as_fd(), self.stop.as_ref())
    }

    /// Uses what is remembered of logins that failed. Where that is out of order everybody can log
    /// in all the same, and the journal says so once.
    fn delays<T>(&mut self, act: impl FnOnce(&LoginDelays) -> io::Result<T>) -> Option<T> {
        match act(self.delays.as_ref()?) {
            Ok(result) => Some(result),
            Err(error) => {
                self.delays = None;
                let text = format!("failed logins delay nobody, {}: {error}", LoginDelays::FILE);
                self.log.log(&Event::ServerFailure(&text));
                None
            }
        }
    }
}

/// Waits for a point in time, or the end of the worker, or a signal.
fn wait_until(
    end: Instant,
    worker: BorrowedFd<'_>,
    stop: Option<&StopSignal>,
) -> Result<(), Broken> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        // Rounded up to whole milliseconds: waking early would spin.
        let left = left.saturating_add(Duration::from_micros(999));
        // Nothing is expected from the worker, but its end is an end.
        let mut ended = vec![PollFd::new(worker, PollFlags::empty())];
        ended.extend(stop.map(|stop| PollFd::new(stop.as_fd(), PollFlags::POLLIN)));
        match poll(&mut ended, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) | Err(nix::Error::EINTR) => {}
            Ok(_) if ended.get(1).and_then(PollFd::any).unwrap_or(false) => {
                return Err(Broken::Stopped);
            }
            Ok(_) => return Err(Broken::ChannelEnded),
            Err(error) => return Err(Broken::host("waiting for a point in time", error)),
        }
    }
}

/// What a worker gives as a reason. For those who look for addresses in the journal, fail2ban for one, what
/// stands between "from" and a colon is a client: one that was taken over is not to name others there.
fn reason(why: &str) -> String {
    printable(why.as_bytes()).replace(':', ";")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Request, ToMonitor, ToWorker, pair};

    #[test]
    fn reason_of_a_worker_names_no_client() {
        let why = "not base64 from 192.0.2.1: \n from 2001:db8::1: x";
        assert_eq!(reason(why), "not base64 from 192.0.2.1; \\n from 2001;db8;;1; x");
    }

    #[test]
    fn worker_that_is_gone_is_not_waited_for() {
        let (monitor, worker): (ToWorker, ToMonitor) = pair().unwrap();
        drop(worker);
        let next_year = Instant::now() + Duration::from_secs(365 * 86_400);
        let waited = wait_until(next_year, monitor.as_fd(), None);
        assert!(matches!(waited, Err(Broken::ChannelEnded)));
    }

    #[test]
    fn worker_that_talks_meanwhile_has_to_wait_as_well() {
        let (monitor, worker): (ToWorker, ToMonitor) = pair().unwrap();
        worker.send(&Request::OffersTls, None).unwrap();
        let end = Instant::now() + Duration::from_millis(20);
        assert!(wait_until(end, monitor.as_fd(), None).is_ok());
        assert!(Instant::now() >= end);
    }
}
