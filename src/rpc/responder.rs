//! The calls that the peer has made.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::gluster;
use super::kind;
use super::layout::{fill, places};
use super::message::{Message, Parts, PieceView, Reply, merged};
use super::outbox::{Octets, Op, Then, writes};
use super::requester::{check_engine, check_place};
use super::session::Core;
use crate::engine::{Conn, Event};
use crate::error::{Error, Reason, Result};
use crate::memory::Block;
use crate::trace;
use crate::wire::rpcrdma::{
    Chunks, Complaint, Dialect, Outgoing, ReadSegment, Segment, VERSION, header_octets,
};
use crate::work::{Opcode, SgeList};

/// What was read for one position.
struct Pulled {
    position: u32,
    octets: usize,
    block: Block,
}

/// A call without a reply.
struct Asked {
    xid: u32,
    credits: u32,
    /// The message of the receive, behind its header.
    inline: Vec<u8>,
    /// The read list, in the order of its positions.
    reads: Vec<ReadSegment>,
    /// Octets of what is being read, or has been.
    held: u64,
    pulled: Vec<Pulled>,
    writes: Vec<Vec<Segment>>,
    reply: Option<Vec<Segment>>,
    /// The one key of the call, where there is but one.
    key: Option<u32>,
    /// What the application has been told.
    message: Option<Arc<Message>>,
}

/// The table of the peer's calls.
#[derive(Default)]
pub(super) struct Responder {
    calls: HashMap<u64, Asked>,
    last: u64,
    /// Octets that all calls hold.
    held: u64,
    /// Calls whose chunks are not read before others have been answered.
    deferred: VecDeque<u64>,
}

impl Responder {
    /// Calls without a reply.
    pub(super) fn open(&self) -> usize {
        self.calls.len()
    }

    /// A call has come. `rpc`: where in `message` the RPC message begins, unless it is in a chunk.
    pub(super) fn asked(
        &mut self,
        core: &mut Core,
        conn: &Arc<Conn>,
        (xid, credits): (u32, u32),
        chunks: &Chunks<'_>,
        message: &[u8],
        rpc: Option<usize>,
    ) {
        if self.calls.len() >= core.grant() as usize {
            // It calls beyond its grant, and would run us out of receives.
            core.counters.bad += 1;
            let _ = conn.close();
            return;
        }
        core.counters.asked += 1;
        core.terms.dialect = chunks.dialect;
        if core.is_gluster() {
            core.terms.send = core.terms.send.max(gluster::THRESHOLD);
        }
        let mut asked = Asked {
            xid,
            credits,
            inline: rpc.and_then(|at| message.get(at..)).map(<[u8]>::to_vec).unwrap_or_default(),
            reads: chunks.reads.segments().collect(),
            held: 0,
            pulled: Vec::new(),
            writes: chunks.writes.chunks().map(|chunk| chunk.segments().collect()).collect(),
            reply: chunks.reply.map(|chunk| chunk.segments().collect()),
            key: the_key(chunks),
            message: None,
        };
        if asked.check(core, rpc.is_none()).is_err() {
            core.counters.bad += 1;
            return core.complain(conn, xid, VERSION, Complaint::Chunk);
        }
        self.last += 1;
        let (call, reads) = (self.last, !asked.reads.is_empty());
        self.calls.insert(call, asked);
        if reads {
            self.deferred.push_back(call);
            self.go_on(core, conn);
        } else {
            self.deliver(core, conn, call);
        }
    }

    /// Has chunks read of the calls whose turn it is, as long as there is room.
    fn go_on(&mut self, core: &mut Core, conn: &Arc<Conn>) {
        while let Some(call) = self.deferred.front().copied() {
            let octets = self.calls.get(&call).map_or(0, Asked::octets);
            if self.held > 0 && self.held + octets > core.config.most_held() {
                return;
            }
            self.deferred.pop_front();
            self.pull(core, conn, call);
        }
    }

    fn pull(&mut self, core: &mut Core, conn: &Arc<Conn>, call: u64) {
        let Some(asked) = self.calls.get_mut(&call) else { return };
        asked.held = asked.octets();
        self.held += asked.held;
        match asked.pulls(core, conn) {
            Ok(ops) if ops.is_empty() => self.deliver(core, conn, call),
            Ok(ops) => {
                core.counters.reads += 1;
                if core.outbox.send(conn, ops, Vec::new(), Then::Pulled(call)).is_err() {
                    self.drop_call(core, conn, call);
                }
            }
            Err(_) => self.drop_call(core, conn, call),
        }
    }

