//! Taking the client's connection from whoever accepted it.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libsystemd::activation::receive_descriptors_with_names;
use listenfd::ListenFd;
use nix::libc;
use nix::sys::socket::{SockType, getsockopt, setsockopt, sockopt};

/// A client that is gone is not to keep its user out for longer than two minutes. Keepalive notices
/// it: after 60 s of silence, five probes 10 s apart.
const KEEPALIVE_IDLE: u32 = 60;
const KEEPALIVE_INTERVAL: u32 = 10;
const KEEPALIVE_PROBES: u32 = 5;
/// And, while something is on its way to it, after this many milliseconds without an answer, or
/// without room at the client for any of it.
const USER_TIMEOUT: u32 = 110_000;

/// One accepted connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    client: Option<(IpAddr, u16)>,
    port: Port,
    /// Whether the client has broken it already, so that its address cannot be had either.
    is_over: bool,
}

/// Which of its two ports a connection came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// 110: TLS may begin later (STLS).
    Pop3,
    /// 995: TLS begins at once (RFC 8314 section 3.3).
    Pop3s,
}

/// The port of [`Port::Pop3s`] (RFC 8314 section 7.2).
const POP3S: u16 = 995;

impl Port {
    /// What the number in the server's own address says.
    #[must_use]
    pub fn of(local: Option<SocketAddr>) -> Self {
        let is_pop3s = local.is_some_and(|local| local.port() == POP3S);
        if is_pop3s { Self::Pop3s } else { Self::Pop3 }
    }
}

/// There is no connection to serve.
#[derive(Debug)]
pub struct NotPassed(&'static str);

impl fmt::Display for NotPassed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NotPassed {}

/// Takes descriptor 3 if systemd passed it (sd_listen_fds(3)), or else standard input if it is a
/// socket.
///
/// # Errors
///
/// Says what was found instead.
pub fn take() -> Result<Connection, NotPassed> {
    let (stream, port) = if is_for_us() { from_systemd()? } else { (from_standard_input()?, None) };
    let kind = getsockopt(&stream, sockopt::SockType);
    if kind != Ok(SockType::Stream) || getsockopt(&stream, sockopt::AcceptConn) != Ok(false) {
        return Err(NotPassed("the socket is not an accepted connection (Accept=yes is missing)"));
    }
    detach_standard_streams(&stream);
    let peer = stream.peer_addr();
    let is_over = peer.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotConnected);
    let client = peer.ok().map(|peer| (peer.ip().to_canonical(), peer.port()));
    let port = port.unwrap_or_else(|| Port::of(stream.local_addr().ok()));
    tune(&stream);
    Ok(Connection { stream, client, port, is_over })
}

impl Connection {
    /// A connection that the listener accepted from `peer` on this port.
    #[must_use]
    pub fn accepted(stream: TcpStream, peer: SocketAddr, port: Port) -> Self {
        tune(&stream);
        let client = Some((peer.ip().to_canonical(), peer.port()));
        Self { stream, client, port, is_over: false }
    }

    /// The client's address and port; `None` when it is not on a network.
    #[must_use]
    pub fn client(&self) -> Option<(IpAddr, u16)> {
        self.client
    }

    /// Whether there is nobody to serve. Health checks and scanners often go as soon as they came,
    /// and without an address they would pass for clients of this host.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// What the kernel tells this connection from others by.
    pub(super) fn inode(&self) -> Option<u64> {
        nix::sys::stat::fstat(&self.stream).ok().map(|status| status.st_ino)
    }

    /// Whether the client speaks TLS from the first octet on.
    pub(super) fn wants_tls(&self) -> bool {
        self.port == Port::Pop3s
    }

    /// Sends a client that cannot be served this line, without waiting. One that speaks TLS could not
    /// read it.
    pub fn turn_away(&self, line: &[u8]) {
        use std::io::Write;
        if self.wants_tls() {
            return;
        }
        // A client that takes nothing learns nothing.
        let _ = self.stream.set_nonblocking(true).and_then(|()| (&self.stream).write_all(line));
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl From<Connection> for OwnedFd {
    fn from(connection: Connection) -> Self {
        connection.stream.into()
    }
}

/// Whether LISTEN_PID names this process (sd_listen_fds(3)); listenfd takes a missing one for a yes.
#[must_use]
pub fn is_for_us() -> bool {
    std::env::var("LISTEN_PID").is_ok_and(|pid| pid.parse() == Ok(std::process::id()))
        && std::env::var_os("LISTEN_FDS").is_some()
}

/// The connection, and the port that its name tells.
fn from_systemd() -> Result<(TcpStream, Option<Port>), NotPassed> {
    const NOT_ONE: NotPassed = NotPassed("systemd passed no socket, or more than one");
    let mut port = None;
    // Other programs that start services this way pass no names.
    if std::env::var_os("LISTEN_FDNAMES").is_some() {
        let named = receive_descriptors_with_names(false).map_err(|_| NOT_ONE)?;
        let [(_, name)] = named.as_slice() else { return Err(NOT_ONE) };
        port = match name.as_str() {
            "pop3" => Some(Port::Pop3),
            "pop3s" => Some(Port::Pop3s),
            // systemd 252 calls each accepted socket so, whatever FileDescriptorName= says.
            "connection" => None,
            _ => {
                return Err(NotPassed(
                    "the socket has another FileDescriptorName= than pop3 or pop3s",
                ));
            }
        };
    }
    // Any address family passes: it is the type of the socket that is checked.
    ListenFd::from_env()
        .take_custom::<TcpStream>(0, libc::AF_INET, libc::SOCK_STREAM, "connection")
        .ok()
        .flatten()
        .map(|stream| (stream, port))
        .ok_or(NotPassed("systemd passed something that is not a stream socket"))
}

fn from_standard_input() -> Result<TcpStream, NotPassed> {
    const NO_SOCKET: NotPassed = NotPassed("standard input is not a socket");
    let stdin = std::io::stdin();
    if getsockopt(&stdin, sockopt::SockType).is_err() {
        return Err(NO_SOCKET);
    }
    stdin.as_fd().try_clone_to_owned().map(TcpStream::from).map_err(|_| NO_SOCKET)
}

/// Under inetd the standard streams are the connection too, and nothing that a library prints may
/// reach the client.
fn detach_standard_streams(connection: &TcpStream) {
    use nix::sys::stat::fstat;
    use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
    let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") else {
        return;
    };
    let inode = |fd: BorrowedFd<'_>| fstat(fd).map(|status| (status.st_dev, status.st_ino)).ok();
    let connected = inode(connection.as_fd());
    let _ = dup2_stdin(&null);
    if inode(std::io::stdout().as_fd()) == connected {
        let _ = dup2_stdout(&null);
    }
    if inode(std::io::stderr().as_fd()) == connected {
        let _ = dup2_stderr(&null);
    }
}

/// Sets what only a TCP connection has; others simply refuse.
fn tune(stream: &TcpStream) {
    // A reply is written at once, so there is nothing that Nagle's algorithm could collect.
    let _ = stream.set_nodelay(true);
    let _ = setsockopt(stream, sockopt::KeepAlive, &true);
    let _ = setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE);
    let _ = setsockopt(stream, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL);
    let _ = setsockopt(stream, sockopt::TcpKeepCount, &KEEPALIVE_PROBES);
    let _ = setsockopt(stream, sockopt::TcpUserTimeout, &USER_TIMEOUT);
}
