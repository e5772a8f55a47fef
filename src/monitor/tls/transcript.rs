//! What a server key signs in a TLS handshake, and nothing else.
//!
//! The worker asks for signatures, and whoever takes a worker over may ask for one of anything. A
//! signature of what has one of these two shapes is of no use outside of a handshake with this
//! very server.

use rustls::SignatureScheme;

/// RFC 8446 section 4.4.3: 64 spaces, this, and the hash of the handshake so far.
const CONTEXT: &[u8] = b"TLS 1.3, server CertificateVerify\0";
const SPACES: [u8; 64] = [b' '; 64];

/// Lengths of the hashes that TLS 1.3's suites use: SHA-256, SHA-384.
const HASHES: [usize; 2] = [32, 48];

/// RFC 8446 section 4.1.3: the last octets of the random number of a server that has TLS 1.3 and was
/// asked for TLS 1.2.
const DOWNGRADE: &[u8] = b"DOWNGRD\x01";

/// RFC 8422 section 5.4: ECCurveType `named_curve`.
const NAMED_CURVE: u8 = 3;

/// NamedGroup, and the length of its public keys.
const GROUPS: [(u16, usize); 3] = [(0x001d, 32), (0x0017, 65), (0x0018, 97)];

/// Whether `input` is what a server signs in a handshake, by `scheme`.
pub(super) fn is_to_be_signed(scheme: SignatureScheme, input: &[u8]) -> bool {
    match input.split_first_chunk::<64>() {
        Some((&SPACES, rest)) => !is_of_tls12_alone(scheme) && is_certificate_verify(rest),
        Some((randoms, params)) => randoms.ends_with(DOWNGRADE) && are_key_exchange(params),
        None => false,
    }
}

/// PKCS#1 v1.5 is for certificates alone in TLS 1.3 (RFC 8446 section 4.2.3).
fn is_of_tls12_alone(scheme: SignatureScheme) -> bool {
    use SignatureScheme as S;
    [S::RSA_PKCS1_SHA256, S::RSA_PKCS1_SHA384, S::RSA_PKCS1_SHA512].contains(&scheme)
}

fn is_certificate_verify(behind_spaces: &[u8]) -> bool {
    behind_spaces.strip_prefix(CONTEXT).is_some_and(|hash| HASHES.contains(&hash.len()))
}

/// ServerECDHParams of RFC 8422 section 5.4, behind both random numbers.
fn are_key_exchange(params: &[u8]) -> bool {
    let [NAMED_CURVE, high, low, length, public_key @ ..] = params else { return false };
    let group = u16::from_be_bytes([*high, *low]);
    public_key.len() == usize::from(*length) && GROUPS.contains(&(group, public_key.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate_verify(hash: usize) -> Vec<u8> {
        [&SPACES[..], CONTEXT, &vec![7; hash]].concat()
    }

    fn key_exchange(group: u16, length: usize) -> Vec<u8> {
        let [high, low] = group.to_be_bytes();
        let head = [NAMED_CURVE, high, low, u8::try_from(length).unwrap()];
        [&[9; 32][..], &[9; 24], DOWNGRADE, &head, &vec![4; length]].concat()
    }

    #[test]
    fn both_shapes_are_signed() {
        for hash in HASHES {
            assert!(is_to_be_signed(SignatureScheme::RSA_PSS_SHA256, &certificate_verify(hash)));
        }
        for (group, length) in GROUPS {
            let input = key_exchange(group, length);
            assert!(is_to_be_signed(SignatureScheme::RSA_PKCS1_SHA256, &input));
            assert!(is_to_be_signed(SignatureScheme::ED25519, &input));
        }
    }

    #[test]
    fn anything_else_is_not() {
        let scheme = SignatureScheme::ECDSA_NISTP256_SHA256;
        let not_signed = |input: &[u8]| assert!(!is_to_be_signed(scheme, input), "{input:?}");
        not_signed(b"");
        not_signed(b"please sign this");
        not_signed(&[0; 32]);
        not_signed(&[b' '; 64]);
        not_signed(&[b' '; 200]);
        let verify = certificate_verify(32);
        not_signed(&verify[1..]);
        not_signed(&[&verify[..], b"x"].concat());
        not_signed(&certificate_verify(31));
        not_signed(&verify.iter().map(u8::to_ascii_lowercase).collect::<Vec<_>>());
        // What a client signs.
        let text = String::from_utf8_lossy(&verify).replace("server", "client");
        not_signed(text.as_bytes());
        let exchange = key_exchange(0x1d, 32);
        not_signed(&exchange[..exchange.len() - 1]);
        not_signed(&[&exchange[..], b"x"].concat());
        not_signed(&key_exchange(0x1d, 65));
        not_signed(&key_exchange(0x0100, 32));
        // The random number of a server without TLS 1.3, which this one is not.
        let mut other = exchange;
        other[63] ^= 1;
        not_signed(&other);
    }

    #[test]
    fn tls13_does_not_sign_with_pkcs1() {
        assert!(!is_to_be_signed(SignatureScheme::RSA_PKCS1_SHA256, &certificate_verify(32)));
    }
}
