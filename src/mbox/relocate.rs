//! Finding messages again in a mailbox that other programs changed. Runs in the worker.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::content::Fingerprint;
use super::error::ScanError;
use super::line_ends::trailing_empty_line;
use super::scan::{FROM, Pass};
use super::unique_id::BaseId;
use super::window::{BLOCK, LOOKBEHIND, Seals};
use super::{Index, Message, NOT_DISTINGUISHED};

/// Most octets of a From_ line that is looked for before a message, and most of them in a row.
const LONGEST_FROM_LINE: usize = 1024;
const MOST_ALONE: usize = 100;

impl Message {
    /// Whether the two are one place, with a message of one identity and one size.
    pub fn is_at(&self, other: &Self) -> bool {
        let distinction = NOT_DISTINGUISHED;
        Self { distinction, ..*self } == Self { distinction, ..*other }
    }

    /// Whether there may be copies of it, which nothing but their order tells apart.
    pub fn may_have_copies(&self) -> bool {
        self.distinction != NOT_DISTINGUISHED
    }
}

/// Whether the very message is still at its place, with nothing changed that a client would see
/// but the notes of other programs in its header.
pub fn still_there(file: &File, message: &Message, key: u64) -> Result<bool, ScanError> {
    is_there(file, message, &mut Pass::new(Fingerprint::new(key)))
}

/// The same, with what it takes to read again what was there: `None` when it is not.
pub fn seal(file: &File, message: &Message, key: u64) -> Result<Option<Sealed>, ScanError> {
    let mut pass = Pass::sealing(Fingerprint::new(key), key);
    let there = is_there(file, message, &mut pass)?;
    Ok(pass.into_seals().filter(|_| there).map(|seals| Sealed {
        range: message.range(),
        seals,
        block: Vec::new(),
        number: None,
    }))
}

/// The octets of a message that was seen at its place: whatever is there later, they are read as
/// they were then or not at all.
pub struct Sealed {
    range: Range<u64>,
    seals: Seals,
    /// One block of them.
    block: Vec<u8>,
    /// Which one.
    number: Option<u64>,
}

impl Sealed {
    /// Fills `buffer` with what was at `offset`.
    ///
    /// # Errors
    ///
    /// `InvalidData` when that is not there any more; those of reading.
    pub fn read_exact_at(
        &mut self,
        file: &File,
        mut buffer: &mut [u8],
        mut offset: u64,
    ) -> io::Result<()> {
        while !buffer.is_empty() {
            let within = offset.checked_sub(self.range.start).ok_or(io::ErrorKind::InvalidData)?;
            let skip = usize::try_from(within % BLOCK as u64).map_err(io::Error::other)?;
            self.load(file, within / BLOCK as u64)?;
            let octets = self.block.get(skip..).unwrap_or_default();
            let count = octets.len().min(buffer.len());
            let (Some(from), Some((to, rest))) = (
                octets.get(..count).filter(|from| !from.is_empty()),
                buffer.split_at_mut_checked(count),
            ) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            to.copy_from_slice(from);
            buffer = rest;
            offset += count as u64;
        }
        Ok(())
    }

    fn load(&mut self, file: &File, number: u64) -> io::Result<()> {
        if self.number == Some(number) {
            return Ok(());
        }
        self.number = None;
        let start = self.range.start + number * BLOCK as u64;
        let length = self.range.end.saturating_sub(start).min(BLOCK as u64);
        self.block.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
        file.read_exact_at(&mut self.block, start)?;
        let index = usize::try_from(number).map_err(io::Error::other)?;
        if !self.seals.fit(index, &self.block) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.number = Some(number);
        Ok(())
    }
}

