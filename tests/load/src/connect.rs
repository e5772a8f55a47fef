//! Connections from one address or from many: there are servers that count how many come from each.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, SockFlag, SockType, SockaddrIn, setsockopt,
    sockopt::{IpBindAddressNoPort, ReceiveTimeout, SendTimeout},
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::options::Options;

/// Seconds that a server gets to take a connection, and for each reply: a run ends, whatever happens.
/// Linux itself would try to connect for two minutes.
const PATIENCE: i64 = 60;

/// All clients take turns with the addresses.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// From how many addresses connections come; from 0, the system's choice of one.
#[derive(Clone, Copy)]
pub(crate) struct Sources(u16);

impl Sources {
    pub(crate) fn of(options: &Options) -> io::Result<Self> {
        options.number("sources", 0).map(Self)
    }

    /// The next address, 127.1.0.0 and so on: all of 127.0.0.0/8 is this host.
    fn next(self) -> Option<SockaddrIn> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed).checked_rem(self.0)?;
        let [high, low] = number.to_be_bytes();
        Some(SockaddrIn::new(127, 1, high, low, 0))
    }
}

/// A connection to the port, from the next of the sources.
pub(crate) fn connect(port: u16, sources: Sources) -> io::Result<TcpStream> {
    let (family, kind) = (AddressFamily::Inet, SockType::Stream);
    let socket = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
    setsockopt(&socket, SendTimeout, &TimeVal::seconds(PATIENCE))?;
    if let Some(source) = sources.next() {
        // The port is found when it is known where to: one may be in use to several servers.
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket::bind(socket.as_raw_fd(), &source)?;
    }
    match socket::connect(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)) {
        Ok(()) => Ok(socket.into()),
        // What Linux says when the time is over.
        Err(Errno::EINPROGRESS) => Err(io::ErrorKind::TimedOut.into()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn connections_take_turns_with_the_addresses() -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let mut seen = Vec::new();
        for _ in 0..4 {
            let client = connect(port, Sources(2))?;
            assert_eq!(client.local_addr()?, listener.accept()?.1);
            seen.push(client.local_addr()?.ip());
        }
        assert_ne!(seen[0], seen[1]);
        assert_eq!(seen[..2], seen[2..]);
        Ok(())
    }
}
