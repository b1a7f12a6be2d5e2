//! The send queue: work requests from posting to completion, in order.

use std::collections::VecDeque;

use super::queue;
use crate::error::Result;
use crate::work::{Completion, Opcode, SendWr, flags};

/// A posted work request and how far it has come.
pub(super) struct Entry {
    pub(super) wr: SendWr,
    /// Stream position behind its last octet; `u64::MAX` until all of it is in a gather.
    pub(super) end: u64,
    /// For a Read: the whole response has been placed.
    pub(super) answered: bool,
    /// 0, or why it failed.
    pub(super) status: i32,
}

impl Entry {
    fn finished(&self, sent: u64) -> bool {
        self.status != 0 || (self.end <= sent && (self.wr.opcode != Opcode::Read || self.answered))
    }

    fn speaks(&self) -> bool {
        self.status != 0 || self.wr.flags & flags::SIGNALED != 0
    }
}

/// Work requests by sequence number, which starts at 0 and never wraps in practice.
pub(super) struct SendQueue {
    entries: VecDeque<Entry>,
    depth: usize,
    first: u64,
    next: u64,
}

impl SendQueue {
    pub(super) fn new(depth: usize) -> Self {
        Self { entries: VecDeque::new(), depth, first: 0, next: 0 }
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn room(&self) -> usize {
        self.depth - self.entries.len()
    }

    /// Makes room for `n` more, for which there is [`SendQueue::room`].
    pub(super) fn make_room(&mut self, n: usize) {
        queue::make_room(&mut self.entries, n, self.depth);
    }

    /// Appends a work request that `fill` makes; if it fails the caller truncates.
    pub(super) fn push(&mut self, fill: impl FnOnce(&mut SendWr) -> Result<()>) -> Result<()> {
        self.entries.push_back(Entry { wr: SendWr::blank(), end: u64::MAX, answered: false, status: 0 });
        self.entries.back_mut().map_or(Ok(()), |entry| fill(&mut entry.wr))
    }

    /// The one pushed last.
    pub(super) fn last(&self) -> Option<&SendWr> {
        self.entries.back().map(|entry| &entry.wr)
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.entries.capacity()
    }

    /// Takes back what was pushed after the queue was `len` long: a batch that failed half way.
    pub(super) fn truncate(&mut self, len: usize) {
        self.entries.truncate(len);
    }

    pub(super) fn get(&self, seq: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(seq.checked_sub(self.first)?).ok()?)
    }

    pub(super) fn get_mut(&mut self, seq: u64) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(seq.checked_sub(self.first)?).ok()?)
    }

    /// The first work request not yet begun.
    pub(super) fn upcoming(&self) -> Option<&Entry> {
        self.get(self.next)
    }

    /// Begins it: its sequence number.
    pub(super) fn begin(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Whether every posted work request is finished.
    pub(super) fn all_sent(&self, sent: u64) -> bool {
        self.entries.iter().all(|entry| entry.finished(sent))
    }

    /// Drops finished work requests that want no completion, up to the first that does.
    pub(super) fn reap(&mut self, sent: u64) {
        while self.entries.front().is_some_and(|entry| entry.finished(sent) && !entry.speaks()) {
            self.pop_front();
        }
    }

    /// Whether a completion waits. The front has been reaped after every progress, so that it tells.
    pub(super) fn has_completion(&self, sent: u64) -> bool {
        self.entries.front().is_some_and(|entry| entry.finished(sent) && entry.speaks())
    }

    /// The next completion.
    pub(super) fn pop(&mut self, sent: u64) -> Option<Completion> {
        self.reap(sent);
        if !self.has_completion(sent) {
            return None;
        }
        let entry = self.pop_front()?;
        self.reap(sent);
        Some(Completion {
            opcode: entry.wr.opcode,
            status: entry.status,
            user: entry.wr.user,
            length: entry.wr.payload.len(),
            data: 0,
            imm: None,
            invalidated: None,
            solicited: false,
            buffer: 0,
        })
    }

    fn pop_front(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.first += 1;
        self.next = self.next.max(self.first);
        Some(entry)
    }

    /// Ends everything unfinished with `status`.
    pub(super) fn flush(&mut self, sent: u64, status: i32) {
        for entry in &mut self.entries {
            if !entry.finished(sent) {
                entry.status = status;
            }
        }
        self.reap(sent);
    }
}
