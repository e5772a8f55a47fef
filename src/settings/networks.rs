//! Lists of addresses and networks.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Addresses and networks, each written as `"192.0.2.10"` or `"2001:db8:1::/64"`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Whether `address` is one of these or in one of these. IPv4 that was mapped into IPv6 is IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address.to_canonical()))
    }

    /// Those that all addresses of a family are in.
    pub(super) fn unbounded(&self) -> impl Iterator<Item = String> {
        self.0.iter().filter(|network| network.prefix == 0).map(Network::to_string)
    }
}

/// The addresses that begin with the same `prefix` bits as `first`, whose other bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    first: IpAddr,
    prefix: u32,
}

impl Network {
    /// How many leading bits of mapped IPv4 say that it is that.
    const MAPPED: u32 = 96;

    /// A network as it was written, whose bits behind the prefix may be anything.
    fn new(address: IpAddr, prefix: u32) -> Option<Self> {
        let canonical = address.to_canonical();
        let prefix = match (address, canonical) {
            (IpAddr::V6(_), IpAddr::V4(_)) => prefix.checked_sub(Self::MAPPED)?,
            (_, _) => prefix,
        };
        (prefix <= width(canonical)).then_some(Self { first: canonical, prefix })
    }

    fn contains(&self, address: IpAddr) -> bool {
        width(self.first) == width(address)
            && self.significant(bits(self.first)) == self.significant(bits(address))
    }

    /// The bits of an address that count.
    fn significant(&self, bits: u128) -> u128 {
        bits.checked_shr(width(self.first) - self.prefix).unwrap_or(0)
    }

    /// Whether all bits behind the prefix are zero.
    fn is_exact(&self) -> bool {
        bits(self.first).trailing_zeros() >= width(self.first) - self.prefix
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let network = address.parse().ok().and_then(|address| {
            let prefix = match prefix {
                Some(digits) if digits.bytes().all(|octet| octet.is_ascii_digit()) => {
                    digits.parse().ok()?
                }
                Some(_) => return None,
                None => width(address),
            };
            Self::new(address, prefix)
        });
        match network {
            Some(network) if network.is_exact() => Ok(network),
            Some(_) => Err(format!(
                "{text:?} has bits set behind its prefix: write the first address of the network, \
                 or one address without a prefix"
            )),
            None => Err(format!(
                "{text:?} is no address or network such as \"192.0.2.10\" or \"2001:db8:1::/64\""
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        Networks(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn contains(network: &str, address: &str) -> bool {
        networks(&[network]).contains(address.parse().unwrap())
    }

    #[test]
    fn address_is_itself_and_nothing_near_it() {
        assert!(contains("192.0.2.10", "192.0.2.10"));
        assert!(contains("192.0.2.10/32", "192.0.2.10"));
        assert!(!contains("192.0.2.10", "192.0.2.11"));
        assert!(contains("2001:db8::1", "2001:db8::1"));
        assert!(!contains("2001:db8::1/128", "2001:db8::"));
    }

    #[test]
    fn network_goes_from_its_first_to_its_last_address() {
        for (network, inside, outside) in [
            ("192.0.2.0/24", ["192.0.2.0", "192.0.2.255"], ["192.0.1.255", "192.0.3.0"]),
            ("10.64.0.0/10", ["10.64.0.0", "10.127.255.255"], ["10.63.255.255", "10.128.0.0"]),
            ("192.0.2.8/31", ["192.0.2.8", "192.0.2.9"], ["192.0.2.7", "192.0.2.10"]),
            (
                "2001:db8:1::/64",
                ["2001:db8:1::", "2001:db8:1:0:ffff:ffff:ffff:ffff"],
                ["2001:db8:0:ffff:ffff:ffff:ffff:ffff", "2001:db8:1:1::"],
            ),
        ] {
            assert!(inside.iter().all(|address| contains(network, address)), "{network}");
            assert!(!outside.iter().any(|address| contains(network, address)), "{network}");
        }
    }

    #[test]
    fn mapped_ipv4_is_ipv4_wherever_it_stands() {
        assert!(contains("192.0.2.0/24", "::ffff:192.0.2.7"));
        assert!(contains("::ffff:192.0.2.0/120", "192.0.2.7"));
        assert!(contains("::ffff:192.0.2.7", "192.0.2.7"));
        assert!(!contains("::ffff:192.0.2.0/120", "192.0.3.7"));
        assert!(contains("::ffff:0.0.0.0/96", "192.0.2.7"));
    }

    #[test]
    fn families_are_apart_even_where_a_network_has_all_of_one() {
        assert!(contains("0.0.0.0/0", "255.255.255.255"));
        assert!(!contains("0.0.0.0/0", "::1"));
        assert!(contains("::/0", "ffff::"));
        assert!(!contains("::/0", "192.0.2.7"));
        assert!(!contains("::/0", "::ffff:192.0.2.7"));
    }

    #[test]
    fn empty_list_contains_nothing_and_a_longer_one_what_each_contains() {
        let address = "192.0.2.7".parse().unwrap();
        assert!(!Networks::default().contains(address));
        assert!(networks(&["::1", "192.0.2.0/24"]).contains(address));
        assert!(!networks(&["::1", "192.0.3.0/24"]).contains(address));
    }

    #[test]
    fn bits_behind_the_prefix_are_refused_with_a_hint() {
        for text in ["192.0.2.10/24", "192.0.2.1/31", "0.0.0.1/0", "2001:db8::1/64", "::1/127"] {
            let error = text.parse::<Network>().unwrap_err();
            assert!(error.contains(text) && error.contains("behind its prefix"), "{error}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "/",
            "192.0.2.0/",
            "/24",
            "192.0.2.0/33",
            "::/129",
            "192.0.2.0/+8",
            "192.0.2.0/-1",
            "192.0.2/24",
            "192.0.02.0/24",
            "192.0.2.0/255.255.255.0",
            "mail.example.org",
            "::1%lo",
            " 192.0.2.1",
            "192.0.2.1 ",
            "192.0.2.0/24/24",
            "192.0.2.0/ 24",
            "[::1]",
            "::ffff:0:0/95",
            "192.0.2.0/99999999999",
            "192.0.2.1:110",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text:?}");
        }
    }
}
