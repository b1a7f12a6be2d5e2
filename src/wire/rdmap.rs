//! RDMAP, remote direct memory access: opcodes, Read Request and Terminate of RFC 5040, Immediate Data of RFC 7306.

use super::ddp;
use super::octets::Octets;

pub use super::terminate::{TermCode, TermOrder, Terminate, term};

mod field {
    pub(super) const SINK_STAG: usize = 0;
    pub(super) const SINK_OFFSET: usize = 4;
    pub(super) const SIZE: usize = 12;
    pub(super) const SOURCE_STAG: usize = 16;
    pub(super) const SOURCE_OFFSET: usize = 20;

    pub(super) const IMMEDIATE_32: usize = 0;
}

/// The kind of a message, RFC 5040 §4.1 and RFC 7306.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// RDMA Write: tagged.
    Write = 0,
    /// RDMA Read Request: untagged, queue 1.
    ReadRequest = 1,
    /// RDMA Read Response: tagged.
    ReadResponse = 2,
    /// Send: untagged, queue 0, as the next three.
    Send = 3,
    /// Send with Invalidate.
    SendInvalidate = 4,
    /// Send with Solicited Event.
    SendSolicited = 5,
    /// Send with Solicited Event and Invalidate.
    SendSolicitedInvalidate = 6,
    /// Terminate: untagged, queue 2.
    Terminate = 7,
    /// Immediate Data (RFC 7306 §6): untagged, queue 0.
    Immediate = 8,
    /// Immediate Data with Solicited Event.
    ImmediateSolicited = 9,
}

impl Opcode {
    /// The opcode of this number, `None` where it is not one of those known here.
    #[inline]
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Write,
            1 => Self::ReadRequest,
            2 => Self::ReadResponse,
            3 => Self::Send,
            4 => Self::SendInvalidate,
            5 => Self::SendSolicited,
            6 => Self::SendSolicitedInvalidate,
            7 => Self::Terminate,
            8 => Self::Immediate,
            9 => Self::ImmediateSolicited,
            _ => return None,
        })
    }

    /// Whether its segments are tagged.
    #[inline]
    #[must_use]
    pub const fn is_tagged(self) -> bool {
        matches!(self, Self::Write | Self::ReadResponse)
    }

    /// The queue of an untagged message.
    #[inline]
    #[must_use]
    pub const fn queue(self) -> Option<u32> {
        match self {
            Self::Write | Self::ReadResponse => None,
            Self::ReadRequest => Some(ddp::QN_READ_REQUEST),
            Self::Terminate => Some(ddp::QN_TERMINATE),
            _ => Some(ddp::QN_SEND),
        }
    }

    /// Whether it is a Send of any kind.
    #[inline]
    #[must_use]
    pub const fn is_send(self) -> bool {
        matches!(
            self,
            Self::Send | Self::SendInvalidate | Self::SendSolicited | Self::SendSolicitedInvalidate
        )
    }

    /// Whether it invalidates an STag of the receiver.
    #[inline]
    #[must_use]
    pub const fn invalidates(self) -> bool {
        matches!(self, Self::SendInvalidate | Self::SendSolicitedInvalidate)
    }

    /// Whether it solicits an event.
    #[inline]
    #[must_use]
    pub const fn is_solicited(self) -> bool {
        matches!(self, Self::SendSolicited | Self::SendSolicitedInvalidate | Self::ImmediateSolicited)
    }

    /// The control fields of a segment of such a message.
    #[inline]
    #[must_use]
    pub const fn control(self, last: bool) -> ddp::Control {
        ddp::Control::new(self.is_tagged(), last, self as u8)
    }
}

/// The header of an RDMA Read Request, behind the DDP header: RFC 5040 §4.4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadRequest {
    /// STag of the requester's buffer.
    pub sink_stag: u32,
    /// Tagged offset in the requester's buffer.
    pub sink_offset: u64,
    /// Octets to read.
    pub size: u32,
    /// STag of the responder's buffer.
    pub source_stag: u32,
    /// Tagged offset in the responder's buffer.
    pub source_offset: u64,
}

impl ReadRequest {
    /// Octets of this header.
    pub const LEN: usize = 28;

    /// Reads the header. Every value is one.
    #[inline]
    #[must_use]
    pub fn parse(bytes: &[u8; Self::LEN]) -> Self {
        Self {
            sink_stag: bytes.get32::<{ field::SINK_STAG }>(),
            sink_offset: bytes.get64::<{ field::SINK_OFFSET }>(),
            size: bytes.get32::<{ field::SIZE }>(),
            source_stag: bytes.get32::<{ field::SOURCE_STAG }>(),
            source_offset: bytes.get64::<{ field::SOURCE_OFFSET }>(),
        }
    }

    /// Writes the header.
    #[inline]
    pub fn emit(&self, out: &mut [u8; Self::LEN]) {
        out.put32::<{ field::SINK_STAG }>(self.sink_stag);
        out.put64::<{ field::SINK_OFFSET }>(self.sink_offset);
        out.put32::<{ field::SIZE }>(self.size);
        out.put32::<{ field::SOURCE_STAG }>(self.source_stag);
        out.put64::<{ field::SOURCE_OFFSET }>(self.source_offset);
    }
}

/// The payload of an Immediate Data message, RFC 7306 §6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImmediateData(pub [u8; Self::LEN]);

impl ImmediateData {
    /// Octets of the payload.
    pub const LEN: usize = 8;

    /// The 32 bits of immediate data of verbs: the first four octets, the rest zero.
    #[inline]
    #[must_use]
    pub fn from_u32(value: u32) -> Self {
        let mut octets = [0; Self::LEN];
        octets.put32::<{ field::IMMEDIATE_32 }>(value);
        Self(octets)
    }

    /// The first four octets.
    #[inline]
    #[must_use]
    pub fn to_u32(self) -> u32 {
        self.0.get32::<{ field::IMMEDIATE_32 }>()
    }
}

#[cfg(test)]
#[path = "rdmap_test.rs"]
mod test;
