//! What the tests are made of: registered memory, a queue pair with its wire, a seeded generator.

use std::sync::Arc;

use super::super::{Capabilities, FirstFrame, Parameters, QueuePair, Sent, StagePool, Stop};
use crate::error::Result;
use crate::memory::{Access, KeyTable, Region};
use crate::wire::{crc, mpa};
use crate::work::{Completion, Opcode, Payload, RecvWr, SendWr, SgeList, by_value, flags};

/// SplitMix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`; 0 where that is 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next() % bound as u64) as usize }
    }

    pub(super) fn octets(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Registered memory of a test, reached by copies only, as the library does.
pub(super) struct Memory {
    pub(super) region: Arc<Region>,
    base: *mut u8,
    len: usize,
}

impl Memory {
    pub(super) fn new(keys: &Arc<KeyTable>, octets: Vec<u8>, access: u32) -> Self {
        let len = octets.len();
        let base = Box::into_raw(octets.into_boxed_slice()).cast::<u8>();
        // SAFETY: the memory outlives the region, or is never touched.
        let region = unsafe { Region::new(keys, base, len, Access::from_bits(access).unwrap()) }.unwrap();
        Self { region, base, len }
    }

    pub(super) fn filled(keys: &Arc<KeyTable>, len: usize, value: u8, access: u32) -> Self {
        Self::new(keys, vec![value; len], access)
    }

    pub(super) fn address(&self, offset: usize) -> u64 {
        assert!(offset <= self.len);
        self.base as u64 + offset as u64
    }

    pub(super) fn get(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset + len <= self.len);
        let mut octets = vec![0; len];
        // SAFETY: in bounds, and nobody else runs.
        unsafe { std::ptr::copy_nonoverlapping(self.base.add(offset), octets.as_mut_ptr(), len) };
        octets
    }

    pub(super) fn all(&self) -> Vec<u8> {
        self.get(0, self.len)
    }

    pub(super) fn overwrite(&self, value: u8) {
        // SAFETY: in bounds, and nobody else runs.
        unsafe { std::ptr::write_bytes(self.base, value, self.len) };
    }

    pub(super) fn holds(&self, piece: *const u8) -> bool {
        self.region.holds(piece, 0)
    }

    pub(super) fn sges(&self, pieces: &[(usize, usize)]) -> Result<SgeList> {
        pieces.iter().map(|(at, len)| self.region.sge(self.base.wrapping_add(*at), *len)).collect()
    }

    /// Deregisters: fails where a use has been leaked.
    pub(super) fn close(self) {
        self.region.deregister().unwrap();
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.region.deregister().map_or_else(|error| error.errno == libc::EBADF, |()| true) {
            let octets = std::ptr::slice_from_raw_parts_mut(self.base, self.len);
            // SAFETY: from `Box::into_raw` in `new`; deregistered, so that the library does not use it any more.
            drop(unsafe { Box::from_raw(octets) });
        }
    }
}

pub(super) fn caps(depth: usize) -> Capabilities {
    Capabilities { send_depth: depth, recv_depth: depth, recv_size: 0, strict_recv: true }
}

pub(super) fn params(crc: bool) -> Parameters {
    let first_frame = FirstFrame::Await;
    Parameters { crc, max_ulpdu: 1500, own_peer: true, ird: 4, ord: 4, first_frame }
}

pub(super) fn queue_pair(stream: u64, keys: &Arc<KeyTable>, caps: Capabilities) -> QueuePair {
    QueuePair::new(caps, stream, keys, &Arc::new(StagePool::default())).unwrap()
}

/// A ready queue pair that may send at once.
pub(super) fn active(stream: u64, keys: &Arc<KeyTable>, caps: Capabilities, params: Parameters) -> QueuePair {
    let mut qp = queue_pair(stream, keys, caps);
    qp.activate(params);
    qp.release_hold();
    qp
}

/// A work request without remote address.
pub(super) fn wr(opcode: Opcode, payload: Payload) -> SendWr {
    SendWr { flags: flags::SIGNALED, ..SendWr::new(opcode, payload) }
}

pub(super) fn post(qp: &mut QueuePair, request: SendWr) {
    try_post(qp, request).unwrap();
}

