//! The mailbox file of a session: whether it changed since it was scanned, and where its messages
//! are now.
//!
//! The session holds no locks, and could get none that every program respects. As long as the file
//! is in the state in which it was scanned at login, under locks, a look at its time stamps is all
//! that a message costs. Another state may be that of a write that goes on: the time of a file is
//! that of the beginning. So after a change, a message is looked at as a whole, and what is read of it
//! then must have the checksums that it had; if it is not where it was, the whole file is scanned,
//! and the messages are found again by their identity.
//!
//! The descriptor stays with the file that was scanned: one that another program replaced or
//! removed is still right to serve. UPDATE looks at what is there under the name.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, SystemTime};

use super::maildrop::{trouble, unreadable};
use crate::channel::Trouble;
use crate::mbox::{self, Index, Limits, Message, ScanError, Sealed, Source};

/// No two changes so far apart have the same time stamps. Linux takes these from its tick, which
/// is 10 ms at most.
const TICK: Duration = Duration::from_millis(100);

/// The same, when the file system keeps whole seconds only, or two of them.
const COARSE_TICK: Duration = Duration::from_secs(2);

/// How often a mailbox that changes while it is scanned is scanned again.
const TRIES: usize = 3;

/// How often a session looks for messages that are not where they were. Each time takes a change
/// by another program; one that changes the mailbox for ever is not followed for ever.
const SEARCHES: u32 = 200;

/// The file, and what is known of it.
pub(super) struct Mailbox {
    file: File,
    limits: Limits,
    key: u64,
    /// What it was in when it was last scanned.
    state: State,
    /// Where the messages of the maildrop are in that state; `None` when that is the first one.
    places: Option<Vec<Option<Message>>>,
    /// How much was read since then to see whether messages are still where they were.
    checked: u64,
    searches: u32,
}

/// Two equal ones mean: nobody changed the file in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// Whether the time stamps are old enough to be trusted.
    settled: bool,
}

/// Why a message cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// Another program removed it, or changed what is not its own note.
    Gone,
    /// Another program is at it just now.
    Changing,
}

impl State {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            settled: is_settled(&metadata),
        })
    }

    /// Whether a file in the state `now` surely has the content that it had in this one.
    fn surely_is(&self, now: &Self) -> bool {
        self.settled && self.seems(now)
    }

    /// Whether the time stamps saw no difference.
    fn seems(&self, now: &Self) -> bool {
        Self { settled: self.settled, ..*now } == *self
    }
}

/// Whether a change from now on shows in the time stamps. By the time of the last change of the
/// inode, as mail programs set the other one as they like.
fn is_settled(metadata: &Metadata) -> bool {
    let tick = if metadata.ctime_nsec() == 0 { COARSE_TICK } else { TICK };
    let changed = u64::try_from(metadata.ctime())
        .ok()
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
        .zip(u64::try_from(metadata.ctime_nsec()).ok())
        .and_then(|(time, rest)| time.checked_add(Duration::from_nanos(rest)));
    // In the future it is when the clock was set back: a change would not be there, but here.
    let away = |time| SystemTime::now().duration_since(time).unwrap_or_else(|e| e.duration());
    changed.is_some_and(|time| away(time) >= tick)
}

impl Mailbox {
    /// Reads the locked mailbox.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn scan(file: OwnedFd, limits: &Limits, key: u64) -> Result<(Self, Index), Trouble> {
        let file = File::from(file);
        let (scanned, state) = scan(&file, limits, key)?;
        let index = scanned.map_err(trouble)?;
        let mailbox = Self {
            file,
            limits: *limits,
            key,
            state,
            places: None,
            checked: 0,
            searches: SEARCHES,
        };
        Ok((mailbox, index))
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Whether `other` is this file, unchanged since login.
    ///
    /// A later scan does not count, as it was made without locks: of a write that went on then, the
    /// file has the time of its beginning, and shows no other one when it is through.
    pub(super) fn is_unchanged_in(&self, other: &File) -> bool {
        self.places.is_none() && State::of(other).is_ok_and(|now| self.state.surely_is(&now))
    }

    /// Whether `message` is in `other` at its place.
    pub(super) fn is_in_place(&self, other: &File, message: &Message) -> bool {
        mbox::still_there(other, message, self.key).unwrap_or(false)
    }

