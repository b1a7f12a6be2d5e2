//! Posting operations and receives: the hot path, so nothing here allocates unless it fails.

use std::ffi::{c_int, c_void};

use arrayvec::ArrayVec;

use super::conn::rcg_conn;
use super::event::{RCG_EVENT_LENT, rcg_event};
use super::ffi::{self, InArray, boundary, look_up};
use super::memory::rcg_mr;
use crate::error::{Error, Reason, Result};
use crate::work::{Fill, MAX_INLINE, MAX_SGE, Opcode, Payload, RecvWr, SendWr, Sge, SgeList, flags};

/// Operation: Send.
pub const RCG_SEND: u32 = 1;
/// Operation: Send with four octets of immediate data.
pub const RCG_SEND_IMM: u32 = 2;
/// Operation: Send that invalidates a key of the peer's.
pub const RCG_SEND_INV: u32 = 3;
/// Operation: RDMA Write.
pub const RCG_WRITE: u32 = 4;
/// Operation: RDMA Write, then four octets of immediate data that use up a receive of the peer's.
pub const RCG_WRITE_IMM: u32 = 5;
/// Operation: RDMA Read.
pub const RCG_READ: u32 = 6;
/// Operation: a receive; only in events.
pub const RCG_RECV: u32 = 7;

/// Operation flag: a completion is wanted; without it only a failure has one.
pub const RCG_SIGNALED: u32 = 1;
/// Operation flag: begins only when all earlier RDMA Reads of the connection are finished.
pub const RCG_FENCE: u32 = 2;
/// Operation flag: the payload, at most `max_inline` octets, is copied before rcg_post() returns; `mr` may be NULL.
pub const RCG_INLINE: u32 = 4;
/// Operation flag: asks for the receiver's attention.
pub const RCG_SOLICITED: u32 = 8;

/// A scatter/gather element: a piece of a region.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rcg_sge {
    /// Its first octet.
    pub addr: *mut c_void,
    /// Its length in octets.
    pub length: usize,
    /// The region that it lies in.
    pub mr: *mut rcg_mr,
}

/// An operation. Made by RCG_OP_SEND() and its kin, or by hand; what is not used is zero.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rcg_op {
    /// RCG_SEND to RCG_READ.
    pub opcode: u32,
    /// RCG_SIGNALED, RCG_FENCE, RCG_INLINE, RCG_SOLICITED.
    pub flags: u32,
    /// What to send or, for RCG_READ, where the octets go.
    pub sge: *const rcg_sge,
    /// Number of `sge`; at most `max_sge`.
    pub nsge: u32,
    /// Immediate data, in host order.
    pub imm: u32,
    /// Address in the peer's memory.
    pub remote_addr: u64,
    /// The peer's key to it.
    pub remote_key: u32,
    /// RCG_SEND_INV: the peer's key that ends.
    pub invalidate_key: u32,
    /// The caller's, in the completion.
    pub user: *mut c_void,
    /// With RCG_INLINE and no `sge`: the payload.
    pub copy: *const c_void,
    /// Octets of `copy`.
    pub copy_len: u32,
    /// Must be 0.
    pub reserved: u32,
}

/// A receive.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rcg_recv {
    /// Where the message goes.
    pub sge: *const rcg_sge,
    /// Number of `sge`; at most `max_sge`.
    pub nsge: u32,
    /// Must be 0.
    pub reserved: u32,
    /// The caller's, in the event.
    pub user: *mut c_void,
}

/// # Safety
/// `first` is NULL or points to `nsge` elements.
unsafe fn elements(first: *const rcg_sge, nsge: u32) -> Result<InArray<rcg_sge>> {
    let count = nsge as usize;
    if count > MAX_SGE {
        return Err(Error::invalid(format!(
            "{count} scatter/gather elements are over the limit of {MAX_SGE}"
        )));
    }
    // SAFETY: by this function's contract.
    unsafe { InArray::new(first, count, "scatter/gather elements") }
}

/// An element in its region, which stays registered until whatever uses it is finished.
fn pin(sge: &rcg_sge) -> Result<Sge> {
    look_up(sge.mr)?.sge(sge.addr.cast(), sge.length)
}

