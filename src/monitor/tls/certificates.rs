//! Certificates and their keys, as they are on disk.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use nix::libc;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{RootCertStore, SignatureScheme};
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

/// Octets that a file may have: certificates and keys have some thousand each.
const MAX_FILE: u64 = 256 * 1024;

/// More certificates than this are not looked at; a worker names one by a number of one octet.
const MAX_CERTIFICATES: usize = 200;

/// Octets that all chains may have, in DER. What a worker is handed has 1 MiB of room
/// ([`TlsMaterial`](crate::channel::TlsMaterial)), also for the authorities in one file in PEM, which have
/// three quarters of [`MAX_FILE`] in DER.
const MAX_CHAINS: usize = 768 * 1024;

/// Octets that a certificate may need besides its own, when it is handed over.
const OVERHEAD: usize = 8;

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
    let mut room = MAX_CHAINS;
    for files in files.iter().take(MAX_CERTIFICATES) {
        match load_pair(files, SystemTime::now()) {
            Ok(pair) => match room.checked_sub(size(&pair)) {
                Some(left) => {
                    room = left;
                    usable.push(pair);
                }
                None => {
                    let reason = "the certificates before it leave too little room, all chains \
                                  together may have 768 KiB";
                    unusable
                        .push(Unusable { path: files.chain.clone(), reason: reason.to_owned() });
                }
            },
            Err(trouble) => unusable.push(trouble),
        }
    }
    if let Some(first) = files.get(MAX_CERTIFICATES) {
        let others = files.len() - MAX_CERTIFICATES - 1;
        let reason = format!("this one and {others} more are above {MAX_CERTIFICATES}, the most");
        unusable.push(Unusable { path: first.chain.clone(), reason });
    }
    (usable, unusable)
}

/// Octets that a worker is handed of it.
fn size(pair: &Pair) -> usize {
    let chain = &pair.certificate.chain;
    chain.iter().map(|certificate| certificate.len() + OVERHEAD).sum::<usize>() + OVERHEAD
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
        .map_err(|_| in_key("not an unencrypted private key in PEM".to_owned()))?;
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

/// The certificates of the authorities in a file, in DER. All of them can be roots: a worker that
/// cannot use one could not offer TLS at all.
pub(super) fn authorities(path: &Path) -> Result<Vec<Vec<u8>>, Unusable> {
    let found = read_certificates(path);
    match found.and_then(|found| can_be_roots(&found).map(|()| found)) {
        Ok(found) => Ok(found.iter().map(|certificate| certificate.to_vec()).collect()),
        Err(reason) => Err(Unusable { path: path.to_owned(), reason }),
    }
}

fn can_be_roots(found: &[CertificateDer<'static>]) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for (authority, number) in found.iter().zip(1..) {
        let added = roots.add(authority.clone());
        added.map_err(|_| format!("certificate {number} in it is not that of an authority"))?;
    }
    if roots.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(()) }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path).map_err(|error| error.to_string())?;
    CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|_| "not a certificate in PEM".to_owned())
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    // A pipe that nobody writes to is empty, and not to be waited for.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let mut text = Zeroizing::new(Vec::with_capacity(16 * 1024));
    file.take(MAX_FILE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other("larger than 256 KiB"));
    }
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

