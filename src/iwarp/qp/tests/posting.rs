//! Posting, completing, and what is literally on the wire.

use std::sync::Arc;

use super::super::{Capabilities, FirstFrame, Parameters, QueuePair, StagePool, Stop};
use super::support::*;
use crate::error::Error;
use crate::memory::{Access, KeyTable, Owner};
use crate::work::{MAX_INLINE, MAX_MESSAGE, Opcode, Payload, RecvWr, SendWr, SgeList, by_value, flags};

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn inline(octets: &[u8]) -> Payload {
    Payload::Inline(octets.iter().copied().collect())
}

fn fresh(params: Parameters) -> QueuePair {
    active(1, &KeyTable::new(), caps(4), params)
}

#[test]
fn every_message_as_it_is_on_the_wire() {
    let request = |opcode, flags| SendWr {
        flags,
        remote_addr: 0x1122_3344_5566_7788,
        remote_key: 0xaabb_ccdd,
        imm: 0x0102_0304,
        invalidate_key: 0x5566_7788,
        ..wr(opcode, inline(b"abc"))
    };
    let cases = [
        (Opcode::Send, 0, "00154143000000000000000000000001000000006162630000000000"),
        (Opcode::Send, flags::SOLICITED, "00154145000000000000000000000001000000006162630000000000"),
        (Opcode::SendInvalidate, 0, "00154144556677880000000000000001000000006162630000000000"),
        (
            Opcode::SendInvalidate,
            flags::SOLICITED,
            "00154146556677880000000000000001000000006162630000000000",
        ),
        (Opcode::Write, flags::SOLICITED, "0011c140aabbccdd112233445566778861626300 00000000"),
        (
            Opcode::WriteImm,
            0,
            "0011c140aabbccdd112233445566778861626300 00000000 \
             001a41480000000000000000000000010000000001020304 00000000 00000000",
        ),
        (
            Opcode::WriteImm,
            flags::SOLICITED,
            "0011c140aabbccdd112233445566778861626300 00000000 \
             001a41490000000000000000000000010000000001020304 00000000 00000000",
        ),
        (
            Opcode::SendImm,
            flags::SOLICITED,
            "001a41480000000000000000000000010000000001020304 00000001 00000000 \
             00154145000000000000000000000002000000006162630000000000",
        ),
    ];
    for (opcode, flags, expected) in cases {
        let mut qp = fresh(params(false));
        post(&mut qp, request(opcode, flags));
        assert_eq!(hex(&drain(&mut qp)), expected.replace(' ', ""), "{opcode:?}");
    }
    let mut qp = fresh(params(false));
    post(&mut qp, SendWr { payload: inline(&[]), ..request(Opcode::Read, 0) });
    let expected = "002e4141000000000000000100000001000000005243470200000000000000000000 0000aabbccdd112233445566778800000000";
    assert_eq!(hex(&drain(&mut qp)), expected.replace(' ', ""));
}

#[test]
fn segments_count_on() {
    let mut qp = fresh(Parameters { max_ulpdu: 64, ..params(false) });
    for opcode in [Opcode::Send, Opcode::Write] {
        let request = SendWr { remote_addr: u64::MAX - 200, ..wr(opcode, inline(&[7; 100])) };
        post(&mut qp, request);
    }
    let heads: Vec<_> = ulpdus(&drain(&mut qp), false).iter().map(|one| hex(&one[..14])).collect();
    assert_eq!(
        heads,
        [
            "0143000000000000000000000001",
            "0143000000000000000000000001",
            "4143000000000000000000000001",
            "814000000000ffffffffffffff37",
            "814000000000ffffffffffffff65",
            "c14000000000ffffffffffffff93",
        ]
    );
}

#[test]
fn the_limit_of_a_ulpdu_is_kept_within_reason() {
    for (asked, taken) in [(0, 64), (18, 64), (63, 64), (64, 64), (65_535, 65_535), (usize::MAX, 65_535)] {
        let table = KeyTable::new();
        let mut qp = active(1, &table, caps(4), Parameters { max_ulpdu: asked, ..params(true) });
        assert_eq!(qp.parameters().max_ulpdu, taken);
        let memory = Memory::filled(&table, 150_000, 3, 1);
        post(&mut qp, wr(Opcode::Send, Payload::Sges(memory.sges(&[(0, 150_000)]).unwrap())));
        let frames = ulpdus(&drain(&mut qp), true);
        assert!(frames.iter().all(|one| one.len() <= taken));
        assert_eq!(frames.iter().map(|one| one.len() - 18).sum::<usize>(), 150_000);
        drop(qp);
    }
}

