//! Version 2: addresses as they are, and values with a type and a length (TLV) behind them.

use std::net::IpAddr;

use super::checksum::Crc32c;
use super::{Header, MAX_HEADER, MAX_TEXT, Malformed, NO_HEADER, Tls};

/// How every header begins.
pub(super) const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, version and command, family and protocol, and the length of the rest.
const FIXED: usize = 16;

/// Version 2 with the command LOCAL or PROXY.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

/// Families and protocols: nothing is known, and TCP over IPv4 and IPv6.
const UNSPECIFIED: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// Types of values.
const CRC32C: u8 = 0x03;
const SSL: u8 = 0x20;
/// … and of those inside the one of TLS.
const SSL_VERSION: u8 = 0x21;
const SSL_CIPHER: u8 = 0x23;

/// In the first octet of TLS's value: the client came by TLS.
const CLIENT_SSL: u8 = 0x01;

/// As [`super::length`].
pub(super) fn length(octets: &[u8]) -> Result<Option<usize>, Malformed> {
    let known = octets.len().min(SIGNATURE.len());
    if octets.get(..known) != SIGNATURE.get(..known) {
        return Err(NO_HEADER);
    }
    octets.get(SIGNATURE.len()).copied().map_or(Ok(()), is_known)?;
    let Some([.., high, low]) = octets.first_chunk::<FIXED>() else { return Ok(None) };
    match FIXED + usize::from(u16::from_be_bytes([*high, *low])) {
        length if length <= MAX_HEADER => Ok(Some(length)),
        _ => Err(Malformed("it is longer than 4096 octets")),
    }
}

/// Whether version and command are those that there are.
fn is_known(version_and_command: u8) -> Result<(), Malformed> {
    match version_and_command {
        LOCAL | PROXY => Ok(()),
        other if other >> 4 == LOCAL >> 4 => Err(Malformed("its command is unknown")),
        _ => Err(Malformed("it is of another version than 1 and 2")),
    }
}

/// As [`super::parse`].
pub(super) fn parse(header: &[u8]) -> Result<Header, Malformed> {
    let Some((fixed, rest)) = header.split_first_chunk::<FIXED>() else { return Err(NO_HEADER) };
    let [.., command, family, _, _] = *fixed;
    let (client, values) = match (command, family) {
        // Whatever stands in it is to be ignored; even where its values would begin is not told.
        (LOCAL, _) | (_, UNSPECIFIED) => return Ok(Header::LOCAL),
        (_, TCP_OVER_IPV4) => client::<4>(rest)?,
        (_, TCP_OVER_IPV6) => client::<16>(rest)?,
        (_, _) => return Err(Malformed("it is for another protocol than TCP over IPv4 or IPv6")),
    };
    Ok(Header { client: Some(client), tls: tls_in(header, values)? })
}

/// The client, of an address of `SIZE` octets, and what stands behind the addresses and ports.
fn client<const SIZE: usize>(rest: &[u8]) -> Result<((IpAddr, u16), &[u8]), Malformed>
where
    IpAddr: From<[u8; SIZE]>,
{
    let read = || {
        let (source, rest) = rest.split_first_chunk::<SIZE>()?;
        let (_destination, rest) = rest.split_first_chunk::<SIZE>()?;
        let (port, rest) = rest.split_first_chunk::<2>()?;
        let (_destination_port, rest) = rest.split_first_chunk::<2>()?;
        Some(((IpAddr::from(*source), u16::from_be_bytes(*port)), rest))
    };
    read().ok_or(Malformed("it is too short for its addresses"))
}

/// Looks through the values behind the addresses of `header`.
fn tls_in(header: &[u8], values: &[u8]) -> Result<Option<Tls>, Malformed> {
    let mut checked = None;
    let mut ssl = None;
    for value in Values(values) {
        let Value { kind, octets, behind } = value?;
        match kind {
            CRC32C => fill(&mut checked, check(header, octets, behind)?)?,
            SSL => fill(&mut ssl, octets)?,
            _ => {}
        }
    }
    ssl.map_or(Ok(None), tls)
}

/// Verifies the checksum, which was computed with zeros in its own place.
fn check(header: &[u8], stored: &[u8], behind: &[u8]) -> Result<(), Malformed> {
    let stored: &[u8; 4] =
        stored.try_into().map_err(|_| Malformed("its checksum has not four octets"))?;
    let before = header.len().saturating_sub(behind.len() + stored.len());
    let mut computed = Crc32c::default();
    computed.update(header.get(..before).unwrap_or_default());
    computed.update(&[0; 4]);
    computed.update(behind);
    if computed.finish() == u32::from_be_bytes(*stored) {
        Ok(())
    } else {
        Err(Malformed("its checksum is wrong"))
    }
}

/// Reads what the proxy says of TLS: flags, the result of a certificate's verification, and values.
fn tls(octets: &[u8]) -> Result<Option<Tls>, Malformed> {
    let Some(([flags, _verify @ ..], values)) = octets.split_first_chunk::<5>() else {
        return Err(Malformed("what it says of TLS is too short"));
    };
    let mut tls = Tls::default();
    for value in Values(values) {
        let Value { kind, octets, .. } = value?;
        let place = match kind {
            SSL_VERSION => &mut tls.version,
            SSL_CIPHER => &mut tls.suite,
            _ => continue,
        };
        fill(place, text(octets)?)?;
    }
    Ok((flags & CLIENT_SSL != 0).then_some(tls))
}

fn text(octets: &[u8]) -> Result<String, Malformed> {
    let is_printable = |octet: &u8| matches!(octet, b' '..=b'~');
    if octets.is_empty() || octets.len() > MAX_TEXT || !octets.iter().all(is_printable) {
        return Err(Malformed("what it says of TLS is no short text"));
    }
    Ok(String::from_utf8_lossy(octets).into_owned())
}

/// Fills an empty place: of two values of a kind nobody knows which one to believe.
fn fill<T>(place: &mut Option<T>, value: T) -> Result<(), Malformed> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Malformed("a value is there twice")),
    }
}

/// Values behind each other, up to the end.
struct Values<'a>(&'a [u8]);

/// One of them.
struct Value<'a> {
    kind: u8,
    octets: &'a [u8],
    /// What follows it.
    behind: &'a [u8],
}

impl<'a> Iterator for Values<'a> {
    type Item = Result<Value<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let octets = std::mem::take(&mut self.0);
        if octets.is_empty() {
            return None;
        }
        let value = octets.split_first_chunk::<3>().and_then(|([kind, high, low], rest)| {
            let (octets, behind) =
                rest.split_at_checked(u16::from_be_bytes([*high, *low]).into())?;
            Some(Value { kind: *kind, octets, behind })
        });
        self.0 = value.as_ref().map_or(&[], |value| value.behind);
        Some(value.ok_or(Malformed("a value reaches beyond its end")))
    }
}
