//! FPDUs in the gather: header, payload, pad and CRC.

use std::sync::Arc;

use super::gather::Gather;
use crate::memory::{Key, KeyFault};
use crate::wire::crc::{self, Crc32c};
use crate::wire::ddp::{self, Header, Tagged, Untagged};
use crate::wire::mpa;
use crate::wire::rdmap::Opcode as Rdmap;
use crate::work::{Opcode, Payload, SendWr, flags};

/// The header of a tagged segment.
pub(super) fn tagged(opcode: Rdmap, stag: u32, offset: u64, last: bool) -> Header {
    Header::Tagged(Tagged { control: opcode.control(last), stag, offset })
}

/// The header of an untagged segment.
pub(super) fn untagged(
    opcode: Rdmap,
    invalidate_stag: u32,
    queue: u32,
    msn: u32,
    offset: u32,
    last: bool,
) -> Header {
    Header::Untagged(Untagged { control: opcode.control(last), invalidate_stag, queue, msn, offset })
}

/// Stages the length field and the header.
pub(super) fn begin_frame(gather: &mut Gather, header: &Header, payload: usize) {
    let ulpdu = (header.len() + payload) as u16;
    let octets = gather.stage(mpa::LENGTH_FIELD + header.len());
    if let Some((length, rest)) = octets.split_first_chunk_mut::<2>() {
        *length = ulpdu.to_be_bytes();
        header.emit(rest);
    }
}

/// Stages pad and CRC of a frame that is staged as a whole.
pub(super) fn end_frame(gather: &mut Gather, ulpdu: usize, with_crc: bool) {
    let pad = put_pad(gather, ulpdu);
    let sum = if with_crc { crc::crc32c(gather.staged_tail(mpa::LENGTH_FIELD + ulpdu + pad)) } else { 0 };
    put_sum(gather, sum);
}

/// The same of a frame whose payload stays where it is; `sum` has seen all that comes before the pad.
pub(super) fn end_summed_frame(gather: &mut Gather, ulpdu: usize, mut sum: Crc32c) {
    let pad = put_pad(gather, ulpdu);
    sum.update(gather.staged_tail(pad));
    put_sum(gather, sum.finish());
}

/// Stages the pad; returns its length.
fn put_pad(gather: &mut Gather, ulpdu: usize) -> usize {
    let pad = mpa::pad(ulpdu);
    gather.stage(pad).fill(0);
    pad
}

fn put_sum(gather: &mut Gather, sum: u32) {
    gather.stage(mpa::CRC_FIELD).copy_from_slice(&sum.to_le_bytes());
    gather.end_frame();
}

/// The header of a segment of a work request's payload, `offset` octets into it.
pub(super) fn body_header(wr: &SendWr, offset: u64, msn: u32, last: bool) -> Header {
    let solicited = wr.flags & flags::SOLICITED != 0;
    let opcode = match (wr.opcode, solicited) {
        (Opcode::Write | Opcode::WriteImm, _) => {
            return tagged(Rdmap::Write, wr.remote_key, wr.remote_addr.wrapping_add(offset), last);
        }
        (Opcode::SendInvalidate, false) => Rdmap::SendInvalidate,
        (Opcode::SendInvalidate, true) => Rdmap::SendSolicitedInvalidate,
        (_, false) => Rdmap::Send,
        (_, true) => Rdmap::SendSolicited,
    };
    let invalidate = if wr.opcode == Opcode::SendInvalidate { wr.invalidate_key } else { 0 };
    untagged(opcode, invalidate, ddp::QN_SEND, msn, offset as u32, last)
}

/// Ends a frame of a Read Response with a reference to exposed memory, summed if asked to. A part at a time is copied for the
/// sum, as its owner may write there.
pub(super) fn borrow_payload(
    gather: &mut Gather,
    key: &Arc<Key>,
    source: u64,
    chunk: usize,
    with_crc: bool,
) -> Result<(), KeyFault> {
    let mut sum = Crc32c::new();
    sum.update(gather.staged_tail(mpa::LENGTH_FIELD + ddp::TAGGED_LEN));
    let mut part = [0; 4096];
    for offset in (0..chunk).step_by(part.len()).filter(|_| with_crc) {
        let count = part.len().min(chunk - offset);
        let octets = part.get_mut(..count).unwrap_or_default();
        key.fetch(source + offset as u64, octets)?;
        sum.update(octets);
    }
    gather.borrow(key, source as usize as *const u8, chunk);
    if with_crc {
        end_summed_frame(gather, ddp::TAGGED_LEN + chunk, sum);
    } else {
        end_frame(gather, ddp::TAGGED_LEN + chunk, false);
    }
    Ok(())
}

/// Copies, or refers to and sums if asked to, the next `chunk` octets of a payload and moves the cursor behind them.
pub(super) fn put_payload(
    gather: &mut Gather,
    payload: &Payload,
    (sge, within): (&mut usize, &mut usize),
    chunk: usize,
    (copied, mut sum): (bool, Option<&mut Crc32c>),
) {
    let sges = match payload {
        Payload::Inline(octets) => {
            let rest = octets.get(*within..*within + chunk).unwrap_or_default();
            gather.stage(rest.len()).copy_from_slice(rest);
            *within += chunk;
            return;
        }
        Payload::Sges(sges) => sges,
    };
    let mut left = chunk;
    while let Some(element) = sges.get(*sge).filter(|_| left > 0) {
        let count = left.min(element.len() - *within);
        if copied {
            element.read(*within, gather.stage(count));
        } else {
            gather.refer(element.ptr().wrapping_add(*within).cast_const(), count);
            if let Some(sum) = &mut sum {
                // SAFETY: posted, and no peer has a key to write there: `build_body` has asked.
                unsafe { element.look(*within, count, |octets| sum.update(octets)) };
            }
        }
        left -= count;
        *within += count;
        if *within == element.len() {
            (*sge, *within) = (*sge + 1, 0);
        }
    }
}
