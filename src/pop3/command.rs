//! From a line to a command.

use std::num::NonZeroU32;

/// A message number: counted from 1 and fixed for the session (RFC 1939 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageNumber(NonZeroU32);

impl MessageNumber {
    /// The number of the message that has `index` messages before it.
    #[must_use]
    pub fn from_index(index: u32) -> Option<Self> {
        NonZeroU32::new(index.checked_add(1)?).map(Self)
    }

    /// How many messages come before it.
    #[must_use]
    pub fn index(self) -> u32 {
        self.0.get() - 1
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// Reads decimal digits. A number too large for any maildrop is none, never another one.
    #[must_use]
    pub fn parse(digits: &[u8]) -> Option<Self> {
        u32::try_from(number(digits)?).ok().and_then(NonZeroU32::new).map(Self)
    }
}

/// A command, of either state.
#[derive(Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Log in by this mechanism, with this initial response (RFC 5034 section 4); without a
    /// mechanism, which ones there are.
    Auth(Option<&'a [u8]>, Option<&'a [u8]>),
    /// Which capabilities there are (RFC 2449 section 5).
    Capa,
    /// Mark a message as deleted.
    Dele(MessageNumber),
    /// The highest number accessed (RFC 1460).
    Last,
    /// Sizes, of one message or all.
    List(Option<MessageNumber>),
    /// Nothing.
    Noop,
    /// The password: the rest of the line, spaces included.
    Pass(&'a [u8]),
    /// Goodbye.
    Quit,
    /// Send a message.
    Retr(MessageNumber),
    /// Unmark all messages.
    Rset,
    /// How many messages, and their octets.
    Stat,
    /// Begin TLS (RFC 2595 section 4).
    Stls,
    /// Send the header and this many lines of the body.
    Top(MessageNumber, u64),
    /// Unique-ids, of one message or all.
    Uidl(Option<MessageNumber>),
    /// The user's name.
    User(&'a [u8]),
    /// Headers may come in UTF-8 (RFC 6856 section 2).
    Utf8,
}

/// Why a line is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Not a command that this server has.
    Unknown,
    /// It contains NUL.
    Nul,
    /// The argument is missing, or there is one too many; the right form is this.
    Syntax(&'static str),
    /// The argument is not the number of any message.
    NoSuchMessage,
}

/// Reads a line without its line end.
///
/// # Errors
///
/// Says why the line is no command.
pub fn parse(line: &[u8]) -> Result<Command<'_>, Malformed> {
    if line.contains(&0) {
        return Err(Malformed::Nul);
    }
    let (name, rest) = match memchr::memchr(b' ', line).and_then(|at| line.split_at_checked(at)) {
        Some((name, rest)) => (name, rest.get(1..)),
        None => (line, None),
    };
    let mut keyword = [0; 4];
    match keyword.get_mut(..name.len()) {
        Some(place) if !name.is_empty() => place.copy_from_slice(name),
        Some(_) | None => return Err(Malformed::Unknown),
    }
    keyword.make_ascii_uppercase();
    let arguments = rest.unwrap_or_default().trim_ascii();
    let alone = |command| match arguments {
        [] => Ok(command),
        [..] => Err(Malformed::Syntax("this command takes no argument")),
    };
    match &keyword {
        b"AUTH" => auth(arguments),
        b"CAPA" => alone(Command::Capa),
        b"DELE" => message(arguments, "DELE message").map(Command::Dele),
        b"LAST" => alone(Command::Last),
        b"LIST" => optional_message(arguments, "LIST [message]").map(Command::List),
        b"NOOP" => alone(Command::Noop),
        b"PASS" => rest.map(Command::Pass).ok_or(Malformed::Syntax("PASS password")),
        b"QUIT" => alone(Command::Quit),
        b"RETR" => message(arguments, "RETR message").map(Command::Retr),
        b"RSET" => alone(Command::Rset),
        b"STAT" => alone(Command::Stat),
        b"STLS" => alone(Command::Stls),
        b"TOP\0" => top(arguments),
        b"UIDL" => optional_message(arguments, "UIDL [message]").map(Command::Uidl),
        b"USER" if arguments.is_empty() => Err(Malformed::Syntax("USER name")),
        b"USER" => Ok(Command::User(arguments)),
        b"UTF8" => alone(Command::Utf8),
        [..] => Err(Malformed::Unknown),
    }
}

fn auth(arguments: &[u8]) -> Result<Command<'_>, Malformed> {
    let mut words = arguments.split(|octet| *octet == b' ').filter(|word| !word.is_empty());
    match (words.next(), words.next(), words.next()) {
        (mechanism, initial, None) => Ok(Command::Auth(mechanism, initial)),
        (_, _, Some(_)) => Err(Malformed::Syntax("AUTH mechanism [initial-response]")),
    }
}

