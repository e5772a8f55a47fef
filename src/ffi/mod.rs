//! The only folder where `unsafe` is allowed: forking, receiving descriptors, and libpam.
//!
//! Everything here offers a safe interface to the rest of the program.
#![allow(unsafe_code, reason = "fork(2), SCM_RIGHTS and libpam have no safe interface")]

pub mod file;
pub mod pam;
pub mod process;
pub mod socket;
