//! Who listens on a port.

use std::fmt;
use std::fs::{read_dir, read_link, read_to_string};
use std::path::Path;

use crate::event::printable;

/// A program that listens on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) port: u16,
    /// Its name and number; `None` when that cannot be seen: it takes root.
    pub(super) process: Option<(String, u32)>,
    /// Its systemd unit.
    pub(super) unit: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {} is held by ", self.port)?;
        match (&self.process, &self.unit) {
            (None, _) => f.write_str("some program (root sees which)"),
            (Some((_, 1)), _) => f.write_str("systemd, for another unit"),
            (Some((name, pid)), None) => write!(f, "{name} (process {pid})"),
            (Some((name, pid)), Some(unit)) => write!(f, "{name} (process {pid}, {unit})"),
        }
    }
}

/// Those of these ports, in their order.
pub(super) fn holders(ports: &[u16]) -> Vec<Holder> {
    let mut found: Vec<(u16, u64)> = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = read_to_string(table).unwrap_or_default();
        found.extend(listening(&text).filter(|(port, _)| ports.contains(port)));
    }
    let mut holders: Vec<Holder> = found
        .into_iter()
        .map(|(port, inode)| {
            let pid = owner(inode);
            let name = |pid: u32| {
                let name = read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                (printable(name.trim().as_bytes()), pid)
            };
            let groups = pid.and_then(|pid| read_to_string(format!("/proc/{pid}/cgroup")).ok());
            let unit = groups.as_deref().and_then(unit_of).map(|unit| printable(unit.as_bytes()));
            Holder { port, process: pid.map(name), unit }
        })
        .collect();
    holders.sort_by_key(|holder| (holder.port, holder.process.as_ref().map(|(_, pid)| *pid)));
    // Of IPv4 and of IPv6.
    holders.dedup();
    holders
}

/// Ports with a listener, and the inodes of its sockets (proc_net(5)).
fn listening(table: &str) -> impl Iterator<Item = (u16, u64)> + '_ {
    const LISTEN: &str = "0A";
    table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (_, port) = fields.nth(1)?.rsplit_once(':')?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?.parse().ok()?;
        (state == LISTEN).then_some((u16::from_str_radix(port, 16).ok()?, inode))
    })
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
        assert_eq!(listening(table).collect::<Vec<_>>(), [(110, 4711), (995, 4713)]);
        assert_eq!(listening("nonsense\n\n1 2 3\n").count(), 0);
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
            Holder { port: 110, process, unit: unit.map(str::to_owned) }.to_string()
        };
        assert_eq!(
            holder(Some(("dovecot", 81)), Some("dovecot.service")),
            "port 110 is held by dovecot (process 81, dovecot.service)"
        );
        assert_eq!(holder(Some(("python3", 81)), None), "port 110 is held by python3 (process 81)");
        assert!(holder(None, None).contains("some program"));
    }
}
