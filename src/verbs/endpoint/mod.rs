//! One connection on a device: its rdma_cm id, its queue pair, and the two queues of work requests.
//!
//! An endpoint belongs to the channel that drives it; posting may happen on any thread, under the connection's lock.
//! What happens is told as [`cm::Event`]s, which the connection's life cycle turns into what has to be done.

mod arrival;
mod post;
mod recv_queue;
mod send_queue;
mod setup;
mod split;

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use recv_queue::RecvQueue;
use send_queue::SendQueue;
use socket2::SockAddr;

use super::device::Device;
use super::hub::{Hub, Lease};
use super::private::Carrier;
use super::sys::{CmId, dispose};
use crate::cm::Event;
use crate::error::{Error, Reason, Result, Stage};
use crate::memory::{Access, KeyTable, ReceivePool, Region};
use crate::verbs::types::QpCaps;
use crate::work::{Capabilities, Completion, RecvWr};

/// What is known of a connection before it has an id.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Depths of the queues.
    pub(crate) caps: Capabilities,
    /// RDMA Reads the peer may have outstanding.
    pub(crate) ird: u16,
    /// RDMA Reads we may have outstanding.
    pub(crate) ord: u16,
    /// Notice a dead peer within about this time.
    pub(crate) dead_peer: Duration,
    /// Private data goes out as given, without our tag.
    pub(crate) raw_private_data: bool,
}

/// What the connection managers have agreed on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    /// RDMA Reads the peer may have outstanding.
    pub(crate) ird: u8,
    /// RDMA Reads we may have outstanding.
    pub(crate) ord: u8,
    /// The peer is this library.
    pub(crate) own_peer: bool,
}

/// What an endpoint counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    /// Work requests posted to the send queue.
    pub(crate) operations: u64,
    /// Octets of payload sent.
    pub(crate) sent: u64,
    /// Octets of messages received.
    pub(crate) received: u64,
    /// Times the send queue had no room.
    pub(crate) send_stalls: u64,
    /// Doorbells rung.
    pub(crate) doorbells: u64,
}

/// A connection on a device.
pub(crate) struct Endpoint {
    plan: Plan,
    keys: Arc<KeyTable>,
    /// Number of the connection, and of the attempt: together they name the queue pair in completions.
    stream: u64,
    attempt: u64,
    /// What events of the id and of the queue pair carry.
    handle: usize,
    id: Option<CmId>,
    device: Option<Arc<Device>>,
    lease: Option<Lease>,
    /// What the queue pair can hold, while there is one.
    qp: Option<QpCaps>,
    sq: SendQueue,
    rq: RecvQueue,
    /// Inline payloads, where the device has no room for them in its requests.
    bounce: Option<ReceivePool>,
    terms: Terms,
    /// What a request, accept or reject of the peer's carried.
    peer_private: Option<Arc<[u8]>>,
    /// The request of a peer that is this library.
    tagged_request: bool,
    /// `rdma_connect` has not ended yet.
    connecting: bool,
    connected: bool,
    /// Passive side of an iWARP device: when the connection counts as established without a word from the peer.
    hold_until: Option<Instant>,
    /// Passive side: when a connection whose peer has sent counts as established without a word of rdma_cm.
    ready_by: Option<Instant>,
    ended: bool,
    /// What has failed, and that is not told yet: the connection has to end.
    failure: Option<Error>,
    /// The queue pair is to flush; `Flushed` has not been told yet.
    flushing: bool,
    /// When what has not come by then does not come any more.
    quiet_at: Option<Instant>,
    pulse: arrival::Pulse,
    granted: Vec<(Weak<Region>, u32)>,
    counters: Counters,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.revoke_keys();
    }
}

/// After so much time without a completion all that have been made have been seen.
const QUIET: Duration = Duration::from_millis(10);

/// Bits of a queue pair's name that count the attempts of a connection.
const ATTEMPT_BITS: u32 = 6;

impl Endpoint {
    /// An endpoint without an id.
    pub(crate) fn new(plan: Plan, stream: u64, keys: &Arc<KeyTable>) -> Result<Self> {
        Ok(Self {
            keys: Arc::clone(keys),
            stream,
            attempt: 0,
            handle: 0,
            id: None,
            device: None,
            lease: None,
            qp: None,
            sq: SendQueue::new(plan.caps.send_depth),
            rq: RecvQueue::new(keys, plan.caps.recv_depth, plan.caps.recv_size)?,
            bounce: None,
            terms: Terms::default(),
            peer_private: None,
            tagged_request: false,
            connecting: false,
            connected: false,
            hold_until: None,
            ready_by: None,
            ended: false,
            failure: None,
            flushing: false,
            quiet_at: None,
            pulse: arrival::Pulse::new(plan.dead_peer),
            granted: Vec::new(),
            counters: Counters::default(),
            plan,
        })
    }

