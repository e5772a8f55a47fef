//! Removing messages from a mailbox, in place: other programs hold on to its inode.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::channel::Range;

/// What is moved at once.
const PIECE: usize = 1024 * 1024;

/// Why an UPDATE failed.
#[derive(Debug)]
pub(super) enum Error {
    /// What was ordered is not a list of ascending ranges within the file.
    Ranges,
    /// The mailbox could not be read, written or synced.
    Io(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ranges => f.write_str("the worker named octets that are not in the mailbox"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Removes `doomed` from the locked `mailbox`, durably; everything else stays as it is, in order.
///
/// # Errors
///
/// See [`Error`]. With [`Error::Ranges`] nothing was changed.
pub(super) fn remove(mailbox: &File, doomed: &[Range]) -> Result<(), Error> {
    let size = mailbox.metadata()?.len();
    check(doomed, size)?;
    let Some(first) = doomed.first() else { return Ok(()) };
    let mut buffer = vec![0; PIECE];
    let mut place = first.start;
    for (index, range) in doomed.iter().enumerate() {
        let until = doomed.get(index + 1).map(|next| next.start);
        place = shift(mailbox, range.end, until, place, &mut buffer)?;
    }
    mailbox.set_len(place)?;
    mailbox.sync_all()?;
    Ok(())
}

fn check(doomed: &[Range], size: u64) -> Result<(), Error> {
    let mut least = 0;
    for range in doomed {
        if range.start < least || range.end <= range.start {
            return Err(Error::Ranges);
        }
        least = range.end;
    }
    if least > size { Err(Error::Ranges) } else { Ok(()) }
}

/// Moves the octets from `from` up to `until`, or up to the end of the file, down to `place`;
/// returns the offset behind them.
fn shift(
    mailbox: &File,
    mut from: u64,
    until: Option<u64>,
    mut place: u64,
    buffer: &mut [u8],
) -> io::Result<u64> {
    loop {
        let room = usize::try_from(until.map_or(u64::MAX, |until| until - from));
        let room = room.unwrap_or(usize::MAX).min(buffer.len());
        let piece = buffer.get_mut(..room).unwrap_or_default();
        let count = match mailbox.read_at(piece, from) {
            Ok(0) => return Ok(place),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        mailbox.write_all_at(piece.get(..count).unwrap_or_default(), place)?;
        from += count as u64;
        place += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    fn removed(content: &[u8], doomed: &[(u64, u64)]) -> Result<Vec<u8>, Error> {
        let path = std::env::temp_dir().join(format!(
            "popa3d-update-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let mut options = std::fs::OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all(content).unwrap();
        let ranges: Vec<Range> =
            doomed.iter().map(|(start, end)| Range { start: *start, end: *end }).collect();
        remove(&file, &ranges)?;
        let mut after = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut after).unwrap();
        Ok(after)
    }

    #[test]
    fn exactly_the_named_octets_go() {
        assert_eq!(removed(b"0123456789", &[(2, 4), (5, 6)]).unwrap(), b"0146789");
        assert_eq!(removed(b"0123456789", &[(0, 10)]).unwrap(), b"");
        assert_eq!(removed(b"0123456789", &[(9, 10)]).unwrap(), b"012345678");
        assert_eq!(removed(b"0123456789", &[(0, 2), (2, 3)]).unwrap(), b"3456789");
        assert_eq!(removed(b"0123456789", &[]).unwrap(), b"0123456789");
    }

    #[test]
    fn pieces_larger_than_the_buffer_move_whole() {
        let mut content: Vec<u8> =
            (0..3 * PIECE + 17).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let end = content.len() as u64;
        let after = removed(&content, &[(5, 1000), (end - 3, end)]).unwrap();
        content.truncate(3 * PIECE + 14);
        content.drain(5..1000);
        assert!(after == content);
    }

    #[test]
    fn ranges_that_overlap_or_leave_the_file_change_nothing() {
        for doomed in [&[(2, 4), (3, 6)][..], &[(4, 5), (1, 2)], &[(3, 3)], &[(8, 11)]] {
            assert!(matches!(removed(b"0123456789", doomed), Err(Error::Ranges)), "{doomed:?}");
        }
    }
}