#[test]
fn first_frames() {
    let start = |first_frame| {
        let mut qp = queue_pair(1, &KeyTable::new(), caps(4));
        qp.activate(Parameters { ord: 1, first_frame, ..params(false) });
        post(&mut qp, wr(Opcode::Read, inline(&[])));
        qp
    };
    let mut qp = start(FirstFrame::SendWrite);
    let frames = ulpdus(&drain(&mut qp), false);
    assert_eq!(hex(&frames[0]), "c140000000010000000000000000");
    assert_eq!(frames.len(), 2);

    // The Read of the handshake counts: with an ORD of 1 the other one waits for its response.
    let mut qp = start(FirstFrame::SendRead);
    let frames = ulpdus(&drain(&mut qp), false);
    let expected =
        "41410000000000000001000000010000000000000001000000000000000000000000000000010000000000000000";
    assert_eq!(hex(&frames[0]), expected);
    assert_eq!(frames.len(), 1);
    assert!(completions(&mut qp).is_empty() && !qp.sends_drained());
    assert_eq!(feed(&mut qp, &fpdu(&tagged(0xc142, 1, 0, &[]), false), 3), Stop::More);
    let frames = ulpdus(&drain(&mut qp), false);
    assert_eq!((frames.len(), frames[0][13]), (1, 2), "MSN 2");

    let mut qp = start(FirstFrame::Await);
    assert!(!qp.fill() && !qp.heard());
    assert_eq!(qp.input(&[0x00]).stop, Stop::More);
    assert!(!qp.fill(), "half a frame is no frame");
    assert_eq!(feed(&mut qp, &fpdu(&tagged(0xc140, 1, 0, &[]), false), 3), Stop::More);
    assert!(qp.heard() && qp.fill());
    let mut qp = start(FirstFrame::Await);
    qp.release_hold();
    assert!(qp.fill() && !qp.heard());
}

#[test]
fn what_can_not_be_posted() {
    let errno = |qp: &mut QueuePair, request| try_post(qp, request).map_or_else(|error| error.errno, |()| 0);
    let mut idle = queue_pair(1, &KeyTable::new(), caps(4));
    assert_eq!(errno(&mut idle, wr(Opcode::Send, inline(&[]))), libc::ENOTCONN);
    assert!(idle.post_recv(1, &mut by_value(|_| Ok(RecvWr { sges: SgeList::new(), user: 0 }))).is_ok());

    let mut foreign = fresh(Parameters { own_peer: false, ord: 0, ..params(false) });
    for opcode in [Opcode::SendImm, Opcode::WriteImm, Opcode::Read] {
        assert_eq!(errno(&mut foreign, wr(opcode, inline(&[]))), libc::EOPNOTSUPP);
    }
    let mut qp = fresh(params(false));
    assert_eq!(errno(&mut qp, wr(Opcode::Read, inline(&[1]))), libc::EINVAL);
    assert_eq!(errno(&mut qp, wr(Opcode::Recv, inline(&[]))), libc::EINVAL);
    for opcode in [Opcode::Write, Opcode::WriteImm] {
        let request = SendWr { remote_addr: u64::MAX, ..wr(opcode, inline(&[1])) };
        assert_eq!(errno(&mut qp, request), libc::EINVAL);
    }
    let keys = KeyTable::new();
    let mut octet = 0u8;
    let base = std::ptr::from_mut(&mut octet);
    // Never touched: only its length matters.
    let half = MAX_MESSAGE as usize;
    // SAFETY: the memory outlives the region, or is never touched.
    let endless = unsafe { crate::memory::Region::new(&keys, base, half + 1, Access::LOCAL) }.unwrap();
    let list = [endless.sge(base, half).unwrap(), endless.sge(base, 1).unwrap()];
    assert_eq!(errno(&mut qp, wr(Opcode::Send, Payload::Sges(list.into_iter().collect()))), libc::EMSGSIZE);
    assert!(endless.deregister().is_ok(), "what is refused holds nothing");
    assert_eq!(qp.counters().operations, 0);
}

