//! Receiving: from octets of the stream to placed data, completions and Read Responses.
//!
//! Every header is checked in full - version, opcode, queue, MSN, offset, key, rights, bounds of the whole segment -
//! before its first octet is placed, and with CRC no octet is placed before the sum has been verified.

use std::cmp::Ordering;
use std::sync::Arc;

use super::fault::{Fault, tagged_fault};
use super::tx::Tx;
use super::{QueuePair, State};
use crate::memory::{Access, Key, KeyFault};
use crate::wire::ddp::{self, Header, Tagged, Untagged};
use crate::wire::mpa;
use crate::wire::rdmap::{ImmediateData, Opcode, ReadRequest, TermCode, term};

/// What [`QueuePair::input`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// Octets consumed.
    pub consumed: usize,
    /// Why it stopped.
    pub stop: Stop,
}

/// Why parsing stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// What is left is the beginning of a frame, or nothing.
    More,
    /// A message waits for a receive to be posted.
    Blocked,
    /// The stream has failed.
    Fault,
}

/// Where the payload of an open segment goes.
pub(super) enum Target {
    /// The receive being filled.
    Receive,
    /// Memory under a key, at this tagged offset.
    Key(Arc<Key>, u64),
    /// The response to the oldest Read, at this offset of its work request.
    Read(usize),
    /// No octets at all.
    Nowhere,
}

/// A segment whose header has been accepted.
pub(super) struct Segment {
    pub(super) target: Target,
    pub(super) opcode: Opcode,
    pub(super) last: bool,
    pub(super) invalidate_stag: u32,
    /// Octets still to come, of how many.
    pub(super) remaining: usize,
    pub(super) length: usize,
    pub(super) header: Header,
}

/// What keeps a segment from being accepted.
pub(super) enum Refusal {
    /// There is no receive for it yet.
    Wait,
    /// The stream has to end. Boxed, so that what goes well stays small.
    Fault(Box<Fault>),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(Box::new(fault))
    }
}

/// State of the receiving half.
#[derive(Default)]
pub(super) struct Rx {
    /// The first FPDU has arrived.
    pub(super) heard: bool,
    pub(super) open: Option<Segment>,
    /// Octets of pad and CRC still to skip.
    pub(super) skip: usize,
    /// Messages that have begun on the queues 0 and 1.
    pub(super) msn: [u32; 2],
    /// The open Send: octets that have arrived and the opcode of its segments; `None` between messages.
    pub(super) message: Option<(u32, Opcode)>,
    /// An RDMA Write or a Read Response has begun and not ended.
    pub(super) tagged_open: bool,
    /// Immediate data that belongs to the next Send.
    pub(super) imm: Option<u32>,
    blocked: bool,
}

impl QueuePair {
    /// Parses `data`, which continues the stream where the last call stopped consuming.
    pub fn input(&mut self, data: &[u8]) -> Input {
        let mut consumed = 0;
        let stop = loop {
            if self.state != State::Active {
                break Stop::Fault;
            }
            let rest = data.get(consumed..).unwrap_or_default();
            match self.step(rest) {
                Ok(0) => break Stop::More,
                Ok(count) => consumed += count,
                Err(Refusal::Wait) => {
                    self.note_heard();
                    self.note_stall();
                    break Stop::Blocked;
                }
                Err(Refusal::Fault(fault)) => {
                    self.fail(*fault);
                    break Stop::Fault;
                }
            }
        };
        self.counters.received += consumed as u64;
        Input { consumed, stop }
    }

    /// Whether the stream can end behind what has been consumed: not within a frame or a message. Octets that are left
    /// over are the beginning of a frame, which is for the caller to see.
    pub fn at_boundary(&self) -> bool {
        let rx = &self.rx;
        let between = rx.message.is_none() && rx.imm.is_none() && !rx.tagged_open;
        between && rx.open.is_none() && rx.skip == 0
    }

    fn note_stall(&mut self) {
        if !std::mem::replace(&mut self.rx.blocked, true) {
            self.counters.recv_stalls += 1;
        }
    }

