//! TLS on a connection: records in, octets out, and the other way round. Without any I/O.
//!
//! The buffers are our own, and rustls works in them, because what a client sends has to be wiped:
//! it may be a password.

use std::io;
use std::ops::Deref;
use std::sync::Arc;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, ServerConfig};
use zeroize::Zeroize;

/// What the buffer for records begins with; commands are short.
const FIRST_ROOM: usize = 4 * 1024;

/// And what it may grow to: a handshake message of 2^16 octets, in its records (RFC 8446 sections
/// 4 and 5.1).
const MAX_ROOM: usize = 72 * 1024;

/// What encryption adds to a record of 2^14 octets, at most, and some more (RFC 8446 section 5.2).
const OVERHEAD: usize = 64;
const FRAGMENT: usize = 16 * 1024;

/// One end of a TLS connection.
pub(in crate::worker) struct Records {
    connection: UnbufferedServerConnection,
    /// Records as they came.
    incoming: Vec<u8>,
    /// How much of `incoming` is still to be processed.
    filled: usize,
    /// What was in them.
    plain: Vec<u8>,
    /// How much of `plain` was taken.
    taken: usize,
    /// Records to be sent.
    outgoing: Vec<u8>,
    is_closed: bool,
}

impl Records {
    pub(in crate::worker) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(config)?,
            incoming: vec![0; FIRST_ROOM],
            filled: 0,
            plain: Vec::new(),
            taken: 0,
            outgoing: Vec::new(),
            is_closed: false,
        })
    }

    /// Room for octets from the network; never empty.
    ///
    /// # Errors
    ///
    /// The client sends more than any message of TLS has.
    pub(in crate::worker) fn room(&mut self) -> io::Result<&mut [u8]> {
        if self.filled == self.incoming.len() {
            if self.filled >= MAX_ROOM {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.incoming.resize((2 * self.filled).min(MAX_ROOM), 0);
        }
        Ok(self.incoming.get_mut(self.filled..).unwrap_or_default())
    }

    /// Takes `count` octets, written into [`Self::room`], as received.
    ///
    /// # Errors
    ///
    /// They are not what TLS allows. What is to be sent then tells the client.
    pub(in crate::worker) fn received(&mut self, count: usize) -> Result<(), rustls::Error> {
        self.filled = self.incoming.len().min(self.filled + count);
        let result = self.process(&Job::Read);
        if result.is_err() {
            self.encode_alert();
        }
        result
    }

    /// Takes the alert that an error left behind, and what is to be sent before it, and goes no
    /// further: rustls would come to the same error again.
    fn encode_alert(&mut self) {
        while self.connection.wants_write() {
            let records = self.incoming.get_mut(..self.filled).unwrap_or_default();
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(records);
            let Ok(ConnectionState::EncodeTlsData(mut data)) = state else { return };
            encode(&mut data, &mut self.outgoing);
        }
    }

    /// Moves decrypted octets to `room`, and returns how many.
    pub(in crate::worker) fn take(&mut self, room: &mut [u8]) -> usize {
        let waiting = self.plain.get_mut(self.taken..).unwrap_or_default();
        let count = waiting.len().min(room.len());
        for (to, from) in room.iter_mut().zip(waiting) {
            // What was there is wiped.
            *to = std::mem::take(from);
        }
        self.taken += count;
        if self.taken == self.plain.len() {
            self.plain.clear();
            self.taken = 0;
        }
        count
    }

    /// Whether the client has said that nothing more will come.
    pub(in crate::worker) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Encrypts `octets`, to be sent.
    ///
    /// # Errors
    ///
    /// The connection is broken.
    pub(in crate::worker) fn encrypt(&mut self, octets: &[u8]) -> Result<(), rustls::Error> {
        self.process(&Job::Encrypt(octets))
    }

    /// Says goodbye: nothing more will be sent.
    ///
    /// # Errors
    ///
    /// The connection is broken.
    pub(in crate::worker) fn close(&mut self) -> Result<(), rustls::Error> {
        self.process(&Job::Close)
    }

    /// Records that are to be sent.
    pub(in crate::worker) fn outgoing(&self) -> &[u8] {
        &self.outgoing
    }

    /// They were.
    pub(in crate::worker) fn sent(&mut self) {
        self.outgoing.clear();
    }

    /// Goes on as far as that is possible with what was received, then does `job`.
    fn process(&mut self, job: &Job<'_>) -> Result<(), rustls::Error> {
        let Self { connection, incoming, filled, plain, outgoing, is_closed, .. } = self;
        loop {
            let records = incoming.get_mut(..*filled).unwrap_or_default();
            let UnbufferedStatus { mut discard, state, .. } =
                connection.process_tls_records(records);
            let is_done = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    let mut result = Ok(false);
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                plain.extend_from_slice(record.payload);
                                discard += record.discard;
                            }
                            Err(error) => result = Err(error),
                        }
                    }
                    result
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut data, outgoing);
                    Ok(false)
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    // The caller sends before it waits for anything.
                    data.done();
                    Ok(false)
                }
                Ok(ConnectionState::PeerClosed) => {
                    *is_closed = true;
                    Ok(false)
                }
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    job.write(&mut traffic, outgoing).map(|()| true)
                }
                Ok(
                    ConnectionState::BlockedHandshake
                    | ConnectionState::Closed
                    | ConnectionState::ReadEarlyData(_)
                    | _,
                ) => Ok(true),
                Err(error) => Err(error),
            };
            let left = filled.saturating_sub(discard);
            incoming.copy_within((*filled - left)..*filled, 0);
            if let Some(behind) = incoming.get_mut(left..*filled) {
                behind.zeroize();
            }
            *filled = left;
            if is_done? {
                return Ok(());
            }
        }
    }
}

impl Deref for Records {
    type Target = CommonState;

    fn deref(&self) -> &CommonState {
        &self.connection
    }
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Records")
    }
}

/// What to do once it is possible.
enum Job<'a> {
    /// Nothing but what was received asks for.
    Read,
    Encrypt(&'a [u8]),
    Close,
}

impl Job<'_> {
    fn write(
        &self,
        traffic: &mut WriteTraffic<'_, ServerConnectionData>,
        outgoing: &mut Vec<u8>,
    ) -> Result<(), rustls::Error> {
        let before = outgoing.len();
        let written = match self {
            Self::Read => return Ok(()),
            Self::Encrypt(octets) => {
                let records = octets.len().div_ceil(FRAGMENT);
                outgoing.resize(before + octets.len() + records * OVERHEAD, 0);
                traffic.encrypt(octets, outgoing.get_mut(before..).unwrap_or_default())
            }
            Self::Close => {
                outgoing.resize(before + OVERHEAD, 0);
                traffic.queue_close_notify(outgoing.get_mut(before..).unwrap_or_default())
            }
        };
        outgoing.truncate(before + written.as_ref().copied().unwrap_or_default());
        match written {
            Ok(_) => Ok(()),
            Err(EncryptError::EncryptExhausted | EncryptError::InsufficientSize(_)) => {
                Err(rustls::Error::EncryptError)
            }
        }
    }
}

fn encode(data: &mut EncodeTlsData<'_, ServerConnectionData>, outgoing: &mut Vec<u8>) {
    let before = outgoing.len();
    let mut room = OVERHEAD;
    loop {
        outgoing.resize(before + room, 0);
        match data.encode(outgoing.get_mut(before..).unwrap_or_default()) {
            Ok(count) => return outgoing.truncate(before + count),
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                room = required_size;
            }
            Err(EncodeError::AlreadyEncoded) => return outgoing.truncate(before),
        }
    }
}

#[cfg(test)]
mod tests;
