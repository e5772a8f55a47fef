//! The redo record on disk.
//!
//! ```text
//! 0          head: what is removed from which mailbox; never changed
//! areas[0]   entry 0, 2, 4, …: how far the removal has come, and a piece of mail
//! areas[1]   entry 1, 3, 5, …
//! ```
//!
//! An entry is overwritten by the next but one, so the newest that is whole is the truth. All
//! numbers are little-endian; head and entries end in a checksum that the record's random id seeds,
//! so that nothing left over from another record passes for a part of this one.

use std::io;

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use super::Storage;
use super::plan::Plan;
use crate::channel::{Range, Totals};

/// What a record of a removal begins with.
pub(super) const MAGIC: &[u8; 8] = b"popa3d\0\x03";

/// Octets that are read at once for a checksum.
const READ: usize = 256 * 1024;

/// What a mark consists of.
pub(super) const MARK: usize = 32;

/// Entries begin at multiples of this: no disk tears a smaller piece.
const SECTOR: u64 = 4096;

/// Octets of an entry without its piece: nine numbers, and the checksum.
const ENTRY: usize = 10 * 8;

/// Octets of a head before its lists: nine numbers between the magic and the mark.
const HEAD: usize = MAGIC.len() + 9 * 8 + MARK;

/// What never changes during one removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Random.
    pub(super) id: u64,
    /// Random, and first of it an octet that no mail begins with.
    pub(super) mark: [u8; MARK],
    /// Its inode.
    pub(super) mailbox: u64,
    /// Size of the mailbox when the removal was decided on.
    pub(super) size: u64,
    /// Room for a piece in each of the two areas; 0 when there are none, because nothing has to move.
    pub(super) piece: u64,
    /// The messages that are removed, as the client counts.
    pub(super) deleted: Totals,
    pub(super) plan: Plan,
    /// Octets of a chunk.
    pub(super) chunk: u64,
    /// Checksums of the chunks from [`Plan::first_place`] up to [`Plan::last_source`]; of the first one
    /// alone when nothing has to move.
    pub(super) chunks: Vec<u64>,
}

/// How far a removal has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) sequence: u64,
    pub(super) step: Step,
    /// Everything before this place is new and durable.
    pub(super) place: u64,
    /// Size of the mailbox.
    pub(super) size: u64,
    /// Checksum of what was moved: from [`Plan::first_place`] to `place`.
    pub(super) moved: u64,
    /// Checksum of the first octets of what is to move after this step.
    pub(super) next: u64,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Write the piece of this length, which the record holds, to the place; so much of it is mail,
    /// and the rest is the mark.
    Put { length: u64, mail: u64, checksum: u64 },
    /// Move directly.
    Move,
    /// Cut the mailbox at the place; the mark is there.
    Cut,
}

impl Head {
    /// That of a removal of all that there is from one place on.
    pub(super) fn of_cut(
        mailbox: &impl Storage,
        plan: Plan,
        size: u64,
        deleted: Totals,
    ) -> io::Result<Self> {
        let mut head = Self {
            id: getrandom::u64().map_err(io::Error::other)?,
            mark: [0xff; MARK],
            mailbox: mailbox.identity()?,
            size,
            piece: 0,
            deleted,
            plan,
            chunk: SECTOR,
            chunks: Vec::new(),
        };
        let first = head.chunk_ranges().next();
        let first =
            first.map(|(from, until)| io::Result::Ok(head.sum(mailbox, from, until)?.digest()));
        head.chunks.extend(first.transpose()?);
        Ok(head)
    }

    /// Whether that is all.
    pub(super) fn is_of_cut(&self) -> bool {
        self.piece == 0
    }

    /// Octets of the whole record.
    pub(super) fn record_size(&self) -> u64 {
        self.area(0) + 2 * self.area_size()
    }

    /// Writes the head; durable after the next sync.
    pub(super) fn write(&self, record: &impl Storage) -> io::Result<()> {
        record.write_at(&self.encode(), 0)
    }

    /// Reads the head; `None` when it is not whole, so that nothing was decided on.
    pub(super) fn read(record: &impl Storage) -> io::Result<Option<Self>> {
        let mut octets = vec![0; HEAD];
        if record.read_at(&mut octets, 0)? < HEAD {
            return Ok(None);
        }
        let Some(length) = Self::length(&octets).filter(|_| octets.starts_with(MAGIC)) else {
            return Ok(None);
        };
        // Bounded by what is there before anything is allocated.
        let Some(length) =
            usize::try_from(length).ok().filter(|_| record.size().is_ok_and(|size| length <= size))
        else {
            return Ok(None);
        };
        octets.resize(length, 0);
        record.read_at(&mut octets, 0)?;
        Ok(Self::decode(&octets))
    }

