//! Forking, and closing what a child shall not have.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use nix::unistd::{ForkResult, Pid};

unsafe extern "C" {
    /// fork(2) without the handlers that libraries registered with pthread_atfork(3); glibc has it since
    /// 2.34, musl since 1.2.3.
    fn _Fork() -> nix::libc::pid_t;
}

/// Runs `child` in a new process, which ends with the status that it returns.
///
/// The child never returns into the caller's code: no destructor of the parent runs in it twice.
/// A panic in it ends it (`panic = "abort"`).
///
/// # Errors
///
/// fork(2)'s: no process, no memory.
pub fn fork(child: impl FnOnce() -> i32) -> io::Result<Pid> {
    // SAFETY: this process has no thread of its own besides this one whenever it forks (the PAM watchdog
    // is joined before), and fork(2) has the allocator in order whatever libraries have begun, so the
    // child may allocate as it likes.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => end_with(child()),
    }
}

/// The same, for a child that uses no library that PAM brought: those are not told of it, and are out
/// of its memory if they are known ([`Mappings::keep_from_children`]).
///
/// Where one of them has begun a thread, that may be allocating just now: then it takes fork(2) with all
/// that belongs to it for the child to have memory to work with.
///
/// # Errors
///
/// fork(2)'s.
pub fn fork_without_modules(child: impl FnOnce() -> i32) -> io::Result<Pid> {
    if has_threads() {
        return fork(child);
    }
    let modules = MODULES.get();
    modules.into_iter().for_each(|modules| modules.advise(nix::libc::MADV_DONTFORK));
    // SAFETY: as above; the handlers that are left out keep locks and random numbers of libraries in
    // order that the child does not use.
    let forked = match unsafe { _Fork() } {
        0 => end_with(child()),
        pid if pid > 0 => Ok(Pid::from_raw(pid)),
        _ => Err(io::Error::last_os_error()),
    };
    // Modules fork, too (pam_unix for unix_chkpwd), and their children go on in the module.
    modules.into_iter().for_each(|modules| modules.advise(nix::libc::MADV_DOFORK));
    forked
}

/// Whether this process has another thread than this one; yes where that cannot be seen.
fn has_threads() -> bool {
    std::fs::read_dir("/proc/self/task").map_or(true, |threads| threads.take(2).count() != 1)
}

/// What children have no use for.
static MODULES: OnceLock<Mappings> = OnceLock::new();

fn end_with(status: i32) -> ! {
    // SAFETY: _exit has no precondition; it skips destructors and exit handlers that belong to the
    // parent.
    unsafe { nix::libc::_exit(status) }
}

/// Parts of this process's memory that files are mapped to.
#[derive(Debug, Clone, Default)]
pub struct Mappings(Vec<(usize, usize, String)>);

impl Mappings {
    /// What is mapped now.
    ///
    /// # Errors
    ///
    /// /proc cannot be read.
    pub fn now() -> io::Result<Self> {
        let text = std::fs::read_to_string("/proc/self/maps")?;
        let mut found: Vec<(usize, usize, String)> = Vec::new();
        for (start, length, path) in text.lines().filter_map(mapping) {
            match found.last_mut() {
                // The parts of a library lie side by side.
                Some((first, before, of)) if *first + *before == start && *of == path => {
                    *before += length;
                }
                Some(_) | None => found.push((start, length, path)),
            }
        }
        Ok(Self(found))
    }

    /// Whether nothing is known to be there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of files that `before` has nothing of.
    #[must_use]
    pub fn added_since(&self, before: &Self) -> Self {
        let is_new = |(start, length, path): &&(usize, usize, String)| {
            // A file that was replaced or moved has another name meanwhile, and is where it was: such as
            // this program after an upgrade.
            before.0.iter().all(|(at, size, known)| {
                let is_apart =
                    start.saturating_add(*length) <= *at || at.saturating_add(*size) <= *start;
                known != path && is_apart
            })
        };
        Self(self.0.iter().filter(is_new).cloned().collect())
    }

    /// Has them left out of the memory of children that [`fork_without_modules`] makes from now on, which
    /// must not use what is gone; for the life of this process.
    pub fn keep_from_children(&self) {
        let _ = MODULES.set(self.clone());
    }

    fn advise(&self, advice: i32) {
        for (start, length, _) in &self.0 {
            // SAFETY: nothing changes in this process; in children nobody calls into these libraries.
            // Where it fails they are merely there.
            unsafe {
                nix::libc::madvise(*start as *mut _, *length, advice);
            }
        }
    }
}

/// A line of proc_pid_maps(5): where it begins, how long it is, and its file.
fn mapping(line: &str) -> Option<(usize, usize, String)> {
    let path = line.get(line.find('/')?..)?;
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    let (start, end) =
        (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?, path.to_owned()))
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

/// The descriptors that are open.
///
/// # Errors
///
/// /proc cannot be read.
pub fn open_descriptors() -> io::Result<Vec<RawFd>> {
    let names = std::fs::read_dir("/proc/self/fd")?;
    let numbers = names.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut numbers: Vec<RawFd> = numbers.collect();
    // The one that they were read by is closed again.
    numbers.retain(|number| is_open(*number));
    Ok(numbers)
}

fn is_open(number: RawFd) -> bool {
    // SAFETY: F_GETFD touches no memory; it fails for a number that is not open.
    unsafe { nix::libc::fcntl(number, nix::libc::F_GETFD) != -1 }
}

