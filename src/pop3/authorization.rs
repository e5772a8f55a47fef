//! The AUTHORIZATION state (RFC 1939 section 4).

use std::io::{self, Write};

use zeroize::Zeroizing;

use super::Command;
use super::capability::Offers;
use super::reply::{self, Code};
use super::sasl::{Awaited, Mechanism, Turn};

/// Longest user name, in octets: room for `user@some.long.domain`.
const MAX_USER: usize = 255;

const USER_TOO_LONG: &str = "user name too long";

/// A client that has not logged in.
#[derive(Debug, Default)]
pub struct Authorization {
    /// What came with USER.
    user: Option<Vec<u8>>,
    /// In the middle of AUTH: the response that comes next.
    awaited: Option<Awaited>,
    /// Whether passwords may be sent over this connection.
    takes_passwords: bool,
    /// The user that the client's certificate names.
    certified: Option<String>,
}

/// What a line in AUTHORIZATION leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The reply is written; nothing else to do.
    Replied,
    /// The client wants to know what there is.
    ListCapabilities,
    /// The client wants TLS.
    StartTls,
    /// No password is wanted here. The reply is to say so, and what to do: that depends on what the
    /// server has. It has no response code: nothing is wrong with the credentials (RFC 3206),
    /// and a client would ask its user for others.
    RefusePassword,
    /// An AUTH that was no attempt to guess a password and yet counts for one; the reply is
    /// written.
    Failed {
        /// The mechanism.
        mechanism: Mechanism,
        /// What was wrong, for the journal too.
        why: &'static str,
    },
    /// This user with this password wants to log in.
    LogIn {
        /// Who, as the client says.
        user: Vec<u8>,
        /// The password.
        password: Zeroizing<Vec<u8>>,
        /// AUTH's mechanism; `None` for USER and PASS.
        mechanism: Option<Mechanism>,
    },
    /// This user, whom the certificate names, wants to log in.
    LogInCertified {
        /// Who.
        user: String,
    },
    /// The client says goodbye; the reply is written.
    Quit,
}

impl Authorization {
    /// The beginning, on a connection that passwords may be sent over, or may not, by a client
    /// whose certificate names the user `certified`.
    #[must_use]
    pub fn new(takes_passwords: bool, certified: Option<String>) -> Self {
        Self { takes_passwords, certified, ..Self::default() }
    }

    /// What there is on this connection.
    #[must_use]
    pub fn offers(&self) -> Offers {
        Offers { passwords: self.takes_passwords, external: self.certified.is_some() }
    }

    /// Whether the next line is a response within AUTH, and not a command.
    #[must_use]
    pub fn awaits_response(&self) -> bool {
        self.awaited.is_some()
    }

