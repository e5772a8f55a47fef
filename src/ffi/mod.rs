//! The only folder where `unsafe` is allowed: forking, signal handlers, receiving descriptors, libpam,
//! and wiping memory.
//!
//! Everything here offers a safe interface to the rest of the program.
#![allow(
    unsafe_code,
    reason = "fork(2), sigaction(2), SCM_RIGHTS, libpam and allocators have no safe interface"
)]

pub mod allocator;
pub mod clock;
pub mod file;
pub mod pam;
pub mod process;
pub mod signal;
pub mod socket;