    /// The chunks of a call are here.
    pub(super) fn pulled(&mut self, core: &mut Core, conn: &Arc<Conn>, call: u64) {
        self.deliver(core, conn, call);
        self.go_on(core, conn);
    }

    /// Tells the application of a call.
    fn deliver(&mut self, core: &mut Core, conn: &Arc<Conn>, call: u64) {
        let Some(asked) = self.calls.get_mut(&call) else { return };
        let Some((parts, data)) = asked.assemble(core, call) else { return self.drop_call(core, conn, call) };
        let message = Arc::new(Message::new(parts));
        let (data, length) = match data {
            Some(data) => data,
            None => (message.inline().as_ptr() as usize, message.inline().len()),
        };
        asked.message = Some(Arc::clone(&message));
        trace::rpc_call_received(core.id, asked.xid, data, length);
        let attached = Some(message as _);
        core.tell(Event { kind: kind::CALL, data, length, attached, ..Event::default() });
    }

    /// Answers a call that makes no sense.
    fn drop_call(&mut self, core: &mut Core, conn: &Arc<Conn>, call: u64) {
        let Some(xid) = self.calls.get(&call).map(|asked| asked.xid) else { return };
        core.counters.bad += 1;
        core.complain(conn, xid, VERSION, Complaint::Chunk);
        self.forget(core, call);
    }

    fn forget(&mut self, core: &mut Core, call: u64) {
        if let Some(asked) = self.calls.remove(&call) {
            self.held -= asked.held;
            asked.recycle(core);
        }
    }

    fn told(&mut self, call: u64) -> Result<&mut Asked> {
        let asked = self.calls.get_mut(&call).filter(|asked| asked.message.is_some());
        asked.ok_or_else(|| Error::state(libc::ENOENT, "no such call, or it has been answered"))
    }

    pub(super) fn refuse(&mut self, core: &mut Core, conn: &Arc<Conn>, call: u64) -> Result<()> {
        let xid = self.told(call)?.xid;
        core.complain(conn, xid, VERSION, Complaint::Chunk);
        trace::rpc_reply_sent(core.id, xid);
        self.forget(core, call);
        self.go_on(core, conn);
        Ok(())
    }

    pub(super) fn reply(&mut self, core: &mut Core, conn: &Arc<Conn>, call: u64, reply: Reply) -> Result<()> {
        let asked = self.told(call)?;
        let xid = reply.head.first_chunk().map(|octets| u32::from_be_bytes(*octets));
        let is_reply = xid == Some(asked.xid) && reply.head.get(4..8) == Some(&[0, 0, 0, 1]);
        if !is_reply || !core.config.pads.allow(reply.head.len()) {
            return Err(Error::invalid("the head is no RPC reply to this call: xid, 1, and so on, in words"));
        }
        reply.payloads.iter().try_for_each(|payload| check_place(payload, reply.head.len()))?;
        let sges = reply.payloads.iter().flat_map(|payload| &payload.sges);
        check_engine(conn, sges)?;
        if !reply.payloads.is_sorted_by_key(|payload| payload.at) {
            return Err(Error::invalid("payloads stand in the order of their places"));
        }
        let user = reply.user;
        if core.active && core.is_gluster() {
            // Its servers count on no answer, and end the connection that brings one.
            self.forget(core, call);
            core.tell(Event { kind: kind::ANSWERED, user, ..Event::default() });
            conn.wake();
            return Ok(());
        }
        let (ops, blocks) = asked.compose(core, conn, reply)?;
        let xid = asked.xid;
        core.outbox.send(conn, ops, blocks, Then::Answered(user))?;
        trace::rpc_reply_sent(core.id, xid);
        self.forget(core, call);
        self.go_on(core, conn);
        Ok(())
    }
}

