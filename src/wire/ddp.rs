//! DDP, direct data placement: the segment headers of RFC 5041 §4, with RDMAP's use of the octet that is reserved for
//! the upper layer (RFC 5040 §4.1).

use std::fmt;

use super::octets::Octets;

/// Octets of a tagged header, control included.
pub const TAGGED_LEN: usize = 14;
/// Octets of an untagged header, control included.
pub const UNTAGGED_LEN: usize = 18;
/// Octets of the control fields of DDP and RDMAP.
pub const CONTROL_LEN: usize = 2;
/// The DDP version and the RDMAP version of RFC 5040 and RFC 5041.
pub const VERSION: u8 = 1;

/// Queue of Sends and of Immediate Data.
pub const QN_SEND: u32 = 0;
/// Queue of RDMA Read Requests.
pub const QN_READ_REQUEST: u32 = 1;
/// Queue of Terminates.
pub const QN_TERMINATE: u32 = 2;
/// The MSN of the first message of each queue.
pub const FIRST_MSN: u32 = 1;

mod field {
    pub(super) const DDP: usize = 0;
    pub(super) const RDMAP: usize = 1;

    pub(super) mod tagged {
        pub(in super::super) const STAG: usize = 2;
        pub(in super::super) const OFFSET: usize = 6;
    }

    pub(super) mod untagged {
        pub(in super::super) const INVALIDATE_STAG: usize = 2;
        pub(in super::super) const QUEUE: usize = 6;
        pub(in super::super) const MSN: usize = 10;
        pub(in super::super) const OFFSET: usize = 14;
    }
}

const TAGGED: u8 = 0x80;
const LAST: u8 = 0x40;
const DDP_VERSION: u8 = 0x03;
const RDMAP_VERSION_SHIFT: u32 = 6;
const OPCODE: u8 = 0x0f;

/// What is wrong with a segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DdpError {
    /// Its DDP version is not [`VERSION`].
    Version {
        /// The header says that it is a tagged one.
        tagged: bool,
        /// The version it has.
        version: u8,
    },
}

impl fmt::Display for DdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Version { version, .. } = self;
        write!(f, "DDP segment of version {version}, not {VERSION}")
    }
}

impl std::error::Error for DdpError {}

/// The control fields of DDP (RFC 5041 §4.1) and RDMAP (RFC 5040 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// T: the segment names the place of its payload by STag and offset.
    pub tagged: bool,
    /// L: the last segment of its message.
    pub last: bool,
    /// Version of DDP, two bits.
    pub ddp_version: u8,
    /// Version of RDMAP, two bits.
    pub rdmap_version: u8,
    /// The RDMAP opcode, four bits.
    pub opcode: u8,
}

impl Control {
    /// Control fields of the versions that are spoken here.
    #[must_use]
    pub const fn new(tagged: bool, last: bool, opcode: u8) -> Self {
        Self { tagged, last, ddp_version: VERSION, rdmap_version: VERSION, opcode }
    }

    /// Reads the control fields. Every value is one; the reserved bits are ignored.
    #[inline]
    #[must_use]
    pub fn parse(bytes: &[u8; CONTROL_LEN]) -> Self {
        let ddp = bytes.get8::<{ field::DDP }>();
        let rdmap = bytes.get8::<{ field::RDMAP }>();
        Self {
            tagged: ddp & TAGGED != 0,
            last: ddp & LAST != 0,
            ddp_version: ddp & DDP_VERSION,
            rdmap_version: rdmap >> RDMAP_VERSION_SHIFT,
            opcode: rdmap & OPCODE,
        }
    }

    /// Writes the control fields, the reserved bits as zero.
    #[inline]
    pub fn emit(&self, out: &mut [u8; CONTROL_LEN]) {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let ddp = flag(self.tagged, TAGGED) | flag(self.last, LAST) | (self.ddp_version & DDP_VERSION);
        out.put8::<{ field::DDP }>(ddp);
        out.put8::<{ field::RDMAP }>((self.rdmap_version << RDMAP_VERSION_SHIFT) | (self.opcode & OPCODE));
    }
}

/// The header of a tagged segment, RFC 5041 §4.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// The control fields.
    pub control: Control,
    /// The steering tag of the buffer.
    pub stag: u32,
    /// The tagged offset of the first octet of payload.
    pub offset: u64,
}

impl Tagged {
    /// Reads the header, whatever its control fields say.
    #[inline]
    #[must_use]
    pub fn parse(bytes: &[u8; TAGGED_LEN]) -> Self {
        Self {
            control: control_of(bytes),
            stag: bytes.get32::<{ field::tagged::STAG }>(),
            offset: bytes.get64::<{ field::tagged::OFFSET }>(),
        }
    }

