//! The rounds in which mail moves down; a commit begins them, a recovery goes on with them.

use std::io;

use xxhash_rust::xxh3::Xxh3;

use super::Storage;
use super::record::{Entry, Head, MARK, Step};

/// Octets that are read and written at once when mail moves directly.
const COPY: usize = 1024 * 1024;

/// Octets of which an entry knows the checksum, where the next round begins to read.
const NEXT: u64 = 4096;

/// A removal under way.
pub(super) struct Rounds<'a, M, R> {
    pub(super) mailbox: &'a M,
    pub(super) record: &'a R,
    pub(super) head: &'a Head,
    /// A gap of this size is worth two syncs.
    pub(super) direct: u64,
    /// Everything before this place is new and durable.
    pub(super) place: u64,
    /// Checksum of what was moved.
    pub(super) moved: Xxh3,
    /// Of the next entry.
    pub(super) sequence: u64,
    /// Whether the newest entry is of this place; else one must be written before mail moves
    /// directly.
    pub(super) is_recorded: bool,
    /// For the pieces that move, see [`buffer`].
    pub(super) buffer: Vec<u8>,
}

/// Memory for each piece of a removal that has come to `place` in a mailbox of `size` octets: had before
/// anything is decided on, so that a lack of it is an error then, and not the end half-way.
///
/// # Errors
///
/// There is none.
pub(super) fn buffer(head: &Head, direct: u64, place: u64, size: u64) -> io::Result<Vec<u8>> {
    let left = size.saturating_sub(head.plan.source(place)) + MARK as u64;
    let gap = head.plan.source(place) - place;
    let copy = left.min(COPY as u64);
    // The gap never becomes smaller. What is not needed costs nothing here, and wiping when it is freed.
    let octets = if gap >= left || gap >= direct { copy } else { copy.max(head.piece) };
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(usize::try_from(octets).map_err(io::Error::other)?)?;
    Ok(buffer)
}

