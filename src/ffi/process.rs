//! Forking, and closing what a child shall not have.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::unistd::{ForkResult, Pid};

/// Runs `child` in a new process, which ends with the status that it returns.
///
/// The child never returns into the caller's code: no destructor of the parent runs in it twice.
/// A panic in it ends it (`panic = "abort"`).
///
/// # Errors
///
/// fork(2)'s: no process, no memory.
pub fn fork(child: impl FnOnce() -> i32) -> io::Result<Pid> {
    // SAFETY: this process has one thread whenever it forks (the PAM watchdog is joined before),
    // so the child may allocate and lock as it likes.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let status = child();
            // SAFETY: _exit has no precondition; it skips destructors and exit handlers that
            // belong to the parent.
            unsafe { nix::libc::_exit(status) }
        }
    }
}

/// Closes every descriptor of this process except `kept`.
///
/// For a child right behind its fork: whatever the parent holds (sockets, locks, what PAM modules
/// opened) ends there. The caller must not use any other descriptor afterwards; owners of closed
/// ones must be forgotten, not dropped, which is so for all that the parent owns.
///
/// # Errors
///
/// close_range(2)'s.
pub fn close_all_except(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    close_all_except_numbers(kept.iter().map(AsRawFd::as_raw_fd).collect())
}

/// The same, with descriptors by their numbers.
///
/// # Errors
///
/// close_range(2)'s.
pub fn close_all_except_numbers(kept: Vec<RawFd>) -> io::Result<()> {
    let mut numbers: Vec<u32> = kept.into_iter().filter_map(|fd| fd.try_into().ok()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut first = 0;
    for number in numbers {
        if number > first {
            close_range(first, number - 1)?;
        }
        first = number + 1;
    }
    close_range(first, u32::MAX)
}

/// Owns a descriptor that the program before this one in this process left open for it.
///
/// # Errors
///
/// There is no such descriptor, or it is a standard stream.
pub fn take_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    if number <= nix::libc::STDERR_FILENO {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: F_SETFD touches no memory; it fails for a number that is not open.
    let result = unsafe { nix::libc::fcntl(number, nix::libc::F_SETFD, nix::libc::FD_CLOEXEC) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and this program, which did not open it, knows its number from the one
    // that left it alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: closing is what this module's caller asked for; the numbers are a valid range
    // because `first <= last` holds at both calls above.
    let result = unsafe { nix::libc::syscall(nix::libc::SYS_close_range, first, last, 0_u32) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives memory that was freed back to the kernel: a session is idle for most of its life, and
/// there may be hundreds.
pub fn trim_memory() {
    // SAFETY: malloc_trim(3) touches only what the allocator holds as free.
    unsafe { nix::libc::malloc_trim(0) };
}

/// Has all threads of this process use one heap: a second one costs four system calls and memory,
/// and the only thread that there ever is besides the first does next to nothing.
pub fn use_one_heap() {
    // SAFETY: mallopt(3) sets a number; there is one thread yet.
    unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1) };
}
