//! Looking into what is kept of removed mail, for an admin who wants to put some of it back.
//!
//! Runs in a process of its own, as locked in as a worker: what is kept is what anybody may have mailed.

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use super::{Confinement, NO_SANDBOX, sandbox};
use crate::channel::{Found, FromReader, KeptMessage, Look, MAX_HEADER, Range, lacking_line_feeds};
use crate::ffi::process::close_all_except;
use crate::mbox::{self, FirstField, Limits, LongIds, Remembered, ScanError, message_id};

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
            Err(Failure::Unreadable(why)) => Found::Nothing(in_words(&why)),
            Err(Failure::Gone) => return 1,
        };
        if asker.send(&last, None).is_err() {
            return 1;
        }
    }
    0
}

/// With what is behind it.
fn in_words(why: &ScanError) -> String {
    why.source().map_or_else(|| why.to_string(), |cause| format!("{why}: {cause}"))
}

enum Failure {
    Unreadable(ScanError),
    /// Nobody listens.
    Gone,
}

fn tell(file: &File, limits: &Limits, asker: &FromReader) -> Result<(), Failure> {
    let size = file.metadata().map_err(unreadable)?.len();
    let mut index = mbox::scan_cutting(file, size, limits).map_err(Failure::Unreadable)?;
    // Where several have one id, it tells them apart here, too. What else was in the mailbox, and is
    // remembered of it, nobody knows any more.
    index.distinguish(file, &Remembered::default()).map_err(Failure::Unreadable)?;
    let mut long_ids = LongIds::of(file);
    for message in index.messages() {
        let std::ops::Range { start, end } = message.range();
        let head = read_at(file, start, (end - start).min(HEAD)).map_err(unreadable)?;
        let tail = read_at(file, end.saturating_sub(3).max(start), 3.min(end - start));
        let [message_id, from, subject] = headers(&head);
        let kept = KeptMessage {
            range: Range { start, end },
            line_feeds: lacking_line_feeds(&tail.map_err(unreadable)?),
            octets: message.octets().0,
            unique_id: index.unique_id(message).to_string(),
            long_id: long_ids.find(message).map_err(Failure::Unreadable)?.to_string(),
            message_id,
            from,
            subject,
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

/// The headers that an admin is shown, empty where there is none.
fn headers(message: &[u8]) -> [Vec<u8>; 3] {
    let mut fields =
        [message_id::NAME, "From", "Subject"].map(|name| FirstField::new(name, MAX_HEADER));
    let content = memchr::memchr(b'\n', message).and_then(|end| message.get(end + 1..));
    mbox::field::find(content.unwrap_or_default(), &mut fields);
    fields.map(|field| field.value().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_those_of_the_header() {
        let told = |message: &[u8]| headers(message).map(|value| String::from_utf8(value).unwrap());
        let message =
            b"From a\nsubject: one\r\n\ttwo\nMessage-Id : <1@a>\nX: From: no\n\nFrom: x\n";
        assert_eq!(told(message), ["<1@a>", "", "one two"]);
        assert_eq!(told(b"From: a\n\nFrom: b\n"), ["", "", ""]);
        assert_eq!(told(b"From a\nFrom: b\n \nSubject: c"), ["", "b", "c"]);
        let long = [b"From a\nSubject:".as_slice(), &b"\n x".repeat(1000)].concat();
        assert_eq!(told(&long)[2].len(), MAX_HEADER);
    }
}
