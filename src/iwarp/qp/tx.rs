//! Sending: from work requests and Read Requests to FPDUs in the gather.

use std::collections::VecDeque;
use std::sync::Arc;

use super::frame::{
    begin_frame, body_header, borrow_payload, end_frame, end_summed_frame, put_payload, tagged, untagged,
};
use super::gather::{BIG_STAGE, Gather, MAX_FRAMES, MAX_PIECES, Piece, SMALL_STAGE, StagePool};
use super::{FirstFrame, OutstandingRead, QueuePair, State, queue};
use crate::memory::Key;
use crate::wire::crc::Crc32c;
use crate::wire::ddp::{self, Header};
use crate::wire::mpa;
use crate::wire::rdmap::{Opcode as Rdmap, ReadRequest, Terminate};
use crate::work::{Opcode, flags};

/// Payloads up to this length are copied behind their header: cheaper than one more iovec.
const COPY_LIMIT: usize = 256;
/// With CRC, Read Responses up to this length are copied: what is read while its owner changes it, such as a counter, is
/// short, and a sum that is not that of the octets sent would end the stream.
const SUMMED_COPY_LIMIT: usize = if cfg!(test) { COPY_LIMIT } else { 4096 };
/// STag and offset of the zero-length first frame; not STag 0, which some hardware refuses.
const FIRST_FRAME_STAG: u32 = 1;
/// Sink STag of our Reads. A response is matched with the request it answers and never looked up, so this is no key:
/// an RDMA Write to it is refused like any other unknown STag.
const SINK_STAG: u32 = 0x5243_4702;

/// Octets of the longest Terminate, framed.
const MAX_TERMINATE: usize = mpa::fpdu_len(ddp::UNTAGGED_LEN + Terminate::MAX_LEN);

/// A peer's Read Request that is to be answered.
pub(super) struct ReadJob {
    /// The zero-length one of the handshake, which the IRD does not count.
    pub(super) handshake: bool,
    /// `None` for a Read of no octets, whose key is not checked.
    pub(super) key: Option<Arc<Key>>,
    pub(super) source: u64,
    pub(super) sink_stag: u32,
    pub(super) sink_offset: u64,
    pub(super) remaining: u32,
}

/// The message whose frames are being built.
enum Message {
    /// Payload of a work request.
    Body { seq: u64, offset: u64, sge: usize, within: usize, msn: u32 },
    /// RFC 7306 immediate data of a work request.
    Immediate { seq: u64, msn: u32 },
    /// A Read Request.
    ReadRequest { seq: Option<u64>, msn: u32 },
    /// A Read Response.
    Response(ReadJob),
    /// The zero-length RDMA Write of the handshake.
    FirstWrite,
}

/// State of the sending half.
pub(super) struct Tx {
    pub(super) gather: Gather,
    /// Stream position behind the last octet sent.
    pub(super) sent: u64,
    /// Nothing may be sent yet.
    pub(super) hold: bool,
    first_frame: Option<FirstFrame>,
    current: Option<Message>,
    pub(super) responses: VecDeque<ReadJob>,
    /// Whose turn it is between Read Responses and work requests.
    response_turn: bool,
    /// Next MSN of the queues 0, 1 and 2.
    msn: [u32; 3],
    sink_offset: u64,
}

impl Tx {
    /// Bytes of memory that can be held while idle, besides the struct itself.
    pub(super) const MEMORY: usize =
        SMALL_STAGE + MAX_PIECES * size_of::<Piece>() + MAX_FRAMES.next_power_of_two() * size_of::<u32>();

    pub(super) fn new(stages: &Arc<StagePool>) -> Self {
        Self {
            gather: Gather::new(stages),
            sent: 0,
            hold: true,
            first_frame: None,
            current: None,
            responses: VecDeque::new(),
            response_turn: false,
            msn: [1; 3],
            sink_offset: 0,
        }
    }

    pub(super) fn activate(&mut self, first: FirstFrame) {
        self.hold = first == FirstFrame::Await;
        self.first_frame = (first != FirstFrame::Await).then_some(first);
    }

    pub(super) fn nudge(&mut self) {
        self.first_frame.get_or_insert(FirstFrame::SendWrite);
    }

