//! A connection as the C API sees it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::SockAddr;

use super::channel::{Channel, Command, Source};
use super::config::{
    AcceptConfig, ConnectConfig, FLAG_RAW_PRIVATE_DATA, FLAG_STRICT_RECV, MAX_ADDRESSES, PROVIDER_IWARP,
    PROVIDER_VERBS, QpPlan, Target, check_private_data, iwarp_limits, millis,
};
use super::endpoint::Endpoint;
use super::event::{ErrorReport, Event, event_flags, kind};
use super::instance::Engine;
use super::listener::Listener;
use super::perform::{Happening, Io, Outcome};
use super::resolve::{format_addr, numeric};
use super::route::{Candidate, candidates};
use super::stats::Tally;
use super::upper::{Protocol, Upper};
use super::{Object, register, retire};
use crate::cm::{self, Life, Request, State};
use crate::error::{Error, Reason, Result, Stage};
use crate::iwarp::handshake::Responder;
use crate::iwarp::socket::Socket;
use crate::memory::{Access, Region};
use crate::trace;
use crate::verbs;
use crate::work::{Completion, Opcode};

/// Default bound on a whole connect.
const CONNECT_TIMEOUT_MS: u32 = 10_000;
/// Bound on waiting for flushed operations; those of iwarp are flushed at once.
const FLUSH_GRACE: Duration = Duration::from_secs(1);

/// How a request was answered.
pub(super) enum Answer {
    Accept(AcceptConfig),
    Reject(u32, Vec<u8>),
}

/// What is behind a connection's lock.
pub(super) struct Inner {
    pub(super) life: Life,
    pub(super) endpoint: Endpoint,
    pub(super) plan: QpPlan,
    pub(super) context: usize,
    pub(super) candidates: Vec<Candidate>,
    /// How often one of them has been tried again.
    pub(super) again: usize,
    /// Whether devices are to be tried.
    pub(super) devices: bool,
    /// Bound on the whole connect.
    pub(super) timeout: Duration,
    /// A name still to be resolved.
    pub(super) host: Option<(String, String)>,
    pub(super) connect: Option<ConnectConfig>,
    pub(super) answer: Option<Answer>,
    pub(super) listener: Option<Arc<Listener>>,
    pub(super) local: Option<SockAddr>,
    pub(super) peer: Option<Arc<SockAddr>>,
    pub(super) draining: bool,
    /// The caller has asked to leave: nothing more is posted.
    pub(super) leaving: bool,
    /// Events that come before any completion.
    pub(super) early: VecDeque<Event>,
    pub(super) disconnected: Option<Event>,
    pub(super) closed: bool,
    pub(super) closed_told: bool,
    pub(super) tally: Tally,
    /// The stage that a tracepoint has told.
    pub(super) told_stage: Stage,
    /// Why it failed or ended.
    pub(super) last_error: Option<Arc<ErrorReport>>,
}

/// One connection.
pub struct Conn {
    handle: AtomicUsize,
    id: u64,
    /// The name or address the caller gave.
    pub(super) name: String,
    channel: Arc<Channel>,
    in_ready: AtomicBool,
    in_kicks: AtomicBool,
    ended: AtomicBool,
    upper: Option<Arc<dyn Upper>>,
    pub(super) inner: Mutex<Inner>,
}

impl Conn {
    fn create(
        channel: &Arc<Channel>,
        id: u64,
        name: String,
        protocol: Option<&Protocol>,
        inner: Inner,
    ) -> Result<Arc<Self>> {
        let conn = Arc::new(Self {
            handle: AtomicUsize::new(0),
            id,
            name,
            channel: Arc::clone(channel),
            in_ready: AtomicBool::new(false),
            in_kicks: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            upper: protocol.map(Protocol::make),
            inner: Mutex::new(inner),
        });
        conn.handle.store(register(Object::Conn(Arc::clone(&conn)))?, Ordering::Relaxed);
        Ok(conn)
    }

    fn inner(life: Life, endpoint: Endpoint, plan: QpPlan, context: usize) -> Inner {
        Inner {
            life,
            endpoint,
            plan,
            context,
            candidates: Vec::new(),
            again: 0,
            devices: false,
            timeout: Duration::ZERO,
            host: None,
            connect: None,
            answer: None,
            listener: None,
            local: None,
            peer: None,
            draining: false,
            leaving: false,
            early: VecDeque::new(),
            disconnected: None,
            closed: false,
            closed_told: false,
            tally: Tally::default(),
            told_stage: Stage::None,
            last_error: None,
        }
    }

