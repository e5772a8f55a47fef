//! Putting mail back at the end of a mailbox, atomically.
//!
//! ```text
//! 0          head: to which mailbox, behind which octet
//! 4096       the mail, as it is to stand there, written by the monitor
//! ```
//!
//! 1. Head and mail become durable in the record. This alone decides nothing.
//! 2. The mailbox gets as many NULs as that takes, at once: file systems change a size atomically. Mail
//!    holds none and does not begin with any, so that from here on the room is known for ours, and
//!    what others append comes behind it. As soon as that is durable, the mail is in the mailbox.
//! 3. The mail is written over the NULs.
//!
//! A crash leaves the old mailbox, or one with the whole room, in which each octet is a NUL or the
//! right one. [`recover`] finishes the latter. As the head knows the old size, and what is in the
//! record is the whole of it, that may be done over and over.

use std::io;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::record::take_number;
use super::recover::Recovered;
use super::{Error, Storage};
use crate::channel::lacking_line_feeds;

/// What a record of mail that is put back begins with.
pub(super) const MAGIC: &[u8; 8] = b"popa3d\0\x02";

/// Where the mail begins in a record.
pub(in crate::as_user) const MAIL: u64 = 4096;

/// Octets that are read and written at once.
const COPY: u64 = 1024 * 1024;

/// Octets of a head: five numbers behind the magic.
const HEAD: usize = MAGIC.len() + 5 * 8;

/// What is put where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    /// The inode.
    mailbox: u64,
    /// Size of the mailbox before.
    size: u64,
    /// Line feeds that the mailbox lacks at its end for another message to begin there: at most two.
    line_feeds: u64,
    /// Of the mail.
    checksum: u64,
}

/// Appends the mail in `record`, whose name is durable, to the locked `mailbox`.
///
/// When it returns `Ok`, the record has done its work and can go.
pub(in crate::as_user) fn put_back(
    mailbox: &impl Storage,
    record: &impl Storage,
) -> Result<(), Error> {
    let head = prepare(mailbox, record).map_err(Error::Untouched)?;
    let length = head.length(record).map_err(Error::Untouched)?;
    mailbox.reserve_behind(head.size, length).map_err(Error::Untouched)?;
    // All of the mail was written and read since: what a program that ignores locks appended meanwhile
    // would be cut off, or written over.
    if mailbox.size().map_err(Error::Untouched)? != head.size {
        return Err(Error::Untouched(io::Error::other("another program changes it")));
    }
    mailbox.truncate(head.size + length).map_err(Error::Untouched)?;
    // Only then is it the size that is decided on, and not what was written beyond an old one.
    match mailbox.sync().and_then(|()| head.write_mail(mailbox, record)) {
        Ok(()) => Ok(()),
        // No room for it, say, where none could be reserved.
        Err(error) => Err(match head.take_back(mailbox, length) {
            Ok(()) => Error::Untouched(error),
            Err(_) => Error::Unfinished(error),
        }),
    }
}

fn prepare(mailbox: &impl Storage, record: &impl Storage) -> io::Result<Head> {
    // What others wrote and did not sync could be gone after a crash, and its place be taken for ours.
    mailbox.sync()?;
    let size = mailbox.size()?;
    let head = Head {
        mailbox: mailbox.identity()?,
        size,
        line_feeds: lacking(mailbox, size)?,
        checksum: checksum(record)?,
    };
    record.write_at(&head.encode(), 0)?;
    record.sync()?;
    Ok(head)
}

/// How many line feeds make an empty line of the end of a mailbox of `size` octets.
fn lacking(mailbox: &impl Storage, size: u64) -> io::Result<u64> {
    let mut end = [0; 3];
    let length = end.len().min(usize::try_from(size).unwrap_or(usize::MAX));
    let end = end.get_mut(..length).unwrap_or_default();
    mailbox.read_at(end, size - length as u64)?;
    Ok(lacking_line_feeds(end).into())
}

