//! TLS as the worker speaks it: everything but the private keys and the keys of tickets, which the
//! monitor has.

mod records;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SignatureAlgorithm, SignatureScheme};
use webpki::EndEntityCert;
use x509_cert::der::Decode;
use x509_cert::der::asn1::{Any, ObjectIdentifier, PrintableStringRef, Utf8StringRef};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::channel::{
    Answer, Certificate, ClientAuthorities, KeyKind, MAX_TICKET, NameIn, Request, Secret,
    TlsMaterial, ToMonitor,
};

pub(super) use records::Records;

/// The protocol's name in ALPN (RFC 7301): a client that wants to talk to a web server here, because
/// somebody led it astray, is turned away.
const ALPN: &[u8] = b"pop3";

/// The attribute commonName (RFC 4519 section 2.3).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Seconds that a client may keep a ticket.
const TICKET_LIFETIME: u32 = 6 * 3600;

/// Tickets of one client that are looked at; who has more begins anew.
const MAX_OPENED: u32 = 8;

/// Has the cryptographic library open and map whatever it wants, while that is allowed.
pub(super) fn prepare() {
    let _ = aws_lc_rs::rand::fill(&mut [0; 16]);
}

/// How this server speaks TLS with one client.
pub(super) struct Setup {
    pub(super) config: Arc<ServerConfig>,
    /// How certificates of clients are judged; `None` when none is wanted.
    clients: Option<Clients>,
    /// The host that the client asks for, once it did.
    pub(super) server_name: Arc<OnceLock<String>>,
}

