//! Work requests and completions in the layout of verbs.

use std::marker::PhantomData;
use std::mem::{MaybeUninit, zeroed};
use std::ptr::{self, NonNull};

use rdma_sys::{ibv_wc_opcode, ibv_wr_opcode};

use super::failed_with;
use crate::error::Result;
use crate::verbs::types::{PostFailure, QpCaps, Wc, WrKind};

impl QpCaps {
    pub(super) fn to_raw(self) -> rdma_sys::ibv_qp_cap {
        rdma_sys::ibv_qp_cap {
            max_send_wr: self.send_wr,
            max_recv_wr: self.recv_wr,
            max_send_sge: self.send_sge,
            max_recv_sge: self.recv_sge,
            max_inline_data: self.inline,
        }
    }

    pub(super) fn from_raw(raw: &rdma_sys::ibv_qp_cap) -> Self {
        Self {
            send_wr: raw.max_send_wr,
            recv_wr: raw.max_recv_wr,
            send_sge: raw.max_send_sge,
            recv_sge: raw.max_recv_sge,
            inline: raw.max_inline_data,
        }
    }
}

impl Wc {
    pub(super) fn from_raw(raw: &rdma_sys::ibv_wc) -> Self {
        let has = |flag: rdma_sys::ibv_wc_flags| raw.wc_flags & flag.0 != 0;
        // SAFETY: both members are 32 bits wide, and the flags say which one it is.
        let word = unsafe { raw.imm_data_invalidated_rkey_union.invalidated_rkey };
        let received = raw.status == 0 && raw.opcode & ibv_wc_opcode::IBV_WC_RECV != 0;
        Self {
            id: raw.wr_id,
            status: raw.status,
            vendor_error: raw.vendor_err,
            length: raw.byte_len,
            imm: (received && has(rdma_sys::ibv_wc_flags::IBV_WC_WITH_IMM)).then(|| u32::from_be(word)),
            invalidated: (received && has(rdma_sys::ibv_wc_flags::IBV_WC_WITH_INV)).then_some(word),
        }
    }
}

/// Work requests that one doorbell can ring for.
const CHAIN: usize = 32;
/// Elements in all of them.
const CHAIN_SGES: usize = 64;

/// Work requests being gathered for one doorbell. They are linked only when they are posted, so that a chain can move.
pub(crate) struct Chain<W> {
    requests: [MaybeUninit<W>; CHAIN],
    /// Where the elements of each request begin.
    begins: [u8; CHAIN],
    sges: [MaybeUninit<rdma_sys::ibv_sge>; CHAIN_SGES],
    count: usize,
    used: usize,
}

/// Requests for the send queue.
pub(crate) type SendChain = Chain<rdma_sys::ibv_send_wr>;
/// Requests for the receive queue.
pub(crate) type RecvChain = Chain<rdma_sys::ibv_recv_wr>;

/// What both kinds of request have.
pub(crate) trait Linked {
    fn link(&mut self, next: *mut Self, sges: *mut rdma_sys::ibv_sge);
}

impl Linked for rdma_sys::ibv_send_wr {
    fn link(&mut self, next: *mut Self, sges: *mut rdma_sys::ibv_sge) {
        self.next = next;
        self.sg_list = sges;
    }
}

impl Linked for rdma_sys::ibv_recv_wr {
    fn link(&mut self, next: *mut Self, sges: *mut rdma_sys::ibv_sge) {
        self.next = next;
        self.sg_list = sges;
    }
}

impl<W> Default for Chain<W> {
    fn default() -> Self {
        Self {
            requests: [const { MaybeUninit::uninit() }; CHAIN],
            begins: [0; CHAIN],
            sges: [const { MaybeUninit::uninit() }; CHAIN_SGES],
            count: 0,
            used: 0,
        }
    }
}

impl<W: Linked> Chain<W> {
    /// Whether one more request with this many elements fits.
    pub(crate) fn has_room(&self, sges: usize) -> bool {
        self.count < CHAIN && self.used + sges <= CHAIN_SGES
    }

    /// How many requests there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Takes an element of the request that is added next.
    pub(crate) fn element(&mut self, addr: u64, length: u32, lkey: u32) {
        if let Some(slot) = self.sges.get_mut(self.used) {
            slot.write(rdma_sys::ibv_sge { addr, length, lkey });
            self.used += 1;
        }
    }

    /// Adds a request on the last `sges` elements.
    fn add(&mut self, request: W, sges: usize) {
        let (Some(slot), Some(begin)) = (self.requests.get_mut(self.count), self.begins.get_mut(self.count))
        else {
            return;
        };
        slot.write(request);
        *begin = self.used.saturating_sub(sges) as u8;
        self.count += 1;
    }

    /// Links the requests; returns the first. What it points to is valid until the chain moves or changes.
    fn link(&mut self) -> *mut W {
        let first: *mut W = self.requests.as_mut_ptr().cast();
        let sges: *mut rdma_sys::ibv_sge = self.sges.as_mut_ptr().cast();
        for (index, begin) in self.begins.iter().take(self.count).enumerate() {
            let last = index + 1 == self.count;
            let next = if last { ptr::null_mut() } else { first.wrapping_add(index + 1) };
            // SAFETY: `add` has written the first `count` requests.
            unsafe { (*first.wrapping_add(index)).link(next, sges.wrapping_add(usize::from(*begin))) };
        }
        first
    }

