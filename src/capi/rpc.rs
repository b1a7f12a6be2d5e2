//! RPC-over-RDMA: attributes, calls, replies.

use std::ffi::{c_int, c_void};

use libc::iovec;

use super::conn::rcg_conn;
use super::ffi::{self, InArray, Versioned, VersionedOut, boundary, look_up};
use super::post::{pinned_all, rcg_sge};
use crate::error::{Error, Reason, Result};
use crate::rpc::{Call, Config, MessageView, Pads, Payload, Reply, Session};
use crate::wire::rpcrdma::Dialect;
use crate::work::Sge;

/// RPC flag: no private data, neither sent nor looked at: messages of 1024 octets in both directions, as before RFC 8797.
pub const RCG_RPC_NO_PRIVATE_DATA: u32 = 1;
/// RPC flag: the peer speaks GlusterFS's dialect, versions 3.4 to 7. A peer that calls is recognised by its calls.
pub const RCG_RPC_GLUSTERFS: u32 = 2;
/// RPC flag: payloads are octets, not XDR: no pad follows them, and messages may end anywhere, as in GlusterFS's programs.
pub const RCG_RPC_NO_PADS: u32 = 4;
/// RPC flag: a peer that says nothing in private data speaks GlusterFS's dialect.
pub const RCG_RPC_GLUSTERFS_IF_SILENT: u32 = 8;
/// RPC flag: a key that a call gives to memory of an arena is one to all that was allocated with it, and lives as long as the
/// connection: on devices a registration less for each call. The peer can reach that memory until then.
pub const RCG_RPC_STANDING_KEYS: u32 = 16;
/// RPC flag: RCG_EVENT_RPC_ANSWERED comes with the connection's next event, whenever that is, so that no thread is woken for
/// it. For servers that want their memory back, but not at once.
pub const RCG_RPC_ANSWERED_LATER: u32 = 32;

const KNOWN: u32 = RCG_RPC_NO_PRIVATE_DATA
    | RCG_RPC_GLUSTERFS
    | RCG_RPC_NO_PADS
    | RCG_RPC_GLUSTERFS_IF_SILENT
    | RCG_RPC_STANDING_KEYS
    | RCG_RPC_ANSWERED_LATER;

/// Most octets of an RPC message less what is taken out of it.
const MAX_HEAD: usize = 16 << 20;
/// Most results of a call.
const MAX_RESULTS: usize = 16;
/// Most elements of a payload, a result or a reply.
const MAX_PIECES: usize = 512;

/// Attributes of connections for RPC-over-RDMA (RFC 8166). Start from RCG_RPC_ATTR_INIT.
#[repr(C)]
pub struct rcg_rpc_attr {
    /// `sizeof(rcg_rpc_attr)`.
    pub size: usize,
    /// Calls outstanding at a time: for who connects those that it wants to make, for who listens those that each
    /// connection may have; 1 to 1024, 0 = 64.
    pub credits: u32,
    /// The same for calls in the other direction (RFC 8167); 1 to 1024, 0 = 16.
    pub backchannel: u32,
    /// Octets of the longest message to send, 1024 to 65536; 0 = 4096. The peer's word (RFC 8797) may make it less.
    pub inline_send: u32,
    /// Octets of each receive, likewise.
    pub inline_recv: u32,
    /// Octets that a peer's call may have in chunks, to 1 GiB; 0 = 1 MiB. Of all its calls together as many are read at a time, or
    /// 16 MiB where that is more; the others wait until some have been answered.
    pub max_payload: u32,
    /// RCG_RPC_NO_PRIVATE_DATA, RCG_RPC_GLUSTERFS, RCG_RPC_NO_PADS, RCG_RPC_GLUSTERFS_IF_SILENT, RCG_RPC_STANDING_KEYS,
    /// RCG_RPC_ANSWERED_LATER.
    pub flags: u32,
}

// SAFETY: `repr(C)`, `size` first, and zeros are a value of every member.
unsafe impl Versioned for rcg_rpc_attr {}

