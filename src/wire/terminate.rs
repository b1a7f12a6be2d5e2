//! The Terminate message: RFC 5040 §4.8, with the error codes of RFC 5040, RFC 5041, RFC 5044 and RFC 6581.

use std::fmt;

use arrayvec::ArrayVec;

use super::ddp::{self, DdpError};
use super::octets::Octets;
use super::rdmap::ReadRequest;

mod field {
    pub(super) const LAYER_ETYPE: usize = 0;
    pub(super) const CODE: usize = 1;
    pub(super) const HEADERS: usize = 2;
}

/// Octets of the control word.
const CONTROL_LEN: usize = 4;
/// Octets of the length of the terminated segment.
const SEGMENT_LEN: usize = 2;

const SEGMENT_LEN_VALID: u8 = 0x80;
const DDP_HEADER: u8 = 0x40;
const RDMAP_HEADER: u8 = 0x20;
/// All of the header control bits, as they lie in RFC order and as a swapped control word has them.
const HEADERS_RFC: u8 = 0xe0;
const HEADERS_SWAPPED: u8 = 0x07;

/// What a Terminate says: the layer that saw the error, its type, its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TermCode {
    /// 0 RDMAP, 1 DDP, 2 the lower layer, which is MPA.
    pub layer: u8,
    /// Type of error within the layer, four bits.
    pub etype: u8,
    /// Code of the error within its type.
    pub code: u8,
}

impl TermCode {
    /// The code of a layer, type and code.
    #[must_use]
    pub const fn new(layer: u8, etype: u8, code: u8) -> Self {
        Self { layer, etype, code }
    }

    /// What the error is called, or `None` where no RFC defines it.
    #[must_use]
    pub fn text(self) -> Option<&'static str> {
        // Of a local catastrophic error of RDMAP every code is defined (the IANA registry of RDDP errors).
        let key = if (self.layer, self.etype) == (0, 0) { Self { code: 0, ..self } } else { self };
        term::NAMES.iter().find(|(code, _)| *code == key).map(|(_, text)| *text)
    }

    /// The octets of the control word that carry it, as a number for `provider_code`: layer, type, code.
    #[must_use]
    pub fn word(self) -> u16 {
        u16::from_be_bytes([(self.layer << 4) | (self.etype & 0x0f), self.code])
    }

    /// The same control octets with the two halves of the first exchanged.
    fn swapped(self) -> Self {
        Self { layer: self.etype, etype: self.layer, ..self }
    }
}

impl fmt::Display for TermCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layer, etype, code } = self;
        match self.text() {
            Some(text) => f.write_str(text),
            None => write!(f, "undefined error: layer {layer}, type {etype}, code {code:#04x}"),
        }
    }
}

impl From<DdpError> for TermCode {
    /// The answer to a segment whose header was refused.
    fn from(error: DdpError) -> Self {
        match error {
            DdpError::Version { tagged: true, .. } => term::DDP_TAGGED_VERSION,
            DdpError::Version { tagged: false, .. } => term::DDP_UNTAGGED_VERSION,
        }
    }
}

/// The errors the RFCs define.
pub mod term {
    use super::TermCode;

