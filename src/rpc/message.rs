//! What callers give to a session and get from it.

use std::ffi::c_void;

use super::layout::Pads;
use crate::engine::Event;
use crate::memory::Block;
use crate::work::Sge;

/// Octets that may be placed directly: they leave the message, in which they would stand at `at`.
#[derive(Debug)]
pub struct Payload {
    /// Where they are.
    pub sges: Vec<Sge>,
    /// Offset in the head: behind the word that counts them. A multiple of 4.
    pub at: usize,
}

impl Payload {
    /// Octets, without a pad.
    pub(super) fn len(&self) -> usize {
        octets(&self.sges)
    }
}

/// Octets of elements.
pub(super) fn octets(sges: &[Sge]) -> usize {
    sges.iter().map(Sge::len).sum()
}

/// The whole message: the head with payloads and their pads in it, which stand in their order.
pub(super) fn merged(head: &[u8], payloads: &[Payload], pads: Pads) -> Vec<u8> {
    let more: usize = payloads.iter().map(|payload| pads.of(payload.len())).sum();
    let mut whole = Vec::with_capacity(head.len() + more);
    let mut done = 0;
    for payload in payloads {
        whole.extend_from_slice(head.get(done..payload.at).unwrap_or_default());
        for sge in &payload.sges {
            let at = whole.len();
            whole.resize(at + sge.len(), 0);
            sge.read(0, whole.get_mut(at..).unwrap_or_default());
        }
        whole.resize(whole.len() + pads.of(payload.len()) - payload.len(), 0);
        done = payload.at;
    }
    whole.extend_from_slice(head.get(done..).unwrap_or_default());
    whole
}

/// A call to make.
#[derive(Debug, Default)]
pub struct Call {
    /// The RPC message less the payload; begins with the xid.
    pub head: Vec<u8>,
    /// What the upper layer allows to be read by the peer.
    pub payload: Option<Payload>,
    /// Where results may be placed, for each that may be.
    pub results: Vec<Vec<Sge>>,
    /// The longest reply without such results.
    pub reply_max: usize,
    /// Where a reply goes that is longer than a receive.
    pub reply: Vec<Sge>,
    /// Cookie of the caller's.
    pub user: usize,
}

/// A reply to give.
#[derive(Debug, Default)]
pub struct Reply {
    /// The RPC message less the payloads; begins with the xid.
    pub head: Vec<u8>,
    /// Results that may be placed directly, in the order of the places that the call has offered.
    pub payloads: Vec<Payload>,
    /// Cookie of the caller's.
    pub user: usize,
}

/// A part of a message that has been taken out of it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PieceView {
    /// First octet, or NULL: of a result it is the caller's memory.
    pub addr: *mut c_void,
    /// Octets; may or may not include XDR's pad.
    pub length: usize,
    /// Where in `data` it belongs; 0 for results.
    pub at: usize,
}

/// What an event about an RPC message says besides.
#[repr(C)]
#[derive(Debug)]
pub struct MessageView {
    /// `sizeof(rcg_rpc_msg)` of whoever made it.
    pub size: usize,
    /// Names the call to rcg_rpc_reply() and rcg_rpc_refuse(); 0 = none.
    pub call: u64,
    /// The message's identifier.
    pub xid: u32,
    /// Calls that may be outstanding: of a call those that its sender asks for, of a reply those that are granted.
    pub credits: u32,
    /// Of a call the arguments that were taken out of `data`; of a reply how much of each result was placed.
    pub pieces: *const PieceView,
    /// Number of `pieces`.
    pub npieces: usize,
    /// Of a call: octets that each result may have, in their order, to be placed directly.
    pub rooms: *const u64,
    /// Number of `rooms`.
    pub nrooms: usize,
    /// Of a call: octets that the reply may have without such results.
    pub reply_max: u64,
}

/// A message, and what of it lies elsewhere.
pub struct Message {
    view: MessageView,
    /// What arrived with the receive.
    inline: Vec<u8>,
    pieces: Vec<PieceView>,
    rooms: Vec<u64>,
    /// What was read from the peer.
    blocks: Vec<Block>,
}

// SAFETY: the pointers are to memory that the message owns and does not change, or to the caller's, which is only named.
unsafe impl Send for Message {}
// SAFETY: as above.
unsafe impl Sync for Message {}

/// What a message is made of.
pub(super) struct Parts {
    pub(super) call: u64,
    pub(super) xid: u32,
    pub(super) credits: u32,
    pub(super) inline: Vec<u8>,
    pub(super) pieces: Vec<PieceView>,
    pub(super) rooms: Vec<u64>,
    pub(super) reply_max: u64,
    pub(super) blocks: Vec<Block>,
}

impl Message {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { call, xid, credits, inline, pieces, rooms, reply_max, blocks } = parts;
        let view = MessageView {
            size: size_of::<MessageView>(),
            call,
            xid,
            credits,
            pieces: pieces.as_ptr(),
            npieces: pieces.len(),
            rooms: rooms.as_ptr(),
            nrooms: rooms.len(),
            reply_max,
        };
        Self { view, inline, pieces, rooms, blocks }
    }

    /// That of an event, if it has one.
    pub fn of(event: &Event) -> Option<&Self> {
        event.attached.as_deref().and_then(|attached| attached.downcast_ref())
    }

    /// As C sees it.
    pub fn view(&self) -> &MessageView {
        &self.view
    }

    /// Names the call.
    pub fn call(&self) -> u64 {
        self.view.call
    }

    /// The message that arrived with the receive.
    pub fn inline(&self) -> &[u8] {
        &self.inline
    }

    /// What was taken out of it.
    pub fn pieces(&self) -> &[PieceView] {
        &self.pieces
    }

    /// Octets that results may have, each.
    pub fn rooms(&self) -> &[u64] {
        &self.rooms
    }

    /// The memory that it holds.
    pub(super) fn into_blocks(self) -> Vec<Block> {
        self.blocks
    }
}
