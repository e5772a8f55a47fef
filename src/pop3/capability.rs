//! CAPA (RFC 2449).

use std::io::{self, Write};

use super::sasl::MECHANISMS;

/// What holds in every state.
const ALWAYS: &str =
    "TOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\nEXPIRE NEVER\r\nUTF8\r\n";

/// What only those who logged in need to know (RFC 2449 section 6.9 leaves the choice).
const IMPLEMENTATION: &str = concat!("IMPLEMENTATION popa3d-", env!("CARGO_PKG_VERSION"), "\r\n");

/// What depends on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offers {
    /// Whether STLS works here and now.
    pub stls: bool,
    /// Whether a password may be sent.
    pub passwords: bool,
}

/// Writes the list that holds before login.
///
/// # Errors
///
/// Those of `out`.
pub fn before_login(offers: Offers, out: &mut impl Write) -> io::Result<()> {
    write!(out, "+OK capabilities follow\r\n{ALWAYS}")?;
    if offers.stls {
        out.write_all(b"STLS\r\n")?;
    }
    if offers.passwords {
        passwords(out)?;
    }
    out.write_all(b".\r\n")
}

/// The list after login. Whoever is there was allowed to send a password.
pub(super) fn after_login(out: &mut impl Write) -> io::Result<()> {
    write!(out, "+OK capabilities follow\r\n{ALWAYS}")?;
    passwords(out)?;
    write!(out, "{IMPLEMENTATION}.\r\n")
}

fn passwords(out: &mut impl Write) -> io::Result<()> {
    write!(out, "USER\r\nSASL {}\r\n", MECHANISMS.join(" "))
}
