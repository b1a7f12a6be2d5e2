//! The calls that we have made.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::credits::Credits;
use super::gluster;
use super::kind;
use super::layout::padded;
use super::message::{Call, Message, Parts, Payload, PieceView, merged, octets};
use super::outbox::Then;
use super::session::Core;
use super::standing::Standing;
use crate::engine::{Conn, Event, key};
use crate::error::{Error, Result};
use crate::memory::{Access, Block, Region};
use crate::trace;
use crate::wire::rpcrdma::{Chunks, Complaint, MIN_LEN, Outgoing, ReadSegment, Segment, header_octets};
use crate::work::Sge;

/// A call without a reply.
struct Outstanding {
    user: usize,
    /// Where its results and a long reply may be: memory that the caller is not to end.
    results: Vec<Vec<Sge>>,
    reply: Vec<Sge>,
    /// What it is read from, besides the message itself.
    _payload: Vec<Sge>,
    /// A whole call that the peer reads.
    _long: Option<Block>,
    grants: Vec<(Arc<Region>, u32)>,
    /// Its message, until it may be sent.
    parts: Option<(super::outbox::Op, Option<Block>)>,
}

/// How the arguments go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// All in the message.
    Inline,
    /// The payload in a read chunk.
    Reduced,
    /// All in a read chunk at position 0.
    Long,
}

/// The table of our calls, by their identifiers.
pub(super) struct Requester {
    calls: HashMap<u32, Outstanding>,
    /// Those that wait for a credit.
    queue: VecDeque<u32>,
    credits: Credits,
    /// The peer has called: before it has, GlusterFS's clients take no calls.
    heard: bool,
}

impl Requester {
    pub(super) fn new(most: u32) -> Self {
        Self { calls: HashMap::new(), queue: VecDeque::new(), credits: Credits::new(most), heard: false }
    }

    /// What the peer grants, and what of it is used.
    pub(super) fn credits(&self) -> &Credits {
        &self.credits
    }

