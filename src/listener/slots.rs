//! Who has how many sessions, and whether there may be one more. No I/O, and no clock of its own.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use nix::unistd::Pid;

use super::regulars::Regulars;
use crate::settings::Settings;
use crate::source::Source;

/// A client that has been here for so long without logging in may have to make room for a new one.
/// Programs take a second, over a bad line two; and the less it is, the more strangers can try while
/// a flood comes from many sources.
const TIME_TO_LOG_IN: Duration = Duration::from_secs(3);

/// So many sessions that were told to end, and have not yet, may be above the limit of all: they have a
/// last line to send. Less than the descriptors that the listener has to spare.
const MAKING_ROOM: usize = 32;

/// How many sessions there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Of everybody.
    pub(super) sessions: usize,
    /// Of one source, with those that ended less than [`Self::slot`] after they began.
    pub(super) per_source: u32,
    /// Of everybody who has not logged in.
    pub(super) unauthenticated: usize,
    /// How long a session counts at least: it limits how often a source may come.
    pub(super) slot: Duration,
}

impl From<&Settings> for Limits {
    fn from(settings: &Settings) -> Self {
        Self {
            sessions: settings.max_sessions.0 as usize,
            per_source: settings.max_sessions_per_source.0,
            unauthenticated: settings.max_unauthenticated.0 as usize,
            slot: settings.session_slot.0,
        }
    }
}

/// Why there cannot be one more session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// All slots are taken, and nobody can be made to go.
    Sessions,
    /// The source has all that it may have.
    Source,
    /// It would have, but has come too often in the last seconds.
    TooOften,
    /// Too many have not logged in, and none of them can be made to go.
    Unauthenticated,
}

impl Full {
    /// What the client reads.
    pub(super) fn reply(self) -> &'static [u8] {
        match self {
            Self::Sessions | Self::Unauthenticated => {
                b"-ERR [SYS/TEMP] too many connections, try again later\r\n"
            }
            Self::Source => b"-ERR [SYS/TEMP] too many connections from your address\r\n",
            Self::TooOften => b"-ERR [LOGIN-DELAY] too many connections in a short time\r\n",
        }
    }

    /// What the journal says.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Sessions => "sessions limit reached",
            Self::Unauthenticated => "limit of sessions without login reached",
            Self::Source => "per source limit reached",
            Self::TooOften => "per source limit reached, with sessions that have just ended",
        }
    }
}

/// What is to be done about a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// There is room.
    Free,
    /// There is, once this session was ended, which has not logged in.
    InPlaceOf(Pid),
    /// There is none.
    Refused(Full),
}

/// One session that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// Where its client is; `None` when that is not on a network or behind a proxy that has not said
    /// so yet.
    pub(super) source: Option<Source>,
    /// When it began, by the monotonic clock.
    pub(super) since: Duration,
    /// Whether somebody has logged in.
    pub(super) authenticated: bool,
    /// Whether it was told to end.
    pub(super) ending: bool,
}

/// All sessions.
#[derive(Debug)]
pub(super) struct Slots {
    limits: Limits,
    live: HashMap<Pid, Slot>,
    unauthenticated: usize,
    /// Live sessions of each source …
    per_source: HashMap<Source, u32>,
    /// … and those that ended, and still count until then.
    ended: BinaryHeap<Reverse<(Duration, Source)>>,
    ended_per_source: HashMap<Source, u32>,
    /// Sources that somebody logged in from.
    pub(super) regulars: Regulars,
}

