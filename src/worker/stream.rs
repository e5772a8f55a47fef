//! The connection: octets in and out, encrypted once TLS has begun.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use rustls::pki_types::CertificateDer;
use rustls::{HandshakeKind, ServerConfig};

use super::deadline::Deadline;
use super::patience::Patience;
use super::tls::Records;
use crate::channel::{Encryption, Ending, MAX_REASON, ToMonitor};
use crate::proxy;

/// A TLS record that begins a handshake (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// So much is encrypted before it is sent: what fits into the cache.
const ENCRYPTED_AT_ONCE: usize = 64 * 1024;

/// Why there is no TLS.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoTls {
    /// The header of a proxy is where TLS has to begin.
    ProxyHeader,
    /// In words.
    Because(String),
}

impl fmt::Display for NoTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProxyHeader => f.write_str(NOT_TLS),
            Self::Because(reason) => f.write_str(reason),
        }
    }
}

const NOT_TLS: &str = "the client does not speak TLS";

impl From<String> for NoTls {
    fn from(reason: String) -> Self {
        Self::Because(reason)
    }
}

/// A socket, and the encryption on it.
#[derive(Debug)]
pub(super) struct Stream {
    socket: OwnedFd,
    tls: Option<Box<Records>>,
    idle_timeout: Duration,
    /// Without it there is no session, and no use in waiting for its client.
    monitor: Option<Arc<ToMonitor>>,
    /// Nobody is waited for beyond this.
    latest: Option<Deadline>,
}

impl Stream {
    pub(super) fn new(socket: OwnedFd, idle_timeout: Duration) -> Self {
        Self { socket, tls: None, idle_timeout, monitor: None, latest: None }
    }

    /// From here on nobody waits for the client when the monitor is gone.
    pub(super) fn depend_on(&mut self, monitor: Arc<ToMonitor>) {
        self.monitor = Some(monitor);
    }

    /// From here on the monitor does not matter, and nothing waits beyond `deadline`, nor beyond a time
    /// that was named before.
    pub(super) fn hurry(&mut self, deadline: Deadline) {
        self.monitor = None;
        self.latest = Some(self.at_latest(deadline));
    }

    /// From here on nothing waits beyond `latest`, however much the client says or takes.
    pub(super) fn wait_until(&mut self, latest: Option<Deadline>) {
        self.latest = latest;
    }

