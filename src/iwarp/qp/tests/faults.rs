//! A peer that breaks the protocol: what it is told, literally, and that nothing is placed for it.

use super::super::{Capabilities, Parameters, Stop};
use super::support::*;
use super::victim::*;
use crate::memory::{Access, KeyTable, Owner};
use crate::wire::mpa;
use crate::work::{Opcode, Payload, SgeList};

#[test]
fn tagged_segments_out_of_place() {
    type Case = fn(&Victim) -> (u32, u64, u16);
    let cases: &[Case] = &[
        |v| (v.stream_key ^ 0x10, v.base(), 0x1100),
        |v| (0, v.base(), 0x1100),
        |v| (1, v.base(), 0x1100),
        |v| (v.stream_key, v.base() - 1, 0x1101),
        |v| (v.stream_key, v.base() + 57, 0x1101),
        |v| (v.stream_key, 0, 0x1101),
        |v| (v.domain_key, v.base() + 64, 0x1101),
        |v| (v.stream_key, u64::MAX - 3, 0x1103),
        |v| (v.stream_key, u64::MAX - 7, 0x1103),
        |v| (v.foreign_key, v.base(), 0x1102),
        |v| (v.foreign_key, 0, 0x1102),
    ];
    for case in cases {
        each(|victim| {
            let (stag, offset, word) = case(&victim);
            victim.refuses(&tagged(WRITE, stag, offset, &[9; 8]), word, Header);
        });
    }
}

#[test]
fn rights_are_checked_in_both_directions() {
    each(|victim| {
        let key = victim.window.region.key(Owner::Stream(1), 64, 64, Access::REMOTE_READ).unwrap();
        let bad = tagged(WRITE, key, victim.base(), &[9; 8]);
        victim.refuses(&bad, 0x0102, Header);
    });
    each(|victim| {
        let key = victim.window.region.key(Owner::Stream(1), 64, 64, Access::REMOTE_WRITE).unwrap();
        let bad = read_request(1, (5, 6), 8, (key, victim.base()));
        victim.refuses(&bad, 0x0102, ReadRequest);
    });
}

#[test]
fn a_revoked_key_ends_the_stream_in_the_middle_of_a_segment() {
    for crc in [false, true] {
        let mut victim = Victim::new(crc, 1, caps(4), params(crc));
        let bad = tagged(WRITE, victim.stream_key, victim.base(), &[9; 40]);
        let frame = fpdu(&bad, crc);
        // Without CRC twenty octets are placed before the key is gone, and none after it.
        let input = victim.qp.input(&frame[..36]);
        assert_eq!(input.consumed, if crc { 0 } else { 36 });
        victim.window.region.revoke_key(victim.stream_key).unwrap();
        victim.window.overwrite(CANARY);
        assert_eq!(victim.qp.input(&frame[input.consumed..]).stop, Stop::Fault);
        victim.ends(&bad, 0x1100, Header);
    }
}

#[test]
fn untagged_segments_out_of_order() {
    let send = |numbers| untagged(SEND, 0, numbers, &[9; 8]);
    each(|v| v.refuses(&send([0, 2, 0]), 0x1203, Header));
    each(|v| v.refuses(&send([0, 0, 0]), 0x1203, Header));
    each(|v| v.refuses(&send([0, u32::MAX, 0]), 0x1203, Header));
    each(|v| v.refuses(&send([0, 1, 4]), 0x1204, Header));
    each(|v| v.refuses(&send([0, 1, u32::MAX]), 0x1204, Header));
    for queue in [1, 2, 3, u32::MAX] {
        each(|v| v.refuses(&send([queue, 1, 0]), 0x1201, Header));
    }
    each(|v| v.refuses(&untagged(0x4141, 0, [0, 1, 0], &[0; 28]), 0x1201, Header));
    each(|v| v.refuses(&untagged(0x4141, 0, [1, 2, 0], &[0; 28]), 0x1203, Header));
    each(|v| v.refuses(&untagged(0x4141, 0, [1, 1, 8], &[0; 28]), 0x1204, Header));
    each(|v| v.refuses(&untagged(0x4148, 0, [1, 1, 0], &[0; 8]), 0x1201, Header));
    each(|v| v.refuses(&untagged(0x4148, 0, [0, 1, 4], &[0; 8]), 0x1204, Header));
}

