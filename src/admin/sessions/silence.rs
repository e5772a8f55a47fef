//! For how long clients have been silent: the kernel knows it of each TCP connection (sock_diag(7)), so
//! that nothing has to be noted for each command.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// From linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h and linux/tcp.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLMSG_DONE: u16 = 3;
const NLMSG_ERROR: u16 = 2;
const IPPROTO_TCP: u8 = 6;
const INET_DIAG_INFO: u16 = 2;
/// Where things are: a message's header, an inet_diag_msg and its inode, a tcp_info's time.
const HEADER: usize = 16;
const SOCKET: usize = 72;
const INODE: usize = 68;
const LAST_DATA_RECEIVED: usize = 52;

/// States in which there is a peer: all but TIME_WAIT, CLOSE and LISTEN.
const CONNECTED: u32 = !(1 << 6 | 1 << 7 | 1 << 10);

/// The kernel fills no more than this at once.
const BUFFER: usize = 32 * 1024;

/// By the inode of each connection's socket, how long ago its peer sent something; to the millisecond.
///
/// # Errors
///
/// The kernel does not tell.
pub(super) fn of_all_connections() -> io::Result<HashMap<u64, Duration>> {
    let mut found = HashMap::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let family = u8::try_from(family as i32).unwrap_or_default();
        collect(family, &mut found)?;
    }
    Ok(found)
}

fn collect(family: u8, found: &mut HashMap<u64, Duration>) -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let protocol = SockProtocol::NetlinkSockDiag;
    let kernel = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    let to = NetlinkAddr::new(0, 0);
    sendto(kernel.as_raw_fd(), &request(family), &to, MsgFlags::empty())?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = recv(kernel.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((kind, body, behind)) = message(rest) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => return Err(io::ErrorKind::Unsupported.into()),
                _ => found.extend(connection(body)),
            }
            rest = behind;
        }
    }
}

/// A message with an inet_diag_req_v2: all sockets of this family, with their tcp_info.
fn request(family: u8) -> Vec<u8> {
    let mut request = Vec::new();
    request.extend_from_slice(&72_u32.to_ne_bytes());
    request.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    request.extend_from_slice(&[family, IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0]);
    request.extend_from_slice(&CONNECTED.to_ne_bytes());
    request.extend_from_slice(&[0; 48]);
    request
}

/// The first message: its type, what is in it, and what is behind it.
fn message(octets: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32_at(octets, 0)?).ok()?;
    let body = octets.get(HEADER..length)?;
    Some((u16_at(octets, 4)?, body, octets.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// An inet_diag_msg: the socket's inode, and how long its peer has been silent.
fn connection(octets: &[u8]) -> Option<(u64, Duration)> {
    let inode = u64::from(u32_at(octets, INODE)?);
    let mut rest = octets.get(SOCKET..)?;
    loop {
        let length = usize::from(u16_at(rest, 0)?);
        if u16_at(rest, 2)? == INET_DIAG_INFO {
            let silence = u32_at(rest.get(4..length)?, LAST_DATA_RECEIVED)?;
            return Some((inode, Duration::from_millis(silence.into())));
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
}

fn u16_at(octets: &[u8], at: usize) -> Option<u16> {
    octets.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(octets: &[u8], at: usize) -> Option<u32> {
    octets.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn inode(stream: &TcpStream) -> u64 {
        std::fs::metadata(format!("/proc/self/fd/{}", stream.as_raw_fd())).unwrap().ino()
    }

    #[test]
    fn silence_of_a_client_ends_when_it_says_something() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            std::thread::sleep(Duration::from_millis(300));
            let before = of_all_connections().unwrap()[&inode(&server)];
            client.write_all(b"NOOP\r\n").unwrap();
            let after = of_all_connections().unwrap()[&inode(&server)];
            assert!(before >= Duration::from_millis(300) && after < before, "{before:?} {after:?}");
        }
    }

    #[test]
    fn what_is_cut_off_anywhere_is_passed_over() {
        let mut body = vec![0; SOCKET];
        body[INODE..].copy_from_slice(&7_u32.to_ne_bytes());
        let attribute = |kind: u16, octets: &[u8]| {
            let length = u16::try_from(4 + octets.len()).unwrap();
            let mut all = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
            all.extend_from_slice(octets);
            all.resize(all.len().next_multiple_of(4), 0);
            all
        };
        let mut info = vec![0; LAST_DATA_RECEIVED];
        info.extend_from_slice(&1500_u32.to_ne_bytes());
        body.extend(attribute(9, b"odd"));
        body.extend(attribute(INET_DIAG_INFO, &info));
        assert_eq!(connection(&body), Some((7, Duration::from_millis(1500))));
        for length in 0..body.len() {
            assert_eq!(connection(&body[..length]), None, "{length}");
        }
        assert_eq!(connection(&vec![0; 1000]), None);
        let request = request(2);
        assert!(matches!(message(&request), Some((SOCK_DIAG_BY_FAMILY, _, &[]))));
        assert_eq!(message(&request[..71]), None);
    }
}
