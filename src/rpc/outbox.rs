//! Work requests on their way: batches that wait for room in the send queue, and what is to be done when they are
//! through.

use std::collections::VecDeque;
use std::sync::Arc;

use super::pool::Pool;
use crate::engine::Conn;
use crate::error::{Error, Result};
use crate::memory::Block;
use crate::wire::rpcrdma::Segment;
pub(super) use crate::work::Payload as Octets;
use crate::work::{MAX_SGE, Opcode, SendWr, Sge, SgeList, by_value, flags};

/// Most work requests under one doorbell.
const BATCH: usize = 32;

/// A work request that may be posted later, and tried more than once.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) opcode: Opcode,
    pub(super) octets: Octets,
    pub(super) remote: (u64, u32),
    pub(super) invalidate: u32,
}

impl Op {
    /// The request itself; the elements stay here, too.
    fn build(&self, signaled: bool, user: usize) -> Result<SendWr> {
        let (payload, inline) = match &self.octets {
            Octets::Inline(octets) => (Octets::Inline(octets.clone()), flags::INLINE),
            Octets::Sges(sges) => {
                let again = sges.iter().map(|sge| sge.region().sge(sge.ptr(), sge.len()));
                (Octets::Sges(again.collect::<Result<_>>()?), 0)
            }
        };
        Ok(SendWr {
            opcode: self.opcode,
            flags: inline | if signaled { flags::SIGNALED } else { 0 },
            payload,
            remote_addr: self.remote.0,
            remote_key: self.remote.1,
            imm: 0,
            invalidate_key: self.invalidate,
            user,
        })
    }
}

/// What a batch was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Nobody waits for it.
    Nothing,
    /// A reply is out, whose caller gets this cookie.
    Answered(usize),
    /// The arguments of a call are here.
    Pulled(u64),
    /// A call is out that nobody answers, whose caller gets this cookie.
    Told(usize),
}

/// Requests that belong together.
#[derive(Debug)]
struct Job {
    ops: Vec<Op>,
    posted: usize,
    /// Batches that are with the device.
    batches: usize,
    then: Then,
}

/// All of them.
pub(super) struct Outbox {
    jobs: Vec<Option<(Job, Vec<Block>)>>,
    vacant: Vec<usize>,
    waiting: VecDeque<usize>,
    /// How many may wait.
    most: usize,
    /// That a reply is out may be told later.
    answered_later: bool,
}

impl Outbox {
    /// `most`: how many may wait; the connection of a peer that makes more wait ends.
    pub(super) fn new(most: usize, answered_later: bool) -> Self {
        Self { jobs: Vec::new(), vacant: Vec::new(), waiting: VecDeque::new(), most, answered_later }
    }