/// The only remote key of a call: remote invalidation is for a call that has one (RFC 8166 section 3.3.4 leaves the choice
/// to the responder).
fn the_key(chunks: &Chunks<'_>) -> Option<u32> {
    let reads = chunks.reads.segments().map(|read| read.segment);
    let writes = chunks.writes.chunks().flat_map(|chunk| chunk.segments().collect::<Vec<_>>());
    let reply = chunks.reply.into_iter().flat_map(|chunk| chunk.segments().collect::<Vec<_>>());
    let mut handles = reads.chain(writes).chain(reply).map(|segment| segment.handle);
    let first = handles.next()?;
    handles.all(|handle| handle == first).then_some(first)
}

impl Asked {
    /// Puts the read list in order, or says that it makes no sense. `long`: there has to be a chunk at position 0.
    fn check(&mut self, core: &Core, long: bool) -> Result<()> {
        if core.is_gluster() {
            gluster::mend(&mut self.reads, long);
        }
        // Those of one position stay in their order.
        self.reads.sort_by_key(|read| read.position);
        let at_start = self.reads.first().is_some_and(|read| read.position == 0);
        let backwards =
            core.active && !(self.reads.is_empty() && self.writes.is_empty() && self.reply.is_none());
        if self.octets() > core.config.max_call() || at_start != long || backwards {
            return Err(Error::invalid("the read list makes no sense"));
        }
        Ok(())
    }

    /// Octets of the chunks that are to be read.
    fn octets(&self) -> u64 {
        self.reads.iter().map(|read| u64::from(read.segment.length)).sum()
    }

    /// The RDMA Reads that bring a call's chunks.
    fn pulls(&mut self, core: &mut Core, conn: &Arc<Conn>) -> Result<Vec<Op>> {
        let mut ops = Vec::new();
        for chunk in self.reads.chunk_by(|one, next| one.position == next.position) {
            let octets: usize = chunk.iter().map(|read| read.segment.length as usize).sum();
            let position = chunk.first().map_or(0, |read| read.position);
            let block = core.pool.take(conn.engine().keys(), octets)?;
            let mut offset = 0;
            for segment in chunk.iter().map(|read| read.segment).filter(|segment| segment.length > 0) {
                let sink = block.region().sge(block.at(offset), segment.length as usize)?;
                let octets = Octets::Sges(SgeList::from_iter([sink]));
                let remote = (segment.offset, segment.handle);
                ops.push(Op { opcode: Opcode::Read, octets, remote, invalidate: 0 });
                offset += segment.length as usize;
            }
            self.pulled.push(Pulled { position, octets, block });
        }
        Ok(ops)
    }

    /// What the application gets: and where the message is, unless it came with the receive. `None`: it makes no sense.
    fn assemble(&mut self, core: &Core, call: u64) -> Option<(Parts, Option<(usize, usize)>)> {
        let chunks: Vec<(u32, u64)> = self
            .pulled
            .iter()
            .filter(|pulled| pulled.position > 0)
            .map(|pulled| (pulled.position, pulled.octets as u64))
            .collect();
        let long = self.pulled.first().filter(|pulled| pulled.position == 0);
        let data = long.map(|pulled| (pulled.block.at(0) as usize, pulled.octets));
        if let Some(pulled) = long {
            let mut start = [0; 8];
            let sge = pulled.block.region().sge(pulled.block.at(0), pulled.octets).ok()?;
            sge.read(0, &mut start);
            let [xid, kind] =
                [start.first_chunk()?, start.last_chunk()?].map(|word| u32::from_be_bytes(*word));
            if pulled.octets < start.len() || (xid, kind) != (self.xid, 0) {
                return None;
            }
        }
        let length = data.map_or(self.inline.len(), |(_, length)| length);
        let places = if core.is_gluster() { vec![length; chunks.len()] } else { places(&chunks, length)? };
        let of_chunks = self.pulled.iter().filter(|pulled| pulled.position > 0);
        let pieces = of_chunks
            .zip(places)
            .map(|(pulled, at)| PieceView { addr: pulled.block.at(0).cast(), length: pulled.octets, at })
            .collect();
        let rooms: Vec<u64> = self.writes.iter().map(|segments| room(segments)).collect();
        let parts = Parts {
            call,
            xid: self.xid,
            credits: self.credits,
            inline: std::mem::take(&mut self.inline),
            pieces,
            rooms,
            reply_max: self.reply_max(core),
            blocks: std::mem::take(&mut self.pulled).into_iter().map(|pulled| pulled.block).collect(),
        };
        Some((parts, data))
    }