/// Finishes what `record` describes, if it began.
pub(super) fn recover(mailbox: &impl Storage, record: &impl Storage) -> io::Result<Recovered> {
    let Some(head) = Head::read(record)? else { return Ok(Recovered::NothingBegun) };
    // Another file has taken its place: what stood there may be in it or not; it is still kept.
    if mailbox.identity()? != head.mailbox
        || mailbox.size()? < head.size + head.length(record)?
        || checksum(record)? != head.checksum
    {
        return Ok(Recovered::NothingBegun);
    }
    let mut is_whole = true;
    let mut is_ours = true;
    head.each_piece(record, &mut |piece, place| {
        let mut found = vec![0; piece.len()];
        mailbox.read_at(&mut found, place)?;
        is_whole &= found == piece;
        is_ours &= found.iter().zip(piece).all(|(found, own)| *found == 0 || found == own);
        Ok(())
    })?;
    if !is_ours {
        return Ok(Recovered::NothingBegun);
    }
    if is_whole {
        // A process that was killed may have written it and not waited for the disk.
        mailbox.sync()?;
        return Ok(Recovered::WasFinished(None));
    }
    // A process may have been killed before the room was durable.
    mailbox.sync()?;
    head.write_mail(mailbox, record)?;
    Ok(Recovered::Finished(None))
}

impl Head {
    /// How many octets the mailbox grows by.
    fn length(&self, record: &impl Storage) -> io::Result<u64> {
        Ok(self.line_feeds + record.size()?.saturating_sub(MAIL))
    }

    fn write_mail(&self, mailbox: &impl Storage, record: &impl Storage) -> io::Result<()> {
        self.each_piece(record, &mut |piece, place| mailbox.write_at(piece, place))?;
        mailbox.sync()
    }

    /// Cuts the mailbox to what it was, unless something was appended.
    fn take_back(&self, mailbox: &impl Storage, length: u64) -> io::Result<()> {
        if mailbox.size()? != self.size + length {
            return Err(io::ErrorKind::Other.into());
        }
        mailbox.truncate(self.size)?;
        mailbox.sync()
    }

    /// Gives what belongs behind the old end of the mailbox to `act`, each piece with its place.
    fn each_piece(
        &self,
        record: &impl Storage,
        act: &mut impl FnMut(&[u8], u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut place = self.size;
        if self.line_feeds > 0 {
            let length = usize::try_from(self.line_feeds).map_err(io::Error::other)?;
            act(&vec![b'\n'; length], place)?;
            place += self.line_feeds;
        }
        each_piece(record, &mut |piece| {
            act(piece, place)?;
            place += piece.len() as u64;
            Ok(())
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut octets = MAGIC.to_vec();
        for number in [self.mailbox, self.size, self.line_feeds, self.checksum] {
            octets.extend(number.to_le_bytes());
        }
        octets.extend(xxh3_64(&octets).to_le_bytes());
        octets
    }

    /// `None` when it is not whole, so that nothing can have begun.
    fn read(record: &impl Storage) -> io::Result<Option<Self>> {
        let mut octets = [0; HEAD];
        Ok(if record.read_at(&mut octets, 0)? < HEAD { None } else { Self::decode(&octets) })
    }

    fn decode(octets: &[u8; HEAD]) -> Option<Self> {
        let (covered, sum) = octets.split_last_chunk::<8>()?;
        let mut rest = covered.strip_prefix(MAGIC)?;
        let mut number = || take_number(&mut rest);
        let head = Self {
            mailbox: number()?,
            size: number()?,
            line_feeds: number()?,
            checksum: number()?,
        };
        let is_whole = u64::from_le_bytes(*sum) == xxh3_64(covered);
        (is_whole && head.line_feeds <= 2).then_some(head)
    }
}

/// The checksum of the mail in a record.
fn checksum(record: &impl Storage) -> io::Result<u64> {
    let mut sum = Xxh3::new();
    each_piece(record, &mut |piece| {
        sum.update(piece);
        Ok(())
    })?;
    Ok(sum.digest())
}

fn each_piece(
    record: &impl Storage,
    act: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let end = record.size()?;
    let mut from = MAIL;
    let mut buffer = Vec::new();
    while from < end {
        let length = (end - from).min(COPY);
        buffer.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
        if record.read_at(&mut buffer, from)? < buffer.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        act(&buffer)?;
        from += length;
    }
    Ok(())
}
