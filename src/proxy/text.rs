//! Version 1: a line of text.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::{Header, Malformed, NO_HEADER};

/// How every line begins.
pub(super) const BEGINNING: &[u8] = b"PROXY ";

/// Longest line, in octets, with its line end: `UNKNOWN` with two addresses of IPv6 and two ports.
const MAX_LINE: usize = 107;

/// As [`super::length`].
pub(super) fn length(octets: &[u8]) -> Result<Option<usize>, Malformed> {
    let known = octets.len().min(BEGINNING.len());
    if octets.get(..known) != BEGINNING.get(..known) {
        return Err(NO_HEADER);
    }
    match memchr::memchr(b'\n', octets.get(..MAX_LINE).unwrap_or(octets)) {
        Some(at) => Ok(Some(at + 1)),
        None if octets.len() >= MAX_LINE => Err(Malformed("its line is longer than 107 octets")),
        None => Ok(None),
    }
}

/// As [`super::parse`].
pub(super) fn parse(line: &[u8]) -> Result<Header, Malformed> {
    let line = line.strip_suffix(b"\r\n").filter(|line| !line.contains(&b'\r'));
    let line = line.ok_or(Malformed("its line does not end in CRLF"))?;
    let fields: Vec<&[u8]> = line.split(|octet| *octet == b' ').collect();
    match fields.as_slice() {
        // Whatever stands behind it is to be ignored.
        [b"PROXY", b"UNKNOWN", ..] => Ok(Header::LOCAL),
        [b"PROXY", b"TCP4", ends @ ..] => client::<Ipv4Addr>(ends),
        [b"PROXY", b"TCP6", ends @ ..] => client::<Ipv6Addr>(ends),
        [b"PROXY", ..] => Err(Malformed("it is for another protocol than TCP4 and TCP6")),
        _ => Err(NO_HEADER),
    }
}

/// The client in the four fields that tell both ends of a connection.
fn client<Address>(ends: &[&[u8]]) -> Result<Header, Malformed>
where
    Address: FromStr + Into<std::net::IpAddr>,
{
    let [source, destination, source_port, destination_port] = ends else {
        return Err(Malformed("it has not two addresses and two ports"));
    };
    let address = |field| address::<Address>(field).ok_or(Malformed("an address in it is none"));
    let port = |field| port(field).ok_or(Malformed("a port in it is none"));
    let client = (address(source)?.into(), port(source_port)?);
    address(destination)?;
    port(destination_port)?;
    Ok(Header { client: Some(client), tls: None })
}

fn address<Address: FromStr>(field: &[u8]) -> Option<Address> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Digits alone, and no zero in front of others.
fn port(field: &[u8]) -> Option<u16> {
    let is_number =
        field.iter().all(u8::is_ascii_digit) && (field == b"0" || field.first() != Some(&b'0'));
    std::str::from_utf8(field).ok().filter(|_| is_number)?.parse().ok()
}