    /// Takes a response within AUTH; `None` for one that was too long.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn on_response(&mut self, line: Option<&[u8]>, out: &mut impl Write) -> io::Result<Step> {
        let Some(awaited) = self.awaited.take() else { return Ok(Step::Replied) };
        let mechanism = awaited.mechanism();
        let turn = match line {
            Some(line) => awaited.response(line),
            None => Turn::Refused("response too long"),
        };
        self.turn(mechanism, turn, out)
    }

    /// Answers `command`.
    ///
    /// PASS without USER before it, and each try after a failed one, begins with USER again.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn on(&mut self, command: Command<'_>, out: &mut impl Write) -> io::Result<Step> {
        match command {
            Command::Capa => return Ok(Step::ListCapabilities),
            Command::Stls => return Ok(Step::StartTls),
            Command::User(_) | Command::Pass(_) if !self.takes_passwords => {
                return Ok(self.refuse_password());
            }
            Command::User(name) if name.len() > MAX_USER => {
                self.user = None;
                reply::err_with(out, Code::Auth, USER_TOO_LONG)?;
            }
            Command::User(name) => {
                self.user = Some(name.to_vec());
                reply::ok(out, "now send PASS")?;
            }
            Command::Pass(password) => match self.user.take() {
                Some(user) => {
                    let password = Zeroizing::new(password.to_vec());
                    return Ok(Step::LogIn { user, password, mechanism: None });
                }
                None => reply::err(out, "send USER first")?,
            },
            Command::Auth(None, _) => {
                reply::ok(out, "mechanisms follow")?;
                for name in self.offers().mechanisms() {
                    write!(out, "{name}\r\n")?;
                }
                out.write_all(b".\r\n")?;
            }
            Command::Auth(Some(name), initial) => {
                self.user = None;
                match Mechanism::named(name) {
                    Some(Mechanism::External) if self.certified.is_none() => {
                        reply::err(out, "no certificate that names a user")?;
                    }
                    Some(Mechanism::Plain | Mechanism::Login) if !self.takes_passwords => {
                        return Ok(self.refuse_password());
                    }
                    Some(mechanism) => return self.turn(mechanism, mechanism.begin(initial), out),
                    None => reply::err(out, "unknown mechanism")?,
                }
            }
            // Messages go out as they are in either mode, and mailboxes hold what they hold.
            Command::Utf8 => reply::ok(out, "UTF-8 it is")?,
            Command::Quit => {
                reply::ok(out, "goodbye")?;
                return Ok(Step::Quit);
            }
            Command::Dele(_)
            | Command::Last
            | Command::List(_)
            | Command::Noop
            | Command::Retr(_)
            | Command::Rset
            | Command::Stat
            | Command::Top(..)
            | Command::Uidl(_) => reply::err(out, "log in first")?,
        }
        Ok(Step::Replied)
    }

    fn refuse_password(&mut self) -> Step {
        self.user = None;
        Step::RefusePassword
    }

    fn turn(&mut self, mechanism: Mechanism, turn: Turn, out: &mut impl Write) -> io::Result<Step> {
        let denied = |why, out| {
            reply::err_with(out, Code::Auth, why)?;
            Ok(Step::Failed { mechanism, why })
        };
        match turn {
            Turn::Challenge(awaited) => {
                write!(out, "+ {}\r\n", awaited.challenge())?;
                self.awaited = Some(awaited);
            }
            Turn::LogIn { user, .. } if user.len() > MAX_USER => return denied(USER_TOO_LONG, out),
            Turn::LogIn { user, password, mechanism } => {
                return Ok(Step::LogIn { user, password, mechanism: Some(mechanism) });
            }
            Turn::Identified(wanted) => match &self.certified {
                Some(user) if wanted.is_empty() || wanted == user.as_bytes() => {
                    return Ok(Step::LogInCertified { user: user.clone() });
                }
                Some(_) | None => return denied("the certificate names somebody else", out),
            },
            Turn::Denied(why) => return denied(why, out),
            Turn::Cancelled => reply::err(out, "cancelled")?,
            Turn::Refused(why) => {
                reply::err(out, why)?;
                return Ok(Step::Failed { mechanism, why });
            }
        }
        Ok(Step::Replied)
    }
}

#[cfg(test)]
mod tests {
    use base64ct::{Base64, Encoding};

    use super::*;
    use crate::pop3::parse;

    fn replies(lines: &[&str]) -> String {
        let mut state = Authorization::new(true, None);
        let mut out = Vec::new();
        for line in lines {
            let step = state.on(parse(line.as_bytes()).unwrap(), &mut out).unwrap();
            assert_eq!(step, Step::Replied, "{line}");
        }
        String::from_utf8(out).unwrap()
    }

    fn log_in(mechanism: Option<Mechanism>) -> Step {
        Step::LogIn { user: b"alice".to_vec(), password: b"x".to_vec().into(), mechanism }
    }

    #[test]
    fn pass_without_user_is_refused() {
        assert_eq!(replies(&["PASS x"]), "-ERR send USER first\r\n");
    }

    #[test]
    fn pass_takes_the_user_away_so_that_the_next_try_names_one() {
        let mut state = Authorization::new(true, None);
        let mut out = Vec::new();
        state.on(Command::User(b"alice"), &mut out).unwrap();
        let step = state.on(Command::Pass(b"x"), &mut out).unwrap();
        assert_eq!(step, log_in(None));
        assert_eq!(state.on(Command::Pass(b"y"), &mut out).unwrap(), Step::Replied);
    }

    #[test]
    fn overlong_user_is_refused_and_forgets_the_one_before() {
        let long = format!("USER {}", "x".repeat(MAX_USER + 1));
        let text = replies(&["USER alice", &long, "PASS x"]);
        assert!(
            text.ends_with("-ERR [AUTH] user name too long\r\n-ERR send USER first\r\n"),
            "{text}"
        );
    }