/// Prepares for a handshake with what the monitor lends.
///
/// # Errors
///
/// Says what is wrong with the certificates.
pub(super) fn set_up(material: OwnedFd, monitor: &Arc<ToMonitor>) -> Result<Setup, String> {
    let TlsMaterial { certificates, clients } = TlsMaterial::from_descriptor(material)
        .map_err(|error| format!("certificates from the monitor: {error}"))?;
    let provider = Arc::new(CryptoProvider {
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        ..default_provider()
    });
    let lent = certificates.into_iter().zip(0..).map(|(it, place)| lend(it, place, monitor));
    let server_name = Arc::new(OnceLock::new());
    let resolver = Certificates { lent: lent.collect(), server_name: Arc::clone(&server_name) };
    let clients = clients.map(|clients| Clients::new(clients, &provider)).transpose()?;
    let verifier = match &clients {
        Some(clients) => Arc::clone(&clients.verifier),
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::new(Tickets { monitor: Arc::clone(monitor), opened: 0.into() });
    config.send_tls13_tickets = 1;
    Ok(Setup { config: Arc::new(config), clients, server_name })
}

impl Setup {
    /// The user whom the client's certificates name, its own first; `None` when it showed none.
    pub(super) fn user(&self, shown: &[CertificateDer<'_>]) -> Option<String> {
        self.clients.as_ref()?.user(shown)
    }
}

/// How certificates of clients are judged.
struct Clients {
    verifier: Arc<dyn ClientCertVerifier>,
    named_in: NameIn,
}

impl Clients {
    /// Clients may show a certificate, and those without one have a password.
    fn new(clients: ClientAuthorities, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for authority in clients.certificates {
            roots.add(authority.into()).map_err(|error| format!("client-certificates: {error}"))?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .allow_unauthenticated()
                .build()
                .map_err(|error| format!("client-certificates: {error}"))?;
        Ok(Self { verifier, named_in: clients.user })
    }

    /// A session that was resumed brings its certificates along in the ticket, and nobody has looked
    /// at them since: they may have expired, or their authority may not be trusted any more.
    fn user(&self, shown: &[CertificateDer<'_>]) -> Option<String> {
        let (own, others) = shown.split_first()?;
        self.verifier.verify_client_cert(own, others, UnixTime::now()).ok()?;
        user(own, self.named_in)
    }
}

/// The user that a client's certificate, in DER, names at this place; `None` when it names nobody
/// there, or more than one.
fn user(certificate: &[u8], place: NameIn) -> Option<String> {
    let certificate = x509_cert::Certificate::from_der(certificate).ok()?.tbs_certificate;
    let mut names: Vec<String> = match place {
        NameIn::CommonName => {
            let attributes = certificate.subject.0.iter().flat_map(|part| part.0.iter());
            attributes
                .filter(|attribute| attribute.oid == COMMON_NAME)
                .filter_map(|attribute| text(&attribute.value))
                .collect()
        }
        NameIn::Email => {
            let (_, names) = certificate.get::<SubjectAltName>().ok()??;
            let addresses = names.0.iter().filter_map(|name| match name {
                GeneralName::Rfc822Name(address) => Some(address.as_str()),
                GeneralName::OtherName(_)
                | GeneralName::DnsName(_)
                | GeneralName::DirectoryName(_)
                | GeneralName::EdiPartyName(_)
                | GeneralName::UniformResourceIdentifier(_)
                | GeneralName::IpAddress(_)
                | GeneralName::RegisteredId(_) => None,
            });
            addresses.filter_map(|address| Some(address.rsplit_once('@')?.0.to_owned())).collect()
        }
    };
    let name = names.pop()?;
    (names.is_empty() && !name.is_empty()).then_some(name)
}

/// The text of a name's attribute (RFC 5280 section 4.1.2.4), in one of the kinds that are in use.
fn text(value: &Any) -> Option<String> {
    let utf8 = value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned());
    let printable = || value.decode_as::<PrintableStringRef<'_>>().map(|text| text.to_string());
    utf8.or_else(|_| printable()).ok()
}

fn lend(certificate: Certificate, place: u8, monitor: &Arc<ToMonitor>) -> Arc<CertifiedKey> {
    let chain = certificate.chain.into_iter().map(CertificateDer::from).collect();
    let key = MonitorKey { monitor: Arc::clone(monitor), place, kind: certificate.key };
    Arc::new(CertifiedKey::new(chain, Arc::new(key)))
}

/// All certificates, the first one for those who ask for none of them.
#[derive(Debug)]
struct Certificates {
    lent: Vec<Arc<CertifiedKey>>,
    server_name: Arc<OnceLock<String>>,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(name) = hello.server_name() {
            let _ = self.server_name.set(name.to_owned());
        }
        let schemes = hello.signature_schemes();
        let can_be_used = |it: &&Arc<CertifiedKey>| it.key.choose_scheme(schemes).is_some();
        let wanted = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let named = wanted
            .and_then(|name| self.lent.iter().filter(can_be_used).find(|it| is_for(it, &name)));
        named.or_else(|| self.lent.iter().find(can_be_used)).cloned()
    }
}

fn is_for(certified: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let certificate = certified.end_entity_cert().ok();
    certificate
        .and_then(|certificate| EndEntityCert::try_from(certificate).ok())
        .is_some_and(|certificate| certificate.verify_is_valid_for_subject_name(name).is_ok())
}

/// A key that the monitor has.
#[derive(Debug, Clone)]
struct MonitorKey {
    monitor: Arc<ToMonitor>,
    /// In the list of certificates.
    place: u8,
    kind: KeyKind,
}

impl SigningKey for MonitorKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = schemes(self.kind).iter().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(MonitorSigner { key: self.clone(), scheme: *scheme }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.kind {
            KeyKind::Rsa => SignatureAlgorithm::RSA,
            KeyKind::EcdsaP256 | KeyKind::EcdsaP384 | KeyKind::EcdsaP521 => {
                SignatureAlgorithm::ECDSA
            }
            KeyKind::Ed25519 => SignatureAlgorithm::ED25519,
        }
    }
}

/// How a key can sign, the best way first.
fn schemes(kind: KeyKind) -> &'static [SignatureScheme] {
    use SignatureScheme as S;
    match kind {
        KeyKind::Rsa => &[
            S::RSA_PSS_SHA256,
            S::RSA_PSS_SHA384,
            S::RSA_PSS_SHA512,
            S::RSA_PKCS1_SHA256,
            S::RSA_PKCS1_SHA384,
            S::RSA_PKCS1_SHA512,
        ],
        KeyKind::EcdsaP256 => &[S::ECDSA_NISTP256_SHA256],
        KeyKind::EcdsaP384 => &[S::ECDSA_NISTP384_SHA384],
        KeyKind::EcdsaP521 => &[S::ECDSA_NISTP521_SHA512],
        KeyKind::Ed25519 => &[S::ED25519],
    }
}

