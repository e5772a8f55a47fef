//! Replies of one line (RFC 1939 section 3), with response codes (RFC 2449 section 8, RFC 3206).

use std::io::{self, Write};

use super::Malformed;

/// Why something failed, for programs: what stands in brackets behind `-ERR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// User, password or account (RFC 3206).
    Auth,
    /// The maildrop is locked (RFC 2449).
    InUse,
    /// Too soon after other logins (RFC 2449).
    LoginDelay,
    /// Trouble that may be over soon (RFC 3206).
    SysTemp,
    /// Trouble that somebody has to mend (RFC 3206).
    SysPerm,
}

impl Code {
    fn text(self) -> &'static str {
        match self {
            Self::Auth => "[AUTH]",
            Self::InUse => "[IN-USE]",
            Self::LoginDelay => "[LOGIN-DELAY]",
            Self::SysTemp => "[SYS/TEMP]",
            Self::SysPerm => "[SYS/PERM]",
        }
    }
}

/// Writes `+OK text`.
///
/// # Errors
///
/// Those of `out`.
pub fn ok(out: &mut impl Write, text: &str) -> io::Result<()> {
    write!(out, "+OK {text}\r\n")
}

/// Writes `-ERR text`.
///
/// # Errors
///
/// Those of `out`.
pub fn err(out: &mut impl Write, text: &str) -> io::Result<()> {
    write!(out, "-ERR {text}\r\n")
}

/// Writes `-ERR [code] text`.
///
/// # Errors
///
/// Those of `out`.
pub fn err_with(out: &mut impl Write, code: Code, text: &str) -> io::Result<()> {
    write!(out, "-ERR {} {text}\r\n", code.text())
}

/// Tells the client what is wrong with the line that it sent.
///
/// # Errors
///
/// Those of `out`.
pub fn malformed(out: &mut impl Write, why: Malformed) -> io::Result<()> {
    match why {
        Malformed::Unknown => err(out, "unknown command"),
        Malformed::Nul => err(out, "NUL is not allowed in a command"),
        Malformed::Syntax(form) => write!(out, "-ERR syntax: {form}\r\n"),
        Malformed::NoSuchMessage => err(out, "no such message"),
    }
}
