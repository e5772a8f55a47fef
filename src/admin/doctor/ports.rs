//! Who listens on a port.

use std::fmt;
use std::fs::{read_dir, read_link, read_to_string};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::event::printable;

/// A program that listens on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) address: SocketAddr,
    /// Its name and number; `None` when that cannot be seen: it takes root.
    pub(super) process: Option<(String, u32)>,
    /// Its systemd unit.
    pub(super) unit: Option<String>,
    /// Its command line names popa3d: tcpserver's does.
    pub(super) starts_us: bool,
}

impl Holder {
    /// Whether nobody else can listen there as long as it does.
    pub(super) fn holds(&self, wanted: &SocketAddr) -> bool {
        let (held, ip) = (self.address.ip().to_canonical(), wanted.ip().to_canonical());
        let is_same_ip = held == ip || is_all_of(held, ip) || is_all_of(ip, held);
        is_same_ip && self.address.port() == wanted.port()
    }
}

/// Whether `address` stands for all of the host's, this one included. That of IPv6 takes in IPv4, too, unless
/// a program wants otherwise, which cannot be seen.
fn is_all_of(address: IpAddr, one: IpAddr) -> bool {
    address.is_unspecified() && (address.is_ipv6() || one.is_ipv4())
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {} is held by ", self.address.port())?;
        match (&self.process, &self.unit) {
            (None, _) => f.write_str("some program (root sees which)"),
            (Some((_, 1)), _) => f.write_str("systemd, for another unit"),
            (Some((name, pid)), None) => write!(f, "{name} (process {pid})"),
            (Some((name, pid)), Some(unit)) => write!(f, "{name} (process {pid}, {unit})"),
        }
    }
}

/// Those of these ports, on whatever address, in their order.
pub(super) fn holders(ports: &[u16]) -> Vec<Holder> {
    let mut found: Vec<(SocketAddr, u64)> = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = read_to_string(table).unwrap_or_default();
        found.extend(listening(&text).filter(|(address, _)| ports.contains(&address.port())));
    }
    let mut holders: Vec<Holder> = found
        .into_iter()
        .map(|(address, inode)| {
            let pid = owner(inode);
            let name = |pid: u32| {
                let name = read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                (printable(name.trim().as_bytes()), pid)
            };
            let groups = pid.and_then(|pid| read_to_string(format!("/proc/{pid}/cgroup")).ok());
            let unit = groups.as_deref().and_then(unit_of).map(|unit| printable(unit.as_bytes()));
            let command = pid.and_then(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).ok());
            let starts_us = command.is_some_and(|command| names_us(&command));
            Holder { address, process: pid.map(name), unit, starts_us }
        })
        .collect();
    holders.sort_by_key(|holder| {
        (holder.address.port(), holder.process.as_ref().map(|(_, pid)| *pid))
    });
    holders
}

/// Whether one of the words, each with a NUL behind it (proc_pid_cmdline(5)), is this program.
fn names_us(command: &[u8]) -> bool {
    command.split(|octet| *octet == 0).any(|word| word == b"popa3d" || word.ends_with(b"/popa3d"))
}

/// Addresses with a listener, and the inodes of its sockets (proc_net(5)).
fn listening(table: &str) -> impl Iterator<Item = (SocketAddr, u64)> + '_ {
    const LISTEN: &str = "0A";
    table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (address, port) = fields.nth(1)?.rsplit_once(':')?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?.parse().ok()?;
        let address = SocketAddr::new(ip(address)?, u16::from_str_radix(port, 16).ok()?);
        (state == LISTEN).then_some((address, inode))
    })
}

/// An address in hexadecimal digits: its words of 32 bits, each as a number of this host's.
fn ip(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = digits.get(at..at + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let words: Option<Vec<[u8; 4]>> = (0..digits.len()).step_by(8).map(word).collect();
    let octets = words?.concat();
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(|octets| Ipv4Addr::from(octets).into()),
        _ => <[u8; 16]>::try_from(octets).ok().map(|octets| Ipv6Addr::from(octets).into()),
    }
}

/// The lowest number of a process that has this socket: of those that share it, mostly the first.
fn owner(inode: u64) -> Option<u32> {
    let wanted = format!("socket:[{inode}]");
    let numbers = read_dir("/proc").ok()?.flatten();
    let mut pids: Vec<u32> =
        numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids.into_iter().find(|pid| {
        let descriptors = read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut targets = descriptors.filter_map(|entry| read_link(entry.path()).ok());
        targets.any(|target| target == Path::new(&wanted))
    })
}

