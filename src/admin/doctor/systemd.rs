//! What systemd says of popa3d's units.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub(super) const PLAIN: &str = "popa3d.socket";
pub(super) const ENCRYPTED: &str = "popa3ds.socket";
pub(super) const LISTENER: &str = "popa3d.service";
pub(super) const EXPIRY: &str = "popa3d-expire.timer";

/// Any session would do: what systemd knows of their template it says of one that does not run, too.
const SESSION: &str = "popa3d@check-config.service";

const PROPERTIES: &str = "Id,LoadState,ActiveState,Result,UnitFileState,NeedDaemonReload,Listen,StatusText,\
                          TriggeredBy,NFileDescriptorStore,TasksMax,ProtectHome,ProtectSystem,ReadWritePaths,\
                          FragmentPath,DropInPaths,ActiveEnterTimestampMonotonic";

/// Whether systemd is what runs this host.
pub(super) fn runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// A unit's properties, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Unit(BTreeMap<String, Vec<String>>);

impl Unit {
    /// The value of a property; nothing where there is none.
    pub(super) fn get(&self, property: &str) -> &str {
        self.all(property).first().map_or("", String::as_str)
    }

    fn all(&self, property: &str) -> &[String] {
        self.0.get(property).map_or(&[], Vec::as_slice)
    }

    pub(super) fn name(&self) -> &str {
        self.get("Id")
    }

    pub(super) fn is_there(&self) -> bool {
        self.get("LoadState") != "not-found" && !self.0.is_empty()
    }

    pub(super) fn is_active(&self) -> bool {
        matches!(self.get("ActiveState"), "active" | "reloading")
    }

    /// Whether it is started at boot.
    pub(super) fn is_enabled(&self) -> bool {
        self.get("UnitFileState").starts_with("enabled")
    }

    pub(super) fn is_masked(&self) -> bool {
        self.get("UnitFileState").starts_with("masked") || self.get("LoadState") == "masked"
    }

    /// When it became active, on CLOCK_MONOTONIC; `None` when it never did.
    pub(super) fn active_since(&self) -> Option<Duration> {
        let microseconds = self.get("ActiveEnterTimestampMonotonic").parse().ok()?;
        (microseconds > 0).then(|| Duration::from_micros(microseconds))
    }

    /// The files of an admin's own that it is made of. Those of the package are as old as its making; what
    /// `systemctl set-property` writes holds at once.
    pub(super) fn own_files(&self) -> impl Iterator<Item = &Path> {
        let files = [self.get("FragmentPath"), self.get("DropInPaths")];
        let files = files.into_iter().flat_map(str::split_whitespace).map(Path::new);
        files.filter(|file| {
            file.starts_with("/etc") && !file.starts_with("/etc/systemd/system.control")
        })
    }

    /// Addresses that a socket unit listens on, such as `[::]:110`.
    pub(super) fn addresses(&self) -> Vec<&str> {
        let listed = self.all("Listen").iter();
        listed.filter_map(|line| line.strip_suffix(" (Stream)")).collect()
    }
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Units {
    pub(super) plain: Unit,
    pub(super) encrypted: Unit,
    pub(super) listener: Unit,
    pub(super) session: Unit,
    /// What has kept mail dropped in time.
    pub(super) expiry: Unit,
    /// Socket units of an admin's own that start the listener.
    pub(super) triggers: Vec<Unit>,
}

/// What keeps the processes of a unit from parts of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Confinement<'a> {
    /// Which unit's.
    pub(super) unit: &'a str,
    /// Whether homes are not to be seen, or not to be written to.
    pub(super) protect_home: &'a str,
    /// `strict` for a file system that is read-only …
    pub(super) protect_system: &'a str,
    /// … but for these places, with spaces in between.
    pub(super) writable: &'a str,
}

impl Units {
    /// As they are now; `None` where systemd does not run, or says nothing.
    pub(super) fn now() -> Option<Self> {
        if !runs() {
            return None;
        }
        let names = [PLAIN, ENCRYPTED, LISTENER, SESSION, EXPIRY];
        let shown = <[Unit; 5]>::try_from(show(&names)?).ok()?;
        let [plain, encrypted, listener, session, expiry] = shown;
        let others: Vec<&str> = listener.get("TriggeredBy").split_whitespace().collect();
        let triggers =
            if others.is_empty() { Vec::new() } else { show(&others).unwrap_or_default() };
        Some(Self { plain, encrypted, listener, session, expiry, triggers })
    }

    /// Whether the listener serves sessions, or is meant to.
    pub(super) fn is_standalone(&self) -> bool {
        let is_triggered = self.triggers.iter().any(Unit::is_active);
        self.listener.is_active() || self.listener.is_enabled() || is_triggered
    }

    /// What confines the sessions of this host.
    pub(super) fn confinement(&self) -> Confinement<'_> {
        let (name, unit) = if self.is_standalone() {
            (LISTENER, &self.listener)
        } else {
            ("popa3d@.service", &self.session)
        };
        Confinement {
            unit: name,
            protect_home: unit.get("ProtectHome"),
            protect_system: unit.get("ProtectSystem"),
            writable: unit.get("ReadWritePaths"),
        }
    }
}

fn show(names: &[&str]) -> Option<Vec<Unit>> {
    let mut command = Command::new("systemctl");
    command.args(["show", "--no-pager", "--property", PROPERTIES, "--"]).args(names);
    let output = command.output().ok().filter(|output| output.status.success())?;
    let units = parse(&String::from_utf8_lossy(&output.stdout));
    (units.len() == names.len()).then_some(units)
}

/// Lines NAME=VALUE, with an empty line between two units.
pub(super) fn parse(shown: &str) -> Vec<Unit> {
    let unit = |block: &str| {
        let mut unit = Unit::default();
        for (name, value) in block.lines().filter_map(|line| line.split_once('=')) {
            unit.0.entry(name.to_owned()).or_default().push(value.to_owned());
        }
        unit
    };
    shown.split("\n\n").map(unit).filter(|unit| !unit.0.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_told_apart() {
        let shown = "Listen=[::]:110 (Stream)\nListen=/run/x (Datagram)\nId=popa3d.socket\nLoadState=loaded\n\
            ActiveState=active\nUnitFileState=enabled\n\nId=popa3d.service\nLoadState=not-found\n\
            ActiveState=inactive\nUnitFileState=\n";
        let units = parse(shown);
        assert_eq!(units.len(), 2);
        assert!(units[0].is_there() && units[0].is_active() && units[0].is_enabled());
        assert_eq!(units[0].addresses(), ["[::]:110"]);
        assert!(!units[1].is_there() && !units[1].is_active() && !units[1].is_enabled());
        assert!(parse("").is_empty());
    }

    #[test]
    fn files_of_the_package_and_properties_that_were_set_are_no_files_of_an_admins() {
        let shown = "FragmentPath=/lib/systemd/system/popa3d.service\nActiveEnterTimestampMonotonic=1500000\n\
            DropInPaths=/etc/systemd/system.control/popa3d.service.d/50-TasksMax.conf \
            /etc/systemd/system/popa3d.service.d/override.conf /run/systemd/system/x.conf\n";
        let unit = parse(shown).remove(0);
        let own = [Path::new("/etc/systemd/system/popa3d.service.d/override.conf")];
        assert_eq!(unit.own_files().collect::<Vec<_>>(), own);
        assert_eq!(unit.active_since(), Some(Duration::from_millis(1500)));
        assert_eq!(parse("ActiveEnterTimestampMonotonic=0\n").remove(0).active_since(), None);
    }
}
