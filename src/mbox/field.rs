//! The first field of a name in a header, unfolded, as all want it who show one to people or look for it.
//! Runs in processes that are confined as a worker.

use memchr::memchr;

/// What is found of it, line by line.
#[derive(Debug)]
pub struct FirstField {
    name: &'static [u8],
    most: usize,
    value: Vec<u8>,
    place: Place,
}

/// Of the last line that was taken.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Before,
    Within,
    Behind,
}

impl FirstField {
    /// Looks for `name`, in whatever case, and keeps the first `most` octets of its value.
    #[must_use]
    pub fn new(name: &'static str, most: usize) -> Self {
        Self { name: name.as_bytes(), most, value: Vec::new(), place: Place::Before }
    }

    /// Takes the next line of a header, with its end or without.
    pub(super) fn line(&mut self, line: &[u8]) {
        match self.place {
            Place::Within if is_continuation(line) => self.append(line),
            Place::Within => self.place = Place::Behind,
            Place::Before => {
                if let Some((_, value)) =
                    split(line).filter(|(name, _)| name.eq_ignore_ascii_case(self.name))
                {
                    self.place = Place::Within;
                    self.append(value);
                }
            }
            Place::Behind => {}
        }
    }

    /// Whether nothing more can belong to it.
    pub(super) fn is_complete(&self) -> bool {
        self.place == Place::Behind
    }

    /// The value, without white space around it and with one space for each fold (RFC 5322 section 2.2.3).
    /// `None` when there is none, or nothing in it.
    #[must_use]
    pub fn value(self) -> Option<Vec<u8>> {
        Some(self.value).filter(|value| !value.is_empty())
    }

    /// Adds a line, as far as there is room.
    fn append(&mut self, line: &[u8]) {
        let text = line.trim_ascii();
        let is_first = self.value.is_empty() || text.is_empty();
        let gap: &[u8] = if is_first { b"" } else { b" " };
        let room = self.most.saturating_sub(self.value.len());
        self.value.extend(gap.iter().chain(text).take(room));
    }
}

/// Looks for each of `fields` in a header that begins with `text`, until all are complete or the header
/// ends; says whether one of these happened.
pub fn find(text: &[u8], fields: &mut [FirstField]) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let end = memchr(b'\n', rest);
        let (line, behind) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
        rest = behind;
        if matches!(line, b"\n" | b"\r\n") {
            return true;
        }
        fields.iter_mut().for_each(|field| field.line(line));
        if fields.iter().all(FirstField::is_complete) {
            return true;
        }
    }
    false
}

/// Whether a line belongs to the one before.
pub(super) fn is_continuation(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t'))
}

/// Name and value of a field (RFC 5322 section 3.6.8; white space in front of the colon is from old
/// times, section 4.5).
pub(super) fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, value) = line.split_at(memchr(b':', line)?);
    let name = name.trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    is_name.then_some((name, value.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of these in a header.
    fn found(text: &str) -> [Option<String>; 2] {
        let mut fields = [FirstField::new("Message-ID", 30), FirstField::new("Subject", 30)];
        find(text.as_bytes(), &mut fields);
        fields.map(|field| field.value().map(|value| String::from_utf8(value).unwrap()))
    }

    fn message_id(text: &str) -> Option<String> {
        let [id, _] = found(text);
        id
    }

    #[test]
    fn value_is_unfolded_and_white_space_around_it_does_not_count() {
        for header in [
            "Message-ID: <1@a>\n",
            "Message-ID: \n <1@a>\n",
            "MESSAGE-ID \t:\t<1@a> \r\n",
            "Message-Id:\r\n \t\r\n\t<1@a>\r\n \r\n",
            "message-id:<1@a>",
        ] {
            assert_eq!(message_id(header).as_deref(), Some("<1@a>"), "{header:?}");
        }
        let folded = message_id("Message-ID: <1\n \t@a>\n (c)\nSubject: s\n\n");
        assert_eq!(folded.as_deref(), Some("<1 @a> (c)"));
    }

    #[test]
    fn other_names_and_the_body_hold_none() {
        for message in [
            "X-Message-ID: <1@a>\n",
            "Message-IDs: <1@a>\n",
            "Message-ID <1@a>\n",
            "X Message-ID: <1@a>\n",
            "X: y\n Message-ID: <1@a>\n",
            "\nMessage-ID: <1@a>\n",
            "Message-ID:\r\n\r\n\t<1@a>\n",
            "Message-ID:\nSubject: s\n",
        ] {
            assert_eq!(message_id(message), None, "{message:?}");
        }
    }

    #[test]
    fn line_of_white_space_does_not_end_the_header() {
        let [id, subject] = found("Subject: one\n \nX: y\n\t\r\nMessage-ID: <1@a>\n\n");
        assert_eq!((id.as_deref(), subject.as_deref()), (Some("<1@a>"), Some("one")));
    }

    #[test]
    fn first_one_counts_and_no_more_of_it_than_there_is_room_for() {
        let found = |text: &str| message_id(text).unwrap();
        assert_eq!(found("Message-ID: <1@a>\nMessage-ID: <2@a>\n\n"), "<1@a>");
        let long = "x".repeat(1000);
        assert_eq!(found(&format!("Message-ID: {long}\n {long}\n\n")), "x".repeat(30));
        assert_eq!(found(&format!("Message-ID: x{}\n\n", "\n y".repeat(1000))).len(), 30);
    }

    #[test]
    fn what_is_missing_shows() {
        let look = |text: &str| find(text.as_bytes(), &mut [FirstField::new("Subject", 30)]);
        assert!(!look("X: y\nSubject: one\n"));
        assert!(!look("X: y\n"));
        assert!(look("X: y\n\n"));
        assert!(look("Subject: one\nX: y\n"));
    }
}