#[derive(Debug)]
struct MonitorSigner {
    key: MonitorKey,
    scheme: SignatureScheme,
}

impl Signer for MonitorSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let MonitorKey { monitor, place: certificate, .. } = &self.key;
        let (certificate, scheme) = (*certificate, self.scheme.into());
        let request = Request::Sign { certificate, scheme, input: message.to_vec() };
        let Some(Answer::Signature(signature)) = ask(monitor, &request) else {
            return Err(rustls::Error::General("no signature".to_owned()));
        };
        Ok(signature)
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

/// Tickets that only the monitor can make and read.
#[derive(Debug)]
struct Tickets {
    monitor: Arc<ToMonitor>,
    opened: AtomicU32,
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        TICKET_LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        // Room for what encryption adds.
        if plain.len() > MAX_TICKET - 100 {
            return None;
        }
        let answer = ask(&self.monitor, &Request::SealTicket(Secret::new(plain)));
        if let Some(Answer::SealedTicket(ticket)) = answer { ticket } else { None }
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let is_one_too_many = self.opened.fetch_add(1, Ordering::Relaxed) >= MAX_OPENED;
        if ticket.len() > MAX_TICKET || is_one_too_many {
            return None;
        }
        let answer = ask(&self.monitor, &Request::OpenTicket(ticket.to_vec()));
        let Some(Answer::OpenedTicket(state)) = answer else { return None };
        state.map(|state| state.expose().to_vec())
    }
}

fn ask(monitor: &ToMonitor, request: &Request) -> Option<Answer> {
    monitor.send(request, None).ok()?;
    match monitor.receive().ok()? {
        (answer, None) => Some(answer),
        (_, Some(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SanType};

    use super::*;

    fn named(common_names: &[&str], others: &[SanType], place: NameIn) -> Option<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in common_names {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.subject_alt_names = others.to_vec();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        user(certificate.der(), place)
    }

    fn email(address: &str) -> SanType {
        SanType::Rfc822Name(address.try_into().unwrap())
    }

    #[test]
    fn certificate_names_a_user_in_the_place_that_was_agreed_on() {
        let address = [email("alice@example.org"), SanType::DnsName("bob".try_into().unwrap())];
        assert_eq!(named(&["carol"], &address, NameIn::CommonName).as_deref(), Some("carol"));
        assert_eq!(named(&["carol"], &address, NameIn::Email).as_deref(), Some("alice"));
    }

    #[test]
    fn certificate_that_names_nobody_or_two_is_for_nobody() {
        assert_eq!(named(&[], &[], NameIn::CommonName), None);
        assert_eq!(named(&[""], &[], NameIn::CommonName), None);
        assert_eq!(named(&["carol"], &[], NameIn::Email), None);
        assert_eq!(named(&["carol"], &[email("alice")], NameIn::Email), None);
        assert_eq!(named(&["carol"], &[email("@example.org")], NameIn::Email), None);
        let two = [email("alice@example.org"), email("bob@example.org")];
        assert_eq!(named(&["carol"], &two, NameIn::Email), None);
        assert_eq!(user(b"no certificate", NameIn::CommonName), None);
    }

    #[test]
    fn certificate_from_a_ticket_names_nobody_once_it_is_not_valid_any_more() {
        let authority = || {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            (params.self_signed(&key).unwrap(), key)
        };
        let (trusted, key) = authority();
        let (other, _) = authority();
        let issued = |expires| {
            let mut params = CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, "alice");
            params.not_after = rcgen::date_time_ymd(expires, 1, 1);
            let issued = params.signed_by(&KeyPair::generate().unwrap(), &trusted, &key);
            issued.unwrap().der().clone()
        };
        let named_by = |root: &rcgen::Certificate, shown: &[CertificateDer<'_>]| {
            let certificates = vec![root.der().to_vec()];
            let clients = ClientAuthorities { certificates, user: NameIn::CommonName };
            Clients::new(clients, &Arc::new(default_provider())).unwrap().user(shown)
        };
        assert_eq!(named_by(&trusted, &[issued(4000)]).as_deref(), Some("alice"));
        assert_eq!(named_by(&trusted, &[issued(2020)]), None);
        assert_eq!(named_by(&other, &[issued(4000)]), None);
        assert_eq!(named_by(&trusted, &[]), None);
    }
}
