//! UPDATE that survives anything: removes messages from a mailbox in place, atomically.
//!
//! Other programs hold on to the mailbox's inode, so it cannot be replaced by rename; and what is
//! kept has to move down over what is removed. A *redo record*, a second file, makes that atomic:
//!
//! 1. [`record`] describes the removal and holds the first piece of mail that is to move. As soon
//!    as it is durable, the new mailbox is decided on; before, the old one stands.
//! 2. Pieces move down, one a round. A piece that would overwrite itself is put into the record
//!    first. Where the gap is wide, the piece is moved directly: its source stays intact.
//! 3. Behind the last piece comes a random mark, then the record says that the mailbox may be
//!    cut, then it is cut. Mail that was appended after a crash looks like anything but the mark.
//!
//! [`commit`](commit::commit) and [`recover`](recover::recover) share the rounds; both run in an
//! as-user helper, with the mailbox locked. `simulator` proves them, crash by crash.
//!
//! What is removed may have to be kept: then it is durable in a third file before 1., and whether that
//! file counts is what the record says. [`put_back`](put_back::put_back) is the way back, by a
//! record of another kind, which [`recover`](recover::recover) knows as well.

mod commit;
mod keep;
mod plan;
mod put_back;
mod record;
mod recover;
mod rounds;
#[cfg(test)]
mod simulator;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::fcntl::FallocateFlags;

pub(super) use commit::{COSTS, Removal, commit};
pub(super) use put_back::{MAIL, put_back};
pub(super) use recover::{Recovered, recover};

use crate::ffi::file::begin_writing;

/// Most octets of a record.
pub(super) const LARGEST_RECORD: u64 = 64 << 20;

/// When so much is written, the disk may as well begin.
const EARLY: usize = 2 << 20;

/// What a commit needs of a file; the simulator has one that forgets what was not synced.
pub(super) trait Storage {
    /// Which file it is: the inode. Devices are numbered anew at each boot.
    fn identity(&self) -> io::Result<u64>;
    /// Its size in octets.
    fn size(&self) -> io::Result<u64>;
    /// Reads at `offset` until `buffer` is full or the file ends; returns how much was read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `octets` at `offset`.
    fn write_at(&self, octets: &[u8], offset: u64) -> io::Result<()>;
    /// Makes room for `size` octets, so that writing them cannot fail for lack of it.
    fn reserve(&self, size: u64) -> io::Result<()>;
    /// Makes room for `more` octets behind `size`, which it keeps; where the file system cannot do
    /// that, nothing happens.
    fn reserve_behind(&self, size: u64, more: u64) -> io::Result<()>;
    /// Makes it `size` long: cuts it, or adds NULs.
    fn truncate(&self, size: u64) -> io::Result<()>;
    /// Returns when all of this is durable.
    fn sync(&self) -> io::Result<()>;
}

impl Storage for File {
    fn identity(&self) -> io::Result<u64> {
        Ok(std::os::unix::fs::MetadataExt::ino(&self.metadata()?))
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<usize> {
        let mut total = 0;
        while !buffer.is_empty() {
            match FileExt::read_at(self, buffer, offset) {
                Ok(0) => break,
                Ok(count) => {
                    buffer = buffer.get_mut(count..).unwrap_or_default();
                    offset += count as u64;
                    total += count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    fn write_at(&self, octets: &[u8], mut offset: u64) -> io::Result<()> {
        // The disk writes while we copy, not only when a sync asks for it: moving 1 GB takes 860 ms
        // instead of 1500.
        for piece in octets.chunks(EARLY) {
            self.write_all_at(piece, offset)?;
            if piece.len() == EARLY {
                begin_writing(self, offset, EARLY as u64);
            }
            offset += piece.len() as u64;
        }
        Ok(())
    }

    fn reserve(&self, size: u64) -> io::Result<()> {
        let length = i64::try_from(size).map_err(io::Error::other)?;
        nix::fcntl::posix_fallocate(self, 0, length).map_err(io::Error::from)
    }

    fn reserve_behind(&self, size: u64, more: u64) -> io::Result<()> {
        let offset = i64::try_from(size).map_err(io::Error::other)?;
        let length = i64::try_from(more).map_err(io::Error::other)?;
        match nix::fcntl::fallocate(self, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, length) {
            Err(nix::Error::EOPNOTSUPP) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Why a removal did not come to its end.
#[derive(Debug)]
pub(super) enum Error {
    /// What was ordered is not a list of ascending ranges within the file. Nothing was changed.
    Ranges,
    /// It could not begin: no room for the record, say. Nothing was changed.
    Untouched(io::Error),
    /// What was to be removed could not be kept. Nothing was changed.
    NotKept(io::Error),
    /// It was decided on and not finished: the record has to be kept, and finishes it later.
    Unfinished(io::Error),
    /// The record does not fit the mailbox, which another program changed half-way, or is no record.
    Conflict(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ranges => f.write_str("the worker named octets that are not in the mailbox"),
            Self::Untouched(error) => write!(f, "{error}; the mailbox is as it was"),
            Self::NotKept(error) => write!(
                f,
                "keeping what is removed in /var/lib/popa3d (keep-deleted): {error}; the mailbox is \
                 as it was"
            ),
            Self::Unfinished(error) => {
                write!(f, "{error}; the next login or popa3d --recover finishes it")
            }
            Self::Conflict(why) => write!(f, "the redo record does not fit the mailbox: {why}"),
        }
    }
}

impl std::error::Error for Error {}