    macro_rules! errors {
        ($($(#[$doc:meta])* $name:ident = ($layer:literal, $etype:literal, $code:literal), $text:literal;)*) => {
            $($(#[$doc])* #[doc = concat!(" ", $text, ".")] pub const $name: TermCode = TermCode::new($layer, $etype, $code);)*
            /// Every error with what it is called.
            pub(super) const NAMES: &[(TermCode, &str)] = &[$(($name, $text)),*];
        };
    }

    errors! {
        RDMAP_CATASTROPHIC = (0, 0, 0x00), "RDMAP local catastrophic error";
        RDMAP_INVALID_STAG = (0, 1, 0x00), "RDMAP remote protection error: invalid STag";
        RDMAP_BASE_BOUNDS = (0, 1, 0x01), "RDMAP remote protection error: base or bounds violation";
        RDMAP_ACCESS_RIGHTS = (0, 1, 0x02), "RDMAP remote protection error: access rights violation";
        RDMAP_STAG_NOT_ASSOCIATED = (0, 1, 0x03), "RDMAP remote protection error: STag not associated with the RDMAP stream";
        RDMAP_OFFSET_WRAP = (0, 1, 0x04), "RDMAP remote protection error: tagged offset wrap";
        RDMAP_PROTECTION_INVALIDATE = (0, 1, 0x09), "RDMAP remote protection error: STag cannot be invalidated";
        RDMAP_PROTECTION_UNSPECIFIED = (0, 1, 0xff), "RDMAP remote protection error: unspecified";
        RDMAP_VERSION = (0, 2, 0x05), "RDMAP remote operation error: invalid RDMAP version";
        RDMAP_OPCODE = (0, 2, 0x06), "RDMAP remote operation error: unexpected opcode";
        RDMAP_CATASTROPHIC_STREAM = (0, 2, 0x07), "RDMAP remote operation error: catastrophic, localized to the RDMAP stream";
        RDMAP_CATASTROPHIC_GLOBAL = (0, 2, 0x08), "RDMAP remote operation error: catastrophic, global";
        RDMAP_OPERATION_INVALIDATE = (0, 2, 0x09), "RDMAP remote operation error: STag cannot be invalidated";
        RDMAP_OPERATION_UNSPECIFIED = (0, 2, 0xff), "RDMAP remote operation error: unspecified";

        DDP_CATASTROPHIC = (1, 0, 0x00), "DDP local catastrophic error";
        DDP_INVALID_STAG = (1, 1, 0x00), "DDP tagged buffer error: invalid STag";
        DDP_BASE_BOUNDS = (1, 1, 0x01), "DDP tagged buffer error: base or bounds violation";
        DDP_STAG_NOT_ASSOCIATED = (1, 1, 0x02), "DDP tagged buffer error: STag not associated with the DDP stream";
        DDP_OFFSET_WRAP = (1, 1, 0x03), "DDP tagged buffer error: tagged offset wrap";
        DDP_TAGGED_VERSION = (1, 1, 0x04), "DDP tagged buffer error: invalid DDP version";
        DDP_INVALID_QUEUE = (1, 2, 0x01), "DDP untagged buffer error: invalid queue number";
        DDP_NO_BUFFER = (1, 2, 0x02), "DDP untagged buffer error: invalid MSN, no buffer available";
        DDP_MSN_RANGE = (1, 2, 0x03), "DDP untagged buffer error: invalid MSN, out of range";
        DDP_INVALID_OFFSET = (1, 2, 0x04), "DDP untagged buffer error: invalid message offset";
        DDP_MESSAGE_TOO_LONG = (1, 2, 0x05), "DDP untagged buffer error: message too long for the available buffer";
        DDP_UNTAGGED_VERSION = (1, 2, 0x06), "DDP untagged buffer error: invalid DDP version";

        MPA_STREAM_LOST = (2, 0, 0x01), "MPA error: TCP connection closed, terminated or lost";
        MPA_CRC = (2, 0, 0x02), "MPA error: received CRC does not match";
        MPA_LENGTH = (2, 0, 0x03), "MPA error: marker and ULPDU length do not agree on the start of an FPDU";
        MPA_INVALID_START = (2, 0, 0x04), "MPA error: invalid request or reply frame";
        MPA_CATASTROPHIC = (2, 0, 0x05), "MPA error: local catastrophic error";
        MPA_INSUFFICIENT_IRD = (2, 0, 0x06), "MPA error: insufficient IRD resources";
        MPA_NO_MATCHING_RTR = (2, 0, 0x07), "MPA error: no matching ready-to-receive option";
    }
}

/// In which order the bits of a received control word lay. Kernel siw swaps them within each octet, because it
/// describes them as C bit-fields on a little-endian machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TermOrder {
    /// As RFC 5040 has them.
    #[default]
    Rfc,
    /// Swapped, as siw sends them.
    Swapped,
    /// Both readings are defined errors, or neither is: `layer` and `etype` are the reading of the RFC, and may have to
    /// be exchanged.
    Uncertain,
}

/// A Terminate, behind its DDP header: RFC 5040 §4.8.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terminate {
    /// 0 RDMAP, 1 DDP, 2 MPA; four bits.
    pub layer: u8,
    /// Type of error within the layer, four bits.
    pub etype: u8,
    /// Code of the error.
    pub code: u8,
    /// Octets of the terminated DDP segment. In RFC 5040 the M bit.
    pub ddp_segment_len: Option<u16>,
    /// The terminated segment's DDP header, 14 or 18 octets, or none. The D bit.
    pub ddp_header: ArrayVec<u8, { ddp::UNTAGGED_LEN }>,
    /// The terminated Read Request. The R bit.
    pub read_request: Option<ReadRequest>,
    /// How the control word was read; not sent.
    pub order: TermOrder,
}

impl Terminate {
    /// Most octets of a Terminate, DDP header excluded.
    pub const MAX_LEN: usize = CONTROL_LEN + SEGMENT_LEN + ddp::UNTAGGED_LEN + ReadRequest::LEN;

    /// A Terminate with nothing but its control word.
    #[must_use]
    pub fn new(code: TermCode) -> Self {
        let TermCode { layer, etype, code } = code;
        Self { layer, etype, code, ..Self::default() }
    }

    /// A Terminate about a segment of this length that began with `header`, which is taken where it is a whole header.
    #[must_use]
    pub fn about(code: TermCode, segment_len: u16, header: &[u8], read_request: Option<ReadRequest>) -> Self {
        let ddp_header = whole_header(header).unwrap_or_default();
        Self { ddp_segment_len: Some(segment_len), ddp_header, read_request, ..Self::new(code) }
    }

    /// The error, as read.
    #[must_use]
    pub fn term_code(&self) -> TermCode {
        TermCode::new(self.layer, self.etype, self.code)
    }

    /// The other error it may mean where the order of the bits is uncertain.
    #[must_use]
    pub fn other_reading(&self) -> Option<TermCode> {
        (self.order == TermOrder::Uncertain).then(|| self.term_code().swapped())
    }

    /// Reads a Terminate: `None` only where its control word is not there. Whatever follows the control word is read as
    /// far as it goes and left out where it is cut short, because the error matters more than its evidence.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (control, rest) = bytes.split_first_chunk::<CONTROL_LEN>()?;
        let (code, order) = read_code(control);
        let headers = match order {
            TermOrder::Swapped => control.get8::<{ field::HEADERS }>().reverse_bits(),
            _ => control.get8::<{ field::HEADERS }>(),
        };
        let mut terminate = Self { order, ..Self::new(code) };
        terminate.read_evidence(headers, rest);
        Some(terminate)
    }

    /// Reads what the header control bits announce, up to the first part that is not whole.
    fn read_evidence(&mut self, headers: u8, mut rest: &[u8]) -> Option<()> {
        if headers & SEGMENT_LEN_VALID != 0 {
            let (length, after) = rest.split_first_chunk::<SEGMENT_LEN>()?;
            self.ddp_segment_len = Some(u16::from_be_bytes(*length));
            rest = after;
        }
        if headers & DDP_HEADER != 0 {
            self.ddp_header = whole_header(rest)?;
            rest = rest.get(self.ddp_header.len()..)?;
        }
        if headers & RDMAP_HEADER != 0 {
            self.read_request = Some(ReadRequest::parse(rest.first_chunk()?));
        }
        Some(())
    }

    /// Writes the Terminate in the order of RFC 5040 and returns its length.
    pub fn emit(&self, out: &mut [u8; Self::MAX_LEN]) -> usize {
        let mut bytes = ArrayVec::<u8, { Self::MAX_LEN }>::new();
        bytes.extend(self.control());
        if let Some(length) = self.ddp_segment_len {
            bytes.extend(length.to_be_bytes());
        }
        bytes.extend(self.ddp_header.iter().copied());
        if let Some(request) = &self.read_request {
            let mut octets = [0; ReadRequest::LEN];
            request.emit(&mut octets);
            bytes.extend(octets);
        }
        for (to, octet) in out.iter_mut().zip(&bytes) {
            *to = *octet;
        }
        bytes.len()
    }

    /// The control word.
    fn control(&self) -> [u8; CONTROL_LEN] {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let headers = flag(self.ddp_segment_len.is_some(), SEGMENT_LEN_VALID)
            | flag(!self.ddp_header.is_empty(), DDP_HEADER)
            | flag(self.read_request.is_some(), RDMAP_HEADER);
        [(self.layer << 4) | (self.etype & 0x0f), self.code, headers, 0]
    }
}

impl fmt::Display for Terminate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.term_code().fmt(f)?;
        match self.other_reading() {
            Some(other) => write!(f, " (or, the order of its bits being uncertain, {other})"),
            None => Ok(()),
        }
    }
}

