//! The connection: lines in, replies out.

use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;

use super::deadline::Deadline;
use super::stream::Stream;
use crate::channel::{Encryption, Ending, ToMonitor};
use crate::pop3::LineBuffer;
use crate::pop3::reply::{self, Code};

/// Replies are collected up to this size before they are sent.
const FULL: usize = 128 * 1024;

/// What a TLS client begins with (RFC 8446 section 5.1), and no command of POP3.
const TLS: &[u8] = &[22, 3];

/// How long a client may take to make room for the last replies, once the session is over. With
/// [`GOODBYE`], the monitor has to wait longer than that for its worker.
const LAST_REPLIES: Duration = Duration::from_secs(30);

/// The same when the server ends the session, and wants the process to be gone.
const LAST_WORD: Duration = Duration::from_secs(1);

/// How long an ending session waits for its client to close the connection.
const GOODBYE: Duration = Duration::from_secs(2);

/// Both directions of a connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) input: LineBuffer,
    pub(super) output: Output,
    idle_timeout: Duration,
}

/// Replies on their way to the client: sent when there are many, or when the client waits.
#[derive(Debug)]
pub(super) struct Output {
    stream: Stream,
    pending: Vec<u8>,
    /// How often something was sent: a reply that was sent cannot be taken back.
    sent: u64,
    /// Whether sending has failed, so that the client waits for the rest of a reply.
    is_cut: bool,
}

/// A point in the replies to go back to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    length: usize,
    sent: u64,
}

impl Client {
    pub(super) fn new(socket: OwnedFd, idle_timeout: Duration) -> Self {
        let stream = Stream::new(socket, idle_timeout);
        let output = Output { stream, pending: Vec::new(), sent: 0, is_cut: false };
        Self { input: LineBuffer::default(), output, idle_timeout }
    }

    /// From here on nobody waits for the client when the monitor is gone.
    pub(super) fn depend_on(&mut self, monitor: Arc<ToMonitor>) {
        self.output.stream.depend_on(monitor);
    }

    /// Whether TLS has begun.
    pub(super) fn is_encrypted(&self) -> bool {
        self.output.stream.is_encrypted()
    }

    /// The certificates that the client showed, now or in the session that it resumed.
    pub(super) fn certificates(&self) -> &[CertificateDer<'_>] {
        self.output.stream.certificates()
    }

    /// Serves a TLS handshake. Whatever the client sent before is forgotten: it may be somebody
    /// else's (RFC 2595 section 4).
    ///
    /// # Errors
    ///
    /// Says why there is no TLS.
    pub(super) fn start_tls(
        &mut self,
        config: Arc<ServerConfig>,
        deadline: Deadline,
    ) -> Result<Encryption, String> {
        self.output.flush().map_err(|error| error.to_string())?;
        self.input = LineBuffer::default();
        self.output.stream.start_tls(config, deadline)
    }

    /// Waits until the client has sent a whole line; sends what it may be waiting for first.
    ///
    /// The idle time-out runs until the line is complete: a client that trickles octets is idle. Nor
    /// is anything taken from it after `latest`.
    ///
    /// # Errors
    ///
    /// How the session ends instead.
    pub(super) fn wait_for_line(
        &mut self,
        monitor: BorrowedFd<'_>,
        latest: Option<Deadline>,
    ) -> Result<(), Ending> {
        if latest.is_some_and(Deadline::has_passed) {
            return Err(Ending::TimedOut);
        }
        if self.input.has_line() {
            return Ok(());
        }
        self.output.flush().map_err(ending)?;
        let deadline = Deadline::after(self.idle_timeout);
        let deadline = latest.map_or(deadline, |latest| latest.min(deadline));
        while !self.input.has_line() {
            let count = self.output.stream.receive(self.input.room(), monitor, deadline)?;
            self.input.received(count);
            if !self.is_encrypted() && self.input.begins_with(TLS) {
                return Err(Ending::WithoutTls);
            }
        }
        Ok(())
    }

    /// Tells the client that the server ends the session, unless it is about to read why already, or
    /// is in the middle of a reply.
    pub(super) fn end(mut self) {
        if self.output.is_cut {
            return;
        }
        self.output.stream.hurry(LAST_WORD);
        if self.output.pending.is_empty() {
            let text = "the server ends this session, try again later";
            // Into memory: it cannot fail.
            let _ = reply::err_with(&mut self.output, Code::SysTemp, text);
        }
        if self.output.flush().is_ok() {
            let _ = self.output.stream.finish();
        }
    }

    /// Sends the last replies and waits a little for the client to close the connection: closing
    /// with something unread would make the kernel throw away what is on its way to the client.
    pub(super) fn say_goodbye(mut self) {
        self.output.stream.hurry(LAST_REPLIES);
        if self.output.flush().is_ok() && self.output.stream.finish().is_ok() {
            self.output.stream.drain(Deadline::after(GOODBYE));
        }
    }
}

impl Output {
    /// Where the next reply begins.
    pub(super) fn mark(&self) -> Mark {
        Mark { length: self.pending.len(), sent: self.sent }
    }

    /// Takes back what was written since `mark`; false when some of it is already sent.
    pub(super) fn take_back(&mut self, mark: Mark) -> bool {
        if self.sent == mark.sent {
            self.pending.truncate(mark.length);
        }
        self.sent == mark.sent
    }

    /// Takes a whole reply and leaves `reply` empty; nothing is copied when no other one is pending.
    pub(super) fn take(&mut self, reply: &mut Vec<u8>) -> io::Result<()> {
        if self.pending.is_empty() {
            std::mem::swap(&mut self.pending, reply);
            return Ok(());
        }
        let written = self.write_all(reply);
        reply.clear();
        written
    }

    fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.sent += 1;
        let result = self.stream.send_all(octets);
        self.is_cut |= result.is_err();
        result
    }
}

impl Write for Output {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.write_all(octets)?;
        Ok(octets.len())
    }

    fn write_all(&mut self, octets: &[u8]) -> io::Result<()> {
        if self.pending.len() + octets.len() > FULL {
            self.flush()?;
        }
        if octets.len() > FULL {
            return self.send(octets);
        }
        self.pending.extend_from_slice(octets);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        let result = self.send(&pending);
        self.pending = pending;
        self.pending.clear();
        result
    }
}

/// What an error of the connection means for the session.
pub(super) fn ending(error: io::Error) -> Ending {
    if error.kind() == io::ErrorKind::TimedOut { Ending::TimedOut } else { Ending::Disconnected }
}
