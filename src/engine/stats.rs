//! What is counted, of an engine, a channel or a connection.
//!
//! On the hot path nothing is shared: a connection counts behind the lock that posting has taken anyway, a channel's loop
//! has numbers that it alone writes. They are added up when somebody asks.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Reason, Stage};
use crate::work::{Completion, Opcode};

/// Operations, `RCG_SEND` to `RCG_RECV`: as long as the tables of [`Stats`], as are these.
pub(super) const OPS: usize = 8;
/// Stages, `RCG_STAGE_*`.
const STAGES: usize = 8;
/// Reasons, `RCG_REASON_*`, with room for more.
const REASONS: usize = 24;

/// Counters of an engine, a channel or a connection, all since its beginning. Start from RCG_STATS_INIT.
///
/// Those of a channel are the sums of its connections', ended ones included, and those of an engine the sums of its
/// channels'. The loop's counters are a channel's, those of memory an engine's; elsewhere they are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Stats {
    /// `sizeof(rcg_stats)`.
    pub size: usize,
    /// Connects begun here.
    pub connects: u64,
    /// Requests of peers that were announced.
    pub requests: u64,
    /// Connects and requests that led to a connection.
    pub established: u64,
    /// Requests that were rejected here.
    pub rejected: u64,
    /// Connections and attempts that are not closed yet; a level, not a count.
    pub open: u64,
    /// Failed connects and accepts by `RCG_STAGE_*`.
    pub failed_at: [u64; 8],
    /// The same by `RCG_REASON_*`.
    pub failed_for: [u64; 24],
    /// Established connections that ended, by `RCG_REASON_*`; 0 = both sides had left.
    pub ended_for: [u64; 24],
    /// Operations posted, by `RCG_SEND` and so on; of RCG_RECV messages received.
    pub ops: [u64; 8],
    /// Octets of their payload.
    pub op_bytes: [u64; 8],
    /// Completions that told of a failure.
    pub op_errors: u64,
    /// Completions that told of the connection's end.
    pub op_flushed: u64,
    /// Octets sent, headers included.
    pub bytes_sent: u64,
    /// Octets received, headers included.
    pub bytes_received: u64,
    /// Times that the network took less than was offered.
    pub send_stalls: u64,
    /// Times that a message waited for a receive.
    pub recv_stalls: u64,
    /// Posts that were refused because a queue was full.
    pub queue_full: u64,
    /// System calls that send, or doorbells of a device.
    pub send_calls: u64,
    /// System calls that receive.
    pub recv_calls: u64,
    /// Times the loop asked the kernel for events.
    pub loop_polls: u64,
    /// Times the loop went to sleep.
    pub loop_sleeps: u64,
    /// Times somebody was woken: the loop, or whoever waits for the channel's descriptor.
    pub wakeups: u64,
    /// Events delivered.
    pub events: u64,
    /// Regions registered, the library's own included.
    pub registrations: u64,
    /// Registrations with devices.
    pub device_registrations: u64,
    /// Octets registered now; a level, not a count.
    pub registered_bytes: u64,
}

/// The numbers of [`Stats`] by name, as references of either kind.
macro_rules! numbers {
    ($stats:expr $(, $mutable:tt)?) => {
        [
            ("connects", &$($mutable)? $stats.connects),
            ("requests", &$($mutable)? $stats.requests),
            ("established", &$($mutable)? $stats.established),
            ("rejected", &$($mutable)? $stats.rejected),
            ("open", &$($mutable)? $stats.open),
            ("op_errors", &$($mutable)? $stats.op_errors),
            ("op_flushed", &$($mutable)? $stats.op_flushed),
            ("bytes_sent", &$($mutable)? $stats.bytes_sent),
            ("bytes_received", &$($mutable)? $stats.bytes_received),
            ("send_stalls", &$($mutable)? $stats.send_stalls),
            ("recv_stalls", &$($mutable)? $stats.recv_stalls),
            ("queue_full", &$($mutable)? $stats.queue_full),
            ("send_calls", &$($mutable)? $stats.send_calls),
            ("recv_calls", &$($mutable)? $stats.recv_calls),
            ("loop_polls", &$($mutable)? $stats.loop_polls),
            ("loop_sleeps", &$($mutable)? $stats.loop_sleeps),
            ("wakeups", &$($mutable)? $stats.wakeups),
            ("events", &$($mutable)? $stats.events),
            ("registrations", &$($mutable)? $stats.registrations),
            ("device_registrations", &$($mutable)? $stats.device_registrations),
            ("registered_bytes", &$($mutable)? $stats.registered_bytes),
        ]
    };
}

