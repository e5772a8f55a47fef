//! CAPA (RFC 2449).

use std::io::{self, Write};

use super::sasl::Mechanism;

/// What holds in every state.
const ALWAYS: &str =
    "TOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\nEXPIRE NEVER\r\nUTF8\r\n";

/// What only those who logged in need to know (RFC 2449 section 6.9 leaves the choice).
const IMPLEMENTATION: &str = concat!("IMPLEMENTATION popa3d-", env!("CARGO_PKG_VERSION"), "\r\n");

/// What depends on the connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offers {
    /// Whether a password may be sent.
    pub passwords: bool,
    /// Whether the client showed a certificate that names a user.
    pub external: bool,
}

impl Offers {
    /// What AUTH takes.
    pub(super) fn mechanisms(self) -> Vec<&'static str> {
        let passwords = [Mechanism::Plain, Mechanism::Login].into_iter().filter(|_| self.passwords);
        let external = self.external.then_some(Mechanism::External);
        passwords.chain(external).map(Mechanism::name).collect()
    }

    /// What holds in both states.
    fn write(self, out: &mut impl Write) -> io::Result<()> {
        write!(out, "+OK capabilities follow\r\n{ALWAYS}")?;
        if self.passwords {
            out.write_all(b"USER\r\n")?;
        }
        let mechanisms = self.mechanisms();
        if !mechanisms.is_empty() {
            write!(out, "SASL {}\r\n", mechanisms.join(" "))?;
        }
        Ok(())
    }
}

/// Writes the list that holds before login, with STLS where that works here and now.
///
/// # Errors
///
/// Those of `out`.
pub fn before_login(offers: Offers, stls: bool, out: &mut impl Write) -> io::Result<()> {
    offers.write(out)?;
    out.write_all(if stls { b"STLS\r\n.\r\n" } else { b".\r\n" })
}

/// The list after login.
pub(super) fn after_login(offers: Offers, out: &mut impl Write) -> io::Result<()> {
    offers.write(out)?;
    write!(out, "{IMPLEMENTATION}.\r\n")
}