    pub(super) fn connect(
        channel: &Arc<Channel>,
        target: Target,
        config: ConnectConfig,
    ) -> Result<Arc<Self>> {
        let plan = config.qp.plan()?;
        let revision = match config.mpa_revision {
            0 => 2,
            revision @ (1 | 2) => revision as u8,
            other => return Err(Error::invalid(format!("MPA has no revision {other}"))),
        };
        let provider = plan.provider;
        check_private_data(config.private_data.len(), provider, revision, !plan.raw_private_data)?;
        let devices = channel.verbs_for(provider)?;
        let deadline = millis(config.timeout_ms, CONNECT_TIMEOUT_MS, "timeout_ms")?;
        let (name, addrs, host) = match target {
            Target::Addresses(addrs) => (addrs.first().map(format_addr).unwrap_or_default(), addrs, None),
            Target::Host(host, service) => match numeric(&host, &service) {
                Some(addrs) => (host, addrs, None),
                None => (host.clone(), Vec::new(), Some((host, service))),
            },
        };
        if host.is_none() && !(1..=MAX_ADDRESSES).contains(&addrs.len()) {
            return Err(Error::invalid(format!("a peer has 1 to {MAX_ADDRESSES} addresses")));
        }
        let candidates = candidates(&addrs, provider, devices);
        let id = channel.engine().next_id();
        let first = if devices { PROVIDER_VERBS } else { PROVIDER_IWARP };
        let endpoint = Endpoint::new(first, channel, id, &plan)?;
        let bounds = cm::Config {
            candidates: candidates.len().max(1),
            deadline,
            linger: plan.linger,
            flush_grace: FLUSH_GRACE,
        };
        let life = Life::active(bounds, Instant::now());
        let mut inner = Self::inner(life, endpoint, plan, config.context);
        inner.peer = addrs.first().cloned().map(Arc::new);
        inner.candidates = candidates;
        inner.devices = devices;
        inner.timeout = deadline;
        inner.host = host;
        let protocol = config.protocol.clone();
        inner.connect = Some(config);
        let conn = Self::create(channel, id, name, protocol.as_ref(), inner)?;
        if let Err(error) = channel.admit(Command::Add(Arc::clone(&conn))) {
            retire(conn.handle());
            return Err(error);
        }
        Ok(conn)
    }

    /// A connection for a request that has been read on `socket`.
    pub(super) fn request(
        channel: &Arc<Channel>,
        listener: &Arc<Listener>,
        id: u64,
        (socket, peer): (Socket, SockAddr),
        responder: Responder,
        private_data: &[u8],
    ) -> Result<Arc<Self>> {
        let mut endpoint = Endpoint::new(PROVIDER_IWARP, channel, id, &listener.plan)?;
        let local = socket.local();
        if let Endpoint::Iwarp(iwarp) = &mut endpoint {
            iwarp.adopt(socket, responder, private_data);
        }
        let conn = Self::passive(channel, listener, id, endpoint, (local, Some(peer)))?;
        channel.adopt();
        Ok(conn)
    }

    /// A connection for a request that has come to a listening id: handed over to its channel, which may be another one
    /// than the listener's.
    pub(super) fn asked(
        channel: &Arc<Channel>,
        listener: &Arc<Listener>,
        request: verbs::Request,
    ) -> Result<()> {
        let id = channel.engine().next_id();
        let endpoint = Endpoint::new(PROVIDER_VERBS, channel, id, &listener.plan)?;
        let addresses = (request.local(), request.peer());
        let conn = Self::passive(channel, listener, id, endpoint, addresses)?;
        // The id's next event names the connection, and may come to either channel: both find it, and wait for the lock.
        let mut inner = conn.inner.lock();
        if let Some(verbs) = inner.endpoint.verbs() {
            verbs.adopt(request, conn.handle());
        }
        let admitted = channel.admit(Command::Asked(Arc::clone(&conn)));
        drop(inner);
        admitted.inspect_err(|_| retire(conn.handle()))
    }

    fn passive(
        channel: &Arc<Channel>,
        listener: &Arc<Listener>,
        id: u64,
        endpoint: Endpoint,
        (local, peer): (Option<SockAddr>, Option<SockAddr>),
    ) -> Result<Arc<Self>> {
        let plan = listener.plan.clone();
        let bounds = cm::Config {
            candidates: 1,
            deadline: listener.handshake_timeout,
            linger: plan.linger,
            flush_grace: FLUSH_GRACE,
        };
        let name = peer.as_ref().map(format_addr).unwrap_or_default();
        let mut inner =
            Self::inner(Life::passive(bounds, Instant::now()), endpoint, plan, listener.context());
        inner.listener = Some(Arc::clone(listener));
        inner.local = local;
        inner.peer = peer.map(Arc::new);
        Self::create(channel, id, name, listener.protocol.as_ref(), inner)
    }

    /// Its handle.
    pub fn handle(&self) -> usize {
        self.handle.load(Ordering::Relaxed)
    }

