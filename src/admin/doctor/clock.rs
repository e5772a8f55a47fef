//! The clock: certificates, expiry of accounts and ages of locks hang on it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::finding::Finding;
use crate::ffi::clock::{Synchronisation, synchronisation};

/// A certificate is not valid so long, nor a host without an upgrade.
const LONG: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

const SET: &str = "run: timedatectl set-ntp true (or set it: date -s 'YYYY-MM-DD HH:MM:SS')";

pub(super) fn look() -> Vec<Finding> {
    // dpkg leaves a program the time at which it was built.
    let program = std::env::current_exe().and_then(std::fs::metadata);
    let built = program.and_then(|program| program.modified()).ok();
    vec![judge(SystemTime::now(), built, synchronisation().ok())]
}

fn judge(
    now: SystemTime,
    built: Option<SystemTime>,
    synchronised: Option<Synchronisation>,
) -> Finding {
    let year = year(now);
    if let Some(built) = built {
        if now < built {
            let text = format!(
                "clock: it is set to the year {year}, before this program was built: certificates, \
                 accounts that expire and ages of locks are judged wrongly"
            );
            return Finding::error(text, SET);
        }
        if now.duration_since(built).is_ok_and(|age| age > LONG) {
            let text = format!(
                "clock: it is set to the year {year}, long after this program was built: \
                 certificates and accounts count as expired"
            );
            return Finding::error(text, SET);
        }
    }
    match synchronised {
        Some(Synchronisation::Kept) => Finding::fine("clock: synchronised"),
        Some(Synchronisation::Lost) => Finding::hint(
            "clock: plausible, but nothing on this host keeps it in step",
            "where no hypervisor does, run: timedatectl set-ntp true",
        ),
        None => Finding::fine("clock: plausible"),
    }
}

/// The year of a point in time, in UTC; of those before 1970, that one.
fn year(time: SystemTime) -> u64 {
    let days = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400;
    // 400 years have 146097 days; one day more or less does not matter here.
    1970 + days * 400 / 146_097
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    const BUILT: u64 = 1_790_000_000;

    #[test]
    fn clock_before_the_program_was_built_is_an_error() {
        let found = judge(at(86_400), Some(at(BUILT)), Some(Synchronisation::Kept)).to_string();
        assert!(found.starts_with("error: clock: it is set to the year 1970, before"), "{found}");
    }

    #[test]
    fn clock_decades_ahead_is_an_error() {
        let found = judge(at(BUILT + 40 * 31_556_952), Some(at(BUILT)), None).to_string();
        assert!(found.starts_with("error: clock: it is set to the year 2066, long"), "{found}");
    }

    #[test]
    fn clock_that_nobody_keeps_is_worth_a_note() {
        let found = judge(at(BUILT + 1), Some(at(BUILT)), Some(Synchronisation::Lost)).to_string();
        assert!(found.starts_with("note: clock: plausible"), "{found}");
        for (synchronised, text) in
            [(Some(Synchronisation::Kept), "clock: synchronised"), (None, "clock: plausible")]
        {
            assert_eq!(judge(at(BUILT + 1), None, synchronised).to_string(), text);
        }
    }

    #[test]
    fn years_are_counted_with_leap_days() {
        assert_eq!(year(at(0)), 1970);
        assert_eq!(year(at(1_767_398_400)), 2026);
    }
}
