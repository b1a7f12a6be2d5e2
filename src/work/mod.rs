//! Work requests and completions: the part of the verbs model that all providers share.

use std::fmt;
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::error::{Error, Result};
use crate::memory::Region;

/// Most scatter/gather elements in one work request.
pub const MAX_SGE: usize = 8;
/// Most octets of an inline payload.
pub const MAX_INLINE: usize = 192;
/// Longest message: as in InfiniBand, 2^31 octets.
pub const MAX_MESSAGE: u64 = 1 << 31;

/// What is known of a queue pair before the handshake.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// Work requests in the send queue.
    pub send_depth: usize,
    /// Work requests in the receive queue; the number of buffers in managed-receive mode.
    pub recv_depth: usize,
    /// Size of the library's receive buffers in octets; 0 = the caller posts its own.
    pub recv_size: usize,
    /// An untagged message without a posted receive ends the stream instead of waiting.
    pub strict_recv: bool,
}

/// What a work request does; the numbers are those of `RCG_SEND` and so on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Opcode {
    /// Send.
    Send = 1,
    /// Send with four octets of immediate data.
    SendImm = 2,
    /// Send that asks the peer to invalidate one of its keys.
    SendInvalidate = 3,
    /// RDMA Write.
    Write = 4,
    /// RDMA Write, then four octets of immediate data that consume a receive.
    WriteImm = 5,
    /// RDMA Read.
    Read = 6,
    /// A receive; only in completions.
    Recv = 7,
}

impl Opcode {
    /// The opcode of a number.
    pub fn from_u32(value: u32) -> Option<Self> {
        Some(match value {
            1 => Self::Send,
            2 => Self::SendImm,
            3 => Self::SendInvalidate,
            4 => Self::Write,
            5 => Self::WriteImm,
            6 => Self::Read,
            7 => Self::Recv,
            _ => return None,
        })
    }
}

/// Flags of send-queue work requests.
pub mod flags {
    /// A completion is wanted; without it only a failure makes one.
    pub const SIGNALED: u32 = 1;
    /// Wait for all earlier RDMA Reads of this connection.
    pub const FENCE: u32 = 2;
    /// The payload was copied at once.
    pub const INLINE: u32 = 4;
    /// Solicited event at the receiver.
    pub const SOLICITED: u32 = 8;
    /// All of them.
    pub const ALL: u32 = 15;
}

/// A piece of a registered region. While it lives the region can't be deregistered.
pub struct Sge {
    ptr: *mut u8,
    length: u32,
    region: Arc<Region>,
}

// SAFETY: the pointer is only used by the copying functions below, within the bounds checked at creation, while
// the region is held in use.
unsafe impl Send for Sge {}

impl fmt::Debug for Sge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:p}+{:#x}", self.ptr, self.length)
    }
}

impl Drop for Sge {
    fn drop(&mut self) {
        self.region.end_use();
    }
}

impl Region {
    /// The piece `[addr, addr + length)`, checked against the region's bounds.
    pub fn sge(self: &Arc<Self>, addr: *mut u8, length: usize) -> Result<Sge> {
        let Ok(short) = u32::try_from(length) else {
            return Err(Error::invalid("a scatter/gather element is longer than 4 GiB"));
        };
        if !self.holds(addr, length) {
            return Err(Error::invalid("a scatter/gather element lies outside its region"));
        }
        self.begin_use()?;
        Ok(Sge { ptr: addr, length: short, region: Arc::clone(self) })
    }
}

impl Sge {
    /// First octet.
    pub fn ptr(&self) -> *mut u8 {
        self.ptr
    }

    /// Length in octets.
    pub fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The region it lies in.
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Copies `source` to `offset` of the piece; what lies beyond its end is not copied. Returns the count.
    pub fn fill(&self, offset: usize, source: &[u8]) -> usize {
        let count = self.len().saturating_sub(offset).min(source.len());
        if count > 0 {
            // SAFETY: `offset + count <= length`, the piece lies in a region that can't be deregistered while this
            // element lives, and `source` is a buffer of ours.
            unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), self.ptr.add(offset), count) };
        }
        count
    }

    /// Copies from `offset` of the piece into `target`; returns the count.
    pub fn read(&self, offset: usize, target: &mut [u8]) -> usize {
        let count = self.len().saturating_sub(offset).min(target.len());
        if count > 0 {
            // SAFETY: as in `fill`, with the roles exchanged.
            unsafe {
                std::ptr::copy_nonoverlapping(self.ptr.add(offset).cast_const(), target.as_mut_ptr(), count)
            };
        }
        count
    }

    /// Shows `count` octets at `offset` of the piece to `look`.
    ///
    /// # Safety
    /// Nobody writes to them meanwhile: not their poster, who has promised that until the operation is complete, and no
    /// peer (see [`Payload::stays`]).
    pub(crate) unsafe fn look(&self, offset: usize, count: usize, look: impl FnOnce(&[u8])) {
        let count = self.len().saturating_sub(offset).min(count);
        if count > 0 {
            // SAFETY: within the piece, whose region can't be deregistered while this element lives; the rest is the caller's.
            look(unsafe { std::slice::from_raw_parts(self.ptr.add(offset).cast_const(), count) });
        }
    }
}