    /// One step: part of an open segment, its trailer, or a new frame. `Ok(0)` = more octets are needed.
    fn step(&mut self, data: &[u8]) -> Result<usize, Refusal> {
        if self.rx.skip > 0 {
            let count = self.rx.skip.min(data.len());
            self.rx.skip -= count;
            return Ok(count);
        }
        if let Some(mut segment) = self.rx.open.take() {
            let count = segment.remaining.min(data.len());
            let octets = data.get(..count).unwrap_or_default();
            let placed = self.place(&mut segment, octets);
            if placed.is_ok() && segment.remaining > 0 {
                self.rx.open = Some(segment);
                return Ok(count);
            }
            placed?;
            self.close(segment)?;
            return Ok(count);
        }
        self.frame(data)
    }

    fn frame(&mut self, data: &[u8]) -> Result<usize, Refusal> {
        let Some(ulpdu_len) = mpa::ulpdu_len(data) else { return Ok(0) };
        if self.params.crc {
            let Some(fpdu) = data.get(..mpa::fpdu_len(ulpdu_len)) else { return Ok(0) };
            if !mpa::crc_matches(fpdu) {
                return Err(Fault::protocol(term::MPA_CRC, None).into());
            }
        }
        let end = (mpa::LENGTH_FIELD + ulpdu_len).min(data.len());
        let ulpdu = data.get(mpa::LENGTH_FIELD..end).unwrap_or_default();
        let header = match Header::parse(ulpdu) {
            Ok(Some(header)) => header,
            Ok(None) if ulpdu.len() < ulpdu_len => return Ok(0),
            Ok(None) => return Err(Fault::protocol(term::MPA_LENGTH, None).into()),
            Err(error) => return Err(Fault::protocol(error.into(), None).into()),
        };
        let payload_len = ulpdu_len - header.len();
        let opcode = self
            .opcode_of(&header, payload_len)
            .map_err(|code| Fault::protocol(code, Some((&header, ulpdu_len))))?;
        let payload = ulpdu.get(header.len()..).unwrap_or_default();
        if matches!(
            opcode,
            Opcode::ReadRequest | Opcode::Terminate | Opcode::Immediate | Opcode::ImmediateSolicited
        ) {
            if payload.len() < payload_len {
                return Ok(0);
            }
            self.control_message(opcode, &header, payload)?;
            self.note_accepted();
            self.rx.skip = trailer(ulpdu_len);
            return Ok(mpa::LENGTH_FIELD + ulpdu_len);
        }
        let mut segment = self.open(&header, opcode, payload_len)?;
        self.note_accepted();
        self.place(&mut segment, payload)?;
        let taken = mpa::LENGTH_FIELD + header.len() + payload.len();
        if segment.remaining > 0 {
            self.rx.open = Some(segment);
        } else {
            self.close(segment)?;
        }
        Ok(taken)
    }

    /// A frame is there, be it one that has to wait: the peer has spoken, and may be answered.
    fn note_heard(&mut self) {
        self.rx.heard = true;
        self.tx.hold = false;
    }

    fn note_accepted(&mut self) {
        self.note_heard();
        self.rx.blocked = false;
    }

    /// Checks a header against everything there is to check.
    fn open(&mut self, header: &Header, opcode: Opcode, length: usize) -> Result<Segment, Refusal> {
        let (target, last, invalidate_stag) = match header {
            Header::Tagged(tagged) if opcode == Opcode::Write => {
                (self.open_write(tagged, header, length)?, tagged.control.last, 0)
            }
            Header::Tagged(tagged) => (self.open_response(tagged, header, length)?, tagged.control.last, 0),
            Header::Untagged(untagged) => {
                self.open_send(untagged, header, opcode, length)?;
                (Target::Receive, untagged.control.last, untagged.invalidate_stag)
            }
        };
        Ok(Segment { target, opcode, last, invalidate_stag, remaining: length, length, header: *header })
    }

    /// The opcode of a header, or what is wrong with it, with RDMAP's version or with the length of a control message:
    /// all that can be told before the payload has arrived.
    fn opcode_of(&self, header: &Header, length: usize) -> Result<Opcode, TermCode> {
        let control = header.control();
        if control.rdmap_version != ddp::VERSION {
            return Err(term::RDMAP_VERSION);
        }
        let opcode = Opcode::from_u8(control.opcode).ok_or(term::RDMAP_OPCODE)?;
        let exact = match opcode {
            Opcode::ReadRequest => ReadRequest::LEN,
            Opcode::Immediate | Opcode::ImmediateSolicited if self.params.own_peer => ImmediateData::LEN,
            Opcode::Immediate | Opcode::ImmediateSolicited => return Err(term::RDMAP_OPCODE),
            _ => length,
        };
        if opcode.is_tagged() != control.tagged {
            return Err(term::RDMAP_OPCODE);
        }
        match length.cmp(&exact) {
            Ordering::Less => Err(term::MPA_LENGTH),
            Ordering::Greater => Err(term::DDP_MESSAGE_TOO_LONG),
            Ordering::Equal => Ok(opcode),
        }
    }

