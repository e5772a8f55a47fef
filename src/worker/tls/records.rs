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
            let UnbufferedStatus { discard, state, .. } = connection.process_tls_records(records);
            let is_done = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    let mut result = Ok(false);
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => plain.extend_from_slice(record.payload),
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
mod tests {
    use std::io::{Read as _, Write as _};

    use rustls::pki_types::PrivateKeyDer;
    use rustls::{AlertDescription, ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// Both ends, and how much of what the one sends the other receives at once.
    struct Pair {
        server: Records,
        client: ClientConnection,
        step: usize,
    }

    impl Pair {
        fn new(step: usize) -> Self {
            let mut pair = Self::before_handshake(step, b"pop3");
            while pair.server.is_handshaking() || pair.client.is_handshaking() {
                pair.send_to_server().unwrap();
                pair.send_to_client().unwrap();
            }
            pair
        }

        fn before_handshake(step: usize, protocol: &[u8]) -> Self {
            let made = rcgen::generate_simple_self_signed(["pop.example.org".to_owned()]).unwrap();
            let key = PrivateKeyDer::try_from(made.key_pair.serialize_der()).unwrap();
            let chain = vec![made.cert.der().clone()];
            let mut roots = RootCertStore::empty();
            roots.add(chain[0].clone()).unwrap();
            let mut config =
                ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
            config.alpn_protocols = vec![b"pop3".to_vec()];
            let server = Records::new(Arc::new(config)).unwrap();
            let mut config =
                ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
            config.alpn_protocols = vec![protocol.to_vec()];
            let name = "pop.example.org".try_into().unwrap();
            let client = ClientConnection::new(Arc::new(config), name).unwrap();
            Self { server, client, step }
        }

        fn send_to_server(&mut self) -> Result<(), rustls::Error> {
            let mut records = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut records).unwrap();
            }
            self.give(&records)
        }

        fn give(&mut self, records: &[u8]) -> Result<(), rustls::Error> {
            let mut rest = records;
            while !rest.is_empty() {
                let room = self.server.room().unwrap();
                let count = room.len().min(rest.len()).min(self.step);
                room[..count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                self.server.received(count)?;
            }
            Ok(())
        }

        /// Returns what the client has got.
        fn send_to_client(&mut self) -> Result<Vec<u8>, rustls::Error> {
            let mut records = self.server.outgoing();
            let mut got = Vec::new();
            while !records.is_empty() {
                self.client.read_tls(&mut records).unwrap();
                self.client.process_new_packets()?;
                // It says "later" when it has given what it has.
                let _ = self.client.reader().read_to_end(&mut got);
            }
            self.server.sent();
            Ok(got)
        }

        /// All that the server can take now.
        fn taken(&mut self) -> Vec<u8> {
            let mut all = Vec::new();
            let mut room = [0; 7];
            loop {
                match self.server.take(&mut room) {
                    0 => return all,
                    count => all.extend_from_slice(&room[..count]),
                }
            }
        }
    }

    #[test]
    fn both_directions_arrive_however_records_are_cut() {
        for step in [1, 5, 1000, usize::MAX] {
            let mut pair = Pair::new(step);
            for length in [1, 100, FRAGMENT, 3 * FRAGMENT + 1] {
                let text: Vec<u8> = (0..=250).cycle().take(length).collect();
                pair.server.encrypt(&text).unwrap();
                let got = pair.send_to_client().unwrap();
                assert!(got == text, "to the client, {length} octets, {step} at once");
                pair.client.writer().write_all(&text).unwrap();
                pair.send_to_server().unwrap();
                assert!(pair.taken() == text, "to the server, {length} octets, {step} at once");
            }
        }
    }

    #[test]
    fn goodbyes_are_told_and_heard() {
        let mut pair = Pair::new(usize::MAX);
        pair.client.writer().write_all(b"QUIT\r\n").unwrap();
        pair.client.send_close_notify();
        pair.send_to_server().unwrap();
        assert!(pair.server.is_closed());
        assert_eq!(pair.taken(), b"QUIT\r\n");
        // The other direction is still open.
        pair.server.encrypt(b"+OK\r\n").unwrap();
        pair.server.close().unwrap();
        assert_eq!(pair.send_to_client().unwrap(), b"+OK\r\n");
        assert_eq!(pair.client.reader().read(&mut [0]).unwrap(), 0, "no goodbye");
    }

    #[test]
    fn record_that_was_tampered_with_ends_the_connection_with_an_alert() {
        let mut pair = Pair::new(usize::MAX);
        pair.client.writer().write_all(b"DELE 1\r\n").unwrap();
        let mut record = Vec::new();
        pair.client.write_tls(&mut record).unwrap();
        *record.last_mut().unwrap() ^= 1;
        assert!(pair.give(&record).is_err());
        assert!(pair.taken().is_empty());
        let told = pair.send_to_client().unwrap_err();
        assert_eq!(told, rustls::Error::AlertReceived(AlertDescription::BadRecordMac));
    }

    #[test]
    fn client_of_another_protocol_is_told_so() {
        let mut pair = Pair::before_handshake(usize::MAX, b"http/1.1");
        assert!(pair.send_to_server().is_err());
        let told = pair.send_to_client().unwrap_err();
        assert_eq!(told, rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol));
    }

    #[test]
    fn what_was_received_is_wiped_once_it_is_taken() {
        let mut pair = Pair::new(usize::MAX);
        pair.client.writer().write_all(b"PASS open sesame\r\n").unwrap();
        pair.send_to_server().unwrap();
        assert!(pair.server.incoming.iter().all(|octet| *octet == 0));
        let mut room = [0; 16];
        assert_eq!(pair.server.take(&mut room), 16);
        assert_eq!(pair.server.plain, [&[0; 16][..], b"\r\n"].concat());
    }

    #[test]
    fn octets_that_are_no_record_are_refused_and_room_has_an_end() {
        let mut pair = Pair::new(usize::MAX);
        assert!(pair.give(b"NOOP\r\nNOOP\r\n").is_err());
        // The head of a record that is never completed.
        let mut pair = Pair::new(usize::MAX);
        pair.give(&[23, 3, 3, 0x40, 0]).unwrap();
        let mut room = 0;
        while let Ok(more) = pair.server.room() {
            let count = more.len();
            room += count;
            assert!(room <= MAX_ROOM);
            if pair.server.received(count).is_err() {
                break;
            }
        }
    }
}
