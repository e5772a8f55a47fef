//! What a header line means to the scan. Runs in the worker.

/// The lines that 1.0.3 makes a unique-id of, and how far it got.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Header {
    received_seen: bool,
    line: Meaning,
    internal_subject: bool,
    internal_data: bool,
}

/// What the current line, with its continuation lines, is for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meaning {
    /// Part of what the unique-id is made of.
    pub(super) identifies: bool,
    /// Notes of another program, which change while the message stays the same.
    pub(super) status: bool,
}

/// Headers that begin with an X and in which programs note the state of a message; the others
/// are `Status`, and `Content-Length` and `Lines`, which programs work out anew.
const STATUS_HEADERS: [&[u8]; 9] = [
    b"X-Status:",
    b"X-Keywords:",
    b"X-UID:",
    b"X-UIDL:",
    b"X-IMAP:",
    b"X-IMAPbase:",
    b"X-Mozilla-Status:",
    b"X-Mozilla-Status2:",
    b"X-Mozilla-Keys:",
];

const INTERNAL_SUBJECT: &[u8] = b" DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA";

impl Header {
    /// Takes the start of a line, at least [`super::window::LOOKAHEAD`] bytes of it where it is
    /// that long, and tells what the line is for.
    pub(super) fn line(&mut self, line: &[u8]) -> Meaning {
        if !matches!(line.first(), Some(b' ' | b'\t')) {
            self.line = self.field(line);
        }
        self.line
    }

    /// UW-IMAP and Alpine keep their own notes in a first message with this subject.
    pub(super) fn is_folder_internal_data(&self) -> bool {
        self.internal_subject && self.internal_data
    }

    fn field(&mut self, line: &[u8]) -> Meaning {
        // Sorted by the first letter, as most lines mean nothing and there are many of them.
        let (identifies, status) = match line.first() {
            Some(b'R' | b'r') => (self.is_first_received(line), false),
            Some(b'D' | b'd') => (
                is_field(line, b"Delivered-To:")
                    || (!self.received_seen && is_field(line, b"Date:")),
                false,
            ),
            Some(b'M' | b'm') => (!self.received_seen && is_field(line, b"Message-ID:"), false),
            Some(b'S' | b's') => {
                if let Some(value) = after_field(line, b"Subject:") {
                    let text = value.strip_prefix(INTERNAL_SUBJECT);
                    self.internal_subject = text.is_some_and(ends_line);
                }
                (false, is_field(line, b"Status:"))
            }
            Some(first @ (b'X' | b'x')) => {
                self.internal_data |= is_field(line, b"X-IMAP:") || is_field(line, b"X-IMAPbase:");
                let identifies = *first == b'X' && is_field(line, b"X-Delivery-ID:");
                (identifies, STATUS_HEADERS.iter().any(|name| is_field(line, name)))
            }
            Some(b'C' | b'c') => (false, is_field(line, b"Content-Length:")),
            Some(b'L' | b'l') => (false, is_field(line, b"Lines:")),
            Some(_) | None => (false, false),
        };
        Meaning { identifies, status }
    }

    fn is_first_received(&mut self, line: &[u8]) -> bool {
        let first = !self.received_seen && is_field(line, b"Received:");
        self.received_seen |= first;
        first
    }
}

fn is_field(line: &[u8], name: &[u8]) -> bool {
    after_field(line, name).is_some()
}

fn after_field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(rest)
}

fn ends_line(rest: &[u8]) -> bool {
    matches!(rest, [] | [b'\n', ..] | [b'\r', b'\n', ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identifies(lines: &[&str]) -> Vec<bool> {
        let mut header = Header::default();
        lines.iter().map(|line| header.line(line.as_bytes()).identifies).collect()
    }

    #[test]
    fn date_and_message_id_identify_only_before_a_received() {
        assert_eq!(
            identifies(&["Date: 1", "RECEIVED: a", "date: 2", "Message-Id: 3"]),
            [true, true, false, false]
        );
        assert_eq!(identifies(&["message-id: 3", "Date: 2"]), [true, true]);
    }

    #[test]
    fn only_the_first_received_identifies_and_every_delivered_to() {
        assert_eq!(
            identifies(&["Delivered-To: a", "Received: b", "Received: c", "delivered-to: d"]),
            [true, true, false, true]
        );
    }

    #[test]
    fn a_continuation_line_does_as_the_line_before() {
        assert_eq!(
            identifies(&["Received: a", "\tb", "Received: c", " d"]),
            [true, true, false, false]
        );
    }

    #[test]
    fn delivery_id_wants_a_capital_x() {
        assert_eq!(identifies(&["X-delivery-id: a", "x-Delivery-ID: b"]), [true, false]);
    }

    #[test]
    fn a_name_without_its_colon_is_another_name() {
        assert_eq!(identifies(&["Received : a", "Dates: b", "Date"]), [false, false, false]);
    }

    #[test]
    fn internal_data_needs_subject_and_imap_header() {
        let subject = b"Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\n";
        let mut header = Header::default();
        header.line(subject);
        assert!(!header.is_folder_internal_data());
        header.line(b"X-IMAP: 1234567890 0000000001\n");
        assert!(header.is_folder_internal_data());
        let mut header = Header::default();
        header.line(b"Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA, please\n");
        header.line(b"X-IMAPbase: 1 1\n");
        assert!(!header.is_folder_internal_data());
    }
}