    /// Octets of a whole head, by the counts at its beginning.
    fn length(octets: &[u8]) -> Option<u64> {
        let mut rest = octets.get(MAGIC.len() + 7 * 8..)?;
        let (ranges, chunks) = (take_number(&mut rest)?, take_number(&mut rest)?);
        let numbers = ranges.checked_mul(2)?.checked_add(chunks)?.checked_add(1)?;
        numbers.checked_mul(8)?.checked_add(HEAD as u64)
    }

    fn encode(&self) -> Vec<u8> {
        let mut octets = MAGIC.to_vec();
        let counts = (self.plan.doomed().len() as u64, self.chunks.len() as u64);
        for number in [self.id, self.mailbox, self.size, self.piece, self.chunk] {
            octets.extend(number.to_le_bytes());
        }
        octets.extend(u64::from(self.deleted.messages).to_le_bytes());
        octets.extend(self.deleted.octets.to_le_bytes());
        octets.extend(counts.0.to_le_bytes());
        octets.extend(counts.1.to_le_bytes());
        octets.extend(self.mark);
        for range in self.plan.doomed() {
            octets.extend(range.start.to_le_bytes());
            octets.extend(range.end.to_le_bytes());
        }
        for chunk in &self.chunks {
            octets.extend(chunk.to_le_bytes());
        }
        let checksum = xxh3_64_with_seed(&octets, self.id);
        octets.extend(checksum.to_le_bytes());
        octets
    }

    fn decode(octets: &[u8]) -> Option<Self> {
        let mut rest = octets.strip_prefix(MAGIC)?;
        let mut number = || take_number(&mut rest);
        let (id, mailbox) = (number()?, number()?);
        let (size, piece, chunk) = (number()?, number()?, number()?);
        let deleted = Totals { messages: number()?.try_into().ok()?, octets: number()? };
        let (ranges, chunks) = (number()?, number()?);
        let (mark, mut rest) = rest.split_first_chunk::<MARK>()?;
        let mut doomed = Vec::new();
        for _ in 0..ranges {
            let start = take_number(&mut rest)?;
            doomed.push(Range { start, end: take_number(&mut rest)? });
        }
        let mut sums = Vec::new();
        for _ in 0..chunks {
            sums.push(take_number(&mut rest)?);
        }
        let covered = octets.get(..octets.len().checked_sub(rest.len())?)?;
        if take_number(&mut rest)? != xxh3_64_with_seed(covered, id) {
            return None;
        }
        let plan = Plan::new(&doomed, size)?;
        let mark = *mark;
        Some(Self { id, mark, mailbox, size, piece, deleted, plan, chunk, chunks: sums })
    }

    fn area(&self, sequence: u64) -> u64 {
        let head = self.encode_size().next_multiple_of(SECTOR);
        if sequence % 2 == 0 { head } else { head + self.area_size() }
    }

    fn area_size(&self) -> u64 {
        (SECTOR + self.piece).next_multiple_of(SECTOR)
    }

    fn encode_size(&self) -> u64 {
        let numbers = 2 * self.plan.doomed().len() + self.chunks.len() + 1;
        (HEAD + 8 * numbers) as u64
    }

    /// Writes an entry with its piece; durable after the next sync.
    pub(super) fn write_entry(
        &self,
        record: &impl Storage,
        entry: &Entry,
        piece: &[u8],
    ) -> io::Result<()> {
        let area = self.area(entry.sequence);
        if !piece.is_empty() {
            record.write_at(piece, area + SECTOR)?;
        }
        record.write_at(&entry.encode(self.id), area)
    }

    /// The newest entry that is whole, and its piece.
    pub(super) fn newest_entry(
        &self,
        record: &impl Storage,
    ) -> io::Result<Option<(Entry, Vec<u8>)>> {
        let mut newest: Option<(Entry, Vec<u8>)> = None;
        for sequence in [0, 1] {
            let Some(found) = self.read_entry(record, self.area(sequence))? else { continue };
            if newest.as_ref().is_none_or(|(entry, _)| entry.sequence < found.0.sequence) {
                newest = Some(found);
            }
        }
        Ok(newest)
    }

