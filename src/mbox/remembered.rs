//! The unique-ids that have to be kept between sessions, and the text they are kept in. Runs in
//! the worker.
//!
//! One line an entry, fields separated by one space:
//!
//! ```text
//! 2361652db9c46537 9e107d9d372bb6826bd81d3542a419d6 0
//! 2361652db9c46537 e4d909c290d0fb1ca068ffaddf22cbd0 1-3
//! ```
//!
//! The id as 1.0.3 gives it, the digest of the content, and which of the ids made of these two
//! are in use: 0 is the id without suffix. Only ids that more than one message had are here, so
//! for nearly every mailbox there is nothing to remember.

use std::fmt;

use super::unique_id::{BaseId, ContentId, Ordinal};

/// More entries than a mailbox within the limits can need are not read.
const MAX_ENTRIES: usize = 1 << 22;

/// The longest line: 16 and 32 digits, two ordinals of 10, separators.
const MAX_LINE: usize = 16 + 1 + 32 + 1 + 10 + 1 + 10;

/// What is remembered of the unique-ids of one maildrop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Ascending, and none overlaps another.
    entries: Vec<Entry>,
}

/// Copies of one content whose ids are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) base: BaseId,
    pub(super) content: ContentId,
    pub(super) first: Ordinal,
    pub(super) last: Ordinal,
}

impl Remembered {
    /// Reads what [`Remembered`] prints. Lines that are no entry are passed over, so a damaged
    /// file costs the ids that were in the damage and no more; their count is returned.
    pub fn parse(text: &[u8]) -> (Self, usize) {
        let mut entries = Vec::new();
        let mut damaged = 0;
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match Entry::parse(line).filter(|_| entries.len() < MAX_ENTRIES) {
                Some(entry) => entries.push(entry),
                None => damaged += 1,
            }
        }
        entries.sort_unstable();
        let read = entries.len();
        let mut end = None;
        entries.retain(|entry| {
            let start = (entry.base, entry.content, entry.first);
            let is_apart = end.is_none_or(|end| end < start);
            if is_apart {
                end = Some((entry.base, entry.content, entry.last));
            }
            is_apart
        });
        damaged += read - entries.len();
        (Self { entries }, damaged)
    }

    /// There is nothing to remember.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries of one base id.
    pub(super) fn of(&self, base: BaseId) -> &[Entry] {
        let from = self.entries.partition_point(|entry| entry.base < base);
        let to = self.entries.partition_point(|entry| entry.base <= base);
        self.entries.get(from..to).unwrap_or_default()
    }

    /// Remembers ids that were told apart, except where only one without suffix is left.
    pub(super) fn of_ordinals(ids: impl Iterator<Item = (BaseId, ContentId, Ordinal)>) -> Self {
        let mut all: Vec<Entry> = ids
            .map(|(base, content, ordinal)| Entry { base, content, first: ordinal, last: ordinal })
            .collect();
        all.sort_unstable();
        let mut entries: Vec<Entry> = Vec::new();
        for group in all.chunk_by(|a, b| a.base == b.base) {
            if matches!(group, [Entry { last: 0, .. }]) {
                continue;
            }
            for entry in group {
                match entries.last_mut().filter(|last| last.is_followed_by(entry)) {
                    Some(last) => last.last = entry.last,
                    None => entries.push(*entry),
                }
            }
        }
        Self { entries }
    }
}

impl fmt::Display for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Entry { base, content, first, last } in &self.entries {
            if first == last {
                writeln!(f, "{base} {content} {first}")?;
            } else {
                writeln!(f, "{base} {content} {first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl Entry {
    fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok().filter(|line| line.len() <= MAX_LINE)?;
        let (base, rest) = line.split_once(' ')?;
        let (content, ordinals) = rest.split_once(' ')?;
        let (first, last) = ordinals.split_once('-').unwrap_or((ordinals, ordinals));
        let entry = Self {
            base: BaseId(u64::from_str_radix(digits(base, 16)?, 16).ok()?),
            content: ContentId(u128::from_str_radix(digits(content, 32)?, 16).ok()?.to_be_bytes()),
            first: first.parse().ok()?,
            last: last.parse().ok()?,
        };
        // Where ordinals end, no new one could be given.
        (entry.first <= entry.last && entry.last < Ordinal::MAX / 2).then_some(entry)
    }

    fn is_followed_by(&self, next: &Self) -> bool {
        (self.base, self.content) == (next.base, next.content)
            && self.last.checked_add(1) == Some(next.first)
    }
}

/// `text`, when it is that many lower-case hexadecimal digits.
fn digits(text: &str, count: usize) -> Option<&str> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == count && text.bytes().all(is_digit)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mbox::samples::Random;

    const A: &str = "2361652db9c46537 9e107d9d372bb6826bd81d3542a419d6 0\n";
    const B: &str = "2361652db9c46537 e4d909c290d0fb1ca068ffaddf22cbd0 1-3\n";

    #[test]
    fn what_is_printed_is_read_again() {
        let text = format!("{A}{B}");
        let (remembered, damaged) = Remembered::parse(text.as_bytes());
        assert_eq!((remembered.to_string(), damaged), (text, 0));
    }

    #[test]
    fn damaged_lines_cost_only_themselves() {
        let lines = [
            "",
            "2361652DB9C46537 9e107d9d372bb6826bd81d3542a419d6 0",
            "2361652db9c46537 9e107d9d372bb6826bd81d3542a419d6",
            "2361652db9c46537 9e107d9d372bb6826bd81d3542a419d6 x",
            "2361652db9c46537 9e107d9d372bb6826bd81d3542a419d6 3-2",
            "2361652db9c46537 9e107d9d372bb6826bd81d3542a419d6 4294967295",
            "2361652db9c46537 9e107d9d372bb6826bd81d3542a419d6 4294967296",
            "+361652db9c46537 9e107d9d372bb6826bd81d3542a419d6 0",
            "2361652db9c4653\u{e9} 9e107d9d372bb6826bd81d3542a419d6 0",
            "\0\0\0\0",
        ];
        for line in lines {
            let (remembered, damaged) = Remembered::parse(format!("{A}{line}\n{B}").as_bytes());
            assert_eq!(remembered.to_string(), format!("{A}{B}"), "{line}");
            assert_eq!(damaged, usize::from(!line.is_empty()), "{line}");
        }
    }

    #[test]
    fn entries_that_overlap_are_not_taken_twice() {
        let (remembered, damaged) = Remembered::parse(format!("{B}{B}{A}").as_bytes());
        assert_eq!((remembered.to_string(), damaged), (format!("{A}{B}"), 1));
        let within = B.replace("1-3", "2");
        assert_eq!(Remembered::parse(format!("{B}{within}").as_bytes()).0.to_string(), B);
    }

    #[test]
    fn any_bytes_have_an_answer() {
        let mut random = Random::new(1);
        for _ in 0..2000 {
            let mut text = format!("{A}{B}{A}").into_bytes();
            for _ in 0..3 {
                let at = random.below(text.len());
                text[at] = u8::try_from(random.below(256)).unwrap();
            }
            let (once, _) = Remembered::parse(&text);
            assert_eq!(Remembered::parse(once.to_string().as_bytes()), (once, 0));
        }
    }
}
