//! The mbox format: messages, sizes, unique-ids, and the octets a client gets.
//!
//! Runs in the worker, on a read-only descriptor and on bytes that anybody may have mailed: it
//! reads by position, never maps the file (a mailbox that shrinks would be a SIGBUS), and nothing
//! in it panics or allocates by what a message says.
//!
//! Messages, sizes and unique-ids are those of popa3d 1.0.3, except where that is wrong by the RFC
//! or makes a whole mailbox inaccessible; `tests/differential` names every exception:
//!
//! - a line may end in CRLF as well as in LF, in the same file;
//! - the last line of the file counts and is sent whole when its line end is missing;
//! - empty lines before the first message are passed over;
//! - a message of a From_ line alone is a message of no octets;
//! - the pseudo message of UW-IMAP and Alpine is no message.
//!
//! | module | subject |
//! |---|---|
//! | [`mod@scan`] | one pass over a mailbox: where messages are, how large, which id, which fingerprint |
//! | `error` | why a mailbox can't be served |
//! | `window` | the buffer of that pass |
//! | [`field`] | the first field of a name in a header |
//! | `header` | what a header line means to the pass |
//! | `line_ends` | counting at memory speed |
//! | [`mod@inspect`] | a closer look at a message, for people |
//! | `content` | what identifies a message whatever other programs note in it |
//! | [`mod@transmit`] | a message as POP3 sends it |
//! | [`message_id`] | the Message-ID of a message |
//! | [`unique_id`] | 1.0.3's ids, made unique |
//! | [`remembered`] | the ids that have to be kept between sessions |
//! | [`mod@relocate`] | finding messages again in a mailbox that others changed |

mod content;
mod error;
pub mod field;
mod header;
pub mod inspect;
mod line_ends;
pub mod message_id;
pub mod relocate;
pub mod remembered;
#[cfg(test)]
mod samples;
pub mod scan;
pub mod transmit;
pub mod unique_id;
mod window;

use std::fmt;

pub use error::ScanError;
pub use field::FirstField;
pub use inspect::{Front, Inspected, front, inspect};
pub use message_id::MessageIds;
pub use relocate::{Sealed, relocate, seal, still_there};
pub use remembered::Remembered;
pub use scan::{scan, scan_cutting};
pub use transmit::{Source, TransmitError, Workspace, transmit};
pub use unique_id::{LongIds, UniqueId};

use unique_id::{BaseId, Distinction};

/// Length as the client receives it: every line end counts as CRLF, stuffed dots do not count
/// (RFC 1939 section 11). Never a length on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Octets(pub u64);

impl fmt::Display for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a mailbox may be at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Messages in one maildrop.
    pub messages: u32,
    /// Size of the file on disk in bytes; `None` for no limit.
    pub file_size: Option<u64>,
}

/// One message and its place in the mailbox. All places are offsets in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Of the From_ line.
    start: u64,
    /// Behind the From_ line.
    content: u64,
    /// Of the next From_ line, or of the end of the file.
    end: u64,
    octets: Octets,
    fingerprint: u64,
    base: BaseId,
    /// Which entry of [`Index::distinctions`], or [`NOT_DISTINGUISHED`].
    distinction: u32,
    /// Bytes of the empty line in front of `end` that separates messages and is not served.
    separator: u8,
}

const NOT_DISTINGUISHED: u32 = u32::MAX;

impl Message {
    /// The bytes on disk that are this message's: from its From_ line to the next one. Deleting
    /// the message removes exactly these.
    pub fn range(&self) -> std::ops::Range<u64> {
        self.start..self.end
    }

    /// What LIST says and RETR sends.
    pub fn octets(&self) -> Octets {
        self.octets
    }

    /// The bytes on disk that a client gets.
    fn served(&self) -> std::ops::Range<u64> {
        self.content..self.end.saturating_sub(u64::from(self.separator))
    }
}

/// The messages of one mailbox in the order of the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Index {
    messages: Vec<Message>,
    /// What tells messages of one base id apart; empty in nearly every mailbox.
    distinctions: Vec<Distinction>,
}

impl Index {
    /// All messages; the first is message number 1.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The octets of all messages together, as STAT tells.
    pub fn octets(&self) -> Octets {
        Octets(self.messages.iter().map(|message| message.octets.0).sum())
    }
}
