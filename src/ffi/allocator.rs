//! Memory that is wiped when it is freed.

use std::alloc::{GlobalAlloc, Layout, System};

use nix::libc::{self, explicit_bzero};

/// From this size on whole pages go back to the kernel, which hands out none that were not wiped. Wiping
/// would first have to get those that nobody ever wrote to.
const LARGE: usize = 64 * 1024;

/// No page is smaller, nor is it on the machines that this is built for.
const PAGE: usize = 4096;

/// The allocator of the C library, but nothing that was freed can be read again.
///
/// Passwords and keys pass through buffers of libraries that do not wipe them, TLS's above all.
pub struct WipingAllocator;

// SAFETY: every call is passed on to the system's allocator as it came; what is wiped before is
// still allocated, and nobody uses it any more. The default `realloc` allocates, copies and
// frees, so that it wipes, too.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above. Large ones come zeroed from the kernel, which costs nothing.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller hands back `layout.size()` octets that were allocated here.
        unsafe { wipe(memory, layout.size()) };
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) };
    }
}

/// Wipes `size` octets at `memory`.
///
/// # Safety
///
/// They are private memory of this process that nobody uses.
unsafe fn wipe(memory: *mut u8, size: usize) {
    let head = memory.align_offset(PAGE);
    let pages = size.saturating_sub(head) / PAGE * PAGE;
    if size < LARGE || pages == 0 {
        // SAFETY: the caller's promise.
        return unsafe { explicit_bzero(memory.cast(), size) };
    }
    // SAFETY: `head` is less than `size`.
    let first = unsafe { memory.add(head) };
    // SAFETY: whole pages of memory that nobody uses; where pages are larger it is refused.
    let done = unsafe { libc::madvise(first.cast(), pages, libc::MADV_DONTNEED) } == 0;
    let wiped = if done { 0 } else { pages };
    // SAFETY: within the block.
    unsafe { explicit_bzero(memory.cast(), head + wiped) };
    // SAFETY: `head + pages` is at most `size`.
    let tail = unsafe { first.add(pages) };
    // SAFETY: what is left of the block.
    unsafe { explicit_bzero(tail.cast(), size - head - pages) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in a block after it was wiped; the block stays allocated.
    fn wiped(size: usize, offset: usize) -> Vec<u8> {
        let mut octets = vec![0xa5; offset + size];
        let start = octets.as_mut_ptr().wrapping_add(offset);
        // SAFETY: `size` octets from `offset` on are within the vector.
        unsafe { wipe(start, size) };
        octets.drain(..offset).for_each(|octet| assert_eq!(octet, 0xa5));
        octets
    }

    #[test]
    fn nothing_is_left_of_small_and_large_blocks_wherever_they_begin() {
        for size in [1, 100, PAGE, LARGE - 1, LARGE, LARGE + 1, LARGE + PAGE + 7, 3 * LARGE] {
            for offset in [0, 1, 16, PAGE - 1] {
                assert!(wiped(size, offset).iter().all(|octet| *octet == 0), "{size} at {offset}");
            }
        }
    }
}