#[cfg(test)]
pub(in crate::monitor) mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

    use super::*;
    use crate::channel::{ClientAuthorities, NameIn, TlsMaterial};

    /// Files that are gone when the test is over.
    pub(in crate::monitor) struct Files {
        directory: PathBuf,
        pub(in crate::monitor) files: CertificateFiles,
    }

    impl Files {
        pub(in crate::monitor) fn new(algorithm: &'static SignatureAlgorithm) -> Self {
            let key = KeyPair::generate_for(algorithm).unwrap();
            Self::with(&CertificateParams::default(), &key, &key)
        }

        /// A certificate of `signer`, and a key that may be another one.
        fn with(params: &CertificateParams, signer: &KeyPair, key: &KeyPair) -> Self {
            let certificate = params.clone().self_signed(signer).unwrap();
            let name = format!("popa3d-certificates-{:016x}", getrandom::u64().unwrap());
            let directory = std::env::temp_dir().join(name);
            std::fs::create_dir(&directory).unwrap();
            let files = CertificateFiles {
                chain: directory.join("popa3d.crt"),
                key: directory.join("popa3d.key"),
            };
            std::fs::write(&files.chain, certificate.pem()).unwrap();
            std::fs::write(&files.key, key.serialize_pem()).unwrap();
            Self { directory, files }
        }

        fn trouble(&self) -> String {
            let (usable, unusable) = load(std::slice::from_ref(&self.files));
            assert!(usable.is_empty());
            unusable[0].to_string()
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }

    #[test]
    fn kinds_of_keys_are_told_apart() {
        for (algorithm, kind) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, KeyKind::EcdsaP256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, KeyKind::EcdsaP384),
            (&rcgen::PKCS_ED25519, KeyKind::Ed25519),
            (&rcgen::PKCS_RSA_SHA256, KeyKind::Rsa),
        ] {
            let files = Files::new(algorithm);
            let pair = load_pair(&files.files, SystemTime::now()).unwrap();
            assert_eq!(pair.certificate.key, kind);
            assert_eq!(pair.certificate.chain.len(), 1);
        }
    }

    #[test]
    fn key_of_another_certificate_is_refused() {
        let [one, other] = [(); 2].map(|()| KeyPair::generate().unwrap());
        let files = Files::with(&CertificateParams::default(), &one, &other);
        assert!(files.trouble().contains("popa3d.key: not the key of"), "{}", files.trouble());
    }

    #[test]
    fn certificate_of_another_time_is_refused() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 2, 1);
        let files = Files::with(&params, &key, &key);
        assert!(files.trouble().contains("popa3d.crt: expired on 2020-02-01"));
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_578_700_000);
        assert!(load_pair(&files.files, then).is_ok());
        let earlier = load_pair(&files.files, SystemTime::UNIX_EPOCH);
        assert!(earlier.is_err_and(|error| error.reason.contains("not valid before 2020-01-01")));
    }

    #[test]
    fn files_that_are_something_else_are_named() {
        let files = Files::new(&rcgen::PKCS_ECDSA_P256_SHA256);
        let [chain, key] =
            [&files.files.chain, &files.files.key].map(|path| std::fs::read(path).unwrap());
        for (text, complaint) in
            [("", "no certificate"), ("-----BEGIN CERT", "not a certificate in PEM")]
        {
            std::fs::write(&files.files.chain, text).unwrap();
            assert!(files.trouble().contains(complaint), "{text}: {}", files.trouble());
        }
        std::fs::write(&files.files.chain, &chain).unwrap();
        std::fs::write(&files.files.key, &chain).unwrap();
        assert!(files.trouble().contains("popa3d.key: not an unencrypted private key"));
        std::fs::remove_file(&files.files.key).unwrap();
        assert!(files.trouble().contains("popa3d.key: No such file"));
        // Both in one file, as some programs want it.
        std::fs::write(&files.files.chain, [chain, key].concat()).unwrap();
        let both = CertificateFiles { key: files.files.chain.clone(), ..files.files.clone() };
        assert!(load_pair(&both, SystemTime::now()).is_ok());
    }

    #[test]
    fn credentials_come_in_pairs_and_in_order() {
        let files = Files::new(&rcgen::PKCS_ECDSA_P256_SHA256);
        std::fs::write(files.directory.join("a.crt"), "").unwrap();
        std::fs::write(files.directory.join("unrelated"), "").unwrap();
        let found = find(&Settings::default(), Some(&files.directory)).unwrap();
        let names: Vec<_> = found.iter().map(|it| it.chain.file_name().unwrap()).collect();
        assert_eq!(names, ["a.crt", "popa3d.crt"]);
        assert_eq!(found[1], files.files);
        let none = Settings { certificates: Some(Vec::new()), ..Settings::default() };
        assert!(find(&none, Some(&files.directory)).unwrap().is_empty());
    }

    #[test]
    fn authorities_are_all_usable_or_none_is() {
        let files = Files::new(&rcgen::PKCS_ECDSA_P256_SHA256);
        let path = &files.files.chain;
        let good = std::fs::read_to_string(path).unwrap();
        assert_eq!(authorities(path).unwrap().len(), 1);
        let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (text, complaint) in [
            (format!("{good}{bad}"), "certificate 2 in it is not that of an authority"),
            (String::new(), "no certificate in it"),
            (format!("{good}-----BEGIN CERT"), "not a certificate in PEM"),
        ] {
            std::fs::write(path, text).unwrap();
            let trouble = authorities(path).unwrap_err().to_string();
            assert!(trouble.contains(complaint), "{trouble}");
        }
    }

    #[test]
    fn what_is_too_much_is_told_and_what_is_not_can_be_handed_over() {
        let files = Files::new(&rcgen::PKCS_ECDSA_P256_SHA256);
        let (usable, unusable) = load(&vec![files.files.clone(); MAX_CERTIFICATES + 3]);
        assert_eq!((usable.len(), unusable.len()), (MAX_CERTIFICATES, 1));
        let told = unusable[0].to_string();
        assert!(told.contains("popa3d.crt: this one and 2 more are above 200"), "{told}");

        let one = std::fs::read_to_string(&files.files.chain).unwrap();
        let most = usize::try_from(MAX_FILE).unwrap() / one.len();
        std::fs::write(&files.files.chain, one.repeat(most)).unwrap();
        let (usable, unusable) = load(&vec![files.files.clone(); 6]);
        assert!(usable.len() > 3 && usable.len() + unusable.len() == 6, "{}", usable.len());
        assert!(unusable[0].to_string().contains("too little room"), "{}", unusable[0]);
        let authorities = authorities(&files.files.chain).unwrap();
        let clients = ClientAuthorities { certificates: authorities, user: NameIn::Email };
        let certificates = usable.into_iter().map(|pair| pair.certificate).collect();
        TlsMaterial { certificates, clients: Some(clients) }.to_descriptor().unwrap();

        std::fs::write(&files.files.chain, one.repeat(most + 1)).unwrap();
        assert!(files.trouble().contains("popa3d.crt: larger than 256 KiB"), "{}", files.trouble());
    }

    #[test]
    fn pipe_that_nobody_writes_to_is_no_reason_to_wait() {
        let files = Files::new(&rcgen::PKCS_ECDSA_P256_SHA256);
        std::fs::remove_file(&files.files.chain).unwrap();
        nix::unistd::mkfifo(&files.files.chain, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(files.trouble().contains("no certificate in it"), "{}", files.trouble());
    }
}