impl Slots {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            live: HashMap::new(),
            unauthenticated: 0,
            per_source: HashMap::new(),
            ended: BinaryHeap::new(),
            ended_per_source: HashMap::new(),
            regulars: Regulars::default(),
        }
    }

    /// How many sessions go on.
    pub(super) fn count(&self) -> usize {
        self.live.len()
    }

    /// Whether this is the process of one of them.
    pub(super) fn contains(&self, pid: Pid) -> bool {
        self.live.contains_key(&pid)
    }

    /// How many of them have not logged in.
    pub(super) fn unauthenticated(&self) -> usize {
        self.unauthenticated
    }

    /// The processes of all sessions that go on.
    pub(super) fn processes(&self) -> impl Iterator<Item = (Pid, &Slot)> {
        self.live.iter().map(|(pid, slot)| (*pid, slot))
    }

    /// What still counts of sessions that have ended: until when, and for whom.
    pub(super) fn ended(&self) -> impl Iterator<Item = (Duration, Source)> {
        self.ended.iter().map(|Reverse(ended)| *ended)
    }

    /// Whether a client from `source` may have one more session.
    pub(super) fn admit(&mut self, source: Option<Source>, now: Duration) -> Admission {
        self.forget_ended(now);
        if self.live.len() >= self.limits.sessions + MAKING_ROOM {
            return Admission::Refused(Full::Sessions);
        }
        if let Err(full) = self.source_has_room(source) {
            return Admission::Refused(full);
        }
        let full = if self.live.len() >= self.limits.sessions {
            Full::Sessions
        } else if self.unauthenticated >= self.limits.unauthenticated {
            Full::Unauthenticated
        } else {
            return Admission::Free;
        };
        match self.dispensable(source, full, now) {
            Some(pid) => Admission::InPlaceOf(pid),
            None => Admission::Refused(full),
        }
    }

    /// Notes a session that began.
    pub(super) fn insert(&mut self, pid: Pid, slot: Slot) {
        if let Some(source) = slot.source {
            *self.per_source.entry(source).or_default() += 1;
        }
        self.unauthenticated += usize::from(!slot.authenticated);
        self.live.insert(pid, slot);
    }

    /// Notes a session that has ended, and counts for its source until then.
    pub(super) fn insert_ended(&mut self, until: Duration, source: Source) {
        self.ended.push(Reverse((until, source)));
        *self.ended_per_source.entry(source).or_default() += 1;
    }

    /// Notes that a session has learned where its client is; whether that source may have it.
    pub(super) fn place(&mut self, pid: Pid, source: Source, now: Duration) -> Result<(), Full> {
        self.forget_ended(now);
        self.source_has_room(Some(source))?;
        if let Some(slot) = self.live.get_mut(&pid) {
            let before = slot.source.replace(source);
            *self.per_source.entry(source).or_default() += 1;
            if let Some(before) = before {
                decrease(&mut self.per_source, before);
            }
        }
        Ok(())
    }

    /// Notes that somebody has logged in.
    pub(super) fn logged_in(&mut self, pid: Pid) {
        if let Some(slot) = self.live.get_mut(&pid) {
            if !std::mem::replace(&mut slot.authenticated, true) {
                self.unauthenticated -= 1;
                slot.source.into_iter().for_each(|source| self.regulars.note(source));
            }
        }
    }

    /// Notes that a session was told to end.
    pub(super) fn told_to_end(&mut self, pid: Pid) {
        if let Some(slot) = self.live.get_mut(&pid) {
            slot.ending = true;
        }
    }

    /// Notes that a process has ended; whether it was a session.
    pub(super) fn remove(&mut self, pid: Pid, now: Duration) -> bool {
        let Some(slot) = self.live.remove(&pid) else { return false };
        self.unauthenticated -= usize::from(!slot.authenticated);
        if let Some(source) = slot.source {
            decrease(&mut self.per_source, source);
            let counts_until = slot.since + self.limits.slot;
            if counts_until > now {
                self.insert_ended(counts_until, source);
            }
        }
        true
    }

    fn source_has_room(&self, source: Option<Source>) -> Result<(), Full> {
        let Some(source) = source else { return Ok(()) };
        let of = |counts: &HashMap<Source, u32>| counts.get(&source).copied().unwrap_or(0);
        let live = of(&self.per_source);
        if live >= self.limits.per_source {
            Err(Full::Source)
        } else if live + of(&self.ended_per_source) >= self.limits.per_source {
            Err(Full::TooOften)
        } else {
            Ok(())
        }
    }

    /// The session without a login that has to make room for a client from `source`, with those who are
    /// `full`. Where too many have not logged in it is the oldest one of the source that has most of these,
    /// strangers first: a source that floods pays for it itself. Of all sessions, two may be most: there it
    /// is the oldest stranger's, or else the oldest. When nobody floods, strangers pay for regulars, and
    /// whoever took long for anybody.
    fn dispensable(&self, source: Option<Source>, full: Full, now: Duration) -> Option<Pid> {
        let is_regular =
            |source: Option<Source>| source.is_some_and(|source| self.regulars.know(source));
        let waiting = || {
            let slots = self.live.iter();
            slots.filter(|(_, slot)| !slot.authenticated && !slot.ending)
        };
        let mut counts: HashMap<Option<Source>, u32> = HashMap::new();
        for (_, slot) in waiting() {
            *counts.entry(slot.source).or_default() += 1;
        }
        let own = counts.get(&source).copied().unwrap_or(0);
        let most = counts.values().copied().max()?;
        let tells = full == Full::Unauthenticated;
        let (pid, slot) = waiting()
            .filter(|(_, slot)| !tells || counts.get(&slot.source) == Some(&most))
            .min_by_key(|(_, slot)| (is_regular(slot.source), slot.since))?;
        let is_due = tells && most > own + 1
            || slot.since + TIME_TO_LOG_IN <= now
            || is_regular(source) && !is_regular(slot.source);
        is_due.then_some(*pid)
    }

    fn forget_ended(&mut self, now: Duration) {
        while let Some(Reverse((until, source))) = self.ended.peek().copied() {
            if until > now {
                return;
            }
            self.ended.pop();
            decrease(&mut self.ended_per_source, source);
        }
    }
}

fn decrease(counts: &mut HashMap<Source, u32>, source: Source) {
    if let Some(count) = counts.get_mut(&source) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&source);
        }
    }
}

#[cfg(test)]
mod tests;
