//! Read Responses that are sent from the memory the peer reads: keys that are revoked at any point, and what has been sent
//! by then.

use std::io;
use std::sync::Arc;

use super::super::gather::MAX_KEYS;
use super::super::{Parameters, Piece, QueuePair, Sent};
use super::support::*;
use crate::error::Error;
use crate::memory::{Access, KeyTable, Owner};
use crate::wire::mpa::{crc_matches, fpdu_len};
use crate::work::{Opcode, Payload};

const MAX_ULPDU: usize = 600;
/// Octets of the Reads. The second is sent in two frames, the third is short enough to be copied.
const LENGTHS: [usize; 4] = [1500, 1000, 100, 700];
const REVOKED: usize = 1;

struct Responder {
    qp: QueuePair,
    exposed: Vec<(Memory, u32)>,
    own: Memory,
}

impl Responder {
    /// Reads under a key each, and a Send of its own memory between them.
    fn new(crc: bool, lengths: &[usize]) -> Self {
        let keys = KeyTable::new();
        let own = Memory::filled(&keys, 900, 0xee, 1);
        let params = Parameters { max_ulpdu: MAX_ULPDU, ird: lengths.len(), ..params(crc) };
        let mut qp = active(1, &keys, caps(4), params);
        let exposed: Vec<_> = lengths.iter().enumerate().map(|(at, len)| expose(&keys, at, *len)).collect();
        for (at, (memory, key)) in exposed.iter().enumerate() {
            let source = (*key, memory.address(0));
            let ulpdu = read_request(at as u32 + 1, (9, at as u64), lengths[at] as u32, source);
            feed(&mut qp, &fpdu(&ulpdu, crc), 4096);
        }
        post(&mut qp, wr(Opcode::Send, Payload::Sges(own.sges(&[(0, 900)]).unwrap())));
        assert_eq!(qp.tx.responses.len(), lengths.len());
        Self { qp, exposed, own }
    }

    fn send(&mut self, count: usize, random: &mut Random) -> Vec<u8> {
        let mut octets = Vec::new();
        while octets.len() < count {
            let portion = (random.below(900) + 1).min(count - octets.len());
            octets.extend(take_output(&mut self.qp, portion));
        }
        octets
    }

    fn revoke(&self, which: usize) {
        let (memory, key) = &self.exposed[which];
        memory.region.revoke_key(*key).unwrap();
        memory.overwrite(0);
    }

    fn refers_to(&mut self, which: usize) -> bool {
        let memory = &self.exposed[which].0;
        self.qp.tx.gather.pieces().iter().any(|piece| memory.holds(piece.ptr()))
    }
}

fn expose(keys: &Arc<KeyTable>, at: usize, len: usize) -> (Memory, u32) {
    let memory = Memory::filled(keys, len, at as u8 + 1, 6);
    let key = memory.region.key(Owner::Domain, 0, len, Access::REMOTE_READ).unwrap();
    (memory, key)
}

fn first_response(stream: &[u8], crc: bool) -> Vec<u8> {
    ulpdus(stream, crc).into_iter().find(|frame| frame[1] == 0x42).unwrap()
}

/// Octets of the stream without a revocation, and where the last frame begins that carries the Read to be revoked.
fn undisturbed(crc: bool) -> (Vec<u8>, usize) {
    let stream = drain(&mut Responder::new(crc, &LENGTHS).qp);
    let mut at = 0;
    let mut last = 0;
    for ulpdu in ulpdus(&stream, crc) {
        let of_the_read = ulpdu[1] == 0x42 && ulpdu.last() == Some(&(REVOKED as u8 + 1));
        last = if of_the_read { at } else { last };
        at += fpdu_len(ulpdu.len());
    }
    (stream, last)
}

/// What was sent is whole frames of the undisturbed stream, and a Terminate where the stream had to end.
fn check(sent: &[u8], whole: &[u8], cut: usize, crc: bool, failed: bool) {
    let (mut frames, whole) = (ulpdus(sent, crc), ulpdus(whole, crc));
    if failed {
        let terminate = frames.pop().unwrap();
        assert_eq!((&terminate[..2], &terminate[18..]), (&[0x41, 0x47][..], &[0x01, 0x00, 0, 0][..]));
        let octets: usize = frames.iter().map(|frame| fpdu_len(frame.len())).sum();
        assert!(
            (cut..cut + fpdu_len(MAX_ULPDU)).contains(&octets),
            "{octets} at {cut}: no frame but the one begun"
        );
    } else {
        assert_eq!(frames.len(), whole.len());
    }
    assert!(frames[..] == whole[..frames.len()], "what was begun is sent as it was");
}