    fn open_write(&self, tagged: &Tagged, header: &Header, length: usize) -> Result<Target, Refusal> {
        if length == 0 {
            return Ok(Target::Nowhere);
        }
        let key = self
            .keys
            .check(tagged.stag, tagged.offset, length as u64, Access::REMOTE_WRITE, self.stream)
            .map_err(|fault| tagged_fault(fault, header, length))?;
        Ok(Target::Key(key, tagged.offset))
    }

    fn open_response(&self, tagged: &Tagged, header: &Header, length: usize) -> Result<Target, Refusal> {
        let fault = |kind| Refusal::from(tagged_fault(kind, header, length));
        // DDP sees the segment before RDMAP does: without a Read its STag is one that does not exist.
        let asked = self.reads.front().filter(|read| tagged.stag == Tx::sink_stag(read.seq.is_some()));
        let Some(read) = asked else { return Err(fault(KeyFault::InvalidStag)) };
        let end = u64::from(read.placed) + length as u64;
        let in_order = tagged.offset == read.sink_offset.wrapping_add(u64::from(read.placed));
        let short = tagged.control.last && end != u64::from(read.size);
        if !in_order || end > u64::from(read.size) || short {
            return Err(fault(KeyFault::Bounds));
        }
        Ok(Target::Read(read.placed as usize))
    }

    fn open_send(
        &mut self,
        untagged: &Untagged,
        header: &Header,
        opcode: Opcode,
        length: usize,
    ) -> Result<(), Refusal> {
        let refuse = |code| Refusal::from(Fault::protocol(code, Some((header, header.len() + length))));
        let open = self.rx.message;
        self.check_untagged(untagged, ddp::QN_SEND, header, length, open.is_some())?;
        let (placed, kind) = open.unwrap_or((0, opcode));
        if untagged.offset != placed {
            return Err(refuse(term::DDP_INVALID_OFFSET));
        }
        if kind != opcode {
            return Err(refuse(term::RDMAP_OPCODE));
        }
        if open.is_none() && !self.rq.ready() {
            return Err(if self.caps.strict_recv { refuse(term::DDP_NO_BUFFER) } else { Refusal::Wait });
        }
        // Offsets have 32 bits, and so has the length of a message, whatever the receive could take.
        let room = self.rq.room().min((u32::MAX - placed) as usize);
        if length > room {
            self.rq.fail(-libc::EMSGSIZE);
            return Err(refuse(term::DDP_MESSAGE_TOO_LONG));
        }
        if open.is_none() {
            self.begin_message(ddp::QN_SEND);
            self.rx.message = Some((0, opcode));
        }
        Ok(())
    }

    /// Counts a message of a queue.
    pub(super) fn begin_message(&mut self, queue: u32) {
        if let Some(msn) = self.rx.msn.get_mut(queue as usize) {
            *msn = msn.wrapping_add(1);
        }
    }

    /// Checks queue number and message sequence number; MSNs start at 1 and grow by one with each message.
    pub(super) fn check_untagged(
        &self,
        untagged: &Untagged,
        queue: u32,
        header: &Header,
        length: usize,
        continued: bool,
    ) -> Result<(), Refusal> {
        let refuse = |code| Refusal::from(Fault::protocol(code, Some((header, header.len() + length))));
        if untagged.queue != queue {
            return Err(refuse(term::DDP_INVALID_QUEUE));
        }
        let begun = self.rx.msn.get(queue as usize).copied().unwrap_or(0);
        let expected = if continued { begun } else { begun.wrapping_add(1) };
        if untagged.msn != expected {
            return Err(refuse(term::DDP_MSN_RANGE));
        }
        Ok(())
    }
}

/// Octets of pad and CRC behind a ULPDU.
pub(super) fn trailer(ulpdu: usize) -> usize {
    mpa::fpdu_len(ulpdu) - mpa::LENGTH_FIELD - ulpdu
}
