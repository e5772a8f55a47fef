//! What an admin types, as against serving a client: a file or a folder for each command. `--recover` and
//! `--expire`, which units type as well, are `monitor`'s own.

pub mod doctor;
pub mod mailbox;
pub mod sessions;
pub mod undelete;
