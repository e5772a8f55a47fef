//! A process that reads a mailbox for an admin instead of a client: it is confined as a worker, finds the
//! messages and their unique-ids as a session does, and tells what it sees.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::fs::File;
use std::hash::BuildHasher;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use super::mailbox::Mailbox;
use super::maildrop::Maildrop;
use super::{Confinement, NO_SANDBOX, prepare, sandbox};
use crate::channel::{FromInspector, Oddity, Seen, SeenMessage};
use crate::ffi::process::close_all_except;
use crate::mbox::{self, Index, Inspected, Limits};

/// Octets of the longest line that a message may have (RFC 5322 section 2.1.1).
const LONGEST_LINE: u64 = 998;

/// The body of the process: returns its exit status. `remembered` is the file of unique-ids, if there is one.
#[must_use]
pub fn inspect(
    confinement: &Confinement,
    mailbox: OwnedFd,
    remembered: Option<OwnedFd>,
    reader: &FromInspector,
) -> i32 {
    let mut kept = vec![mailbox.as_fd(), reader.as_fd()];
    kept.extend(remembered.as_ref().map(AsFd::as_fd));
    if close_all_except(&kept).is_err() {
        return NO_SANDBOX;
    }
    prepare();
    // Random numbers come by way of a library that asks for more than the filter lets through.
    let seen = MessageIds::default();
    if sandbox::enter(confinement).is_err() {
        return NO_SANDBOX;
    }
    i32::from(look(&confinement.limits, mailbox, remembered, reader, seen).is_err())
}

fn look(
    limits: &Limits,
    mailbox: OwnedFd,
    remembered: Option<OwnedFd>,
    reader: &FromInspector,
    seen: MessageIds,
) -> io::Result<()> {
    let mailbox = File::from(mailbox);
    let before = mailbox.metadata()?;
    let scanned = Maildrop::scan(mailbox.into(), limits, 0).and_then(|mut maildrop| {
        // What is wrong with that, sessions tell.
        let _ = remembered.and_then(|file| maildrop.recall(file));
        maildrop.distinguish()?;
        Ok(maildrop)
    });
    let maildrop = match scanned {
        Ok(maildrop) => maildrop,
        Err(trouble) => return reader.send(&Seen::Unservable(trouble), None),
    };
    reader.send(&Seen::Scanned(maildrop.totals()), None)?;
    let Some(file) = maildrop.mailbox().map(Mailbox::file) else { return Ok(()) };
    let mut oddities = Vec::new();
    match tell_messages(file, maildrop.index(), reader, seen, &mut oddities) {
        Err(Failed::Reading(error)) => {
            oddities.push(Oddity::Unreadable(error.raw_os_error().unwrap_or_default()));
        }
        Err(Failed::Telling(error)) => return Err(error),
        Ok(()) => {}
    }
    let state = |now: &std::fs::Metadata| {
        (now.size(), now.mtime(), now.mtime_nsec(), now.ctime(), now.ctime_nsec())
    };
    // Nobody keeps others from it by now.
    if state(&before) != state(&file.metadata()?) {
        oddities.push(Oddity::Changed);
    }
    reader.send(&Seen::End(oddities), None)
}

enum Failed {
    Reading(io::Error),
    Telling(io::Error),
}

fn tell_messages(
    file: &File,
    index: &Index,
    reader: &FromInspector,
    mut seen: MessageIds,
    oddities: &mut Vec<Oddity>,
) -> Result<(), Failed> {
    let size = file.metadata().map_err(Failed::Reading)?.len();
    let front = mbox::front(file, index, size).map_err(Failed::Reading)?;
    if front.empty_lines > 0 {
        oddities.push(Oddity::EmptyLinesFirst(front.empty_lines));
    }
    if front.is_something_hidden {
        oddities.push(Oddity::InternalData);
    }
    let mut last_line_ends = true;
    for (message, number) in index.messages().iter().zip(1..) {
        let found = mbox::inspect(file, message).map_err(Failed::Reading)?;
        last_line_ends = found.last_line_ends;
        let unique_id = index.unique_id(message);
        let mut about = odd(&found);
        about.extend(seen.note(found.message_id.as_deref(), number));
        if unique_id.has_suffix() {
            about.push(Oddity::SharesUniqueId);
        }
        let message = SeenMessage {
            octets: message.octets().0,
            unique_id: unique_id.to_string(),
            message_id: found.message_id,
            oddities: about,
        };
        reader.send(&Seen::Message(message), None).map_err(Failed::Telling)?;
    }
    if !last_line_ends {
        oddities.push(Oddity::NoFinalLineEnd);
    }
    Ok(())
}