    /// Read Requests the peer may really have outstanding: kernel siw rounds what was agreed up to a power of two.
    pub(super) fn read_limit(ird: usize) -> usize {
        if ird == 0 { 0 } else { ird.checked_next_power_of_two().unwrap_or(ird) }
    }

    /// Read Requests that can wait for an answer, with the handshake's.
    pub(super) fn responses(ird: usize) -> usize {
        Self::read_limit(ird).saturating_add(1)
    }

    /// Read Requests of the peer that have not been answered in full, without the handshake's.
    pub(super) fn unanswered(&self) -> usize {
        let current = matches!(&self.current, Some(Message::Response(job)) if !job.handshake);
        // Nothing comes before the handshake's, so that it can only be the first.
        let handshake = self.responses.front().is_some_and(|job| job.handshake);
        self.responses.len() + usize::from(current) - usize::from(handshake)
    }

    /// Whether nothing is left to build or send, work requests apart.
    pub(super) fn is_idle(&self) -> bool {
        self.gather.is_empty() && self.current.is_none() && self.first_frame.is_none()
    }

    /// The sink STag that a Read Response has to carry.
    pub(super) fn sink_stag(of_work_request: bool) -> u32 {
        if of_work_request { SINK_STAG } else { FIRST_FRAME_STAG }
    }

    fn take_msn(&mut self, queue: u32) -> u32 {
        let Some(msn) = self.msn.get_mut(queue as usize) else { return 0 };
        let taken = *msn;
        *msn = msn.wrapping_add(1);
        taken
    }

    /// Builds nothing any more: what is left of the frame on its way is all there is, with room for a Terminate.
    pub(super) fn stop(&mut self) {
        self.first_frame = None;
        self.current = None;
        self.responses.clear();
        self.gather.seal(MAX_TERMINATE);
    }

    /// Puts a Terminate behind the frame that is on its way.
    pub(super) fn stage_terminate(&mut self, terminate: &Terminate, with_crc: bool) {
        let mut body = [0; Terminate::MAX_LEN];
        let length = terminate.emit(&mut body);
        let header = untagged(Rdmap::Terminate, 0, ddp::QN_TERMINATE, self.msn[2], 0, true);
        if self.gather.is_empty() {
            self.gather.reset();
        }
        if self.gather.reserve(mpa::fpdu_len(ddp::UNTAGGED_LEN + length), 0) {
            begin_frame(&mut self.gather, &header, length);
            self.gather.stage(length).copy_from_slice(body.get(..length).unwrap_or_default());
            end_frame(&mut self.gather, header.len() + length, with_crc);
        }
    }
}

impl QueuePair {
    /// Builds frames into the gather once it is empty. Returns whether there is something to send.
    pub(super) fn fill(&mut self) -> bool {
        if !self.tx.gather.is_empty() {
            return true;
        }
        if self.state != State::Active {
            return false;
        }
        self.tx.gather.reset();
        while let Some(message) = self.tx.current.take().or_else(|| self.next_message()) {
            let (sent, rest) = self.build_frame(message);
            self.tx.current = rest;
            if !sent {
                break;
            }
        }
        !self.tx.gather.is_empty()
    }

    /// Chooses what to send next: the first frame, then Read Responses and work requests in turn.
    fn next_message(&mut self) -> Option<Message> {
        match self.tx.first_frame.take() {
            Some(FirstFrame::SendWrite) => return Some(Message::FirstWrite),
            Some(_) => {
                let msn = self.tx.take_msn(ddp::QN_READ_REQUEST);
                return Some(Message::ReadRequest { seq: None, msn });
            }
            None if self.tx.hold => return None,
            None => {}
        }
        let ready = self.may_begin();
        let response = if self.tx.response_turn || !ready { self.tx.responses.pop_front() } else { None };
        if let Some(job) = response {
            self.tx.response_turn = false;
            return Some(Message::Response(job));
        }
        if !ready {
            return None;
        }
        self.tx.response_turn = true;
        let seq = self.sq.begin();
        self.first_message(seq)
    }

    fn first_message(&mut self, seq: u64) -> Option<Message> {
        let opcode = self.sq.get(seq)?.wr.opcode;
        Some(match opcode {
            Opcode::SendImm => Message::Immediate { seq, msn: self.tx.take_msn(ddp::QN_SEND) },
            Opcode::Read => {
                Message::ReadRequest { seq: Some(seq), msn: self.tx.take_msn(ddp::QN_READ_REQUEST) }
            }
            Opcode::Write | Opcode::WriteImm => Message::Body { seq, offset: 0, sge: 0, within: 0, msn: 0 },
            _ => Message::Body { seq, offset: 0, sge: 0, within: 0, msn: self.tx.take_msn(ddp::QN_SEND) },
        })
    }

