//! One POP3 session from the client's side.

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use crate::reply::Replies;

/// No server gets longer for a reply: a run ends, whatever happens.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    pub(crate) replies: Replies,
}

impl Client {
    /// Connects and reads the greeting.
    pub(crate) fn connect(port: u16) -> io::Result<Self> {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        // What is measured is the server's way with Nagle's algorithm, not ours.
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut client = Self { socket, replies: Replies::new() };
        client.status()?;
        Ok(client)
    }

    /// Connects and logs in.
    pub(crate) fn log_in(port: u16, user: &str, password: &str) -> io::Result<Self> {
        let mut client = Self::connect(port)?;
        client.ask(&format!("USER {user}"))?;
        client.ask(&format!("PASS {password}"))?;
        Ok(client)
    }

    /// Sends a command in one piece.
    pub(crate) fn send(&mut self, command: &str) -> io::Result<()> {
        self.socket.write_all(format!("{command}\r\n").as_bytes())
    }

    /// The next status line; `-ERR` is an error.
    pub(crate) fn status(&mut self) -> io::Result<String> {
        let line = self.replies.line(&mut self.socket)?;
        if line.starts_with("+OK") {
            Ok(line)
        } else {
            Err(io::Error::other(format!("refused: {line}")))
        }
    }

    /// A command with a reply of one line.
    pub(crate) fn ask(&mut self, command: &str) -> io::Result<String> {
        self.send(command)?;
        self.status()
    }

    /// A command with a reply of many lines; the octets of the reply.
    pub(crate) fn fetch(&mut self, command: &str) -> io::Result<u64> {
        self.send(command)?;
        self.skip_lines()
    }

    /// Takes a reply of many lines; its octets.
    pub(crate) fn skip_lines(&mut self) -> io::Result<u64> {
        self.replies.skip_lines(&mut self.socket)
    }

    /// How many messages STAT counts.
    pub(crate) fn count(&mut self) -> io::Result<u32> {
        let line = self.ask("STAT")?;
        let count = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        count.ok_or_else(|| io::Error::other(format!("no reply to STAT: {line}")))
    }
}
