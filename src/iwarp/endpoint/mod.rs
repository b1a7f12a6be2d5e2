//! One connection over TCP: its socket, the MPA handshake on it, then the queue pair.
//!
//! An endpoint belongs to the channel that drives it; posting may happen on any thread, under the connection's lock.
//! What happens is told as [`cm::Event`]s, which the connection's life cycle turns into what has to be done.

mod setup;
mod stream;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockAddr;

use super::handshake::{Agreed, Initiator, Offer, Responder, max_private_data};
use super::qp::{Capabilities, QueuePair, StagePool};
use super::socket::{Options, Socket};
use crate::cm::Event;
use crate::error::{Error, Reason, Result, Stage};
use crate::memory::KeyTable;
use crate::tcp::stall::StallWatch;
use crate::wire::mpa;

/// Longest ULPDU towards peers of this library: 65024 octets of payload behind an untagged header.
pub const OWN_MAX_ULPDU: usize = 65_042;
/// Octets of the buffer that a channel reads into: what one `recv` may bring, and the longest unfinished FPDU.
pub const READ_BUFFER: usize = 256 * 1024 + mpa::MAX_FPDU + 8;
/// How often a responder looks whether its reply has been acknowledged before it dares to send first.
const HOLD_STEP: Duration = Duration::from_millis(5);
/// When an initiator that has heard nothing since the reply sends its first frame again, and how often. What reaches
/// kernel soft iWARP (Linux 6.1) between its reply and the moment when it listens is not looked at before more comes.
const NUDGES: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(800)];

/// What an endpoint is told about readiness.
#[derive(Clone, Copy, Debug, Default)]
pub struct Readiness {
    /// Octets or an end of file can be read.
    pub readable: bool,
    /// The socket takes octets again, or a connect has ended.
    pub writable: bool,
    /// The peer has closed, or an error waits.
    pub closed: bool,
}

/// What a step of work leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The socket will tell when there is more.
    Waiting,
    /// There is more to do right away.
    More,
}

enum Phase {
    Idle,
    /// TCP's own handshake.
    Connecting,
    /// TCP is connected.
    Connected,
    /// The request is out, the reply awaited.
    Requesting(Initiator),
    /// A request has come; the caller has to answer.
    Requested(Responder),
    /// The accept is on its way out.
    Accepting(Agreed),
    /// FPDUs flow.
    Streaming,
    /// Over.
    Ended,
}

/// What the endpoint needs to know about the path.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Notice a dead peer within about this time.
    pub dead_peer: Duration,
    /// Bound on leaving, and on waiting for receives once the peer has gone.
    pub linger: Duration,
    /// Longest ULPDU the caller allows.
    pub max_ulpdu: Option<usize>,
    /// Congestion control to set.
    pub congestion: Option<std::ffi::CString>,
}

/// A connection over TCP.
pub struct Endpoint {
    socket: Option<Socket>,
    phase: Phase,
    policy: Policy,
    /// Handshake octets that the socket has not taken yet.
    out: Vec<u8>,
    /// Received octets that could not be parsed yet, behind those that have been.
    stash: Vec<u8>,
    /// Octets of the stash that have been parsed since; never all of them.
    parsed: usize,
    qp: QueuePair,
    /// The socket may have more to read.
    readable: bool,
    /// What [`Endpoint::look`] has read into the channel's buffer.
    found: Option<io::Result<usize>>,
    /// The peer has sent its FIN, or an error waits.
    hung_up: bool,
    /// The first error of a send that posting has met: the socket tells it once.
    send_error: Option<Error>,
    blocked: bool,
    /// When a peer that has gone while a message waits for a receive is given up.
    give_up: Option<Instant>,
    ready_told: bool,
    agreed: Option<Agreed>,
    watch: StallWatch,
    watched: u64,
    next_watch: Option<Instant>,
    hold_until: Option<Instant>,
    acknowledged: bool,
    nudge_at: Option<Instant>,
    nudged: usize,
    peer_private: Option<Arc<[u8]>>,
    finishing: bool,
    send_stalls: u64,
    /// A tracepoint has told that the socket is full.
    stalled: bool,
    stream: u64,
    calls: Calls,
}

