//! The send queue: work requests from posting to completion, in order.
//!
//! One work request can be several requests of the device's ([`super::split`]). These are counted: a completion tells that
//! all before it are done, as the send queue of a reliable connection completes in order, so that few need to be signalled.
//! Only siw does not: what is posted behind a Read completes when TCP has it, before the Read does. There each Read is
//! signalled, and nothing behind it is done before it is.

use std::collections::VecDeque;

use arrayvec::ArrayVec;

use crate::error::Result;
use crate::work::{Completion, MAX_SGE, Opcode, SendWr, flags};

/// So many octets are on their way no longer than a host that is alive takes to answer.
const SOON: u64 = 16 << 20;

/// Requests of ours that may be with the device at a time, besides the caller's: a sign of life and an end that speaks.
pub(super) const PROBES: usize = 2;

/// Bits of a request's number that its completion carries.
pub(super) const SEQUENCE_BITS: u32 = 15;
const SEQUENCE_MASK: u64 = (1 << SEQUENCE_BITS) - 1;

/// A work request in the queue.
pub(super) struct Entry {
    /// `None`: one of ours that moves nothing, to see whether all before it is done.
    pub(super) wr: Option<SendWr>,
    /// One of ours, a Read: whether the peer's host is there.
    pub(super) asks: bool,
    /// Local keys of its elements.
    pub(super) keys: ArrayVec<u32, MAX_SGE>,
    /// How many requests of the device's it is.
    pub(super) parts: u32,
    /// Number behind that of its last request.
    end: u64,
    status: i32,
}

impl Entry {
    /// One of the caller's, to be filled, that counts for nothing yet.
    fn blank() -> Self {
        let wr = Some(SendWr::blank());
        Self { wr, asks: false, keys: ArrayVec::new(), parts: 0, end: 0, status: 0 }
    }

    /// One of ours.
    fn probe(asks: bool) -> Self {
        Self { wr: None, asks, keys: ArrayVec::new(), parts: 1, end: 0, status: 0 }
    }

    /// Number of its first request.
    pub(super) fn first(&self) -> u64 {
        self.end - u64::from(self.parts)
    }

    fn speaks(&self) -> bool {
        self.wr.as_ref().is_some_and(|wr| self.status != 0 || wr.flags & flags::SIGNALED != 0)
    }
}

/// Work requests in the order of posting.
pub(super) struct SendQueue {
    entries: VecDeque<Entry>,
    /// How many of the entries are the caller's at most, and how many are ours.
    depth: usize,
    probes: usize,
    /// Entries that have left the queue.
    left: u64,
    /// Requests numbered, posted, and known to be done.
    numbered: u64,
    posted: u64,
    done: u64,
    /// Number behind that of the last one that was signalled.
    signalled: u64,
    /// Number behind that of the last one that has completed; what is before it is done, less what waits for a Read.
    reached: u64,
    /// Numbers of Reads that may be overtaken and have not completed.
    reads: VecDeque<u64>,
}

impl SendQueue {
    pub(super) fn new(depth: usize) -> Self {
        let entries = VecDeque::with_capacity(depth + PROBES);
        Self {
            entries,
            depth,
            probes: 0,
            left: 0,
            numbered: 0,
            posted: 0,
            done: 0,
            signalled: 0,
            reached: 0,
            reads: VecDeque::new(),
        }
    }

