//! Whether units do what the settings count on.

use super::finding::Finding;
use super::systemd::{ENCRYPTED, EXPIRY, LISTENER, Units};
use super::units::enable;
use crate::settings::Settings;

pub(super) fn look(settings: &Settings, units: &Units) -> Vec<Finding> {
    let keeps = !settings.keep_deleted.0.is_zero();
    let expiry = keeps.then(|| judge_expiry(units)).flatten();
    let tasks = judge_tasks(units, settings.max_sessions.0.into());
    let is_without_tls = settings.certificates.as_ref().is_some_and(Vec::is_empty);
    let encrypted = is_without_tls.then(|| judge_encrypted(units)).flatten();
    [expiry, tasks, encrypted].into_iter().flatten().collect()
}

/// A port for TLS, and settings that do without.
fn judge_encrypted(units: &Units) -> Option<Finding> {
    let unit = &units.encrypted;
    let action = if unit.is_enabled() { "disable --now" } else { "stop" };
    unit.is_active().then(|| {
        Finding::warning(
            format!("{ENCRYPTED} listens, and certificates = [] is no TLS: whoever connects there is not served"),
            format!("run: systemctl {action} {ENCRYPTED} (or take that line out of the settings)"),
        )
    })
}

fn judge_expiry(units: &Units) -> Option<Finding> {
    let is_on = units.expiry.is_active() && units.expiry.is_enabled();
    (!is_on).then(|| {
        Finding::warning(
            format!(
                "{EXPIRY} is off, and keep-deleted is not: deleted mail of users who do not come back is kept \
                 for good"
            ),
            format!("run: {}", enable(&units.expiry)),
        )
    })
}

/// A session is two processes, and one more while its mailbox is opened or changed.
fn judge_tasks(units: &Units, sessions: u64) -> Option<Finding> {
    // Where there is no limit, that is no number.
    let most: u64 = units.listener.get("TasksMax").parse().ok()?;
    let is_too_few = units.is_standalone() && most <= sessions.saturating_mul(2);
    is_too_few.then(|| {
        let enough = sessions.saturating_mul(3).saturating_add(100);
        Finding::warning(
            format!(
                "{LISTENER}: TasksMax={most} is room for fewer than the {sessions} sessions of max-sessions, which \
                 are two processes each and more"
            ),
            format!(
                "run: systemctl edit {LISTENER} and have it say [Service], TasksMax={enough}; then restart it"
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::systemd;
    use super::*;

    fn units(expiry: &str, listener: &str) -> Units {
        let shown = format!("Id={EXPIRY}\n{expiry}\n\nId={LISTENER}\n{listener}\n");
        let [expiry, listener] = <[_; 2]>::try_from(systemd::parse(&shown)).unwrap();
        Units { expiry, listener, ..Units::default() }
    }

    #[test]
    fn timer_has_to_run_now_and_after_a_boot() {
        let found = |state| judge_expiry(&units(state, "")).map(|finding| finding.to_string());
        assert_eq!(found("ActiveState=active\nUnitFileState=enabled"), None);
        for state in [
            "ActiveState=inactive\nUnitFileState=enabled",
            "ActiveState=active\nUnitFileState=disabled",
            "LoadState=not-found",
        ] {
            let found = found(state).unwrap();
            assert!(found.starts_with("warning: popa3d-expire.timer is off"), "{found}");
        }
    }

    #[test]
    fn masked_timer_is_unmasked_first() {
        let found = judge_expiry(&units("ActiveState=inactive\nUnitFileState=masked", "")).unwrap();
        let remedy = "; run: systemctl unmask popa3d-expire.timer && systemctl enable --now popa3d-expire.timer";
        assert!(found.to_string().ends_with(remedy), "{found:?}");
    }

    #[test]
    fn port_for_tls_without_certificates_is_a_warning() {
        let without = Settings { certificates: Some(Vec::new()), ..Settings::default() };
        let with = |state| {
            let shown = format!("Id={ENCRYPTED}\nUnitFileState=enabled\nActiveState={state}\n");
            Units { encrypted: systemd::parse(&shown).remove(0), ..Units::default() }
        };
        let found = look(&without, &with("active"));
        assert!(
            found[0].to_string().contains("run: systemctl disable --now popa3ds.socket"),
            "{found:?}"
        );
        assert_eq!(look(&without, &with("inactive")), []);
        assert_eq!(look(&Settings::default(), &with("active")), []);
    }

    #[test]
    fn listener_has_room_for_two_processes_a_session() {
        let found = |tasks, file, sessions| {
            judge_tasks(&units("", &format!("UnitFileState={file}\nTasksMax={tasks}")), sessions)
        };
        let finding = found("8192", "enabled", 5_000).unwrap().to_string();
        assert!(finding.starts_with("warning: popa3d.service: TasksMax=8192 is room"), "{finding}");
        assert!(finding.contains("TasksMax=15100; then restart it"), "{finding}");
        for (tasks, file, sessions) in [
            ("8192", "enabled", 4_000),
            ("infinity", "enabled", 100_000),
            ("", "enabled", 100_000),
            ("8192", "disabled", 5_000),
        ] {
            assert_eq!(found(tasks, file, sessions), None);
        }
    }
}
