//! Looking into what is kept of removed mail, for an admin who wants to put some of it back.
//!
//! Runs in a process of its own, as locked in as a worker: what is kept is what anybody may have mailed.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use super::{Confinement, NO_SANDBOX, sandbox};
use crate::channel::{Found, FromReader, KeptMessage, Look, MAX_HEADER, Range, lacking_line_feeds};
use crate::ffi::process::close_all_except;
use crate::mbox::{self, Limits, Remembered, ScanError};

/// Headers are looked for in so many octets of a message: few are longer altogether, and what an admin
/// wants to see stands near the beginning.
const HEAD: u64 = 16 * 1024;

/// The body of that process, until nobody asks any more: returns its exit status.
#[must_use]
pub fn read(confinement: &Confinement, asker: FromReader) -> i32 {
    if close_all_except(&[asker.as_fd()]).is_err() || sandbox::enter(confinement).is_err() {
        return NO_SANDBOX;
    }
    let limits = Limits { messages: confinement.limits.messages, file_size: None };
    while let Ok((Look::Inside, Some(file))) = asker.receive() {
        let last = match tell(&File::from(file), &limits, &asker) {
            Ok(()) => Found::All,
            Err(Failure::Unreadable(why)) => Found::Nothing(why.to_string()),
            Err(Failure::Gone) => return 1,
        };
        if asker.send(&last, None).is_err() {
            return 1;
        }
    }
    0
}

enum Failure {
    Unreadable(ScanError),
    /// Nobody listens.
    Gone,
}

fn tell(file: &File, limits: &Limits, asker: &FromReader) -> Result<(), Failure> {
    let size = file.metadata().map_err(unreadable)?.len();
    let mut index = mbox::scan_cutting(file, size, limits).map_err(Failure::Unreadable)?;
    // Where several have one id, it tells them apart here, too.
    index.distinguish(file, &Remembered::default()).map_err(Failure::Unreadable)?;
    for message in index.messages() {
        let std::ops::Range { start, end } = message.range();
        let head = read_at(file, start, (end - start).min(HEAD)).map_err(unreadable)?;
        let tail = read_at(file, end.saturating_sub(3).max(start), 3.min(end - start));
        let kept = KeptMessage {
            range: Range { start, end },
            line_feeds: lacking_line_feeds(&tail.map_err(unreadable)?),
            octets: message.octets().0,
            unique_id: index.unique_id(message).to_string(),
            message_id: header(&head, b"Message-ID:"),
            from: header(&head, b"From:"),
            subject: header(&head, b"Subject:"),
        };
        asker.send(&Found::Message(kept), None).map_err(|_| Failure::Gone)?;
    }
    Ok(())
}

fn unreadable(error: io::Error) -> Failure {
    Failure::Unreadable(ScanError::Read(error))
}

fn read_at(file: &File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut octets = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut octets, offset)?;
    Ok(octets)
}

/// What stands behind the `name` of the first such header of a message, unfolded (RFC 5322 section
/// 2.2.3); empty when there is none.
fn header(message: &[u8], name: &[u8]) -> Vec<u8> {
    let mut lines = message.split(|octet| *octet == b'\n').skip(1).map(<[u8]>::trim_ascii_end);
    let mut value = Vec::new();
    let first = lines.by_ref().take_while(|line| !line.is_empty()).find_map(|line| {
        let (start, rest) = line.split_at_checked(name.len())?;
        start.eq_ignore_ascii_case(name).then_some(rest)
    });
    let Some(first) = first else { return value };
    value.extend(first.trim_ascii());
    for line in lines.take_while(|line| line.starts_with(b" ") || line.starts_with(b"\t")) {
        if value.len() >= MAX_HEADER {
            break;
        }
        value.push(b' ');
        value.extend(line.trim_ascii());
    }
    value.truncate(MAX_HEADER);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] =
        b"From a\nsubject: one\r\n\ttwo\nMessage-Id:<1@a>\nX: From: no\n\nFrom: x\n";

    #[test]
    fn headers_are_found_whatever_their_case_and_unfolded() {
        assert_eq!(header(MESSAGE, b"Subject:"), b"one two");
        assert_eq!(header(MESSAGE, b"Message-ID:"), b"<1@a>");
    }

    #[test]
    fn neither_the_body_nor_the_from_line_is_a_header() {
        assert_eq!(header(MESSAGE, b"From:"), b"");
        assert_eq!(header(b"From: a\n\n", b"From:"), b"");
    }

    #[test]
    fn a_header_without_end_is_cut() {
        let message = [b"From a\nSubject:".as_slice(), &b"\n x".repeat(1000)].concat();
        assert_eq!(header(&message, b"Subject:").len(), MAX_HEADER);
        let message = [b"From a\nSubject: ".as_slice(), &[b'x'; 5000]].concat();
        assert_eq!(header(&message, b"Subject:").len(), MAX_HEADER);
    }
}