/// The same of many.
pub(super) fn pinned_all(elements: InArray<rcg_sge>) -> Result<Vec<Sge>> {
    elements.iter().map(|sge| pin(&sge)).collect()
}

/// The same of as many as one operation can have.
fn pin_into(list: &mut SgeList, elements: InArray<rcg_sge>) -> Result<()> {
    for sge in elements.iter() {
        let piece = pin(&sge)?;
        list.try_push(piece).map_err(|_| Error::invalid("too many scatter/gather elements"))?;
    }
    Ok(())
}

/// Appends `length` octets at `from` to an inline payload.
///
/// # Safety
/// `from` is NULL or points to `length` readable octets.
unsafe fn append(octets: &mut ArrayVec<u8, MAX_INLINE>, from: *const c_void, length: usize) -> Result<()> {
    if length > octets.remaining_capacity() {
        let text = format!("an inline payload is over the limit of {MAX_INLINE} octets");
        return Err(Error::new(libc::EMSGSIZE, Reason::Invalid, text));
    }
    ffi::check_array(from, length, "octets of the payload")?;
    if length > 0 {
        let end = octets.len();
        // SAFETY: readable by this function's contract, and there is room; raw pointers, as the source may be memory
        // that a peer writes to.
        unsafe {
            std::ptr::copy_nonoverlapping(from.cast::<u8>(), octets.as_mut_ptr().add(end), length);
            octets.set_len(end + length);
        }
    }
    Ok(())
}

/// # Safety
/// The operation's pointers are NULL or valid, as rcg_post() says.
unsafe fn fill_payload(op: &rcg_op, payload: &mut Payload) -> Result<()> {
    // SAFETY: by this function's contract.
    let elements = unsafe { elements(op.sge, op.nsge) }?;
    let copies = op.copy_len > 0 || !op.copy.is_null();
    if op.flags & flags::INLINE == 0 {
        if copies {
            return Err(Error::invalid("copy goes with RCG_INLINE only"));
        }
        *payload = Payload::Sges(SgeList::new());
        return if let Payload::Sges(list) = payload { pin_into(list, elements) } else { Ok(()) };
    }
    if copies && op.nsge > 0 {
        return Err(Error::invalid("both copy and sge are given"));
    }
    *payload = Payload::Inline(ArrayVec::new());
    let Payload::Inline(octets) = payload else { return Ok(()) };
    // SAFETY: by this function's contract.
    unsafe { append(octets, op.copy, op.copy_len as usize) }?;
    for sge in elements.iter() {
        // SAFETY: as above.
        unsafe { append(octets, sge.addr, sge.length) }?;
    }
    Ok(())
}

/// # Safety
/// As for [`fill_payload`].
unsafe fn fill_send(op: &rcg_op, wr: &mut SendWr) -> Result<()> {
    let opcode = Opcode::from_u32(op.opcode).filter(|opcode| *opcode != Opcode::Recv);
    let opcode = opcode.ok_or_else(|| Error::invalid(format!("{} is no operation to post", op.opcode)))?;
    ffi::check_zero(op.flags & !flags::ALL, "the unknown part of the flags")?;
    ffi::check_zero(op.reserved, "reserved")?;
    if opcode == Opcode::Read && op.flags & flags::INLINE != 0 {
        return Err(Error::invalid("an RDMA Read can't be inline"));
    }
    // SAFETY: by this function's contract.
    unsafe { fill_payload(op, &mut wr.payload) }?;
    wr.opcode = opcode;
    wr.flags = op.flags;
    wr.remote_addr = op.remote_addr;
    wr.remote_key = op.remote_key;
    wr.imm = op.imm;
    wr.invalidate_key = op.invalidate_key;
    wr.user = op.user as usize;
    Ok(())
}

/// # Safety
/// The receive's elements are as many as it says.
unsafe fn fill_recv(recv: &rcg_recv, wr: &mut RecvWr) -> Result<()> {
    ffi::check_zero(recv.reserved, "reserved")?;
    // SAFETY: by this function's contract.
    let elements = unsafe { elements(recv.sge, recv.nsge) }?;
    wr.user = recv.user as usize;
    pin_into(&mut wr.sges, elements)
}