#[test]
fn a_batch_is_posted_whole_or_not_at_all() {
    let mut qp = fresh(params(false));
    let post = |qp: &mut QueuePair, n, bad: usize| {
        let make = |index| match index {
            _ if index == bad => Err(Error::invalid("bad")),
            _ => Ok(SendWr { user: index, ..wr(Opcode::Send, inline(&[1])) }),
        };
        qp.post_send(n, &mut by_value(make)).map_or_else(|error| error.errno, |()| 0)
    };
    assert_eq!(post(&mut qp, 5, 9), libc::EINVAL, "never fits");
    assert_eq!(post(&mut qp, 3, 2), libc::EINVAL);
    assert!(!qp.fill() && qp.sends_drained());
    assert_eq!(post(&mut qp, 3, 9), 0);
    assert_eq!(post(&mut qp, 2, 9), libc::EAGAIN);
    assert_eq!(post(&mut qp, 1, 9), 0);
    drain(&mut qp);
    assert_eq!(post(&mut qp, 1, 9), libc::EAGAIN, "a completion not polled keeps its place");
    assert_eq!(completions(&mut qp).iter().map(|one| one.user).collect::<Vec<_>>(), [0, 1, 2, 0]);
    assert_eq!(post(&mut qp, 4, 9), 0);

    let post = |qp: &mut QueuePair, n, bad: usize| {
        let make = |index| match index {
            _ if index == bad => Err(Error::invalid("bad")),
            _ => Ok(RecvWr { sges: SgeList::new(), user: index }),
        };
        qp.post_recv(n, &mut by_value(make)).map_or_else(|error| error.errno, |()| 0)
    };
    assert_eq!(post(&mut qp, 5, 9), libc::EINVAL);
    assert_eq!(post(&mut qp, 3, 2), libc::EINVAL);
    assert_eq!(post(&mut qp, 4, 9), 0);
    assert_eq!(post(&mut qp, 1, 9), libc::EAGAIN);
}

#[test]
fn what_wants_no_completion_makes_room_by_itself() {
    let mut qp = fresh(params(false));
    for _ in 0..40 {
        post(&mut qp, SendWr { flags: 0, ..wr(Opcode::Send, inline(&[1])) });
        drain(&mut qp);
    }
    assert!(!qp.has_completion());
    // One between two that do: it must not hide the second.
    for flags in [flags::SIGNALED, 0, flags::SIGNALED] {
        post(&mut qp, SendWr { flags, ..wr(Opcode::Send, inline(&[1])) });
    }
    drain(&mut qp);
    assert!(qp.poll().is_some());
    assert!(qp.has_completion());
    assert!(qp.poll().is_some() && !qp.has_completion() && qp.poll().is_none());
}

#[test]
fn sends_complete_when_their_last_octet_is_with_the_socket() {
    let mut qp = fresh(params(true));
    post(&mut qp, wr(Opcode::Send, inline(&[1; 9])));
    post(&mut qp, wr(Opcode::Send, inline(&[2; 9])));
    assert!(qp.fill());
    let one = qp.tx.gather.remaining() / 2;
    take_output(&mut qp, one - 1);
    assert!(!qp.has_completion() && !qp.sends_drained());
    take_output(&mut qp, 1);
    assert_eq!(completions(&mut qp).len(), 1);
    assert_eq!(qp.octets_sent(), one as u64);
    take_output(&mut qp, usize::MAX);
    assert_eq!(completions(&mut qp).len(), 1);
    assert!(qp.sends_drained());
}

#[test]
fn managed_buffers_are_lent_and_released() {
    let caps = Capabilities { recv_size: 16, recv_depth: 2, strict_recv: false, ..caps(1) };
    let mut qp = active(1, &KeyTable::new(), caps, params(false));
    assert!(qp.post_recv(1, &mut by_value(|_| Ok(RecvWr { sges: SgeList::new(), user: 0 }))).is_err());
    for buffer in [0, 1, 2, 3, u64::MAX] {
        assert!(qp.release(buffer).is_err(), "nothing is lent yet");
    }
    let frame = |msn| fpdu(&untagged(0x4143, 0, [0, msn, 0], &[msn as u8; 16]), false);
    assert_eq!(feed(&mut qp, &frame(1), 9), Stop::More);
    assert_eq!(feed(&mut qp, &frame(2), 9), Stop::More);
    assert!(qp.release(1).is_err(), "not polled yet");
    let lent = completions(&mut qp);
    assert_eq!(qp.input(&frame(3)).stop, Stop::Blocked);
    qp.release(lent[1].buffer).unwrap();
    assert!(qp.release(lent[1].buffer).is_err(), "twice");
    assert_eq!(qp.input(&frame(3)).stop, Stop::More);
    let again = completions(&mut qp);
    assert_eq!(again[0].data, lent[1].data);
    // SAFETY: both are lent, and sixteen octets long.
    let read = |data: usize| unsafe { std::slice::from_raw_parts(data as *const u8, 16) };
    assert_eq!((read(lent[0].data), read(again[0].data)), (&[1; 16][..], &[3; 16][..]));
    qp.abort(Error::default());
    assert!(!qp.has_completion(), "buffers of the library's are not flushed to anybody");
    qp.release(again[0].buffer).unwrap();
    assert!(!qp.has_completion());
    assert_eq!(read(lent[0].data), [1; 16], "lent until the queue pair is gone");
    let mut unlent = fresh(params(false));
    assert!(unlent.release(1).is_err());
}

