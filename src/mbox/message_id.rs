//! The Message-ID of a message, for those who look for it in logs. Runs in the worker.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use memchr::memchr;

use super::Message;

/// Octets of a header that are read at first; nearly all Message-IDs are within them.
const FIRST_LOOK: usize = 4 * 1024;

/// Octets that are read at most.
const LONGEST_LOOK: usize = 64 * 1024;

const NAME: &[u8] = b"Message-ID";

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

    /// The value of the first Message-ID of `message`, unfolded (RFC 5322 section 2.2.3), without white
    /// space around it, its first `most` octets. `None` when it has none in its first 64 KiB.
    ///
    /// # Errors
    ///
    /// Those of pread(2), also when the file is shorter than it was.
    pub fn find(&mut self, message: &Message, most: usize) -> io::Result<Option<Vec<u8>>> {
        let place = message.served();
        let size = usize::try_from(place.end.saturating_sub(place.start)).unwrap_or(usize::MAX);
        let mut found = Search::Undecided(None);
        for look in [FIRST_LOOK, LONGEST_LOOK] {
            self.room.resize(size.min(look), 0);
            self.file.read_exact_at(&mut self.room, place.start)?;
            found = search(&self.room, most);
            if size <= look || matches!(found, Search::Decided(_)) {
                break;
            }
        }
        let (Search::Decided(value) | Search::Undecided(value)) = found;
        Ok(value.filter(|value| !value.is_empty()))
    }
}

/// What a part of a message, from its beginning, tells.
enum Search {
    /// The value, or that there is none.
    Decided(Option<Vec<u8>>),
    /// The same as far as it goes: what is behind may belong to it.
    Undecided(Option<Vec<u8>>),
}

fn search(text: &[u8], most: usize) -> Search {
    let mut value: Option<Vec<u8>> = None;
    let mut rest = text;
    while !rest.is_empty() {
        let end = memchr(b'\n', rest);
        let (line, behind) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
        rest = behind;
        let is_continued = matches!(line.first(), Some(b' ' | b'\t'));
        match &mut value {
            Some(value) if is_continued => append(value, line, most),
            Some(_) => return Search::Decided(value),
            None if matches!(line, b"\n" | b"\r\n") => return Search::Decided(None),
            None => {
                value = after_name(line).map(|first| {
                    let mut value = Vec::new();
                    append(&mut value, first, most);
                    value
                });
            }
        }
    }
    Search::Undecided(value)
}

/// What is behind the colon.
fn after_name(line: &[u8]) -> Option<&[u8]> {
    let (name, rest) = line.split_at_checked(NAME.len())?;
    // White space in front of the colon is obsolete, and there (RFC 5322 section 4.5).
    let rest = rest.trim_ascii_start().strip_prefix(b":")?;
    name.eq_ignore_ascii_case(NAME).then_some(rest)
}

/// Adds a line, with one space for the white space before it, as far as there is room.
fn append(value: &mut Vec<u8>, line: &[u8], most: usize) {
    let text = line.trim_ascii();
    let gap: &[u8] = if value.is_empty() || text.is_empty() { b"" } else { b" " };
    let room = most.saturating_sub(value.len());
    value.extend(gap.iter().chain(text).take(room));
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
    fn value_is_unfolded_and_white_space_around_it_does_not_count() {
        for header in [
            "Message-ID: \n <1@a>\n",
            "MESSAGE-ID \t:\t<1@a> \r\n",
            "Message-Id:\r\n\r\n\t<1@a>\r\n",
        ] {
            let whole = id(&format!("{header}Subject: s\n\nx\n"));
            let expected = if header.contains("\r\n\r\n") { None } else { Some("<1@a>") };
            assert_eq!(whole.as_deref(), expected, "{header:?}");
        }
        let folded = id("Message-ID: <1\n \t@a>\n (c)\nSubject: s\n\n");
        assert_eq!(folded.as_deref(), Some("<1 @a> (c)"));
    }

    #[test]
    fn other_names_and_the_body_hold_none() {
        for message in [
            "X-Message-ID: <1@a>\n\n",
            "Message-IDs: <1@a>\n\n",
            "Message-ID <1@a>\n\n",
            "\nMessage-ID: <1@a>\n",
        ] {
            assert_eq!(id(message), None, "{message:?}");
        }
        assert_eq!(id("Message-ID:\nSubject: s\n\n"), None);
    }

    #[test]
    fn first_one_counts_and_no_more_of_it_than_there_is_room_for() {
        let (one, long) = ("Message-ID: <1@a>\nMessage-ID: <2@a>\n\n", "x".repeat(1000));
        assert_eq!(id(one).as_deref(), Some("<1@a>"));
        let cut = id(&format!("Message-ID: {long}\n {long}\n\n"));
        assert_eq!(cut, Some("x".repeat(30)));
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