#[test]
fn the_second_segment_of_a_send() {
    let first = untagged(0x0143, 0, [0, 1, 0], &[9; 8]);
    for (control, numbers, word) in [
        (SEND, [0, 1, 0], 0x1204),
        (SEND, [0, 1, 7], 0x1204),
        (SEND, [0, 1, 9], 0x1204),
        (SEND, [0, 2, 0], 0x1203),
        (0x4145, [0, 1, 8], 0x0206),
        (0x4144, [0, 1, 8], 0x0206),
    ] {
        each(|mut victim| {
            victim.takes(&first);
            assert!(!victim.qp.at_boundary());
            victim.refuses(&untagged(control, 0, numbers, &[9; 8]), word, Header);
        });
    }
    // Immediate Data within a Send: it would be the next message.
    for (msn, word) in [(2, 0x1203), (1, 0x0206)] {
        each(|mut victim| {
            victim.takes(&first);
            victim.refuses(&untagged(0x4148, 0, [0, msn, 0], &[0; 8]), word, Header);
        });
    }
}

#[test]
fn versions_and_opcodes() {
    for version in [0u16, 2, 3] {
        let base = version << 8;
        each(|v| v.refuses(&tagged(0xc040 | base, 1, 0, &[]), 0x1104, Nothing));
        each(|v| v.refuses(&untagged(0x4043 | base, 0, [0, 1, 0], &[]), 0x1206, Nothing));
        let base = version << 6;
        each(|v| v.refuses(&tagged(0xc100 | base, 1, 0, &[]), 0x0205, Header));
        each(|v| v.refuses(&untagged(0x4103 | base, 0, [0, 1, 0], &[]), 0x0205, Header));
    }
    for opcode in [10, 11, 12, 13, 14, 15] {
        each(|v| v.refuses(&untagged(0x4140 | opcode, 0, [0, 1, 0], &[0; 8]), 0x0206, Header));
        each(|v| v.refuses(&tagged(0xc140 | opcode, 1, 0, &[0; 8]), 0x0206, Header));
    }
    // A Send that is tagged, a Write that is not.
    each(|v| v.refuses(&tagged(0xc143, 1, 0, &[]), 0x0206, Header));
    each(|v| v.refuses(&untagged(0x4140, 0, [0, 1, 0], &[]), 0x0206, Header));
    each(|v| v.refuses(&tagged(0xc147, 1, 0, &[0; 40]), 0x0206, Header));
}

#[test]
fn immediate_data_is_for_our_own_peers() {
    for control in [0x4148, 0x4149] {
        for crc in [false, true] {
            let params = Parameters { own_peer: false, ..params(crc) };
            let victim = Victim::new(crc, 3, caps(4), params);
            victim.refuses(&untagged(control, 0, [0, 1, 0], &[0; 8]), 0x0206, Header);
        }
    }
    each(|mut victim| {
        victim.takes(&untagged(0x4148, 0, [0, 1, 0], &[0, 0, 0, 5, 0, 0, 0, 1]));
        assert!(!victim.qp.at_boundary(), "its Send is still to come");
        victim.refuses(&untagged(0x4148, 0, [0, 2, 0], &[0; 8]), 0x0206, Header);
    });
}

#[test]
fn lengths() {
    each(|v| v.refuses(&[], 0x2003, Nothing));
    each(|v| v.refuses(&[0x41], 0x2003, Nothing));
    each(|v| v.refuses(&tagged(WRITE, 1, 0, &[])[..13], 0x2003, Nothing));
    each(|v| v.refuses(&untagged(SEND, 0, [0, 1, 0], &[])[..17], 0x2003, Nothing));
    each(|v| v.refuses(&untagged(0x4141, 0, [1, 1, 0], &[0; 27]), 0x2003, Header));
    each(|v| v.refuses(&untagged(0x4141, 0, [1, 1, 0], &[0; 29]), 0x1205, Header));
    each(|v| v.refuses(&untagged(0x4148, 0, [0, 1, 0], &[0; 7]), 0x2003, Header));
}

