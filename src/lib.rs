//! popa3d: a POP3 server for mailboxes in the mail spool.
//!
//! One session is up to three processes, standing alone there is one more, and the folders say which code
//! runs in which:
//!
//! | folder | process | trust |
//! |---|---|---|
//! | [`admin`] | the one of a command, with the uid of who typed it | shows what it finds, and what the others find; never parses mail |
//! | [`listener`] | with `-D`: the one that accepts connections and starts sessions, uid 0 | counts; reads nothing of what clients send |
//! | [`monitor`] | the first one of a session, uid 0 | decides; never parses what a client or a message wrote |
//! | [`worker`] | uid popa3d, sandboxed | touches every octet from the network and from mail |
//! | [`as_user`] | uid of the mail user, for one operation | opens, locks and changes the mailbox |
//!
//! Beside them: [`pop3`] (the protocol, without I/O), [`proxy`] (what a proxy says of its client, likewise)
//! and [`mbox`] (the file format) are the worker's; TLS has two halves, `worker::tls` with the records and
//! `monitor::tls` with the keys, which `monitor::handshake` lends out; what the listener has ready for
//! sessions is `monitor::prepared`. [`channel`] carries typed messages between the processes; [`event`] is all
//! that the journal may be told, and [`journal`] the way there; [`settings`] is `/etc/popa3d.toml`; [`source`]
//! says whom limits count as one client; [`cli`] has the options; [`ffi`] is all that is unsafe.
//!
//! Commands start the same processes without a session: what reads a mailbox (`worker::inspector`) or kept
//! mail (`worker::kept`) for an admin is confined as a worker, and what changes a mailbox is `as_user`.
//! Who may use whom is checked by `tests/architecture.rs`:
//!
//! ```text
//! cli      -> admin journal listener monitor settings
//! admin    -> as_user channel event ffi monitor settings
//! listener -> channel event ffi monitor settings source
//! monitor  -> as_user channel event ffi mbox settings source worker
//! worker   -> channel ffi mbox pop3 proxy
//! as_user  -> channel ffi
//! channel  -> ffi
//! event    -> channel settings
//! settings -> channel
//! ```

pub mod admin;
pub mod as_user;
pub mod channel;
pub mod cli;
pub mod event;
pub mod ffi;
pub mod journal;
pub mod listener;
pub mod mbox;
pub mod monitor;
pub mod pop3;
pub mod proxy;
pub mod settings;
pub mod source;
pub mod worker;

#[global_allocator]
static ALLOCATOR: ffi::allocator::WipingAllocator = ffi::allocator::WipingAllocator;
