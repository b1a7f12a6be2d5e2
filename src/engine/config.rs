//! What callers may ask for: defaults, limits, and the one place where both are checked.

use std::ffi::CString;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockAddr;

use super::channel::Channel;
use super::upper::Protocol;
use crate::error::{Error, Reason, Result};
use crate::iwarp::handshake::{CrcPolicy, max_private_data};
use crate::iwarp::qp::max_ulpdu_within;
use crate::verbs::Carrier;
use crate::verbs::endpoint::Plan;
use crate::work::{Capabilities, MAX_INLINE, MAX_MESSAGE, MAX_SGE};

/// `RCG_PROVIDER_AUTO`.
pub const PROVIDER_AUTO: u32 = 0;
/// `RCG_PROVIDER_VERBS`.
pub const PROVIDER_VERBS: u32 = 1;
/// `RCG_PROVIDER_IWARP`.
pub const PROVIDER_IWARP: u32 = 2;

/// `RCG_CONN_STRICT_RECV`: a message without a posted receive ends the stream.
pub const FLAG_STRICT_RECV: u32 = 1;
/// `RCG_CONN_RAW_PRIVATE_DATA`: the library's tag is never appended.
pub const FLAG_RAW_PRIVATE_DATA: u32 = 2;

const MAX_DEPTH: u32 = 16_384;
const DEFAULT_DEPTH: u32 = 64;
const MAX_READS: u32 = 128;
const DEFAULT_READS: u32 = 16;
/// Most addresses of one peer.
pub const MAX_ADDRESSES: usize = 64;
/// Longest message the library's own receive buffers may hold.
const MAX_RECV_SIZE: u32 = 1 << 30;

/// What can be asked of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Octets of private data in a connect or an accept.
    pub max_private_data: u32,
    /// Octets of private data in a reject.
    pub max_reject_data: u32,
    /// Scatter/gather elements in one operation.
    pub max_sge: u32,
    /// Octets of an inline payload.
    pub max_inline: u32,
    /// Operations in a send queue.
    pub max_send_depth: u32,
    /// Receives in a receive queue.
    pub max_recv_depth: u32,
    /// RDMA Reads a peer may have outstanding.
    pub max_ird: u32,
    /// RDMA Reads we may have outstanding.
    pub max_ord: u32,
    /// Default of the send queue.
    pub default_send_depth: u32,
    /// Default of the receive queue.
    pub default_recv_depth: u32,
    /// Default IRD.
    pub default_ird: u32,
    /// Default ORD.
    pub default_ord: u32,
    /// Octets of one message.
    pub max_message: u64,
    /// Octets of one region.
    pub max_region: u64,
    /// Addresses of one peer.
    pub max_addresses: u32,
}

/// The limits of the `iwarp` provider.
pub(super) fn iwarp_limits() -> Limits {
    let private_data = max_private_data(2, true) as u32;
    Limits {
        max_private_data: private_data,
        max_reject_data: private_data,
        max_sge: MAX_SGE as u32,
        max_inline: MAX_INLINE as u32,
        max_send_depth: MAX_DEPTH,
        max_recv_depth: MAX_DEPTH,
        max_ird: MAX_READS,
        max_ord: MAX_READS,
        default_send_depth: DEFAULT_DEPTH,
        default_recv_depth: DEFAULT_DEPTH,
        default_ird: DEFAULT_READS,
        default_ord: DEFAULT_READS,
        max_message: MAX_MESSAGE,
        max_region: isize::MAX as u64,
        max_addresses: MAX_ADDRESSES as u32,
    }
}

/// The limits of the `verbs` provider, whatever the device: each has its own, which a connection tells.
pub(super) fn verbs_limits() -> Limits {
    Limits {
        max_private_data: Carrier::Connect.room(false, true) as u32,
        max_reject_data: Carrier::Reject.room(false, true) as u32,
        ..iwarp_limits()
    }
}

