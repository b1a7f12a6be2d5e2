//! The protocol of one connection: its events go in, events about messages come out.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

use arrayvec::ArrayVec;
use parking_lot::Mutex;

use super::config::Config;
use super::gluster;
use super::kind;
use super::message::{Call, Reply};
use super::outbox::{Octets, Op, Outbox, Then};
use super::pool::Pool;
use super::requester::Requester;
use super::responder::Responder;
use super::standing::Standing;
use crate::engine::{Conn, Event, Upper, event_flags, kind as base};
use crate::error::{Error, Result};
use crate::memory::{Block, KeyTable};
use crate::wire::cm_private::{CmPrivate, DEFAULT_THRESHOLD};
use crate::wire::rpcrdma::{self, Body, Complaint, Dialect, ERROR_LEN, Header, Outgoing, Refusal};
use crate::work::{MAX_INLINE, Opcode, SgeList};

/// The second word of an RPC message.
const CALL: u32 = 0;
const REPLY: u32 = 1;

/// What a session has counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Calls made.
    pub calls: u64,
    /// Calls taken.
    pub asked: u64,
    /// Read chunks, write chunks and reply chunks: offered by us, and used for the peer.
    pub reads: u64,
    /// See `reads`.
    pub writes: u64,
    /// See `reads`.
    pub replies: u64,
    /// Messages that made no sense, and replies that nobody waits for.
    pub bad: u64,
    /// Errors sent.
    pub errors: u64,
}

/// What both sides have agreed on.
#[derive(Clone, Copy, Debug)]
pub struct Agreed {
    /// Octets of the longest message to the peer.
    pub inline_send: usize,
    /// Octets of the longest message from it.
    pub inline_recv: usize,
    /// Calls that the peer grants now.
    pub credits: u32,
    /// The peer's.
    pub dialect: Dialect,
}

/// What an end may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// Octets of the longest message to the peer.
    pub(super) send: usize,
    /// Octets of the longest message from it.
    pub(super) recv: usize,
    /// It lets us invalidate its keys.
    pub(super) invalidate: bool,
    pub(super) dialect: Dialect,
}

/// What the two tables of calls share.
pub(super) struct Core {
    pub(super) config: Config,
    /// The connection's number.
    pub(super) id: u64,
    /// This end has connected.
    pub(super) active: bool,
    pub(super) terms: Terms,
    pub(super) outbox: Outbox,
    pub(super) pool: Pool,
    pub(super) counters: Counters,
    pub(super) standing: Standing,
    events: VecDeque<Event>,
    /// An event of the connection's, for what all events of it say.
    pattern: Event,
    established: bool,
    ended: bool,
}

struct State {
    core: Core,
    requester: Requester,
    responder: Responder,
}

/// The protocol of one connection.
pub struct Session {
    state: Mutex<State>,
}

impl Core {
    /// An error unless both sides may send.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.established && !self.ended {
            return Ok(());
        }
        Err(Error::state(libc::ENOTCONN, "the connection is not established"))
    }

    pub(super) fn tell(&mut self, event: Event) {
        let pattern = &self.pattern;
        let (conn, context, peer) = (pattern.conn, pattern.context, pattern.peer.clone());
        self.events.push_back(Event { conn, context, peer, ..event });
    }

    /// A Send of a header and what follows it: small ones are copied by the provider, others go from a block.
    pub(super) fn message(
        &mut self,
        table: &Arc<KeyTable>,
        header: &Outgoing<'_>,
        rest: &[u8],
    ) -> Result<(Op, Option<Block>)> {
        let mut octets = vec![0; header.octets()];
        header.emit(&mut octets).ok_or_else(|| Error::invalid("too many segments in one chunk"))?;
        octets.extend_from_slice(rest);
        if octets.len() > self.terms.send {
            return Err(Error::invalid("the message is over the inline threshold"));
        }
        self.send(table, &octets)
    }

    fn send(&mut self, table: &Arc<KeyTable>, octets: &[u8]) -> Result<(Op, Option<Block>)> {
        let op = |octets| Op { opcode: Opcode::Send, octets, remote: (0, 0), invalidate: 0 };
        if octets.len() <= MAX_INLINE {
            let copied: ArrayVec<u8, MAX_INLINE> = octets.iter().copied().collect();
            return Ok((op(Octets::Inline(copied)), None));
        }
        let (sge, block) = self.pool.copy(table, octets)?;
        Ok((op(Octets::Sges(SgeList::from_iter([sge]))), Some(block)))
    }

    /// Answers a message that made no sense. Where that can't be posted the connection ends: the peer would wait for ever.
    pub(super) fn complain(&mut self, conn: &Arc<Conn>, xid: u32, version: u32, complaint: Complaint) {
        let mut out = [0; ERROR_LEN];
        let length = rpcrdma::emit_error(xid, version, self.grant(), complaint, &mut out);
        let mut octets = out.get(..length).unwrap_or_default().to_vec();
        if self.is_gluster() {
            octets.resize(gluster::ERROR_LEN, 0);
        }
        let sent = self
            .send(conn.engine().keys(), &octets)
            .and_then(|(op, block)| self.outbox.send(conn, vec![op], Vec::from_iter(block), Then::Nothing));
        match sent {
            Ok(()) => self.counters.errors += 1,
            Err(_) => drop(conn.close()),
        }
    }

    /// What we grant to whoever calls us.
    pub(super) fn grant(&self) -> u32 {
        if self.active { self.config.backchannel } else { self.config.credits }
    }

    /// The peer's private data, at the one moment when they come.
    fn hear(&mut self, private_data: Option<&[u8]>) {
        let said = private_data.and_then(CmPrivate::parse).filter(|_| !self.config.silent);
        let config = &self.config;
        self.terms = match said {
            Some(said) => Terms {
                send: config.inline_send.min(said.recv_size),
                recv: config.inline_recv.min(said.send_size),
                invalidate: said.invalidate,
                ..self.terms
            },
            None => {
                let old = config.gluster_if_silent || config.dialect == Dialect::GlusterFs;
                let size = if old { gluster::THRESHOLD } else { DEFAULT_THRESHOLD };
                let dialect = if old { Dialect::GlusterFs } else { self.terms.dialect };
                Terms { send: size, recv: size, dialect, ..self.terms }
            }
        };
    }

    /// The peer speaks GlusterFS's dialect.
    pub(super) fn is_gluster(&self) -> bool {
        self.terms.dialect == Dialect::GlusterFs
    }
}

