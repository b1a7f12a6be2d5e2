//! CRC32C (CRC-32/ISCSI, RFC 3720 §12.1), the checksum of an FPDU (RFC 5044 §4.4).

use crc_fast::{CrcAlgorithm, Digest};

/// The CRC32C of `data`.
#[inline]
#[must_use]
pub fn crc32c(data: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(data)
}

/// A CRC32C over octets that lie in several places.
#[derive(Clone, Debug)]
pub struct Crc32c {
    digest: Digest,
}

impl Crc32c {
    /// The digest of nothing.
    #[inline]
    #[must_use]
    pub fn new() -> Self {
        Self { digest: Digest::new(CrcAlgorithm::Crc32Iscsi) }
    }

    /// Adds the octets that come next.
    #[inline]
    pub fn update(&mut self, data: &[u8]) {
        self.digest.update(data);
    }

    /// The CRC32C of all that was added.
    #[inline]
    #[must_use]
    pub fn finish(self) -> u32 {
        // The upper half of the 64-bit result is zero for a 32-bit algorithm.
        self.digest.finalize() as u32
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use proptest::prelude::*;

    /// The definition, one bit at a time: polynomial 0x1EDC6F41 reflected, all ones before and after.
    fn by_definition(data: &[u8]) -> u32 {
        let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        let crc =
            data.iter().fold(u32::MAX, |crc, octet| (0..8).fold(crc ^ u32::from(*octet), |crc, _| step(crc)));
        !crc
    }

    #[test]
    fn check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
    }

    /// RFC 3720 §B.4.
    #[test]
    fn iscsi_examples() {
        assert_eq!(crc32c(&[0x00; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let ascending: [u8; 32] = std::array::from_fn(|i| i as u8);
        assert_eq!(crc32c(&ascending), 0x46dd_794e);
        let descending: [u8; 32] = std::array::from_fn(|i| 31 - i as u8);
        assert_eq!(crc32c(&descending), 0x113f_db5c);
    }

    #[test]
    fn every_length_agrees_with_the_definition() {
        let data: Vec<u8> = (0..1200u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
        for len in 0..data.len() {
            assert_eq!(crc32c(&data[..len]), by_definition(&data[..len]), "{len} octets");
        }
    }

    proptest! {
        #[test]
        fn pieces_are_the_whole(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8)) {
            let mut digest = Crc32c::new();
            for piece in &pieces {
                digest.update(piece);
            }
            let whole = pieces.concat();
            prop_assert_eq!(digest.finish(), crc32c(&whole));
            prop_assert_eq!(crc32c(&whole), by_definition(&whole));
        }
    }
}