    /// Posts operations now, or behind those that wait. `blocks`: memory that they use, given back when they are through.
    /// An error means that none of them will ever be done.
    pub(super) fn send(
        &mut self,
        conn: &Arc<Conn>,
        ops: Vec<Op>,
        blocks: Vec<Block>,
        then: Then,
    ) -> Result<()> {
        let job = (Job { ops, posted: 0, batches: 0, then }, blocks);
        let index = match self.vacant.pop() {
            Some(index) => index,
            None => {
                self.jobs.push(None);
                self.jobs.len() - 1
            }
        };
        if let Some(slot) = self.jobs.get_mut(index) {
            *slot = Some(job);
        }
        if self.waiting.len() >= self.most {
            // It goes on calling and does not take what it is answered.
            return conn.close();
        }
        if !self.waiting.is_empty() {
            self.waiting.push_back(index);
            return Ok(());
        }
        match self.post(conn, index) {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.waiting.push_back(index);
                Ok(())
            }
            // Half of it can't be taken back.
            Err(_) if self.job(index).is_some_and(|job| job.posted > 0) => conn.close(),
            Err(error) => {
                self.remove(index);
                Err(error)
            }
        }
    }

    fn job(&mut self, index: usize) -> Option<&mut Job> {
        self.jobs.get_mut(index)?.as_mut().map(|(job, _)| job)
    }

    fn remove(&mut self, index: usize) -> Option<(Job, Vec<Block>)> {
        let job = self.jobs.get_mut(index)?.take();
        if job.is_some() {
            self.vacant.push(index);
        }
        job
    }

    /// Posts what there is room for; true = all of it is with the device.
    fn post(&mut self, conn: &Arc<Conn>, index: usize) -> Result<bool> {
        let answered_later = self.answered_later;
        let Some(job) = self.job(index) else { return Ok(true) };
        // What is sent is mostly gone at once, and the channel would be woken for no more than to hear of it.
        let quiet = match job.then {
            Then::Nothing => true,
            Then::Answered(_) => answered_later,
            Then::Pulled(_) | Then::Told(_) => false,
        };
        while job.posted < job.ops.len() {
            let batch = job.ops.get(job.posted..).unwrap_or_default();
            let count = batch.len().min(BATCH);
            let mut fill = by_value(|at| {
                let op = batch.get(at).ok_or_else(|| Error::invalid("no such operation"))?;
                op.build(at + 1 == count, index)
            });
            let posted =
                if quiet { conn.post_quietly(count, &mut fill) } else { conn.post(count, &mut fill) };
            match posted {
                Ok(()) => {
                    job.posted += count;
                    job.batches += 1;
                }
                Err(error) if error.errno == libc::EAGAIN => {
                    // Room comes from completions that may have told nobody.
                    conn.wake();
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// A batch is through: what its job was for, if that was the last.
    pub(super) fn completed(&mut self, index: usize, pool: &mut Pool) -> Option<Then> {
        let job = self.job(index)?;
        job.batches = job.batches.saturating_sub(1);
        if job.batches > 0 || job.posted < job.ops.len() {
            return None;
        }
        let (job, blocks) = self.remove(index)?;
        // Their elements hold the memory.
        drop(job.ops);
        blocks.into_iter().for_each(|block| pool.put(block));
        Some(job.then)
    }

    /// Goes on with those that wait. They have been promised: one that can't be posted ends the connection.
    pub(super) fn go_on(&mut self, conn: &Arc<Conn>) {
        while let Some(index) = self.waiting.front().copied() {
            match self.post(conn, index) {
                Ok(true) => drop(self.waiting.pop_front()),
                Ok(false) => return,
                Err(_) => return drop(conn.close()),
            }
        }
    }

    /// The connection has ended: what all that are left were for.
    pub(super) fn end(&mut self) -> Vec<Then> {
        self.waiting.clear();
        self.vacant.clear();
        self.jobs.drain(..).flatten().map(|(job, _)| job.then).collect()
    }
}

/// Writes of `pieces`, one behind the other, to the beginning of `segments`, of which `filled` says how much each gets.
pub(super) fn writes(pieces: &[Sge], segments: &[Segment], filled: &[u32]) -> Result<Vec<Op>> {
    let mut ops = Vec::new();
    let mut cursor = Cursor { pieces, offset: 0 };
    for (segment, count) in segments.iter().zip(filled) {
        let (mut done, count) = (0_usize, *count as usize);
        while done < count {
            let (sges, octets) = cursor.take(count - done)?;
            if octets == 0 {
                return Err(Error::invalid("fewer octets than there is to write"));
            }
            let remote = (segment.offset.wrapping_add(done as u64), segment.handle);
            ops.push(Op { opcode: Opcode::Write, octets: Octets::Sges(sges), remote, invalidate: 0 });
            done += octets;
        }
    }
    Ok(ops)
}

/// How far elements have been used up.
struct Cursor<'a> {
    pieces: &'a [Sge],
    offset: usize,
}

impl Cursor<'_> {
    /// The next octets, at most `most`, in as many elements as one request can have.
    fn take(&mut self, most: usize) -> Result<(SgeList, usize)> {
        let (mut sges, mut octets) = (SgeList::new(), 0);
        while let Some((first, rest)) = self.pieces.split_first() {
            let here = (first.len() - self.offset).min(most - octets);
            if octets == most || sges.len() == MAX_SGE {
                break;
            }
            if here > 0 {
                sges.push(first.region().sge(first.ptr().wrapping_add(self.offset), here)?);
                (octets, self.offset) = (octets + here, self.offset + here);
            }
            if self.offset == first.len() {
                (self.pieces, self.offset) = (rest, 0);
            }
        }
        Ok((sges, octets))
    }
}
