//! A stream that fails at any point of what is being sent: it stays well formed, lets go of the caller's memory and
//! completes everything exactly once.

use super::super::{Parameters, QueuePair, Stop};
use super::support::*;
use crate::error::Error;
use crate::memory::{Access, KeyTable, Owner};
use crate::work::{Completion, Opcode, Payload, by_value, flags};

struct Sender {
    qp: QueuePair,
    source: Memory,
    sink: Memory,
}

const OPERATIONS: usize = 8;

impl Sender {
    /// Everything that can be in a gather: inline, copied and referred-to payloads, a Read, a Response.
    fn new(crc: bool, max_ulpdu: usize, long: usize) -> Self {
        let keys = KeyTable::new();
        let octets: Vec<u8> = (0..40_000).map(|at| (at % 251) as u8 | 1).collect();
        let source = Memory::new(&keys, octets, 7);
        let sink = Memory::filled(&keys, 200, 0, 1);
        let params = Parameters { max_ulpdu, ..params(crc) };
        let mut qp = active(1, &keys, caps(OPERATIONS), params);
        let sges = sink.sges(&[(100, 100)]).unwrap();
        post_recv(&mut qp, sges, 100);
        let key = source.region.key(Owner::Domain, 0, 40_000, Access::REMOTE_READ).unwrap();
        let request = read_request(1, (9, 9), 300, (key, source.address(5000)));
        assert_eq!(feed(&mut qp, &fpdu(&request, crc), 64), Stop::More);
        let inline = Payload::Inline((0..50).collect());
        let pieces: [&[(usize, usize)]; 5] =
            [&[(0, 10)], &[(100, long), (1, 0), (7, long)], &[(30_000, long)], &[], &[(9, 300)]];
        let opcodes = [Opcode::Send, Opcode::Write, Opcode::WriteImm, Opcode::SendImm, Opcode::Send];
        let mut requests = vec![wr(Opcode::Send, inline)];
        for (opcode, pieces) in opcodes.into_iter().zip(pieces) {
            requests.push(wr(opcode, Payload::Sges(source.sges(pieces).unwrap())));
        }
        requests.push(wr(Opcode::Read, Payload::Sges(sink.sges(&[(0, 100)]).unwrap())));
        requests.push(wr(Opcode::Send, Payload::Sges(source.sges(&[(0, 1)]).unwrap())));
        for (user, mut request) in requests.into_iter().enumerate() {
            request.user = user;
            if user == 4 {
                request.flags &= !flags::SIGNALED;
            }
            post(&mut qp, request);
        }
        Self { qp, source, sink }
    }

    /// Sends so many octets, in portions.
    fn send(&mut self, mut count: usize) -> Vec<u8> {
        let mut octets = Vec::new();
        while count > 0 && self.qp.fill() {
            let portion = take_output(&mut self.qp, count.min(700));
            count -= portion.len();
            octets.extend(portion);
        }
        octets
    }
}

/// The octets of the whole stream, and behind which of them each work request is finished.
fn undisturbed(crc: bool, max_ulpdu: usize, long: usize) -> (Vec<u8>, Vec<usize>) {
    let mut sender = Sender::new(crc, max_ulpdu, long);
    let mut stream = Vec::new();
    while sender.qp.fill() {
        stream.extend(take_output(&mut sender.qp, 1000));
    }
    let ends = (0..OPERATIONS as u64).filter_map(|seq| sender.qp.sq.get(seq).map(|entry| entry.end as usize));
    let mut ends: Vec<usize> = ends.collect();
    // Those that want no completion have gone; the Read keeps all behind it.
    assert_eq!(ends.len(), OPERATIONS);
    ends[6] = usize::MAX;
    (stream, ends)
}

