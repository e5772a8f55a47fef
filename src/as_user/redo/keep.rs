//! Keeping what a removal takes away.

use std::io;

use super::Storage;
use crate::channel::Range;

/// Octets that are read and written at once.
const COPY: u64 = 1024 * 1024;

/// Copies `doomed` from `mailbox` to the empty file `kept`, one behind the other, durably.
///
/// Through a buffer, as everything else here, so that the simulator sees it. Most of the time is the disk's.
pub(super) fn keep(
    mailbox: &impl Storage,
    kept: &impl Storage,
    doomed: &[Range],
) -> io::Result<()> {
    let total = doomed.iter().map(|range| range.end - range.start).sum();
    // A full disk is noticed before anything is written.
    kept.reserve(total)?;
    let size = usize::try_from(total.min(COPY)).map_err(io::Error::other)?;
    let mut buffer = Vec::with_capacity(size);
    let mut place = 0;
    for range in doomed {
        let mut from = range.start;
        while from < range.end {
            let begin = buffer.len();
            let room = (size - begin) as u64;
            let length = room.min(range.end - from);
            buffer.resize(begin + usize::try_from(length).map_err(io::Error::other)?, 0);
            let part = buffer.get_mut(begin..).unwrap_or_default();
            if mailbox.read_at(part, from)? < part.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            from += length;
            if buffer.len() == size {
                kept.write_at(&buffer, place)?;
                place += buffer.len() as u64;
                buffer.clear();
            }
        }
    }
    kept.write_at(&buffer, place)?;
    kept.sync()
}
