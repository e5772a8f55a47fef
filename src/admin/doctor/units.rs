//! Whether somebody listens, in which of the two ways, and who else does.

use std::fs::read_to_string;

use super::finding::{Finding, word};
use super::ports::{Holder, holders};
use super::systemd::{self, ENCRYPTED, LISTENER, PLAIN, Unit, Units};
use crate::monitor::has_certificate;
use crate::settings::Settings;

/// POP3's, and that of POP3 with TLS.
const PORTS: [u16; 2] = [110, 995];

const ENABLE: &str = "systemctl enable --now popa3d.socket popa3ds.socket";

pub(super) fn look(settings: Option<&Settings>, units: Option<&Units>) -> Vec<Finding> {
    let mut ports = PORTS.to_vec();
    let wanted = settings.map(own_ports).unwrap_or_default();
    ports.extend(&wanted);
    for unit in units.iter().flat_map(|units| [&units.plain, &units.encrypted]) {
        ports.extend(unit.addresses().into_iter().filter_map(port));
    }
    let holders = holders(&ports);
    let inetd = read_to_string("/etc/inetd.conf").unwrap_or_default();
    match units {
        Some(units) => {
            let mut findings = judge(units, &holders, &inetd);
            findings.extend(missing_ports(units, &wanted, &holders));
            findings.extend(taken_ports(units, &wanted, &holders));
            findings
        }
        None => vec![without_units(&holders, &inetd)],
    }
}

/// Those that the listener should have.
fn own_ports(settings: &Settings) -> Vec<u16> {
    let mut addresses = settings.listen.clone();
    if has_certificate(settings) {
        addresses.extend(&settings.listen_tls);
    }
    addresses.iter().map(|address| address.port()).collect()
}

fn port(address: &str) -> Option<u16> {
    address.rsplit_once(':')?.1.parse().ok()
}

fn without_units(holders: &[Holder], inetd: &str) -> Finding {
    let why = if systemd::runs() { "systemctl says nothing" } else { "systemd does not run here" };
    let others = served_otherwise(holders, inetd);
    let what = match (others, holders.first()) {
        (Some(others), _) => others,
        (None, Some(holder)) => holder.to_string(),
        (None, None) => "nobody listens on port 110 or 995".to_owned(),
    };
    Finding::hint(
        format!("{why}: {what}"),
        "without systemd, popa3d -D serves POP3 from the background, or inetd starts popa3d",
    )
}

/// Who serves POP3 with this program without systemd's doing.
fn served_otherwise(holders: &[Holder], inetd: &str) -> Option<String> {
    let named = |holder: &&Holder, part: &str| {
        holder.process.as_ref().is_some_and(|(name, _)| name.contains(part))
    };
    let uses_us =
        inetd.lines().any(|line| !line.trim_start().starts_with('#') && line.contains("popa3d"));
    holders.iter().find_map(|holder| {
        if named(&holder, "popa3d") {
            Some(format!("{holder}, which was started by hand"))
        } else if uses_us && named(&holder, "inetd") {
            Some(format!("{holder}, for which /etc/inetd.conf names popa3d"))
        } else {
            None
        }
    })
}

fn judge(units: &Units, holders: &[Holder], inetd: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let sockets = [&units.plain, &units.encrypted];
    let listener = &units.listener;
    if sockets.iter().chain([&listener]).all(|unit| !unit.is_there()) {
        return vec![Finding::error(
            "popa3d.socket and popa3d.service: systemd does not know them",
            "run: apt install --reinstall popa3d",
        )];
    }
    let is_triggered = units.triggers.iter().any(Unit::is_active);
    let has_listener = listener.is_enabled() || listener.is_active() || is_triggered;
    let has_sockets = sockets.iter().any(|unit| unit.is_enabled() || unit.is_active());
    let both = listener.is_enabled() && sockets.iter().any(|unit| unit.is_enabled());
    if both {
        findings.push(two_ways(listener));
    }
    let mut listening = Vec::new();
    for unit in sockets {
        if unit.is_active() {
            listening.push(format!("{} listens on {}", unit.name(), unit.addresses().join(", ")));
            findings.extend(not_at_boot(unit));
        } else if unit.is_enabled() && !listener.is_active() {
            let ports: Vec<u16> = unit.addresses().into_iter().filter_map(port).collect();
            findings.push(down(unit, &ports, holders));
        } else if has_sockets && !has_listener {
            listening.push(format!("{} is off", unit.name()));
        }
    }
    if listener.is_active() {
        let status = listener.get("StatusText");
        let status = if status.is_empty() { String::new() } else { format!(" ({status})") };
        listening.push(format!("{LISTENER} runs{status}"));
        if !is_triggered {
            findings.extend(not_at_boot(listener));
        }
    } else if is_triggered {
        listening.push(format!("{LISTENER} is started by a socket unit"));
    } else if listener.is_enabled() && !sockets.iter().any(|unit| unit.is_active()) {
        findings.push(down(listener, &PORTS, holders));
    }
    if !has_listener && !has_sockets {
        match served_otherwise(holders, inetd) {
            Some(others) => listening.push(others),
            None => findings.push(off(units, holders)),
        }
    }
    if !listening.is_empty() {
        findings.push(Finding::fine(listening.join("; ")));
    }
    findings.extend(not_read(units));
    findings
}