    /// Octets that a queue holds besides the struct itself.
    pub(super) fn memory(depth: usize) -> usize {
        (depth + PROBES).saturating_mul(size_of::<Entry>())
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Work requests that the caller may still queue; ours take nothing away.
    pub(super) fn room(&self) -> usize {
        (self.depth + self.probes).saturating_sub(self.entries.len())
    }

    /// Requests of the device's that are not known to be done.
    pub(super) fn outstanding(&self) -> u64 {
        self.posted - self.done
    }

    /// Those of them that are ours.
    pub(super) fn probing(&self) -> usize {
        let unfinished = |entry: &&Entry| entry.wr.is_none() && entry.end > self.done;
        if self.probes == 0 { 0 } else { self.entries.iter().filter(unfinished).count() }
    }

    /// Appends a work request that `fill` makes, to be [`SendQueue::number`]ed; if either fails the caller truncates.
    pub(super) fn push(&mut self, fill: impl FnOnce(&mut SendWr) -> Result<()>) -> Result<()> {
        self.entries.push_back(Entry::blank());
        self.entries.back_mut().and_then(|entry| entry.wr.as_mut()).map_or(Ok(()), fill)
    }

    /// The one pushed last.
    pub(super) fn last(&self) -> Option<&SendWr> {
        self.entries.back()?.wr.as_ref()
    }

    /// Gives it its keys and its numbers: it is to be posted.
    pub(super) fn number(&mut self, keys: ArrayVec<u32, MAX_SGE>, parts: u32) {
        let Some(entry) = self.entries.back_mut() else { return };
        self.numbered += u64::from(parts);
        (entry.keys, entry.parts, entry.end) = (keys, parts, self.numbered);
    }

    /// Appends one of ours.
    pub(super) fn push_probe(&mut self, asks: bool) {
        self.numbered += 1;
        self.probes += 1;
        self.entries.push_back(Entry { end: self.numbered, ..Entry::probe(asks) });
    }

    /// Takes back what was pushed after the queue was `len` long, nothing of which has been posted.
    pub(super) fn truncate(&mut self, len: usize) {
        while self.entries.len() > len {
            self.pop_back();
        }
        self.numbered = self.posted;
        self.reads.retain(|read| *read < self.posted);
    }

    pub(super) fn get(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    /// A number below [`SendQueue::slots`] that no other unfinished entry in the queue has.
    pub(super) fn slot(&self, index: usize) -> usize {
        ((self.left + index as u64) % Self::slots(self.depth) as u64) as usize
    }

    /// How many entries are unfinished at most.
    pub(super) fn slots(depth: usize) -> usize {
        depth + PROBES
    }

    /// Whether the request with this number is to be signalled although nobody asked, so that the queue empties.
    pub(super) fn wants_signal(&self, number: u64, period: u64) -> bool {
        number + 1 - self.signalled >= period
    }

    /// Notes that the request with this number is signalled.
    pub(super) fn signal(&mut self, number: u64) {
        self.signalled = number + 1;
    }

    /// Notes that the request with this number is a Read that later ones may overtake; it is signalled.
    pub(super) fn may_be_overtaken(&mut self, number: u64) {
        self.reads.push_back(number);
    }

    /// Whether nobody would tell that the last request is done.
    pub(super) fn has_silent_end(&self) -> bool {
        self.signalled < self.posted && self.done < self.posted
    }

    /// Notes that so many more requests have been posted.
    pub(super) fn posted(&mut self, count: usize) {
        self.posted += count as u64;
    }

    /// A completion of the request with this number: all before it are done; `status` is its own.
    pub(super) fn complete(&mut self, number: u16, status: i32) {
        let ahead = u64::from(number).wrapping_sub(self.done) & SEQUENCE_MASK;
        let position = self.done + ahead;
        if position >= self.posted {
            return;
        }
        self.reached = self.reached.max(position + 1);
        self.reads.retain(|read| *read != position);
        self.done = self.reads.front().map_or(self.reached, |read| self.reached.min(*read));
        if status != 0 {
            let about = self.entries.iter_mut().find(|entry| entry.end > position);
            if let Some(entry) = about.filter(|entry| entry.status == 0) {
                entry.status = status;
            }
        }
        self.reap();
    }

    fn finished(&self, index: usize) -> bool {
        self.entries.get(index).is_some_and(|entry| entry.end <= self.done)
    }

    /// Drops finished work requests that want no completion, up to the first that does; and one of ours at the end, which
    /// would stay as long as the caller reads no completions.
    fn reap(&mut self) {
        while self.entries.back().is_some_and(|entry| entry.wr.is_none() && entry.end <= self.done) {
            self.pop_back();
        }
        while self.finished(0) && self.entries.front().is_some_and(|entry| !entry.speaks()) {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.left += 1;
        self.probes -= usize::from(entry.wr.is_none());
        Some(entry)
    }

    fn pop_back(&mut self) {
        let entry = self.entries.pop_back();
        self.probes -= usize::from(entry.is_some_and(|entry| entry.wr.is_none()));
    }

    /// Whether a completion waits.
    pub(super) fn has_completion(&self) -> bool {
        self.finished(0)
    }

    /// The next completion.
    pub(super) fn pop(&mut self) -> Option<Completion> {
        if !self.has_completion() {
            return None;
        }
        let entry = self.pop_front()?;
        self.reap();
        let wr = entry.wr?;
        Some(Completion {
            opcode: wr.opcode,
            status: entry.status,
            user: wr.user,
            length: wr.payload.len(),
            data: 0,
            imm: None,
            invalidated: None,
            solicited: false,
            buffer: 0,
        })
    }

    /// Whether all that was posted is known to be done.
    pub(super) fn is_drained(&self) -> bool {
        self.done == self.numbered
    }

    /// Whether what completes next is a request that the peer's host answers by itself. What was posted in silence before
    /// it may long be done; but a message that may wait for a receive of the peer's is waited for, and so is a lot of data.
    pub(super) fn waits_for_answer(&self, messages_wait: bool) -> bool {
        let passed = |entry: &Entry| match &entry.wr {
            Some(wr) if wr.flags & flags::SIGNALED != 0 => false,
            Some(wr) => !messages_wait || matches!(wr.opcode, Opcode::Write | Opcode::Read),
            None => false,
        };
        let mut octets = 0;
        let mut outstanding = self.entries.iter().filter(|entry| entry.end > self.done);
        let next = outstanding.find(|entry| {
            octets += entry.wr.as_ref().map_or(0, |wr| wr.payload.len());
            !passed(entry)
        });
        octets <= SOON
            && next.is_some_and(|entry| entry.wr.as_ref().is_none_or(|wr| wr.opcode == Opcode::Read))
    }

    /// Ends everything unfinished with `status`: the device can't touch it any more.
    pub(super) fn flush(&mut self, status: i32) {
        for entry in self.entries.iter_mut().filter(|entry| entry.end > self.done) {
            if entry.status == 0 {
                entry.status = status;
            }
            entry.end = self.done;
        }
        self.numbered = self.done;
        self.posted = self.done;
        self.signalled = self.done;
        self.reached = self.done;
        self.reads.clear();
        self.reap();
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::work::Payload;

    /// Queues an operation of the caller's.
    fn push(queue: &mut SendQueue, user: usize) {
        let wr = SendWr {
            flags: flags::SIGNALED,
            user,
            ..SendWr::new(Opcode::Write, Payload::Inline(ArrayVec::new()))
        };
        let fill = |place: &mut SendWr| {
            *place = wr;
            Ok(())
        };
        queue.push(fill).unwrap();
        queue.number(ArrayVec::new(), 1);
    }

    fn post(queue: &mut SendQueue, user: usize) {
        push(queue, user);
        queue.posted(1);
    }

    /// One of ours.
    fn probe(queue: &mut SendQueue, asks: bool) {
        queue.push_probe(asks);
        queue.posted(1);
    }

    #[test]
    fn ours_take_no_room() {
        let mut queue = SendQueue::new(2);
        post(&mut queue, 1);
        probe(&mut queue, false);
        post(&mut queue, 2);
        probe(&mut queue, false);
        assert_eq!((queue.room(), queue.outstanding(), queue.probing()), (0, 4, 2));
        let mut slots: Vec<_> = (0..4).map(|index| queue.slot(index)).collect();
        slots.sort_unstable();
        assert_eq!(slots, [0, 1, 2, 3]);
        // The end of the last is that of all; only the caller's are told.
        queue.complete(3, 0);
        assert_eq!((queue.room(), queue.outstanding(), queue.probing()), (0, 0, 0));
        assert_eq!(queue.pop().map(|done| done.user), Some(1));
        assert_eq!(queue.room(), 1);
        assert_eq!(queue.pop().map(|done| done.user), Some(2));
        assert_eq!((queue.room(), queue.len(), queue.has_completion()), (2, 0, false));
    }

    #[test]
    fn ours_leave_behind_completions_that_nobody_reads() {
        let mut queue = SendQueue::new(2);
        post(&mut queue, 1);
        queue.complete(0, 0);
        for number in 1..1000 {
            probe(&mut queue, true);
            queue.complete(number, 0);
        }
        assert_eq!((queue.len(), queue.room()), (1, 1));
    }

    #[test]
    fn what_overtakes_a_read_waits_for_it() {
        let mut queue = SendQueue::new(8);
        let users = |queue: &mut SendQueue| {
            std::iter::from_fn(|| queue.pop()).map(|done| (done.user, done.status)).collect::<Vec<_>>()
        };
        for user in 0..6 {
            post(&mut queue, user);
        }
        queue.may_be_overtaken(1);
        queue.may_be_overtaken(3);
        queue.complete(5, 0);
        assert_eq!((users(&mut queue), queue.outstanding()), (vec![(0, 0)], 5));
        queue.complete(3, 0);
        assert_eq!(users(&mut queue), []);
        queue.complete(1, 0);
        assert_eq!((users(&mut queue), queue.outstanding()), ((1..6).map(|user| (user, 0)).collect(), 0));
        // One whose failure comes late; and one that is never told.
        for user in 6..10 {
            post(&mut queue, user);
        }
        queue.may_be_overtaken(6);
        queue.may_be_overtaken(8);
        queue.complete(9, 0);
        queue.complete(6, -5);
        assert_eq!(users(&mut queue), [(6, -5), (7, 0)]);
        queue.flush(-1);
        assert_eq!((users(&mut queue), queue.is_drained()), (vec![(8, -1), (9, -1)], true));
        push(&mut queue, 10);
        queue.may_be_overtaken(8);
        queue.truncate(0);
        post(&mut queue, 11);
        queue.complete(8, 0);
        assert_eq!(users(&mut queue), [(11, 0)]);
    }

    #[test]
    fn what_is_taken_back_was_never_there() {
        let mut queue = SendQueue::new(2);
        post(&mut queue, 1);
        queue.push_probe(false);
        queue.truncate(1);
        assert_eq!((queue.len(), queue.room(), queue.probing(), queue.outstanding()), (1, 1, 0, 1));
    }
}
