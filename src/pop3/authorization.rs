//! The AUTHORIZATION state (RFC 1939 section 4).

use std::io::{self, Write};

use super::{Command, capability, reply};

/// Longest user name, in octets: room for `user@some.long.domain`.
const MAX_USER: usize = 255;

/// A client that has not logged in.
#[derive(Debug, Default)]
pub struct Authorization {
    user: Option<Vec<u8>>,
}

/// What a command in AUTHORIZATION leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The reply is written; nothing else to do.
    Replied,
    /// This user with this password wants to log in.
    LogIn {
        /// What came with USER.
        user: Vec<u8>,
        /// What came with PASS.
        password: &'a [u8],
    },
    /// The client says goodbye; the reply is written.
    Quit,
}

impl Authorization {
    /// Answers `command`.
    ///
    /// PASS without USER before it, and each try after a failed one, begins with USER again.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn on<'a>(&mut self, command: Command<'a>, out: &mut impl Write) -> io::Result<Step<'a>> {
        match command {
            Command::Capa => capability::before_login(out)?,
            Command::User(name) if name.len() > MAX_USER => {
                self.user = None;
                reply::err(out, "user name too long")?;
            }
            Command::User(name) => {
                self.user = Some(name.to_vec());
                reply::ok(out, "now send PASS")?;
            }
            Command::Pass(password) => match self.user.take() {
                Some(user) => return Ok(Step::LogIn { user, password }),
                None => reply::err(out, "send USER first")?,
            },
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pop3::parse;

    fn replies(lines: &[&str]) -> String {
        let mut state = Authorization::default();
        let mut out = Vec::new();
        for line in lines {
            let step = state.on(parse(line.as_bytes()).unwrap(), &mut out).unwrap();
            assert_eq!(step, Step::Replied, "{line}");
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn pass_without_user_is_refused() {
        assert_eq!(replies(&["PASS x"]), "-ERR send USER first\r\n");
    }

    #[test]
    fn pass_takes_the_user_away_so_that_the_next_try_names_one() {
        let mut state = Authorization::default();
        let mut out = Vec::new();
        state.on(Command::User(b"alice"), &mut out).unwrap();
        let step = state.on(Command::Pass(b"x"), &mut out).unwrap();
        assert_eq!(step, Step::LogIn { user: b"alice".to_vec(), password: b"x" });
        assert_eq!(state.on(Command::Pass(b"y"), &mut out).unwrap(), Step::Replied);
    }

    #[test]
    fn overlong_user_is_refused_and_forgets_the_one_before() {
        let long = format!("USER {}", "x".repeat(MAX_USER + 1));
        let text = replies(&["USER alice", &long, "PASS x"]);
        assert!(text.ends_with("-ERR user name too long\r\n-ERR send USER first\r\n"), "{text}");
    }

    #[test]
    fn commands_of_the_transaction_state_need_a_login() {
        for line in ["STAT", "LIST", "RETR 1", "DELE 1", "NOOP", "LAST", "RSET", "TOP 1 1"] {
            assert_eq!(replies(&[line]), "-ERR log in first\r\n", "{line}");
        }
    }
}
