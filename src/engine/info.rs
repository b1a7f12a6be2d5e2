//! What a connection tells of itself.

use std::time::{Duration, Instant};

use socket2::SockAddr;

use super::conn::{Answer, Conn};
use super::endpoint::Endpoint;
use super::stats::Stats;
use crate::cm::{Role, State};
use crate::error::STAGE_COUNT;
use crate::iwarp;
use crate::iwarp::qp::fpdu_len;
use crate::verbs;
use crate::work::{MAX_INLINE, MAX_SGE};

/// What only some connections can do; the numbers are those of `RCG_CAP_*`.
mod capability {
    /// Immediate data.
    pub(super) const IMMEDIATE: u32 = 1;
    /// Sends that invalidate a key of the peer's.
    pub(super) const INVALIDATE: u32 = 2;
}

/// What `rcg_conn_query` tells.
#[derive(Clone, Debug, Default)]
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
    pub device: String,
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
    /// [`capability`] bits.
    pub capabilities: u32,
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
        let mut info = ConnInfo {
            state: state_number(inner.life.state()),
            provider: inner.endpoint.provider(),
            local: inner.local.clone(),
            peer: inner.peer.as_deref().cloned(),
            device: inner.endpoint.device(),
            stages: inner.life.stage_times(Instant::now()),
            send_depth: inner.plan.caps.send_depth as u32,
            recv_depth: inner.plan.caps.recv_depth as u32,
            max_private_data: inner.endpoint.max_private_data() as u32,
            max_inline: MAX_INLINE as u32,
            max_sge: MAX_SGE as u32,
            ..ConnInfo::default()
        };
        match &inner.endpoint {
            Endpoint::Iwarp(iwarp) => info.add_iwarp(iwarp),
            Endpoint::Verbs(verbs) => info.add_verbs(verbs),
        }
        info
    }
}

impl Conn {
    /// What it has counted.
    pub fn stats(&self) -> Stats {
        let inner = self.inner.lock();
        let mut stats = inner.tally.stats();
        let active = inner.life.role() == Role::Active;
        stats.connects = active.into();
        stats.requests = (!active).into();
        stats.rejected = matches!(inner.answer, Some(Answer::Reject(..))).into();
        stats.open = (!inner.closed).into();
        match &inner.endpoint {
            Endpoint::Iwarp(iwarp) => {
                let (counters, calls) = (iwarp.qp().counters(), iwarp.calls());
                (stats.bytes_sent, stats.bytes_received) = (iwarp.qp().octets_sent(), counters.received);
                (stats.send_stalls, stats.recv_stalls) = (iwarp.send_stalls(), counters.recv_stalls);
                (stats.send_calls, stats.recv_calls) = (calls.send, calls.recv);
            }
            Endpoint::Verbs(verbs) => {
                let counters = verbs.counters();
                (stats.bytes_sent, stats.bytes_received) = (counters.sent, counters.received);
                (stats.send_stalls, stats.send_calls) = (counters.send_stalls, counters.doorbells);
            }
        }
        stats
    }
}

impl ConnInfo {
    fn add_iwarp(&mut self, endpoint: &iwarp::endpoint::Endpoint) {
        let (qp, counters) = (endpoint.qp(), endpoint.qp().counters());
        if let Some(agreed) = endpoint.agreed() {
            self.ird = agreed.ird.into();
            self.ord = agreed.ord.into();
            self.crc = agreed.crc;
            self.mpa_revision = agreed.revision.into();
            self.max_fpdu = fpdu_len(qp.parameters().max_ulpdu) as u32;
            self.own_peer = agreed.peer_tag.is_some();
            self.capabilities = capability::INVALIDATE;
            if qp.parameters().own_peer {
                self.capabilities |= capability::IMMEDIATE;
            }
        }
        self.bytes_sent = qp.octets_sent();
        self.bytes_received = counters.received;
        self.operations = counters.operations;
        self.recv_stalls = counters.recv_stalls;
        self.send_stalls = endpoint.send_stalls();
    }

    fn add_verbs(&mut self, endpoint: &verbs::Endpoint) {
        let (terms, counters) = (endpoint.terms(), endpoint.counters());
        self.ird = terms.ird.into();
        self.ord = terms.ord.into();
        self.own_peer = terms.own_peer;
        if endpoint.can_send_immediate() {
            self.capabilities |= capability::IMMEDIATE;
        }
        if endpoint.can_invalidate() {
            self.capabilities |= capability::INVALIDATE;
        }
        self.max_sge = endpoint.max_sge();
        self.bytes_sent = counters.sent;
        self.bytes_received = counters.received;
        self.operations = counters.operations;
        self.send_stalls = counters.send_stalls;
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
