//! What the monitor lends to the worker for TLS: certificates, and all that is public of them.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

/// Octets that all of it may have …
const MAX_MATERIAL: usize = 1024 * 1024;
/// … and mostly has not: a chain has a few thousand.
const USUAL_MATERIAL: usize = 8 * 1024;

/// All that a worker needs for a handshake besides keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsMaterial {
    /// Certificates to show, the first one to those who ask for none of them.
    pub certificates: Vec<Certificate>,
    /// Whose certificates are accepted from clients; `None` for nobody's.
    pub clients: Option<ClientAuthorities>,
}

/// Whose certificates are accepted from clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAuthorities {
    /// Their own certificates: X.509 in DER.
    pub certificates: Vec<Vec<u8>>,
    /// Where in a client's certificate the user is named.
    pub user: NameIn,
}

/// A place in a certificate that names a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NameIn {
    /// The common name of the subject is the name of the user.
    CommonName,
    /// The mailbox of the e-mail address among the alternative names, without `@` and domain.
    Email,
}

/// A certificate whose key the monitor has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// X.509 in DER, the server's own first, then those that lead to a root.
    pub chain: Vec<Vec<u8>>,
    /// What its key can sign.
    pub key: KeyKind,
}

/// Kinds of keys that TLS servers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyKind {
    /// RSA, of 2048 bits or more.
    Rsa,
    /// ECDSA with curve P-256.
    EcdsaP256,
    /// ECDSA with curve P-384.
    EcdsaP384,
    /// ECDSA with curve P-521.
    EcdsaP521,
    /// Ed25519.
    Ed25519,
}

impl TlsMaterial {
    /// Writes it where another process can read it: it is longer than a packet may be.
    ///
    /// # Errors
    ///
    /// memfd_create(2)'s and write(2)'s; `InvalidInput` for more than 1 MiB.
    pub fn to_descriptor(&self) -> io::Result<OwnedFd> {
        // As long as it is: what is freed is wiped first, and a session is not to pay for a MiB of that.
        let encoded = postcard::to_extend(self, Vec::with_capacity(USUAL_MATERIAL))
            .ok()
            .filter(|encoded| encoded.len() <= MAX_MATERIAL)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let file = File::from(memfd_create(c"certificates", MFdFlags::MFD_CLOEXEC)?);
        file.write_all_at(&encoded, 0)?;
        Ok(file.into())
    }

    /// Reads what [`Self::to_descriptor`] wrote.
    ///
    /// # Errors
    ///
    /// `InvalidData` for something else, and pread(2)'s.
    pub fn from_descriptor(descriptor: OwnedFd) -> io::Result<Self> {
        let file = File::from(descriptor);
        let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let mut octets = vec![0; size.min(MAX_MATERIAL)];
        file.read_exact_at(&mut octets, 0)?;
        match postcard::take_from_bytes(&octets) {
            Ok((material, [])) => Ok(material),
            Ok(_) | Err(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn material(length: usize) -> TlsMaterial {
        let chain = vec![vec![1; 5000], vec![2; length]];
        let user = NameIn::Email;
        TlsMaterial {
            certificates: vec![Certificate { chain, key: KeyKind::EcdsaP384 }],
            clients: Some(ClientAuthorities { certificates: vec![vec![3; 100]], user }),
        }
    }

    #[test]
    fn material_arrives_as_it_was() {
        for sent in [TlsMaterial::default(), material(70_000)] {
            let received = TlsMaterial::from_descriptor(sent.to_descriptor().unwrap());
            assert_eq!(received.unwrap(), sent);
        }
    }

    #[test]
    fn nonsense_and_too_much_are_refused() {
        let file = File::from(memfd_create(c"nonsense", MFdFlags::MFD_CLOEXEC).unwrap());
        file.write_all_at(&[255; 40], 0).unwrap();
        assert!(TlsMaterial::from_descriptor(file.into()).is_err());
        let error = material(MAX_MATERIAL).to_descriptor().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
