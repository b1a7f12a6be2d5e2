//! MPA, marker PDU aligned framing for TCP: RFC 5044, with the enhanced connection set-up of RFC 6581.

use std::fmt;

use arrayvec::ArrayVec;

use super::crc;
use super::octets::Octets;

/// The key of an MPA request, RFC 5044 §7.1.1.
pub const REQUEST_KEY: [u8; 16] = *b"MPA ID Req Frame";
/// The key of an MPA reply.
pub const REPLY_KEY: [u8; 16] = *b"MPA ID Rep Frame";
/// Octets of a request or reply before its private data.
pub const START_LEN: usize = 20;
/// Most octets of private data, the enhanced control word included.
pub const MAX_PRIVATE_DATA: usize = 512;

/// Octets of the enhanced control word, RFC 6581.
pub const ENHANCED_LEN: usize = 4;
/// The largest IRD or ORD the enhanced control word can carry.
pub const MAX_RESOURCES: u16 = RESOURCES;
/// In place of an IRD or ORD: the peer does not negotiate this one, RFC 6581.
pub const NOT_NEGOTIATED: u16 = RESOURCES;

/// Octets of an FPDU's length field, RFC 5044 §4.1.
pub const LENGTH_FIELD: usize = 2;
/// Octets of an FPDU's CRC field, there whether or not the CRC is used.
pub const CRC_FIELD: usize = 4;
/// Most octets of a ULPDU.
pub const MAX_ULPDU: usize = 65535;
/// Most octets of a whole FPDU.
pub const MAX_FPDU: usize = fpdu_len(MAX_ULPDU);
/// Most octets after a ULPDU: three of padding and the CRC.
pub const MAX_TRAILER: usize = 3 + CRC_FIELD;

mod field {
    pub(super) const FLAGS: usize = 16;
    pub(super) const REVISION: usize = 17;
    pub(super) const PRIVATE_DATA_LEN: usize = 18;

    pub(super) const IRD: usize = 0;
    pub(super) const ORD: usize = 2;
}

const MARKERS: u8 = 0x80;
const CRC: u8 = 0x40;
const REJECT: u8 = 0x20;
const ENHANCED: u8 = 0x10;
const OTHER: u8 = 0x0f;

const PEER_TO_PEER: u16 = 0x8000;
const SEND_RTR: u16 = 0x4000;
const WRITE_RTR: u16 = 0x8000;
const READ_RTR: u16 = 0x4000;
const RESOURCES: u16 = 0x3fff;

/// What is wrong with a request or reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MpaError {
    /// It does not begin with the key.
    Key,
    /// It announces more than [`MAX_PRIVATE_DATA`] octets of private data.
    PrivateDataLen(u16),
}

impl fmt::Display for MpaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => f.write_str("no MPA start frame: the key is wrong"),
            Self::PrivateDataLen(len) => {
                write!(
                    f,
                    "MPA start frame announces {len} octets of private data, more than {MAX_PRIVATE_DATA}"
                )
            }
        }
    }
}

impl std::error::Error for MpaError {}

/// Which of the two start frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From the side that opened the TCP connection.
    Request,
    /// The answer to it.
    Reply,
}

impl Kind {
    /// The sixteen octets the frame begins with.
    #[must_use]
    pub const fn key(self) -> &'static [u8; 16] {
        match self {
            Self::Request => &REQUEST_KEY,
            Self::Reply => &REPLY_KEY,
        }
    }
}

/// The fixed part of a request or reply, RFC 5044 §7.1.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// M: the sender wants markers in what it receives.
    pub markers: bool,
    /// C: the sender wants the CRC to be used.
    pub crc: bool,
    /// R: the connection is rejected (a reply's only).
    pub reject: bool,
    /// S: the private data begins with the enhanced control word, RFC 6581.
    pub enhanced: bool,
    /// The four low bits, which no RFC defines. A peer may just echo ours, so they mean nothing in a reply.
    pub other_flags: u8,
    /// Revision of MPA: 1, or 2 where RFC 6581 is used.
    pub revision: u8,
    /// Octets of private data that follow, the enhanced control word included.
    pub private_data_len: u16,
}

impl Start {
    /// Reads the fixed part from what has arrived: `None` when more is needed, an error as soon as it cannot become
    /// a frame of this kind.
    pub fn parse(kind: Kind, bytes: &[u8]) -> Result<Option<Self>, MpaError> {
        if bytes.iter().zip(kind.key()).any(|(octet, expected)| octet != expected) {
            return Err(MpaError::Key);
        }
        let Some(header) = bytes.first_chunk::<START_LEN>() else { return Ok(None) };
        let flags = header.get8::<{ field::FLAGS }>();
        let private_data_len = header.get16::<{ field::PRIVATE_DATA_LEN }>();
        if usize::from(private_data_len) > MAX_PRIVATE_DATA {
            return Err(MpaError::PrivateDataLen(private_data_len));
        }
        Ok(Some(Self {
            markers: flags & MARKERS != 0,
            crc: flags & CRC != 0,
            reject: flags & REJECT != 0,
            enhanced: flags & ENHANCED != 0,
            other_flags: flags & OTHER,
            revision: header.get8::<{ field::REVISION }>(),
            private_data_len,
        }))
    }