    #[test]
    fn commands_of_the_transaction_state_need_a_login() {
        for line in ["STAT", "LIST", "RETR 1", "DELE 1", "NOOP", "LAST", "RSET", "TOP 1 1"] {
            assert_eq!(replies(&[line]), "-ERR log in first\r\n", "{line}");
        }
    }

    #[test]
    fn no_password_is_taken_where_none_may_be_sent() {
        let mut state = Authorization::new(false, None);
        let mut out = Vec::new();
        for line in ["USER alice", "PASS x", "AUTH PLAIN AGFsaWNlAHg=", "AUTH LOGIN"] {
            let step = state.on(parse(line.as_bytes()).unwrap(), &mut out).unwrap();
            assert_eq!(step, Step::RefusePassword, "{line}");
            assert!(!state.awaits_response(), "{line}");
        }
        assert_eq!(out, b"");
    }

    #[test]
    fn auth_takes_an_initial_response_or_asks() {
        let mut state = Authorization::new(true, None);
        let mut out = Vec::new();
        let step = state.on(parse(b"AUTH PLAIN AGFsaWNlAHg=").unwrap(), &mut out).unwrap();
        assert_eq!(step, log_in(Some(Mechanism::Plain)));
        let step = state.on(parse(b"AUTH PLAIN").unwrap(), &mut out).unwrap();
        assert_eq!((step, out.as_slice()), (Step::Replied, &b"+ \r\n"[..]));
        assert!(state.awaits_response());
        let step = state.on_response(Some(b"AGFsaWNlAHg="), &mut out).unwrap();
        assert_eq!(step, log_in(Some(Mechanism::Plain)));
        assert!(!state.awaits_response());
    }

    #[test]
    fn auth_that_goes_wrong_counts_and_one_that_is_cancelled_does_not() {
        let failed = |why| Step::Failed { mechanism: Mechanism::Login, why };
        for (response, step) in [
            (Some(&b"*"[..]), Step::Replied),
            (Some(b"!"), failed("not base64")),
            (None, failed("response too long")),
        ] {
            let mut state = Authorization::new(true, None);
            let mut out = Vec::new();
            state.on(Command::Auth(Some(b"LOGIN"), None), &mut out).unwrap();
            out.clear();
            assert_eq!(state.on_response(response, &mut out).unwrap(), step);
            assert!(out.starts_with(b"-ERR "));
            assert!(!state.awaits_response());
        }
    }

    #[test]
    fn what_is_wrong_with_name_or_password_has_its_code_and_what_cannot_be_read_has_none() {
        let mut room = [0; 1024];
        let mut encoded =
            |message: &str| Base64::encode(message.as_bytes(), &mut room).unwrap().to_owned();
        let long = "x".repeat(MAX_USER + 1);
        for (response, code) in [
            (encoded("bob\0alice\0x"), "[AUTH] "),
            (encoded(&format!("\0{long}\0x")), "[AUTH] "),
            (encoded("alice"), "not a message"),
            ("!".to_owned(), "not base64"),
        ] {
            let mut out = Vec::new();
            let line = format!("AUTH PLAIN {response}");
            let mut state = Authorization::new(true, None);
            let step = state.on(parse(line.as_bytes()).unwrap(), &mut out).unwrap();
            assert!(matches!(step, Step::Failed { .. }), "{step:?}");
            assert!(out.starts_with(format!("-ERR {code}").as_bytes()), "{response}");
        }
    }

    #[test]
    fn external_logs_in_whom_the_certificate_names_and_nobody_else() {
        let mut state = Authorization::new(false, Some("alice".to_owned()));
        let mut out = Vec::new();
        for line in ["AUTH EXTERNAL =", "auth external YWxpY2U="] {
            let step = state.on(parse(line.as_bytes()).unwrap(), &mut out).unwrap();
            assert_eq!(step, Step::LogInCertified { user: "alice".to_owned() }, "{line}");
        }
        let step = state.on(parse(b"AUTH EXTERNAL Ym9i").unwrap(), &mut out).unwrap();
        assert!(matches!(step, Step::Failed { mechanism: Mechanism::External, .. }), "{step:?}");
        assert_eq!(replies(&["AUTH EXTERNAL ="]), "-ERR no certificate that names a user\r\n");
    }

    #[test]
    fn auth_forgets_the_user_before_it() {
        assert!(replies(&["USER bob", "AUTH X", "PASS x"]).ends_with("-ERR send USER first\r\n"));
    }
}