    /// Octets that a reply may have that comes with the Send.
    fn inline_max(&self, core: &Core) -> usize {
        let counts: Vec<usize> = self.writes.iter().map(Vec::len).collect();
        core.terms.send.saturating_sub(header_octets(0, &counts, None, core.terms.dialect))
    }

    /// Whether a reply needs no reply chunk, even where there is one: a Write and a key less to be waited for. GlusterFS 3.4
    /// to 7 uses what it is offered.
    fn fits(&self, core: &Core, octets: usize) -> bool {
        core.terms.dialect == Dialect::Rfc && octets <= self.inline_max(core)
    }

    fn reply_max(&self, core: &Core) -> u64 {
        match &self.reply {
            Some(segments) => room(segments),
            None => self.inline_max(core) as u64,
        }
    }

    /// The operations of a reply, and the memory that they use.
    fn compose(&self, core: &mut Core, conn: &Arc<Conn>, reply: Reply) -> Result<(Vec<Op>, Vec<Block>)> {
        let table = conn.engine().keys();
        let mut ops = Vec::new();
        let mut returned = self.writes.clone();
        returned.iter_mut().flatten().for_each(|segment| segment.length = 0);
        let mut places = self.writes.iter().zip(&mut returned);
        let mut inline = Vec::new();
        let mut placed_results = 0;
        for payload in reply.payloads {
            match places.next().filter(|(offered, _)| !payload.sges.is_empty() && room(offered) > 0) {
                Some((offered, returned)) => {
                    let filled = fill(offered, payload.len()).ok_or_else(|| no_room("a result"))?;
                    ops.extend(writes(&payload.sges, offered, &filled)?);
                    returned.iter_mut().zip(&filled).for_each(|(segment, count)| segment.length = *count);
                    placed_results += 1;
                }
                None => inline.push(payload),
            }
        }
        let (whole, mut blocks) = (merged(&reply.head, &inline, core.config.pads), Vec::new());
        let mut placed = match &self.reply {
            None => None,
            Some(_) if self.fits(core, whole.len()) => None,
            Some(offered) => {
                let filled = fill(offered, whole.len()).ok_or_else(|| no_room("the reply"))?;
                let (sge, block) = core.pool.copy(table, &whole)?;
                ops.extend(writes(&[sge], offered, &filled)?);
                blocks.push(block);
                let count = |(segment, length): (&Segment, &u32)| Segment { length: *length, ..*segment };
                Some(offered.iter().zip(&filled).map(count).collect::<Vec<_>>())
            }
        };
        if core.is_gluster() {
            // It tells of what has been used only.
            returned
                .iter_mut()
                .chain(&mut placed)
                .for_each(|chunk| chunk.retain(|segment| segment.length > 0));
            returned.retain(|chunk| !chunk.is_empty());
        }
        let lists: Vec<&[Segment]> = returned.iter().map(Vec::as_slice).collect();
        let header = Outgoing {
            xid: self.xid,
            credits: core.grant(),
            message: placed.is_none(),
            reads: &[],
            writes: &lists,
            reply: placed.as_deref(),
            dialect: core.terms.dialect,
        };
        let rest = if placed.is_none() { &whole[..] } else { &[] };
        if header.octets() + rest.len() > core.terms.send {
            return Err(no_room("the reply"));
        }
        let (mut send, block) = core.message(table, &header, rest)?;
        blocks.extend(block);
        core.counters.writes += placed_results;
        core.counters.replies += u64::from(placed.is_some());
        if let Some(key) = self.key.filter(|_| core.terms.invalidate && conn.can_invalidate()) {
            (send.opcode, send.invalidate) = (Opcode::SendInvalidate, key);
        }
        ops.push(send);
        Ok((ops, blocks))
    }

    /// Gives back what it was read into, unless somebody still has the event.
    fn recycle(self, core: &mut Core) {
        let of_message = self.message.and_then(Arc::into_inner).map(Message::into_blocks);
        let own = self.pulled.into_iter().map(|pulled| pulled.block);
        of_message.into_iter().flatten().chain(own).for_each(|block| core.pool.put(block));
    }
}

fn no_room(what: &str) -> Error {
    let text = format!("{what} is longer than what the call has room for");
    Error::new(libc::EMSGSIZE, Reason::Invalid, text)
}

/// Octets of segments.
fn room(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| u64::from(segment.length)).sum()
}