impl<M: Storage, R: Storage> Rounds<'_, M, R> {
    /// Moves everything that is left, and cuts the mailbox.
    ///
    /// A crash at any point leaves what [`recover`](super::recover::recover) finishes.
    pub(super) fn finish(mut self) -> io::Result<()> {
        loop {
            let size = self.mailbox.size()?;
            // Growth by a program that ignores locks is mail, too.
            let end = size.saturating_sub(self.head.plan.removed());
            if end < self.place {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mark = mark(self.head);
            let left = end - self.place + mark.len() as u64;
            let gap = self.head.plan.source(self.place) - self.place;
            let room = if gap >= left || gap >= self.direct { gap } else { self.head.piece };
            // The mark goes with the last mail, or alone.
            let is_last = left <= room;
            let mail = if is_last { left - mark.len() as u64 } else { room.min(end - self.place) };
            if room == gap {
                self.move_directly(size, mail, is_last)?;
            } else {
                self.put(size, mail, is_last)?;
            }
            if is_last && self.cut(size)? {
                return Ok(());
            }
        }
    }

    /// A piece by way of the record. Crash before its sync: as if this round had not begun.
    /// After: the piece is put again.
    fn put(&mut self, size: u64, mail: u64, is_last: bool) -> io::Result<()> {
        let mut piece = std::mem::take(&mut self.buffer);
        piece.resize(usize::try_from(mail).map_err(io::Error::other)?, 0);
        self.gather(&mut piece, self.place)?;
        let before = self.moved.digest();
        self.moved.update(&piece);
        if is_last {
            piece.extend_from_slice(mark(self.head));
        }
        let checksum = self.head.checksum(&piece);
        let entry = Entry {
            sequence: self.sequence,
            step: Step::Put { length: piece.len() as u64, mail, checksum },
            place: self.place,
            size,
            moved: before,
            next: next_checksum(self.mailbox, self.head, self.place + mail, size)?,
        };
        self.write(&entry, &piece)?;
        self.mailbox.write_at(&piece, self.place)?;
        self.mailbox.sync()?;
        self.place += mail;
        self.buffer = piece;
        // As long as this entry is the newest, its source is there, for a recovery to compare.
        self.is_recorded = false;
        Ok(())
    }

    /// A piece without the record: it ends before its source begins. Crash before the entry is
    /// durable: it moves again, from the source that is still there.
    fn move_directly(&mut self, size: u64, mail: u64, is_last: bool) -> io::Result<()> {
        if !self.is_recorded {
            self.record_step(Step::Move, size)?;
        }
        let end = self.place + mail;
        let mut piece = std::mem::take(&mut self.buffer);
        while self.place < end {
            let room = usize::try_from(end - self.place).unwrap_or(usize::MAX).min(COPY);
            piece.resize(room, 0);
            self.gather(&mut piece, self.place)?;
            self.mailbox.write_at(&piece, self.place)?;
            self.moved.update(&piece);
            self.place += room as u64;
        }
        self.buffer = piece;
        if is_last {
            self.mailbox.write_at(mark(self.head), self.place)?;
        }
        self.mailbox.sync()?;
        if !is_last {
            self.record_step(Step::Move, size)?;
        }
        Ok(())
    }

    /// Cuts the mailbox behind the last mail; false when something was appended since `size`.
    /// Crash before the truncation is durable: the mark is still there, and it is cut then.
    fn cut(&mut self, size: u64) -> io::Result<bool> {
        self.record_step(Step::Cut, size)?;
        if self.mailbox.size()? != size {
            self.record_step(Step::Move, size)?;
            return Ok(false);
        }
        self.mailbox.truncate(self.place)?;
        self.mailbox.sync()?;
        Ok(true)
    }

    /// Records that everything before this place is done and `step` comes next.
    pub(super) fn record_step(&mut self, step: Step, size: u64) -> io::Result<()> {
        let next = next_checksum(self.mailbox, self.head, self.place, size)?;
        let moved = self.moved.digest();
        let (sequence, place) = (self.sequence, self.place);
        self.write(&Entry { sequence, step, place, size, moved, next }, &[])
    }

    fn write(&mut self, entry: &Entry, piece: &[u8]) -> io::Result<()> {
        self.head.write_entry(self.record, entry, piece)?;
        self.record.sync()?;
        self.sequence += 1;
        self.is_recorded = true;
        Ok(())
    }

    /// Fills `buffer` with what belongs at `place`.
    fn gather(&self, mut buffer: &mut [u8], mut place: u64) -> io::Result<()> {
        let plan = &self.head.plan;
        while !buffer.is_empty() {
            let source = plan.source(place);
            let run = usize::try_from(plan.run_from(source)).unwrap_or(usize::MAX);
            let (part, rest) = buffer.split_at_mut(run.min(buffer.len()));
            if self.mailbox.read_at(part, source)? < part.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            place += part.len() as u64;
            buffer = rest;
        }
        Ok(())
    }
}

/// The mark of a removal, cut to the room that there is behind the new end of the mailbox.
pub(super) fn mark(head: &Head) -> &[u8] {
    let room = usize::try_from(head.plan.removed()).unwrap_or(MARK).min(MARK);
    head.mark.get(..room).unwrap_or_default()
}

/// The checksum of what lies at the source of `place`, in a mailbox of `size` octets.
pub(super) fn next_checksum(
    mailbox: &impl Storage,
    head: &Head,
    place: u64,
    size: u64,
) -> io::Result<u64> {
    let source = head.plan.source(place);
    let length = size.saturating_sub(source).min(NEXT);
    let mut octets = vec![0; usize::try_from(length).unwrap_or_default()];
    let read = mailbox.read_at(&mut octets, source)?;
    octets.truncate(read);
    Ok(head.checksum(&octets))
}

#[cfg(test)]
mod tests {
    use super::super::plan::Plan;
    use super::*;
    use crate::channel::{Range, Totals};

    fn head(piece: u64) -> Head {
        let plan = Plan::new(&[Range { start: 10, end: 20 }], 1000).unwrap();
        let (chunk, chunks, deleted) = (1, Vec::new(), Totals::default());
        let mark = [0xff; MARK];
        Head { id: 0, mark, mailbox: 1, size: 1000, piece, deleted, plan, chunk, chunks }
    }

    #[test]
    fn memory_is_had_for_the_largest_piece_and_a_lack_of_it_is_an_error() {
        assert!(buffer(&head(5000), 100, 10, 1000).unwrap().capacity() >= 5000);
        // Directly, by pieces that are no larger than what moves.
        let direct = buffer(&head(5000), 10, 10, 1000).unwrap().capacity();
        assert!((1..5000).contains(&direct));
        assert!(buffer(&head(1 << 62), 100, 10, 1000).is_err());
    }
}
