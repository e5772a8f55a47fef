//! What is remembered of sources that failed to log in, and the rules for it: no file, no clock.

use std::time::Duration;

/// How much later than a first failure the next attempt is judged; each further failure doubles it.
const FIRST_DELAY: Duration = Duration::from_secs(1);

/// Failures are forgotten so long after the last one that counted.
pub(super) const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// Wrong passwords that an entry remembers: a mail client has one, a household a few of them.
const WRONG_PASSWORDS: usize = 3;

/// Sources that share a bucket.
const ENTRIES: usize = 4;

/// An entry as it is in the file: source, last failure, next turn, and the rest.
const WORDS: usize = 4;
const WORD: usize = 8;

/// Octets of a bucket in the file.
pub(super) const BUCKET: usize = ENTRIES * WORDS * WORD;

/// Nanoseconds since this host was booted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(pub(super) u64);

impl Moment {
    fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// `None` when `earlier` is later.
    fn since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_nanos)
    }
}

/// Stands for a source; keyed, so that nobody outside can make two alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SourceTag(pub(super) u64);

/// Stands for a user and a wrong password; keyed, never 0.
///
/// That it is so short keeps the password secret: of all that somebody might try, whoever got hold of
/// file and key, one in 65,536 fits, which is far too many to tell the right one. And it is
/// long enough: what a guesser gains when two are alike is that this guess is judged in its turn as any
/// other and only lets the delay be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PasswordMark(pub(super) u16);

/// When an attempt may be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::monitor) enum Turn {
    /// At once: nothing is held against its source.
    Free,
    /// After this wait, which may be none.
    After(Duration),
    /// Not at all, since its turn would be only after this wait.
    TooFar(Duration),
}

impl Turn {
    /// How long it is to be waited for, if at all.
    pub(in crate::monitor) fn wait(self) -> Option<Duration> {
        match self {
            Self::After(wait) | Self::TooFar(wait) => Some(wait).filter(|wait| !wait.is_zero()),
            Self::Free => None,
        }
    }
}

/// A few sources that have to share their room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bucket([Entry; ENTRIES]);

/// What is remembered of a source; free when there are no failures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Entry {
    source: SourceTag,
    /// When the last failure that counted was.
    last: Moment,
    /// From when on the next attempt may be judged.
    next: Moment,
    failures: u16,
    /// The latest first; 0 for none.
    wrong: [PasswordMark; WRONG_PASSWORDS],
}

impl Bucket {
    /// Lines an attempt up behind those before it; `longest` is both the longest delay and the longest
    /// wait.
    pub(super) fn take_turn(&mut self, source: SourceTag, now: Moment, longest: Duration) -> Turn {
        let Some(entry) = self.0.iter_mut().find(|entry| entry.is_of(source, now)) else {
            return Turn::Free;
        };
        // No attempt is put further ahead than this: it is damage, or `longest` was longer then.
        let is_possible = entry.next <= now.after(longest.saturating_mul(2));
        let turn = if is_possible { entry.next.max(now) } else { now };
        let wait = turn.since(now).unwrap_or_default();
        if wait > longest {
            return Turn::TooFar(wait);
        }
        entry.next = turn.after(delay(entry.failures, longest));
        Turn::After(wait)
    }

    /// Counts a failure, unless the same user had this very password wrong before; returns how many
    /// there are.
    pub(super) fn note_failure(
        &mut self,
        source: SourceTag,
        password: PasswordMark,
        now: Moment,
        longest: Duration,
    ) -> u16 {
        let known = self.0.iter().any(|entry| entry.is_of(source, now));
        let place = if known {
            self.0.iter_mut().find(|entry| entry.is_of(source, now))
        } else {
            // One that is free, or else the oldest one.
            let worth = |entry: &&mut Entry| entry.is_remembered(now).then_some(entry.last);
            self.0.iter_mut().min_by_key(worth).map(|entry| {
                *entry = Entry { source, ..Entry::default() };
                entry
            })
        };
        place.map_or(0, |entry| entry.fail(password, now, longest))
    }

    /// Takes one failure away: behind one address there may be many people, most of whom know their
    /// passwords. Whoever guesses between logins of his own pays each guess with one of those, and
    /// with the turns that both of them take.
    pub(super) fn note_success(&mut self, source: SourceTag, now: Moment) {
        if let Some(entry) = self.0.iter_mut().find(|entry| entry.is_of(source, now)) {
            entry.failures = entry.failures.saturating_sub(1);
        }
    }

    /// Any octets are a bucket: rules hold whatever is in it.
    pub(super) fn decode(octets: &[u8; BUCKET]) -> Self {
        let mut bucket = Self::default();
        for (entry, octets) in bucket.0.iter_mut().zip(octets.chunks_exact(WORDS * WORD)) {
            let mut words = [0; WORDS];
            for (word, octets) in words.iter_mut().zip(octets.chunks_exact(WORD)) {
                *word = u64::from_le_bytes(octets.try_into().unwrap_or_default());
            }
            *entry = Entry::decode(words);
        }
        bucket
    }

    pub(super) fn encode(&self) -> [u8; BUCKET] {
        let mut octets = [0; BUCKET];
        let words = self.0.iter().flat_map(|entry| entry.encode());
        for (place, word) in octets.chunks_exact_mut(WORD).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        octets
    }
}

impl Entry {
    fn is_of(&self, source: SourceTag, now: Moment) -> bool {
        self.source == source && self.is_remembered(now)
    }

    /// Free ones are not, nor are those from the future, which is damage.
    fn is_remembered(&self, now: Moment) -> bool {
        self.failures > 0 && now.since(self.last).is_some_and(|age| age < FORGOTTEN_AFTER)
    }

    fn fail(&mut self, password: PasswordMark, now: Moment, longest: Duration) -> u16 {
        let known = self.wrong.iter().position(|wrong| *wrong == password);
        let last = known.unwrap_or(WRONG_PASSWORDS - 1);
        if let Some(moved) = self.wrong.get_mut(..=last) {
            moved.rotate_right(1);
        }
        if known.is_none() {
            if let Some(latest) = self.wrong.first_mut() {
                *latest = password;
            }
            self.failures = self.failures.saturating_add(1);
            self.last = now;
            self.next = self.next.max(now.after(delay(self.failures, longest)));
        }
        self.failures
    }

    fn decode([source, last, next, rest]: [u64; WORDS]) -> Self {
        let [a, b, c, d, e, f, g, h] = rest.to_le_bytes();
        let pairs = [[c, d], [e, f], [g, h]];
        Self {
            source: SourceTag(source),
            last: Moment(last),
            next: Moment(next),
            failures: u16::from_le_bytes([a, b]),
            wrong: pairs.map(|pair| PasswordMark(u16::from_le_bytes(pair))),
        }
    }

    fn encode(self) -> [u64; WORDS] {
        let [a, b] = self.failures.to_le_bytes();
        let [[c, d], [e, f], [g, h]] = self.wrong.map(|mark| mark.0.to_le_bytes());
        let rest = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        [self.source.0, self.last.0, self.next.0, rest]
    }
}

/// How far apart attempts are judged after so many failures.
fn delay(failures: u16, longest: Duration) -> Duration {
    let doublings = u32::from(failures).saturating_sub(1);
    FIRST_DELAY.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(longest)
}

#[cfg(test)]
mod tests;
