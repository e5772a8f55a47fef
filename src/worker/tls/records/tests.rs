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