    /// Its number in the engine: that of dumps and tracepoints.
    pub fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// The engine that it belongs to.
    pub fn engine(&self) -> &Arc<Engine> {
        self.channel.engine()
    }

    /// Whether a Send can invalidate a key of the peer's.
    pub fn can_invalidate(&self) -> bool {
        self.inner.lock().endpoint.can_invalidate()
    }

    /// What is spoken on top of it.
    pub fn upper(&self) -> Option<&dyn Upper> {
        self.upper.as_deref()
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Whether it has to be put in the queue of those with events.
    pub(super) fn begin_ready(&self) -> bool {
        !self.in_ready.swap(true, Ordering::SeqCst)
    }

    pub(super) fn begin_kick(&self) -> bool {
        !self.in_kicks.swap(true, Ordering::SeqCst)
    }

    pub(super) fn end_kick(&self) {
        self.in_kicks.store(false, Ordering::SeqCst);
    }

    /// Accepts the peer's request. ESTABLISHED or CONNECT_FAILED follows.
    pub fn accept(self: &Arc<Self>, mut config: AcceptConfig) -> Result<()> {
        if let Some(upper) = self.upper.as_deref() {
            if !config.private_data.is_empty() {
                return Err(Error::invalid("the private data of a connection for RPC are the library's"));
            }
            config.private_data = upper.accept_data();
        }
        let limits = iwarp_limits();
        if config.ird > limits.max_ird || config.ord > limits.max_ord {
            return Err(Error::invalid("ird or ord is over the limit"));
        }
        if config.flags & !(FLAG_RAW_PRIVATE_DATA | FLAG_STRICT_RECV) != 0 {
            return Err(Error::invalid(format!("unknown accept flags {:#x}", config.flags)));
        }
        self.answer(Request::Accept, Answer::Accept(config))
    }

    /// Rejects it. Only CLOSED follows.
    pub fn reject(self: &Arc<Self>, reason: u32, private_data: &[u8]) -> Result<()> {
        if reason > u32::from(u8::MAX) {
            return Err(Error::invalid("a reject reason has eight bits"));
        }
        self.answer(Request::Reject, Answer::Reject(reason, private_data.to_vec()))
    }

    fn answer(self: &Arc<Self>, request: Request, answer: Answer) -> Result<()> {
        let mut inner = self.inner.lock();
        if inner.listener.is_none() {
            return Err(Error::invalid("the connection is not a request of a peer's"));
        }
        if inner.leaving || inner.life.state() != State::Requested || inner.answer.is_some() {
            let errno = if inner.answer.is_some() { libc::EALREADY } else { libc::ENOTCONN };
            return Err(Error::state(errno, "the request has been answered, or has gone"));
        }
        let (length, limit) = match &answer {
            Answer::Accept(config) => (config.private_data.len(), inner.endpoint.max_private_data()),
            Answer::Reject(_, private_data) => (private_data.len(), inner.endpoint.max_reject_data()),
        };
        if length > limit {
            let text = format!("{length} octets of private data are over the limit of {limit}");
            return Err(Error::new(libc::EMSGSIZE, Reason::Invalid, text));
        }
        if let Answer::Accept(config) = &answer {
            inner.take_accept(config);
        }
        inner.answer = Some(answer);
        drop(inner);
        self.channel.send(Command::Request(Arc::clone(self), request));
        Ok(())
    }

    /// Leaves gracefully: what is queued goes out first.
    pub fn disconnect(self: &Arc<Self>) -> Result<()> {
        self.leave(Request::Disconnect)
    }

    /// Leaves now. Never blocks; doing it twice is no error.
    pub fn close(self: &Arc<Self>) -> Result<()> {
        self.leave(Request::Close)
    }

    fn leave(self: &Arc<Self>, request: Request) -> Result<()> {
        if !self.is_ended() {
            self.inner.lock().leaving = true;
            self.channel.send(Command::Request(Arc::clone(self), request));
        }
        Ok(())
    }

    /// A key by which the connection's peer reaches a part of a region.
    pub(super) fn grant(
        &self,
        region: &Arc<Region>,
        offset: usize,
        length: usize,
        access: Access,
    ) -> Result<u32> {
        self.inner.lock().endpoint.grant(region, self.id, (offset, length), access)
    }

    /// Has the events of the protocol on top fetched: it has one that no event of the connection's has brought.
    pub fn wake(self: &Arc<Self>) {
        self.channel.mark_ready(Source::Conn(Arc::clone(self)));
    }

    /// Lets the life cycle know and does what it asks for; on the channel's driver only.
    pub(super) fn drive(
        self: &Arc<Self>,
        happening: Happening<'_>,
        now: Instant,
        io: &mut Io<'_>,
    ) -> Outcome {
        let mut inner = self.inner.lock();
        let outcome = inner.drive(self, happening, now, io);
        if outcome.closed {
            self.ended.store(true, Ordering::SeqCst);
        }
        let waits = inner.has_events();
        drop(inner);
        if waits {
            self.channel.mark_ready(Source::Conn(Arc::clone(self)));
        }
        outcome
    }

    /// Whether its socket has something, or might have: to be driven with the same buffer at once.
    pub(super) fn look(&self, buffer: &mut [u8]) -> bool {
        self.inner.lock().endpoint.look(buffer)
    }

    /// Ends it after a bug or a failure of the loop itself: no socket, no state machine, but the promised events.
    pub(super) fn break_off(self: &Arc<Self>, error: &Error) {
        let mut inner = self.inner.lock();
        inner.break_off(self, error);
        drop(inner);
        self.ended.store(true, Ordering::SeqCst);
        self.channel.mark_ready(Source::Conn(Arc::clone(self)));
    }

    /// Moves events to `out` until it holds `max`; returns whether there are more.
    pub(super) fn collect(self: &Arc<Self>, max: usize, out: &mut Vec<Event>) -> bool {
        // The lock that follows orders this with those that add events.
        self.in_ready.store(false, Ordering::Release);
        if let Some(upper) = &self.upper {
            return self.collect_through(&**upper, max, out);
        }
        let mut inner = self.inner.lock();
        while out.len() < max {
            let Some(event) = inner.next_event(self) else { break };
            out.push(event);
        }
        inner.has_events()
    }

    /// The same for those of the protocol on top. The lock is free while that works: it posts.
    fn collect_through(self: &Arc<Self>, upper: &dyn Upper, max: usize, out: &mut Vec<Event>) -> bool {
        while out.len() < max {
            if let Some(event) = upper.next() {
                out.push(event);
                continue;
            }
            let event = self.inner.lock().next_event(self);
            let Some(event) = event else { return false };
            upper.take(self, event);
        }
        upper.has_next() || self.inner.lock().has_events()
    }
}

impl Inner {
    /// What an accept asks for beyond the reply itself.
    fn take_accept(&mut self, config: &AcceptConfig) {
        if config.context != 0 {
            self.context = config.context;
        }
        if config.flags & FLAG_STRICT_RECV != 0 {
            self.endpoint.set_strict();
        }
        if config.flags & FLAG_RAW_PRIVATE_DATA != 0 {
            self.endpoint.untag();
        }
    }

