//! Commands for who looks after the server, one folder or file each. Nobody is served by them.

pub mod mailbox;
pub mod sessions;