fn is_there(
    file: &File,
    message: &Message,
    pass: &mut Pass<Fingerprint>,
) -> Result<bool, ScanError> {
    // Bytes that were put before it or behind it can make it a part of another message, or the
    // other way round: one that was delivered half when it was scanned.
    if !begins_there(file, message)? || !ends_there(file, message)? {
        return Ok(false);
    }
    let mut same = None;
    let read = pass.run(file, message.range(), &mut |found| {
        same = Some(same.is_none() && found.message().is_at(message));
        Ok(())
    });
    match read {
        Ok(()) => Ok(same == Some(true)),
        Err(ScanError::Shrunk | ScanError::NotMbox { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn begins_there(file: &File, message: &Message) -> io::Result<bool> {
    let mut start = message.start;
    for _ in 0..MOST_ALONE {
        if start == 0 || is_behind_empty_line(file, start)? {
            return Ok(true);
        }
        // It may be behind a message of a From_ line alone, which begins like any other.
        match line_before(file, start)? {
            Some((line, offset)) if line.starts_with(FROM) => start = offset,
            Some(_) | None => return Ok(false),
        }
    }
    Ok(false)
}

/// The line that ends at `offset`, and where it begins; `None` when it is longer than From_ lines
/// are, or does not end there.
fn line_before(file: &File, offset: u64) -> io::Result<Option<(Vec<u8>, u64)>> {
    let length = LONGEST_FROM_LINE.min(usize::try_from(offset).unwrap_or(LONGEST_FROM_LINE));
    let from = offset - length as u64;
    let mut before = vec![0; length];
    match file.read_exact_at(&mut before, from) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let Some((b'\n', text)) = before.split_last() else { return Ok(None) };
    let start = match memchr::memrchr(b'\n', text) {
        Some(at) => at + 1,
        None if from == 0 => 0,
        None => return Ok(None),
    };
    Ok(text.get(start..).map(|line| (line.to_vec(), from + start as u64)))
}

fn ends_there(file: &File, message: &Message) -> io::Result<bool> {
    let mut behind = [0; FROM.len()];
    let count = file.read_at(&mut behind, message.end)?;
    if count == 0 {
        return Ok(true);
    }
    if message.content < message.end {
        return Ok(behind == FROM && is_behind_empty_line(file, message.end)?);
    }
    // Of a message of a From_ line alone, nothing else is known than that this line ends.
    let mut last = [0];
    file.read_exact_at(&mut last, message.end.saturating_sub(1))?;
    Ok(behind == FROM && last == *b"\n")
}

fn is_behind_empty_line(file: &File, offset: u64) -> io::Result<bool> {
    // The beginning of a file ends a line, too.
    let mut before = [b'\n'; LOOKBEHIND];
    let length = LOOKBEHIND.min(usize::try_from(offset).unwrap_or(LOOKBEHIND));
    let Some(room) = before.get_mut(LOOKBEHIND - length..) else { return Ok(false) };
    match file.read_exact_at(room, offset - length as u64) {
        Ok(()) => Ok(trailing_empty_line(&before) > 0),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// For each message of `old`, where it is in `new`: the same content, whatever other programs
/// noted in its header and whichever order they left. Both are scans with the same key.
///
/// Of copies that can't be told apart, each is matched once, in the order of the file. When some
/// of them are gone, those that are left are taken for the ones that are not `marked`: another
/// program may have removed the very one that the client wants to be removed.
pub fn relocate(old: &Index, new: &Index, marked: impl Fn(usize) -> bool) -> Vec<Option<usize>> {
    let mut places = vec![None; old.messages.len()];
    let new = by_identity(new);
    let mut rest = new.as_slice();
    for group in by_identity(old).chunk_by(|(a, _), (b, _)| a == b) {
        let Some((identity, _)) = group.first() else { continue };
        let candidates = rest.partition_point(|(other, _)| other < identity);
        rest = rest.get(candidates..).unwrap_or_default();
        let copies = rest.partition_point(|(other, _)| other == identity);
        let (found, behind) = rest.split_at_checked(copies).unwrap_or((rest, &[]));
        rest = behind;
        let mut numbers: Vec<usize> = group.iter().map(|(_, number)| *number).collect();
        if found.len() < numbers.len() {
            numbers.sort_by_key(|number| marked(*number));
        }
        for (number, (_, at)) in numbers.into_iter().zip(found) {
            if let Some(place) = places.get_mut(number) {
                *place = Some(*at);
            }
        }
    }
    places
}

/// Sorted by what identifies them. The base id is part of it, as it holds what the local MTA
/// noted, which nobody who sends mail can choose.
fn by_identity(index: &Index) -> Vec<((BaseId, u64), usize)> {
    let all = index.messages.iter().enumerate();
    let mut all: Vec<_> =
        all.map(|(number, message)| ((message.base, message.fingerprint), number)).collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests;
