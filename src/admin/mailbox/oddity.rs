//! What is odd, for programs and for people.

use serde::Serialize;

use crate::channel::Oddity;
use crate::monitor::Remark;

/// An oddity with its words.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Described {
    /// For programs; popa3d(8) lists them.
    pub(super) kind: &'static str,
    /// How many, or which message, where that is a question.
    pub(super) value: Option<u64>,
    /// For people.
    pub(super) text: String,
}

fn described(kind: &'static str, value: Option<u64>, text: impl Into<String>) -> Described {
    Described { kind, value, text: text.into() }
}

/// "1 line" or "2 lines".
fn lines(count: u64) -> String {
    if count == 1 { "1 line".to_owned() } else { format!("{count} lines") }
}

/// What is odd about a mailbox as a whole.
pub(super) fn of_mailbox<'a>(
    remarks: &'a [Remark],
    oddities: &'a [Oddity],
) -> impl Iterator<Item = Described> + 'a {
    remarks.iter().copied().map(of_remark).chain(oddities.iter().copied().map(of))
}

fn of_remark(remark: Remark) -> Described {
    match remark {
        Remark::RedoRecord => described(
            "redo-record",
            None,
            "an update was interrupted, and the mailbox may be half-way: the next login finishes it, or \
             popa3d --recover",
        ),
        Remark::WithoutDotlock => described(
            "no-dotlock",
            None,
            "read without a lock file, which its directory does not allow",
        ),
        Remark::IdsNotKnown => described(
            "unique-ids-not-known",
            None,
            "only root can see which unique-ids are remembered: those with a suffix may be others",
        ),
    }
}

pub(super) fn of(oddity: Oddity) -> Described {
    match oddity {
        Oddity::EmptyLinesFirst(count) => described(
            "empty-lines-first",
            Some(count),
            format!("{} without anything before the first message", lines(count)),
        ),
        Oddity::InternalData => described(
            "internal-data",
            None,
            "it begins with the FOLDER INTERNAL DATA of UW-IMAP or Alpine, which is hidden",
        ),
        Oddity::NoFinalLineEnd => {
            described("no-final-line-end", None, "its last line has no line end")
        }
        Oddity::Changed => {
            described("changed", None, "another program changed it meanwhile: look again")
        }
        Oddity::Unreadable(errno) => described(
            "unreadable",
            None,
            format!("reading it failed: {}", std::io::Error::from_raw_os_error(errno)),
        ),
        Oddity::OnlyFromLine => described("only-from-line", None, "nothing but a From_ line"),
        Oddity::HeaderWithoutEnd => {
            described("header-without-end", None, "no empty line ends the header")
        }
        Oddity::NoFields(count) => described(
            "no-fields",
            Some(count),
            format!("{} of the header without a field name", lines(count)),
        ),
        Oddity::FromLinesInside(count) => described(
            "from-lines-inside",
            Some(count),
            format!(
                "{} like a From_ line without an empty line before: part of this message",
                lines(count)
            ),
        ),
        Oddity::CrlfLines(count) => {
            described("crlf-lines", Some(count), format!("{} with CRLF at the end", lines(count)))
        }
        Oddity::NulOctets(count) => {
            described("nul-octets", Some(count), format!("NUL octets: {count}"))
        }
        Oddity::LongLine(length) => described(
            "long-line",
            Some(length),
            format!("a line of {length} octets, more than the 998 that a message may have"),
        ),
        Oddity::SharesMessageId(number) => described(
            "shares-message-id",
            Some(number.into()),
            format!("the Message-ID of message {number}"),
        ),
        Oddity::SharesUniqueId => described(
            "shares-unique-id",
            None,
            "popa3d 1.0.3 gives another message the same unique-id: this one has a suffix",
        ),
    }
}
