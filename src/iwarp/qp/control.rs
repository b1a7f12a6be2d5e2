//! Messages that place nothing: Read Requests, Immediate Data, Terminate.

use super::QueuePair;
use super::fault::{Fault, rdmap_code};
use super::queue;
use super::recv_queue::Arrival;
use super::rx::Refusal;
use super::tx::{ReadJob, Tx};
use crate::memory::{Access, KeyFault};
use crate::wire::ddp::{self, Header};
use crate::wire::rdmap::{ImmediateData, Opcode, ReadRequest, Terminate, term};

impl QueuePair {
    /// Takes a message that has arrived whole; its length has been checked.
    pub(super) fn control_message(
        &mut self,
        opcode: Opcode,
        header: &Header,
        payload: &[u8],
    ) -> Result<(), Refusal> {
        let refuse =
            |code| Refusal::from(Fault::protocol(code, Some((header, header.len() + payload.len()))));
        if opcode == Opcode::Terminate {
            return Err(Fault::terminated(Terminate::parse(payload).as_ref()).into());
        }
        let Header::Untagged(untagged) = header else { return Err(refuse(term::RDMAP_OPCODE)) };
        let queue = opcode.queue().unwrap_or_default();
        let within_send = queue == ddp::QN_SEND && self.rx.message.is_some();
        self.check_untagged(untagged, queue, header, payload.len(), within_send)?;
        if untagged.offset != 0 {
            return Err(refuse(term::DDP_INVALID_OFFSET));
        }
        if !untagged.control.last {
            return Err(refuse(term::DDP_MESSAGE_TOO_LONG));
        }
        if let Some(octets) = payload.first_chunk().filter(|_| opcode == Opcode::ReadRequest) {
            self.read_request(&ReadRequest::parse(octets), header)?;
        } else if let Some(octets) = payload.first_chunk() {
            // Only one message of a queue can be open, and only one immediate value can wait for its Send.
            if self.rx.message.is_some() || self.rx.imm.is_some() {
                return Err(refuse(term::RDMAP_OPCODE));
            }
            self.immediate(octets, header, opcode.is_solicited())?;
        }
        self.begin_message(queue);
        Ok(())
    }

    fn read_request(&mut self, request: &ReadRequest, header: &Header) -> Result<(), Refusal> {
        let fault = |code| Refusal::from(Fault::read_request(code, header, request));
        let handshake = request.size == 0 && !self.rx.heard;
        if !handshake && self.tx.unanswered() >= Tx::read_limit(self.params.ird) {
            return Err(fault(term::DDP_NO_BUFFER));
        }
        if request.sink_offset.checked_add(u64::from(request.size)).is_none() {
            return Err(fault(term::RDMAP_OFFSET_WRAP));
        }
        let key = if request.size == 0 {
            None
        } else {
            let checked = self.keys.check(
                request.source_stag,
                request.source_offset,
                u64::from(request.size),
                Access::REMOTE_READ,
                self.stream,
            );
            Some(checked.map_err(|kind| fault(rdmap_code(kind)))?)
        };
        let job = ReadJob {
            handshake,
            key,
            source: request.source_offset,
            sink_stag: request.sink_stag,
            sink_offset: request.sink_offset,
            remaining: request.size,
        };
        queue::make_room(&mut self.tx.responses, 1, Tx::responses(self.params.ird));
        self.tx.responses.push_back(job);
        Ok(())
    }

    /// RFC 7306 section 6: eight octets on queue 0. The first four are the value; the others tell whether it belongs
    /// to the Send behind it (1) or stands for itself, behind an RDMA Write (0).
    fn immediate(
        &mut self,
        octets: &[u8; ImmediateData::LEN],
        header: &Header,
        solicited: bool,
    ) -> Result<(), Refusal> {
        let imm = Some(ImmediateData(*octets).to_u32());
        if octets.ends_with(&[0, 0, 0, 1]) {
            self.rx.imm = imm;
        } else if self.rq.ready() {
            self.rq.finish(Arrival { imm, invalidated: None, solicited });
        } else if self.caps.strict_recv {
            let length = header.len() + ImmediateData::LEN;
            return Err(Fault::protocol(term::DDP_NO_BUFFER, Some((header, length))).into());
        } else {
            return Err(Refusal::Wait);
        }
        Ok(())
    }

    /// The source of a Read Response has been revoked under it.
    pub(super) fn revoked_under_read(&mut self, fault: KeyFault) {
        let code = rdmap_code(fault);
        self.fail(Fault::protocol(code, None));
    }
}