fn odd(found: &Inspected) -> Vec<Oddity> {
    let count = |count: u64, oddity: fn(u64) -> Oddity| (count > 0).then(|| oddity(count));
    let has_no_end = found.has_content && !found.header_ends;
    [
        (!found.has_content).then_some(Oddity::OnlyFromLine),
        has_no_end.then_some(Oddity::HeaderWithoutEnd),
        count(found.no_fields, Oddity::NoFields),
        count(found.from_lines, Oddity::FromLinesInside),
        count(found.crlf_lines, Oddity::CrlfLines),
        count(found.nul_octets, Oddity::NulOctets),
        count(found.longest_line, Oddity::LongLine).filter(|_| found.longest_line > LONGEST_LINE),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Which message had a Message-ID first. Hashes have to do, so that long ones take no memory; with keys
/// that nobody who sends mail knows.
#[derive(Default)]
struct MessageIds {
    keys: RandomState,
    first: HashMap<u64, u32>,
}

impl MessageIds {
    fn note(&mut self, message_id: Option<&[u8]>, number: u32) -> Option<Oddity> {
        match self.first.entry(self.keys.hash_one(message_id?)) {
            Entry::Occupied(first) => Some(Oddity::SharesMessageId(*first.get())),
            Entry::Vacant(place) => {
                place.insert(number);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Totals, pair};

    /// A file that has these octets and no name.
    fn file(octets: &[u8]) -> File {
        let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
        let file = File::from(nix::sys::memfd::memfd_create(c"mailbox", flags).unwrap());
        std::os::unix::fs::FileExt::write_all_at(&file, octets, 0).unwrap();
        file
    }

    /// What is told of a mailbox.
    fn told(mailbox: &[u8], remembered: Option<&[u8]>) -> Vec<Seen> {
        let (ours, theirs) = pair::<(), Seen>().unwrap();
        let limits = Limits { messages: 100, file_size: None };
        let remembered = remembered.map(|text| file(text).into());
        look(&limits, file(mailbox).into(), remembered, &theirs, MessageIds::default()).unwrap();
        drop(theirs);
        std::iter::from_fn(|| ours.receive().ok().map(|(seen, _)| seen)).collect()
    }

    #[test]
    fn messages_are_told_with_what_is_odd_about_them_and_then_about_all() {
        let mailbox = b"\nFrom a\nMessage-ID: <1@b>\r\n\nx\n\nFrom c\nMessage-ID: <1@b>\r\n\ny";
        let seen = told(mailbox, None);
        assert_eq!(seen.len(), 4, "{seen:?}");
        assert_eq!(seen[0], Seen::Scanned(Totals { messages: 2, octets: 24 + 24 }));
        let Seen::Message(first) = &seen[1] else { panic!("{seen:?}") };
        assert_eq!(first.message_id.as_deref(), Some(&b"<1@b>"[..]));
        assert_eq!(first.oddities, [Oddity::CrlfLines(1)]);
        let Seen::Message(second) = &seen[2] else { panic!("{seen:?}") };
        assert!(second.unique_id.starts_with(&format!("{}-", first.unique_id)), "{second:?}");
        let expected = [Oddity::CrlfLines(1), Oddity::SharesMessageId(1), Oddity::SharesUniqueId];
        assert_eq!(second.oddities, expected);
        assert_eq!(seen[3], Seen::End(vec![Oddity::EmptyLinesFirst(1), Oddity::NoFinalLineEnd]));
    }

    #[test]
    fn what_cannot_be_served_is_told_and_nothing_else() {
        let seen = told(b"not mbox\n", None);
        assert_eq!(seen, [Seen::Unservable(crate::channel::Trouble::NotMbox)]);
    }

    #[test]
    fn longest_message_fits_into_a_packet() {
        let header = format!("Message-ID: {}", "x".repeat(5000));
        let line = "From a Mon Nov  2 09:00:00 2026\r\n";
        let message = format!("From a\n{header}\nbad\0\n{line}");
        let seen = told(format!("{message}{message}").as_bytes(), None);
        assert!(matches!(seen.last(), Some(Seen::End(_))), "{seen:?}");
    }
}
