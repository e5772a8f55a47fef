//! Sessions that are held open, to be looked at from outside.

use std::io::{self, Read, Write};

use crate::client::{Client, Server};
use crate::options::Options;

/// Logs in, says so, and quits when standard input ends.
pub(crate) fn run(options: &Options) -> io::Result<String> {
    let users: usize = options.number("users", 1)?;
    let server = Server::of(options)?;
    let mut clients = Vec::with_capacity(users);
    for number in 0..users {
        let user = match options.text("user", "") {
            "" => format!("user{number:03}"),
            name => name.to_owned(),
        };
        let mut client = Client::log_in(&server, &user, options.text("password", ""))?;
        if options.text("each", "idle") == "busy" {
            // What a client that keeps its mail on the server does, and a download.
            let messages = client.count()?;
            client.fetch("LIST")?;
            client.fetch("UIDL")?;
            for message in 1..=messages.min(2000) {
                client.fetch(&format!("RETR {message}"))?;
            }
        }
        clients.push(client);
    }
    writeln!(io::stdout(), "holding")?;
    io::stdin().read_to_end(&mut Vec::new())?;
    let mut alive = 0;
    for client in &mut clients {
        alive += u32::from(client.ask("QUIT").is_ok());
    }
    Ok(format!(r#"{{"sessions":{},"alive":{alive}}}"#, clients.len()))
}
