//! What is said between root and the process that reads kept mail.

use serde::{Deserialize, Serialize};

use super::Range;

/// Most octets of a header in a [`KeptMessage`].
pub const MAX_HEADER: usize = 200;

/// To the process that reads what is kept.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Look {
    /// What is in the mbox that is attached, read-only?
    Inside,
}

/// From the process that reads what is kept.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// The next message.
    Message(KeptMessage),
    /// There are no more in this file.
    All,
    /// It cannot be read; why.
    Nothing(String),
}

/// A message that was removed and is kept. Texts are as they stand in it, at most [`MAX_HEADER`] octets
/// each, and empty where there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptMessage {
    /// Its place in the file.
    pub range: Range,
    /// How many line feeds it lacks at its end for another message to follow.
    pub line_feeds: u8,
    /// As LIST tells.
    pub octets: u64,
    /// As UIDL tells where there is no other mail than what this file has.
    pub unique_id: String,
    /// What UIDL told, but for a number behind it, if mail that was there shared that id.
    pub long_id: String,
    /// The header `Message-ID`.
    pub message_id: Vec<u8>,
    /// The header `From`.
    pub from: Vec<u8>,
    /// The header `Subject`.
    pub subject: Vec<u8>,
}

/// How many line feeds make an empty line of the end of a message, or of a mailbox, so that another message
/// can follow; its last three octets tell.
#[must_use]
pub fn lacking_line_feeds(end: &[u8]) -> u8 {
    match end {
        [] | [.., b'\n', b'\n'] | [.., b'\n', b'\r', b'\n'] | [b'\n'] => 0,
        [.., b'\n'] => 1,
        [..] => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_that_are_missing_are_counted() {
        let ends: [(&[u8], u8); 7] = [
            (b"", 0),
            (b"\n", 0),
            (b"a\n\n", 0),
            (b"\n\r\n", 0),
            (b"ab\n", 1),
            (b"a\r\n", 1),
            (b"abc", 2),
        ];
        for (end, expected) in ends {
            assert_eq!(lacking_line_feeds(end), expected, "{end:?}");
        }
    }
}
