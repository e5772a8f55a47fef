//! For people, on a terminal: whatever a message says is escaped.

use std::io::{self, Write};

use super::oddity::{self, Described};
use super::{Oddity, Overview, Remark, SeenMessage};
use crate::event::printable;

pub(super) fn begin(overview: &Overview, output: &mut impl Write) -> io::Result<()> {
    let path = printable(overview.path.display().to_string().as_bytes());
    writeln!(output, "mailbox   {path}")?;
    match &overview.file {
        Some(facts) => writeln!(
            output,
            "file      {} octets, owner {}:{}, mode {:04o}",
            facts.size,
            printable(overview.user.as_bytes()),
            printable(facts.group.as_bytes()),
            facts.mode
        )?,
        None => writeln!(output, "file      none, so the maildrop is empty")?,
    }
    let totals = overview.totals;
    let plural = if totals.messages == 1 { "" } else { "s" };
    writeln!(output, "maildrop  {} message{plural}, {} octets", totals.messages, totals.octets)?;
    if totals.messages > 0 {
        let (number, octets) = widths(overview);
        writeln!(
            output,
            "\n{:>number$}  {:>octets$}  {:16}  MESSAGE-ID",
            "NUMBER", "OCTETS", "UNIQUE-ID"
        )?;
    }
    Ok(())
}

/// Of the first two columns.
fn widths(overview: &Overview) -> (usize, usize) {
    let digits = |number: u64| number.to_string().len().max("NUMBER".len());
    (digits(overview.totals.messages.into()), digits(overview.totals.octets))
}

pub(super) fn message(
    number: u32,
    message: &SeenMessage,
    overview: &Overview,
    output: &mut impl Write,
) -> io::Result<()> {
    let (width, octets) = widths(overview);
    let unique_id = printable(message.unique_id.as_bytes());
    let message_id = message.message_id.as_deref().map_or_else(|| "-".to_owned(), printable);
    writeln!(
        output,
        "{number:>width$}  {:>octets$}  {unique_id:16}  {message_id}",
        message.octets
    )?;
    for Described { text, .. } in message.oddities.iter().copied().map(oddity::of) {
        writeln!(output, "{:width$}  - {text}", "")?;
    }
    Ok(())
}

pub(super) fn end(
    remarks: &[Remark],
    oddities: &[Oddity],
    output: &mut impl Write,
) -> io::Result<()> {
    let mut all = oddity::of_mailbox(remarks, oddities).peekable();
    if all.peek().is_some() {
        writeln!(output, "\nabout the mailbox:")?;
    }
    for Described { text, .. } in all {
        writeln!(output, "- {text}")?;
    }
    Ok(())
}