    fn read_entry(&self, record: &impl Storage, area: u64) -> io::Result<Option<(Entry, Vec<u8>)>> {
        let mut octets = [0; ENTRY];
        if record.read_at(&mut octets, area)? < ENTRY {
            return Ok(None);
        }
        let Some(entry) = Entry::decode(&octets, self.id) else { return Ok(None) };
        let Step::Put { length, mail, checksum } = entry.step else {
            return Ok(Some((entry, Vec::new())));
        };
        let Some(length) =
            usize::try_from(length).ok().filter(|_| mail <= length && length <= self.piece)
        else {
            return Ok(None);
        };
        let mut piece = vec![0; length];
        let read = record.read_at(&mut piece, area + SECTOR)?;
        let is_whole = read == length && xxh3_64_with_seed(&piece, self.id) == checksum;
        Ok(is_whole.then_some((entry, piece)))
    }

    /// The checksum of a piece.
    pub(super) fn checksum(&self, piece: &[u8]) -> u64 {
        xxh3_64_with_seed(piece, self.id)
    }

    /// A running checksum.
    pub(super) fn summing(&self) -> Xxh3 {
        Xxh3::with_seed(self.id)
    }

    /// The checksum of a part of the mailbox.
    pub(super) fn sum(
        &self,
        mailbox: &impl Storage,
        mut from: u64,
        until: u64,
    ) -> io::Result<Xxh3> {
        let mut sum = self.summing();
        let size = usize::try_from(until.saturating_sub(from)).unwrap_or(READ).min(READ);
        let mut buffer = vec![0; size];
        while from < until {
            let room = usize::try_from(until - from).unwrap_or(usize::MAX).min(READ);
            let octets = buffer.get_mut(..room).unwrap_or_default();
            let read = mailbox.read_at(octets, from)?;
            if read == 0 {
                break;
            }
            sum.update(octets.get(..read).unwrap_or_default());
            from += read as u64;
        }
        Ok(sum)
    }

    /// Notes the checksums of the chunks.
    pub(super) fn sum_chunks(&mut self, mailbox: &impl Storage) -> io::Result<()> {
        let sums: io::Result<Vec<u64>> = self
            .chunk_ranges()
            .map(|(from, until)| Ok(self.sum(mailbox, from, until)?.digest()))
            .collect();
        self.chunks = sums?;
        Ok(())
    }

    /// Whether all chunks from the offset `from` on are as they were.
    pub(super) fn has_its_chunks(&self, mailbox: &impl Storage, from: u64) -> io::Result<bool> {
        for ((start, until), sum) in self.chunk_ranges().zip(&self.chunks) {
            if start >= from && self.sum(mailbox, start, until)?.digest() != *sum {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn chunk_ranges(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let (first, last) = (self.plan.first_place(), self.plan.last_source());
        let chunk = self.chunk.max(1);
        (0..(last - first).div_ceil(chunk))
            .map(move |index| (first + index * chunk, last.min(first + (index + 1) * chunk)))
    }
}

impl Entry {
    fn encode(&self, id: u64) -> Vec<u8> {
        let (step, a, b, c) = match self.step {
            Step::Put { length, mail, checksum } => (0, length, mail, checksum),
            Step::Move => (1, 0, 0, 0),
            Step::Cut => (2_u64, 0, 0, 0),
        };
        let Self { sequence, place, size, moved, next, .. } = *self;
        let mut octets = Vec::with_capacity(ENTRY);
        for number in [sequence, step, a, b, c, place, size, moved, next] {
            octets.extend(number.to_le_bytes());
        }
        let checksum = xxh3_64_with_seed(&octets, id);
        octets.extend(checksum.to_le_bytes());
        octets
    }

    fn decode(octets: &[u8; ENTRY], id: u64) -> Option<Self> {
        let mut rest = octets.as_slice();
        let mut number = || take_number(&mut rest);
        let (sequence, step) = (number()?, number()?);
        let (a, b, c) = (number()?, number()?, number()?);
        let (place, size) = (number()?, number()?);
        let (moved, next, checksum) = (number()?, number()?, number()?);
        let covered = octets.get(..ENTRY - 8)?;
        if checksum != xxh3_64_with_seed(covered, id) {
            return None;
        }
        let step = match step {
            0 => Step::Put { length: a, mail: b, checksum: c },
            1 => Step::Move,
            2 => Step::Cut,
            _ => return None,
        };
        Some(Self { sequence, step, place, size, moved, next })
    }
}

/// The next number of a list; `None` when there is none.
pub(super) fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let (number, behind) = rest.split_first_chunk::<8>()?;
    *rest = behind;
    Some(u64::from_le_bytes(*number))
}
