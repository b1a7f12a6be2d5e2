//! Placing: octets of an accepted segment to where they belong, and what its end brings about.

use std::io;

use super::fault::{invalidate_fault, tagged_fault};
use super::gather::Piece;
use super::recv_queue::Arrival;
use super::rx::{Refusal, Segment, Target, trailer};
use super::{QueuePair, State};
use crate::work::{Payload, piece_at, scatter};

/// Shortest rest of a segment that is worth a system call of its own; the tests' segments are short.
const DIRECT_MIN: usize = if cfg!(test) { 16 } else { 8 * 1024 };

/// What [`QueuePair::receive_direct`] did.
pub struct Direct {
    /// Octets that went straight to where they belong.
    pub placed: usize,
    /// Octets behind them.
    pub behind: usize,
}

impl QueuePair {
    /// Lets `receive` put the next octets of the stream straight to where the open segment wants them: a piece of
    /// memory to be filled before anything else is. It returns how many octets came in all. `None` where the ordinary
    /// way has to be taken: with CRC no octet may be placed before the sum has been verified.
    pub fn receive_direct(
        &mut self,
        receive: &mut dyn FnMut(Piece) -> io::Result<usize>,
    ) -> Option<io::Result<Direct>> {
        if self.params.crc || self.state != State::Active || self.rx.skip > 0 {
            return None;
        }
        let segment = self.rx.open.as_ref().filter(|segment| segment.remaining >= DIRECT_MIN)?;
        let (want, mut length) = (segment.remaining, segment.remaining);
        let mut fill = |(ptr, count): (*mut u8, usize)| {
            length = count;
            // SAFETY: lent for this call only, under the key's gate or by a work request that holds its region.
            receive(unsafe { Piece::new(ptr, count) })
        };
        let received = match &segment.target {
            // A key that has been revoked is found by the ordinary way.
            Target::Key(key, offset) => key.lend(*offset, want, |ptr| fill((ptr, want))).ok()?,
            Target::Read(offset) => {
                let seq = self.reads.front().and_then(|read| read.seq)?;
                let Payload::Sges(sges) = &self.sq.get(seq)?.wr.payload else { return None };
                fill(piece_at(sges, *offset, want)?)
            }
            Target::Receive => fill(self.rq.next_piece(want)?),
            Target::Nowhere => return None,
        };
        Some(received.map(|count| {
            let placed = count.min(length);
            self.placed_direct(placed);
            Direct { placed, behind: count - placed }
        }))
    }

    fn placed_direct(&mut self, count: usize) {
        let Some(mut segment) = self.rx.open.take() else { return };
        match &mut segment.target {
            Target::Receive => {
                self.rq.placed(count);
                self.note_received(count);
            }
            Target::Key(_, offset) => *offset += count as u64,
            Target::Read(offset) => *offset += count,
            Target::Nowhere => {}
        }
        segment.remaining -= count;
        self.counters.received += count as u64;
        if segment.remaining > 0 {
            self.rx.open = Some(segment);
        } else if let Err(Refusal::Fault(fault)) = self.close(segment) {
            self.fail(*fault);
        }
    }

    fn note_received(&mut self, count: usize) {
        if let Some((placed, _)) = &mut self.rx.message {
            *placed = placed.wrapping_add(count as u32);
        }
    }

    pub(super) fn place(&mut self, segment: &mut Segment, octets: &[u8]) -> Result<(), Refusal> {
        match &mut segment.target {
            Target::Receive => {
                self.rq.place(octets);
                self.note_received(octets.len());
            }
            Target::Key(key, offset) => {
                key.place(*offset, octets)
                    .map_err(|fault| tagged_fault(fault, &segment.header, segment.length))?;
                *offset += octets.len() as u64;
            }
            Target::Read(offset) => {
                let seq = self.reads.front().and_then(|read| read.seq);
                if let Some(Payload::Sges(sges)) = seq.and_then(|seq| self.sq.get(seq)).map(|e| &e.wr.payload)
                {
                    scatter(sges, *offset, octets);
                }
                *offset += octets.len();
            }
            Target::Nowhere => {}
        }
        segment.remaining -= octets.len();
        Ok(())
    }

    /// Ends a segment and, with the last one, its message.
    pub(super) fn close(&mut self, segment: Segment) -> Result<(), Refusal> {
        let ulpdu = segment.header.len() + segment.length;
        self.rx.skip = trailer(ulpdu);
        if segment.opcode.is_tagged() {
            self.rx.tagged_open = !segment.last;
        }
        match segment.target {
            Target::Read(placed) => self.close_response(placed, segment.last),
            Target::Receive if segment.last => self.close_send(&segment)?,
            _ => {}
        }
        Ok(())
    }

    fn close_response(&mut self, placed: usize, last: bool) {
        if let Some(read) = self.reads.front_mut() {
            read.placed = placed as u32;
        }
        if !last {
            return;
        }
        if let Some(entry) =
            self.reads.pop_front().and_then(|read| read.seq).and_then(|seq| self.sq.get_mut(seq))
        {
            entry.answered = true;
        }
        self.sq.reap(self.tx.sent);
    }

    fn close_send(&mut self, segment: &Segment) -> Result<(), Refusal> {
        // rdma-core's siw library sends STag 0 with every Send with Invalidate: nothing to invalidate.
        let invalidated =
            (segment.opcode.invalidates() && segment.invalidate_stag != 0).then_some(segment.invalidate_stag);
        if let Some(stag) = invalidated {
            self.keys
                .invalidate(stag, self.stream)
                .map_err(|fault| invalidate_fault(fault, &segment.header, segment.length))?;
        }
        let solicited = segment.opcode.is_solicited();
        self.rq.finish(Arrival { imm: self.rx.imm.take(), invalidated, solicited });
        self.rx.message = None;
        Ok(())
    }
}
