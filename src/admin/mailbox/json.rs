//! For programs: one object, a line for each message; popa3d(8) has its keys.

use std::io::{self, Write};

use serde::Serialize;

use super::oddity::{self, Described};
use super::{Oddity, Overview, Remark, SeenMessage};

#[derive(Serialize)]
struct Message<'a> {
    number: u32,
    octets: u64,
    unique_id: &'a str,
    message_id: Option<&'a str>,
    oddities: Vec<Described>,
}

pub(super) fn begin(overview: &Overview, output: &mut impl Write) -> io::Result<()> {
    let file = overview.file.as_ref();
    let mut key = |name: &str, value: String| writeln!(output, "{name}{value},");
    key("{\"user\":", json(&overview.user)?)?;
    key("\"mailbox\":", json(&overview.path.display().to_string())?)?;
    key("\"exists\":", json(&file.is_some())?)?;
    key("\"size\":", json(&file.map(|file| file.size))?)?;
    key("\"owner\":", json(&file.map(|_| &overview.user))?)?;
    key("\"group\":", json(&file.map(|file| &file.group))?)?;
    key("\"mode\":", json(&file.map(|file| format!("{:04o}", file.mode)))?)?;
    key("\"modified\":", json(&file.map(|file| file.modified))?)?;
    key("\"count\":", json(&overview.totals.messages)?)?;
    key("\"octets\":", json(&overview.totals.octets)?)?;
    write!(output, "\"messages\":[")
}

pub(super) fn message(
    number: u32,
    message: &SeenMessage,
    output: &mut impl Write,
) -> io::Result<()> {
    let message_id = message.message_id.as_deref().map(String::from_utf8_lossy);
    let message = Message {
        number,
        octets: message.octets,
        unique_id: &message.unique_id,
        message_id: message_id.as_deref(),
        oddities: message.oddities.iter().copied().map(oddity::of).collect(),
    };
    let comma = if number > 1 { "," } else { "" };
    write!(output, "{comma}\n{}", json(&message)?)
}

pub(super) fn end(
    remarks: &[Remark],
    oddities: &[Oddity],
    output: &mut impl Write,
) -> io::Result<()> {
    let all: Vec<Described> = oddity::of_mailbox(remarks, oddities).collect();
    writeln!(output, "],\n\"oddities\":{}}}", json(&all)?)
}

/// Whoever has it shown on a terminal is not to meet control characters and marks of direction in there.
fn json(value: &impl Serialize) -> io::Result<String> {
    let mut ascii = String::new();
    // What is not ASCII stands in strings alone.
    for character in serde_json::to_string(value)?.chars() {
        if character.is_ascii() && !character.is_control() {
            ascii.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    Ok(ascii)
}