fn two_ways(listener: &Unit) -> Finding {
    let other = if listener.is_active() { "popa3d.socket popa3ds.socket" } else { LISTENER };
    Finding::warning(
        "popa3d.service and its sockets are both enabled: which of them listens after a boot is chance",
        format!("run: systemctl disable {other}"),
    )
}

fn not_at_boot(unit: &Unit) -> Option<Finding> {
    let name = unit.name();
    (!unit.is_enabled()).then(|| {
        let text = format!("{name} is up, but not enabled: it is gone after a boot");
        Finding::warning(text, format!("run: systemctl enable {name}"))
    })
}

/// A unit that should be up.
fn down(unit: &Unit, ports: &[u16], holders: &[Holder]) -> Finding {
    let name = unit.name();
    let state = match (unit.get("ActiveState"), unit.get("Result")) {
        (state, "" | "success") => state.to_owned(),
        (state, result) => format!("{state} ({result})"),
    };
    let mut text = format!("{name} is enabled and {state}");
    let start = format!("systemctl restart {name}");
    let is_in_the_way =
        |holder: &&Holder| ports.contains(&holder.port) && !is_kept_for(unit, holder);
    let remedy = match holders.iter().find(is_in_the_way) {
        Some(holder) => {
            text.push_str(&format!("; {holder}"));
            make_room(holder, &start)
        }
        None => format!("run: {start}; journalctl -u {name} -n 20 tells why if that fails"),
    };
    Finding::error(text, remedy)
}

/// Whether it is systemd that has what the listener gave it to keep.
fn is_kept_for(unit: &Unit, holder: &Holder) -> bool {
    let keeps = !matches!(unit.get("NFileDescriptorStore"), "" | "0");
    keeps && matches!(holder.process, Some((_, 1)))
}

fn make_room(holder: &Holder, start: &str) -> String {
    match (&holder.process, &holder.unit) {
        (Some((_, 1)), _) => {
            format!("systemctl list-sockets names it: disable that, then run: {start}")
        }
        (Some((name, _)), _) if name.contains("inetd") => {
            format!("take its line out of /etc/inetd.conf, restart it, and run: {start}")
        }
        (Some(_), Some(unit)) => {
            format!("run: systemctl disable --now {} && {start}", word(unit))
        }
        (Some((_, pid)), None) => format!("run: kill {pid} && {start}"),
        (None, _) => format!("end it, then run: {start}"),
    }
}

/// Nobody has made any of them listen, which may be meant.
fn off(units: &Units, holders: &[Holder]) -> Finding {
    let text =
        "nobody listens: neither popa3d.socket and popa3ds.socket nor popa3d.service is enabled";
    let masked: Vec<&str> = [&units.plain, &units.encrypted, &units.listener]
        .into_iter()
        .filter(|unit| unit.is_masked())
        .map(Unit::name)
        .collect();
    let start = if masked.is_empty() {
        ENABLE.to_owned()
    } else {
        format!("systemctl unmask {} && {ENABLE}", masked.join(" "))
    };
    match holders.iter().find(|holder| PORTS.contains(&holder.port)) {
        Some(holder) => Finding::warning(format!("{text}; {holder}"), make_room(holder, &start)),
        None => Finding::warning(
            text,
            format!("run: {start} (or, standing alone: popa3d.service alone)"),
        ),
    }
}

/// Whether the listener is up, and listens itself.
fn has_own_ports(units: &Units) -> bool {
    units.triggers.is_empty() && units.listener.get("ActiveState") == "active"
}

/// The listener is up, and a port that it should have is another program's.
fn taken_ports(units: &Units, wanted: &[u16], holders: &[Holder]) -> Option<Finding> {
    let is_own = |holder: &Holder| {
        holder.unit.as_deref() == Some(LISTENER) || is_kept_for(&units.listener, holder)
    };
    let taken = wanted.iter().find_map(|port| {
        let mut of_port = holders.iter().filter(|holder| holder.port == *port);
        let is_own_port = of_port.clone().any(is_own);
        of_port.find(|holder| !is_own_port && holder.process.is_some())
    })?;
    has_own_ports(units).then(|| {
        let remedy = make_room(taken, "systemctl reload popa3d.service");
        Finding::warning(
            format!("popa3d.service runs without port {}; {taken}", taken.port),
            format!("{remedy} (or leave the port to it: listen-tls = [] in /etc/popa3d.toml)"),
        )
    })
}

/// The listener is up without ports that it should have.
fn missing_ports(units: &Units, wanted: &[u16], holders: &[Holder]) -> Option<Finding> {
    let missing = wanted.iter().find(|port| holders.iter().all(|holder| holder.port != **port))?;
    has_own_ports(units).then(|| {
        Finding::error(
            format!("popa3d.service runs, and nobody listens on port {missing}, which the settings name"),
            "run: systemctl reload popa3d.service; journalctl -t popa3d -n 20 tells why if that fails",
        )
    })
}

fn not_read(units: &Units) -> Option<Finding> {
    let all = [(PLAIN, &units.plain), (ENCRYPTED, &units.encrypted), (LISTENER, &units.listener)];
    let (name, _) = all.iter().find(|(_, unit)| unit.get("NeedDaemonReload") == "yes")?;
    let text = format!("{name}: its files were changed, and systemd has not read them since");
    Some(Finding::warning(text, "run: systemctl daemon-reload"))
}

#[cfg(test)]
mod tests;