    /// Calls that wait for a credit.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn call(&mut self, core: &mut Core, conn: &Arc<Conn>, call: Call) -> Result<()> {
        let xid = check(&call, core)?;
        check_engine(conn, call.payload.iter().flat_map(|payload| &payload.sges))?;
        if self.calls.contains_key(&xid) {
            return Err(Error::state(libc::EEXIST, format!("call {xid:#x} is outstanding")));
        }
        if self.calls.len() >= self.credits.most() as usize {
            return Err(Error::state(libc::EAGAIN, "all calls are outstanding: wait for a reply"));
        }
        trace::rpc_call(core.id, xid, call.head.as_ptr(), call.head.len());
        let standing = std::mem::take(&mut core.standing);
        let mut granted = Grants { conn, list: Vec::new(), standing };
        let outstanding = self.prepare(core, xid, call, &mut granted);
        core.standing = std::mem::take(&mut granted.standing);
        let mut outstanding = outstanding.inspect_err(|_| revoke(&granted.list))?;
        outstanding.grants = granted.list;
        core.counters.calls += 1;
        self.calls.insert(xid, outstanding);
        self.queue.push_back(xid);
        self.go_on(core, conn);
        Ok(())
    }

    /// Makes the message, and whatever the peer may reach.
    fn prepare(&self, core: &mut Core, xid: u32, call: Call, grants: &mut Grants<'_>) -> Result<Outstanding> {
        let table = grants.conn.engine().keys();
        let (dialect, pads) = (core.terms.dialect, core.config.pads);
        let Call { head, payload, results, reply_max, reply, user } = call;
        let writes: Vec<Vec<Segment>> =
            results.iter().map(|sges| grants.segments(sges, Access::REMOTE_WRITE)).collect::<Result<_>>()?;
        let counts: Vec<usize> = writes.iter().map(Vec::len).collect();
        // A reply repeats the write list.
        let long_reply = header_octets(0, &counts, None, dialect) + padded(reply_max) > core.terms.recv;
        if long_reply && octets(&reply) < reply_max {
            return Err(Error::invalid("a reply that may be longer than a receive needs memory: reply"));
        }
        let reply = if long_reply { reply } else { Vec::new() };
        let place = grants.segments(&reply, Access::REMOTE_WRITE)?;
        let reply_count = long_reply.then_some(place.len());
        let sges = payload.as_ref().map_or(&[][..], |payload| &payload.sges);
        let length = octets(sges);
        let header = |reads| header_octets(reads, &counts, reply_count, dialect);
        let (inline, reduced) = if core.is_gluster() {
            (gluster::is_inline(head.len(), length), gluster::is_reduced(head.len(), length))
        } else {
            let fits = |reads, octets| header(reads) + head.len() + octets <= core.terms.send;
            (fits(0, pads.of(length)), length > 0 && fits(sges.len(), 0))
        };
        let form = match (inline, reduced) {
            (true, _) => Form::Inline,
            (_, true) => Form::Reduced,
            _ => Form::Long,
        };
        if form != Form::Inline && !core.active {
            return Err(Error::new(
                libc::EMSGSIZE,
                crate::error::Reason::Invalid,
                "calls of the side that was called have no chunks, and this one is over the inline threshold",
            ));
        }
        let mut long = None;
        let reads: Vec<ReadSegment> = match (form, &payload) {
            (Form::Reduced, Some(payload)) => {
                let old = core.is_gluster();
                let position = if old { gluster::call_header(&head) } else { payload.at } as u32;
                let segments = grants.segments(&payload.sges, Access::REMOTE_READ)?;
                segments.into_iter().map(|segment| ReadSegment { position, segment }).collect()
            }
            (Form::Long, _) => {
                let whole = merged(&head, payload.as_slice(), pads);
                let block = Block::new(table, whole.len(), 1, Access::REMOTE_READ)?;
                block.region().sge(block.at(0), whole.len())?.fill(0, &whole);
                let old = core.is_gluster();
                let parts =
                    if old { gluster::parts(&head, whole.len() - head.len()) } else { vec![whole.len()] };
                let (mut reads, mut position) = (Vec::new(), 0);
                for octets in parts {
                    let sge = block.region().sge(block.at(position), octets)?;
                    let segments = grants.segments(&[sge], Access::REMOTE_READ)?;
                    let at = if old { position as u32 } else { 0 };
                    reads.extend(segments.into_iter().map(|segment| ReadSegment { position: at, segment }));
                    position += octets;
                }
                long = Some(block);
                reads
            }
            _ => Vec::new(),
        };
        let wanted = if core.active { core.config.credits } else { core.config.backchannel };
        let lists: Vec<&[Segment]> = writes.iter().map(Vec::as_slice).collect();
        let outgoing = Outgoing {
            xid,
            credits: wanted,
            message: form != Form::Long,
            reads: &reads,
            writes: &lists,
            reply: long_reply.then_some(&place[..]),
            dialect,
        };
        let whole;
        let rest: &[u8] = match form {
            Form::Inline => {
                whole = merged(&head, payload.as_slice(), pads);
                &whole
            }
            Form::Reduced => &head,
            Form::Long => &[],
        };
        let parts = Some(core.message(table, &outgoing, rest)?);
        core.counters.reads += u64::from(!reads.is_empty());
        core.counters.writes += writes.len() as u64;
        core.counters.replies += u64::from(long_reply);
        let payload = payload.map(|payload| payload.sges).unwrap_or_default();
        let grants = Vec::new();
        Ok(Outstanding { user, results, reply, _payload: payload, _long: long, grants, parts })
    }

    /// Sends what there are credits for.
    fn go_on(&mut self, core: &mut Core, conn: &Arc<Conn>) {
        if core.is_gluster() && !core.active {
            return self.tell_all(core, conn);
        }
        while let Some(xid) = self.queue.front().copied() {
            if !self.credits.take() {
                return;
            }
            self.queue.pop_front();
            let Some((op, block)) = self.calls.get_mut(&xid).and_then(|call| call.parts.take()) else {
                self.credits.give_back();
                continue;
            };
            trace::rpc_call_sent(core.id, xid);
            // The call has been promised an end: one that can't be posted gets it from the connection's.
            if core.outbox.send(conn, vec![op], Vec::from_iter(block), Then::Nothing).is_err() {
                return drop(conn.close());
            }
        }
    }

    /// GlusterFS's clients answer no calls, so that these are over when they are out.
    fn tell_all(&mut self, core: &mut Core, conn: &Arc<Conn>) {
        while self.heard {
            let Some(xid) = self.queue.pop_front() else { return };
            let Some(mut call) = self.calls.remove(&xid) else { continue };
            let Some((op, block)) = call.parts.take() else { continue };
            trace::rpc_call_sent(core.id, xid);
            if core.outbox.send(conn, vec![op], Vec::from_iter(block), Then::Told(call.user)).is_err() {
                fail(core, xid, &call, -libc::ECANCELED);
            }
        }
    }

    /// The peer has called.
    pub(super) fn heard(&mut self, core: &mut Core, conn: &Arc<Conn>) {
        if !std::mem::replace(&mut self.heard, true) {
            self.go_on(core, conn);
        }
    }

    /// A call that nobody answers is out: it is as if an empty reply had come.
    pub(super) fn told(&mut self, core: &mut Core, user: usize) {
        let parts = Parts {
            call: 0,
            xid: 0,
            credits: self.credits.most(),
            inline: Vec::new(),
            pieces: Vec::new(),
            rooms: Vec::new(),
            reply_max: 0,
            blocks: Vec::new(),
        };
        let attached = Some(Arc::new(Message::new(parts)) as _);
        core.tell(Event { kind: kind::REPLY, user, attached, ..Event::default() });
    }

    /// Ends a call that was sent, if there is one.
    fn finish(&mut self, xid: u32) -> Option<Outstanding> {
        self.calls.get(&xid).filter(|call| call.parts.is_none())?;
        let call = self.calls.remove(&xid)?;
        self.credits.give_back();
        revoke(&call.grants);
        Some(call)
    }

    /// A reply has come. `rpc`: the message, unless it is in the reply chunk.
    pub(super) fn answered(
        &mut self,
        core: &mut Core,
        conn: &Arc<Conn>,
        (xid, credits): (u32, u32),
        chunks: &Chunks<'_>,
        rpc: Option<&[u8]>,
    ) {
        if self.calls.get(&xid).is_none_or(|call| call.parts.is_some()) {
            core.counters.bad += 1;
            return;
        }
        self.credits.grant(credits);
        let Some(call) = self.finish(xid) else { return };
        match call.take_in(chunks, rpc) {
            Some((pieces, long)) => {
                let inline = rpc.map(<[u8]>::to_vec).unwrap_or_default();
                let parts = Parts {
                    call: 0,
                    xid,
                    credits: self.credits.granted(),
                    inline,
                    pieces,
                    rooms: Vec::new(),
                    reply_max: 0,
                    blocks: Vec::new(),
                };
                let message = Arc::new(Message::new(parts));
                let (data, length) = match long {
                    Some(long) => long,
                    None => (message.inline().as_ptr() as usize, message.inline().len()),
                };
                trace::rpc_reply_received(core.id, xid, 0);
                let (user, attached) = (call.user, Some(message as _));
                core.tell(Event { kind: kind::REPLY, user, data, length, attached, ..Event::default() });
            }
            None => {
                core.counters.bad += 1;
                fail(core, xid, &call, -libc::EBADMSG);
            }
        }
        self.go_on(core, conn);
    }

    /// The peer has answered with an error of the transport's.
    pub(super) fn failed(
        &mut self,
        core: &mut Core,
        conn: &Arc<Conn>,
        xid: u32,
        credits: u32,
        complaint: Complaint,
    ) {
        let Some(call) = self.finish(xid) else {
            core.counters.bad += 1;
            return;
        };
        self.credits.grant(credits);
        let status = match complaint {
            Complaint::Version { .. } => -libc::EPROTONOSUPPORT,
            Complaint::Chunk | Complaint::Unknown(_) => -libc::EREMOTEIO,
        };
        fail(core, xid, &call, status);
        self.go_on(core, conn);
    }

    /// What may be a reply of this identifier makes no sense.
    pub(super) fn garbled(&mut self, core: &mut Core, conn: &Arc<Conn>, xid: u32) {
        core.counters.bad += 1;
        if let Some(call) = self.finish(xid) {
            fail(core, xid, &call, -libc::EBADMSG);
            self.go_on(core, conn);
        }
    }

    /// The connection has ended.
    pub(super) fn end(&mut self, core: &mut Core) {
        self.queue.clear();
        for (xid, call) in self.calls.drain() {
            if call.parts.is_none() {
                self.credits.give_back();
            }
            revoke(&call.grants);
            fail(core, xid, &call, -libc::ECANCELED);
        }
    }
}