/// The same of its tables.
macro_rules! tables {
    ($stats:expr $(, $mutable:tt)?) => {
        [
            ("failed_at", &$($mutable)? $stats.failed_at[..]),
            ("failed_for", &$($mutable)? $stats.failed_for[..]),
            ("ended_for", &$($mutable)? $stats.ended_for[..]),
            ("ops", &$($mutable)? $stats.ops[..]),
            ("op_bytes", &$($mutable)? $stats.op_bytes[..]),
        ]
    };
}

impl Default for Stats {
    fn default() -> Self {
        Self { size: size_of::<Self>(), ..ZERO }
    }
}

/// Nothing counted.
const ZERO: Stats = Stats {
    size: 0,
    connects: 0,
    requests: 0,
    established: 0,
    rejected: 0,
    open: 0,
    failed_at: [0; STAGES],
    failed_for: [0; REASONS],
    ended_for: [0; REASONS],
    ops: [0; OPS],
    op_bytes: [0; OPS],
    op_errors: 0,
    op_flushed: 0,
    bytes_sent: 0,
    bytes_received: 0,
    send_stalls: 0,
    recv_stalls: 0,
    queue_full: 0,
    send_calls: 0,
    recv_calls: 0,
    loop_polls: 0,
    loop_sleeps: 0,
    wakeups: 0,
    events: 0,
    registrations: 0,
    device_registrations: 0,
    registered_bytes: 0,
};

impl Stats {
    /// Its single numbers, by name.
    pub(super) fn numbers(&self) -> impl Iterator<Item = (&'static str, u64)> {
        numbers!(self).map(|(name, number): (_, &u64)| (name, *number)).into_iter()
    }

    /// Its tables, by name.
    pub(super) fn tables(&self) -> impl Iterator<Item = (&'static str, &[u64])> {
        tables!(self).into_iter()
    }

    /// Adds those of a part, or of something that has ended.
    pub(super) fn add(&mut self, other: &Self) {
        for ((_, mine), (_, theirs)) in numbers!(self, mut).into_iter().zip(other.numbers()) {
            *mine += theirs;
        }
        for ((_, mine), (_, theirs)) in tables!(self, mut).into_iter().zip(other.tables()) {
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
        }
    }

    /// A failed connect or accept.
    fn failed(&mut self, stage: Stage, reason: Reason) {
        count(&mut self.failed_at, stage as usize);
        count(&mut self.failed_for, reason as usize);
    }
}

fn count(table: &mut [u64], at: usize) {
    if let Some(slot) = table.get_mut(at) {
        *slot += 1;
    }
}

/// What a connection counts by itself, behind its lock.
#[derive(Default)]
pub(super) struct Tally {
    ops: [u64; OPS],
    octets: [u64; OPS],
    errors: u64,
    flushed: u64,
    queue_full: u64,
    pub(super) established: bool,
    failure: Option<(Stage, Reason)>,
    end: Option<Reason>,
}

/// A batch that is being posted: counted when it has been.
#[derive(Default)]
pub(super) struct Batch {
    ops: [u32; OPS],
    octets: [u64; OPS],
}