    /// Writes the header as that of a tagged segment.
    #[inline]
    pub fn emit(&self, out: &mut [u8; TAGGED_LEN]) {
        put_control(Control { tagged: true, ..self.control }, out);
        out.put32::<{ field::tagged::STAG }>(self.stag);
        out.put64::<{ field::tagged::OFFSET }>(self.offset);
    }
}

/// The header of an untagged segment, RFC 5041 §4.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Untagged {
    /// The control fields.
    pub control: Control,
    /// The STag to invalidate, of Sends that do; otherwise zero.
    pub invalidate_stag: u32,
    /// The queue number.
    pub queue: u32,
    /// The message sequence number, the first of each queue is [`FIRST_MSN`].
    pub msn: u32,
    /// The offset of the first octet of payload in its message.
    pub offset: u32,
}

impl Untagged {
    /// Reads the header, whatever its control fields say.
    #[inline]
    #[must_use]
    pub fn parse(bytes: &[u8; UNTAGGED_LEN]) -> Self {
        Self {
            control: control_of(bytes),
            invalidate_stag: bytes.get32::<{ field::untagged::INVALIDATE_STAG }>(),
            queue: bytes.get32::<{ field::untagged::QUEUE }>(),
            msn: bytes.get32::<{ field::untagged::MSN }>(),
            offset: bytes.get32::<{ field::untagged::OFFSET }>(),
        }
    }

    /// Writes the header as that of an untagged segment.
    #[inline]
    pub fn emit(&self, out: &mut [u8; UNTAGGED_LEN]) {
        put_control(Control { tagged: false, ..self.control }, out);
        out.put32::<{ field::untagged::INVALIDATE_STAG }>(self.invalidate_stag);
        out.put32::<{ field::untagged::QUEUE }>(self.queue);
        out.put32::<{ field::untagged::MSN }>(self.msn);
        out.put32::<{ field::untagged::OFFSET }>(self.offset);
    }
}

/// The control fields at the front of a header.
fn control_of<const N: usize>(bytes: &[u8; N]) -> Control {
    Control::parse(&[bytes.get8::<{ field::DDP }>(), bytes.get8::<{ field::RDMAP }>()])
}

/// Writes the control fields at the front of a header.
fn put_control<const N: usize>(control: Control, out: &mut [u8; N]) {
    let mut octets = [0; CONTROL_LEN];
    control.emit(&mut octets);
    let [ddp, rdmap] = octets;
    out.put8::<{ field::DDP }>(ddp);
    out.put8::<{ field::RDMAP }>(rdmap);
}

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Of RDMA Writes and Read Responses.
    Tagged(Tagged),
    /// Of everything else.
    Untagged(Untagged),
}

// A header is never empty.
#[allow(clippy::len_without_is_empty)]
impl Header {
    /// Reads the header at the front of what has arrived: `None` when more is needed, an error as soon as its version
    /// is known to be wrong. The version of RDMAP is left to the caller, who answers it otherwise.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, DdpError> {
        let Some(control) = bytes.first_chunk().map(Control::parse) else { return Ok(None) };
        if control.ddp_version != VERSION {
            return Err(DdpError::Version { tagged: control.tagged, version: control.ddp_version });
        }
        Ok(if control.tagged {
            bytes.first_chunk().map(|bytes| Self::Tagged(Tagged::parse(bytes)))
        } else {
            bytes.first_chunk().map(|bytes| Self::Untagged(Untagged::parse(bytes)))
        })
    }

    /// The control fields.
    #[inline]
    #[must_use]
    pub fn control(&self) -> Control {
        match self {
            Self::Tagged(header) => header.control,
            Self::Untagged(header) => header.control,
        }
    }

    /// Octets of the header.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Tagged(_) => TAGGED_LEN,
            Self::Untagged(_) => UNTAGGED_LEN,
        }
    }

    /// Writes the header to the front of `out` and returns its length, or writes nothing and returns 0 where `out` is
    /// too short.
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> usize {
        match self {
            Self::Tagged(header) => out.first_chunk_mut().map_or(0, |out| {
                header.emit(out);
                TAGGED_LEN
            }),
            Self::Untagged(header) => out.first_chunk_mut().map_or(0, |out| {
                header.emit(out);
                UNTAGGED_LEN
            }),
        }
    }
}

#[cfg(test)]
#[path = "ddp_test.rs"]
mod test;
