//! The list of certificates that the monitor lends to the worker: all that is public of them.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

/// Octets that a list may have; a chain has a few thousand.
const MAX_LIST: usize = 1024 * 1024;

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

/// Writes a list where another process can read it. A list is longer than a packet may be.
///
/// # Errors
///
/// memfd_create(2)'s and write(2)'s; `InvalidInput` for a list of more than 1 MiB.
pub fn as_descriptor(list: &[Certificate]) -> io::Result<OwnedFd> {
    let mut octets = vec![0; MAX_LIST];
    let encoded = postcard::to_slice(list, &mut octets)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let file = File::from(memfd_create(c"certificates", MFdFlags::MFD_CLOEXEC)?);
    file.write_all_at(encoded, 0)?;
    Ok(file.into())
}

/// Reads what [`as_descriptor`] wrote.
///
/// # Errors
///
/// `InvalidData` for something else, and pread(2)'s.
pub fn from_descriptor(list: OwnedFd) -> io::Result<Vec<Certificate>> {
    let file = File::from(list);
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut octets = vec![0; size.min(MAX_LIST)];
    file.read_exact_at(&mut octets, 0)?;
    match postcard::take_from_bytes(&octets) {
        Ok((list, [])) => Ok(list),
        Ok(_) | Err(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_arrives_as_it_was() {
        let list = [
            Certificate { chain: vec![vec![1; 5000], vec![2; 70_000]], key: KeyKind::EcdsaP384 },
            Certificate { chain: vec![vec![3]], key: KeyKind::Rsa },
        ];
        assert_eq!(from_descriptor(as_descriptor(&list).unwrap()).unwrap(), list);
    }

    #[test]
    fn nonsense_is_refused() {
        let file = File::from(memfd_create(c"nonsense", MFdFlags::MFD_CLOEXEC).unwrap());
        file.write_all_at(&[255; 40], 0).unwrap();
        assert!(from_descriptor(file.into()).is_err());
        let huge = Certificate { chain: vec![vec![0; MAX_LIST]], key: KeyKind::Rsa };
        assert_eq!(as_descriptor(&[huge]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
