//! Fetching every message: one RETR at a time, or with commands sent ahead.

use std::io::{self, Write};
use std::time::Instant;

use crate::client::{Client, Server};
use crate::options::Options;

pub(crate) fn run(options: &Options) -> io::Result<String> {
    let server = Server::of(options)?;
    let mut client =
        Client::log_in(&server, options.text("user", ""), options.text("password", ""))?;
    let messages = client.count()?.min(options.number("messages", u32::MAX)?);
    // Commands on their way at any time; few enough that they never fill the server's buffers,
    // and many enough that the server always has the next one.
    let ahead: u32 = options.number("pipeline", 1)?;
    let length = options.seconds()?;
    let begun = Instant::now();
    let (mut asked, mut taken, mut octets) = (0, 0, 0);
    while taken < messages && begun.elapsed() < length {
        if asked < messages && asked - taken <= ahead / 2 {
            let next = (taken + ahead).min(messages);
            let commands: String = (asked + 1..=next).map(|n| format!("RETR {n}\r\n")).collect();
            client.socket.write_all(commands.as_bytes())?;
            asked = next;
        }
        octets += client.skip_lines()?;
        taken += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    // A client that has enough, at a moment when a server may still be sending, just goes.
    if taken == asked {
        client.ask("QUIT")?;
    }
    let tls = client.agreed();
    Ok(format!(r#"{{"messages":{taken},"octets":{octets},"seconds":{seconds:.6},"tls":{tls:?}}}"#))
}