pub(super) fn try_post(qp: &mut QueuePair, request: SendWr) -> Result<()> {
    let mut request = Some(request);
    qp.post_send(1, &mut by_value(|_| Ok(request.take().unwrap())))
}

pub(super) fn post_recv(qp: &mut QueuePair, sges: SgeList, user: usize) {
    let mut request = Some(RecvWr { sges, user });
    qp.post_recv(1, &mut by_value(|_| Ok(request.take().unwrap()))).unwrap();
}

/// What the socket would take: up to `limit` octets of the gather.
pub(super) fn take_output(qp: &mut QueuePair, limit: usize) -> Vec<u8> {
    let mut octets = Vec::new();
    let sent = qp.send(|pieces| {
        for piece in pieces {
            let count = piece.len().min(limit - octets.len());
            let at = octets.len();
            octets.resize(at + count, 0);
            // SAFETY: a piece is valid during the call that sends it.
            unsafe { std::ptr::copy_nonoverlapping(piece.ptr(), octets.as_mut_ptr().add(at), count) };
        }
        Ok(octets.len())
    });
    assert!(matches!(sent.unwrap(), Sent::Nothing | Sent::Part(_)) || !qp.has_output());
    octets
}

/// All output there is.
pub(super) fn drain(qp: &mut QueuePair) -> Vec<u8> {
    std::iter::from_fn(|| Some(take_output(qp, usize::MAX)).filter(|octets| !octets.is_empty()))
        .flatten()
        .collect()
}

pub(super) fn completions(qp: &mut QueuePair) -> Vec<Completion> {
    let mut all = Vec::new();
    while qp.has_completion() {
        all.push(qp.poll().expect("has_completion promised one"));
    }
    assert!(qp.poll().is_none());
    all
}

/// Frames a ULPDU.
pub(super) fn fpdu(ulpdu: &[u8], with_crc: bool) -> Vec<u8> {
    let mut octets = (ulpdu.len() as u16).to_be_bytes().to_vec();
    octets.extend(ulpdu);
    octets.resize(octets.len() + mpa::pad(ulpdu.len()), 0);
    let sum = if with_crc { crc::crc32c(&octets) } else { 0 };
    octets.extend(sum.to_le_bytes());
    octets
}

/// A tagged ULPDU from its literal control octets.
pub(super) fn tagged(control: u16, stag: u32, offset: u64, payload: &[u8]) -> Vec<u8> {
    [&control.to_be_bytes()[..], &stag.to_be_bytes(), &offset.to_be_bytes(), payload].concat()
}

/// An untagged ULPDU from its literal control octets.
pub(super) fn untagged(control: u16, stag: u32, numbers: [u32; 3], payload: &[u8]) -> Vec<u8> {
    let numbers = numbers.map(u32::to_be_bytes).concat();
    [&control.to_be_bytes()[..], &stag.to_be_bytes(), &numbers, payload].concat()
}

/// A Read Request.
pub(super) fn read_request(msn: u32, sink: (u32, u64), size: u32, source: (u32, u64)) -> Vec<u8> {
    let payload = [
        &sink.0.to_be_bytes()[..],
        &sink.1.to_be_bytes(),
        &size.to_be_bytes(),
        &source.0.to_be_bytes(),
        &source.1.to_be_bytes(),
    ]
    .concat();
    untagged(0x4141, 0, [1, msn, 0], &payload)
}

/// Gives `qp` octets as a driver does: in chunks, what is not consumed again with more behind it.
pub(super) fn feed(qp: &mut QueuePair, octets: &[u8], chunk: usize) -> Stop {
    let mut inbox = Vec::new();
    let mut stop = Stop::More;
    for part in octets.chunks(chunk.max(1)) {
        inbox.extend_from_slice(part);
        let input = qp.input(&inbox);
        assert!(input.consumed <= inbox.len());
        inbox.drain(..input.consumed);
        stop = input.stop;
    }
    stop
}

/// The ULPDUs of a stream, which must consist of whole FPDUs.
pub(super) fn ulpdus(mut stream: &[u8], with_crc: bool) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while !stream.is_empty() {
        let len = mpa::ulpdu_len(stream).unwrap();
        let (frame, rest) = stream.split_at(mpa::fpdu_len(len));
        assert!(!with_crc || mpa::crc_matches(frame));
        all.push(frame[2..2 + len].to_vec());
        stream = rest;
    }
    all
}