/// The service that a process is in (/proc/PID/cgroup).
fn unit_of(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let controllers = fields.nth(1)?;
        let path = matches!(controllers, "" | "name=systemd").then_some(fields.next()?)?;
        path.rsplit('/').find(|name| name.ends_with(".service"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_found_among_connections() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 00000000:006E 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 ff 100\n\
            \x20  1: 0100007F:006E 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 ff 20\n\
            \x20  2: 00000000000000000000000000000000:03E3 00000000000000000000000000000000:0000 0A \
            00000000:00000000 00:00000000 00000000     0        0 4713 1 ff 100\n";
        let all = [("0.0.0.0:110".parse().unwrap(), 4711), ("[::]:995".parse().unwrap(), 4713)];
        assert_eq!(listening(table).collect::<Vec<_>>(), all);
        assert_eq!(listening("nonsense\n\n1 2 3\n").count(), 0);
    }

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        let written = |octets: &[u8]| {
            let words = octets.chunks(4).map(|word| <[u8; 4]>::try_from(word).unwrap());
            words.map(|word| format!("{:08X}", u32::from_ne_bytes(word))).collect::<String>()
        };
        for text in ["127.0.0.1", "::1", "2001:db8::2"] {
            let address: IpAddr = text.parse().unwrap();
            let digits = match address {
                IpAddr::V4(address) => written(&address.octets()),
                IpAddr::V6(address) => written(&address.octets()),
            };
            assert_eq!(ip(&digits), Some(address));
        }
        for digits in
            ["", "0100007", "0100007F0", "0100007F0100007F", "zzzzzzzz", "\u{f6}\u{f6}\u{f6}\u{f6}"]
        {
            assert_eq!(ip(digits), None, "{digits}");
        }
    }

    #[test]
    fn only_who_has_the_address_or_all_of_them_is_in_the_way() {
        for (held, wanted, holds) in [
            ("192.0.2.1:110", "192.0.2.1:110", true),
            ("192.0.2.1:110", "192.0.2.2:110", false),
            ("192.0.2.1:110", "192.0.2.1:995", false),
            ("0.0.0.0:110", "192.0.2.1:110", true),
            ("192.0.2.1:110", "[::]:110", true),
            ("[::]:110", "192.0.2.1:110", true),
            ("[::ffff:192.0.2.1]:110", "192.0.2.1:110", true),
            ("0.0.0.0:110", "[2001:db8::1]:110", false),
            ("0.0.0.0:110", "[::]:110", true),
            ("[2001:db8::1]:110", "0.0.0.0:110", false),
        ] {
            let address = held.parse().unwrap();
            let holder = Holder { address, process: None, unit: None, starts_us: false };
            assert_eq!(holder.holds(&wanted.parse().unwrap()), holds, "{held} {wanted}");
        }
    }

    #[test]
    fn program_is_found_in_a_command() {
        assert!(names_us(b"tcpserver\x000\x00110\0/usr/sbin/popa3d\0"));
        assert!(!names_us(b"tcpserver\x000\x00110\0/usr/sbin/popa3d.old\0"));
    }

    #[test]
    fn unit_of_a_process_is_in_its_control_group() {
        assert_eq!(unit_of("0::/system.slice/dovecot.service\n"), Some("dovecot.service"));
        assert_eq!(unit_of("0::/user.slice/user-0.slice/session-1.scope\n"), None);
        assert_eq!(unit_of("1:name=systemd:/\n0::/../x.service\n"), Some("x.service"));
        assert_eq!(
            unit_of("4:pids:/x\n1:name=systemd:/system.slice/inetd.service\n"),
            Some("inetd.service")
        );
    }

    #[test]
    fn holder_is_named_as_far_as_it_is_known() {
        let holder = |process: Option<(&str, u32)>, unit: Option<&str>| {
            let process = process.map(|(name, pid)| (name.to_owned(), pid));
            let address = "[::]:110".parse().unwrap();
            let unit = unit.map(str::to_owned);
            Holder { address, process, unit, starts_us: false }.to_string()
        };
        assert_eq!(
            holder(Some(("dovecot", 81)), Some("dovecot.service")),
            "port 110 is held by dovecot (process 81, dovecot.service)"
        );
        assert_eq!(holder(Some(("python3", 81)), None), "port 110 is held by python3 (process 81)");
        assert!(holder(None, None).contains("some program"));
    }
}
