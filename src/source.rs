//! Where a client comes from, as limits count it. Pure, for whichever process counts.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Those whom limits treat as one client: an IPv4 address, or a network of IPv6 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(IpAddr);

/// In IPv6 a host has a network of 64 bits to choose addresses from (RFC 4291 section 2.5.1, RFC 8981),
/// so that a limit for each address would be none.
const NETWORK: u128 = !0 << 64;

impl Source {
    /// The source that `address` belongs to.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            // One address, beside which there is nothing else in its network.
            IpAddr::V6(address) if !address.is_loopback() => {
                Ipv6Addr::from_bits(address.to_bits() & NETWORK).into()
            }
            address @ (IpAddr::V4(_) | IpAddr::V6(_)) => address,
        })
    }

    /// The address, or that of the network.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.0
    }

    /// Whether it is this very host, on which one program may stand for many people.
    #[must_use]
    pub fn is_loopback(self) -> bool {
        self.0.is_loopback()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V6(network) if !network.is_loopback() => write!(f, "{network}/64"),
            address @ (IpAddr::V4(_) | IpAddr::V6(_)) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(address: &str) -> Source {
        Source::of(address.parse().unwrap())
    }

    #[test]
    fn ipv4_address_is_a_source_however_it_is_written() {
        assert_eq!(source("192.0.2.7"), source("::ffff:192.0.2.7"));
        assert_ne!(source("192.0.2.7"), source("192.0.2.8"));
        assert_eq!(source("::ffff:192.0.2.7").to_string(), "192.0.2.7");
    }

    #[test]
    fn ipv6_addresses_of_one_network_are_one_source() {
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("2001:db8:1:2:3:4:5:6").to_string(), "2001:db8:1:2::/64");
    }

    #[test]
    fn loopback_is_known_in_both_families() {
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(source(address).is_loopback(), "{address}");
        }
        for address in ["192.0.2.7", "::", "::2", "fe80::1", "2001:db8::1"] {
            assert!(!source(address).is_loopback(), "{address}");
        }
        assert_eq!(source("::1").to_string(), "::1");
    }
}