impl Outstanding {
    /// How much of each result is there, and where a long reply is: address and octets. `None`: the lists are not those
    /// of the call.
    #[expect(clippy::type_complexity)]
    fn take_in(
        &self,
        chunks: &Chunks<'_>,
        rpc: Option<&[u8]>,
    ) -> Option<(Vec<PieceView>, Option<(usize, usize)>)> {
        if !chunks.reads.is_empty() {
            return None;
        }
        let mut returned = chunks.writes.chunks();
        let mut pieces = Vec::with_capacity(self.results.len());
        for sges in &self.results {
            let length = returned.next().map_or(Some(0), |chunk| written(chunk.segments(), sges))?;
            let addr = sges.first().map_or(std::ptr::null_mut(), |sge| sge.ptr().cast());
            pieces.push(PieceView { addr, length, at: 0 });
        }
        if returned.next().is_some() {
            return None;
        }
        if rpc.is_some() {
            return Some((pieces, None));
        }
        let length = written(chunks.reply?.segments(), &self.reply)?;
        let first = self.reply.first().filter(|_| length >= 2 * size_of::<u32>())?;
        Some((pieces, Some((first.ptr() as usize, length))))
    }
}

/// Octets that the peer says it has written to elements: by number and length only, as nothing else of what comes back
/// counts. Each is filled before the next.
fn written(segments: impl Iterator<Item = Segment>, sges: &[Sge]) -> Option<usize> {
    let mut total = 0;
    let mut full = true;
    let mut offered = sges.iter();
    for segment in segments {
        let (length, room) = (segment.length as usize, offered.next()?.len());
        if length > room || (length > 0 && !full) {
            return None;
        }
        full = length == room;
        total += length;
    }
    Some(total)
}

