//! How often the journal hears of connections that were refused. No I/O, and no clock of its own.

use std::time::Duration;

/// One line in so long, however many there would be.
const SILENCE: Duration = Duration::from_secs(10);

/// Decides which lines are written, and counts those that are not.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// When the next line may be written.
    silent_until: Duration,
    unlogged: u64,
    total: u64,
}

impl Refusals {
    /// A refusal: `Some` when the journal is to be told, with how many it was not told of before.
    pub(super) fn note(&mut self, now: Duration) -> Option<u64> {
        self.total += 1;
        if now < self.silent_until {
            self.unlogged += 1;
            return None;
        }
        self.silent_until = now + SILENCE;
        Some(std::mem::take(&mut self.unlogged))
    }

    /// The count that is left when no further refusal will tell it; once.
    pub(super) fn overdue(&mut self, now: Duration) -> Option<u64> {
        if self.unlogged == 0 || now < self.silent_until {
            return None;
        }
        self.silent_until = now + SILENCE;
        Some(std::mem::take(&mut self.unlogged))
    }

    /// The count that is left, due or not.
    pub(super) fn take_unlogged(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.unlogged)).filter(|unlogged| *unlogged > 0)
    }

    /// When [`Self::overdue`] will have something to tell.
    pub(super) fn due(&self) -> Option<Duration> {
        (self.unlogged > 0).then_some(self.silent_until)
    }

    /// All refusals since the start.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Goes on counting from what an earlier program had counted.
    pub(super) fn continue_from(&mut self, total: u64) {
        self.total = total;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(100 + seconds)
    }

    #[test]
    fn first_one_is_told_at_once_and_the_others_are_counted() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.note(at(0)), Some(0));
        for _ in 0..41 {
            assert_eq!(refusals.note(at(9)), None);
        }
        assert_eq!(refusals.note(at(10)), Some(41));
        assert_eq!(refusals.total(), 43);
    }

    #[test]
    fn count_is_told_even_when_nobody_comes_any_more() {
        let mut refusals = Refusals::default();
        refusals.note(at(0));
        refusals.note(at(1));
        assert_eq!(refusals.overdue(at(9)), None);
        assert_eq!(refusals.due(), Some(at(10)));
        assert_eq!(refusals.overdue(at(10)), Some(1));
        assert_eq!(refusals.overdue(at(30)), None);
    }

    #[test]
    fn count_can_be_told_before_it_is_due() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.take_unlogged(), None);
        refusals.note(at(0));
        refusals.note(at(1));
        assert_eq!(refusals.take_unlogged(), Some(1));
        assert_eq!(refusals.overdue(at(30)), None);
    }
}
