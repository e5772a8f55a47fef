//! The PROXY protocol (HAProxy's proxy-protocol.txt, versions 1 and 2), as those behind a proxy see
//! it, without any I/O.
//!
//! Runs in the worker. The proxy that accepted a client's connection says in a header, in front of
//! everything else, whose it is. Reading one is total, bounded and exact: any octets are a header,
//! the beginning of one, or refused, and what follows the header is left alone.

mod binary;
mod checksum;
mod text;

use std::fmt;
use std::net::IpAddr;

/// Longest header, in octets. Real ones have a few hundred: the protocol wants them to fit into
/// any TCP segment.
pub const MAX_HEADER: usize = 4096;

/// Most octets of a text that describes TLS.
pub const MAX_TEXT: usize = 64;

/// What no client of POP3 begins with: version 1, and so much of version 2 as is no POP3 either.
pub const BEGINNINGS: [&[u8]; 2] = [text::BEGINNING, b"\r\n\r\n\0"];

/// What a proxy says of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The client's address and port; `None` when the connection is the proxy's own, as for a
    /// health check, or nothing is known of its origin.
    pub client: Option<(IpAddr, u16)>,
    /// The encryption between client and proxy, if there is any.
    pub tls: Option<Tls>,
}

impl Header {
    /// The endpoints of the connection itself count.
    const LOCAL: Self = Self { client: None, tls: None };
}

/// What a proxy says of TLS that it ended: printable ASCII, at most [`MAX_TEXT`] octets each.
///
/// That a client had a certificate is left aside: nobody logs in by the word of a proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// The version, such as `TLSv1.3`.
    pub version: Option<String>,
    /// The cipher suite, by whatever name the proxy has for it.
    pub suite: Option<String>,
}

/// Why octets are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

const NO_HEADER: Malformed = Malformed("the connection begins without one");

/// The length of the header that `octets` begin with, be it here as a whole or not; `None` while
/// it cannot be told, and then all of `octets` belong to the header.
///
/// # Errors
///
/// Whatever comes, this will not be a header.
pub fn length(octets: &[u8]) -> Result<Option<usize>, Malformed> {
    match octets.first() {
        None => Ok(None),
        Some(b'P') => text::length(octets),
        Some(_) => binary::length(octets),
    }
}

/// Reads a header, exactly as long as [`length`] said.
///
/// # Errors
///
/// Says what is wrong with it.
pub fn parse(header: &[u8]) -> Result<Header, Malformed> {
    match (length(header)?, header.first()) {
        (Some(length), _) if length != header.len() => Err(NO_HEADER),
        (Some(_), Some(b'P')) => text::parse(header),
        (Some(_), Some(_)) => binary::parse(header),
        (_, _) => Err(NO_HEADER),
    }
}

#[cfg(test)]
mod tests;