/// System calls of the stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calls {
    /// Those that send.
    pub send: u64,
    /// Those that receive.
    pub recv: u64,
}

impl Endpoint {
    /// An endpoint without a socket.
    pub fn new(
        caps: Capabilities,
        policy: Policy,
        stream: u64,
        keys: &Arc<KeyTable>,
        stages: &Arc<StagePool>,
    ) -> Result<Self> {
        Ok(Self {
            socket: None,
            phase: Phase::Idle,
            out: Vec::new(),
            stash: Vec::new(),
            parsed: 0,
            qp: QueuePair::new(caps, stream, keys, stages)?,
            readable: false,
            found: None,
            hung_up: false,
            send_error: None,
            blocked: false,
            give_up: None,
            ready_told: false,
            agreed: None,
            watch: StallWatch::new(policy.dead_peer),
            watched: 0,
            next_watch: None,
            hold_until: None,
            acknowledged: false,
            nudge_at: None,
            nudged: 0,
            peer_private: None,
            finishing: false,
            send_stalls: 0,
            stalled: false,
            stream,
            calls: Calls::default(),
            policy,
        })
    }

    /// Takes over an accepted socket whose request has been read.
    pub fn adopt(&mut self, socket: Socket, responder: Responder, private_data: &[u8]) {
        self.socket = Some(socket);
        self.phase = Phase::Requested(responder);
        self.peer_private = Some(private_data.into());
    }

    /// The socket, while there is one.
    pub fn socket(&self) -> Option<&Socket> {
        self.socket.as_ref()
    }

    /// The queue pair.
    pub fn qp(&self) -> &QueuePair {
        &self.qp
    }

    /// The queue pair.
    pub fn qp_mut(&mut self) -> &mut QueuePair {
        &mut self.qp
    }

    /// What the handshake agreed on.
    pub fn agreed(&self) -> Option<&Agreed> {
        self.agreed.as_ref()
    }

    /// Most octets of private data that can be sent now.
    pub fn max_private_data(&self) -> usize {
        match &self.phase {
            Phase::Requested(responder) => responder.max_private_data(),
            _ => max_private_data(2, true),
        }
    }

    /// Times the socket took less than was offered.
    pub fn send_stalls(&self) -> u64 {
        self.send_stalls
    }

    /// System calls so far.
    pub fn calls(&self) -> Calls {
        self.calls
    }

    /// What the peer's application sent with its request, accept or reject.
    pub fn peer_private(&self) -> Option<Arc<[u8]>> {
        self.peer_private.clone()
    }

    /// Starts TCP's handshake.
    pub fn connect(&mut self, addr: &SockAddr, local: Option<&SockAddr>) -> Result<&Socket> {
        let options =
            Options { dead_peer: self.policy.dead_peer, congestion: self.policy.congestion.as_deref() };
        let socket = Socket::connect(addr, local, &options)?;
        self.phase = Phase::Connecting;
        Ok(self.socket.insert(socket))
    }

    /// Sends the MPA request.
    pub fn request(&mut self, offer: Offer) -> Result<()> {
        let initiator = Initiator::new(offer)?;
        self.out = initiator.request().to_vec();
        self.phase = Phase::Requesting(initiator);
        self.flush_handshake()
    }

    /// Sends the MPA reply that accepts.
    pub fn accept(&mut self, private_data: &[u8], ird: u16, ord: u16, events: &mut Vec<Event>) -> Result<()> {
        let Phase::Requested(responder) = &mut self.phase else {
            return Err(Error::state(libc::EINVAL, "no request to accept"));
        };
        // The memory of a connection is what its attributes say, not what its peer wants.
        responder.cap(ird);
        let (reply, agreed) = responder.accept(private_data, ird, ord)?;
        self.out = reply;
        self.phase = Phase::Accepting(agreed);
        self.flush_handshake()?;
        self.after_accept(events);
        Ok(())
    }

