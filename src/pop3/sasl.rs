//! Logging in with AUTH (RFC 5034): the mechanisms PLAIN (RFC 4616), LOGIN, and EXTERNAL (RFC 4422
//! appendix A).

use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

/// A way to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// Name and password in one response.
    Plain,
    /// Name and password in turn: no standard, and all that some old clients know.
    Login,
    /// By what TLS knows of the client.
    External,
}

/// A response that the client owes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// All of PLAIN.
    Plain,
    /// LOGIN's name.
    Name,
    /// LOGIN's password.
    Password { user: Vec<u8> },
    /// Whom EXTERNAL is to log in: nobody named means whoever the certificate names.
    Identity,
}

/// What a response leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The next response is awaited.
    Challenge(Awaited),
    /// Name and password are there.
    LogIn { user: Vec<u8>, password: Zeroizing<Vec<u8>>, mechanism: Mechanism },
    /// EXTERNAL is to log in this user, or whoever it is.
    Identified(Vec<u8>),
    /// The client does not want to any more.
    Cancelled,
    /// Not what the mechanism allows; what is wrong.
    Refused(&'static str),
    /// As it should be, but nobody can log in by it; why.
    Denied(&'static str),
}

impl Mechanism {
    /// The mechanism with this name, in whatever case.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        let mut all = [Self::Plain, Self::Login, Self::External].into_iter();
        all.find(|mechanism| name.eq_ignore_ascii_case(mechanism.name().as_bytes()))
    }

    /// As the SASL capability and AUTH list it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::External => "EXTERNAL",
        }
    }

    /// Begins with what came along with AUTH.
    pub(super) fn begin(self, initial: Option<&[u8]>) -> Turn {
        let awaited = match self {
            Self::Plain => Awaited::Plain,
            Self::Login => Awaited::Name,
            Self::External => Awaited::Identity,
        };
        match initial {
            None => Turn::Challenge(awaited),
            // An empty response, which without that sign would look like none.
            Some(b"=") => awaited.response(b""),
            Some(initial) => awaited.response(initial),
        }
    }
}

impl Awaited {
    /// Whose response it is.
    pub(super) fn mechanism(&self) -> Mechanism {
        match self {
            Self::Plain => Mechanism::Plain,
            Self::Name | Self::Password { .. } => Mechanism::Login,
            Self::Identity => Mechanism::External,
        }
    }

    /// What the client is asked, in base64.
    pub(super) fn challenge(&self) -> &'static str {
        match self {
            Self::Plain | Self::Identity => "",
            Self::Name => "VXNlcm5hbWU6",            // Username:
            Self::Password { .. } => "UGFzc3dvcmQ6", // Password:
        }
    }

    /// Takes the response, a line without its end.
    pub(super) fn response(self, line: &[u8]) -> Turn {
        if line == b"*" {
            return Turn::Cancelled;
        }
        let mut room = Zeroizing::new(vec![0; line.len()]);
        let Ok(response) = Base64::decode(line, &mut room) else {
            return Turn::Refused("not base64");
        };
        match self {
            Self::Plain => plain(response),
            Self::Identity => Turn::Identified(response.to_vec()),
            Self::Name => Turn::Challenge(Self::Password { user: response.to_vec() }),
            Self::Password { user } => Turn::LogIn {
                user,
                password: Zeroizing::new(response.to_vec()),
                mechanism: Mechanism::Login,
            },
        }
    }
}

/// PLAIN's only message: who to be, NUL, who one is, NUL, password.
fn plain(message: &[u8]) -> Turn {
    let mut parts = message.split(|octet| *octet == 0);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(wanted), Some(user), Some(_), None) if !wanted.is_empty() && wanted != user => {
            Turn::Denied("nobody logs in as somebody else here")
        }
        (Some(_), Some(user), Some(password), None) => Turn::LogIn {
            user: user.to_vec(),
            password: Zeroizing::new(password.to_vec()),
            mechanism: Mechanism::Plain,
        },
        _ => Turn::Refused("not a message of PLAIN"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain_with(message: &[u8]) -> Turn {
        let mut room = [0; 64];
        Mechanism::Plain.begin(Some(Base64::encode(message, &mut room).unwrap().as_bytes()))
    }

    fn log_in(user: &[u8], password: &[u8], mechanism: Mechanism) -> Turn {
        Turn::LogIn { user: user.to_vec(), password: password.to_vec().into(), mechanism }
    }

    #[test]
    fn plain_names_user_and_password() {
        let expected = || log_in(b"alice", b"a b", Mechanism::Plain);
        assert_eq!(plain_with(b"\0alice\0a b"), expected());
        assert_eq!(plain_with(b"alice\0alice\0a b"), expected());
        assert_eq!(Mechanism::Plain.begin(None), Turn::Challenge(Awaited::Plain));
    }

    #[test]
    fn plain_for_somebody_else_is_refused() {
        assert!(matches!(plain_with(b"bob\0alice\0x"), Turn::Denied(_)));
    }

    #[test]
    fn message_that_is_not_plains_is_refused() {
        for message in [&b""[..], b"alice", b"alice\0x", b"\0alice\0x\0y", b"\0\0\0\0"] {
            assert!(matches!(plain_with(message), Turn::Refused(_)), "{message:?}");
        }
        assert!(matches!(Mechanism::Plain.begin(Some(b"=")), Turn::Refused(_)));
    }

    #[test]
    fn bad_base64_is_refused() {
        for line in [&b"AGFsaWNl!"[..], b"AGE", b"A", b"====", b"AGFs aWNl", b"\xff\xff\xff\xff"] {
            assert_eq!(Awaited::Plain.response(line), Turn::Refused("not base64"), "{line:?}");
        }
    }

    #[test]
    fn login_asks_for_name_and_password_in_turn() {
        let Turn::Challenge(name) = Mechanism::Login.begin(None) else { panic!() };
        let mut room = [0; 64];
        assert_eq!(Base64::decode(name.challenge(), &mut room).unwrap(), b"Username:");
        let Turn::Challenge(password) = name.response(b"YWxpY2U=") else { panic!() };
        assert_eq!(Base64::decode(password.challenge(), &mut room).unwrap(), b"Password:");
        assert_eq!(password.response(b"eA=="), log_in(b"alice", b"x", Mechanism::Login));
        assert_eq!(
            Mechanism::Login.begin(Some(b"YWxpY2U=")),
            Turn::Challenge(Awaited::Password { user: b"alice".to_vec() })
        );
    }

    #[test]
    fn star_cancels_whatever_is_awaited() {
        let password = Awaited::Password { user: Vec::new() };
        for awaited in [Awaited::Plain, Awaited::Name, password, Awaited::Identity] {
            assert_eq!(awaited.response(b"*"), Turn::Cancelled);
        }
    }

    #[test]
    fn external_may_name_somebody() {
        let begin = |initial| Mechanism::External.begin(initial);
        assert_eq!(begin(Some(b"=")), Turn::Identified(Vec::new()));
        assert_eq!(begin(Some(b"YWxpY2U=")), Turn::Identified(b"alice".to_vec()));
        assert_eq!(begin(None), Turn::Challenge(Awaited::Identity));
    }

    #[test]
    fn names_are_case_insensitive() {
        assert_eq!(Mechanism::named(b"plain"), Some(Mechanism::Plain));
        assert_eq!(Mechanism::named(b"Login"), Some(Mechanism::Login));
        assert_eq!(Mechanism::named(b"CRAM-MD5"), None);
    }
}