impl rcg_rpc_attr {
    /// `None` for NULL: no connections for RPC.
    ///
    /// # Safety
    /// `attr` is NULL or points to attributes of its `size`.
    pub(super) unsafe fn config(attr: *const Self) -> Result<Option<Config>> {
        if attr.is_null() {
            return Ok(None);
        }
        // SAFETY: by this function's contract.
        let attr: Self = unsafe { ffi::read_attr(attr) }?;
        ffi::check_zero(attr.flags & !KNOWN, "the unknown part of the RPC flags")?;
        Ok(Some(Config {
            credits: attr.credits,
            backchannel: attr.backchannel,
            inline_send: attr.inline_send as usize,
            inline_recv: attr.inline_recv as usize,
            max_payload: attr.max_payload as usize,
            silent: attr.flags & RCG_RPC_NO_PRIVATE_DATA != 0,
            dialect: if attr.flags & RCG_RPC_GLUSTERFS != 0 { Dialect::GlusterFs } else { Dialect::Rfc },
            standing_keys: attr.flags & RCG_RPC_STANDING_KEYS != 0,
            answered_later: attr.flags & RCG_RPC_ANSWERED_LATER != 0,
            gluster_if_silent: attr.flags & RCG_RPC_GLUSTERFS_IF_SILENT != 0,
            pads: if attr.flags & RCG_RPC_NO_PADS != 0 { Pads::None } else { Pads::Words },
        }))
    }
}

/// Registered memory, in pieces, that counts as one.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rcg_rpc_memory {
    /// Its pieces; none of them empty.
    pub sge: *const rcg_sge,
    /// Number of `sge`, to 512; 0 = none.
    pub nsge: u32,
    /// Of a payload: where in the head it belongs, behind the word that counts its octets: a multiple of 4. Else 0.
    pub at: u32,
}

/// A call. Start from RCG_RPC_REQUEST_INIT. What may leave the message is for the upper layer's binding to say (for NFS
/// RFC 8267); the library never guesses.
#[repr(C)]
pub struct rcg_rpc_request {
    /// `sizeof(rcg_rpc_request)`.
    pub size: usize,
    /// The RPC message less the payload, in pieces: the xid, 0 for a call, and so on. Copied.
    pub head: *const iovec,
    /// Number of `head`.
    pub nhead: usize,
    /// What the peer may read directly, if anything; the pad is not part of it. Its region has RCG_REMOTE_READ.
    pub payload: rcg_rpc_memory,
    /// Where the peer may write results directly, one for each that may be; each as long as the result at most. Their
    /// regions have RCG_REMOTE_WRITE.
    pub results: *const rcg_rpc_memory,
    /// Number of `results`, to 16.
    pub nresults: usize,
    /// Octets of the longest reply without such results.
    pub reply_max: usize,
    /// Where a reply goes that may be longer than a receive, `reply_max` octets; its region has RCG_REMOTE_WRITE.
    pub reply: rcg_rpc_memory,
    /// The caller's, in RCG_EVENT_RPC_REPLY.
    pub user: *mut c_void,
}

// SAFETY: `repr(C)`, `size` first, and zeros are a value of every member.
unsafe impl Versioned for rcg_rpc_request {}

/// A reply. Start from RCG_RPC_RESPONSE_INIT.
#[repr(C)]
pub struct rcg_rpc_response {
    /// `sizeof(rcg_rpc_response)`.
    pub size: usize,
    /// The RPC message less the payloads, in pieces: the call's xid, 1 for a reply, and so on. Copied.
    pub head: *const iovec,
    /// Number of `head`.
    pub nhead: usize,
    /// Results that may be placed directly, in the order of the call's `rooms`; where there is none for one it goes with
    /// the message. Their memory is the library's until RCG_EVENT_RPC_ANSWERED.
    pub payloads: *const rcg_rpc_memory,
    /// Number of `payloads`, to 16.
    pub npayloads: usize,
    /// The caller's, in RCG_EVENT_RPC_ANSWERED.
    pub user: *mut c_void,
}

// SAFETY: `repr(C)`, `size` first, and zeros are a value of every member.
unsafe impl Versioned for rcg_rpc_response {}

