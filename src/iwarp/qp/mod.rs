//! The queue pair: work requests in, octets of the TCP stream out, and the reverse; no sockets, no clock.
//!
//! Sending: [`QueuePair::post_send`] queues, [`QueuePair::send`] builds FPDUs and has whoever owns the socket send them.
//! Receiving: [`QueuePair::input`] takes what the socket gave,
//! checks every header before it places an octet, and says how much it consumed.

mod control;
mod fault;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod gather;
mod place;
mod queue;
mod recv_queue;
mod rx;
mod send_queue;
mod transmit;
mod tx;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

pub use fault::Fault;
pub use gather::{Piece, StagePool};
pub use place::Direct;
use recv_queue::RecvQueue;
use rx::Rx;
pub use rx::{Input, Stop};
use send_queue::SendQueue;
pub use transmit::Sent;
use tx::Tx;

use crate::error::{Error, Result};
use crate::memory::KeyTable;
use crate::wire::mpa;
pub use crate::wire::mpa::{fpdu_len, max_ulpdu_within};
pub use crate::work::Capabilities;
use crate::work::{Completion, Fill, MAX_MESSAGE, Opcode, Payload, RecvWr, SendWr, Sge, flags};

/// What the handshake has agreed on.
#[derive(Clone, Copy, Debug)]
pub struct Parameters {
    /// CRC32C in both directions.
    pub crc: bool,
    /// Longest ULPDU we send, in octets; taken as 64 where it is less and as 65535 where it is more.
    pub max_ulpdu: usize,
    /// The peer is this library: RFC 7306 immediate data is understood.
    pub own_peer: bool,
    /// Read Requests the peer may have outstanding.
    pub ird: usize,
    /// Read Requests we may have outstanding.
    pub ord: usize,
    /// What we send at once so that the peer may start.
    pub first_frame: FirstFrame,
}

/// Who sends the first FPDU, and which (RFC 5044 section 7.1, RFC 6581 section 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstFrame {
    /// Initiator: a zero-length RDMA Write.
    SendWrite,
    /// Initiator: a zero-length RDMA Read Request.
    SendRead,
    /// Responder: nothing may be sent before the initiator's first FPDU has come, or [`QueuePair::release_hold`].
    Await,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Receives can be posted.
    Initial,
    /// Ready to send and receive.
    Active,
    /// Everything is flushed.
    Failed,
}

/// Shortest limit on a ULPDU: a Read Request (46 octets) and a few of payload fit. MPA itself never goes below 128.
const MIN_MAX_ULPDU: usize = 64;

/// A Read Request on its way: which work request, and where its response has to say it goes.
struct OutstandingRead {
    /// `None` for the zero-length one of the handshake.
    seq: Option<u64>,
    sink_offset: u64,
    size: u32,
    placed: u32,
}

/// One side of an RDMAP stream.
pub struct QueuePair {
    state: State,
    caps: Capabilities,
    params: Parameters,
    stream: u64,
    keys: Arc<KeyTable>,
    sq: SendQueue,
    rq: RecvQueue,
    reads: VecDeque<OutstandingRead>,
    tx: Tx,
    rx: Rx,
    fault: Option<Fault>,
    counters: Counters,
}

impl Drop for QueuePair {
    /// No key of a stream outlives it.
    fn drop(&mut self) {
        self.keys.revoke_stream(self.stream);
    }
}

/// What a queue pair counts.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counters {
    /// Work requests posted to the send queue.
    pub operations: u64,
    /// Octets received from the socket and parsed.
    pub received: u64,
    /// Times that an untagged message had to wait for a receive.
    pub recv_stalls: u64,
}

impl QueuePair {
    /// A queue pair of stream number `stream` in the protection domain `keys`.
    pub fn new(
        caps: Capabilities,
        stream: u64,
        keys: &Arc<KeyTable>,
        stages: &Arc<StagePool>,
    ) -> Result<Self> {
        let rq = if caps.recv_size > 0 {
            RecvQueue::managed(keys, caps.recv_size, caps.recv_depth)?
        } else {
            RecvQueue::new(caps.recv_depth)
        };
        let params = Parameters {
            crc: false,
            max_ulpdu: 512,
            own_peer: false,
            ird: 0,
            ord: 0,
            first_frame: FirstFrame::Await,
        };
        Ok(Self {
            state: State::Initial,
            params,
            stream,
            keys: Arc::clone(keys),
            sq: SendQueue::new(caps.send_depth),
            rq,
            reads: VecDeque::new(),
            tx: Tx::new(stages),
            rx: Rx::default(),
            fault: None,
            counters: Counters::default(),
            caps,
        })
    }