impl Batch {
    pub(super) fn add(&mut self, opcode: Opcode, octets: u64) {
        let at = opcode as usize;
        if let (Some(ops), Some(sum)) = (self.ops.get_mut(at), self.octets.get_mut(at)) {
            *ops += 1;
            *sum += octets;
        }
    }
}

impl Tally {
    pub(super) fn posted(&mut self, batch: &Batch) {
        self.ops.iter_mut().zip(batch.ops).for_each(|(mine, new)| *mine += u64::from(new));
        self.octets.iter_mut().zip(batch.octets).for_each(|(mine, new)| *mine += new);
    }

    /// A post that was refused.
    pub(super) fn refused(&mut self, error: &Error) {
        self.queue_full += u64::from(error.errno == libc::EAGAIN);
    }

    pub(super) fn completed(&mut self, done: &Completion) {
        match done.status {
            0 if done.opcode == Opcode::Recv => {
                let at = Opcode::Recv as usize;
                count(&mut self.ops, at);
                self.octets.get_mut(at).into_iter().for_each(|octets| *octets += done.length);
            }
            0 => {}
            status if status == -libc::ECANCELED => self.flushed += 1,
            _ => self.errors += 1,
        }
    }

    pub(super) fn failed(&mut self, error: &Error) {
        self.failure = Some((error.stage, error.reason));
    }

    pub(super) fn ended(&mut self, error: &Error) {
        self.end = Some(error.reason);
    }

    /// As they are told.
    pub(super) fn stats(&self) -> Stats {
        let mut stats = Stats {
            ops: self.ops,
            op_bytes: self.octets,
            op_errors: self.errors,
            op_flushed: self.flushed,
            queue_full: self.queue_full,
            established: self.established.into(),
            ..Stats::default()
        };
        if let Some((stage, reason)) = self.failure {
            stats.failed(stage, reason);
        }
        if let Some(reason) = self.end {
            count(&mut stats.ended_for, reason as usize);
        }
        stats
    }
}

/// A number that one thread at a time writes, and any may read.
#[derive(Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: u64) {
        // No read-modify-write: nobody else writes.
        self.0.store(self.0.load(Ordering::Relaxed) + more, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a channel's loop counts.
#[derive(Default)]
pub(super) struct Loop {
    pub(super) polls: Count,
    pub(super) sleeps: Count,
    pub(super) events: Count,
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn all_numbers_are_added_and_named() {
        let mut one = Stats::default();
        for (at, (_, number)) in (1..).zip(numbers!(one, mut)) {
            *number = at;
        }
        for (_, table) in tables!(one, mut) {
            (1..).zip(table.iter_mut()).for_each(|(at, slot)| *slot = at);
        }
        let mut two = one;
        two.add(&one);
        let octets = |stats: &Stats| {
            let tables = stats.tables().flat_map(|(_, table)| table.to_vec());
            stats.numbers().map(|(_, number)| number).chain(tables).collect::<Vec<_>>()
        };
        let doubled: Vec<_> = octets(&one).iter().map(|number| number * 2).collect();
        assert_eq!(octets(&two), doubled);
        // No member is missing from the lists.
        assert_eq!(octets(&one).len() * 8 + size_of::<usize>(), size_of::<Stats>());
    }

    #[test]
    fn a_batch_counts_once_it_is_posted() {
        let (mut tally, mut batch) = (Tally::default(), Batch::default());
        batch.add(Opcode::Write, 100);
        batch.add(Opcode::Write, 20);
        batch.add(Opcode::Send, 3);
        assert_eq!(tally.stats().ops, [0; OPS]);
        tally.posted(&batch);
        tally.refused(&Error::state(libc::EAGAIN, "full"));
        tally.refused(&Error::invalid("other"));
        let stats = tally.stats();
        assert_eq!((stats.ops[4], stats.op_bytes[4], stats.ops[1], stats.queue_full), (2, 120, 1, 1));
    }
}
