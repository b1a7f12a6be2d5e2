//! `rcg_conn`: answering, leaving and asking about a connection.

use std::ffi::{c_char, c_int, c_void};
use std::mem::offset_of;
use std::sync::Arc;

use libc::sockaddr_storage;

use super::ffi::{self, Handle, Versioned, VersionedOut, boundary, look_up};
use super::listener::storage;
use crate::engine::{AcceptConfig, Conn, ConnInfo, Object};
use crate::error::Result;

/// A connection. Pointers to it are handles, never to be dereferenced; they are valid until RCG_EVENT_CLOSED.
pub struct rcg_conn {
    _private: [u8; 0],
}

impl Handle for rcg_conn {
    type Target = Conn;
    const NAME: &'static str = "rcg_conn";
    fn pick(object: Object) -> Option<Arc<Conn>> {
        if let Object::Conn(conn) = object { Some(conn) } else { None }
    }
}

/// Reject reason: none given.
pub const RCG_REJECT_UNSPECIFIED: u32 = 0;
/// Reject reason: the peer speaks of something that is no more.
pub const RCG_REJECT_STALE: u32 = 1;
/// Reject reason: no room for one more.
pub const RCG_REJECT_FULL: u32 = 2;
/// Reject reason: the versions do not fit.
pub const RCG_REJECT_VERSION: u32 = 3;
/// Reject reason: not permitted.
pub const RCG_REJECT_AUTH: u32 = 4;
/// Reject reason: the private data say more.
pub const RCG_REJECT_APP: u32 = 5;

/// State: on the way to the peer.
pub const RCG_STATE_CONNECTING: u32 = 1;
/// State: the peer's request waits for rcg_accept() or rcg_reject().
pub const RCG_STATE_REQUESTED: u32 = 2;
/// State: accepted, not yet established.
pub const RCG_STATE_ACCEPTING: u32 = 3;
/// State: operations run.
pub const RCG_STATE_ESTABLISHED: u32 = 4;
/// State: it is ending.
pub const RCG_STATE_DISCONNECTING: u32 = 5;
/// State: it has ended.
pub const RCG_STATE_CLOSED: u32 = 6;

/// Capability: RCG_SEND_IMM and RCG_WRITE_IMM. Not over iWARP devices; with provider iwarp to peers of this library.
pub const RCG_CAP_IMMEDIATE: u32 = 1;
/// Capability: RCG_SEND_INV. Not over soft iWARP devices of the kernel.
pub const RCG_CAP_INVALIDATE: u32 = 2;

/// Attributes of an accept. Start from RCG_ACCEPT_ATTR_INIT.
#[repr(C)]
pub struct rcg_accept_attr {
    /// `sizeof(rcg_accept_attr)`.
    pub size: usize,
    /// The caller's, in all events of the connection from now on; NULL = the listener's.
    pub context: *mut c_void,
    /// For the peer's application, which gets it with RCG_EVENT_ESTABLISHED.
    pub private_data: *const c_void,
    /// Octets of `private_data`.
    pub private_data_len: u32,
    /// RDMA Reads that the peer may have outstanding; 0 = the listener's.
    pub ird: u32,
    /// RDMA Reads that we may have outstanding; 0 = the listener's.
    pub ord: u32,
    /// RCG_CONN_STRICT_RECV, RCG_CONN_RAW_PRIVATE_DATA: added to those of the listener.
    pub flags: u32,
}

// SAFETY: `repr(C)`, `size` first, and zeros are a value of every member.
unsafe impl Versioned for rcg_accept_attr {}

/// # Safety
/// `attr` is NULL or points to attributes of its `size`, whose private data are as long as they say.
unsafe fn accept_config(attr: *const rcg_accept_attr) -> Result<AcceptConfig> {
    // SAFETY: by this function's contract.
    let attr: rcg_accept_attr = unsafe { ffi::read_attr(attr) }?;
    Ok(AcceptConfig {
        context: attr.context as usize,
        // SAFETY: by this function's contract.
        private_data: unsafe { ffi::private_data(attr.private_data, attr.private_data_len) }?,
        ird: attr.ird,
        ord: attr.ord,
        flags: attr.flags,
    })
}

/// What a connection is and has done. Start from RCG_CONN_INFO_INIT.
#[repr(C)]
pub struct rcg_conn_info {
    /// `sizeof(rcg_conn_info)`.
    pub size: usize,
    /// `RCG_STATE_*`.
    pub state: u32,
    /// `RCG_PROVIDER_*`.
    pub provider: u32,
    /// Our address; family AF_UNSPEC = not known yet.
    pub local: sockaddr_storage,
    /// The peer's address; family AF_UNSPEC = not known yet.
    pub peer: sockaddr_storage,
    /// The device, as text.
    pub device: [c_char; 32],
    /// Microseconds that each stage (`RCG_STAGE_*`) took.
    pub stage_us: [u32; 8],
    /// RDMA Reads that the peer may have outstanding; 0 before it is agreed.
    pub ird: u32,
    /// RDMA Reads that we may have outstanding; 0 before it is agreed.
    pub ord: u32,
    /// 1 = iWARP frames carry a CRC.
    pub crc: u32,
    /// Revision of MPA in force; 0 = none.
    pub mpa_revision: u32,
    /// Octets of the longest iWARP frame that we send; 0 = none.
    pub max_fpdu: u32,
    /// 1 = the peer is this library.
    pub own_peer: u32,
    /// Octets of private data that fit.
    pub max_private_data: u32,
    /// Octets of an operation with RCG_INLINE.
    pub max_inline: u32,
    /// Operations that can be outstanding.
    pub send_depth: u32,
    /// Receives that can be posted.
    pub recv_depth: u32,
    /// Scatter/gather elements in one operation.
    pub max_sge: u32,
    /// RCG_CAP_IMMEDIATE, RCG_CAP_INVALIDATE: what only some connections can do; 0 before it is established.
    pub capabilities: u32,
    /// Octets sent, headers included.
    pub bytes_sent: u64,
    /// Octets received, headers included.
    pub bytes_received: u64,
    /// Operations posted.
    pub operations: u64,
    /// Times that a message waited for a receive.
    pub recv_stalls: u64,
    /// Times that the network took less than was offered.
    pub send_stalls: u64,
}

