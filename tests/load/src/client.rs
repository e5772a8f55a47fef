//! One POP3 session from the client's side.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use crate::connect::{Sources, connect};
use crate::options::Options;
use crate::reply::Replies;
use crate::tls::{self, Encrypted, Tls};

/// Where a server is, and how to talk with it.
pub(crate) struct Server {
    port: u16,
    sources: Sources,
    tls: Option<Tls>,
}

impl Server {
    pub(crate) fn of(options: &Options) -> io::Result<Self> {
        let tls = match options.text("tls", "none") {
            "none" => None,
            "full" => Some(Tls::new(false)?),
            "resumed" => Some(Tls::new(true)?),
            other => return Err(io::Error::other(format!("--tls {other}?"))),
        };
        Ok(Self { port: options.port()?, sources: Sources::of(options)?, tls })
    }
}

pub(crate) struct Client {
    pub(crate) socket: Connection,
    pub(crate) replies: Replies,
}

pub(crate) enum Connection {
    Plain(TcpStream),
    Tls(Box<Encrypted>),
}

impl Client {
    /// Connects and reads the greeting.
    pub(crate) fn connect(server: &Server) -> io::Result<Self> {
        let socket = connect(server.port, server.sources)?;
        // What is measured is the server's way with Nagle's algorithm, not ours.
        socket.set_nodelay(true)?;
        let socket = match &server.tls {
            None => Connection::Plain(socket),
            Some(tls) => Connection::Tls(Box::new(tls.begin(socket)?)),
        };
        let mut client = Self { socket, replies: Replies::new() };
        client.status()?;
        Ok(client)
    }

    /// Connects and logs in.
    pub(crate) fn log_in(server: &Server, user: &str, password: &str) -> io::Result<Self> {
        let mut client = Self::connect(server)?;
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

    /// What TLS uses; empty without it.
    pub(crate) fn agreed(&self) -> String {
        match &self.socket {
            Connection::Plain(_) => String::new(),
            Connection::Tls(stream) => tls::agreed(&stream.conn),
        }
    }

    /// Whether a ticket saved a part of the handshake.
    pub(crate) fn is_resumed(&self) -> bool {
        matches!(&self.socket, Connection::Tls(stream) if tls::is_resumed(&stream.conn))
    }
}

impl Read for Connection {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(room),
            Self::Tls(stream) => stream.read(room),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(octets),
            Self::Tls(stream) => stream.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
