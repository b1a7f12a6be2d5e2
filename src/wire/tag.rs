//! The capability tag: sixteen octets behind the application's private data in an MPA request or reply, by which two
//! ends that use this library recognise each other. No RFC defines it; to any other peer it is private data.

use super::crc::Crc32c;
use super::mpa::{crc_from_wire, crc_to_wire};
use super::octets::Octets;

/// Octets of the tag.
pub const LEN: usize = 16;
/// The version of the tag that is written. Later versions keep the fields of earlier ones, so that all are read.
pub const VERSION: u8 = 1;

mod field {
    pub(super) const MAGIC: usize = 0;
    pub(super) const MAGIC_LOW: usize = 4;
    pub(super) const VERSION: usize = 6;
    pub(super) const REJECT_REASON: usize = 7;
    pub(super) const MAX_ULPDU: usize = 8;
    pub(super) const FLAGS: usize = 10;
    /// Over the application's private data and the tag up to here; little-endian, as the CRC of an FPDU.
    pub(super) const CRC: usize = 12;
}

const MAGIC: u32 = u32::from_be_bytes([0xd2, b'r', b'c', b'g']);
const MAGIC_LOW: u16 = u16::from_be_bytes([0x1a, 0xe7]);

/// Flag: the sender is a device, not this library's iWARP: it knows no RFC 7306, and frames have to suit it.
pub const FLAG_DEVICE: u16 = 1;

/// What one end that uses this library tells another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnTag {
    /// Most octets of a ULPDU that the sender of the tag takes.
    pub max_ulpdu: u16,
    /// What else it can do, as bits; unknown bits are to be ignored.
    pub flags: u16,
}

/// The tag as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Version of the tag, 1 or later.
    pub version: u8,
    /// In a reject: why. Otherwise 0.
    pub reject_reason: u8,
    /// What the sender can do.
    pub own: OwnTag,
}

impl Tag {
    /// A tag of the version that is written.
    #[must_use]
    pub const fn new(own: OwnTag, reject_reason: u8) -> Self {
        Self { version: VERSION, reject_reason, own }
    }

    /// Separates the application's private data from the tag behind it, if there is one. Data that merely ends like a
    /// tag does not have its CRC.
    #[must_use]
    pub fn split(private_data: &[u8]) -> (&[u8], Option<Self>) {
        let tagged = private_data.split_last_chunk::<LEN>();
        match tagged.and_then(|(user, octets)| Some((user, Self::parse(user, octets)?))) {
            Some((user, tag)) => (user, Some(tag)),
            None => (private_data, None),
        }
    }

    /// The same where a transport of fixed size has put zeros behind the tag, as InfiniBand's connection manager does.
    #[must_use]
    pub fn split_padded(private_data: &[u8]) -> (&[u8], Option<Self>) {
        let mut rest = private_data;
        loop {
            if let (user, Some(tag)) = Self::split(rest) {
                return (user, Some(tag));
            }
            match rest.split_last() {
                // The tag itself may end with zeros: look again at every length.
                Some((0, shorter)) => rest = shorter,
                _ => return (private_data, None),
            }
        }
    }

    /// Reads sixteen octets as the tag of this private data.
    fn parse(user: &[u8], octets: &[u8; LEN]) -> Option<Self> {
        let magic = (octets.get32::<{ field::MAGIC }>(), octets.get16::<{ field::MAGIC_LOW }>());
        let version = octets.get8::<{ field::VERSION }>();
        let crc = crc_from_wire(octets.get32::<{ field::CRC }>().to_be_bytes());
        if magic != (MAGIC, MAGIC_LOW) || version == 0 || crc != crc_of(user, octets) {
            return None;
        }
        let own = OwnTag {
            max_ulpdu: octets.get16::<{ field::MAX_ULPDU }>(),
            flags: octets.get16::<{ field::FLAGS }>(),
        };
        Some(Self { version, reject_reason: octets.get8::<{ field::REJECT_REASON }>(), own })
    }