// SAFETY: as above.
unsafe impl Versioned for rcg_conn_info {
    const STRINGS: &'static [(usize, usize)] = &[(offset_of!(Self, device), offset_of!(Self, stage_us))];
}

impl From<ConnInfo> for rcg_conn_info {
    fn from(info: ConnInfo) -> Self {
        let micros = |time: std::time::Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        Self {
            size: size_of::<Self>(),
            state: info.state,
            provider: info.provider,
            local: storage(info.local.as_ref()),
            peer: storage(info.peer.as_ref()),
            device: ffi::c_text(&info.device),
            stage_us: info.stages.map(micros),
            ird: info.ird,
            ord: info.ord,
            crc: u32::from(info.crc),
            mpa_revision: info.mpa_revision,
            max_fpdu: info.max_fpdu,
            own_peer: u32::from(info.own_peer),
            max_private_data: info.max_private_data,
            max_inline: info.max_inline,
            send_depth: info.send_depth,
            recv_depth: info.recv_depth,
            max_sge: info.max_sge,
            capabilities: info.capabilities,
            bytes_sent: info.bytes_sent,
            bytes_received: info.bytes_received,
            operations: info.operations,
            recv_stalls: info.recv_stalls,
            send_stalls: info.send_stalls,
        }
    }
}

/// Accepts the connection of an RCG_EVENT_CONNECT_REQUEST. Exactly one of RCG_EVENT_ESTABLISHED and
/// RCG_EVENT_CONNECT_FAILED follows, and RCG_EVENT_CLOSED at the very end.
///
/// `attr`: NULL = defaults; read during the call only.
/// Thread rule: any thread; also later than the event.
/// Returns 0; -EALREADY: it has been answered; -ENOTCONN: the request has gone, RCG_EVENT_CLOSED follows; -EMSGSIZE: too
/// much private data; -EINVAL, -E2BIG: bad attributes, NULL, or not a request; -EBADF: not a live connection.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_accept(conn: *mut rcg_conn, attr: *const rcg_accept_attr) -> c_int {
    boundary("rcg_accept", || {
        let conn = look_up(conn)?;
        // SAFETY: by this function's contract.
        conn.accept(unsafe { accept_config(attr) }?).map(|()| 0)
    })
}

/// Rejects the connection of an RCG_EVENT_CONNECT_REQUEST. RCG_EVENT_CLOSED follows.
///
/// `reason`: `RCG_REJECT_*`, at most 255; it reaches peers that are this library, the private data reach all.
/// `private_data`: `len` octets, read during the call only; NULL with 0.
/// Thread rule: any thread; also later than the event.
/// Returns 0; -EALREADY: it has been answered; -ENOTCONN: the request has gone, RCG_EVENT_CLOSED follows; -EMSGSIZE: too
/// much private data; -EINVAL: bad reason, NULL, or not a request; -EBADF: not a live connection. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_reject(
    conn: *mut rcg_conn,
    reason: u32,
    private_data: *const c_void,
    len: u32,
) -> c_int {
    boundary("rcg_reject", || {
        let conn = look_up(conn)?;
        // SAFETY: by this function's contract.
        conn.reject(reason, &unsafe { ffi::private_data(private_data, len) }?).map(|()| 0)
    })
}

/// Leaves gracefully: what is queued goes out first, within `linger_ms`. RCG_EVENT_DISCONNECTED follows if the
/// connection was established, and RCG_EVENT_CLOSED. Never blocks, and twice is no error.
///
/// Thread rule: any thread; also from callbacks.
/// Returns 0; -EINVAL: NULL; -EBADF: not a live connection, as after its RCG_EVENT_CLOSED. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_conn_disconnect(conn: *mut rcg_conn) -> c_int {
    boundary("rcg_conn_disconnect", || look_up(conn)?.disconnect().map(|()| 0))
}

/// Leaves at once, in any state: what is outstanding is flushed with -ECANCELED, and RCG_EVENT_CLOSED follows. Never
/// blocks, and twice is no error.
///
/// Thread rule: any thread; also from callbacks.
/// Returns 0; -EINVAL: NULL; -EBADF: not a live connection, as after its RCG_EVENT_CLOSED. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_conn_close(conn: *mut rcg_conn) -> c_int {
    boundary("rcg_conn_close", || look_up(conn)?.close().map(|()| 0))
}

/// What the connection is and has done.
///
/// `out`: the caller's, its `size` set; written only on success.
/// Thread rule: any thread; also from callbacks.
/// Returns 0; -EINVAL: NULL, or no `size`; -EBADF: not a live connection. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_conn_query(conn: *mut rcg_conn, out: *mut rcg_conn_info) -> c_int {
    boundary("rcg_conn_query", || {
        let conn = look_up(conn)?;
        // SAFETY: by this function's contract.
        let out = unsafe { VersionedOut::new(out) }?;
        Ok(out.set(&conn.info().into()))
    })
}
