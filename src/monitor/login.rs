//! Who may log in: PAM's judgement, and the rules that hold whatever PAM says.

use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;
use std::time::Instant;

use super::account::{self, Account};
use super::pam_stack::NotStarted;
use super::prepared::Prepared;
use super::watchdog::Watchdog;
use crate::channel::Secret;
use crate::event::{Event, Session, printable};
use crate::ffi::pam::{Failure, Password, Transaction};
use crate::settings::Settings;

const TERMINAL: &CStr = c"popa3d";

/// A user whose PAM session is open.
pub(super) struct LoggedIn {
    pub(super) account: Account,
    pam: Transaction,
}

/// Why there is no session.
pub(super) enum Denied {
    /// User or password or account; all of them alike for the client.
    Credentials {
        /// For the journal.
        reason: String,
        /// When the client may be told.
        answer_at: Instant,
    },
    /// This host could not find out, for this reason.
    Impossible(String),
}

/// Lets PAM judge `user` and `password` and opens the PAM session. Who comes by a certificate has
/// no password; PAM judges the account then.
///
/// A refusal takes as long for an unknown user, a wrong password, root and a locked account: PAM
/// runs for each of them, and the answer has to wait for the same time.
pub(super) fn log_in(
    user: &[u8],
    password: Option<&Secret>,
    settings: &Settings,
    log: &mut Session,
    worker: BorrowedFd<'_>,
    prepared: &mut Prepared,
) -> Result<LoggedIn, Denied> {
    let asked = Instant::now();
    let mut delay = settings.failure_delay.0;
    let result = {
        let watchdog = Watchdog::start(settings.pam_timeout.0, log, worker)
            .map_err(|error| Denied::Impossible(error.to_string()))?;
        let mut attempt = Attempt { log, delay: &mut delay, watchdog: &watchdog, prepared };
        attempt.run(user, password)
    };
    result.map_err(|refused| match refused {
        Refused::ForReason(reason) => Denied::Credentials { reason, answer_at: asked + delay },
        Refused::Impossible(reason) => Denied::Impossible(reason),
    })
}

impl LoggedIn {
    /// Closes the PAM session and takes the credentials back.
    pub(super) fn log_out(mut self, settings: &Settings, log: &Session, worker: BorrowedFd<'_>) {
        let _watchdog = Watchdog::start(settings.pam_timeout.0, log, worker);
        let closed = self.pam.close_session();
        let deleted = self.pam.delete_credentials();
        for failure in [closed, deleted].into_iter().filter_map(Result::err) {
            log.log(&Event::PamCloseFailed(&failure.to_string()));
        }
    }
}

enum Refused {
    ForReason(String),
    Impossible(String),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        if failure.is_refusal() {
            Self::ForReason(failure.to_string())
        } else {
            Self::Impossible(format!(
                "{failure}; see /etc/pam.d/popa3d and what libpam logged before this"
            ))
        }
    }
}

impl From<NotStarted> for Refused {
    fn from(why: NotStarted) -> Self {
        match why {
            NotStarted::Failed(failure) => failure.into(),
            NotStarted::NoService | NotStarted::Edited => Self::Impossible(why.to_string()),
        }
    }
}

/// What shows that a client is who it says.
enum Proof {
    Password(Password),
    /// TLS has looked at it.
    Certificate,
}

struct Attempt<'a> {
    log: &'a mut Session,
    delay: &'a mut std::time::Duration,
    watchdog: &'a Watchdog,
    prepared: &'a mut Prepared,
}

impl Attempt<'_> {
    fn run(&mut self, user: &[u8], password: Option<&Secret>) -> Result<LoggedIn, Refused> {
        let asked = match CString::new(user) {
            Ok(name) if account::is_name(user) => name,
            Ok(_) | Err(_) => return Err(Refused::ForReason("not a user name".to_owned())),
        };
        let name_service = |error: std::io::Error| {
            Refused::Impossible(format!("name service, looking for the user: {error}"))
        };
        let known = account::find(&asked).map_err(name_service)?;
        if known.is_some() {
            self.log.user = Some(printable(user));
            self.watchdog.name(self.log);
        }
        let is_root = known.as_ref().is_some_and(|account| account.uid.is_root());
        let (proof, forbidden) = match password.map(Secret::expose) {
            _ if is_root => (None, Some("root does not get mail here")),
            None => (Some(Proof::Certificate), None),
            Some([]) => (None, Some("empty password")),
            Some(octets) => match Password::new(octets) {
                Some(password) => (Some(Proof::Password(password)), None),
                None => (None, Some("password that PAM cannot take")),
            },
        };
        // PAM runs in any case, so that every refusal takes its way and its time.
        let proof = proof
            .or_else(|| impossible_password().map(Proof::Password))
            .ok_or_else(|| Refused::Impossible("the kernel has no random numbers".to_owned()))?;
        let mut pam = self.prepared.transaction()?;
        pam.set_user(&asked)?;
        let judged = self.judge(&mut pam, proof);
        *self.delay = (*self.delay).max(pam.wanted_delay());
        for message in pam.take_messages() {
            self.log.log(&Event::PamMessage(&printable(message.as_bytes())));
        }
        match forbidden {
            Some(rule) => return Err(Refused::ForReason(rule.to_owned())),
            None => judged?,
        }
        let served = pam.user().unwrap_or(asked);
        let account = match known {
            Some(account) if account.name.as_bytes() == served.to_bytes() => Some(account),
            // PAM settled on another name, or made the account just now.
            Some(_) | None => account::find(&served).map_err(name_service)?,
        };
        let account = account.ok_or_else(|| {
            let name = printable(served.to_bytes());
            Refused::ForReason(format!("the name service does not know the user {name:?}"))
        })?;
        if account.uid.is_root() {
            return Err(Refused::ForReason("root does not get mail here".to_owned()));
        }
        self.log.user = Some(printable(account.name.as_bytes()));
        pam.establish_credentials()?;
        if let Err(failure) = pam.open_session() {
            let _ = pam.delete_credentials();
            return Err(failure.into());
        }
        Ok(LoggedIn { account, pam })
    }

    fn judge(&mut self, pam: &mut Transaction, proof: Proof) -> Result<(), Failure> {
        if let Some((address, _)) = self.log.client {
            if let Ok(host) = CString::new(address.to_string()) {
                pam.set_remote_host(&host)?;
            }
        }
        pam.set_terminal(TERMINAL)?;
        if let Proof::Password(password) = proof {
            pam.authenticate(password)?;
        }
        pam.check_account()
    }
}

/// A password that nobody has: random, and with an octet that nobody can type.
fn impossible_password() -> Option<Password> {
    let text = format!("\u{7}{:016x}{:016x}", getrandom::u64().ok()?, getrandom::u64().ok()?);
    Password::new(text.as_bytes())
}
