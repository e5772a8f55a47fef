//! Memory that is wiped when it is freed.

use std::alloc::{GlobalAlloc, Layout, System};

use nix::libc::explicit_bzero;

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
        unsafe { explicit_bzero(memory.cast(), layout.size()) };
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) };
    }
}
