//! Packets with descriptors attached (SCM_RIGHTS, unix(7)).

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// Receives one packet from `socket` into `buffer`, with the descriptor that came along, if any.
///
/// Returns its length; 0 means that the other side is gone.
///
/// # Errors
///
/// recvmsg(2)'s, and `InvalidData` for a packet that is longer than `buffer` or brings more than
/// one descriptor; all that came along is closed then.
pub fn receive_packet(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<OwnedFd>)> {
    // Room for a second one, so that it is seen (and closed) instead of cut off by the kernel.
    let mut control = nix::cmsg_space!([std::os::fd::RawFd; 2]);
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
    for control in message.cmsgs()? {
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