    /// Octets of memory that an endpoint holds while idle.
    pub(crate) fn memory(caps: &Capabilities) -> usize {
        let queues = SendQueue::memory(caps.send_depth) + RecvQueue::memory(caps.recv_depth, caps.recv_size);
        size_of::<Self>() + queues
    }

    /// The number of the connection that a completion is about.
    pub(crate) fn stream_of(id: u64) -> u64 {
        id >> (send_queue::SEQUENCE_BITS + 1 + ATTEMPT_BITS)
    }

    /// What the identifiers of this queue pair's requests begin with.
    fn name(&self) -> u64 {
        let attempt = self.attempt & ((1 << ATTEMPT_BITS) - 1);
        (self.stream << ATTEMPT_BITS | attempt) << (send_queue::SEQUENCE_BITS + 1)
    }

    /// The device, once the address has been resolved.
    pub(crate) fn device(&self) -> Option<&Arc<Device>> {
        self.device.as_ref()
    }

    /// Our address, once it is known.
    pub(crate) fn local(&self) -> Option<SockAddr> {
        self.id.as_ref().and_then(CmId::local)
    }

    /// What has been agreed on.
    pub(crate) fn terms(&self) -> Terms {
        self.terms
    }

    /// Operations that are posted and not told to be done, and receives.
    pub(crate) fn queued(&self) -> (usize, usize) {
        (self.sq.len(), self.rq.len())
    }

    /// What has been counted.
    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// What the peer's application sent with its request, accept or reject.
    pub(crate) fn peer_private(&self) -> Option<Arc<[u8]>> {
        self.peer_private.clone()
    }

    /// Scatter/gather elements that one operation can have.
    pub(crate) fn max_sge(&self) -> u32 {
        let most = crate::work::MAX_SGE as u32;
        self.device.as_ref().map_or(most, |device| device.limits().max_sge.min(most))
    }

    /// Whether Sends and Writes can have immediate data.
    pub(crate) fn can_send_immediate(&self) -> bool {
        self.connected && !self.is_iwarp()
    }

    /// Whether a Send can invalidate a key of the peer's.
    pub(crate) fn can_invalidate(&self) -> bool {
        self.connected && self.device.as_ref().is_some_and(|device| device.limits().can_invalidate())
    }

    fn is_siw(&self) -> bool {
        self.device.as_ref().is_some_and(|device| device.limits().is_siw())
    }

    fn is_iwarp(&self) -> bool {
        self.device.as_ref().is_some_and(|device| device.limits().iwarp)
    }

    /// Most octets of private data that can be sent next.
    pub(crate) fn max_private_data(&self) -> usize {
        let carrier = if self.passive() { Carrier::Accept } else { Carrier::Connect };
        carrier.room(self.is_iwarp(), self.tags())
    }

    /// Most octets of private data in a reject.
    pub(crate) fn max_reject_data(&self) -> usize {
        Carrier::Reject.room(self.is_iwarp(), self.tags())
    }

    fn passive(&self) -> bool {
        self.pulse.passive
    }

    /// Whether our private data get the tag: an answer only where the request had one.
    fn tags(&self) -> bool {
        !self.plan.raw_private_data && (!self.passive() || self.tagged_request)
    }

    /// Answers the request without our tag.
    pub(crate) fn untag(&mut self) {
        self.plan.raw_private_data = true;
    }

    /// From now on a message without a posted receive ends the connection.
    pub(crate) fn set_strict(&mut self) {
        self.plan.caps.strict_recv = true;
    }

    /// The next completion, those of the send queue first. Before the connection is established there is none to see.
    pub(crate) fn poll(&mut self) -> Option<Completion> {
        if !self.has_completion() {
            return None;
        }
        self.sq.pop().or_else(|| self.rq.pop())
    }

    /// Whether [`Endpoint::poll`] has something.
    pub(crate) fn has_completion(&self) -> bool {
        (self.connected || self.ended) && (self.sq.has_completion() || self.rq.has_completion())
    }

    /// Whether every posted send-queue operation is done.
    pub(crate) fn sends_drained(&self) -> bool {
        self.sq.is_drained() || self.ended
    }

