//! The connection: lines in, replies out.

use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;

use super::deadline::Deadline;
use super::stream::{NoTls, Stream};
use crate::channel::{Encryption, Ending, ToMonitor};
use crate::pop3::LineBuffer;
use crate::pop3::reply::{self, Code};
use crate::proxy::{self, Header, MAX_HEADER, Malformed};

/// Replies are collected up to this size before they are sent.
const FULL: usize = 128 * 1024;

/// What a TLS client begins with (RFC 8446 section 5.1), and no command of POP3.
const TLS: &[u8] = &[22, 3];

/// How long a client may take to make room for all of the last replies, once the session is over. With
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
    /// Whether a line has come.
    has_spoken: bool,
}

/// Why there is no PROXY header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoHeader {
    /// Nothing of one came.
    Ended(Ending),
    /// What came is none.
    Malformed(Malformed),
    /// It did not come to its end.
    Unfinished,
    /// It did not come in time.
    TimedOut,
}

impl From<Malformed> for NoHeader {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
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
        Self { input: LineBuffer::default(), output, idle_timeout, has_spoken: false }
    }

    /// Whoever has not logged in by `latest` is not waited for any more; `None` for those who have.
    pub(super) fn wait_until(&mut self, latest: Option<Deadline>) {
        self.output.stream.wait_until(latest);
    }

    /// Whether that time has come.
    pub(super) fn is_late(&self) -> bool {
        self.output.stream.is_late()
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

    /// Takes the header of a proxy, and not an octet of what stands behind it.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(super) fn receive_header(
        &mut self,
        monitor: BorrowedFd<'_>,
        deadline: Deadline,
    ) -> Result<Header, NoHeader> {
        let mut octets = vec![0; MAX_HEADER];
        let mut held = 0;
        let stream = &mut self.output.stream;
        loop {
            let no_more = |ending| {
                if ending == Ending::TimedOut {
                    NoHeader::TimedOut
                } else if ending == Ending::Disconnected && held > 0 {
                    NoHeader::Unfinished
                } else {
                    NoHeader::Ended(ending)
                }
            };
            let room = octets.get_mut(held..).unwrap_or_default();
            let seen = held + stream.peek(room, monitor, deadline).map_err(no_more)?;
            let length = proxy::length(octets.get(..seen).unwrap_or_default())?;
            let end = length.map_or(seen, |length| length.min(seen));
            let ours = octets.get_mut(held..end).unwrap_or_default();
            held += stream.receive(ours, monitor, deadline).map_err(no_more)?;
            if length == Some(held) {
                return Ok(proxy::parse(octets.get(..held).unwrap_or_default())?);
            }
        }
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
    ) -> Result<Encryption, NoTls> {
        self.output.flush().map_err(|error| error.to_string())?;
        self.input = LineBuffer::default();
        self.output.stream.start_tls(config, deadline)
    }

    /// Waits until the client has sent a whole line; sends what it may be waiting for first.
    ///
    /// The idle time-out runs until the line is complete: a client that trickles octets is idle. Nor
    /// is anything taken from one that is late.
    ///
    /// # Errors
    ///
    /// How the session ends instead.
    pub(super) fn wait_for_line(&mut self, monitor: BorrowedFd<'_>) -> Result<(), Ending> {
        if self.is_late() {
            return Err(Ending::TimedOut);
        }
        if self.input.has_line() {
            return Ok(());
        }
        self.output.flush().map_err(ending)?;
        let deadline = Deadline::after(self.idle_timeout);
        while !self.input.has_line() {
            let count = self.output.stream.receive(self.input.room(), monitor, deadline)?;
            self.input.received(count);
            if self.is_encrypted() {
                continue;
            }
            if self.input.begins_with(TLS) {
                return Err(Ending::WithoutTls);
            }
            if !self.has_spoken && proxy::BEGINNINGS.iter().any(|it| self.input.begins_with(it)) {
                return Err(Ending::HeaderRefused);
            }
        }
        self.has_spoken = true;
        Ok(())
    }

    /// Tells the client that the server ends the session, unless it is about to read why already, or
    /// is in the middle of a reply.
    pub(super) fn end(mut self) {
        if self.output.is_cut {
            return;
        }
        self.output.stream.hurry(Deadline::after(LAST_WORD));
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
        // One for all of it: behind the replies comes TLS's own goodbye.
        self.output.stream.hurry(Deadline::after(LAST_REPLIES));
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

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    const TEXT: &[u8] = b"PROXY TCP6 2001:db8::7 2001:db8::1 51822 110\r\n";
    const BINARY: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\xca\x6e\0\x6e";

    /// What comes out when the client writes these pieces, and what is left for whoever reads next.
    fn receive(pieces: &[&[u8]]) -> (Result<Header, NoHeader>, Vec<u8>) {
        let (mut client, server) = UnixStream::pair().unwrap();
        let (monitor, _worker) = UnixStream::pair().unwrap();
        let mut rest = server.try_clone().unwrap();
        let received = std::thread::scope(|scope| {
            scope.spawn(|| {
                for piece in pieces {
                    client.write_all(piece).unwrap();
                    std::thread::yield_now();
                }
                client.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let mut receiver = Client::new(server.into(), Duration::from_secs(60));
            receiver.receive_header(monitor.as_fd(), Deadline::after(Duration::from_secs(60)))
        });
        let mut left = Vec::new();
        rest.read_to_end(&mut left).unwrap();
        (received, left)
    }

    #[test]
    fn exactly_the_header_is_taken_however_it_is_cut_into_pieces() {
        for header in [TEXT, BINARY] {
            let behind = b"\x16\x03\x01\0\n";
            let octets = [header, behind].concat();
            let expected = proxy::parse(header).unwrap();
            let mut cuts: Vec<Vec<&[u8]>> =
                (0..octets.len()).map(|at| vec![&octets[..at], &octets[at..]]).collect();
            cuts.push(octets.chunks(1).collect());
            for pieces in cuts {
                let (received, left) = receive(&pieces);
                assert_eq!((received.unwrap(), left.as_slice()), (expected.clone(), &behind[..]));
            }
        }
    }

    #[test]
    fn header_that_ends_too_early_is_not_waited_for() {
        for header in [TEXT, BINARY] {
            let (received, _) = receive(&[&header[..header.len() - 1]]);
            assert_eq!(received, Err(NoHeader::Unfinished));
        }
        let (received, _) = receive(&[]);
        assert_eq!(received, Err(NoHeader::Ended(Ending::Disconnected)));
    }

    #[test]
    fn header_that_is_none_is_refused_before_it_is_complete() {
        let (received, left) = receive(&[b"PROXY TCP4 1", b"x", &[b'x'; 1000]]);
        assert!(matches!(received, Err(NoHeader::Malformed(_))), "{received:?}");
        // Of such a line no more than a line is taken.
        assert!(left.len() > 900);
        let (received, left) = receive(&[b"USER alice\r\n"]);
        assert!(matches!(received, Err(NoHeader::Malformed(_))), "{received:?}");
        assert_eq!(left, b"USER alice\r\n");
    }
}
