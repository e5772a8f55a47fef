//! The journal: whether what happens is told there, and outlasts a boot.

use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::finding::Finding;
use super::systemd;

const JOURNAL: &str = "/run/systemd/journal/socket";
const SYSLOG: &str = "/dev/log";
const PERSISTENT: &str = "/var/log/journal";

pub(super) fn look() -> Vec<Finding> {
    vec![match (is_heard(JOURNAL), is_heard(SYSLOG)) {
        (true, _) if Path::new(PERSISTENT).is_dir() => Finding::fine("journal: kept on disk"),
        (true, _) => Finding::hint(
            "journal: kept in memory, and gone after a boot",
            format!("run: mkdir -p {PERSISTENT} && journalctl --flush"),
        ),
        (false, true) if systemd::runs() => broken("lines go to syslog, without their fields"),
        (false, false) if systemd::runs() => broken("and nobody hears what goes wrong"),
        (false, true) => {
            Finding::hint("there is no journal: lines go to syslog, without fields", "")
        }
        (false, false) => Finding::warning(
            "neither a journal nor /dev/log is there: nobody hears what goes wrong",
            "start a syslog daemon",
        ),
    }]
}

fn broken(consequence: &str) -> Finding {
    Finding::warning(
        format!("journal: {JOURNAL} does not answer, {consequence}"),
        "run: systemctl restart systemd-journald.socket systemd-journald.service",
    )
}

/// Whether somebody listens there.
fn is_heard(path: &str) -> bool {
    UnixDatagram::unbound().and_then(|socket| socket.connect(path)).is_ok()
}