impl Session {
    /// A session of a connection that is coming.
    pub(super) fn new(config: Config, active: bool) -> Arc<Self> {
        let terms = Terms {
            send: DEFAULT_THRESHOLD,
            recv: DEFAULT_THRESHOLD,
            invalidate: false,
            dialect: config.dialect,
        };
        let core = Core {
            config,
            id: 0,
            active,
            terms,
            outbox: Outbox::new(config.most_waiting(), config.answered_later),
            pool: Pool::default(),
            counters: Counters::default(),
            standing: Standing::new(config.standing_keys),
            events: VecDeque::new(),
            pattern: Event::default(),
            established: false,
            ended: false,
        };
        let most = if active { config.credits } else { config.backchannel };
        let state = State { core, requester: Requester::new(most), responder: Responder::default() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// The session of a connection, if it has one.
    pub fn of(conn: &Conn) -> Result<&Self> {
        let session = conn.upper().and_then(|upper| upper.as_any().downcast_ref());
        session.ok_or_else(|| Error::invalid("the connection is not one for RPC"))
    }

    /// Makes a call. Its REPLY event comes exactly once.
    pub fn call(&self, conn: &Arc<Conn>, call: Call) -> Result<()> {
        let State { core, requester, .. } = &mut *self.state.lock();
        core.check_open()?;
        requester.call(core, conn, call)
    }

    /// Answers a call. If this succeeds an ANSWERED event comes exactly once.
    pub fn reply(&self, conn: &Arc<Conn>, call: u64, reply: Reply) -> Result<()> {
        let State { core, responder, .. } = &mut *self.state.lock();
        core.check_open()?;
        responder.reply(core, conn, call, reply)
    }

    /// Answers a call with an error of the transport's: ERR_CHUNK.
    pub fn refuse(&self, conn: &Arc<Conn>, call: u64) -> Result<()> {
        let State { core, responder, .. } = &mut *self.state.lock();
        core.check_open()?;
        responder.refuse(core, conn, call)
    }

    /// What has been agreed on, and counted.
    pub fn info(&self) -> (Agreed, Counters) {
        let State { core, requester, .. } = &*self.state.lock();
        let Terms { send, recv, dialect, .. } = core.terms;
        let credits = requester.credits().granted();
        (Agreed { inline_send: send, inline_recv: recv, credits, dialect }, core.counters)
    }
}

impl State {
    fn received(&mut self, conn: &Arc<Conn>, message: Vec<u8>) {
        let Self { core, requester, responder } = self;
        let header = match Header::parse(&message, core.terms.dialect) {
            Ok(header) => header,
            Err(refusal) => return self.refused(conn, refusal),
        };
        let xid = header.xid;
        match header.body {
            Body::Error(complaint) => requester.failed(core, conn, xid, header.credits, complaint),
            Body::Message(chunks, rpc) => match kind_of(rpc, xid) {
                Some(CALL) => {
                    let at = message.len() - rpc.len();
                    responder.asked(core, conn, (xid, header.credits), &chunks, &message, Some(at));
                    requester.heard(core, conn);
                }
                Some(REPLY) => requester.answered(core, conn, (xid, header.credits), &chunks, Some(rpc)),
                _ if core.active => requester.garbled(core, conn, xid),
                // Too short to be answered to, or not what its header says: kernel servers are silent.
                _ => core.counters.bad += 1,
            },
            Body::NoMessage(chunks) if core.active => {
                requester.answered(core, conn, (xid, header.credits), &chunks, None);
            }
            Body::NoMessage(chunks) => {
                responder.asked(core, conn, (xid, header.credits), &chunks, &message, None);
                requester.heard(core, conn);
            }
        }
    }

    fn refused(&mut self, conn: &Arc<Conn>, refusal: Refusal) {
        let Self { core, requester, .. } = self;
        match refusal {
            Refusal::Answer { xid, .. } if core.active => requester.garbled(core, conn, xid),
            Refusal::Answer { xid, version, complaint } => {
                core.counters.bad += 1;
                core.complain(conn, xid, version, complaint);
            }
            Refusal::Silence => core.counters.bad += 1,
        }
    }

    fn completed(&mut self, conn: &Arc<Conn>, index: usize) {
        let Self { core, requester, responder } = self;
        match core.outbox.completed(index, &mut core.pool) {
            Some(Then::Answered(user)) => {
                core.tell(Event { kind: kind::ANSWERED, user, ..Event::default() });
            }
            Some(Then::Pulled(call)) => responder.pulled(core, conn, call),
            Some(Then::Told(user)) => requester.told(core, user),
            Some(Then::Nothing) | None => {}
        }
        core.outbox.go_on(conn);
    }

    /// Tells everybody who waits that it is over.
    fn end(&mut self) {
        // What was lent for the peer's calls goes with the connection: somebody may be at work on them.
        let Self { core, requester, .. } = self;
        if std::mem::replace(&mut core.ended, true) {
            return;
        }
        for then in core.outbox.end() {
            let (kind, user) = match then {
                Then::Answered(user) => (kind::ANSWERED, user),
                Then::Told(user) => (kind::REPLY, user),
                Then::Nothing | Then::Pulled(_) => continue,
            };
            core.tell(Event { kind, user, status: -libc::ECANCELED, ..Event::default() });
        }
        requester.end(core);
        core.standing.end();
        // The application may hold the connection for longer.
        core.pool = Pool::default();
    }
}

/// Whether it is a call or a reply; `None`: it is neither, or not with this identifier.
fn kind_of(rpc: &[u8], xid: u32) -> Option<u32> {
    let word = |at: usize| rpc.get(at..)?.first_chunk().map(|octets| u32::from_be_bytes(*octets));
    (word(0)? == xid).then(|| word(4)).flatten()
}

impl Upper for Session {
    fn take(&self, conn: &Arc<Conn>, event: Event) {
        let mut state = self.state.lock();
        match event.kind {
            base::RECV if event.status == 0 => {
                let mut message = vec![0; event.length];
                // SAFETY: the buffer is lent to us until `release`; nobody else has it, and raw pointers only.
                unsafe {
                    let from = std::ptr::with_exposed_provenance::<u8>(event.data);
                    std::ptr::copy_nonoverlapping(from, message.as_mut_ptr(), message.len());
                }
                // Before anybody hears of the message, so that whoever sends the next one finds a receive.
                if event.flags & event_flags::LENT != 0 {
                    let _ = conn.release(event.buffer);
                }
                state.received(conn, message);
            }
            base::RECV => {}
            base::COMPLETION if event.status == 0 => state.completed(conn, event.user),
            // What has failed ends the connection.
            base::COMPLETION => {}
            _ => {
                if event.kind == base::CONNECT_REQUEST || event.kind == base::ESTABLISHED {
                    state.core.id = conn.id();
                    state.core.pattern = Event {
                        conn: event.conn,
                        context: event.context,
                        peer: event.peer.clone(),
                        ..Event::default()
                    };
                    if (event.kind == base::ESTABLISHED) == state.core.active {
                        state.core.hear(event.private_data.as_deref());
                    }
                    state.core.established |= event.kind == base::ESTABLISHED;
                }
                if matches!(event.kind, base::CONNECT_FAILED | base::DISCONNECTED | base::CLOSED) {
                    state.end();
                }
                state.core.events.push_back(event);
            }
        }
    }

    fn next(&self) -> Option<Event> {
        self.state.lock().core.events.pop_front()
    }

    fn has_next(&self) -> bool {
        !self.state.lock().core.events.is_empty()
    }

    fn accept_data(&self) -> Vec<u8> {
        self.state.lock().core.config.private_data()
    }

    /// Levels, by the names of rcg_engine_dump(3).
    fn figures(&self) -> (&'static str, Vec<(&'static str, u64)>) {
        let State { core, requester, responder } = &*self.state.lock();
        let credits = requester.credits();
        let figures = vec![
            ("credits_granted", u64::from(credits.granted())),
            ("credits_in_use", u64::from(credits.used())),
            ("calls_waiting", requester.waiting() as u64),
            ("peer_credits_granted", u64::from(core.grant())),
            ("peer_credits_in_use", responder.open() as u64),
        ];
        ("rpc", figures)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