    /// Bytes of memory that a queue pair with these capabilities can hold while idle, as its queues keep the places that have
    /// been used; before the handshake has settled how many Reads there can be: see [`QueuePair::read_memory`].
    pub fn memory(caps: &Capabilities) -> usize {
        let sends = caps.send_depth.saturating_mul(size_of::<send_queue::Entry>());
        let receives = RecvQueue::memory(caps.recv_depth, caps.recv_size);
        (size_of::<Self>() + Tx::MEMORY).saturating_add(sends).saturating_add(receives)
    }

    /// Bytes of memory that Reads can add.
    pub fn read_memory(ird: usize, ord: usize) -> usize {
        let responses = Tx::responses(ird).saturating_mul(size_of::<tx::ReadJob>());
        responses.saturating_add(ord.saturating_add(1).saturating_mul(size_of::<OutstandingRead>()))
    }

    /// Starts the stream after the handshake.
    pub fn activate(&mut self, params: Parameters) {
        if self.state == State::Initial {
            self.params = params;
            self.params.max_ulpdu = params.max_ulpdu.clamp(MIN_MAX_ULPDU, mpa::MAX_ULPDU);
            self.tx.activate(params.first_frame);
            self.tx.gather.provide();
            self.state = State::Active;
        }
    }

    /// The parameters in force.
    pub fn parameters(&self) -> &Parameters {
        &self.params
    }

    /// Operations that are posted and not told to be done, and receives.
    pub fn queued(&self) -> (usize, usize) {
        (self.sq.len(), self.rq.len())
    }

    /// Whether a message would find a receive.
    pub fn has_receive(&self) -> bool {
        self.rq.ready()
    }

    /// What has been counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Queues `n` work requests, all or none; `fill` makes each.
    pub fn post_send(&mut self, n: usize, fill: &mut Fill<'_, SendWr>) -> Result<()> {
        if self.state != State::Active {
            return Err(Error::state(libc::ENOTCONN, "the connection is not established"));
        }
        if n > self.sq.depth() {
            return Err(Error::invalid(format!(
                "{n} operations can't fit a send queue of {}",
                self.sq.depth()
            )));
        }
        self.sq.reap(self.tx.sent);
        if n > self.sq.room() {
            return Err(Error::state(libc::EAGAIN, "the send queue is full: wait for completions"));
        }
        self.sq.make_room(n);
        let before = self.sq.len();
        for index in 0..n {
            let pushed = self.sq.push(|wr| fill(index, wr));
            if let Err(error) = pushed.and_then(|()| self.sq.last().map_or(Ok(()), |wr| self.check(wr))) {
                self.sq.truncate(before);
                return Err(error);
            }
        }
        self.counters.operations += n as u64;
        Ok(())
    }

    fn check(&self, wr: &SendWr) -> Result<()> {
        if wr.payload.len() > MAX_MESSAGE {
            return Err(Error::new(
                libc::EMSGSIZE,
                crate::error::Reason::Invalid,
                "a message is longer than 2 GiB",
            ));
        }
        if let Payload::Sges(sges) = &wr.payload {
            self.check_domain(sges)?;
        }
        let into_nothing =
            wr.opcode == Opcode::Read && matches!(&wr.payload, Payload::Inline(octets) if !octets.is_empty());
        if into_nothing || wr.opcode == Opcode::Recv {
            return Err(Error::invalid("a Read can't be inline, and receives belong in the receive queue"));
        }
        let remote = matches!(wr.opcode, Opcode::Write | Opcode::WriteImm | Opcode::Read);
        if remote && wr.remote_addr.checked_add(wr.payload.len()).is_none() {
            return Err(Error::invalid("the remote range wraps around the address space"));
        }
        if matches!(wr.opcode, Opcode::SendImm | Opcode::WriteImm) && !self.params.own_peer {
            return Err(Error::new(
                libc::EOPNOTSUPP,
                crate::error::Reason::NoProvider,
                "immediate data over iWARP (RFC 7306) is understood by peers of this library only",
            ));
        }
        if wr.opcode == Opcode::Read && self.params.ord == 0 {
            return Err(Error::new(
                libc::EOPNOTSUPP,
                crate::error::Reason::Rejected,
                "the peer allows no RDMA Read: its IRD is 0",
            ));
        }
        Ok(())
    }

    /// Regions of another protection domain are not for this queue pair, as in verbs.
    fn check_domain(&self, sges: &[Sge]) -> Result<()> {
        if sges.iter().all(|sge| Arc::ptr_eq(sge.region().domain(), &self.keys)) {
            return Ok(());
        }
        Err(Error::invalid("the region belongs to another engine than the connection"))
    }