    /// A key by which this connection's peer reaches a part of a region.
    pub(crate) fn grant(
        &mut self,
        region: &Arc<Region>,
        offset: usize,
        length: usize,
        access: Access,
    ) -> Result<u32> {
        let Some(device) = self.device.as_ref().filter(|_| !self.ended) else {
            let text = "the device of the connection is known from RCG_EVENT_ESTABLISHED on";
            return Err(Error::state(libc::EAGAIN, text));
        };
        let key = device.remote_key(region, offset, length, access).map_err(post::to_caller)?;
        if self.granted.len() == self.granted.capacity() {
            // Those that were revoked meanwhile, too: a caller may ask for a key per operation.
            let number = device.number();
            self.granted.retain(|(region, key)| {
                region.upgrade().is_some_and(|region| region.has_device_key(number, *key))
            });
        }
        self.granted.push((Arc::downgrade(region), key));
        Ok(key)
    }

    fn revoke_keys(&mut self) {
        let Some(device) = &self.device else { return };
        for (region, key) in self.granted.drain(..) {
            if let Some(region) = region.upgrade() {
                region.end_device_key(device.number(), key);
            }
        }
    }

    /// Gives away the caller's receives, for an endpoint of another provider; only without a queue pair.
    pub(crate) fn take_receives(&mut self) -> Vec<RecvWr> {
        self.rq.take()
    }

    /// `rdma_disconnect`. On iWARP only one side's call succeeds.
    pub(crate) fn disconnect(&mut self) {
        if let Some(id) = &self.id {
            let _ = id.disconnect();
        }
    }

    /// The queue pair to error: everything posted completes, and then `Flushed` comes. Says it at once when nothing is
    /// with the device.
    pub(crate) fn flush(&mut self, now: Instant, events: &mut Vec<Event>) {
        self.drain();
        self.ended = true;
        self.hold_until = None;
        self.ready_by = None;
        self.pulse.stop();
        let qp = self.id.as_ref().and_then(CmId::qp);
        // A device that is gone completes nothing any more.
        let asked = qp.is_some_and(|qp| qp.fail().is_ok());
        self.flushing = true;
        if !asked || self.device.as_ref().is_some_and(|device| device.is_gone()) {
            self.flushing = false;
            events.push(Event::Flushed);
        } else {
            self.expect_quiet(now);
            self.check_flushed(events);
        }
    }

    /// siw has flushed all when a queue pair comes to be in error, and overlooks what a program posts later: our request
    /// behind silent ones, where it was the kernel that had ended the queue pair.
    fn expect_quiet(&mut self, now: Instant) {
        if self.flushing && self.is_siw() {
            self.quiet_at = Some(now + QUIET);
        }
    }

    fn check_flushed(&mut self, events: &mut Vec<Event>) {
        if self.flushing {
            // For want of room there may have been no request of ours behind the last silent one yet.
            self.drain();
        }
        if self.flushing && self.sq.outstanding() == 0 && self.rq.outstanding() == 0 {
            self.flushing = false;
            self.quiet_at = None;
            events.push(Event::Flushed);
        }
    }

    /// Drops the id and the queue pair of an attempt that has failed; the caller's receives stay.
    pub(crate) fn abandon(&mut self, hub: Option<&mut Hub>) {
        self.revoke_keys();
        self.drop_objects(hub);
        if let Err(error) = self.rq.rewind() {
            self.failure.get_or_insert(error);
        }
        self.sq.flush(-libc::ECANCELED);
        self.attempt += 1;
        self.terms = Terms::default();
        self.peer_private = None;
        self.device = None;
        self.bounce = None;
    }

    /// Drops everything: what is unfinished completes as flushed, as nothing can touch its memory any more.
    pub(crate) fn destroy(&mut self, hub: Option<&mut Hub>) {
        self.ended = true;
        self.drop_objects(hub);
        self.sq.flush(-libc::ECANCELED);
        self.rq.flush(-libc::ECANCELED);
        self.revoke_keys();
        self.device = None;
    }

    fn drop_objects(&mut self, hub: Option<&mut Hub>) {
        let slow = std::mem::take(&mut self.connecting) && self.is_iwarp();
        let mut id = self.id.take();
        self.qp = None;
        if slow {
            // The kernel waits for the peer's answer to the MPA request, ten seconds long, before the queue pair goes or
            // the id does. An answer to a queue pair in the error state comes to nothing.
            id.as_ref().and_then(CmId::qp).inspect(|qp| drop(qp.fail()));
            id.take().into_iter().for_each(dispose);
        }
        id.iter_mut().for_each(CmId::destroy_qp);
        if let (Some(hub), Some(lease)) = (hub, self.lease.take()) {
            hub.release(&lease);
        }
    }
}

/// An error of the provider at a stage, with the device's name.
fn at(error: Error, stage: Stage) -> Error {
    if error.stage == Stage::None { error.at(stage) } else { error }
}

/// What a call in the wrong order gives.
fn misplaced() -> Error {
    Error::new(libc::EIO, Reason::Internal, "the connection has no id")
}
