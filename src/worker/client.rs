//! The connection: lines in, replies out.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};

use super::deadline::Deadline;
use crate::channel::Ending;
use crate::pop3::LineBuffer;

/// Replies are collected up to this size before they are sent.
const FULL: usize = 128 * 1024;

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
    socket: OwnedFd,
    pending: Vec<u8>,
    /// How often something was sent: a reply that was sent cannot be taken back.
    sent: u64,
    idle_timeout: Duration,
}

/// A point in the replies to go back to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    length: usize,
    sent: u64,
}

impl Client {
    pub(super) fn new(socket: OwnedFd, idle_timeout: Duration) -> Self {
        Self {
            input: LineBuffer::default(),
            output: Output { socket, pending: Vec::new(), sent: 0, idle_timeout },
            idle_timeout,
        }
    }

    /// Waits until the client has sent a whole line; sends what it may be waiting for first.
    ///
    /// The idle time-out runs until the line is complete: a client that trickles octets is idle. Nor
    /// does it wait beyond `latest`.
    ///
    /// # Errors
    ///
    /// How the session ends instead.
    pub(super) fn wait_for_line(
        &mut self,
        monitor: BorrowedFd<'_>,
        latest: Option<Deadline>,
    ) -> Result<(), Ending> {
        if self.input.has_line() {
            return Ok(());
        }
        self.output.flush().map_err(ending)?;
        let deadline = Deadline::after(self.idle_timeout);
        let deadline = latest.map_or(deadline, |latest| latest.min(deadline));
        while !self.input.has_line() {
            let mut wanted = [
                PollFd::new(self.output.socket.as_fd(), PollFlags::POLLIN),
                // Nothing is expected from the monitor, but its end is an end.
                PollFd::new(monitor, PollFlags::empty()),
            ];
            deadline.wait_for(&mut wanted).map_err(ending)?;
            if wanted.get(1).and_then(PollFd::any).unwrap_or(false) {
                return Err(Ending::Failed);
            }
            let flags = MsgFlags::MSG_DONTWAIT;
            match recv(self.output.socket.as_raw_fd(), self.input.room(), flags) {
                Ok(0) => return Err(Ending::Disconnected),
                Ok(count) => self.input.received(count),
                Err(nix::Error::EINTR | nix::Error::EAGAIN) => {}
                Err(_) => return Err(Ending::Disconnected),
            }
        }
        Ok(())
    }

    /// Sends the last replies and waits a little for the client to close the connection: closing
    /// with something unread would make the kernel throw away what is on its way to the client.
    pub(super) fn say_goodbye(mut self) {
        let socket = self.output.socket.as_raw_fd();
        if self.output.flush().is_err() || shutdown(socket, Shutdown::Write).is_err() {
            return;
        }
        let deadline = Deadline::after(GOODBYE);
        let mut ignored = [0; 4096];
        loop {
            let mut wanted = [PollFd::new(self.output.socket.as_fd(), PollFlags::POLLIN)];
            if deadline.wait_for(&mut wanted).is_err() {
                return;
            }
            match recv(socket, &mut ignored, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return,
                Ok(_) | Err(nix::Error::EINTR | nix::Error::EAGAIN) => {}
                Err(_) => return,
            }
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

    /// Sends all of `octets`; a client that takes none of them for too long is gone.
    fn send_all(&self, mut octets: &[u8]) -> io::Result<()> {
        let mut deadline = None;
        while !octets.is_empty() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.socket.as_raw_fd(), octets, flags) {
                Ok(count) => octets = octets.get(count..).unwrap_or_default(),
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => {
                    let deadline =
                        *deadline.get_or_insert_with(|| Deadline::after(self.idle_timeout));
                    let mut wanted = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
                    deadline.wait_for(&mut wanted)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
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
            self.sent += 1;
            return self.send_all(octets);
        }
        self.pending.extend_from_slice(octets);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.sent += 1;
        let result = self.send_all(&self.pending);
        self.pending.clear();
        result
    }
}

/// What an error of the connection means for the session.
pub(super) fn ending(error: io::Error) -> Ending {
    if error.kind() == io::ErrorKind::TimedOut { Ending::TimedOut } else { Ending::Disconnected }
}