/// What connect and listen have in common; the values as C gave them, 0 = default.
#[derive(Clone, Debug, Default)]
pub struct QpConfig {
    /// `RCG_PROVIDER_*`.
    pub provider: u32,
    /// `RCG_CONN_*` flags.
    pub flags: u32,
    /// Operations in the send queue.
    pub send_depth: u32,
    /// Receives in the receive queue.
    pub recv_depth: u32,
    /// Octets of each library-owned receive buffer.
    pub recv_size: u32,
    /// Number of library-owned receive buffers.
    pub recv_count: u32,
    /// RDMA Reads the peer may have outstanding.
    pub ird: u32,
    /// RDMA Reads we may have outstanding.
    pub ord: u32,
    /// `RCG_CRC_*`.
    pub crc: u32,
    /// A dead peer is noticed within 1.25 times this.
    pub keepalive_ms: u32,
    /// Bound on a graceful disconnect.
    pub linger_ms: u32,
    /// Octets of the longest FPDU we send.
    pub max_fpdu: u32,
    /// TCP congestion control.
    pub congestion: Option<CString>,
}

/// What `rcg_connect` takes.
#[derive(Clone, Debug, Default)]
pub struct ConnectConfig {
    /// Queue pair and transport.
    pub qp: QpConfig,
    /// Cookie of the caller's.
    pub context: usize,
    /// For the peer's application.
    pub private_data: Vec<u8>,
    /// Bound on the whole connect.
    pub timeout_ms: u32,
    /// 1 or 2; 0 = 2.
    pub mpa_revision: u32,
    /// Local address to bind.
    pub local: Option<SockAddr>,
    /// What is spoken on top.
    pub protocol: Option<Protocol>,
}

/// What `rcg_listen` takes.
#[derive(Clone, Default)]
pub struct ListenConfig {
    /// For accepted connections.
    pub qp: QpConfig,
    /// Cookie of the caller's.
    pub context: usize,
    /// Connections the kernel queues.
    pub backlog: u32,
    /// Connections whose request is still awaited.
    pub max_pending: u32,
    /// Bound on a request.
    pub handshake_timeout_ms: u32,
    /// IPv6 only on an IPv6 address.
    pub v6only: bool,
    /// Channels to spread connections over; empty = the listener's.
    pub channels: Vec<Arc<Channel>>,
    /// What is spoken on top.
    pub protocol: Option<Protocol>,
}

/// What `rcg_accept` takes.
#[derive(Clone, Debug, Default)]
pub struct AcceptConfig {
    /// Cookie of the caller's.
    pub context: usize,
    /// For the peer's application.
    pub private_data: Vec<u8>,
    /// RDMA Reads the peer may have outstanding; 0 = the listener's.
    pub ird: u32,
    /// RDMA Reads we may have outstanding; 0 = the listener's.
    pub ord: u32,
    /// `RCG_CONN_*` flags to add.
    pub flags: u32,
}

/// Whom to connect to.
#[derive(Clone, Debug)]
pub enum Target {
    /// The addresses of one peer.
    Addresses(Vec<SockAddr>),
    /// A name or numeric address, and a service or port.
    Host(String, String),
}

/// A [`QpConfig`] with defaults in and limits checked.
#[derive(Clone, Debug)]
pub(super) struct QpPlan {
    /// `RCG_PROVIDER_*`.
    pub(super) provider: u32,
    pub(super) caps: Capabilities,
    pub(super) ird: u16,
    pub(super) ord: u16,
    pub(super) crc: CrcPolicy,
    pub(super) dead_peer: Duration,
    pub(super) linger: Duration,
    pub(super) max_ulpdu: Option<usize>,
    pub(super) congestion: Option<CString>,
    pub(super) raw_private_data: bool,
}

fn bounded(value: u32, default: u32, max: u32, what: &str) -> Result<u32> {
    match value {
        0 => Ok(default),
        value if value <= max => Ok(value),
        value => Err(Error::invalid(format!("{what} {value} is over the limit of {max}"))),
    }
}