#[test]
fn a_key_revoked_at_every_octet() {
    for crc in [false, true] {
        let (stream, last) = undisturbed(crc);
        for cut in 0..=stream.len() {
            let mut random = Random(cut as u64);
            let mut responder = Responder::new(crc, &LENGTHS);
            let mut sent = responder.send(cut, &mut random);
            responder.revoke(REVOKED);
            sent.extend(take_output(&mut responder.qp, 7));
            sent.extend(drain(&mut responder.qp));
            let failed = responder.qp.fault().is_some();
            assert_eq!(failed, cut <= last, "{cut} of {last}");
            check(&sent, &stream, cut, crc, failed);
            let memories = responder.exposed.into_iter().map(|(memory, _)| memory);
            drop(responder.qp);
            memories.chain([responder.own]).for_each(Memory::close);
        }
    }
}

/// Whatever ends the stream from outside: a close, or a socket that has been reset.
#[test]
fn a_stream_that_ends_at_every_octet() {
    let (stream, _) = undisturbed(false);
    for cut in 0..=stream.len() {
        let mut responder = Responder::new(false, &LENGTHS);
        let mut sent = responder.send(cut, &mut Random(cut as u64));
        let reset = |_: &[Piece]| Err(io::Error::from_raw_os_error(libc::ECONNRESET));
        assert!(responder.qp.send(reset).is_err() || cut == stream.len());
        responder.qp.abort(Error::invalid("closed"));
        for which in 0..LENGTHS.len() {
            assert!(!responder.refers_to(which));
            responder.revoke(which);
        }
        sent.extend(drain(&mut responder.qp));
        let frames = ulpdus(&sent, false);
        assert!(frames[..] == ulpdus(&stream, false)[..frames.len()]);
    }
}

#[test]
fn memory_is_read_by_the_call_that_sends_it() {
    let mut responder = Responder::new(false, &[1500]);
    let key = responder.exposed[0].1;
    assert!(responder.qp.fill() && responder.refers_to(0));
    responder.exposed[0].0.overwrite(0x77);
    assert_eq!(first_response(&drain(&mut responder.qp), false)[14..], [0x77; MAX_ULPDU - 18]);
    assert!(responder.exposed[0].0.region.revoke_key(key).is_ok() && responder.qp.fault().is_none());
}

#[test]
fn what_a_peer_may_write_to_is_copied_for_its_sum() {
    let mut responder = Responder::new(true, &[1500]);
    assert!(responder.qp.fill() && responder.refers_to(0));
    // It is not to be written to while it is read: the sum tells.
    responder.exposed[0].0.overwrite(0x77);
    let bad = drain(&mut responder.qp);
    assert!(!crc_matches(&bad[..fpdu_len(MAX_ULPDU - 4)]));
    let mut responder = Responder::new(true, &[1500]);
    let region = &responder.exposed[0].0.region;
    region.key(Owner::Stream(7), 0, 8, Access::REMOTE_WRITE).unwrap();
    // What fits the first stage, before that grows.
    take_output(&mut responder.qp, usize::MAX);
    assert!(responder.qp.fill() && !responder.refers_to(0));
    responder.exposed[0].0.overwrite(0x77);
    assert_eq!(first_response(&drain(&mut responder.qp), true)[14..], [1; MAX_ULPDU - 18]);
}

#[test]
fn no_key_can_be_revoked_while_its_memory_is_sent() {
    let mut responder = Responder::new(false, &[300]);
    let (region, key) = (Arc::clone(&responder.exposed[0].0.region), responder.exposed[0].1);
    let held = region.domain().check(key, region.base() as u64, 1, Access::REMOTE_READ, 1).unwrap();
    std::thread::scope(|scope| {
        let mut revoker = None;
        let sent = responder.qp.send(|pieces| {
            let thread = scope.spawn(|| region.revoke_key(key).unwrap());
            while held.enter().is_some() {
                std::thread::yield_now();
            }
            assert!(!thread.is_finished());
            revoker = Some(thread);
            Ok(pieces.iter().map(Piece::len).sum())
        });
        assert!(matches!(sent.unwrap(), Sent::All));
        revoker.unwrap().join().unwrap();
    });
    // All of it had been sent: nothing ends by it.
    drain(&mut responder.qp);
    assert!(responder.qp.fault().is_none() && responder.qp.sends_drained());
}

#[test]
fn more_keys_than_one_gather_can_have() {
    let mut responder = Responder::new(false, &[300; MAX_KEYS + 3]);
    let mut stream = Vec::new();
    let mut calls = 0;
    while responder.qp.fill() {
        stream.extend(take_output(&mut responder.qp, usize::MAX));
        calls += 1;
    }
    assert_eq!(calls, 2);
    let frames = ulpdus(&stream, false);
    let responses: Vec<_> = frames.iter().filter(|frame| frame[1] == 0x42).collect();
    assert_eq!(responses.len(), MAX_KEYS + 3);
    assert!(responses.iter().zip(1..).all(|(frame, value)| frame[14..] == [value; 300]));
}