    /// Writes the fixed part. Of `other_flags` only the four low bits are written.
    pub fn emit(&self, kind: Kind, out: &mut [u8; START_LEN]) {
        for (to, octet) in out.iter_mut().zip(kind.key()) {
            *to = *octet;
        }
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = flag(self.markers, MARKERS)
            | flag(self.crc, CRC)
            | flag(self.reject, REJECT)
            | flag(self.enhanced, ENHANCED)
            | (self.other_flags & OTHER);
        out.put8::<{ field::FLAGS }>(flags);
        out.put8::<{ field::REVISION }>(self.revision);
        out.put16::<{ field::PRIVATE_DATA_LEN }>(self.private_data_len);
    }

    /// Octets of the whole frame, private data included.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        START_LEN + usize::from(self.private_data_len)
    }
}

/// The control word in front of the private data of an enhanced frame, RFC 6581.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Enhanced {
    /// Read Requests the sender can take at a time, 14 bits; [`NOT_NEGOTIATED`] = no statement.
    pub ird: u16,
    /// Read Requests the sender wants to have outstanding, 14 bits; [`NOT_NEGOTIATED`] = no statement.
    pub ord: u16,
    /// A: peer-to-peer model, the initiator sends a ready-to-receive frame first.
    pub peer_to_peer: bool,
    /// B: a zero-length Send may be that frame.
    pub send_rtr: bool,
    /// C: a zero-length RDMA Write may be that frame.
    pub write_rtr: bool,
    /// D: a zero-length RDMA Read Request may be that frame.
    pub read_rtr: bool,
}

impl Enhanced {
    /// Reads the control word. Every value is one.
    #[must_use]
    pub fn parse(bytes: &[u8; ENHANCED_LEN]) -> Self {
        let ird = bytes.get16::<{ field::IRD }>();
        let ord = bytes.get16::<{ field::ORD }>();
        Self {
            ird: ird & RESOURCES,
            ord: ord & RESOURCES,
            peer_to_peer: ird & PEER_TO_PEER != 0,
            send_rtr: ird & SEND_RTR != 0,
            write_rtr: ord & WRITE_RTR != 0,
            read_rtr: ord & READ_RTR != 0,
        }
    }

    /// Writes the control word. An IRD or ORD above [`MAX_RESOURCES`] is written as that.
    pub fn emit(&self, out: &mut [u8; ENHANCED_LEN]) {
        let flag = |set: bool, bit: u16| if set { bit } else { 0 };
        let ird =
            self.ird.min(RESOURCES) | flag(self.peer_to_peer, PEER_TO_PEER) | flag(self.send_rtr, SEND_RTR);
        let ord = self.ord.min(RESOURCES) | flag(self.write_rtr, WRITE_RTR) | flag(self.read_rtr, READ_RTR);
        out.put16::<{ field::IRD }>(ird);
        out.put16::<{ field::ORD }>(ord);
    }
}

/// Octets of padding behind a ULPDU of this length: length field, ULPDU and padding make a multiple of four.
#[must_use]
pub const fn pad(ulpdu_len: usize) -> usize {
    ulpdu_len.wrapping_add(LENGTH_FIELD).wrapping_neg() & 3
}

/// Octets of the whole FPDU: length field, ULPDU, padding, CRC field.
#[must_use]
pub const fn fpdu_len(ulpdu_len: usize) -> usize {
    ulpdu_len.saturating_add(LENGTH_FIELD + pad(ulpdu_len) + CRC_FIELD)
}

/// The longest ULPDU whose FPDU has at most `budget` octets (RFC 5044 §5.1: MULPDU), 0 where none has.
#[must_use]
pub const fn max_ulpdu_within(budget: usize) -> usize {
    let ulpdu = (budget & !3).saturating_sub(LENGTH_FIELD + CRC_FIELD);
    if ulpdu < MAX_ULPDU { ulpdu } else { MAX_ULPDU }
}

/// The length of the ULPDU at the front of `bytes`, or `None` when its length field has not arrived.
#[must_use]
pub fn ulpdu_len(bytes: &[u8]) -> Option<usize> {
    bytes.first_chunk::<LENGTH_FIELD>().map(|length| usize::from(u16::from_be_bytes(*length)))
}

/// What follows a ULPDU of this length: zeros for padding, then the CRC (0 where the CRC is not used).
#[must_use]
pub fn trailer(ulpdu_len: usize, crc: u32) -> ArrayVec<u8, MAX_TRAILER> {
    let padding = [0; 3].into_iter().take(pad(ulpdu_len));
    padding.chain(crc_to_wire(crc)).collect()
}

/// A CRC as the octets of the CRC field.
#[must_use]
pub const fn crc_to_wire(crc: u32) -> [u8; CRC_FIELD] {
    crc.to_le_bytes()
}

/// The octets of the CRC field as a CRC.
#[must_use]
pub const fn crc_from_wire(octets: [u8; CRC_FIELD]) -> u32 {
    u32::from_le_bytes(octets)
}

/// Whether the last four octets of a whole FPDU are the CRC of those before them.
#[must_use]
pub fn crc_matches(fpdu: &[u8]) -> bool {
    match fpdu.split_last_chunk::<CRC_FIELD>() {
        Some((covered, field)) => crc::crc32c(covered) == crc_from_wire(*field),
        None => false,
    }
}

#[cfg(test)]
#[path = "mpa_test.rs"]
mod test;
