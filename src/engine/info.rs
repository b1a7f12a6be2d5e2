//! What a connection tells of itself.

use std::time::{Duration, Instant};

use socket2::SockAddr;

use super::config::PROVIDER_IWARP;
use super::conn::Conn;
use crate::cm::State;
use crate::error::STAGE_COUNT;
use crate::iwarp::qp::fpdu_len;
use crate::work::{MAX_INLINE, MAX_SGE};

/// What `rcg_conn_query` tells.
#[derive(Clone, Debug)]
pub struct ConnInfo {
    /// `RCG_STATE_*`.
    pub state: u32,
    /// `RCG_PROVIDER_*`.
    pub provider: u32,
    /// Our address, once there is a socket.
    pub local: Option<SockAddr>,
    /// The peer's address, once one is being tried.
    pub peer: Option<SockAddr>,
    /// The device.
    pub device: &'static str,
    /// How long each stage took.
    pub stages: [Duration; STAGE_COUNT],
    /// RDMA Reads the peer may have outstanding.
    pub ird: u32,
    /// RDMA Reads we may have outstanding.
    pub ord: u32,
    /// Whether FPDUs carry a CRC.
    pub crc: bool,
    /// Revision of MPA.
    pub mpa_revision: u32,
    /// Octets of the longest FPDU we send.
    pub max_fpdu: u32,
    /// Whether the peer is this library.
    pub own_peer: bool,
    /// Operations in the send queue.
    pub send_depth: u32,
    /// Receives in the receive queue.
    pub recv_depth: u32,
    /// Most private data.
    pub max_private_data: u32,
    /// Most octets inline.
    pub max_inline: u32,
    /// Most scatter/gather elements.
    pub max_sge: u32,
    /// Octets handed to TCP.
    pub bytes_sent: u64,
    /// Octets taken from TCP.
    pub bytes_received: u64,
    /// Operations posted.
    pub operations: u64,
    /// Times a message waited for a receive.
    pub recv_stalls: u64,
    /// Times TCP took less than was offered.
    pub send_stalls: u64,
}

impl Conn {
    /// What is known of it.
    pub fn info(&self) -> ConnInfo {
        let inner = self.inner.lock();
        let qp = inner.endpoint.qp();
        let agreed = inner.endpoint.agreed();
        let counters = qp.counters();
        ConnInfo {
            state: state_number(inner.life.state()),
            provider: PROVIDER_IWARP,
            local: inner.local.clone(),
            peer: inner.peer.as_deref().cloned(),
            device: "tcp",
            stages: inner.life.stage_times(Instant::now()),
            ird: agreed.map_or(0, |agreed| u32::from(agreed.ird)),
            ord: agreed.map_or(0, |agreed| u32::from(agreed.ord)),
            crc: agreed.is_some_and(|agreed| agreed.crc),
            mpa_revision: agreed.map_or(0, |agreed| u32::from(agreed.revision)),
            max_fpdu: agreed.map_or(0, |_| fpdu_len(qp.parameters().max_ulpdu) as u32),
            own_peer: agreed.is_some_and(|agreed| agreed.peer_tag.is_some()),
            send_depth: inner.plan.caps.send_depth as u32,
            recv_depth: inner.plan.caps.recv_depth as u32,
            max_private_data: inner.endpoint.max_private_data() as u32,
            max_inline: MAX_INLINE as u32,
            max_sge: MAX_SGE as u32,
            bytes_sent: qp.octets_sent(),
            bytes_received: counters.received,
            operations: counters.operations,
            recv_stalls: counters.recv_stalls,
            send_stalls: inner.endpoint.send_stalls(),
        }
    }
}

/// The numbers of `RCG_STATE_*`.
fn state_number(state: State) -> u32 {
    match state {
        State::Idle | State::Connecting => 1,
        State::Requested => 2,
        State::Accepting => 3,
        State::Established => 4,
        State::Draining | State::Disconnecting | State::Flushing => 5,
        State::Closed => 6,
    }
}
