//! Single steps of a session, timed.

use std::io::{self, Write};
use std::time::Instant;

use crate::client::{Client, Server};
use crate::options::Options;
use crate::times::Times;

/// Times PASS, STAT and UIDL, with a connection for each time.
pub(crate) fn login(options: &Options) -> io::Result<String> {
    let (mut pass, mut stat) = (Times::default(), Times::default());
    let (mut uidl, mut all) = (Times::default(), Times::default());
    let mut messages = 0;
    let server = Server::of(options)?;
    for _ in 0..options.number("times", 1)? {
        let mut client = Client::connect(&server)?;
        client.ask(&format!("USER {}", options.text("user", "")))?;
        let begun = Instant::now();
        pass.of(|| client.ask(&format!("PASS {}", options.text("password", ""))))?;
        messages = stat.of(|| client.count())?;
        uidl.of(|| client.fetch("UIDL"))?;
        all.add(begun.elapsed());
        client.ask("QUIT")?;
    }
    Ok(format!(
        r#"{{"messages":{messages},"pass":{pass},"stat":{stat},"uidl":{uidl},"pass_to_uidl":{all}}}"#
    ))
}

/// Times single commands within one session.
pub(crate) fn commands(options: &Options) -> io::Result<String> {
    let server = Server::of(options)?;
    let mut client =
        Client::log_in(&server, options.text("user", ""), options.text("password", ""))?;
    let mut results = Vec::new();
    for (command, is_long) in [
        ("NOOP", false),
        ("STAT", false),
        ("LIST 1", false),
        ("UIDL 1", false),
        ("LIST", true),
        ("UIDL", true),
        ("RETR 1", true),
        ("TOP 1 0", true),
    ] {
        let mut times = Times::default();
        for _ in 0..options.number("times", 1)? {
            if is_long {
                times.of(|| client.fetch(command))?;
            } else {
                times.of(|| client.ask(command))?;
            }
        }
        results.push(format!(r#""{command}":{times}"#));
    }
    client.ask("QUIT")?;
    Ok(format!("{{{}}}", results.join(",")))
}

/// Marks messages as deleted and times QUIT.
pub(crate) fn update(options: &Options) -> io::Result<String> {
    let server = Server::of(options)?;
    let mut client =
        Client::log_in(&server, options.text("user", ""), options.text("password", ""))?;
    let messages = client.count()?;
    let doomed: Vec<u32> = match options.text("delete", "first") {
        "every-other" => (1..=messages).step_by(2).collect(),
        "first" => vec![1],
        other => return Err(io::Error::other(format!("--delete {other}?"))),
    };
    // In bundles whose replies fit into the socket's buffers.
    for bundle in doomed.chunks(200) {
        let commands: String = bundle.iter().map(|number| format!("DELE {number}\r\n")).collect();
        client.socket.write_all(commands.as_bytes())?;
        for _ in bundle {
            client.status()?;
        }
    }
    let mut quit = Times::default();
    quit.of(|| client.ask("QUIT"))?;
    Ok(format!(r#"{{"messages":{messages},"deleted":{},"quit":{quit}}}"#, doomed.len()))
}
