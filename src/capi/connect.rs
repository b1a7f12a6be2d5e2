//! Reaching a peer: addresses, attributes, `rcg_connect`.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use libc::sockaddr;

use super::channel::rcg_channel;
use super::conn::rcg_conn;
use super::ffi::{self, InArray, Out, Versioned, boundary, look_up};
use super::rpc::rcg_rpc_attr;
use crate::engine::{ConnectConfig, MAX_ADDRESSES, QpConfig, Target, resolve};
use crate::error::{Error, Result};

/// CRC of iWARP frames: not needed on loopback, wanted elsewhere; the peer's wish is followed.
pub const RCG_CRC_AUTO: u32 = 0;
/// CRC of iWARP frames: always.
pub const RCG_CRC_ON: u32 = 1;
/// CRC of iWARP frames: only if the peer insists.
pub const RCG_CRC_OFF: u32 = 2;

/// Connection flag: a message for which no receive is posted ends the connection with a Terminate; without the flag it
/// waits, and so does the peer.
pub const RCG_CONN_STRICT_RECV: u32 = 1;
/// Connection flag: private data goes out exactly as given; without the flag the library adds a tag by which it
/// recognises itself, and which no application sees.
pub const RCG_CONN_RAW_PRIVATE_DATA: u32 = 2;

/// A socket address and its length.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rcg_addr {
    /// A sockaddr_in or sockaddr_in6.
    pub addr: *const sockaddr,
    /// Its length in octets.
    pub length: u32,
    /// Must be 0.
    pub reserved: u32,
}

impl rcg_addr {
    fn is_unset(&self) -> bool {
        self.addr.is_null() && self.length == 0 && self.reserved == 0
    }

    /// # Safety
    /// `addr` is NULL or points to `length` readable octets.
    unsafe fn read(self) -> Result<socket2::SockAddr> {
        ffi::check_zero(self.reserved, "reserved member of an address")?;
        // SAFETY: by this function's contract.
        unsafe { resolve::from_raw(self.addr, self.length) }
    }
}

/// Attributes of a connect. Start from RCG_CONNECT_ATTR_INIT. Limits: see rcg_engine_limits().
#[repr(C)]
pub struct rcg_connect_attr {
    /// `sizeof(rcg_connect_attr)`.
    pub size: usize,
    /// The caller's, in all events of the connection.
    pub context: *mut c_void,
    /// For the peer's application, which gets it with RCG_EVENT_CONNECT_REQUEST.
    pub private_data: *const c_void,
    /// Octets of `private_data`.
    pub private_data_len: u32,
    /// `RCG_PROVIDER_*`; 0 = RCG_PROVIDER_AUTO.
    pub provider: u32,
    /// Bound on the whole connect, in milliseconds; 0 = 10000.
    pub timeout_ms: u32,
    /// RCG_CONN_STRICT_RECV, RCG_CONN_RAW_PRIVATE_DATA.
    pub flags: u32,
    /// Operations that can be outstanding; 0 = default.
    pub send_depth: u32,
    /// Receives that can be posted; 0 = default.
    pub recv_depth: u32,
    /// Octets of each receive buffer of the library's; 0 = the caller posts receives.
    pub recv_size: u32,
    /// Number of receive buffers of the library's; 0 = the caller posts receives.
    pub recv_count: u32,
    /// RDMA Reads that the peer may have outstanding; 0 = default.
    pub ird: u32,
    /// RDMA Reads that we may have outstanding; 0 = default.
    pub ord: u32,
    /// `RCG_CRC_*`; 0 = RCG_CRC_AUTO.
    pub crc: u32,
    /// Revision of MPA: 1 (RFC 5044) or 2 (RFC 6581); 0 = 2.
    pub mpa_revision: u32,
    /// A dead peer is noticed within 1.25 times this, in milliseconds; 0 = 20000. While nothing is on its way to the peer
    /// the kernel's keepalive notices, which counts whole seconds, two of them at least.
    pub keepalive_ms: u32,
    /// Bound on rcg_conn_disconnect(), in milliseconds; 0 = 2000.
    pub linger_ms: u32,
    /// Octets of the longest iWARP frame to send, 128 to 65536; 0 = what suits the peer.
    pub max_fpdu: u32,
    /// Must be 0.
    pub reserved: u32,
    /// TCP congestion control, like "bbr"; NULL = the system's.
    pub congestion: *const c_char,
    /// Local address to connect from; its `addr` NULL = the system's choice.
    pub local: rcg_addr,
    /// A connection for RPC-over-RDMA, whose private data and queues are the library's; NULL = not one.
    pub rpc: *const rcg_rpc_attr,
}

// SAFETY: `repr(C)`, `size` first, and zeros are a value of every member.
unsafe impl Versioned for rcg_connect_attr {}

