//! Texts of others in the journal.

/// Most octets of a client's text in the journal.
const MAX_PRINTABLE: usize = 100;

/// Makes a client's text fit for a log: what does not stand for itself is escaped, and there are 100
/// octets at most.
#[must_use]
pub fn printable(octets: &[u8]) -> String {
    printable_up_to(MAX_PRINTABLE, octets)
}

/// The same for what may be longer: `most` octets.
#[must_use]
pub fn printable_up_to(most: usize, octets: &[u8]) -> String {
    let mut text = String::new();
    for chunk in octets.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || is_invisible(character) || character == '\\' {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        for octet in chunk.invalid() {
            text.push_str(&format!("\\x{octet:02x}"));
        }
    }
    if text.len() > most {
        let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Whether it shows nothing itself, and may change how others show: marks of direction and the like.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_cannot_forge_a_line() {
        assert_eq!(printable(b"a\nb\r\x1b[2J\0"), "a\\nb\\r\\u{1b}[2J\\u{0}");
        assert_eq!(printable(b"\xff\xfe"), "\\xff\\xfe");
        assert_eq!(printable("a\u{202e}b\u{2028}".as_bytes()), "a\\u{202e}b\\u{2028}");
        assert_eq!(printable("j\u{f6}rg".as_bytes()), "j\u{f6}rg");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let text = printable("\u{f6}".repeat(500).as_bytes());
        assert!(text.len() <= MAX_PRINTABLE + '…'.len_utf8());
        assert!(text.ends_with('…'));
    }
}