#[test]
fn sends_without_room() {
    each(|v| v.refuses(&untagged(SEND, 0, [0, 1, 0], &[9; 33]), 0x1205, Header));
    each(|mut victim| {
        victim.takes(&untagged(0x0143, 0, [0, 1, 0], &[9; 30]));
        victim.refuses(&untagged(SEND, 0, [0, 1, 30], &[9; 3]), 0x1205, Header);
    });
}

#[test]
fn no_receive_is_an_error_or_a_reason_to_wait() {
    let (first, second) = (untagged(SEND, 0, [0, 1, 0], &[9; 32]), untagged(SEND, 0, [0, 2, 0], &[8; 32]));
    let immediate = untagged(0x4148, 0, [0, 2, 0], &[0; 8]);
    for crc in [false, true] {
        for bad in [&second, &immediate] {
            let mut victim = Victim::new(crc, 1, caps(4), params(crc));
            victim.takes(&first);
            assert_eq!(completions(&mut victim.qp)[0].length, 32);
            assert_eq!(feed(&mut victim.qp, &fpdu(bad, crc), 1), Stop::Fault);
            let told = ulpdus(&drain(&mut victim.qp), crc).remove(0);
            assert_eq!(told[18..20], [0x12, 0x02]);
            assert_eq!(victim.sink.get(16, 32), [9; 32]);

            let caps = Capabilities { strict_recv: false, ..caps(4) };
            let mut victim = Victim::new(crc, 1, caps, params(crc));
            victim.takes(&first);
            let frame = fpdu(bad, crc);
            let input = victim.qp.input(&frame);
            assert_eq!((input.consumed, input.stop), (0, Stop::Blocked));
            assert_eq!(victim.qp.input(&frame).stop, Stop::Blocked, "asked again, the same answer");
            assert_eq!(victim.qp.counters().recv_stalls, 1);
            let sges = victim.sink.sges(&[(60, 32)]).unwrap();
            post_recv(&mut victim.qp, sges, 78);
            let input = victim.qp.input(&frame);
            assert_eq!((input.consumed, input.stop), (frame.len(), Stop::More));
            let users: Vec<_> =
                completions(&mut victim.qp).iter().map(|one| (one.user, one.status)).collect();
            assert_eq!(users, [(77, 0), (78, 0)]);
        }
    }
}

#[test]
fn a_frame_that_waits_for_a_receive_is_heard_all_the_same() {
    let keys = KeyTable::new();
    let mut qp = queue_pair(1, &keys, Capabilities { strict_recv: false, ..caps(2) });
    qp.activate(params(false));
    post(&mut qp, wr(Opcode::Send, Payload::Sges(SgeList::new())));
    assert!(!qp.fill(), "a responder does not speak first");
    let frame = fpdu(&untagged(SEND, 0, [0, 1, 0], &[]), false);
    assert_eq!(qp.input(&frame).stop, Stop::Blocked);
    assert!(qp.heard() && qp.fill());
}

#[test]
fn crc_is_checked_before_anything_else() {
    let good = |victim: &Victim| fpdu(&tagged(WRITE, victim.stream_key, victim.base(), &[9; 33]), true);
    let length = good(&Victim::new(true, 1, caps(4), params(true))).len();
    for at in 2..length {
        let mut victim = Victim::new(true, 13, caps(4), params(true));
        let mut frame = good(&victim);
        frame[at] ^= 0x40;
        assert_eq!(feed(&mut victim.qp, &frame, 13), Stop::Fault);
        victim.ends(&[], 0x2002, Nothing);
    }
    let mut victim = Victim::new(true, 13, caps(4), params(true));
    let frame = good(&victim);
    assert_eq!(
        victim.qp.input(&frame[..frame.len() - 1]).consumed,
        0,
        "not one octet before the sum is there"
    );
    assert_eq!(victim.window.get(64, 33), [CANARY; 33]);
    assert_eq!(victim.qp.input(&frame).consumed, frame.len());
    assert_eq!(victim.window.get(63, 35), [&[CANARY][..], &[9; 33], &[CANARY]].concat());
}

