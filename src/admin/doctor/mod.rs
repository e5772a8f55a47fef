//! `popa3d --check-config`: looks at the settings and at the host that they are for, and says in a line
//! each what is wrong and what mends it.
//!
//! It changes nothing. It reads files of root's; of what users can write it looks at names, owners and
//! modes, and opens none of it. Each subject has a file of its own, which gathers facts and judges
//! them; the judging is pure.

mod account;
mod certificates;
mod clock;
mod finding;
mod fitting;
mod journal;
mod kernel;
mod mailboxes;
mod outdated;
mod pam;
mod ports;
mod room;
mod spool;
mod state;
mod super_servers;
mod systemd;
mod units;
mod users;

use std::io::Write;
use std::process::ExitCode;

use crate::settings::{Place, Settings};
use finding::{Finding, Severity};

/// Exit status: all or many are not served, or would not be.
const MISTAKE: u8 = 2;

/// Prints what was found, the worst last.
#[must_use]
pub fn check(place: &Place) -> ExitCode {
    let mut findings = Vec::new();
    let settings = settings(place, &mut findings);
    let units = systemd::Units::now();
    findings.extend(pam::look());
    findings.extend(account::look());
    if let Some(settings) = &settings {
        let confinement = units.as_ref().map(systemd::Units::confinement);
        findings.extend(spool::look(settings, confinement));
        findings.extend(users::look(settings));
        findings.extend(certificates::look(settings));
        findings.extend(units.iter().flat_map(|units| fitting::look(settings, units)));
    }
    findings.extend(units::look(settings.as_ref(), units.as_ref()));
    findings.extend(state::look());
    findings.extend(kernel::look());
    findings.extend(clock::look());
    findings.extend(journal::look());
    say(findings)
}

/// The settings, if they can be used.
fn settings(place: &Place, findings: &mut Vec<Finding>) -> Option<Settings> {
    let path = place.path().display();
    match Settings::load(place) {
        Ok(settings) => {
            let is_there = place.path().exists();
            let finding =
                if is_there { "usable" } else { "does not exist, every setting has its default" };
            findings.push(Finding::fine(format!("{path}: {finding}")));
            let warnings = settings.warnings();
            findings.extend(
                warnings.iter().map(|text| Finding::warning(format!("{text} ({path})"), "")),
            );
            Some(settings)
        }
        Err(error) => {
            findings.push(Finding::error(
                error.to_string(),
                "nobody is served until this is mended, and mailboxes and certificates were not looked at",
            ));
            None
        }
    }
}

fn say(mut findings: Vec<Finding>) -> ExitCode {
    let (unseen, mut seen): (Vec<_>, Vec<_>) =
        findings.drain(..).partition(|finding| finding.severity == Severity::Unseen);
    if !unseen.is_empty() {
        let things: Vec<_> = unseen.into_iter().map(|finding| finding.text).collect();
        seen.push(Finding::hint(
            format!("only root can look at {}", things.join(", ")),
            "run it as root",
        ));
    }
    seen.sort_by_key(|finding| finding.severity);
    let text: String = seen.iter().map(|finding| format!("{finding}\n")).collect();
    let worst = seen.last().map_or(Severity::Fine, |finding| finding.severity);
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) if worst == Severity::Error => ExitCode::from(MISTAKE),
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