fn message(argument: &[u8], form: &'static str) -> Result<MessageNumber, Malformed> {
    if argument.is_empty() || !argument.iter().all(u8::is_ascii_digit) {
        return Err(Malformed::Syntax(form));
    }
    MessageNumber::parse(argument).ok_or(Malformed::NoSuchMessage)
}

fn optional_message(
    argument: &[u8],
    form: &'static str,
) -> Result<Option<MessageNumber>, Malformed> {
    if argument.is_empty() { Ok(None) } else { message(argument, form).map(Some) }
}

fn top(arguments: &[u8]) -> Result<Command<'_>, Malformed> {
    const FORM: &str = "TOP message lines";
    let at = memchr::memchr(b' ', arguments).ok_or(Malformed::Syntax(FORM))?;
    let (first, second) = arguments.split_at_checked(at).ok_or(Malformed::Syntax(FORM))?;
    let second = second.trim_ascii();
    if second.is_empty() || !second.iter().all(u8::is_ascii_digit) {
        return Err(Malformed::Syntax(FORM));
    }
    // More lines than a number can hold are more than a message can have: all of them.
    let lines = number(second).unwrap_or(u64::MAX);
    message(first, FORM).map(|message| Command::Top(message, lines))
}

/// Decimal digits and nothing else, at most [`u64::MAX`].
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message_number(value: u32) -> MessageNumber {
        MessageNumber::from_index(value - 1).unwrap()
    }

    #[test]
    fn keywords_are_case_insensitive() {
        assert_eq!(parse(b"qUiT"), Ok(Command::Quit));
        assert_eq!(parse(b"top 1 0"), Ok(Command::Top(message_number(1), 0)));
    }

    #[test]
    fn message_number_above_u32_is_refused_rather_than_wrapped() {
        assert_eq!(MessageNumber::parse(b"4294967297"), None); // 2^32 + 1
        assert_eq!(MessageNumber::parse(b"18446744073709551617"), None); // 2^64 + 1
        assert_eq!(parse(b"DELE 4294967297"), Err(Malformed::NoSuchMessage));
        assert_eq!(parse(b"DELE 0"), Err(Malformed::NoSuchMessage));
    }

    #[test]
    fn number_with_anything_but_digits_is_a_syntax_error() {
        for argument in ["+1", "-1", "0x1", "1a", "1 2", "a", "\u{663}"] {
            let line = format!("RETR {argument}");
            assert_eq!(parse(line.as_bytes()), Err(Malformed::Syntax("RETR message")), "{line}");
        }
    }

    #[test]
    fn top_takes_more_lines_than_there_can_be() {
        let line = b"TOP 2 99999999999999999999999";
        assert_eq!(parse(line), Ok(Command::Top(message_number(2), u64::MAX)));
        assert_eq!(parse(b"TOP 2"), Err(Malformed::Syntax("TOP message lines")));
        assert_eq!(parse(b"TOP 2 -1"), Err(Malformed::Syntax("TOP message lines")));
    }

    #[test]
    fn password_is_the_rest_of_the_line_with_its_spaces() {
        assert_eq!(parse(b"PASS  a b "), Ok(Command::Pass(b" a b ")));
        assert_eq!(parse(b"PASS "), Ok(Command::Pass(b"")));
        assert_eq!(parse(b"PASS"), Err(Malformed::Syntax("PASS password")));
        assert_eq!(parse(b"PASS \xff\xfe"), Ok(Command::Pass(b"\xff\xfe")));
    }

    #[test]
    fn auth_has_at_most_two_arguments() {
        assert_eq!(parse(b"AUTH"), Ok(Command::Auth(None, None)));
        assert_eq!(parse(b"AUTH plain ="), Ok(Command::Auth(Some(b"plain"), Some(b"="))));
        assert!(matches!(parse(b"AUTH PLAIN = ="), Err(Malformed::Syntax(_))));
        assert!(matches!(parse(b"STLS now"), Err(Malformed::Syntax(_))));
    }

    #[test]
    fn line_with_nul_is_no_command() {
        assert_eq!(parse(b"QUIT\0"), Err(Malformed::Nul));
        assert_eq!(parse(b"TOP\0 1 1"), Err(Malformed::Nul));
    }

    #[test]
    fn longer_or_shorter_words_are_unknown() {
        for line in ["", " ", "QUITX", "QUI", "TO 1 1", " QUIT", "RETR1", "XTND"] {
            assert_eq!(parse(line.as_bytes()), Err(Malformed::Unknown), "{line:?}");
        }
    }
}