fn check(crc: bool, max_ulpdu: usize, long: usize, cut: usize, terminate: bool) {
    let (stream, ends) = undisturbed(crc, max_ulpdu, long);
    let mut sender = Sender::new(crc, max_ulpdu, long);
    let mut sent = sender.send(cut);
    assert_eq!(sent.len(), cut);
    let before: Vec<Completion> = (0..2).filter_map(|_| sender.qp.poll()).collect();
    if terminate {
        let bad = fpdu(&untagged(0x4040, 0, [0, 1, 0], &[]), crc);
        assert_eq!(sender.qp.input(&bad).stop, Stop::Fault);
    } else {
        sender.qp.abort(Error::invalid("closed"));
    }
    let referred = sender.qp.tx.gather.pieces().iter().any(|piece| sender.source.holds(piece.ptr()));
    assert!(!referred, "nothing refers to the caller's memory");
    sender.source.overwrite(0);
    let first = take_output(&mut sender.qp, 5);
    sent.extend(first);
    sent.extend(drain(&mut sender.qp));
    assert!(!sender.qp.has_output());

    // What was sent is a whole number of the frames that would have been sent, and a Terminate.
    let mut frames = ulpdus(&sent, crc);
    if terminate {
        assert_eq!(frames.pop().unwrap()[..2], [0x41, 0x47]);
    }
    let whole = ulpdus(&stream, crc);
    assert!(frames[..] == whole[..frames.len()]);
    let octets: usize = frames.iter().map(|frame| crate::wire::mpa::fpdu_len(frame.len())).sum();
    assert!(octets >= cut && octets < cut + 65_600, "the frame begun is finished, and no other begun");

    let done: Vec<Completion> = before.into_iter().chain(completions(&mut sender.qp)).collect();
    let mut sends = done.iter().filter(|one| one.opcode != Opcode::Recv);
    for (user, end) in ends.iter().enumerate() {
        let status = if *end <= cut { 0 } else { -libc::ECANCELED };
        if user == 4 && status == 0 {
            continue;
        }
        let one = sends.next().unwrap();
        assert_eq!((one.user, one.status), (user, status), "{cut} of {}", stream.len());
    }
    assert!(sends.next().is_none());
    let receives: Vec<_> = done.iter().filter(|one| one.opcode == Opcode::Recv).collect();
    assert!(receives.len() == 1 && receives[0].status == -libc::ECANCELED);

    let refused = try_post(&mut sender.qp, wr(Opcode::Send, Payload::Inline(Default::default())));
    assert_eq!(refused.unwrap_err().errno, libc::ENOTCONN);
    let refused = sender.qp.post_recv(0, &mut by_value(|_| Err(Error::default())));
    assert_eq!(refused.unwrap_err().errno, libc::ENOTCONN);
    assert!(sender.qp.sends_drained());
    // With the queue pair still there.
    sender.source.close();
    sender.sink.close();
}

#[test]
fn at_every_octet_of_small_frames() {
    for crc in [false, true] {
        let (stream, _) = undisturbed(crc, 100, 200);
        for cut in 0..=stream.len() {
            check(crc, 100, 200, cut, true);
            if cut % 7 == 0 {
                check(crc, 100, 200, cut, false);
            }
        }
    }
}

#[test]
fn here_and_there_in_long_frames() {
    for crc in [false, true] {
        let (stream, _) = undisturbed(crc, 65_042, 5000);
        for cut in (0..=stream.len()).step_by(97) {
            check(crc, 65_042, 5000, cut, true);
            check(crc, 65_042, 5000, cut, false);
        }
    }
}

/// What is left of a frame may just fill the small stage; the Terminate needs room behind it all the same.
#[test]
fn the_terminate_fits_behind_the_frame() {
    for long in 4020..4100 {
        for max_ulpdu in [long + 14, long + 18, 65_042] {
            let (stream, ends) = undisturbed(false, max_ulpdu, long);
            assert!(stream.len() > ends[1]);
            check(false, max_ulpdu, long, ends[1] + 1, true);
        }
    }
}

#[test]
fn only_the_first_fault_counts() {
    let mut sender = Sender::new(false, 1500, 100);
    sender.qp.abort(Error::new(1, crate::error::Reason::Cancelled, "first"));
    sender.qp.abort(Error::new(2, crate::error::Reason::Cancelled, "second"));
    assert_eq!(sender.qp.fault().unwrap().error.errno, 1);
    let before = completions(&mut sender.qp).len();
    sender.qp.abort(Error::default());
    assert_eq!((before, completions(&mut sender.qp).len()), (OPERATIONS + 1, 0));
}

#[test]
fn a_queue_pair_that_is_dropped_lets_go_of_everything() {
    for cut in [0, 1, 100, 1500] {
        let mut sender = Sender::new(cut % 2 == 0, 1500, 1000);
        sender.send(cut);
        sender.qp.fill();
        assert!(!sender.qp.tx.gather.is_empty());
        let Sender { qp, source, sink } = sender;
        assert_eq!(source.region.deregister().unwrap_err().errno, libc::EBUSY);
        drop(qp);
        source.close();
        sink.close();
    }
}

#[test]
fn keys_of_a_stream_end_with_it() {
    let keys = KeyTable::new();
    let memory = Memory::filled(&keys, 8, 0, 6);
    let key = |stream| memory.region.key(Owner::Stream(stream), 0, 8, Access::REMOTE_READ).unwrap();
    let (failed, dropped, other) = (key(1), key(2), key(3));
    let mut qp = active(1, &keys, caps(1), params(false));
    qp.abort(Error::default());
    assert!(!keys.is_live(failed) && keys.is_live(dropped));
    drop(active(2, &keys, caps(1), params(false)));
    assert!(!keys.is_live(dropped) && keys.is_live(other));
}
