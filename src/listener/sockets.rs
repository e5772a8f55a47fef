//! The sockets that the listener accepts on: handed over by systemd, by the program before, or made here.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libsystemd::activation::receive_descriptors_with_names;
use listenfd::ListenFd;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};

use super::service;
use crate::monitor::{Connection, Port, is_for_us};
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
                 popa3ds.socket)",
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
        let address = socket.local_addr()?;
        Ok(Self { socket, address, port, is_of_a_unit })
    }

    fn new(address: SocketAddr, port: Port) -> io::Result<Self> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let socket = match socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None) {
            // A kernel without IPv6 has no [::] to listen on, but all that is there.
            Err(nix::Error::EAFNOSUPPORT) if address.ip().is_unspecified() => {
                return Self::new((Ipv4Addr::UNSPECIFIED, address.port()).into(), port);
            }
            socket => socket?,
        };
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        if address.is_ipv6() {
            // [::] is for both, whatever net.ipv6.bindv6only says.
            setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
        }
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
        listen(&socket, Backlog::new(BACKLOG)?)?;
        Self::of(socket, port, false)
    }

    /// The next connection; `None` when there is none.
    ///
    /// # Errors
    ///
    /// accept(2)'s, such as those of a lack of descriptors.
    pub(super) fn accept(&self) -> io::Result<Option<Connection>> {
        match self.socket.accept() {
            Ok((stream, peer)) => Ok(Some(Connection::accepted(stream, peer, self.port))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
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

/// Makes the sockets that `settings` want and `inherited` does not have; lets those of `inherited` go
/// that they do not want any more. Where a socket unit made some, those are all there are.
///
/// # Errors
///
/// Says which one cannot be had.
pub(super) fn open(
    settings: &Settings,
    has_certificate: bool,
    inherited: Vec<Listening>,
) -> Result<Vec<Listening>, Unlistenable> {
    if inherited.iter().any(|listening| listening.is_of_a_unit) {
        return Ok(inherited.into_iter().filter(|listening| listening.is_of_a_unit).collect());
    }
    let pop3 = settings.listen.iter().map(|address| (*address, Port::Pop3));
    let pop3s = settings.listen_tls.iter().map(|address| (*address, Port::Pop3s));
    let wanted: Vec<_> = pop3.chain(pop3s.filter(|_| has_certificate)).collect();
    let (mut found, unwanted): (Vec<_>, Vec<_>) = inherited
        .into_iter()
        .partition(|listening| wanted.contains(&(listening.address, listening.port)));
    // First: one of them may have the port that another one is to get.
    drop(unwanted);
    KEPT.iter().for_each(|(name, _)| service::let_go(name));
    for (address, port) in wanted {
        if found.iter().any(|listening| (listening.address, listening.port) == (address, port)) {
            continue;
        }
        let failed = |source| Unlistenable { address: address.to_string(), source };
        found.push(Listening::new(address, port).map_err(failed)?);
    }
    // A restart finds them still listening.
    for listening in &found {
        let name = KEPT.iter().find(|(_, port)| *port == listening.port).map(|(name, _)| *name);
        name.into_iter().for_each(|name| service::keep(name, listening.as_fd()));
    }
    Ok(found)
}