    /// Scans another state of the mailbox for comparison.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn scan_other(&self, other: &File) -> Result<Index, Trouble> {
        let (scanned, _) = scan(other, &self.limits, self.key)?;
        scanned.map_err(trouble)
    }

    /// Where message `number`, counted from 0, of the maildrop was when the file was last scanned.
    pub(super) fn place(&self, index: &Index, number: usize) -> Option<Message> {
        match &self.places {
            None => index.messages().get(number).copied(),
            Some(places) => places.get(number).copied().flatten(),
        }
    }

    /// The same when the file is surely in the state of login; and the state.
    pub(super) fn surely_at(&self, index: &Index, number: usize) -> Option<(Message, State)> {
        if self.is_unchanged_in(&self.file) {
            self.place(index, number).map(|place| (place, self.state))
        } else {
            None
        }
    }

    /// Whether the file surely has the content that it had in the state `then`, that of login.
    pub(super) fn surely_is(&self, then: &State) -> bool {
        State::of(&self.file).is_ok_and(|now| then.surely_is(&now))
    }

    /// Where it is now, and how to read it there.
    ///
    /// # Errors
    ///
    /// It is not to be had.
    pub(super) fn find(&mut self, index: &Index, number: usize) -> Result<(Message, Proof), Lost> {
        let now = State::of(&self.file).map_err(|_| Lost::Changing)?;
        let place = self.place(index, number);
        if self.places.is_none() && self.state.surely_is(&now) {
            return place.map(|place| (place, Proof::Unchanged(self.state))).ok_or(Lost::Gone);
        }
        let known = place.or_else(|| index.messages().get(number).copied());
        let range = known.map_or(0..0, |message| message.range());
        self.checked = self.checked.saturating_add(range.end.saturating_sub(range.start));
        if let Some(found) = place.and_then(|place| self.seal(place)) {
            return Ok(found);
        }
        // When that has cost as much as another scan would, one more does no harm.
        let scan_pays = self.checked >= now.size;
        if place.is_none() && !scan_pays && self.state.seems(&now) {
            if self.state.settled {
                return Err(Lost::Gone);
            }
            if !now.settled {
                return Err(Lost::Changing);
            }
        }
        if !scan_pays {
            self.searches = self.searches.checked_sub(1).ok_or(Lost::Changing)?;
        }
        self.checked = 0;
        self.scan_again(index).map_err(|_| Lost::Changing)?;
        match self.place(index, number) {
            Some(place) => self.seal(place).ok_or(Lost::Changing),
            None if self.state.settled => Err(Lost::Gone),
            // Half-way through a change, what is missing may come yet.
            None => Err(Lost::Changing),
        }
    }

    /// For reading the message that was found with this proof.
    pub(super) fn reader<'a>(&'a self, proof: &'a mut Proof) -> Reader<'a> {
        Reader { file: &self.file, proof }
    }

    fn seal(&self, place: Message) -> Option<(Message, Proof)> {
        let sealed = mbox::seal(&self.file, &place, self.key).ok().flatten()?;
        Some((place, Proof::Sealed(sealed)))
    }

    /// Finds every message again, as far as they are there just now.
    fn scan_again(&mut self, index: &Index) -> Result<(), Trouble> {
        let mut state = State::of(&self.file).map_err(unreadable)?;
        let now = match mbox::scan(&self.file, state.size, &self.limits, self.key) {
            // No message is left where none begins.
            Err(ScanError::NotMbox { .. }) => Index::default(),
            scanned => scanned.map_err(trouble)?,
        };
        state.settled &= state.seems(&State::of(&self.file).map_err(unreadable)?);
        // Not both the old and the new ones in memory.
        self.places = None;
        let places = mbox::relocate(index, &now, |_| false);
        let at = |place: Option<usize>| now.messages().get(place?).copied();
        self.places = Some(places.into_iter().map(at).collect());
        self.state = state;
        Ok(())
    }
}

/// What shows that the octets of a message are right.
pub(super) enum Proof {
    /// The file was in this state of login, and must still be when they are read.
    Unchanged(State),
    /// They were seen, and must be the same when they are read.
    Sealed(Sealed),
}

/// Reads what is right, or fails.
pub(super) struct Reader<'a> {
    file: &'a File,
    proof: &'a mut Proof,
}

impl Source for Reader<'_> {
    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self.proof {
            Proof::Unchanged(state) => {
                self.file.read_exact_at(buffer, offset)?;
                let is_right = state.surely_is(&State::of(self.file)?);
                if is_right { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
            }
            Proof::Sealed(sealed) => sealed.read_exact_at(self.file, buffer, offset),
        }
    }
}

/// Scans a file; returns what came of it, and the state in which it is so.
fn scan(
    file: &File,
    limits: &Limits,
    key: u64,
) -> Result<(Result<Index, ScanError>, State), Trouble> {
    let mut state = State::of(file).map_err(unreadable)?;
    for _ in 0..TRIES {
        let scanned = mbox::scan(file, state.size, limits, key);
        let now = State::of(file).map_err(unreadable)?;
        if state.seems(&now) && !matches!(scanned, Err(ScanError::Shrunk)) {
            return Ok((scanned, state));
        }
        // Somebody does not respect locks.
        state = now;
    }
    Err(Trouble::Changed)
}

#[cfg(test)]
mod tests;