/// Keys given for one call.
struct Grants<'a> {
    conn: &'a Arc<Conn>,
    list: Vec<(Arc<Region>, u32)>,
    standing: Standing,
}

impl Grants<'_> {
    /// Has the peer reach elements: a segment each.
    fn segments(&mut self, sges: &[Sge], access: Access) -> Result<Vec<Segment>> {
        sges.iter()
            .map(|sge| {
                let region = sge.region();
                let handle = match self.standing.key(self.conn, region, access)? {
                    Some(handle) => handle,
                    None => {
                        let offset = (sge.ptr() as usize).wrapping_sub(region.base() as usize);
                        let handle = key(region, Some(self.conn), offset, sge.len(), access)?;
                        self.list.push((Arc::clone(region), handle));
                        handle
                    }
                };
                Ok(Segment { handle, length: sge.len() as u32, offset: sge.ptr() as u64 })
            })
            .collect()
    }
}

fn revoke(grants: &[(Arc<Region>, u32)]) {
    for (region, key) in grants {
        // A connection that has ended has taken its keys along.
        let _ = region.retire_key(*key);
    }
}

fn fail(core: &mut Core, xid: u32, call: &Outstanding, status: i32) {
    trace::rpc_reply_received(core.id, xid, status);
    core.tell(Event { kind: kind::REPLY, user: call.user, status, ..Event::default() });
}

/// Checks what a caller has given; returns the identifier.
fn check(call: &Call, core: &Core) -> Result<u32> {
    let xid = call.head.first_chunk().map(|octets| u32::from_be_bytes(*octets));
    let kind = call.head.get(4..8);
    let whole = core.config.pads.allow(call.head.len());
    let (Some(xid), Some([0, 0, 0, 0]), true) = (xid, kind, whole) else {
        return Err(Error::invalid("the head is no RPC call: xid, 0, and so on, in words"));
    };
    if let Some(payload) = &call.payload {
        check_place(payload, call.head.len())?;
    }
    let has_chunks = !call.results.is_empty() || !call.reply.is_empty();
    if has_chunks && !core.active {
        return Err(Error::invalid("calls of the side that was called have no chunks"));
    }
    let long = MIN_LEN + call.head.len() + call.payload.as_ref().map_or(0, Payload::len);
    let pieces = call.results.iter().flatten().chain(&call.reply);
    if long as u64 > u64::from(u32::MAX) || pieces.into_iter().any(Sge::is_empty) {
        return Err(Error::invalid("too long a call, or an empty element"));
    }
    Ok(xid)
}

/// Whether elements lie in regions of the connection's engine.
pub(super) fn check_engine<'a>(conn: &Conn, mut sges: impl Iterator<Item = &'a Sge>) -> Result<()> {
    let own = conn.engine().keys();
    if sges.all(|sge| Arc::ptr_eq(sge.region().domain(), own)) {
        return Ok(());
    }
    Err(Error::invalid("the connection and the region belong to different engines"))
}

/// Whether a payload stands on a word of the head and behind what names the message.
pub(super) fn check_place(payload: &Payload, head: usize) -> Result<()> {
    if payload.at % 4 == 0 && (8..=head).contains(&payload.at) && !payload.sges.iter().any(Sge::is_empty) {
        return Ok(());
    }
    Err(Error::invalid("a payload stands on a word within the head, and has no empty elements"))
}
