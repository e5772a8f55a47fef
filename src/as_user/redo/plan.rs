//! Which octet goes where.

use crate::channel::Range;

/// A removal: offsets in the old mailbox ("source") and in the new one ("place").
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    doomed: Vec<Range>,
    /// For each doomed range, the place of what follows it.
    places: Vec<u64>,
}

impl Plan {
    /// `None` when `doomed` is not a list of ascending ranges within `size`, or empty.
    pub(super) fn new(doomed: &[Range], size: u64) -> Option<Self> {
        let mut merged: Vec<Range> = Vec::with_capacity(doomed.len());
        for range in doomed {
            let least = merged.last().map_or(0, |last| last.end);
            if range.start < least || range.end <= range.start || range.end > size {
                return None;
            }
            match merged.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                Some(_) | None => merged.push(*range),
            }
        }
        let mut removed = 0;
        let places = merged
            .iter()
            .map(|range| {
                removed += range.end - range.start;
                range.end - removed
            })
            .collect();
        (!merged.is_empty()).then_some(Self { doomed: merged, places })
    }

    pub(super) fn doomed(&self) -> &[Range] {
        &self.doomed
    }

    /// Where the first change is: everything before stays untouched.
    pub(super) fn first_place(&self) -> u64 {
        self.doomed.first().map_or(0, |range| range.start)
    }

    /// Behind the last octet that is removed: from here on everything is kept.
    pub(super) fn last_source(&self) -> u64 {
        self.doomed.last().map_or(0, |range| range.end)
    }

    /// How many octets are removed.
    pub(super) fn removed(&self) -> u64 {
        self.doomed.iter().map(|range| range.end - range.start).sum()
    }

    /// The source of what belongs at `place`, at least [`Self::first_place`].
    pub(super) fn source(&self, place: u64) -> u64 {
        let index = self.places.partition_point(|start| *start <= place).saturating_sub(1);
        match (self.doomed.get(index), self.places.get(index)) {
            (Some(range), Some(start)) => range.end + place.saturating_sub(*start),
            _ => place,
        }
    }

    /// How many octets from `source` on follow each other in the old mailbox, all kept.
    pub(super) fn run_from(&self, source: u64) -> u64 {
        let index = self.doomed.partition_point(|range| range.start <= source);
        self.doomed.get(index).map_or(u64::MAX, |next| next.start - source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(doomed: &[(u64, u64)]) -> Option<Plan> {
        let ranges: Vec<Range> =
            doomed.iter().map(|(start, end)| Range { start: *start, end: *end }).collect();
        Plan::new(&ranges, 100)
    }

    #[test]
    fn each_place_has_the_source_that_removal_gives_it() {
        let plan = plan(&[(10, 20), (30, 35), (35, 40)]).unwrap();
        let kept: Vec<u64> =
            (10..100).filter(|n| !(10..20).contains(n) && !(30..40).contains(n)).collect();
        for (index, source) in kept.iter().enumerate() {
            assert_eq!(plan.source(10 + index as u64), *source);
        }
        assert_eq!(plan.run_from(20), 10);
        assert_eq!(plan.run_from(29), 1);
        assert_eq!(plan.run_from(40), u64::MAX);
        assert_eq!(plan.removed(), 20);
    }

    #[test]
    fn ranges_that_overlap_descend_are_empty_or_leave_the_file_are_no_plan() {
        for doomed in [&[(2, 4), (3, 6)][..], &[(4, 5), (1, 2)], &[(3, 3)], &[(98, 101)], &[]] {
            assert_eq!(plan(doomed), None, "{doomed:?}");
        }
    }
}