    /// Builds the next frame of a message: whether it fitted, and what is left of the message.
    fn build_frame(&mut self, message: Message) -> (bool, Option<Message>) {
        match message {
            Message::Body { seq, offset, sge, within, msn } => {
                self.build_body(seq, offset, (sge, within), msn)
            }
            Message::Immediate { seq, msn } => self.build_immediate(seq, msn),
            Message::ReadRequest { seq, msn } => self.build_read_request(seq, msn),
            Message::Response(job) => self.build_response(job),
            Message::FirstWrite => {
                let header = tagged(Rdmap::Write, FIRST_FRAME_STAG, 0, true);
                if !self.build_staged(&header, &[]) {
                    return (false, Some(Message::FirstWrite));
                }
                (true, None)
            }
        }
    }

    /// Builds a frame whose payload is copied.
    fn build_staged(&mut self, header: &Header, payload: &[u8]) -> bool {
        let ulpdu = header.len() + payload.len();
        if !self.tx.gather.reserve(mpa::fpdu_len(ulpdu), 0) {
            return false;
        }
        begin_frame(&mut self.tx.gather, header, payload.len());
        self.tx.gather.stage(payload.len()).copy_from_slice(payload);
        end_frame(&mut self.tx.gather, ulpdu, self.params.crc);
        true
    }

    fn build_immediate(&mut self, seq: u64, msn: u32) -> (bool, Option<Message>) {
        let Some(entry) = self.sq.get(seq) else { return (true, None) };
        let with_send = entry.wr.opcode == Opcode::SendImm;
        let solicited = !with_send && entry.wr.flags & flags::SOLICITED != 0;
        let opcode = if solicited { Rdmap::ImmediateSolicited } else { Rdmap::Immediate };
        let mut octets = [0; 8];
        let (value, kind) = octets.split_at_mut(4);
        value.copy_from_slice(&entry.wr.imm.to_be_bytes());
        kind.copy_from_slice(&u32::from(with_send).to_be_bytes());
        let header = untagged(opcode, 0, ddp::QN_SEND, msn, 0, true);
        if !self.build_staged(&header, &octets) {
            return (false, Some(Message::Immediate { seq, msn }));
        }
        if with_send {
            let msn = self.tx.take_msn(ddp::QN_SEND);
            return (true, Some(Message::Body { seq, offset: 0, sge: 0, within: 0, msn }));
        }
        self.mark_built(seq);
        (true, None)
    }

    fn build_read_request(&mut self, seq: Option<u64>, msn: u32) -> (bool, Option<Message>) {
        let wr = seq.and_then(|seq| self.sq.get(seq)).map(|entry| &entry.wr);
        let size = wr.map_or(0, |wr| wr.payload.len() as u32);
        let request = ReadRequest {
            sink_stag: Tx::sink_stag(wr.is_some()),
            sink_offset: self.tx.sink_offset,
            size,
            source_stag: wr.map_or(FIRST_FRAME_STAG, |wr| wr.remote_key),
            source_offset: wr.map_or(0, |wr| wr.remote_addr),
        };
        let mut octets = [0; ReadRequest::LEN];
        request.emit(&mut octets);
        let header = untagged(Rdmap::ReadRequest, 0, ddp::QN_READ_REQUEST, msn, 0, true);
        if !self.build_staged(&header, &octets) {
            return (false, Some(Message::ReadRequest { seq, msn }));
        }
        queue::make_room(&mut self.reads, 1, self.params.ord.saturating_add(1));
        self.reads.push_back(OutstandingRead { seq, sink_offset: self.tx.sink_offset, size, placed: 0 });
        self.tx.sink_offset += u64::from(size);
        if let Some(seq) = seq {
            self.mark_built(seq);
        }
        (true, None)
    }