    /// Writes the tag of this private data.
    pub fn emit(&self, user: &[u8], out: &mut [u8; LEN]) {
        out.put32::<{ field::MAGIC }>(MAGIC);
        out.put16::<{ field::MAGIC_LOW }>(MAGIC_LOW);
        out.put8::<{ field::VERSION }>(self.version);
        out.put8::<{ field::REJECT_REASON }>(self.reject_reason);
        out.put16::<{ field::MAX_ULPDU }>(self.own.max_ulpdu);
        out.put16::<{ field::FLAGS }>(self.own.flags);
        let crc = crc_of(user, out);
        out.put32::<{ field::CRC }>(u32::from_be_bytes(crc_to_wire(crc)));
    }
}

/// The CRC of private data and of the tag's fields before the CRC.
fn crc_of(user: &[u8], octets: &[u8; LEN]) -> u32 {
    let (fields, _) = octets.split_at(field::CRC);
    let mut crc = Crc32c::new();
    crc.update(user);
    crc.update(fields);
    crc.finish()
}

#[cfg(test)]
mod test {
    use super::*;
    use proptest::prelude::*;

    fn tagged(user: &[u8], tag: Tag) -> Vec<u8> {
        let mut octets = [0; LEN];
        tag.emit(user, &mut octets);
        [user, &octets].concat()
    }

    #[test]
    fn literal_octets() {
        let tag = Tag::new(OwnTag { max_ulpdu: 0xffe0, flags: 0x0103 }, 4);
        let octets = tagged(b"hello", tag);
        let expected = *b"hello\xd2rcg\x1a\xe7\x01\x04\xff\xe0\x01\x03";
        assert_eq!(octets[..17], expected);
        assert_eq!(octets[17..], crate::wire::crc::crc32c(&expected).to_le_bytes());
        assert_eq!(Tag::split(&octets), (&b"hello"[..], Some(tag)));
    }

    #[test]
    fn a_later_version_is_read_and_version_0_is_none() {
        let later = Tag { version: 9, ..Tag::new(OwnTag::default(), 0) };
        assert_eq!(Tag::split(&tagged(b"", later)), (&b""[..], Some(later)));
        let none = tagged(b"x", Tag { version: 0, ..later });
        assert_eq!(Tag::split(&none), (&none[..], None));
    }

    #[test]
    fn one_wrong_bit_makes_it_private_data() {
        let octets = tagged(b"data", Tag::new(OwnTag { max_ulpdu: 1, flags: 2 }, 3));
        for bit in 0..octets.len() * 8 {
            let mut wrong = octets.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Tag::split(&wrong), (&wrong[..], None));
        }
        for len in 0..octets.len() {
            assert_eq!(Tag::split(&octets[..len]), (&octets[..len], None));
        }
    }

    proptest! {
        #[test]
        fn round_trip(user in prop::collection::vec(any::<u8>(), 0..512), max_ulpdu: u16, flags: u16, reason: u8) {
            let tag = Tag::new(OwnTag { max_ulpdu, flags }, reason);
            let octets = tagged(&user, tag);
            prop_assert_eq!(Tag::split(&octets), (&user[..], Some(tag)));
        }

        #[test]
        fn zeros_behind_it_are_no_part_of_it(user in prop::collection::vec(any::<u8>(), 0..180), zeros in 0_usize..64) {
            let tag = Tag::new(OwnTag { max_ulpdu: 7, flags: FLAG_DEVICE }, 0);
            let mut octets = tagged(&user, tag);
            octets.resize(octets.len() + zeros, 0);
            prop_assert_eq!(Tag::split_padded(&octets), (&user[..], Some(tag)));
            let plain = [&user[..], &vec![0; zeros]].concat();
            prop_assert_eq!(Tag::split_padded(&plain), (&plain[..], None));
        }

        #[test]
        fn any_octets_are_survived(octets in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(Tag::split(&octets), (&octets[..], None));
        }
    }
}