/// Has those of `numbers` that are free stand for /dev/null for good, so that nothing else gets them.
pub fn occupy_descriptors(numbers: &[RawFd]) {
    let free: Vec<RawFd> = numbers.iter().copied().filter(|number| !is_open(*number)).collect();
    if free.is_empty() {
        return;
    }
    // Where that fails they are merely free.
    let Ok(null) = File::options().read(true).write(true).open("/dev/null") else { return };
    for number in free.iter().filter(|number| **number != null.as_raw_fd()) {
        // SAFETY: nobody owns that number, for it is not open.
        unsafe { nix::libc::dup3(null.as_raw_fd(), *number, nix::libc::O_CLOEXEC) };
    }
    if free.contains(&null.as_raw_fd()) {
        let _ = null.into_raw_fd();
    }
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

#[cfg(test)]
mod tests {
    use nix::sys::wait::{WaitStatus, waitpid};

    use super::*;

    #[test]
    fn file_mapped_meanwhile_is_the_only_one_that_was_added() {
        let before = Mappings::now().unwrap();
        assert!(before.0.len() > 3);
        let line = "7f0000000000-7f0000002000 r-xp 00001000 fe:00 77 /usr/lib/security/pam_unix.so";
        let mut after = before.clone();
        after.0.extend(mapping(line));
        let added = after.added_since(&before).0;
        let path = "/usr/lib/security/pam_unix.so".to_owned();
        assert_eq!(added, [(0x7f00_0000_0000, 0x2000, path)]);
        // As an upgrade leaves what runs.
        after.0.iter_mut().for_each(|(_, _, path)| path.push_str(" (deleted)"));
        assert_eq!(after.added_since(&before).0.len(), 1);
        assert_eq!(mapping("7ffc1000-7ffc3000 rw-p 00000000 00:00 0   [stack]"), None);
    }

    /// Maps a file into memory, where it stays; says where.
    fn map(path: &std::path::Path) -> usize {
        use nix::libc::{MAP_FAILED, MAP_PRIVATE, PROT_READ, mmap};
        std::fs::write(path, [7; 4096]).unwrap();
        let file = std::fs::File::open(path).unwrap();
        let nowhere = std::ptr::null_mut();
        // SAFETY: a new mapping, at a place that the kernel chooses.
        let at = unsafe { mmap(nowhere, 4096, PROT_READ, MAP_PRIVATE, file.as_raw_fd(), 0) };
        assert_ne!(at, MAP_FAILED);
        at as usize
    }

    /// Which children have a module, in a process without other threads: ours, and its own.
    fn children_with_module() -> i32 {
        let before = Mappings::now().unwrap();
        let path = std::env::temp_dir().join(format!("popa3d-module-{}", std::process::id()));
        let module = map(&path);
        std::fs::remove_file(path).unwrap();
        Mappings::now().unwrap().added_since(&before).keep_from_children();
        // SAFETY: msync(2) fails where nothing is mapped, and else has nothing to do.
        let has_it = || unsafe { nix::libc::msync(module as *mut _, 4096, nix::libc::MS_ASYNC) };
        let end = |pid| waitpid(pid, None).unwrap();
        let ours = fork_without_modules(|| i32::from(has_it() == 0)).unwrap();
        let a_module_s = fork(|| i32::from(has_it() == 0)).unwrap();
        let expected = [WaitStatus::Exited(ours, 0), WaitStatus::Exited(a_module_s, 1)];
        i32::from([end(ours), end(a_module_s)] != expected)
    }

    #[test]
    fn modules_are_in_the_memory_of_those_children_only_that_they_fork_themselves() {
        let pid = fork(children_with_module).unwrap();
        assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0));
    }

    #[test]
    fn child_that_is_forked_without_modules_runs_and_ends() {
        let pid = fork_without_modules(|| i32::from(vec![7_u8; 100_000].len() != 100_000)).unwrap();
        assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0));
    }

    #[test]
    fn numbers_that_are_occupied_go_to_nobody_else_and_open_ones_stay_what_they_are() {
        let child = || {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            let free = std::fs::File::open("/proc/self/maps").map(|file| file.as_raw_fd()).unwrap();
            let numbers = [ours.as_raw_fd(), free, free + 1, free + 7];
            occupy_descriptors(&numbers);
            let what =
                |number: &RawFd| std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
            let [kept, others @ ..] = numbers.each_ref().map(what);
            let is_kept = kept.to_str().unwrap().starts_with("socket:");
            let are_null = others.iter().all(|other| other.to_str() == Some("/dev/null"));
            let next = std::fs::File::open("/proc/self/maps").unwrap().as_raw_fd();
            let open = open_descriptors().unwrap();
            drop(theirs);
            let are_closed_again = !open.contains(&next);
            let are_open = numbers.iter().all(|number| open.contains(number));
            i32::from(
                !(is_kept && are_null && are_open && are_closed_again && !numbers.contains(&next)),
            )
        };
        let pid = fork(child).unwrap();
        assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0));
    }

    /// Whether a child of [`fork_without_modules`] can allocate, however often others do at its birth.
    fn allocates_among_threads() -> i32 {
        use_one_heap();
        for _ in 0..8 {
            std::thread::spawn(|| {
                loop {
                    std::hint::black_box(vec![0_u8; 3000]);
                }
            });
        }
        for _ in 0..60 {
            let pid = fork_without_modules(|| {
                // A lock that nobody will ever let go is the end of it.
                nix::unistd::alarm::set(60);
                (0..50).for_each(|size| drop(std::hint::black_box(vec![1_u8; size * 100])));
                0
            });
            let pid = pid.unwrap();
            if waitpid(pid, None) != Ok(WaitStatus::Exited(pid, 0)) {
                return 1;
            }
        }
        0
    }

    #[test]
    fn child_has_memory_to_work_with_whatever_threads_there_are() {
        let pid = fork(allocates_among_threads).unwrap();
        assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0));
    }
}
