//! The sockets that the listener accepts on: handed over by systemd, by the program before, or made
//! here.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libsystemd::activation::receive_descriptors_with_names;
use listenfd::ListenFd;
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, SockaddrStorage, bind, listen,
    setsockopt, shutdown, socket, sockopt,
};

use super::service;
use crate::monitor::{Connection, OUT_OF_ORDER, Port, is_for_us};
use crate::settings::Settings;

/// How many connections may wait to be accepted; the kernel takes net.core.somaxconn if that is less,
/// which is 4096 by default. One that finds no room tries again after a second.
const BACKLOG: i32 = 4096;

/// What systemd calls sockets that this program made and gave it to keep: they are let go when the
/// settings want others, while those of a socket unit are used as they are.
const KEPT: [(&str, Port); 2] = [("popa3d-pop3", Port::Pop3), ("popa3d-pop3s", Port::Pop3s)];

/// One listening socket.
#[derive(Debug)]
pub(super) struct Listening {
    socket: TcpListener,
    pub(super) address: SocketAddr,
    pub(super) port: Port,
    /// Whether a socket unit made it, so that the settings do not matter.
    pub(super) is_of_a_unit: bool,
}

/// A socket cannot be had.
#[derive(Debug)]
pub(super) struct Unlistenable {
    address: String,
    source: io::Error,
}

