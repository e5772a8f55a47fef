//! The Message-ID of a message, for those who look for it in logs. Runs in the worker.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Message;
use super::field::{self, FirstField};

/// Octets of a header that are read at first; nearly all Message-IDs are within them.
const FIRST_LOOK: usize = 4 * 1024;

/// Octets that are read at most.
const LONGEST_LOOK: usize = 64 * 1024;

/// Its name.
pub const NAME: &str = "Message-ID";

/// Reads headers of one mailbox.
#[derive(Debug)]
pub struct MessageIds<'a> {
    file: &'a File,
    room: Vec<u8>,
}

impl<'a> MessageIds<'a> {
    /// Of the messages in `file`.
    #[must_use]
    pub fn of(file: &'a File) -> Self {
        Self { file, room: Vec::new() }
    }

    /// The value of the first Message-ID of `message`, its first `most` octets. `None` when it has none in
    /// its first 64 KiB.
    ///
    /// # Errors
    ///
    /// Those of pread(2), also when the file is shorter than it was.
    pub fn find(&mut self, message: &Message, most: usize) -> io::Result<Option<Vec<u8>>> {
        let place = message.served();
        let size = usize::try_from(place.end.saturating_sub(place.start)).unwrap_or(usize::MAX);
        let mut found = None;
        for look in [FIRST_LOOK, LONGEST_LOOK] {
            self.room.resize(size.min(look), 0);
            self.file.read_exact_at(&mut self.room, place.start)?;
            let mut field = [FirstField::new(NAME, most)];
            let is_all = field::find(&self.room, &mut field);
            let [field] = field;
            found = field.value();
            if size <= look || is_all {
                break;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mbox::samples::{file, index};

    /// The Message-IDs in a mailbox of these messages, each without its From_ line.
    fn ids(messages: &[&str]) -> Vec<Option<String>> {
        let mailbox: String =
            messages.iter().map(|message| format!("From a@b\n{message}\n")).collect();
        let (file, index) = (file(mailbox.as_bytes()), index(mailbox.as_bytes()));
        let mut ids = MessageIds::of(&file);
        let found = index.messages().iter().map(|message| ids.find(message, 30).unwrap());
        found.map(|id| id.map(|id| String::from_utf8(id).unwrap())).collect()
    }

    fn id(message: &str) -> Option<String> {
        let [id] = ids(&[message]).try_into().unwrap();
        id
    }

    #[test]
    fn each_message_has_its_own() {
        let found = ids(&["Message-ID: <1@a>\n\nx\n", "Subject: s\n\nx\n", "message-id:<2@a>\n\n"]);
        assert_eq!(found, [Some("<1@a>".to_owned()), None, Some("<2@a>".to_owned())]);
    }

    #[test]
    fn it_is_found_wherever_a_look_ends_and_not_behind_the_longest_one() {
        for (before, expected) in [(FIRST_LOOK, true), (LONGEST_LOOK, false)] {
            for short_of in 0..40 {
                let padding = "x".repeat(before - short_of - "S: \n".len());
                let found = id(&format!("S: {padding}\nMessage-ID:\n <1@a>\n\nx\n"));
                if expected || short_of >= "Message-ID:\n <1@a>".len() {
                    assert_eq!(found.as_deref(), Some("<1@a>"), "{before} {short_of}");
                } else {
                    assert_ne!(found.as_deref(), Some("<1@a>"), "{before} {short_of}");
                }
            }
        }
        assert_eq!(id("Message-ID: <1@a>").as_deref(), Some("<1@a>"));
    }
}