impl rcg_connect_attr {
    /// # Safety
    /// `attr` is NULL or points to attributes of its `size`, whose pointers are NULL or valid.
    pub(super) unsafe fn config(attr: *const Self) -> Result<ConnectConfig> {
        // SAFETY: by this function's contract.
        let attr: Self = unsafe { ffi::read_attr(attr) }?;
        ffi::check_zero(attr.reserved, "reserved")?;
        let mut config = ConnectConfig {
            qp: attr.qp(),
            context: attr.context as usize,
            // SAFETY: by this function's contract.
            private_data: unsafe { ffi::private_data(attr.private_data, attr.private_data_len) }?,
            timeout_ms: attr.timeout_ms,
            mpa_revision: attr.mpa_revision,
            // SAFETY: as above.
            local: if attr.local.is_unset() { None } else { Some(unsafe { attr.local.read() }?) },
            protocol: None,
        };
        // SAFETY: by this function's contract.
        if let Some(rpc) = unsafe { rcg_rpc_attr::config(attr.rpc) }? {
            rpc.connect(&mut config)?;
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

/// The name of a congestion control; NULL = none.
///
/// # Safety
/// `name` is NULL or points to a string.
pub(super) unsafe fn congestion(name: *const c_char) -> Option<CString> {
    // SAFETY: by this function's contract.
    (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_owned())
}

/// Connects to one peer that has `n` addresses: the best that answers is used. Returns at once; then comes exactly one
/// of RCG_EVENT_ESTABLISHED and RCG_EVENT_CONNECT_FAILED, and RCG_EVENT_CLOSED at the very end.
///
/// `addrs`: read during the call only. `attr`: NULL = defaults; read during the call only.
/// `conn`: set on success to a handle that is valid until RCG_EVENT_CLOSED; an event may come before the call returns.
/// Thread rule: any thread; also from callbacks.
/// Returns 0; -EINVAL, -E2BIG: bad attributes, addresses or NULL; -EAFNOSUPPORT: neither IPv4 nor IPv6; -EMSGSIZE: too
/// much private data; -ENODEV, -ENOENT, -EACCES: the provider can't be used, as rcg_engine_provider() says; -EBADF: not a
/// live channel; -ENOMEM. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_connect(
    channel: *mut rcg_channel,
    addrs: *const rcg_addr,
    n: usize,
    attr: *const rcg_connect_attr,
    conn: *mut *mut rcg_conn,
) -> c_int {
    boundary("rcg_connect", || {
        // SAFETY: by this function's contract.
        let (config, target) = unsafe { (rcg_connect_attr::config(attr)?, addresses(addrs, n)?) };
        // SAFETY: as above.
        let out = unsafe { Out::new(conn) }?;
        Ok(out.set(ffi::as_pointer(look_up(channel)?.connect(target, config)?.handle())))
    })
}

/// # Safety
/// `first` is NULL or points to `n` addresses, each with as many readable octets as its length says.
unsafe fn addresses(first: *const rcg_addr, n: usize) -> Result<Target> {
    if n > MAX_ADDRESSES {
        return Err(Error::invalid(format!("a peer has at most {MAX_ADDRESSES} addresses, not {n}")));
    }
    // SAFETY: by this function's contract.
    let array = unsafe { InArray::new(first, n, "addresses") }?;
    // SAFETY: as above.
    array.iter().map(|addr| unsafe { addr.read() }).collect::<Result<_>>().map(Target::Addresses)
}

/// Connects to a peer by name: all addresses that `host` has are tried. A name is looked up in the background, never on
/// the calling thread.
///
/// `host`: a name or a numeric address. `service`: a port or a name of one. Both are read during the call only.
/// The rest is as for rcg_connect(). Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_connect_host(
    channel: *mut rcg_channel,
    host: *const c_char,
    service: *const c_char,
    attr: *const rcg_connect_attr,
    conn: *mut *mut rcg_conn,
) -> c_int {
    boundary("rcg_connect_host", || {
        // SAFETY: by this function's contract.
        let (config, target) = unsafe { (rcg_connect_attr::config(attr)?, host_target(host, service)?) };
        // SAFETY: as above.
        let out = unsafe { Out::new(conn) }?;
        Ok(out.set(ffi::as_pointer(look_up(channel)?.connect(target, config)?.handle())))
    })
}

/// # Safety
/// Both are NULL or point to strings.
unsafe fn host_target(host: *const c_char, service: *const c_char) -> Result<Target> {
    // SAFETY: by this function's contract.
    let (host, service) = unsafe { (ffi::text(host, "host")?, ffi::text(service, "service")?) };
    Ok(Target::Host(host.into(), service.into()))
}
