//! Hints about files.

use std::fs::File;
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
