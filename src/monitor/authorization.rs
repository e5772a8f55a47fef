//! What a session does to log somebody in.

use std::os::fd::AsFd;

use super::login::{self, Denied, LoggedIn};
use super::permission::Phase;
use super::session::{Broken, Session};
use super::tls::Keys;
use crate::channel::{Answer, Method, Refusal, Secret};

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
        if self.attempts >= self.settings.login_attempts.0 {
            return Err(Broken::Worker("more logins than login-attempts".to_owned()));
        }
        self.attempts += 1;
        self.log.method = Some(method);
        // PAM modules, and later helpers, need not have them in memory.
        self.keys = Keys::default();
        let refusal = match self.judge(user, password) {
            Ok(logged_in) => match self.open_maildrop(logged_in)? {
                None => return Ok(Phase::Scanning),
                Some(refusal) => refusal,
            },
            Err(Denied::Credentials) => Refusal::Credentials,
            Err(Denied::Impossible) => Refusal::Temporary,
        };
        self.worker.channel.send(&Answer::Refused(refusal), None)?;
        Ok(Phase::AwaitingLogin)
    }

    /// Takes the password, so that it is wiped before a helper is forked.
    #[expect(clippy::needless_pass_by_value, reason = "dropping it here wipes it")]
    fn judge(&mut self, user: &[u8], password: Option<Secret>) -> Result<LoggedIn, Denied> {
        let worker = self.worker.channel.as_fd();
        login::log_in(user, password.as_ref(), self.settings, self.log, worker)
    }
}
