//! Hints about files, and room for them.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::libc;

/// Has the kernel begin to write a part of `file` to the disk, and does not wait for it.
///
/// A hint, which promises nothing: only a sync does. Where it fails nothing is lost but time.
pub fn begin_writing(file: &File, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else { return };
    // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is involved.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Makes room on the disk for `more` octets behind `size`, which stays the size of `file`. Where the
/// file system cannot do that, nothing happens.
///
/// # Errors
///
/// fallocate(2)'s: no room, no quota.
pub fn reserve_behind(file: &File, size: u64, more: u64) -> io::Result<()> {
    let offset = i64::try_from(size).map_err(io::Error::other)?;
    let length = i64::try_from(more).map_err(io::Error::other)?;
    let flags = nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
    match nix::fcntl::fallocate(file, flags, offset, length) {
        Err(nix::Error::EOPNOTSUPP) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
