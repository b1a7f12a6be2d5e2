//! `rcg_listener`: who may come in.

use std::ffi::{c_char, c_int, c_void};
use std::mem::zeroed;
use std::sync::Arc;

use libc::{sockaddr, sockaddr_storage};

use super::channel::rcg_channel;
use super::connect::congestion;
use super::ffi::{self, Handle, InArray, Out, Versioned, VersionedOut, boundary, look_up};
use super::rpc::rcg_rpc_attr;
use crate::engine::{ListenConfig, Listener, ListenerInfo, Object, QpConfig, resolve};
use crate::error::Result;

/// A listener. Pointers to it are handles, never to be dereferenced.
pub struct rcg_listener {
    _private: [u8; 0],
}

impl Handle for rcg_listener {
    type Target = Listener;
    const NAME: &'static str = "rcg_listener";
    fn pick(object: Object) -> Option<Arc<Listener>> {
        if let Object::Listener(listener) = object { Some(listener) } else { None }
    }
}

/// Attributes of a listener and of the connections that come in. Start from RCG_LISTEN_ATTR_INIT. Limits: see
/// rcg_engine_limits().
#[repr(C)]
pub struct rcg_listen_attr {
    /// `sizeof(rcg_listen_attr)`.
    pub size: usize,
    /// The caller's, in all events of the listener and, until rcg_accept() gives another, of its connections.
    pub context: *mut c_void,
    /// Connections that the kernel queues; 0 = 128; the system has a bound of its own.
    pub backlog: u32,
    /// Connections whose request is awaited at a time, more are closed; 0 = 1024.
    pub max_pending: u32,
    /// Bound on a peer's request and on the handshake, in milliseconds; 0 = 5000.
    pub handshake_timeout_ms: u32,
    /// `RCG_PROVIDER_*`; 0 = RCG_PROVIDER_AUTO.
    pub provider: u32,
    /// RCG_CONN_STRICT_RECV, RCG_CONN_RAW_PRIVATE_DATA.
    pub flags: u32,
    /// Operations that can be outstanding; 0 = default.
    pub send_depth: u32,
    /// Receives that can be posted; 0 = default.
    pub recv_depth: u32,
    /// Octets of each receive buffer of the library's; 0 = the caller posts receives.
    pub recv_size: u32,
    /// Number of receive buffers of the library's, per connection; 0 = the caller posts receives.
    pub recv_count: u32,
    /// RDMA Reads that the peer may have outstanding; 0 = default.
    pub ird: u32,
    /// RDMA Reads that we may have outstanding; 0 = default.
    pub ord: u32,
    /// `RCG_CRC_*`; 0 = RCG_CRC_AUTO.
    pub crc: u32,
    /// A dead peer is noticed within 1.25 times this, in milliseconds; 0 = 20000. While nothing is on its way to the peer
    /// the kernel's keepalive notices, which counts whole seconds, two of them at least.
    pub keepalive_ms: u32,
    /// Bound on rcg_conn_disconnect(), in milliseconds; 0 = 2000.
    pub linger_ms: u32,
    /// Octets of the longest iWARP frame to send, 128 to 65536; 0 = what suits the peer.
    pub max_fpdu: u32,
    /// 1 = an IPv6 address takes no IPv4 connections; 0 = `::` takes both.
    pub v6only: u32,
    /// TCP congestion control, like "bbr"; NULL = the system's.
    pub congestion: *const c_char,
    /// Channels over which connections are spread in turn; read during the call only.
    pub channels: *const *mut rcg_channel,
    /// Number of `channels`; 0 = the listener's own.
    pub nchannels: usize,
    /// Connections for RPC-over-RDMA, whose private data and queues are the library's; NULL = not such ones.
    pub rpc: *const rcg_rpc_attr,
}

// SAFETY: `repr(C)`, `size` first, and zeros are a value of every member.
unsafe impl Versioned for rcg_listen_attr {}

impl rcg_listen_attr {
    /// # Safety
    /// `attr` is NULL or points to attributes of its `size`, whose pointers are NULL or valid.
    unsafe fn config(attr: *const Self) -> Result<ListenConfig> {
        // SAFETY: by this function's contract.
        let attr: Self = unsafe { ffi::read_attr(attr) }?;
        // SAFETY: as above.
        let channels = unsafe { InArray::new(attr.channels, attr.nchannels, "channels") }?;
        let mut config = ListenConfig {
            qp: attr.qp(),
            context: attr.context as usize,
            backlog: attr.backlog,
            max_pending: attr.max_pending,
            handshake_timeout_ms: attr.handshake_timeout_ms,
            v6only: ffi::switch(attr.v6only, "v6only")?,
            channels: channels.iter().map(look_up).collect::<Result<_>>()?,
            protocol: None,
        };
        // SAFETY: by this function's contract.
        if let Some(rpc) = unsafe { rcg_rpc_attr::config(attr.rpc) }? {
            rpc.listen(&mut config)?;
        }
        Ok(config)
    }

