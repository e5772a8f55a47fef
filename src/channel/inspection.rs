//! What a process that looks at a mailbox for an admin says; nobody says anything to it.

use serde::{Deserialize, Serialize};

use super::{Totals, Trouble};

/// From a process that reads a mailbox to the one that shows it: first [`Seen::Scanned`] or
/// [`Seen::Unservable`]; then all messages, and what there is to say of the whole.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seen {
    /// All messages are known: the mailbox may be unlocked.
    Scanned(Totals),
    /// It cannot be served.
    Unservable(Trouble),
    /// The next message.
    Message(SeenMessage),
    /// There are no more; what is odd about the mailbox.
    End(Vec<Oddity>),
}

/// A message, as clients and migrations see it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenMessage {
    /// What LIST says.
    pub octets: u64,
    /// What UIDL says.
    pub unique_id: String,
    /// The value of its first Message-ID, unfolded; at most 998 octets of it, as a line of a header has no more
    /// (RFC 5322 section 2.1.1).
    pub message_id: Option<Vec<u8>>,
    /// What is odd about it.
    pub oddities: Vec<Oddity>,
}

/// Something that may explain what a client or another program makes of a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Oddity {
    /// So many empty lines come before the first message.
    EmptyLinesFirst(u64),
    /// The notes of UW-IMAP or Alpine are there, and hidden.
    InternalData,
    /// The file does not end with a line end.
    NoFinalLineEnd,
    /// Another program changed the mailbox while the messages were read.
    Changed,
    /// Reading failed, with this errno.
    Unreadable(i32),
    /// Nothing but a From_ line.
    OnlyFromLine,
    /// No empty line ends the header.
    HeaderWithoutEnd,
    /// So many lines of the header are no fields.
    NoFields(u64),
    /// So many lines look like From_ lines, but no empty line is before them.
    FromLinesInside(u64),
    /// So many lines end in CRLF.
    CrlfLines(u64),
    /// So many octets are NUL.
    NulOctets(u64),
    /// The longest line has so many octets, more than a message may have in a line.
    LongLine(u64),
    /// The message with this number has the same Message-ID.
    SharesMessageId(u32),
    /// popa3d 1.0.3 gives another message the same unique-id: this one has a suffix.
    SharesUniqueId,
}
