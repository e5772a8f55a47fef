//! Super-servers besides systemd that start this program, by what their files say.

use std::fs::{read_dir, read_to_string};

/// Whose files name popa3d.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SuperServers {
    pub(super) inetd: bool,
    pub(super) xinetd: bool,
}

impl SuperServers {
    pub(super) fn now() -> Self {
        let inetd = read_to_string("/etc/inetd.conf").unwrap_or_default();
        let own = read_dir("/etc/xinetd.d").into_iter().flatten().flatten();
        let files = own.map(|entry| entry.path()).chain(["/etc/xinetd.conf".into()]);
        let mut xinetd = files.filter_map(|path| read_to_string(path).ok());
        Self { inetd: is_in_inetd(&inetd), xinetd: xinetd.any(|text| is_in_xinetd(&text)) }
    }
}

/// A service a line (inetd(8)).
fn is_in_inetd(text: &str) -> bool {
    text.lines().any(|line| !line.trim_start().starts_with('#') && line.contains("popa3d"))
}

/// Lines NAME = VALUE, in braces for each service (xinetd.conf(5)).
fn is_in_xinetd(text: &str) -> bool {
    text.split('}').any(|service| {
        let lines = service.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let set: Vec<(&str, &str)> = lines
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.trim_end_matches('+').trim(), value.trim()))
            .collect();
        // With a wrapper, tcpd say, it is an argument.
        let is_ours = |&(name, value): &(&str, &str)| {
            matches!(name, "server" | "server_args") && value.contains("popa3d")
        };
        set.iter().any(is_ours) && !set.contains(&("disable", "yes"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_of_inetd_counts_unless_it_is_a_comment() {
        assert!(is_in_inetd("pop3 stream tcp nowait root /usr/sbin/tcpd /usr/sbin/popa3d\n"));
        assert!(!is_in_inetd("#pop3 stream tcp nowait root /usr/sbin/popa3d popa3d\n"));
        assert!(!is_in_inetd("pop3 stream tcp nowait root /usr/sbin/ipop3d ipop3d\n"));
    }

    #[test]
    fn service_of_xinetd_counts_unless_it_is_disabled() {
        let service = |more: &str| format!("service pop3\n{{\n\tuser = root\n{more}\n}}\n");
        assert!(is_in_xinetd(&service("\tserver = /usr/sbin/popa3d\n\tdisable\t= no")));
        assert!(is_in_xinetd(&service("\tserver = /usr/sbin/tcpd\n\tserver_args += popa3d")));
        assert!(!is_in_xinetd(&service("\tserver = /usr/sbin/popa3d\n\tdisable = yes")));
        assert!(!is_in_xinetd(&service("#\tserver = /usr/sbin/popa3d")));
        assert!(!is_in_xinetd(&service("\tserver = /usr/sbin/ipop3d")));
        let other = service("\tserver = /bin/true\n\tdisable = yes");
        assert!(is_in_xinetd(&(other + &service("\tserver = /usr/sbin/popa3d"))));
    }
}
