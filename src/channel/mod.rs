//! Typed messages between the processes of one session. Used by all of them.
//!
//! A channel is one end of a SOCK_SEQPACKET pair, so that a message is a packet: it arrives whole
//! or not at all. The type of an end says what it may send and what it expects. Decoding is total:
//! whatever the other side sends becomes a message or an error, never more than [`MAX_PACKET`]
//! octets, with nothing left over.

mod certificates;
mod inspection;
mod kept;
mod message;
mod secret;

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroize;

pub use certificates::{Certificate, ClientAuthorities, KeyKind, NameIn, TlsMaterial};
pub use inspection::{Oddity, Seen, SeenMessage};
pub use kept::{Found, KeptMessage, Look, MAX_HEADER, lacking_line_feeds};
pub use message::{
    Answer, Encryption, Ending, Expunged, MAX_EXPUNGED, MAX_MESSAGE_ID, MAX_NOTE, MAX_RANGES,
    MAX_REASON, MAX_TICKET, Memory, Method, News, NotRemembered, Order, Outcome, ProxyTls, Range,
    Recovery, Refusal, Report, Request, Totals, Trouble, Verdict,
};
pub use secret::Secret;

use crate::ffi::socket::receive_packet;

/// Longest packet, in octets.
pub const MAX_PACKET: usize = 4 * 1024;

/// One end of a channel: sends `Out`, receives `In`.
#[derive(Debug)]
pub struct Channel<Out, In> {
    socket: OwnedFd,
    /// Packets are built and taken apart here, and wiped after: they carry passwords.
    buffer: Mutex<Box<[u8]>>,
    types: PhantomData<(Out, In)>,
}

/// The monitor's end towards the worker.
pub type ToWorker = Channel<Answer, Request>;
/// The worker's end.
pub type ToMonitor = Channel<Request, Answer>;
/// The monitor's end towards an as-user helper.
pub type ToHelper = Channel<Order, Report>;
/// The helper's end.
pub type FromHelper = Channel<Report, Order>;
/// The end towards the process that reads what is kept.
pub type ToReader = Channel<Look, Found>;
/// That process's end.
pub type FromReader = Channel<Found, Look>;
/// The end of whoever shows a mailbox towards the process that reads it, which is told nothing.
pub type ToInspector = Channel<(), Seen>;
/// The end of the process that reads it.
pub type FromInspector = Channel<Seen, ()>;
/// The listener's end towards a session.
pub type ToSession = Channel<Verdict, News>;
/// The session's end, which its monitor has.
pub type ToListener = Channel<News, Verdict>;

/// Makes both ends of a channel.
///
/// # Errors
///
/// socketpair(2)'s.
pub fn pair<A, B>() -> io::Result<(Channel<A, B>, Channel<B, A>)>
where
    A: Serialize + DeserializeOwned,
    B: Serialize + DeserializeOwned,
{
    let flags = SockFlag::SOCK_CLOEXEC;
    let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    Ok((Channel::new(one), Channel::new(other)))
}

impl<Out: Serialize, In: DeserializeOwned> Channel<Out, In> {
    /// The end of a channel whose other end another program made.
    #[must_use]
    pub fn of(socket: OwnedFd) -> Self {
        Self::new(socket)
    }

    fn new(socket: OwnedFd) -> Self {
        let buffer = Mutex::new(vec![0; MAX_PACKET].into_boxed_slice());
        Self { socket, buffer, types: PhantomData }
    }

    /// Sends `message`, with `descriptor` attached if there is one, when there is room for it: that waits
    /// for the other side for as long as it takes.
    ///
    /// # Errors
    ///
    /// sendmsg(2)'s, such as `BrokenPipe` when the other side is gone; `InvalidInput` for a message
    /// that does not fit into a packet.
    pub fn send(&self, message: &Out, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.send_with(MsgFlags::empty(), message, descriptor)
    }