/// Scatter/gather elements of one work request.
pub type SgeList = ArrayVec<Sge, MAX_SGE>;

/// Copies `source` into a list of elements, `offset` octets after their common beginning.
pub fn scatter(sges: &[Sge], mut offset: usize, mut source: &[u8]) {
    for sge in sges {
        if source.is_empty() {
            break;
        }
        if offset >= sge.len() {
            offset -= sge.len();
            continue;
        }
        let count = sge.fill(offset, source);
        source = source.get(count..).unwrap_or_default();
        offset = 0;
    }
}

/// The octets `offset` after the common beginning of the elements, up to `limit` and up to the end of their element.
pub fn piece_at(sges: &[Sge], mut offset: usize, limit: usize) -> Option<(*mut u8, usize)> {
    for sge in sges {
        if offset < sge.len() {
            return Some((sge.ptr().wrapping_add(offset), limit.min(sge.len() - offset)));
        }
        offset -= sge.len();
    }
    None
}

/// Payload of a send-queue work request.
#[derive(Debug)]
pub enum Payload {
    /// Copied when posted.
    Inline(ArrayVec<u8, MAX_INLINE>),
    /// Sent from, or for a Read received into, registered memory.
    Sges(SgeList),
}

impl Payload {
    /// Length in octets.
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(octets) => octets.len() as u64,
            Self::Sges(sges) => sges.iter().map(|sge| sge.len() as u64).sum(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is what was copied when posted.
    pub(crate) fn is_inline(&self) -> bool {
        matches!(self, Self::Inline(_))
    }

    /// Whether no peer has a key to write to it: then what has been read of it is what will be sent.
    pub(crate) fn stays(&self) -> bool {
        match self {
            Self::Inline(_) => true,
            Self::Sges(sges) => !sges.iter().any(|sge| sge.region.is_writable_by_peers()),
        }
    }
}

/// A work request for the send queue.
#[derive(Debug)]
pub struct SendWr {
    /// What to do.
    pub opcode: Opcode,
    /// [`flags`].
    pub flags: u32,
    /// What to send, or where a Read goes.
    pub payload: Payload,
    /// Address in the peer's memory.
    pub remote_addr: u64,
    /// The peer's key.
    pub remote_key: u32,
    /// Immediate data.
    pub imm: u32,
    /// Key of the peer's that it shall invalidate.
    pub invalidate_key: u32,
    /// The caller's cookie.
    pub user: usize,
}

impl SendWr {
    /// One to be filled in its place in a queue.
    pub(crate) fn blank() -> Self {
        Self::new(Opcode::Send, Payload::Sges(SgeList::new()))
    }

    /// One without flags, without the peer's memory, and without a cookie.
    pub const fn new(opcode: Opcode, payload: Payload) -> Self {
        let (flags, remote_addr, remote_key, imm, invalidate_key, user) = (0, 0, 0, 0, 0, 0);
        Self { opcode, flags, payload, remote_addr, remote_key, imm, invalidate_key, user }
    }
}

/// A work request for the receive queue.
#[derive(Debug)]
pub struct RecvWr {
    /// Where the message goes.
    pub sges: SgeList,
    /// The caller's cookie.
    pub user: usize,
}

impl RecvWr {
    /// One to be filled in its place in a queue.
    pub(crate) fn blank() -> Self {
        Self { sges: SgeList::new(), user: 0 }
    }
}

/// Fills the request of this number of a batch, in its place in the queue: requests are too large to be passed on from call
/// to call.
pub type Fill<'a, W> = dyn FnMut(usize, &mut W) -> Result<()> + 'a;

/// The same for who has them by value.
pub fn by_value<W>(mut make: impl FnMut(usize) -> Result<W>) -> impl FnMut(usize, &mut W) -> Result<()> {
    move |index, place| {
        *place = make(index)?;
        Ok(())
    }
}

/// What a finished work request tells its poster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Which operation.
    pub opcode: Opcode,
    /// 0 or a negative errno; `-ECANCELED` = flushed.
    pub status: i32,
    /// The caller's cookie.
    pub user: usize,
    /// Octets received (Recv) or moved.
    pub length: u64,
    /// First octet of the received message (Recv), or 0.
    pub data: usize,
    /// Immediate data, where there is any.
    pub imm: Option<u32>,
    /// The key the peer invalidated, where it did.
    pub invalidated: Option<u32>,
    /// Solicited event.
    pub solicited: bool,
    /// Number of the library-owned buffer plus one, or 0 for one of the caller's.
    pub buffer: u64,
}

/// The reject reasons of `RCG_REJECT_*` in words: what a connect that was rejected tells.
pub fn reject_text(reason: u32) -> String {
    let word = match reason {
        0 => return "the peer rejected the connection".into(),
        1 => "stale",
        2 => "full",
        3 => "version",
        4 => "not authorised",
        5 => "the application said no",
        other => return format!("the peer rejected the connection with reason {other}"),
    };
    format!("the peer rejected the connection: {word}")
}

#[cfg(test)]
#[path = "work_test.rs"]
mod test;
