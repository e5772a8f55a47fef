//! Whether somebody listens, in which of the two ways, and who else does.

use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};

use super::finding::{Finding, word};
use super::outdated;
use super::ports::{Holder, holders};
use super::super_servers::SuperServers;
use super::systemd::{self, ENCRYPTED, LISTENER, PLAIN, Unit, Units};
use crate::monitor::has_certificate;
use crate::settings::Settings;

const ENABLE: &str = "systemctl enable --now popa3d.socket popa3ds.socket";

pub(super) fn look(settings: Option<&Settings>, units: Option<&Units>) -> Vec<Finding> {
    let wanted = settings.map(own_addresses);
    let sockets = units.iter().flat_map(|units| [&units.plain, &units.encrypted]);
    let mut all = usual_addresses().to_vec();
    all.extend(wanted.iter().flatten());
    all.extend(sockets.flat_map(addresses));
    let ports: Vec<u16> = all.iter().map(SocketAddr::port).collect();
    let others = Others { holders: holders(&ports), servers: SuperServers::now() };
    match units {
        Some(units) => {
            let mut findings =
                judge(units, wanted.as_deref().unwrap_or(&usual_addresses()), &others);
            let wanted = wanted.unwrap_or_default();
            let encrypted = settings.map_or(&[][..], |settings| &settings.listen_tls);
            if listens_itself(units) {
                findings.extend(wanted.iter().filter_map(not_here));
            }
            findings.extend(outdated::look(&units.listener));
            findings.extend(missing(units, &wanted, &others.holders));
            findings.extend(taken(units, &wanted, encrypted, &others.holders));
            findings
        }
        None => vec![without_units(&others)],
    }
}

/// Who else may serve POP3.
#[derive(Debug, Clone, Default)]
struct Others {
    holders: Vec<Holder>,
    servers: SuperServers,
}

/// POP3's port, and that of POP3 with TLS.
fn usual_addresses() -> [SocketAddr; 2] {
    [110, 995].map(any_with)
}

/// All of the host's, with this port.
fn any_with(port: u16) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, port).into()
}

/// Those that the listener should have.
fn own_addresses(settings: &Settings) -> Vec<SocketAddr> {
    let mut addresses = settings.listen.clone();
    if has_certificate(settings) {
        addresses.extend(&settings.listen_tls);
    }
    addresses
}

/// Those of a socket unit.
fn addresses(unit: &Unit) -> Vec<SocketAddr> {
    let read = |text: &str| {
        let port = text.rsplit_once(':')?.1.parse();
        // There are more than these, with an interface for one.
        text.parse().or_else(|_| port.map(any_with)).ok()
    };
    unit.addresses().into_iter().filter_map(read).collect()
}