/// Has `post` fill its requests from an array, and says at which element it failed.
fn each<T: Copy, W>(
    array: InArray<T>,
    fill: impl Fn(&T, &mut W) -> Result<()>,
    post: impl FnOnce(&mut Fill<'_, W>) -> Result<()>,
) -> Result<c_int> {
    let mut at = None;
    let result = post(&mut |index, wr| {
        at = Some(index);
        array
            .get(index)
            .ok_or_else(|| Error::new(libc::EIO, Reason::Internal, "no such element"))
            .and_then(|t| fill(&t, wr))
    });
    result.map(|()| 0).map_err(|error| match at {
        Some(index) => Error { text: format!("number {index}: {}", error.text).into(), ..error },
        None => error,
    })
}

/// Posts `n` operations, all or none, on the calling thread. They are done in order. Each with RCG_SIGNALED has one
/// RCG_EVENT_COMPLETION; one without has one only if it fails. Until it is finished its memory is not to be changed,
/// unless it was RCG_INLINE, and its region can't be deregistered. Operations without RCG_SIGNALED are known to be
/// finished when a later one's completion comes.
///
/// `ops`, and the `sge` in them: read during the call only.
/// Thread rule: any thread; also from callbacks.
/// Returns 0; -EAGAIN: the queue has no room for `n`, wait for completions; -ENOTCONN: not established, or ended;
/// -EMSGSIZE: inline, or at all, too long; -EOPNOTSUPP: the peer or the provider can't do this; -EINVAL: NULL, unknown
/// operation or flag, more than the queue can ever hold, or memory outside its region; -EBADF: not a live connection or
/// region. rcg_last_error() says which operation it was, counted from 0. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_post(conn: *mut rcg_conn, ops: *const rcg_op, n: usize) -> c_int {
    boundary("rcg_post", || {
        let conn = look_up(conn)?;
        if conn.upper().is_some() {
            return Err(Error::invalid("the operations of a connection for RPC are the library's"));
        }
        // SAFETY: by this function's contract.
        let ops = unsafe { InArray::new(ops, n, "operations") }?;
        // SAFETY: as above.
        each(ops, |op, wr| unsafe { fill_send(op, wr) }, |fill| conn.post(n, fill))
    })
}

/// Posts `n` receives, all or none; messages use them up in order, each with one RCG_EVENT_RECV. Allowed from
/// rcg_connect() or RCG_EVENT_CONNECT_REQUEST on; not for connections with receive buffers of the library's.
///
/// `recvs`, and the `sge` in them: read during the call only.
/// Thread rule: any thread; also from callbacks.
/// Returns 0; -EAGAIN: the queue has no room for `n`; -ENOTCONN: ended; -EINVAL: NULL, more than the queue can ever hold,
/// memory outside its region, or receive buffers of the library's; -EBADF: not a live connection or region.
/// rcg_last_error() says which receive it was, counted from 0. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_post_recv(conn: *mut rcg_conn, recvs: *const rcg_recv, n: usize) -> c_int {
    boundary("rcg_post_recv", || {
        let conn = look_up(conn)?;
        // SAFETY: by this function's contract.
        let recvs = unsafe { InArray::new(recvs, n, "receives") }?;
        // SAFETY: as above.
        each(recvs, |recv, wr| unsafe { fill_recv(recv, wr) }, |fill| conn.post_recv(n, fill))
    })
}

/// Gives the lent buffer of an RCG_EVENT_RECV with RCG_EVENT_LENT back to the library, which receives into it again.
/// May be done later than the event, from a copy of it; `conn`, `flags` and `buffer` are looked at.
///
/// Thread rule: any thread; also from callbacks.
/// Returns 0; -EINVAL: NULL, not a lent buffer of this connection, or given back already; -EBADF: not a live
/// connection: its buffers are gone with it. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_recv_release(conn: *mut rcg_conn, event: *const rcg_event) -> c_int {
    boundary("rcg_recv_release", || {
        let of = look_up(conn)?;
        // SAFETY: by this function's contract.
        let event = unsafe { InArray::new(event, 1, "events") }?.get(0);
        let lent = event.filter(|event| event.flags & RCG_EVENT_LENT != 0 && event.conn == conn);
        let buffer =
            lent.ok_or_else(|| Error::invalid("the event lends no buffer of this connection"))?.buffer;
        of.release(buffer).map(|()| 0)
    })
}
