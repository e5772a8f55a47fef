//! Texts of others in the journal.

/// Most octets of a client's text in the journal.
const MAX_PRINTABLE: usize = 100;

/// Makes a client's text fit for a log: control characters escaped, length bounded.
#[must_use]
pub fn printable(octets: &[u8]) -> String {
    let mut text = String::new();
    for chunk in octets.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || character == '\\' {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        for octet in chunk.invalid() {
            text.push_str(&format!("\\x{octet:02x}"));
        }
    }
    if text.len() > MAX_PRINTABLE {
        let end = (0..=MAX_PRINTABLE).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_cannot_forge_a_line() {
        assert_eq!(printable(b"a\nb\r\x1b[2J\0"), "a\\nb\\r\\u{1b}[2J\\u{0}");
        assert_eq!(printable(b"\xff\xfe"), "\\xff\\xfe");
        assert_eq!(printable("j\u{f6}rg".as_bytes()), "j\u{f6}rg");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let text = printable("\u{f6}".repeat(500).as_bytes());
        assert!(text.len() <= MAX_PRINTABLE + '…'.len_utf8());
        assert!(text.ends_with('…'));
    }
}