    /// Whether that time has come.
    pub(super) fn is_late(&self) -> bool {
        self.latest.is_some_and(Deadline::has_passed)
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// The certificates that the client showed, now or in the session that it resumed.
    pub(super) fn certificates(&self) -> &[CertificateDer<'_>] {
        self.tls.as_ref().and_then(|tls| tls.peer_certificates()).unwrap_or_default()
    }

    /// Serves a TLS handshake. Whatever was read before it must be forgotten.
    ///
    /// # Errors
    ///
    /// Says why there is no TLS; the client was told in its own language.
    pub(super) fn start_tls(
        &mut self,
        config: Arc<ServerConfig>,
        deadline: Deadline,
    ) -> Result<Encryption, NoTls> {
        let deadline = self.at_latest(deadline);
        let mut tls = Box::new(Records::new(config).map_err(|error| bounded(&error.to_string()))?);
        let mut is_first = true;
        while tls.is_handshaking() {
            self.wait_for_client(PollFlags::POLLIN, deadline).map_err(in_handshake)?;
            if is_first {
                begins_handshake(&self.socket)?;
            }
            is_first = false;
            let count = match receive(&self.socket, tls.room().map_err(in_handshake)?) {
                Ok(0) => return Err("the client went away".to_owned().into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(in_handshake(error).into()),
            };
            let outcome = tls.received(count);
            // In case of trouble this is the alert that says so.
            let sent = self.send_records(&mut tls, &Patience::Until(deadline));
            outcome.map_err(|error| bounded(&error.to_string()))?;
            sent.map_err(in_handshake)?;
        }
        let encryption = encryption(&tls);
        self.tls = Some(tls);
        Ok(encryption)
    }

    /// Receives something, and waits for it until `deadline`; never 0.
    ///
    /// # Errors
    ///
    /// How the session ends instead.
    pub(super) fn receive(
        &mut self,
        room: &mut [u8],
        monitor: BorrowedFd<'_>,
        deadline: Deadline,
    ) -> Result<usize, Ending> {
        self.wait_for(|stream| stream.receive_now(room), monitor, deadline)
    }

    /// Looks at what [`Self::receive`] would take, without taking it; before TLS.
    ///
    /// # Errors
    ///
    /// How the session ends instead.
    pub(super) fn peek(
        &mut self,
        room: &mut [u8],
        monitor: BorrowedFd<'_>,
        deadline: Deadline,
    ) -> Result<usize, Ending> {
        self.wait_for(|stream| take(&stream.socket, room, MsgFlags::MSG_PEEK), monitor, deadline)
    }

    fn wait_for(
        &mut self,
        mut act: impl FnMut(&mut Self) -> io::Result<usize>,
        monitor: BorrowedFd<'_>,
        deadline: Deadline,
    ) -> Result<usize, Ending> {
        let deadline = self.at_latest(deadline);
        loop {
            if deadline.has_passed() {
                return Err(Ending::TimedOut);
            }
            match act(self) {
                Ok(0) => return Err(Ending::Disconnected),
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(Ending::Disconnected),
            }
            let mut wanted = [
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                // Nothing is expected from the monitor, but its end is an end.
                PollFd::new(monitor, PollFlags::empty()),
            ];
            deadline.wait_for(&mut wanted).map_err(super::client::ending)?;
            if wanted.get(1).and_then(PollFd::any).unwrap_or(false) {
                return Err(Ending::Failed);
            }
        }
    }

    fn at_latest(&self, deadline: Deadline) -> Deadline {
        self.latest.map_or(deadline, |latest| latest.min(deadline))
    }

    /// How long the client may take to make room.
    fn patience(&self) -> Patience {
        Patience::new(self.idle_timeout, self.latest)
    }

    /// What is there, or `WouldBlock`; 0 for the end.
    fn receive_now(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let Some(mut tls) = self.tls.take() else { return receive(&self.socket, room) };
        let result = self.receive_records(&mut tls, room);
        self.tls = Some(tls);
        result
    }

    /// The same with TLS. Records may come without end and with nothing in them, so that it looks
    /// once.
    fn receive_records(&self, tls: &mut Records, room: &mut [u8]) -> io::Result<usize> {
        if let Some(count) = taken(tls, room) {
            return Ok(count);
        }
        let count = receive(&self.socket, tls.room()?)?;
        if count == 0 {
            // Without TLS's own goodbye: somebody cut the connection.
            return Ok(0);
        }
        let outcome = tls.received(count).map_err(io::Error::other);
        let sent = self.send_records(tls, &self.patience());
        outcome.and(sent)?;
        taken(tls, room).ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    /// Sends all of `octets`; a client that takes next to none of them for too long is gone.
    ///
    /// # Errors
    ///
    /// `TimedOut`, and send(2)'s.
    pub(super) fn send_all(&mut self, octets: &[u8]) -> io::Result<()> {
        let patience = self.patience();
        let Some(mut tls) = self.tls.take() else {
            return self.send_octets(octets, &patience);
        };
        let result = octets.chunks(ENCRYPTED_AT_ONCE).try_for_each(|piece| {
            tls.encrypt(piece).map_err(io::Error::other)?;
            self.send_records(&mut tls, &patience)
        });
        self.tls = Some(tls);
        result
    }

    /// Says that nothing more will come.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        if let Some(mut tls) = self.tls.take() {
            tls.close().map_err(io::Error::other)?;
            self.send_records(&mut tls, &self.patience())?;
        }
        Ok(shutdown(self.socket.as_raw_fd(), Shutdown::Write)?)
    }

    /// Sends the records that are ready.
    fn send_records(&self, tls: &mut Records, patience: &Patience) -> io::Result<()> {
        let result = self.send_octets(tls.outgoing(), patience);
        tls.sent();
        result
    }

    fn send_octets(&self, mut octets: &[u8], patience: &Patience) -> io::Result<()> {
        let mut is_over = false;
        while !octets.is_empty() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.socket.as_raw_fd(), octets, flags) {
                Ok(count) => {
                    octets = octets.get(count..).unwrap_or_default();
                    patience.took(count);
                    is_over = is_over && patience.deadline().has_passed();
                }
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) if is_over => return Err(io::ErrorKind::TimedOut.into()),
                Err(nix::Error::EAGAIN) => {
                    match self.wait_for_client(PollFlags::POLLOUT, patience.deadline()) {
                        // There may be room, of which poll(2) says nothing before it is a third of all.
                        Err(error) if error.kind() == io::ErrorKind::TimedOut => is_over = true,
                        waited => waited?,
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits for the client to send something or to make room, as `what` says.
    fn wait_for_client(&self, what: PollFlags, deadline: Deadline) -> io::Result<()> {
        let mut wanted = vec![PollFd::new(self.socket.as_fd(), what)];
        let monitor = self.monitor.as_deref().map(AsFd::as_fd);
        // Nothing is expected from the monitor, but its end is an end.
        wanted.extend(monitor.map(|monitor| PollFd::new(monitor, PollFlags::empty())));
        deadline.wait_for(&mut wanted)?;
        match wanted.get(1).and_then(PollFd::any) {
            Some(true) => Err(io::ErrorKind::ConnectionAborted.into()),
            Some(false) | None => Ok(()),
        }
    }

    /// Waits until the client closes the connection, or until `deadline`, and throws away what it
    /// sends.
    pub(super) fn drain(&self, deadline: Deadline) {
        let mut ignored = [0; 4096];
        loop {
            let mut wanted = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            if deadline.wait_for(&mut wanted).is_err() {
                return;
            }
            match recv(self.socket.as_raw_fd(), &mut ignored, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return,
                Ok(_) | Err(nix::Error::EINTR | nix::Error::EAGAIN) => {}
                Err(_) => return,
            }
        }
    }
}

/// What the client said; 0 when it said that nothing more will come.
fn taken(tls: &mut Records, room: &mut [u8]) -> Option<usize> {
    match tls.take(room) {
        0 => tls.is_closed().then_some(0),
        count => Some(count),
    }
}

/// What is there, or `WouldBlock`; 0 for the end.
fn receive(socket: &OwnedFd, room: &mut [u8]) -> io::Result<usize> {
    take(socket, room, MsgFlags::empty())
}

fn take(socket: &OwnedFd, room: &mut [u8], how: MsgFlags) -> io::Result<usize> {
    loop {
        match recv(socket.as_raw_fd(), room, MsgFlags::MSG_DONTWAIT | how) {
            Err(nix::Error::EINTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Looks at the first octets without taking them.
fn begins_handshake(socket: &OwnedFd) -> Result<(), NoTls> {
    let mut first = [0; 16];
    // Nothing, or an end, shows itself when it is read.
    let count = take(socket, &mut first, MsgFlags::MSG_PEEK).unwrap_or(0);
    let first = first.get(..count).unwrap_or_default();
    match first.first() {
        None | Some(&HANDSHAKE_RECORD) => Ok(()),
        // Proxies send it in one piece.
        Some(_) if proxy::BEGINNINGS.iter().any(|it| first.starts_with(it)) => {
            Err(NoTls::ProxyHeader)
        }
        Some(_) => Err(NOT_TLS.to_owned().into()),
    }
}

fn encryption(tls: &Records) -> Encryption {
    let suite = tls.negotiated_cipher_suite();
    Encryption {
        version: tls.protocol_version().map(u16::from).unwrap_or_default(),
        suite: suite.map(|suite| suite.suite().into()).unwrap_or_default(),
        group: tls.negotiated_key_exchange_group().map(|group| group.name().into()),
        // Who serves the handshake knows.
        server_name: None,
        resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "handed to map_err")]
fn in_handshake(error: io::Error) -> String {
    if error.kind() == io::ErrorKind::TimedOut {
        "the handshake took too long (handshake-timeout, login-timeout)".to_owned()
    } else {
        bounded(&error.to_string())
    }
}

fn bounded(text: &str) -> String {
    let fits = |(at, character): &(usize, char)| at + character.len_utf8() <= MAX_REASON;
    text.char_indices().take_while(fits).map(|(_, character)| character).collect()
}

#[cfg(test)]
mod tests;