    /// The same for another side that may not be well: there is room after `limit`, or never. A limit of
    /// zero is not to wait at all.
    ///
    /// # Errors
    ///
    /// `TimedOut`, and those of [`Self::send`].
    pub fn send_within(
        &self,
        limit: Duration,
        message: &Out,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            match self.send_with(MsgFlags::MSG_DONTWAIT, message, descriptor) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    await_room(&self.socket, deadline)?;
                }
                sent => return sent,
            }
        }
    }

    fn send_with(
        &self,
        flags: MsgFlags,
        message: &Out,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let mut buffer = self.buffer();
        match postcard::to_slice(message, &mut buffer) {
            Ok(packet) => {
                let sent = send_packet(&self.socket, flags, packet, descriptor);
                packet.zeroize();
                sent
            }
            Err(_) => {
                buffer.zeroize();
                Err(io::ErrorKind::InvalidInput.into())
            }
        }
    }

    /// Waits for the next message.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when the other side is gone, `InvalidData` for a packet that is no message
    /// of this channel, and recvmsg(2)'s.
    pub fn receive(&self) -> io::Result<(In, Option<OwnedFd>)> {
        let mut buffer = self.buffer();
        let (length, descriptor) = receive_packet(self.socket.as_fd(), &mut buffer)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let decoded = buffer.get(..length).map(postcard::take_from_bytes);
        let message = match decoded {
            Some(Ok((message, []))) => Ok((message, descriptor)),
            Some(Ok(_) | Err(_)) | None => Err(io::ErrorKind::InvalidData.into()),
        };
        if let Some(packet) = buffer.get_mut(..length) {
            packet.zeroize();
        }
        message
    }

    fn buffer(&self) -> MutexGuard<'_, Box<[u8]>> {
        // Whoever held it left nothing behind that the next one minds.
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Out, In> AsFd for Channel<Out, In> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn send_packet(
    socket: &OwnedFd,
    flags: MsgFlags,
    packet: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let numbers = descriptor.map(|descriptor| [descriptor.as_raw_fd()]);
    let rights = numbers.as_ref().map(|numbers| [ControlMessage::ScmRights(numbers)]);
    let control: &[ControlMessage<'_>] = rights.as_ref().map_or(&[], |rights| rights);
    loop {
        let parts = [io::IoSlice::new(packet)];
        let flags = flags | MsgFlags::MSG_NOSIGNAL;
        match sendmsg::<()>(socket.as_raw_fd(), &parts, control, flags, None) {
            Ok(_) => return Ok(()),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until the other side has read enough.
fn await_room(socket: &OwnedFd, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    // Rounded up to whole milliseconds: waking early would spin.
    let left = left.saturating_add(Duration::from_micros(999));
    let limit = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)], limit) {
        Ok(_) | Err(nix::Error::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(channel: &impl AsFd, packet: &[u8]) {
        let sent = nix::sys::socket::send(
            channel.as_fd().as_raw_fd(),
            packet,
            nix::sys::socket::MsgFlags::empty(),
        );
        assert_eq!(sent, Ok(packet.len()));
    }

    #[test]
    fn message_and_descriptor_arrive_together() {
        let (monitor, worker): (ToWorker, ToMonitor) = pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        monitor
            .send(
                &Answer::Maildrop { fingerprint_key: 7, remembered: Memory::Empty },
                Some(file.as_fd()),
            )
            .unwrap();
        let (answer, descriptor) = worker.receive().unwrap();
        assert_eq!(answer, Answer::Maildrop { fingerprint_key: 7, remembered: Memory::Empty });
        assert!(descriptor.is_some());
    }

    #[test]
    fn password_is_gone_from_the_buffer_after_sending_and_receiving() {
        let (worker, monitor): (ToMonitor, ToWorker) = pair().unwrap();
        let login = Request::Login {
            user: b"alice".to_vec(),
            password: Secret::new(b"open sesame"),
            method: Method::UserPass,
        };
        worker.send(&login, None).unwrap();
        monitor.receive().unwrap();
        for buffer in [&worker.buffer, &monitor.buffer] {
            assert!(buffer.lock().unwrap().iter().all(|octet| *octet == 0));
        }
    }

    #[test]
    fn packet_with_octets_left_over_is_refused() {
        let (worker, monitor): (ToMonitor, ToWorker) = pair().unwrap();
        let mut packet = postcard::to_slice(&Answer::Locked, &mut [0; 64]).unwrap().to_vec();
        packet.push(0);
        raw(&monitor, &packet);
        assert_eq!(worker.receive().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn no_packet_makes_the_monitor_do_more_than_refuse_it() {
        let (monitor, worker): (ToWorker, ToMonitor) = pair().unwrap();
        for first in 0..=255_u8 {
            for second in [0, 1, 127, 128, 255] {
                // A variant number, then lengths and numbers that promise far more than there is.
                raw(&worker, &[first, second, 255, 255, 255, 255, 255, 255, 255, 255, 127]);
                if let Ok((request, _)) = monitor.receive() {
                    assert!(std::mem::size_of_val(&request) < MAX_PACKET);
                }
            }
        }
        raw(&worker, &[0; MAX_PACKET + 1]);
        assert_eq!(monitor.receive().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn end_of_the_other_side_is_an_error_not_a_message() {
        let (monitor, worker): (ToWorker, ToMonitor) = pair().unwrap();
        drop(worker);
        assert_eq!(monitor.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn other_side_that_reads_nothing_is_waited_for_as_long_as_was_said() {
        let (monitor, worker): (ToWorker, ToMonitor) = pair().unwrap();
        let send = |limit| monitor.send_within(limit, &Answer::Locked, None);
        let full = std::iter::repeat_with(|| send(Duration::ZERO)).find_map(Result::err);
        assert_eq!(full.unwrap().kind(), io::ErrorKind::TimedOut);
        let limit = Duration::from_millis(20);
        let asked = Instant::now();
        assert_eq!(send(limit).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(asked.elapsed() >= limit);
        let reader = std::thread::spawn(move || while worker.receive().is_ok() {});
        send(Duration::from_secs(600)).unwrap();
        drop(monitor);
        reader.join().unwrap();
    }

    #[test]
    fn largest_messages_fit_into_a_packet() {
        let (worker, _monitor): (ToMonitor, ToWorker) = pair().unwrap();
        let range = Range { start: u64::MAX, end: u64::MAX };
        worker.send(&Request::Delete(vec![range; MAX_RANGES]), None).unwrap();
        let message = || Expunged {
            unique_id: "x".repeat(70),
            message_id: Some(vec![b'x'; MAX_MESSAGE_ID]),
            octets: u64::MAX,
        };
        let messages = std::iter::repeat_with(message).take(MAX_EXPUNGED).collect();
        worker.send(&Request::Expunged(messages), None).unwrap();
        worker.send(&Request::Remember("x".repeat(MAX_NOTE)), None).unwrap();
        worker.send(&Request::OpenTicket(vec![0; MAX_TICKET]), None).unwrap();
        worker.send(&Request::SealTicket(Secret::new(&[0; MAX_TICKET])), None).unwrap();
    }
}
