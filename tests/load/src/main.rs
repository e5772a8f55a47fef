//! Load generator of tests/bench. Runs inside the booted host, talks to 127.0.0.1 only, and is
//! bounded in number and time whatever the server does. Results are one line of JSON.

mod bell;
mod client;
mod connect;
mod download;
mod hold;
mod options;
mod reply;
mod sessions;
mod times;
mod tls;
mod transactions;

use std::io::{self, Write};
use std::process::ExitCode;

use options::Options;

const USAGE: &str = "\
usage: popa3d-load WORK --port PORT [--tls none|full|resumed] [--sources N] [--OPTION VALUE]...
  sessions   complete sessions         --concurrency --seconds --most --users
                                       --dialogue full|short|greeting|handshake
  login      PASS, STAT and UIDL timed --user --times
  commands   single commands timed     --user --times
  download   RETR of every message     --user --messages --seconds --pipeline
  update     DELE some, QUIT timed     --user --delete every-other|first
  hold       sessions held open until standard input ends   --users --each idle|busy
";

fn main() -> ExitCode {
    let (work, options) = match Options::parse(std::env::args().skip(1)) {
        Ok(parsed) => parsed,
        Err(error) => return complain(&format!("{error}\n{USAGE}")),
    };
    let result = match work.as_str() {
        "sessions" => sessions::run(&options),
        "login" => transactions::login(&options),
        "commands" => transactions::commands(&options),
        "download" => download::run(&options),
        "update" => transactions::update(&options),
        "hold" => hold::run(&options),
        _ => return complain(USAGE),
    };
    match result.and_then(|line| writeln!(io::stdout(), "{line}")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("popa3d-load {work}: {error}\n")),
    }
}

fn complain(text: &str) -> ExitCode {
    let _ = io::stderr().write_all(text.as_bytes());
    ExitCode::FAILURE
}
