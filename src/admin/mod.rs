//! Commands that an admin types, as against serving a client: a file for each.

pub mod undelete;
