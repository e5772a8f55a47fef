//! CRC32c (RFC 4960 appendix B).

/// The polynomial, its lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// A checksum under way. Bit by bit: a header has some hundred octets, once a connection.
#[derive(Debug)]
pub(super) struct Crc32c(u32);

impl Default for Crc32c {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

impl Crc32c {
    pub(super) fn update(&mut self, octets: &[u8]) {
        for octet in octets {
            self.0 ^= u32::from(*octet);
            for _ in 0..8 {
                let carry = if self.0 & 1 == 1 { POLYNOMIAL } else { 0 };
                self.0 = self.0 >> 1 ^ carry;
            }
        }
    }

    pub(super) fn finish(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_rfc_3720() {
        let of = |octets: &[u8]| {
            let mut checksum = Crc32c::default();
            octets.chunks(5).for_each(|piece| checksum.update(piece));
            checksum.finish()
        };
        // RFC 3720 appendix B.4, in the order of octets that it is sent in there.
        assert_eq!(of(&[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(of(&[0xff; 32]).to_le_bytes(), [0x43, 0xab, 0xa8, 0x62]);
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(of(&ascending).to_le_bytes(), [0x4e, 0x79, 0xdd, 0x46]);
        assert_eq!(of(b"123456789"), 0xe306_9283);
    }
}
