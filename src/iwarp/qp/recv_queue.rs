//! The receive queue: buffers of the caller, or of the library in managed-receive mode.

use std::collections::VecDeque;
use std::sync::Arc;

use super::queue;
use crate::error::{Error, Result};
use crate::memory::{KeyTable, ReceivePool};
use crate::work::{Completion, Opcode, RecvWr, SgeList, piece_at, scatter};

/// A posted receive and what has arrived in it.
struct Slot {
    wr: RecvWr,
    filled: usize,
    status: i32,
    imm: Option<u32>,
    invalidated: Option<u32>,
    solicited: bool,
    /// Number of the managed buffer plus one; 0 for one of the caller's.
    buffer: u64,
}

/// What the last segment of a message says about it.
#[derive(Clone, Copy, Default)]
pub(super) struct Arrival {
    pub(super) imm: Option<u32>,
    pub(super) invalidated: Option<u32>,
    pub(super) solicited: bool,
}

/// Receives in posting order: first the finished ones, then the one being filled, then the empty ones.
pub(super) struct RecvQueue {
    slots: VecDeque<Slot>,
    finished: usize,
    depth: usize,
    /// Declared last, so that the work requests that refer to it are dropped first.
    pool: Option<ReceivePool>,
}

impl RecvQueue {
    pub(super) fn new(depth: usize) -> Self {
        Self { slots: VecDeque::new(), finished: 0, depth, pool: None }
    }

    /// Bytes of memory that a queue can hold besides the struct itself.
    pub(super) fn memory(depth: usize, size: usize) -> usize {
        let lent = if size > 0 { size_of::<bool>() } else { 0 };
        depth.saturating_mul(size_of::<Slot>().saturating_add(size).saturating_add(lent))
    }

    /// A queue that owns its buffers and has posted all of them.
    pub(super) fn managed(table: &Arc<KeyTable>, size: usize, count: usize) -> Result<Self> {
        let pool = ReceivePool::new(table, size, count)?;
        let mut queue = Self::new(count);
        queue.slots.reserve_exact(count);
        for index in 0..pool.count() {
            queue.slots.push_back(Self::managed_slot(&pool, index)?);
        }
        queue.pool = Some(pool);
        Ok(queue)
    }

    fn managed_slot(pool: &ReceivePool, index: usize) -> Result<Slot> {
        let mut sges = SgeList::new();
        sges.push(pool.sge(index)?);
        let mut slot = Self::slot(RecvWr { sges, user: 0 });
        slot.buffer = index as u64 + 1;
        Ok(slot)
    }

    fn slot(wr: RecvWr) -> Slot {
        Slot { wr, filled: 0, status: 0, imm: None, invalidated: None, solicited: false, buffer: 0 }
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

    /// Makes room for `n` more, which do not make it longer than its depth.
    pub(super) fn make_room(&mut self, n: usize) {
        queue::make_room(&mut self.slots, n, self.depth);
    }

    /// Appends a receive that `fill` makes; if it fails the caller truncates.
    pub(super) fn push(&mut self, fill: impl FnOnce(&mut RecvWr) -> Result<()>) -> Result<()> {
        self.slots.push_back(Self::slot(RecvWr::blank()));
        self.slots.back_mut().map_or(Ok(()), |slot| fill(&mut slot.wr))
    }

    /// The one pushed last.
    pub(super) fn last(&self) -> Option<&RecvWr> {
        self.slots.back().map(|slot| &slot.wr)
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.slots.truncate(len);
    }

    /// Whether a receive is posted that has not been finished.
    pub(super) fn ready(&self) -> bool {
        self.slots.len() > self.finished
    }

    /// Room of the receive being filled, in octets, behind what has arrived.
    pub(super) fn room(&self) -> usize {
        self.slots.get(self.finished).map_or(0, |slot| {
            slot.wr.sges.iter().map(crate::work::Sge::len).sum::<usize>().saturating_sub(slot.filled)
        })
    }

    /// Places octets of the message behind those that have arrived.
    pub(super) fn place(&mut self, octets: &[u8]) {
        if let Some(slot) = self.slots.get_mut(self.finished) {
            scatter(&slot.wr.sges, slot.filled, octets);
            slot.filled += octets.len();
        }
    }

    /// Where the next octets of the message go, up to `limit` of them in one piece.
    pub(super) fn next_piece(&self, limit: usize) -> Option<(*mut u8, usize)> {
        let slot = self.slots.get(self.finished)?;
        piece_at(&slot.wr.sges, slot.filled, limit)
    }

    /// Notes octets that have been placed at [`RecvQueue::next_piece`].
    pub(super) fn placed(&mut self, count: usize) {
        if let Some(slot) = self.slots.get_mut(self.finished) {
            slot.filled += count;
        }
    }

    /// Finishes the receive being filled.
    pub(super) fn finish(&mut self, arrival: Arrival) {
        if let Some(slot) = self.slots.get_mut(self.finished) {
            slot.imm = arrival.imm;
            slot.invalidated = arrival.invalidated;
            slot.solicited = arrival.solicited;
            self.finished += 1;
        }
    }

    /// Fails the receive being filled.
    pub(super) fn fail(&mut self, status: i32) {
        if let Some(slot) = self.slots.get_mut(self.finished) {
            slot.status = status;
            self.finished += 1;
        }
    }

    pub(super) fn has_completion(&self) -> bool {
        self.finished > 0
    }

    /// The next completion; lends the buffer where it is one of ours.
    pub(super) fn pop(&mut self) -> Option<Completion> {
        self.finished = self.finished.checked_sub(1)?;
        let slot = self.slots.pop_front()?;
        if let (Some(pool), true) = (&mut self.pool, slot.buffer > 0) {
            pool.lend(slot.buffer as usize - 1);
        }
        Some(Completion {
            opcode: Opcode::Recv,
            status: slot.status,
            user: slot.wr.user,
            length: slot.filled as u64,
            data: slot.wr.sges.first().map_or(0, |sge| sge.ptr() as usize),
            imm: slot.imm,
            invalidated: slot.invalidated,
            solicited: slot.solicited,
            buffer: slot.buffer,
        })
    }

    /// Posts a lent buffer again.
    pub(super) fn release(&mut self, buffer: u64) -> Result<()> {
        let Some(pool) = &mut self.pool else {
            return Err(Error::invalid("the connection has no library-owned receive buffers"));
        };
        let index = usize::try_from(buffer).ok().and_then(|buffer| buffer.checked_sub(1));
        let index = index.ok_or_else(|| Error::invalid("the event carries no lent buffer"))?;
        pool.take_back(index)?;
        let slot = Self::managed_slot(pool, index)?;
        self.slots.push_back(slot);
        Ok(())
    }

    /// Gives the caller's receives away, before any message has come.
    pub(super) fn take(&mut self) -> Vec<RecvWr> {
        let unfinished = self.slots.drain(self.finished..);
        unfinished.filter(|slot| slot.buffer == 0).map(|slot| slot.wr).collect()
    }

    /// Ends every unfinished receive: those of the caller complete with `status`, our own just go.
    pub(super) fn flush(&mut self, status: i32) {
        if self.pool.is_some() {
            self.slots.truncate(self.finished);
        }
        for slot in self.slots.iter_mut().skip(self.finished) {
            slot.status = status;
        }
        self.finished = self.slots.len();
    }
}
