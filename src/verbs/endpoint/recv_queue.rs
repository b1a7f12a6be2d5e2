//! The receive queue: buffers of the caller, or of the library in managed-receive mode, in the order of posting.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::memory::{KeyTable, ReceivePool};
use crate::verbs::types::Wc;
use crate::work::{Completion, Opcode, RecvWr, SgeList};

const NUMBER_MASK: u64 = (1 << super::send_queue::SEQUENCE_BITS) - 1;

/// A receive and what has become of it.
struct Slot {
    wr: RecvWr,
    /// Number of the library's buffer plus one; 0 for one of the caller's.
    buffer: u64,
    status: i32,
    length: u32,
    imm: Option<u32>,
    invalidated: Option<u32>,
}

/// Receives: first the finished ones, then those with the device, then those that are still to be posted.
pub(super) struct RecvQueue {
    slots: VecDeque<Slot>,
    finished: usize,
    posted: usize,
    /// Number of the first slot that is not finished.
    number: u64,
    depth: usize,
    /// Dropped after the work requests that refer to it.
    pool: Option<ReceivePool>,
}

impl RecvQueue {
    /// A queue for the caller's receives or, where `size` is not 0, with `depth` buffers of its own.
    pub(super) fn new(keys: &Arc<KeyTable>, depth: usize, size: usize) -> Result<Self> {
        let pool = (size > 0).then(|| ReceivePool::new(keys, size, depth)).transpose()?;
        let mut queue =
            Self { slots: VecDeque::with_capacity(depth), finished: 0, posted: 0, number: 0, depth, pool };
        queue.provide()?;
        Ok(queue)
    }

    /// Queues all buffers of the library's.
    fn provide(&mut self) -> Result<()> {
        let count = self.pool.as_ref().map_or(0, ReceivePool::count);
        for index in 0..count {
            self.queue_own(index)?;
        }
        Ok(())
    }

    fn queue_own(&mut self, index: usize) -> Result<()> {
        let Some(pool) = &self.pool else { return Ok(()) };
        let mut sges = SgeList::new();
        sges.push(pool.sge(index)?);
        self.slots.push_back(Self::slot(RecvWr { sges, user: 0 }, index as u64 + 1));
        Ok(())
    }

    /// Octets that a queue holds besides the struct itself.
    pub(super) fn memory(depth: usize, size: usize) -> usize {
        depth.saturating_mul(size_of::<Slot>().saturating_add(size))
    }

    pub(super) fn is_managed(&self) -> bool {
        self.pool.is_some()
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    fn slot(wr: RecvWr, buffer: u64) -> Slot {
        Slot { wr, buffer, status: 0, length: 0, imm: None, invalidated: None }
    }

    /// Appends a receive that `fill` makes; if it fails the caller truncates.
    pub(super) fn push(&mut self, fill: impl FnOnce(&mut RecvWr) -> Result<()>) -> Result<()> {
        self.slots.push_back(Self::slot(RecvWr::blank(), 0));
        self.slots.back_mut().map_or(Ok(()), |slot| fill(&mut slot.wr))
    }

    /// The one pushed last.
    pub(super) fn last(&self) -> Option<&RecvWr> {
        self.slots.back().map(|slot| &slot.wr)
    }

    /// Takes back what was pushed after the queue was `len` long and has not been posted.
    pub(super) fn truncate(&mut self, len: usize) {
        self.slots.truncate(len.max(self.finished + self.posted));
    }

    /// The receive `ahead` of the first that is still to be posted, and its number.
    pub(super) fn upcoming(&self, ahead: usize) -> Option<(&RecvWr, u16)> {
        let slot = self.slots.get(self.finished + self.posted + ahead)?;
        let number = (self.number + (self.posted + ahead) as u64) & NUMBER_MASK;
        Some((&slot.wr, number as u16))
    }

    /// Notes that `count` receives have been posted.
    pub(super) fn posted(&mut self, count: usize) {
        self.posted += count;
    }

    /// Receives that the device has.
    pub(super) fn outstanding(&self) -> usize {
        self.posted
    }

    /// A completion of the receive with this number.
    pub(super) fn complete(&mut self, number: u16, wc: &Wc, status: i32) {
        let ahead = (u64::from(number).wrapping_sub(self.number) & NUMBER_MASK) as usize;
        if ahead >= self.posted {
            return;
        }
        let at = self.finished + ahead;
        // They complete in order; were one left out, it would never be heard of again.
        for slot in self.slots.iter_mut().take(at).skip(self.finished) {
            slot.status = -libc::ECANCELED;
        }
        if let Some(slot) = self.slots.get_mut(at) {
            slot.status = status;
            slot.length = if status == 0 { wc.length } else { 0 };
            slot.imm = wc.imm;
            slot.invalidated = wc.invalidated;
        }
        self.finished += ahead + 1;
        self.posted -= ahead + 1;
        self.number += ahead as u64 + 1;
        self.forget_own();
    }

    /// Buffers of the library's that were flushed are nobody's business.
    fn forget_own(&mut self) {
        while self.finished > 0 && self.slots.front().is_some_and(|slot| slot.buffer > 0 && slot.status != 0)
        {
            self.slots.pop_front();
            self.finished -= 1;
        }
    }

    pub(super) fn has_completion(&self) -> bool {
        self.finished > 0
    }

    /// The next completion; lends the buffer where it is one of the library's.
    pub(super) fn pop(&mut self) -> Option<Completion> {
        self.finished = self.finished.checked_sub(1)?;
        let slot = self.slots.pop_front()?;
        self.forget_own();
        if let (Some(pool), true) = (&mut self.pool, slot.buffer > 0) {
            pool.lend(slot.buffer as usize - 1);
        }
        Some(Completion {
            opcode: Opcode::Recv,
            status: slot.status,
            user: slot.wr.user,
            length: slot.length.into(),
            data: slot.wr.sges.first().map_or(0, |sge| sge.ptr() as usize),
            imm: slot.imm,
            invalidated: slot.invalidated,
            solicited: false,
            buffer: slot.buffer,
        })
    }

    /// Queues a lent buffer again.
    pub(super) fn release(&mut self, buffer: u64) -> Result<()> {
        let Some(pool) = &mut self.pool else {
            return Err(Error::invalid("the connection has no library-owned receive buffers"));
        };
        let index = usize::try_from(buffer).ok().and_then(|buffer| buffer.checked_sub(1));
        let index = index.ok_or_else(|| Error::invalid("the event carries no lent buffer"))?;
        pool.take_back(index)?;
        self.queue_own(index)
    }

    /// The device has let go of all receives: they are to be posted anew, to another queue pair, those that were flushed
    /// with the last one as well.
    pub(super) fn rewind(&mut self) -> Result<()> {
        self.finished = 0;
        self.posted = 0;
        self.number = 0;
        if self.pool.is_some() {
            self.slots.clear();
            return self.provide();
        }
        self.slots.iter_mut().for_each(|slot| slot.status = 0);
        Ok(())
    }

    /// Ends every unfinished receive: those of the caller complete with `status`, the library's own just go.
    pub(super) fn flush(&mut self, status: i32) {
        if self.pool.is_some() {
            self.slots.truncate(self.finished);
        }
        for slot in self.slots.iter_mut().skip(self.finished) {
            slot.status = status;
        }
        self.finished = self.slots.len();
        self.posted = 0;
    }

    /// Gives the caller's receives away, none of which the device may have.
    pub(super) fn take(&mut self) -> Vec<RecvWr> {
        let unfinished = self.slots.drain(self.finished..);
        unfinished.filter(|slot| slot.buffer == 0).map(|slot| slot.wr).collect()
    }
}
