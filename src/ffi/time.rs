//! Local time, as the host's time zone has it.

use std::mem::MaybeUninit;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::libc;

/// A date and time of day in the host's time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    /// Such as 2026.
    pub year: i32,
    /// From 1 to 12.
    pub month: i32,
    /// From 1 to 31.
    pub day: i32,
    /// From 0 to 23.
    pub hour: i32,
    /// From 0 to 59.
    pub minute: i32,
    /// From 0 to 60.
    pub second: i32,
}

impl LocalTime {
    /// What clocks showed here at `time`; `None` before 1970.
    #[must_use]
    pub fn of(time: SystemTime) -> Option<Self> {
        let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
        let seconds = libc::time_t::try_from(seconds).ok()?;
        let mut found = MaybeUninit::<libc::tm>::uninit();
        // SAFETY: both pointers are valid for the call, `found` for writing a tm.
        let result = unsafe { libc::localtime_r(&seconds, found.as_mut_ptr()) };
        if result.is_null() {
            return None;
        }
        // SAFETY: localtime_r(3) has filled it when it does not return NULL.
        let found = unsafe { found.assume_init() };
        Some(Self {
            year: found.tm_year + 1900,
            month: found.tm_mon + 1,
            day: found.tm_mday,
            hour: found.tm_hour,
            minute: found.tm_min,
            second: found.tm_sec,
        })
    }

    /// When clocks show this here; `None` when they never do, as on February 30, or did before 1970.
    #[must_use]
    pub fn time(self) -> Option<SystemTime> {
        // SAFETY: a tm consists of integers and a pointer, for all of which zero is a value.
        let mut wanted: libc::tm = unsafe { MaybeUninit::zeroed().assume_init() };
        wanted.tm_year = self.year.checked_sub(1900)?;
        wanted.tm_mon = self.month.checked_sub(1)?;
        wanted.tm_mday = self.day;
        wanted.tm_hour = self.hour;
        wanted.tm_min = self.minute;
        wanted.tm_sec = self.second;
        // Whether it is summer time is for the C library to find out.
        wanted.tm_isdst = -1;
        // SAFETY: `wanted` is a tm that may be written.
        let seconds = unsafe { libc::mktime(&mut wanted) };
        let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?);
        let shown = Self::of(time)?;
        // It takes the 30th of February for the 2nd of March.
        ((shown.year, shown.month, shown.day) == (self.year, self.month, self.day)).then_some(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clocks_show_is_found_again() {
        for seconds in [86_400_u64, 1_000_000_000, 1_795_624_775] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(LocalTime::of(time).unwrap().time(), Some(time));
        }
    }

    #[test]
    fn days_that_are_in_no_calendar_never_come() {
        let day = |month, day| LocalTime { year: 2026, month, day, hour: 0, minute: 0, second: 0 };
        assert!(day(2, 28).time().is_some());
        assert_eq!(day(2, 29).time(), None);
        assert_eq!(day(13, 1).time(), None);
    }
}