    /// Whether [`Inner::next_event`] has something.
    pub(super) fn has_events(&self) -> bool {
        !self.early.is_empty() || self.endpoint.has_completion() || (self.closed && !self.closed_told)
    }

    /// The next event: what was established or asked, then completions, then the end.
    fn next_event(&mut self, conn: &Conn) -> Option<Event> {
        if let Some(event) = self.early.pop_front() {
            return Some(event);
        }
        if let Some(completion) = self.endpoint.poll() {
            self.tally.completed(&completion);
            let Completion { opcode, status, length, .. } = completion;
            trace::completion(conn.id, opcode as u32, status, length);
            return Some(self.completion(conn.handle(), &completion));
        }
        // Until it is closed more completions may come, and they are told before the end.
        if !self.closed {
            return None;
        }
        if let Some(event) = self.disconnected.take() {
            return Some(event);
        }
        if !self.closed_told {
            self.closed_told = true;
            return Some(Event { kind: kind::CLOSED, ..self.event(conn.handle()) });
        }
        None
    }

    /// An event of this connection.
    pub(super) fn event(&self, handle: usize) -> Event {
        Event {
            conn: handle,
            listener: self.listener.as_ref().map_or(0, |listener| listener.handle()),
            context: self.context,
            peer: self.peer.clone(),
            ..Event::default()
        }
    }

    fn completion(&self, handle: usize, done: &Completion) -> Event {
        let flag = |set: bool, bit: u32| if set { bit } else { 0 };
        let flags = flag(done.imm.is_some(), event_flags::WITH_IMM)
            | flag(done.invalidated.is_some(), event_flags::INVALIDATED)
            | flag(done.solicited, event_flags::SOLICITED)
            | flag(done.buffer > 0, event_flags::LENT);
        Event {
            kind: if done.opcode == Opcode::Recv { kind::RECV } else { kind::COMPLETION },
            op: done.opcode as u32,
            status: done.status,
            flags,
            conn: handle,
            context: self.context,
            user: done.user,
            data: done.data,
            length: done.length as usize,
            buffer: done.buffer,
            imm: done.imm.unwrap_or(0),
            invalidated_key: done.invalidated.unwrap_or(0),
            ..Event::default()
        }
    }
}