/// The DDP header at the front of `bytes`, if it is whole. Its version is not looked at: it may be what was wrong.
fn whole_header(bytes: &[u8]) -> Option<ArrayVec<u8, { ddp::UNTAGGED_LEN }>> {
    let control = ddp::Control::parse(bytes.first_chunk()?);
    let len = if control.tagged { ddp::TAGGED_LEN } else { ddp::UNTAGGED_LEN };
    Some(bytes.get(..len)?.iter().copied().collect())
}

/// Reads layer, type and code from a control word whose sender may have swapped its bits.
fn read_code(control: &[u8; CONTROL_LEN]) -> (TermCode, TermOrder) {
    let first = control.get8::<{ field::LAYER_ETYPE }>();
    let rfc = TermCode::new(first >> 4, first & 0x0f, control.get8::<{ field::CODE }>());
    let swapped = rfc.swapped();
    let headers = control.get8::<{ field::HEADERS }>();
    match (headers & HEADERS_RFC != 0, headers & HEADERS_SWAPPED != 0) {
        (true, false) => (rfc, TermOrder::Rfc),
        (false, true) => (swapped, TermOrder::Swapped),
        (true, true) => (rfc, TermOrder::Uncertain),
        (false, false) if rfc == swapped => (rfc, TermOrder::Rfc),
        (false, false) => match (rfc.text(), swapped.text()) {
            (Some(_), None) => (rfc, TermOrder::Rfc),
            (None, Some(_)) => (swapped, TermOrder::Swapped),
            _ => (rfc, TermOrder::Uncertain),
        },
    }
}

#[cfg(test)]
#[path = "terminate_test.rs"]
mod test;