/// What an RPC connection has agreed on and done. Start from RCG_RPC_INFO_INIT.
#[repr(C)]
pub struct rcg_rpc_info {
    /// `sizeof(rcg_rpc_info)`.
    pub size: usize,
    /// Octets of the longest message to the peer.
    pub inline_send: u32,
    /// Octets of the longest message from it.
    pub inline_recv: u32,
    /// Calls that the peer grants now.
    pub credits: u32,
    /// RCG_RPC_GLUSTERFS: the peer speaks that dialect.
    pub flags: u32,
    /// Calls made.
    pub calls: u64,
    /// Calls taken.
    pub asked: u64,
    /// Read chunks offered, or read.
    pub read_chunks: u64,
    /// Write chunks offered, or written.
    pub write_chunks: u64,
    /// Reply chunks offered, or written.
    pub reply_chunks: u64,
    /// Messages that made no sense, and replies that nobody waits for.
    pub bad: u64,
    /// Errors of the transport's that were sent.
    pub errors: u64,
}

// SAFETY: `repr(C)`, `size` first, and zeros are a value of every member.
unsafe impl Versioned for rcg_rpc_info {}

// SAFETY: `repr(C)`, `size` first, numbers and pointers otherwise.
unsafe impl Versioned for MessageView {}

/// A message in pieces as one: copied, as its memory may be such that a peer writes to it.
///
/// # Safety
/// `first` is NULL or points to `count` vectors, each NULL or with as many readable octets as it says.
unsafe fn head(first: *const iovec, count: usize) -> Result<Vec<u8>> {
    // SAFETY: by this function's contract.
    let vectors = unsafe { InArray::new(first, count, "vectors of the head") }?;
    let total = vectors.iter().try_fold(0_usize, |total, vector| total.checked_add(vector.iov_len));
    let Some(total) = total.filter(|total| *total <= MAX_HEAD) else {
        let text = format!("the head of an RPC message is over the limit of {MAX_HEAD} octets");
        return Err(Error::new(libc::EMSGSIZE, Reason::Invalid, text));
    };
    let mut octets = Vec::<u8>::with_capacity(total);
    for vector in vectors.iter() {
        ffi::check_array(vector.iov_base, vector.iov_len, "octets of the head")?;
        let end = octets.len();
        if vector.iov_len > 0 && end + vector.iov_len <= total {
            // SAFETY: readable by this function's contract, and there is room for all of them.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    vector.iov_base.cast::<u8>(),
                    octets.as_mut_ptr().add(end),
                    vector.iov_len,
                );
                octets.set_len(end + vector.iov_len);
            }
        }
    }
    Ok(octets)
}

/// # Safety
/// `memory.sge` is NULL or points to as many elements as it says.
unsafe fn sges(memory: &rcg_rpc_memory) -> Result<Vec<Sge>> {
    let count = memory.nsge as usize;
    if count > MAX_PIECES {
        return Err(Error::invalid(format!("{count} pieces are over the limit of {MAX_PIECES}")));
    }
    // SAFETY: by this function's contract.
    pinned_all(unsafe { InArray::new(memory.sge, count, "pieces of memory") }?)
}

/// # Safety
/// As for [`sges`].
unsafe fn payload(memory: &rcg_rpc_memory) -> Result<Payload> {
    // SAFETY: by this function's contract.
    Ok(Payload { sges: unsafe { sges(memory) }?, at: memory.at as usize })
}

/// Each of an array of memory.
///
/// # Safety
/// `first` is NULL or points to `count` of them, as for [`sges`].
unsafe fn each<T>(
    first: *const rcg_rpc_memory,
    count: usize,
    take: impl Fn(&rcg_rpc_memory) -> Result<T>,
) -> Result<Vec<T>> {
    if count > MAX_RESULTS {
        return Err(Error::invalid(format!("{count} results are over the limit of {MAX_RESULTS}")));
    }
    // SAFETY: by this function's contract.
    let array = unsafe { InArray::new(first, count, "results") }?;
    array.iter().map(|memory| take(&memory)).collect()
}