/// With CRC a payload stays where it is, but not one that a peer could change between its sum and its sending.
#[test]
fn only_what_a_peer_may_write_to_is_copied_for_its_sum() {
    let keys = KeyTable::new();
    let mut qp = active(1, &keys, caps(4), params(true));
    let memory = Memory::filled(&keys, 1000, 1, 7);
    let mut stays = || {
        let sges = memory.sges(&[(1, 300), (400, 299)]).unwrap();
        post(&mut qp, wr(Opcode::Send, Payload::Sges(sges)));
        assert!(qp.fill());
        let stays = qp.tx.gather.pieces().iter().any(|piece| memory.holds(piece.ptr()));
        // Its pad and its sum are right.
        assert_eq!(ulpdus(&drain(&mut qp), true)[0][18..], [1; 599]);
        completions(&mut qp);
        stays
    };
    assert!(stays());
    let (read, write) = (Access::REMOTE_READ, Access::REMOTE_WRITE);
    let first = memory.region.key(Owner::Domain, 0, 10, read).unwrap();
    assert!(stays());
    let second = memory.region.key(Owner::Domain, 0, 10, write).unwrap();
    assert!(!stays());
    memory.region.revoke_key(first).unwrap();
    assert!(!stays());
    memory.region.revoke_key(second).unwrap();
    assert!(stays());
    let third = memory.region.key(Owner::Stream(1), 0, 10, write).unwrap();
    assert!(!stays());
    keys.invalidate(third, 1).unwrap();
    assert!(stays());
}

/// Nothing grows once a queue pair is ready, and what it holds is what it says.
#[test]
fn memory_is_bounded_and_known() {
    let caps = Capabilities { send_depth: 32, recv_depth: 8, recv_size: 100, strict_recv: false };
    let pool = Arc::new(StagePool::default());
    let keys = KeyTable::new();
    let mut qp = QueuePair::new(caps.clone(), 1, &keys, &pool).unwrap();
    qp.activate(Parameters { ird: 3, ord: 5, ..params(true) });
    qp.release_hold();
    let memory = Memory::filled(&keys, 100_000, 1, 1);
    let capacities = |qp: &QueuePair| {
        (
            qp.sq.capacity(),
            qp.rq.capacity(),
            qp.reads.capacity(),
            qp.tx.responses.capacity(),
            qp.tx.gather.capacity(),
        )
    };
    assert_eq!((qp.sq.capacity(), qp.reads.capacity(), qp.tx.responses.capacity()), (0, 0, 0));
    let mut before = capacities(&qp);
    for round in 0..50 {
        for _ in 0..32 {
            let sges = memory.sges(&[(round, 10), (9, 0), (3, 3000), (7, 700)]).unwrap();
            post(&mut qp, wr(if round % 2 == 0 { Opcode::Send } else { Opcode::Write }, Payload::Sges(sges)));
        }
        while qp.fill() {
            take_output(&mut qp, 1 << 20);
        }
        assert_eq!(completions(&mut qp).len(), 32);
        assert!(!qp.tx.gather.holds_lease(), "a leased stage goes back at once");
        before = if round == 1 { capacities(&qp) } else { before };
    }
    assert_eq!(capacities(&qp), before);
    assert_eq!((before.0, before.1), (32, 8));
    let small = QueuePair::memory(&caps);
    assert!((32 * MAX_INLINE + 4096 + 800..40_000).contains(&small), "{small}");
    assert_eq!(QueuePair::memory(&Capabilities { recv_size: 200, ..caps }) - small, 800);
    assert!(QueuePair::read_memory(128, 128) < 20_000);
}
