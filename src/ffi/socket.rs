//! Packets with descriptors attached (SCM_RIGHTS, unix(7)).

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// Descriptors that a packet can bring (SCM_MAX_FD, unix(7)).
const MOST: usize = 253;

/// Receives one packet from `socket` into `buffer`, with the descriptor that came along, if any.
///
/// Returns its length; 0 means that the other side is gone.
///
/// # Errors
///
/// recvmsg(2)'s, and `InvalidData` for a packet that is longer than `buffer` or brings more than
/// one descriptor; all that came along is closed then. Where this process can open no more descriptors, what
/// did arrive of several stays open, and the error is the same.
pub fn receive_packet(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<OwnedFd>)> {
    // Room for all that a packet can bring, so that they are seen (and closed): nix shows none of those
    // that arrived when the kernel had to cut others off.
    let mut control = nix::cmsg_space!([std::os::fd::RawFd; MOST]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Ok(message) => break message,
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    let mut descriptors = Vec::new();
    for control in message.cmsgs().map_err(|_| io::ErrorKind::InvalidData)? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            for number in numbers {
                // SAFETY: the kernel made this descriptor for this very packet and nothing else
                // in the process knows its number yet.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    let cut = message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
    if cut || descriptors.len() > 1 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((message.bytes, descriptors.pop()))
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use nix::fcntl::OFlag;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::socket::{ControlMessage, sendmsg};
    use nix::unistd::pipe2;

    use super::*;

    /// Whether the pipe has no writer left, once processes that other tests have forked are gone.
    fn is_closed(pipe: &OwnedFd) -> bool {
        let mut pipe = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
        poll(&mut pipe, PollTimeout::from(60_000_u16)) == Ok(1)
    }

    #[test]
    fn packet_with_more_than_one_descriptor_is_refused_and_all_of_them_are_closed() {
        for count in [2, 3, MOST] {
            let (ours, theirs) = UnixDatagram::pair().unwrap();
            let (reader, writer) = pipe2(OFlag::O_CLOEXEC).unwrap();
            let numbers = vec![writer.as_raw_fd(); count];
            let rights = [ControlMessage::ScmRights(&numbers)];
            let data = [IoSlice::new(b"x")];
            sendmsg::<()>(theirs.as_raw_fd(), &data, &rights, MsgFlags::empty(), None).unwrap();
            drop(writer);
            let error = receive_packet(ours.as_fd(), &mut [0; 10]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{count}");
            assert!(is_closed(&reader), "{count}");
        }
    }
}