    /// Queues `n` receives, all or none.
    pub fn post_recv(&mut self, n: usize, fill: &mut Fill<'_, RecvWr>) -> Result<()> {
        if self.state == State::Failed {
            return Err(Error::state(libc::ENOTCONN, "the connection has ended"));
        }
        if self.rq.is_managed() {
            return Err(Error::invalid("the library owns this connection's receive buffers"));
        }
        if n > self.rq.depth() {
            return Err(Error::invalid(format!(
                "{n} receives can't fit a receive queue of {}",
                self.rq.depth()
            )));
        }
        let before = self.rq.len();
        if before + n > self.rq.depth() {
            return Err(Error::state(libc::EAGAIN, "the receive queue is full"));
        }
        self.rq.make_room(n);
        for index in 0..n {
            let pushed = self.rq.push(|wr| fill(index, wr));
            let checked = || self.rq.last().map_or(Ok(()), |wr| self.check_domain(&wr.sges));
            if let Err(error) = pushed.and_then(|()| checked()) {
                self.rq.truncate(before);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes a lent receive buffer back and posts it again.
    pub fn release(&mut self, buffer: u64) -> Result<()> {
        self.rq.release(buffer)
    }

    /// Gives away the caller's receives, for a queue pair of another provider; only before the stream has begun.
    pub fn take_receives(&mut self) -> Vec<RecvWr> {
        if self.state == State::Initial { self.rq.take() } else { Vec::new() }
    }

    /// The next completion, those of the send queue first.
    pub fn poll(&mut self) -> Option<Completion> {
        self.sq.pop(self.tx.sent).or_else(|| self.rq.pop())
    }

    /// Whether [`QueuePair::poll`] has something.
    pub fn has_completion(&self) -> bool {
        self.sq.has_completion(self.tx.sent) || self.rq.has_completion()
    }

    /// Whether every posted send-queue operation is finished and all octets are with the socket.
    pub fn sends_drained(&self) -> bool {
        self.sq.all_sent(self.tx.sent) && self.tx.is_idle()
    }

    /// Whether the first FPDU of the peer has arrived.
    pub fn heard(&self) -> bool {
        self.rx.heard
    }

    /// Lets a responder send although the initiator has not: for peers without RFC 6581's ready-to-receive.
    pub fn release_hold(&mut self) {
        self.tx.hold = false;
    }

    /// Sends a Write of no octets once more, which changes nothing but tells a peer that octets have come.
    pub fn nudge(&mut self) {
        if self.state == State::Active {
            self.tx.nudge();
        }
    }

    /// Why the stream failed, if it did.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// Fails the stream from outside: an error of the socket, a close, a deadline. Nothing is sent for it.
    pub fn abort(&mut self, error: Error) {
        self.fail(Fault::local(error));
    }

    /// Ends everything: the first fault counts; work requests that are not finished are flushed.
    fn fail(&mut self, fault: Fault) {
        if self.state == State::Failed {
            return;
        }
        self.state = State::Failed;
        self.tx.stop();
        if let Some(terminate) = &fault.terminate {
            self.tx.stage_terminate(terminate, self.params.crc);
        }
        self.blame(&fault);
        self.sq.flush(self.tx.sent, -libc::ECANCELED);
        self.rq.flush(-libc::ECANCELED);
        self.reads.clear();
        self.fault = Some(fault);
        self.keys.revoke_stream(self.stream);
    }

    /// Gives the work request that a peer's Terminate is about its own status: only a Read can still be open.
    fn blame(&mut self, fault: &Fault) {
        let Some(blame) = fault.blames_read else { return };
        let asked = self.reads.iter().filter(|read| read.seq.is_some());
        let named = asked.clone().find(|read| read.size > 0 && blame.sink_offset == Some(read.sink_offset));
        let seq = named.or_else(|| asked.clone().next()).and_then(|read| read.seq);
        if let Some(entry) = seq.and_then(|seq| self.sq.get_mut(seq)) {
            entry.status = blame.status;
        }
    }

    /// Whether a Terminate, or the frame before it, still has to reach the socket.
    pub fn has_output(&self) -> bool {
        !self.tx.gather.is_empty()
    }

    /// Whether nothing can be sent now: the gather is empty, and no message is begun or can begin.
    pub fn is_quiet(&self) -> bool {
        self.tx.is_idle() && (self.tx.hold || (self.tx.responses.is_empty() && !self.may_begin()))
    }

    /// From now on a message without a posted receive ends the stream.
    pub fn set_strict(&mut self) {
        self.caps.strict_recv = true;
    }

    /// Octets sent so far.
    pub fn octets_sent(&self) -> u64 {
        self.tx.sent
    }

    /// Whether there is a work request that may begin.
    fn may_begin(&self) -> bool {
        self.sq.upcoming().is_some_and(|entry| !self.fenced(&entry.wr))
    }

    fn fenced(&self, wr: &SendWr) -> bool {
        let waits_for_reads =
            wr.flags & flags::FENCE != 0 && self.reads.iter().any(|read| read.seq.is_some());
        waits_for_reads || (wr.opcode == Opcode::Read && self.reads.len() >= self.params.ord)
    }
}
