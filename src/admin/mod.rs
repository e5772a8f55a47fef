//! What an admin types, as against serving a client: a file or a folder for each command.

pub mod doctor;
pub mod mailbox;
pub mod sessions;
pub mod undelete;