#[test]
fn invalidation_of_what_is_not_the_peers() {
    type Case = fn(&Victim) -> (u32, u16);
    let cases: &[Case] = &[
        |v| (v.stream_key ^ 0x10, 0x0100),
        |_| (1, 0x0100),
        |v| (v.foreign_key, 0x0103),
        |v| (v.domain_key, 0x0109),
    ];
    for case in cases {
        for control in [0x4144, 0x4146] {
            each(|victim| {
                let (stag, word) = case(&victim);
                victim.refuses(&untagged(control, stag, [0, 1, 0], &[9; 4]), word, Header);
            });
        }
    }
    each(|mut victim| {
        // What siw's user-space library sends.
        victim.takes(&untagged(0x4144, 0, [0, 1, 0], &[9; 4]));
        let done = completions(&mut victim.qp);
        assert_eq!((done[0].status, done[0].invalidated), (0, None));
        assert!(victim.keys.is_live(victim.stream_key));
    });
    each(|mut victim| {
        victim.takes(&untagged(0x4146, victim.stream_key, [0, 1, 0], &[9; 4]));
        let done = completions(&mut victim.qp);
        assert_eq!((done[0].invalidated, done[0].solicited), (Some(victim.stream_key), true));
        let bad = tagged(WRITE, victim.stream_key, victim.base(), &[9; 8]);
        let frame = fpdu(&bad, victim.crc);
        assert_eq!(feed(&mut victim.qp, &frame, victim.chunk), Stop::Fault);
        assert_eq!(victim.window.get(0, WINDOW), [CANARY; WINDOW]);
    });
}

/// Pad and CRC that arrive in pieces are skipped, and counted.
#[test]
fn trailers_are_cut_anywhere() {
    for len in 0..9 {
        let frame = {
            let victim = Victim::new(false, 1, caps(4), params(false));
            fpdu(&tagged(WRITE, victim.stream_key, victim.base(), &vec![9; len]), false).len()
        };
        for cut in 0..=frame {
            let mut victim = Victim::new(false, 1, caps(4), params(false));
            let octets = fpdu(&tagged(WRITE, victim.stream_key, victim.base(), &vec![9; len]), false);
            let taken = victim.qp.input(&octets[..cut]).consumed;
            assert!(taken <= cut && (taken == cut || taken == 0));
            assert_eq!(victim.qp.at_boundary(), taken == 0 || cut == frame, "{len} {cut}");
            assert_eq!(victim.qp.input(&octets[taken..]).consumed, frame - taken);
            assert_eq!(victim.qp.counters().received, frame as u64);
            assert_eq!(mpa::fpdu_len(14 + len), frame);
            assert_eq!(victim.window.get(64, len + 1)[..len], vec![9; len]);
            assert!(victim.qp.at_boundary());
        }
    }
}

/// 2^32 octets can't be a message, whatever the receive has room for.
#[test]
fn the_offset_of_a_message_does_not_wrap() {
    let mut victim = Victim::new(false, 1, caps(4), params(false));
    victim.takes(&untagged(0x0143, 0, [0, 1, 0], &[9; 4]));
    victim.qp.rx.message = victim.qp.rx.message.map(|(_, opcode)| (u32::MAX - 3, opcode));
    victim.refuses(&untagged(SEND, 0, [0, 1, u32::MAX - 3], &[9; 4]), 0x1205, Header);
}

/// Sequence numbers go round.
#[test]
fn sequence_numbers_wrap() {
    let mut victim = Victim::new(true, 9, caps(4), params(true));
    victim.qp.rx.msn = [u32::MAX - 1; 2];
    victim.takes(&untagged(SEND, 0, [0, u32::MAX, 0], &[]));
    let sges = victim.sink.sges(&[(0, 1)]).unwrap();
    post_recv(&mut victim.qp, sges, 78);
    victim.takes(&untagged(SEND, 0, [0, 0, 0], &[]));
    assert_eq!(completions(&mut victim.qp).len(), 2);
    victim.takes(&read_request(u32::MAX, (1, 0), 0, (1, 0)));
    victim.takes(&read_request(0, (1, 0), 0, (1, 0)));
}