/// Milliseconds with a default; at most a day.
pub(super) fn millis(value: u32, default: u32, what: &str) -> Result<Duration> {
    bounded(value, default, 86_400_000, what).map(|ms| Duration::from_millis(u64::from(ms)))
}

impl QpConfig {
    pub(super) fn plan(&self) -> Result<QpPlan> {
        if self.provider > PROVIDER_IWARP {
            return Err(Error::invalid(format!("no provider has the number {}", self.provider)));
        }
        if self.flags & !(FLAG_STRICT_RECV | FLAG_RAW_PRIVATE_DATA) != 0 {
            return Err(Error::invalid(format!("unknown connection flags {:#x}", self.flags)));
        }
        if (self.recv_size == 0) != (self.recv_count == 0) {
            return Err(Error::invalid("recv_size and recv_count go together"));
        }
        // TCP_CA_NAME_MAX of linux/tcp.h; the kernel would cut a longer name.
        if self.congestion.as_ref().is_some_and(|name| name.is_empty() || name.to_bytes().len() >= 16) {
            return Err(Error::invalid("the name of a congestion control has 1 to 15 octets"));
        }
        let crc = match self.crc {
            0 => CrcPolicy::Auto,
            1 => CrcPolicy::On,
            2 => CrcPolicy::Off,
            other => return Err(Error::invalid(format!("no CRC policy has the number {other}"))),
        };
        let recv_depth = if self.recv_count > 0 {
            bounded(self.recv_count, 0, MAX_DEPTH, "recv_count")?
        } else {
            bounded(self.recv_depth, DEFAULT_DEPTH, MAX_DEPTH, "recv_depth")?
        };
        Ok(QpPlan {
            provider: self.provider,
            caps: Capabilities {
                send_depth: bounded(self.send_depth, DEFAULT_DEPTH, MAX_DEPTH, "send_depth")? as usize,
                recv_depth: recv_depth as usize,
                recv_size: bounded(self.recv_size, 0, MAX_RECV_SIZE, "recv_size")? as usize,
                strict_recv: self.flags & FLAG_STRICT_RECV != 0,
            },
            ird: bounded(self.ird, DEFAULT_READS, MAX_READS, "ird")? as u16,
            ord: bounded(self.ord, DEFAULT_READS, MAX_READS, "ord")? as u16,
            crc,
            dead_peer: millis(self.keepalive_ms, 20_000, "keepalive_ms")?,
            linger: millis(self.linger_ms, 2_000, "linger_ms")?,
            max_ulpdu: self.max_ulpdu()?,
            congestion: self.congestion.clone(),
            raw_private_data: self.flags & FLAG_RAW_PRIVATE_DATA != 0,
        })
    }

    fn max_ulpdu(&self) -> Result<Option<usize>> {
        match self.max_fpdu {
            0 => Ok(None),
            128..=65_536 => Ok(Some(max_ulpdu_within(self.max_fpdu as usize))),
            other => Err(Error::invalid(format!("max_fpdu {other} is not between 128 and 65536"))),
        }
    }
}

impl QpPlan {
    /// What of it a connection on a device needs.
    pub(super) fn verbs(&self) -> Plan {
        Plan {
            caps: self.caps.clone(),
            ird: self.ird,
            ord: self.ord,
            dead_peer: self.dead_peer,
            raw_private_data: self.raw_private_data,
        }
    }
}

/// Refuses private data that would not fit, rather than cut it.
pub(super) fn check_private_data(length: usize, provider: u32, revision: u8, tagged: bool) -> Result<()> {
    let limit = match provider {
        // What the widest device takes: the device itself is not known yet.
        PROVIDER_VERBS => Carrier::Connect.room(true, tagged),
        _ => max_private_data(revision, tagged),
    };
    if length > limit {
        let text = format!("{length} octets of private data are over the limit of {limit}");
        return Err(Error::new(libc::EMSGSIZE, Reason::Invalid, text));
    }
    Ok(())
}