fn without_units(others: &Others) -> Finding {
    let why = if systemd::runs() { "systemctl says nothing" } else { "systemd does not run here" };
    let what = match (served_otherwise(others), others.holders.first()) {
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
fn served_otherwise(others: &Others) -> Option<String> {
    others.holders.iter().find_map(|holder| {
        let (name, _) = holder.process.as_ref()?;
        let how = if name.contains("popa3d") {
            "which was started by hand"
        } else if others.servers.xinetd && name.contains("xinetd") {
            "for which a file in /etc/xinetd.d names popa3d"
        } else if others.servers.inetd && name.contains("inetd") {
            "for which /etc/inetd.conf names popa3d"
        } else if holder.starts_us {
            "which starts popa3d"
        } else {
            return None;
        };
        Some(format!("{holder}, {how}"))
    })
}

fn judge(units: &Units, wanted: &[SocketAddr], others: &Others) -> Vec<Finding> {
    let holders = &others.holders;
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
    let has_listener = units.is_standalone();
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
            findings.push(down(unit, &addresses(unit), holders));
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
        findings.push(down(listener, wanted, holders));
    }
    if !has_listener && !has_sockets {
        match served_otherwise(others) {
            Some(way) => listening.push(way),
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

/// A unit that should be up, and listen there.
fn down(unit: &Unit, wanted: &[SocketAddr], holders: &[Holder]) -> Finding {
    let name = unit.name();
    let state = match (unit.get("ActiveState"), unit.get("Result")) {
        (state, "" | "success") => state.to_owned(),
        (state, result) => format!("{state} ({result})"),
    };
    let mut text = format!("{name} is enabled and {state}");
    let start = format!("systemctl restart {name}");
    let is_in_the_way = |holder: &&Holder| {
        wanted.iter().any(|address| holder.holds(address)) && !is_kept_for(unit, holder)
    };
    let remedy = match holders.iter().find(is_in_the_way) {
        Some(holder) => {
            text.push_str(&format!("; {holder}"));
            if name == ENCRYPTED && is_for_tls(holder, holders) {
                let leave = format!("run: systemctl disable {name}");
                share(holder, &leave, &start)
            } else {
                make_room(holder, &start)
            }
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

/// Whether it is for a program such as stunnel that it has the port of POP3 with TLS: one that is no POP3
/// server besides. Its certificate may be the one that clients trust, and no other be here.
fn is_for_tls(holder: &Holder, holders: &[Holder]) -> bool {
    let [plain, _] = usual_addresses();
    // systemd has the ports of many.
    let program = holder.process.as_ref().filter(|(_, pid)| *pid != 1);
    let is_same = |other: &&Holder| program.is_some() && other.process.as_ref() == program;
    !holders.iter().filter(is_same).any(|other| other.address.port() == plain.port())
}

/// What leaves the port to it, which takes nobody's TLS away, before what takes it.
fn share(holder: &Holder, leave: &str, start: &str) -> String {
    let room = make_room(holder, start);
    format!("to leave the port to it, {leave} (or, once your certificate is in place: {room})")
}

fn make_room(holder: &Holder, start: &str) -> String {
    match (&holder.process, &holder.unit) {
        (Some((_, 1)), _) => {
            format!("systemctl list-sockets names it: disable that, then run: {start}")
        }
        (Some((name, _)), _) if name.contains("xinetd") => {
            format!(
                "have its file in /etc/xinetd.d say disable = yes, restart it, and run: {start}"
            )
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
    let [mut plain, mut encrypted] = [&units.plain, &units.encrypted].map(addresses);
    if plain.is_empty() && encrypted.is_empty() {
        let [usual, with_tls] = usual_addresses();
        plain.push(usual);
        encrypted.push(with_tls);
    }
    let in_the_way = |wanted: &[SocketAddr]| {
        holders.iter().find(|holder| wanted.iter().any(|address| holder.holds(address)))
    };
    match in_the_way(&plain).or_else(|| in_the_way(&encrypted)) {
        Some(holder) if in_the_way(&plain).is_none() => {
            let leave = format!("run: {}", enable(&units.plain));
            Finding::warning(
                format!("{text}; {holder}"),
                format!("{}{}", doubt(holder), share(holder, &leave, &start)),
            )
        }
        Some(holder) => Finding::warning(
            format!("{text}; {holder}"),
            format!("{}{}", doubt(holder), make_room(holder, &start)),
        ),
        None => Finding::warning(
            text,
            format!("run: {start} (or, standing alone: popa3d.service alone)"),
        ),
    }
}

/// What makes it run now and after each boot.
pub(super) fn enable(unit: &Unit) -> String {
    let name = unit.name();
    let enable = format!("systemctl enable --now {name}");
    if unit.is_masked() { format!("systemctl unmask {name} && {enable}") } else { enable }
}

/// Who may well start popa3d, which cannot be seen here.
fn doubt(holder: &Holder) -> &'static str {
    let starts_others = match &holder.process {
        None | Some((_, 1)) => true,
        // tcpserver, tcpsvd, s6-tcpserver: with a script, say.
        Some((name, _)) => name.contains("tcp"),
    };
    if starts_others { "unless that starts popa3d: " } else { "" }
}

/// Whether the listener is up, and listens itself.
fn has_own_ports(units: &Units) -> bool {
    units.triggers.is_empty() && units.listener.get("ActiveState") == "active"
}

/// Whether the listener has to make its sockets from the settings, now or when it is started next.
fn listens_itself(units: &Units) -> bool {
    units.is_standalone() && !units.triggers.iter().any(Unit::is_active)
}

/// An address that this host does not have: without it the listener does not start.
fn not_here(address: &SocketAddr) -> Option<Finding> {
    // With no port in particular, and without listening: nobody notices.
    let mut tried = *address;
    tried.set_port(0);
    let why = UdpSocket::bind(tried).err()?.kind();
    (why == ErrorKind::AddrNotAvailable).then(|| {
        Finding::error(
            format!(
                "listening on {address}: this host does not have the address, and popa3d.service does not start \
                 again without it"
            ),
            "have listen and listen-tls name one of those that ip address shows, or \"[::]:110\" for all",
        )
    })
}

/// The listener is up, and an address that it should have is another program's; which of them are for TLS.
fn taken(
    units: &Units,
    wanted: &[SocketAddr],
    encrypted: &[SocketAddr],
    holders: &[Holder],
) -> Option<Finding> {
    let is_own = |holder: &Holder| {
        holder.unit.as_deref() == Some(LISTENER) || is_kept_for(&units.listener, holder)
    };
    let (address, taken) = wanted.iter().find_map(|address| {
        let mut there = holders.iter().filter(|holder| holder.holds(address));
        let is_own_address = there.clone().any(is_own);
        let taken = there.find(|holder| !is_own_address && holder.process.is_some())?;
        Some((address, taken))
    })?;
    has_own_ports(units).then(|| {
        let reload = "systemctl reload popa3d.service";
        let remedy = if encrypted.contains(address) {
            let leave = format!("have /etc/popa3d.toml say listen-tls = [] and run: {reload}");
            share(taken, &leave, reload)
        } else {
            make_room(taken, reload)
        };
        Finding::warning(
            format!("popa3d.service runs without port {}; {taken}", taken.address.port()),
            remedy,
        )
    })
}

/// The listener is up without a port that it should have.
fn missing(units: &Units, wanted: &[SocketAddr], holders: &[Holder]) -> Option<Finding> {
    let is_missing = |address: &&SocketAddr| holders.iter().all(|holder| !holder.holds(address));
    let missing = wanted.iter().find(is_missing)?.port();
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