    fn build_response(&mut self, mut job: ReadJob) -> (bool, Option<Message>) {
        let chunk = (job.remaining as usize).min(self.params.max_ulpdu - ddp::UNTAGGED_LEN);
        let last = chunk == job.remaining as usize;
        let ulpdu = ddp::TAGGED_LEN + chunk;
        let crc = self.params.crc;
        let limit = if crc { SUMMED_COPY_LIMIT } else { COPY_LIMIT };
        let borrowed = job.key.clone().filter(|key| chunk > limit && !(crc && key.is_writable_by_peers()));
        let gather = &mut self.tx.gather;
        let fits = match &borrowed {
            Some(key) => gather.can_borrow(key) && gather.reserve(mpa::fpdu_len(ulpdu) - chunk, 1),
            None => gather.reserve(mpa::fpdu_len(ulpdu), 0),
        };
        if !fits {
            // A small stage that is already in use: send it, then lease a large one.
            return (false, Some(Message::Response(job)));
        }
        begin_frame(gather, &tagged(Rdmap::ReadResponse, job.sink_stag, job.sink_offset, last), chunk);
        let put = if let Some(key) = &borrowed {
            borrow_payload(gather, key, job.source, chunk, crc)
        } else {
            let copied = job.key.as_ref().map_or(Ok(()), |key| key.fetch(job.source, gather.stage(chunk)));
            copied.map(|()| end_frame(gather, ulpdu, crc))
        };
        if let Err(fault) = put {
            // Revoked while the response was on its way: the stream can't go on. What has been built of this gather
            // is not sent, the unfinished frame included.
            self.revoked_under_read(fault);
            return (false, None);
        }
        if last {
            return (true, None);
        }
        job.source += chunk as u64;
        // Can't wrap: checked when the request came.
        job.sink_offset = job.sink_offset.wrapping_add(chunk as u64);
        job.remaining -= chunk as u32;
        (true, Some(Message::Response(job)))
    }

    fn build_body(
        &mut self,
        seq: u64,
        offset: u64,
        (mut sge, mut within): (usize, usize),
        msn: u32,
    ) -> (bool, Option<Message>) {
        let Some(entry) = self.sq.get(seq) else { return (true, None) };
        let wr = &entry.wr;
        let total = wr.payload.len();
        let longest = (self.params.max_ulpdu - ddp::UNTAGGED_LEN) as u64;
        let chunk = (total - offset).min(longest) as usize;
        let last = offset + chunk as u64 == total;
        let header = body_header(wr, offset, msn, last);
        let ulpdu = header.len() + chunk;
        let shifts = self.params.crc && !wr.payload.stays();
        let copied = shifts || chunk <= COPY_LIMIT || wr.payload.is_inline();
        let (stage, references) = if copied {
            (mpa::fpdu_len(ulpdu), 0)
        } else {
            (mpa::fpdu_len(ulpdu) - chunk, crate::work::MAX_SGE)
        };
        debug_assert!(stage <= BIG_STAGE);
        if !self.tx.gather.reserve(stage, references) {
            return (false, Some(Message::Body { seq, offset, sge, within, msn }));
        }
        begin_frame(&mut self.tx.gather, &header, chunk);
        let cursor = (&mut sge, &mut within);
        if self.params.crc && !copied {
            let mut sum = Crc32c::new();
            sum.update(self.tx.gather.staged_tail(mpa::LENGTH_FIELD + header.len()));
            put_payload(&mut self.tx.gather, &wr.payload, cursor, chunk, (copied, Some(&mut sum)));
            end_summed_frame(&mut self.tx.gather, ulpdu, sum);
        } else {
            put_payload(&mut self.tx.gather, &wr.payload, cursor, chunk, (copied, None));
            end_frame(&mut self.tx.gather, ulpdu, self.params.crc);
        }
        if !last {
            return (true, Some(Message::Body { seq, offset: offset + chunk as u64, sge, within, msn }));
        }
        if wr.opcode == Opcode::WriteImm {
            let msn = self.tx.take_msn(ddp::QN_SEND);
            return (true, Some(Message::Immediate { seq, msn }));
        }
        self.mark_built(seq);
        (true, None)
    }

    /// All of a work request is in the gather: it is finished when the gather's present end has been sent.
    fn mark_built(&mut self, seq: u64) {
        let end = self.tx.sent + self.tx.gather.remaining() as u64;
        if let Some(entry) = self.sq.get_mut(seq) {
            entry.end = end;
        }
    }
}