    /// Empties the chain after a doorbell; of one that failed at `bad` also tells how many were posted.
    fn finish(&mut self, what: &str, code: i32, bad: *mut W) -> std::result::Result<(), PostFailure> {
        let at = (bad as usize).wrapping_sub(self.requests.as_ptr() as usize) / size_of::<W>().max(1);
        let posted = if bad.is_null() || at >= self.count { 0 } else { at };
        self.count = 0;
        self.used = 0;
        if code == 0 { Ok(()) } else { Err(PostFailure { posted, error: failed_with(what, code) }) }
    }
}

impl SendChain {
    /// Adds a request on the last `sges` elements. `remote`: address and key in the peer's memory.
    pub(crate) fn send(&mut self, id: u64, kind: WrKind, flags: u32, sges: usize, remote: (u64, u32)) {
        let (opcode, word) = match kind {
            WrKind::Send => (ibv_wr_opcode::IBV_WR_SEND, 0),
            WrKind::SendImm(imm) => (ibv_wr_opcode::IBV_WR_SEND_WITH_IMM, imm.to_be()),
            WrKind::SendInvalidate(key) => (ibv_wr_opcode::IBV_WR_SEND_WITH_INV, key),
            WrKind::Write => (ibv_wr_opcode::IBV_WR_RDMA_WRITE, 0),
            WrKind::WriteImm(imm) => (ibv_wr_opcode::IBV_WR_RDMA_WRITE_WITH_IMM, imm.to_be()),
            WrKind::Read => (ibv_wr_opcode::IBV_WR_RDMA_READ, 0),
        };
        // SAFETY: all zeros is a valid value of this C struct.
        let mut wr: rdma_sys::ibv_send_wr = unsafe { zeroed() };
        wr.wr_id = id;
        wr.num_sge = sges as i32;
        wr.send_flags = flags;
        wr.opcode = opcode;
        wr.imm_data_invalidated_rkey_union.invalidated_rkey = word;
        wr.wr.rdma = rdma_sys::rdma_t { remote_addr: remote.0, rkey: remote.1 };
        self.add(wr, sges);
    }
}

impl RecvChain {
    /// Adds a receive on the last `sges` elements.
    pub(crate) fn recv(&mut self, id: u64, sges: usize) {
        let (next, sg_list) = (ptr::null_mut(), ptr::null_mut());
        self.add(rdma_sys::ibv_recv_wr { wr_id: id, next, sg_list, num_sge: sges as i32 }, sges);
    }
}

/// The queue pair of an id, while the id is borrowed.
pub(crate) struct RawQp<'a> {
    raw: NonNull<rdma_sys::ibv_qp>,
    _id: PhantomData<&'a ()>,
}

impl<'a> RawQp<'a> {
    pub(super) fn new<T>(raw: NonNull<rdma_sys::ibv_qp>, _id: &'a T) -> Self {
        Self { raw, _id: PhantomData }
    }

    /// `ibv_post_send` of the chain, which is empty afterwards.
    ///
    /// # Safety
    /// The memory of all elements stays valid, and its registrations too, until the requests have completed or the queue
    /// pair is destroyed.
    pub(crate) unsafe fn post_send(&self, chain: &mut SendChain) -> std::result::Result<(), PostFailure> {
        let mut bad = ptr::null_mut();
        // SAFETY: the queue pair is alive and the chain well formed; its memory by this function's contract.
        let code = unsafe { rdma_sys::ibv_post_send(self.raw.as_ptr(), chain.link(), &raw mut bad) };
        chain.finish("ibv_post_send", code, bad)
    }

    /// `ibv_post_recv` of the chain, which is empty afterwards.
    ///
    /// # Safety
    /// As for [`RawQp::post_send`].
    pub(crate) unsafe fn post_recv(&self, chain: &mut RecvChain) -> std::result::Result<(), PostFailure> {
        let mut bad = ptr::null_mut();
        // SAFETY: as in `post_send`.
        let code = unsafe { rdma_sys::ibv_post_recv(self.raw.as_ptr(), chain.link(), &raw mut bad) };
        chain.finish("ibv_post_recv", code, bad)
    }

    /// Sets how long a peer is to wait that met no receive, in the encoding of InfiniBand.
    pub(crate) fn set_rnr_timer(&self, timer: u8) -> Result<()> {
        // SAFETY: all zeros is a valid value of this C struct.
        let mut attr: rdma_sys::ibv_qp_attr = unsafe { zeroed() };
        attr.qp_state = rdma_sys::ibv_qp_state::IBV_QPS_RTS;
        attr.min_rnr_timer = timer;
        let mask =
            rdma_sys::ibv_qp_attr_mask::IBV_QP_STATE.0 | rdma_sys::ibv_qp_attr_mask::IBV_QP_MIN_RNR_TIMER.0;
        self.modify(&mut attr, mask)
    }

    fn modify(&self, attr: &mut rdma_sys::ibv_qp_attr, mask: u32) -> Result<()> {
        // SAFETY: the queue pair is alive, and the attributes live for the call.
        let code = unsafe { rdma_sys::ibv_modify_qp(self.raw.as_ptr(), attr, mask as i32) };
        if code == 0 { Ok(()) } else { Err(failed_with("ibv_modify_qp", code)) }
    }

    /// Moves the queue pair to the error state: everything posted is flushed.
    pub(crate) fn fail(&self) -> Result<()> {
        // SAFETY: all zeros is a valid value of this C struct.
        let mut attr: rdma_sys::ibv_qp_attr = unsafe { zeroed() };
        attr.qp_state = rdma_sys::ibv_qp_state::IBV_QPS_ERR;
        self.modify(&mut attr, rdma_sys::ibv_qp_attr_mask::IBV_QP_STATE.0)
    }
}
