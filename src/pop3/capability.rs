//! CAPA (RFC 2449).

use std::io::{self, Write};

/// What holds in both states.
const ALWAYS: &str =
    "TOP\r\nUIDL\r\nUSER\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\nEXPIRE NEVER\r\n";

/// What only those who logged in need to know (RFC 2449 section 6.9 leaves the choice).
const IMPLEMENTATION: &str = concat!("IMPLEMENTATION popa3d-", env!("CARGO_PKG_VERSION"), "\r\n");

/// The list before login.
pub(super) fn before_login(out: &mut impl Write) -> io::Result<()> {
    write!(out, "+OK capabilities follow\r\n{ALWAYS}.\r\n")
}

/// The list after login.
pub(super) fn after_login(out: &mut impl Write) -> io::Result<()> {
    write!(out, "+OK capabilities follow\r\n{ALWAYS}{IMPLEMENTATION}.\r\n")
}