/// Makes a call. Its RCG_EVENT_RPC_REPLY comes exactly once: with `status` 0 and the reply, -EREMOTEIO or -EPROTONOSUPPORT
/// the peer's transport refused it, -EBADMSG the reply made no sense, -ECANCELED the connection ended first. Until then
/// the memory of payload, results and reply is the library's. A call that there is no credit for waits here.
///
/// The side that was connected to may call, too, without payload that leaves the message, results or a long reply.
///
/// `request`, and what it points to but the regions' memory: read during the call only.
/// Thread rule: any thread; also from callbacks.
/// Returns 0; -EAGAIN: as many calls as `credits` says are outstanding; -EEXIST: one with this xid is; -ENOTCONN: not
/// established, or ended; -EMSGSIZE: over the inline threshold, where no chunks are allowed; -EACCES: a region lacks a
/// right; -ENOMEM; -EINVAL, -E2BIG: not an RPC call, no memory for a long reply, too many pieces, NULL, not a connection
/// for RPC; -EBADF: not a live connection or region. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_rpc_call(conn: *mut rcg_conn, request: *const rcg_rpc_request) -> c_int {
    boundary("rcg_rpc_call", || {
        let conn = look_up(conn)?;
        let session = Session::of(&conn)?;
        // SAFETY: by this function's contract.
        let request: rcg_rpc_request = unsafe { ffi::read_attr(request) }?;
        // SAFETY: as above.
        let call = unsafe {
            Call {
                head: head(request.head, request.nhead)?,
                payload: Some(payload(&request.payload)?).filter(|payload| !payload.sges.is_empty()),
                results: each(request.results, request.nresults, |memory| sges(memory))?,
                reply_max: request.reply_max,
                reply: sges(&request.reply)?,
                user: request.user as usize,
            }
        };
        session.call(&conn, call).map(|()| 0)
    })
}

/// Answers a call. On success RCG_EVENT_RPC_ANSWERED comes exactly once, with which the payloads' memory is the caller's
/// again, and what the call's event has told as lent is gone. On failure the call is still to be answered.
///
/// `call`: of rcg_rpc_msg. `response`, and what it points to but the regions' memory: read during the call only.
/// Thread rule: any thread; also from callbacks.
/// Returns 0; -EMSGSIZE: longer than what the call has room for; -ENOENT: no such call, or it has been answered; -ENOTCONN:
/// the connection has ended; -ENOMEM; -EINVAL, -E2BIG: not a reply to this call, too many pieces, NULL, not a connection
/// for RPC; -EBADF: not a live connection or region. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_rpc_reply(
    conn: *mut rcg_conn,
    call: u64,
    response: *const rcg_rpc_response,
) -> c_int {
    boundary("rcg_rpc_reply", || {
        let conn = look_up(conn)?;
        let session = Session::of(&conn)?;
        // SAFETY: by this function's contract.
        let response: rcg_rpc_response = unsafe { ffi::read_attr(response) }?;
        // SAFETY: as above.
        let reply = unsafe {
            Reply {
                head: head(response.head, response.nhead)?,
                payloads: each(response.payloads, response.npayloads, |memory| payload(memory))?,
                user: response.user as usize,
            }
        };
        session.reply(&conn, call, reply).map(|()| 0)
    })
}

/// Answers a call with the transport's ERR_CHUNK: where the call has too little room for the reply.
///
/// Thread rule: any thread; also from callbacks.
/// Returns 0; -ENOENT: no such call, or it has been answered; -ENOTCONN: the connection has ended; -EINVAL: NULL, or not a
/// connection for RPC; -EBADF: not a live connection. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_rpc_refuse(conn: *mut rcg_conn, call: u64) -> c_int {
    boundary("rcg_rpc_refuse", || {
        let conn = look_up(conn)?;
        Session::of(&conn)?.refuse(&conn, call).map(|()| 0)
    })
}

/// What a connection for RPC has agreed on and done.
///
/// `info`: filled on success, as far as its `size` says.
/// Thread rule: any thread; also from callbacks.
/// Returns 0; -EINVAL: NULL, no `size`, or not a connection for RPC; -EBADF: not a live connection. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_rpc_query(conn: *mut rcg_conn, info: *mut rcg_rpc_info) -> c_int {
    boundary("rcg_rpc_query", || {
        // SAFETY: by this function's contract.
        let out = unsafe { VersionedOut::new(info) }?;
        let conn = look_up(conn)?;
        let (terms, counters) = Session::of(&conn)?.info();
        Ok(out.set(&rcg_rpc_info {
            size: 0,
            inline_send: terms.inline_send as u32,
            inline_recv: terms.inline_recv as u32,
            credits: terms.credits,
            flags: if terms.dialect == Dialect::GlusterFs { RCG_RPC_GLUSTERFS } else { 0 },
            calls: counters.calls,
            asked: counters.asked,
            read_chunks: counters.reads,
            write_chunks: counters.writes,
            reply_chunks: counters.replies,
            bad: counters.bad,
            errors: counters.errors,
        }))
    })
}