    /// Answers the request without our tag.
    pub fn untag(&mut self) {
        if let Phase::Requested(responder) = &mut self.phase {
            responder.untag();
        }
    }

    /// Sends the MPA reply that rejects.
    pub fn reject(&mut self, reason: u32, private_data: &[u8]) -> Result<()> {
        let Phase::Requested(responder) = &mut self.phase else { return Ok(()) };
        self.out = responder.reject(reason, private_data)?;
        self.phase = Phase::Ended;
        self.finishing = true;
        self.flush_handshake()
    }

    /// Drops the socket of an attempt that has failed; posted receives stay.
    pub fn abandon(&mut self) {
        self.socket = None;
        self.phase = Phase::Idle;
        self.out.clear();
        self.stash.clear();
        self.parsed = 0;
        self.readable = false;
        self.found = None;
        self.hung_up = false;
    }

    /// Sends the FIN: nothing more will be sent.
    pub fn shut_down(&mut self) {
        if let Some(socket) = &self.socket {
            // A peer that has gone already needs no FIN.
            let _ = socket.shutdown_write();
        }
        self.finishing = true;
    }

    /// Ends the queue pair: everything posted completes.
    pub fn flush_queue_pair(&mut self, error: Error) {
        self.qp.abort(error);
        // The Terminate, if there is one; it is the last thing to be sent.
        let _ = self.flush();
        // A request that has not been answered can still be rejected.
        if !matches!(self.phase, Phase::Requested(_)) {
            self.phase = Phase::Ended;
        }
    }

    /// Gives the socket away: `Some` where the peer should still read what was sent last, so that it must not be
    /// reset yet.
    pub fn destroy(&mut self) -> Option<Socket> {
        self.phase = Phase::Ended;
        let linger = self.finishing || self.qp.fault().is_some_and(|fault| fault.tells_peer());
        self.socket.take().filter(|_| linger)
    }

    /// Works on what the socket has told.
    pub fn ready(&mut self, ready: Readiness, buffer: &mut [u8], events: &mut Vec<Event>) -> Progress {
        self.readable |= ready.readable || ready.closed;
        self.hung_up |= ready.closed;
        let result = match self.phase {
            Phase::Idle | Phase::Ended => Ok(Progress::Waiting),
            Phase::Connecting => self.connected(ready, events),
            Phase::Connected => Ok(Progress::Waiting),
            Phase::Requesting(_) => self.await_reply(buffer, events),
            Phase::Requested(_) => self.watch_requester(buffer, events),
            Phase::Accepting(_) => self.flush_handshake().map(|()| {
                self.after_accept(events);
                Progress::More
            }),
            Phase::Streaming if self.is_stuck() || (self.blocked && ready.closed) => self.check_blocked(),
            Phase::Streaming => self.stream(buffer, events),
        };
        result.unwrap_or_else(|error| {
            events.push(self.lost(error));
            Progress::Waiting
        })
    }

    /// A message waits for a receive, and there still is none.
    fn is_stuck(&self) -> bool {
        self.blocked && !self.qp.has_receive()
    }

    /// While a message waits for a receive nothing is read, so that an error, or the peer's end, would go unnoticed.
    fn check_blocked(&mut self) -> Result<Progress> {
        self.watch_blocked();
        let error = self.socket.as_ref().map_or(Ok(()), Socket::take_error);
        error.map_err(established)?;
        self.flush()
    }

    /// A peer that has gone is not waited for without end.
    fn watch_blocked(&mut self) {
        if self.blocked && self.hung_up && self.give_up.is_none() {
            self.give_up = Some(Instant::now() + self.policy.linger);
        }
    }

    /// An error of the socket as an event.
    fn lost(&self, error: Error) -> Event {
        if matches!(self.phase, Phase::Streaming) { Event::StreamError(error) } else { Event::Failed(error) }
    }
}

/// An error of the socket of an established connection: a time-out is what keepalive found.
fn established(mut error: Error) -> Error {
    if error.errno == libc::ETIMEDOUT {
        error.reason = Reason::PeerDead;
    }
    error.at(Stage::Connected)
}
