//! TLS 1.3 from the client's side.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme,
    StreamOwned,
};

/// What is asked for by SNI, and what tickets are kept for.
const SERVER_NAME: &str = "mail.example.org";

/// Octets taken from the socket at once: rustls by itself asks for 4 KiB at a time, and then it is
/// the client that is measured.
const ROOM: usize = 256 * 1024;

/// How a client begins TLS; with `resumed`, it keeps tickets.
#[derive(Clone)]
pub(crate) struct Tls(Arc<ClientConfig>);

/// An encrypted connection.
pub(crate) type Encrypted = StreamOwned<ClientConnection, Buffered>;

impl Tls {
    /// Without a store for tickets, or with one of its own.
    pub(crate) fn new(keeps_tickets: bool) -> io::Result<Self> {
        // The same work with every server: not each of them has the hybrid groups.
        let kx_groups = vec![kx_group::X25519];
        let provider = Arc::new(CryptoProvider { kx_groups, ..default_provider() });
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        config.resumption =
            if keeps_tickets { Resumption::in_memory_sessions(32) } else { Resumption::disabled() };
        Ok(Self(Arc::new(config)))
    }

    /// Does the handshake.
    pub(crate) fn begin(&self, socket: TcpStream) -> io::Result<Encrypted> {
        let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)?;
        let mut socket = Buffered(BufReader::with_capacity(ROOM, socket));
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        Ok(StreamOwned::new(tls, socket))
    }
}

/// What was agreed on, for servers to be compared that do the same.
pub(crate) fn agreed(tls: &ClientConnection) -> String {
    let suite = tls.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
    let group = tls.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name()));
    [suite, group].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Whether a ticket was taken.
pub(crate) fn is_resumed(tls: &ClientConnection) -> bool {
    tls.handshake_kind() == Some(HandshakeKind::Resumed)
}

/// A socket that is read in large pieces.
pub(crate) struct Buffered(BufReader<TcpStream>);

impl Read for Buffered {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.read(room)
    }
}

impl Write for Buffered {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes the certificate of any server, which is one of this host, but not a wrong signature.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
