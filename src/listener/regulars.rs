//! Where users have logged in from before: when more clients come than can be served, those sources
//! come first. No I/O, and no clock.

use std::collections::HashSet;

use crate::source::Source;

/// So many sources make a generation: memory is bounded, and whoever logs in again and again stays known.
const GENERATION: usize = 20_000;

/// Sources of the present generation and of the one before.
#[derive(Debug, Default)]
pub(super) struct Regulars {
    newer: HashSet<Source>,
    older: HashSet<Source>,
}

impl Regulars {
    /// Somebody has logged in from there.
    pub(super) fn note(&mut self, source: Source) {
        if self.newer.len() >= GENERATION && !self.newer.contains(&source) {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(source);
    }

    /// Whether somebody has, and not too many others since.
    pub(super) fn know(&self, source: Source) -> bool {
        self.newer.contains(&source) || self.older.contains(&source)
    }

    /// All that are known, the latest ones last.
    pub(super) fn all(&self) -> impl Iterator<Item = Source> {
        self.older.iter().chain(&self.newer).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: usize) -> Source {
        Source::of(std::net::Ipv4Addr::from(u32::try_from(number).unwrap()).into())
    }

    #[test]
    fn source_that_comes_again_stays_known_however_many_others_come() {
        let mut regulars = Regulars::default();
        for number in 1..5 * GENERATION {
            regulars.note(source(number));
            if number % (GENERATION / 2) == 0 {
                regulars.note(source(0));
            }
        }
        assert!(regulars.know(source(0)));
    }

    #[test]
    fn source_that_does_not_come_again_is_forgotten() {
        let mut regulars = Regulars::default();
        for number in 0..=2 * GENERATION {
            regulars.note(source(number));
        }
        assert!(!regulars.know(source(0)));
        assert!(regulars.know(source(GENERATION)));
        assert!(regulars.all().count() <= 2 * GENERATION);
    }
}