    fn qp(&self) -> QpConfig {
        QpConfig {
            provider: self.provider,
            flags: self.flags,
            send_depth: self.send_depth,
            recv_depth: self.recv_depth,
            recv_size: self.recv_size,
            recv_count: self.recv_count,
            ird: self.ird,
            ord: self.ord,
            crc: self.crc,
            keepalive_ms: self.keepalive_ms,
            linger_ms: self.linger_ms,
            max_fpdu: self.max_fpdu,
            // SAFETY: this is only called by `config`, whose caller vouches for the string.
            congestion: unsafe { congestion(self.congestion) },
        }
    }
}

/// What a listener has done. Start from RCG_LISTENER_INFO_INIT.
#[repr(C)]
pub struct rcg_listener_info {
    /// `sizeof(rcg_listener_info)`.
    pub size: usize,
    /// The address, with the port in force.
    pub local: sockaddr_storage,
    /// The backlog in force.
    pub backlog: u32,
    /// Connections whose request is awaited now.
    pub pending: u32,
    /// Connections taken from TCP.
    pub accepted: u64,
    /// Of these, closed at once because `max_pending` were awaited.
    pub refused_pending: u64,
    /// Of these, ended before a valid request had come.
    pub failed_handshakes: u64,
    /// Failures of accept(2), as when descriptors run out.
    pub accept_errors: u64,
}

// SAFETY: as above.
unsafe impl Versioned for rcg_listener_info {}

impl From<ListenerInfo> for rcg_listener_info {
    fn from(info: ListenerInfo) -> Self {
        Self {
            size: size_of::<Self>(),
            local: storage(Some(&info.local)),
            backlog: info.backlog,
            pending: info.pending,
            accepted: info.accepted,
            refused_pending: info.refused_pending,
            failed_handshakes: info.failed_handshakes,
            accept_errors: info.accept_errors,
        }
    }
}

/// An address as C gets it; one that is not known has family AF_UNSPEC.
pub(super) fn storage(addr: Option<&socket2::SockAddr>) -> sockaddr_storage {
    // SAFETY: all zeros is a valid `sockaddr_storage`, whose family is AF_UNSPEC.
    let mut storage: sockaddr_storage = unsafe { zeroed() };
    if let Some(addr) = addr {
        let length = (addr.len() as usize).min(size_of::<sockaddr_storage>());
        // SAFETY: `length` octets lie within both.
        unsafe {
            std::ptr::copy_nonoverlapping(addr.as_ptr().cast::<u8>(), (&raw mut storage).cast::<u8>(), length)
        };
    }
    storage
}

/// Listens at an address; port 0 takes a free one, which rcg_listener_query() tells. Each peer that asks for a
/// connection makes one RCG_EVENT_CONNECT_REQUEST.
///
/// `addr`: a sockaddr_in or sockaddr_in6 of `len` octets, read during the call only.
/// `attr`: NULL = defaults; read during the call only.
/// `listener`: set on success to a handle that is valid until RCG_EVENT_CLOSED, which follows rcg_listener_close().
/// Thread rule: any thread; also from callbacks.
/// Returns 0; -EADDRINUSE, -EADDRNOTAVAIL, -EACCES: as of bind(2); -EINVAL, -E2BIG: bad attributes, address or NULL;
/// -EAFNOSUPPORT: neither IPv4 nor IPv6; -ENODEV, -ENOENT, -EACCES: the provider can't be used, as rcg_engine_provider()
/// says, or has no device for the address; -ENOENT, -EPERM: no such `congestion`, or not for this user; -EMFILE, -ENFILE:
/// no descriptor is left; -EBADF: not a live channel. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_listen(
    channel: *mut rcg_channel,
    addr: *const sockaddr,
    len: u32,
    attr: *const rcg_listen_attr,
    listener: *mut *mut rcg_listener,
) -> c_int {
    boundary("rcg_listen", || {
        // SAFETY: by this function's contract.
        let (config, out) = unsafe { (rcg_listen_attr::config(attr)?, Out::new(listener)?) };
        // SAFETY: as above.
        let addr = unsafe { resolve::from_raw(addr, len) }?;
        Ok(out.set(ffi::as_pointer(look_up(channel)?.listen(&addr, config)?.handle())))
    })
}

/// What the listener is and has done.
///
/// `out`: the caller's, its `size` set; written only on success.
/// Thread rule: any thread.
/// Returns 0; -EINVAL: NULL, or no `size`; -EBADF: not a live listener. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_listener_query(
    listener: *mut rcg_listener,
    out: *mut rcg_listener_info,
) -> c_int {
    boundary("rcg_listener_query", || {
        let listener = look_up(listener)?;
        // SAFETY: by this function's contract.
        let out = unsafe { VersionedOut::new(out) }?;
        Ok(out.set(&listener.info().into()))
    })
}

/// Stops listening; connections that have come in live on. Never blocks, and twice is no error. One RCG_EVENT_CLOSED
/// with `listener` follows.
///
/// Thread rule: any thread; also from callbacks.
/// Returns 0; -EINVAL: NULL; -EBADF: not a live listener, as after its RCG_EVENT_CLOSED. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_listener_close(listener: *mut rcg_listener) -> c_int {
    boundary("rcg_listener_close", || look_up(listener)?.close().map(|()| 0))
}
