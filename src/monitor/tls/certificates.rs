//! Certificates and their keys, as they are on disk.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use x509_cert::der::Decode;
use zeroize::{Zeroize, Zeroizing};

use crate::channel::{Certificate, KeyKind};
use crate::settings::{CertificateFiles, Settings};

/// What LoadCredential= in a unit is to call them, in pairs of the same name.
const CHAIN_CREDENTIAL: &str = "crt";
const KEY_CREDENTIAL: &str = "key";

/// The self-signed pair that Debian's package ssl-cert makes for each host.
const SNAKEOIL: [&str; 2] =
    ["/etc/ssl/certs/ssl-cert-snakeoil.pem", "/etc/ssl/private/ssl-cert-snakeoil.key"];

/// What is read of a file: certificates and keys have some thousand octets each.
const MAX_FILE: u64 = 256 * 1024;

/// More certificates than this are not looked at; a worker names one by a number of one octet.
const MAX_CERTIFICATES: usize = 200;

/// A certificate and its key, which fit each other.
pub(super) struct Pair {
    /// What a worker may know.
    pub(super) certificate: Certificate,
    /// What it may not.
    pub(super) key: Arc<dyn SigningKey>,
    /// The end of its validity.
    pub(super) expires: SystemTime,
    /// Where it came from.
    pub(super) files: CertificateFiles,
}

/// A certificate that cannot be used.
#[derive(Debug)]
pub(super) struct Unusable {
    /// The file with the trouble.
    path: PathBuf,
    /// What is wrong.
    reason: String,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

/// Where certificates are: those of the settings; or else the unit's credentials, from `directory`;
/// or else the pair that Debian makes for each host, if it did.
///
/// # Errors
///
/// The directory of credentials cannot be read.
pub(super) fn find(
    settings: &Settings,
    directory: Option<&Path>,
) -> io::Result<Vec<CertificateFiles>> {
    if let Some(certificates) = &settings.certificates {
        return Ok(certificates.clone());
    }
    let credentials = directory.map_or(Ok(Vec::new()), credentials)?;
    let [chain, key] = SNAKEOIL.map(PathBuf::from);
    Ok(match credentials.as_slice() {
        [] if chain.exists() => vec![CertificateFiles { chain, key }],
        _ => credentials,
    })
}

/// The pairs NAME.crt and NAME.key in a directory, in the order of their names.
fn credentials(directory: &Path) -> io::Result<Vec<CertificateFiles>> {
    let mut pairs = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let chain = entry?.path();
        if chain.extension().is_some_and(|extension| extension == CHAIN_CREDENTIAL) {
            let key = chain.with_extension(KEY_CREDENTIAL);
            pairs.push(CertificateFiles { chain, key });
        }
    }
    pairs.sort_unstable_by(|one, other| one.chain.cmp(&other.chain));
    Ok(pairs)
}

/// Reads them all: those that can be used now, and what is wrong with the others.
pub(super) fn load(files: &[CertificateFiles]) -> (Vec<Pair>, Vec<Unusable>) {
    let (mut usable, mut unusable) = (Vec::new(), Vec::new());
    for files in files.iter().take(MAX_CERTIFICATES) {
        match load_pair(files, SystemTime::now()) {
            Ok(pair) => usable.push(pair),
            Err(trouble) => unusable.push(trouble),
        }
    }
    (usable, unusable)
}

fn load_pair(files: &CertificateFiles, now: SystemTime) -> Result<Pair, Unusable> {
    let in_chain = |reason: String| Unusable { path: files.chain.clone(), reason };
    let in_key = |reason: String| Unusable { path: files.key.clone(), reason };
    let text = read(&files.chain).map_err(|error| in_chain(error.to_string()))?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| in_chain(format!("not a certificate in PEM: {error}")))?;
    let first =
        chain.first().ok_or_else(|| in_chain("there is no certificate in it".to_owned()))?;
    let parsed = x509_cert::Certificate::from_der(first)
        .map_err(|error| in_chain(format!("not an X.509 certificate: {error}")))?;
    let validity = parsed.tbs_certificate.validity;
    let expires = validity.not_after.to_system_time();
    if now > expires {
        return Err(in_chain(format!("expired on {}", validity.not_after)));
    }
    if now < validity.not_before.to_system_time() {
        return Err(in_chain(format!("not valid before {}", validity.not_before)));
    }
    let text = read(&files.key).map_err(|error| in_key(error.to_string()))?;
    let mut der = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|error| in_key(format!("not an unencrypted private key in PEM: {error}")))?;
    let key = any_supported_type(&der);
    der.zeroize();
    let key = key.map_err(|error| in_key(format!("not a key for TLS: {error}")))?;
    let kind =
        kind(&*key).ok_or_else(|| in_key("a kind of key that TLS does not know".to_owned()))?;
    let certified = CertifiedKey::new(chain, Arc::clone(&key));
    certified
        .keys_match()
        .map_err(|_| in_key(format!("not the key of {}", files.chain.display())))?;
    let chain = certified.cert.iter().map(|certificate| certificate.to_vec()).collect();
    Ok(Pair { certificate: Certificate { chain, key: kind }, key, expires, files: files.clone() })
}

/// The certificates of the authorities in a file, in DER.
pub(super) fn authorities(path: &Path) -> Result<Vec<Vec<u8>>, Unusable> {
    let found = read_certificates(path).and_then(|found| {
        if found.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(found) }
    });
    match found {
        Ok(found) => Ok(found.iter().map(|certificate| certificate.to_vec()).collect()),
        Err(reason) => Err(Unusable { path: path.to_owned(), reason }),
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path).map_err(|error| error.to_string())?;
    CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("not a certificate in PEM: {error}"))
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    use std::io::Read;
    let mut text = Zeroizing::new(Vec::with_capacity(16 * 1024));
    std::fs::File::open(path)?.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(text)
}

fn kind(key: &dyn SigningKey) -> Option<KeyKind> {
    [
        (SignatureScheme::RSA_PSS_SHA256, KeyKind::Rsa),
        (SignatureScheme::ECDSA_NISTP256_SHA256, KeyKind::EcdsaP256),
        (SignatureScheme::ECDSA_NISTP384_SHA384, KeyKind::EcdsaP384),
        (SignatureScheme::ECDSA_NISTP521_SHA512, KeyKind::EcdsaP521),
        (SignatureScheme::ED25519, KeyKind::Ed25519),
    ]
    .into_iter()
    .find(|(scheme, _)| key.choose_scheme(&[*scheme]).is_some())
    .map(|(_, kind)| kind)
}