impl fmt::Display for Unlistenable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listening on {}: {}", self.address, self.source)?;
        if self.source.kind() == io::ErrorKind::AddrInUse {
            f.write_str(
                "; another program has it (popa3d.socket? systemctl stop popa3d.socket \
                 popa3ds.socket), or another address that is named here takes it in",
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for Unlistenable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl Listening {
    /// Takes over a socket that another program made.
    ///
    /// # Errors
    ///
    /// It is not a listening TCP socket.
    pub(super) fn of(descriptor: OwnedFd, port: Port, is_of_a_unit: bool) -> io::Result<Self> {
        use nix::sys::socket::getsockopt;
        let socket = TcpListener::from(descriptor);
        if getsockopt(&socket, sockopt::AcceptConn) != Ok(true) {
            return Err(io::Error::other("it is not a listening socket (is Accept=yes set?)"));
        }
        // Whoever looks for a connection that is gone again must not wait for the next one.
        socket.set_nonblocking(true)?;
        if !is_of_a_unit {
            // After [`Self::make_way`].
            setsockopt(&socket, sockopt::ReusePort, &false)?;
        }
        let address = socket.local_addr()?;
        Ok(Self { socket, address, port, is_of_a_unit })
    }

    fn new(address: SocketAddr, port: Port) -> io::Result<Self> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let socket = stream_socket(family)?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        if address.is_ipv6() {
            // [::] is for both, whatever net.ipv6.bindv6only says.
            setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
        }
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
        listen(&socket, Backlog::new(BACKLOG)?)?;
        Self::of(socket, port, false)
    }

    /// Listens to nobody until [`Self::listen_again`], in whatever process the socket is open: the service
    /// manager, which keeps it, takes its time to let it go.
    fn fall_silent(&self) {
        // Linux takes this for the end of listening, and lets others with SO_REUSEADDR have the port.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Read);
    }

    fn listen_again(&self) {
        let _ = Backlog::new(BACKLOG).and_then(|backlog| listen(&self.socket, backlog));
        // The service manager does not keep what fell silent.
        self.keep();
    }

    /// Lets root's sockets that share ports (`ReusePort=`) have this one: those of socket units that take the
    /// place of the listener. The service manager closes what it kept some time after they are to listen.
    pub(super) fn make_way(&self) {
        if !self.is_of_a_unit {
            let _ = setsockopt(&self.socket, sockopt::ReusePort, &true);
        }
    }

    /// A restart finds it still listening.
    fn keep(&self) {
        let kept = KEPT.iter().find(|(_, port)| *port == self.port);
        kept.into_iter().for_each(|(name, _)| service::keep(name, self.as_fd()));
    }

    fn is(&self, wanted: (SocketAddr, Port)) -> bool {
        (self.address, self.port) == wanted
    }

    fn is_among(&self, wanted: &[(SocketAddr, Port)]) -> bool {
        wanted.iter().any(|wanted| self.is(*wanted))
    }

    /// The next connection; `None` when there is none.
    ///
    /// # Errors
    ///
    /// accept(2)'s, such as those of a lack of descriptors.
    pub(super) fn accept(&self) -> io::Result<Option<Connection>> {
        loop {
            match self.socket.accept() {
                Ok((stream, peer)) => {
                    return Ok(Some(Connection::accepted(stream, peer, self.port)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                // This one is gone, and says nothing about the next.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Tells all who wait that nobody is served.
    pub(super) fn turn_away_all(&self) {
        // Not without an end, should others come as fast.
        for _ in 0..BACKLOG {
            let Ok(Some(connection)) = self.accept() else { return };
            connection.turn_away(OUT_OF_ORDER);
        }
    }
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.port == Port::Pop3s { ", TLS from the first octet" } else { "" };
        write!(f, "{}{tls}", self.address)
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What systemd handed over: sockets of a socket unit, and those that it kept for this program.
///
/// # Errors
///
/// Says which one cannot be used.
pub(super) fn from_systemd() -> Result<Vec<Listening>, Unlistenable> {
    if !is_for_us() {
        return Ok(Vec::new());
    }
    let names = receive_descriptors_with_names(false).unwrap_or_default();
    let mut handed = ListenFd::from_env();
    let mut found = Vec::new();
    for index in 0..handed.len() {
        let name = names.get(index).map_or("", |(_, name)| name.as_str());
        let failed = |source| Unlistenable { address: format!("systemd's socket {name}"), source };
        let not_tcp = || failed(io::Error::other("it is not a TCP socket"));
        let socket = handed.take_tcp_listener(index).map_err(failed)?.ok_or_else(not_tcp)?;
        let kept = KEPT.iter().find(|(kept, _)| *kept == name).map(|(_, port)| *port);
        let port = match (kept, name) {
            (Some(port), _) => port,
            (None, "pop3") => Port::Pop3,
            (None, "pop3s") => Port::Pop3s,
            // The name of the unit, when it says nothing else.
            (None, _) => Port::of(socket.local_addr().ok()),
        };
        found.push(Listening::of(socket.into(), port, kept.is_none()).map_err(failed)?);
    }
    Ok(found)
}

/// What other settings change, so far: undone by [`Self::undo`], or carried through.
#[derive(Debug)]
pub(super) struct Change {
    /// The addresses that are wanted.
    wanted: Vec<(SocketAddr, Port)>,
    /// Those of them that were not there.
    made: Vec<Listening>,
    /// Those of them that another program has, and that are done without.
    taken: Vec<Unlistenable>,
    /// Whether those that are not wanted have stopped to listen, to make room.
    is_silenced: bool,
}

impl Change {
    /// Makes the sockets that `settings` want and `present` does not have. Where a socket unit made
    /// some, those are all there are.
    ///
    /// Without one for TLS that another program has (stunnel, it may be) the others are used all the
    /// same: nobody is to lose port 110 for it. Only that is no reason to close one for TLS that is there.
    ///
    /// # Errors
    ///
    /// Says which one cannot be had; all is as it was then.
    pub(super) fn prepare(
        settings: &Settings,
        has_certificate: bool,
        present: &[Listening],
    ) -> Result<Self, Unlistenable> {
        let mut change =
            Self { wanted: Vec::new(), made: Vec::new(), taken: Vec::new(), is_silenced: false };
        if present.iter().any(|listening| listening.is_of_a_unit) {
            return Ok(change);
        }
        let pop3 = settings.listen.iter().map(|address| (*address, Port::Pop3));
        let pop3s = settings.listen_tls.iter().map(|address| (*address, Port::Pop3s));
        change.wanted = pop3
            .chain(pop3s.filter(|_| has_certificate))
            .map(|(address, port)| (on_this_kernel(address), port))
            .collect();
        let missing: Vec<_> = change
            .wanted
            .iter()
            .filter(|wanted| !present.iter().any(|listening| listening.is(**wanted)))
            .copied()
            .collect();
        for (address, port) in missing {
            let mut made = Listening::new(address, port);
            let is_taken = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
            if made.as_ref().is_err_and(is_taken) && !change.is_silenced {
                // By one of those that nobody wants any more, it may be.
                change.is_silenced = true;
                change.unwanted(present).for_each(Listening::fall_silent);
                made = Listening::new(address, port);
            }
            let failed = |source| Unlistenable { address: address.to_string(), source };
            match made {
                Ok(made) => change.made.push(made),
                Err(source)
                    if is_taken(&source)
                        && port == Port::Pop3s
                        && change.unwanted(present).all(|listening| listening.port != port) =>
                {
                    change.taken.push(failed(source));
                }
                Err(source) => {
                    change.undo(present);
                    return Err(failed(source));
                }
            }
        }
        if change.sockets(present).next().is_none() {
            if let Some(taken) = change.taken.pop() {
                change.undo(present);
                return Err(taken);
            }
        }
        Ok(change)
    }

    /// The addresses that are wanted and that another program has.
    pub(super) fn taken(&self) -> impl Iterator<Item = &str> {
        self.taken.iter().map(|taken| taken.address.as_str())
    }

    /// All stays as it was before.
    pub(super) fn undo(self, present: &[Listening]) {
        // First: they may have the ports that the others are to get back.
        drop(self.made);
        if self.is_silenced {
            let unwanted = present.iter().filter(|listening| !listening.is_among(&self.wanted));
            unwanted.for_each(Listening::listen_again);
        }
    }

    /// The sockets that there are from now on; the service manager keeps them for a restart.
    pub(super) fn carry_through(self, present: Vec<Listening>) -> Vec<Listening> {
        let mut sockets = present;
        sockets.retain(|listening| self.keeps(listening));
        sockets.extend(self.made);
        KEPT.iter().for_each(|(name, _)| service::let_go(name));
        sockets.iter().filter(|listening| !listening.is_of_a_unit).for_each(Listening::keep);
        sockets
    }

    /// The same, for another program to carry through.
    pub(super) fn sockets<'a>(
        &'a self,
        present: &'a [Listening],
    ) -> impl Iterator<Item = &'a Listening> {
        present.iter().filter(|listening| self.keeps(listening)).chain(&self.made)
    }

    fn unwanted<'a>(&'a self, present: &'a [Listening]) -> impl Iterator<Item = &'a Listening> {
        present.iter().filter(|listening| !self.keeps(listening))
    }

    /// Where a socket unit made some, nothing is wanted but those.
    fn keeps(&self, listening: &Listening) -> bool {
        listening.is_of_a_unit || listening.is_among(&self.wanted)
    }
}

/// A kernel without IPv6 has no `[::]` to listen on, but all that is there.
fn on_this_kernel(address: SocketAddr) -> SocketAddr {
    let is_any = address.is_ipv6() && address.ip().is_unspecified();
    if is_any && stream_socket(AddressFamily::Inet6).err() == Some(nix::Error::EAFNOSUPPORT) {
        return (Ipv4Addr::UNSPECIFIED, address.port()).into();
    }
    address
}

fn stream_socket(family: AddressFamily) -> nix::Result<OwnedFd> {
    socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
}

#[cfg(test)]
mod tests;
