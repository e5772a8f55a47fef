//! Whether the listener runs with the files of its unit as they are now: what confines a process, and its
//! credentials, are what they were when it was started.

use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

use super::finding::Finding;
use super::systemd::Unit;

pub(super) fn look(listener: &Unit) -> Option<Finding> {
    judge(listener, started(listener))
}

/// When it became active, as files have it, whatever the clock was then.
fn started(unit: &Unit) -> Option<SystemTime> {
    let now: Duration = clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?.into();
    SystemTime::now().checked_sub(now.checked_sub(unit.active_since()?)?)
}

/// A file of the unit's is younger than its processes, which are as the file was before.
fn judge(unit: &Unit, started: Option<SystemTime>) -> Option<Finding> {
    let started = started.filter(|_| unit.is_active())?;
    let is_younger = |file: &&Path| {
        let changed = std::fs::metadata(file).and_then(|found| found.modified());
        changed.is_ok_and(|changed| changed > started)
    };
    let (file, name) = (unit.own_files().find(is_younger)?.display(), unit.name());
    let text = format!("{name} runs since before {file} was changed, which does not hold yet");
    Some(Finding::warning(text, format!("run: systemctl restart {name}")))
}

#[cfg(test)]
mod tests {
    use super::super::systemd::{self, LISTENER};
    use super::*;

    #[test]
    fn listener_that_is_older_than_a_file_of_its_unit_is_a_warning() {
        let with = |active: &str| {
            let shown = format!("Id={LISTENER}\nActiveState={active}\nDropInPaths=/etc/passwd\n");
            systemd::parse(&shown).remove(0)
        };
        let changed = std::fs::metadata("/etc/passwd").unwrap().modified().unwrap();
        let before = changed.checked_sub(Duration::from_secs(1));
        let found = judge(&with("active"), before).map(|found| found.to_string());
        let wanted = "warning: popa3d.service runs since before /etc/passwd was changed, which does not hold yet; \
            run: systemctl restart popa3d.service";
        assert_eq!(found.as_deref(), Some(wanted));
        assert_eq!(judge(&with("active"), Some(changed)), None);
        assert_eq!(judge(&with("inactive"), before), None);
        assert_eq!(judge(&with("active"), None), None);
    }
}
