//! Reads in both directions with a peer that does not keep to the rules.

use super::super::{Parameters, Stop};
use super::support::*;
use super::victim::*;
use crate::wire::mpa;

#[test]
fn read_requests_for_what_they_may_not() {
    type Case = fn(&Victim) -> (u32, u64, u32, u16);
    let cases: &[Case] = &[
        |v| (v.stream_key ^ 0x10, v.base(), 8, 0x0100),
        |v| (0, v.base(), 8, 0x0100),
        |v| (v.stream_key, v.base() - 1, 8, 0x0101),
        |v| (v.stream_key, v.base(), 65, 0x0101),
        |v| (v.domain_key, v.base(), u32::MAX, 0x0101),
        |v| (v.stream_key, u64::MAX - 3, 8, 0x0104),
        |v| (v.foreign_key, v.base(), 8, 0x0103),
    ];
    for case in cases {
        each(|victim| {
            let (stag, offset, size, word) = case(&victim);
            let bad = read_request(1, (0x1234_5678, 0x1122_3344_5566_7788), size, (stag, offset));
            victim.refuses(&bad, word, ReadRequest);
        });
    }
    each(|victim| {
        let bad = read_request(1, (1, u64::MAX - 3), 8, (victim.stream_key, victim.base()));
        victim.refuses(&bad, 0x0104, ReadRequest);
    });
    each(|victim| {
        let mut bad = read_request(1, (1, 0), 8, (victim.stream_key, victim.base()));
        bad[0] = 0x01;
        victim.refuses(&bad, 0x1205, Header);
    });
}

#[test]
fn a_read_is_answered_with_what_it_asked_for() {
    for crc in [false, true] {
        let mut victim = Victim::new(crc, 1, caps(4), params(crc));
        victim.takes(&read_request(1, (0x1234_5678, u64::MAX - 3), 0, (0, 77)));
        victim.takes(&read_request(
            2,
            (0x1234_5678, u64::MAX - 4),
            3,
            (victim.stream_key, victim.base() + 61),
        ));
        let none = tagged(RESPONSE, 0x1234_5678, u64::MAX - 3, &[]);
        let three = tagged(RESPONSE, 0x1234_5678, u64::MAX - 4, &[CANARY; 3]);
        assert_eq!(drain(&mut victim.qp), [fpdu(&none, crc), fpdu(&three, crc)].concat());
    }
}

#[test]
fn more_reads_than_agreed() {
    for (ird, limit) in [(0, 0), (1, 1), (2, 2), (3, 4), (4, 4)] {
        for crc in [false, true] {
            let mut victim = Victim::new(crc, 9, caps(4), Parameters { ird, ..params(crc) });
            // The one of the handshake does not count.
            victim.takes(&read_request(1, (1, 0), 0, (1, 0)));
            let from = (victim.stream_key, victim.base());
            for count in 0..limit {
                victim.takes(&read_request(count + 2, (1, 0), 8, from));
            }
            let capacity = victim.qp.tx.responses.capacity();
            assert!((limit as usize..=limit as usize + 1).contains(&capacity), "{capacity} of {limit}");
            victim.refuses(&read_request(limit + 2, (1, 0), 8, from), 0x1202, ReadRequest);
        }
    }
    // Answered ones make room again.
    let mut victim = Victim::new(false, 9, caps(4), Parameters { ird: 1, ..params(false) });
    for msn in 1..20 {
        victim.takes(&read_request(msn, (1, 0), 8, (victim.stream_key, victim.base())));
        drain(&mut victim.qp);
    }
    // A zero-length one that is not the first frame is one like any other.
    victim.takes(&read_request(20, (1, 0), 0, (1, 0)));
    victim.refuses(&read_request(21, (1, 0), 0, (1, 0)), 0x1202, ReadRequest);
}

#[test]
fn a_source_that_is_revoked_before_it_is_answered() {
    for crc in [false, true] {
        let mut victim = Victim::new(crc, 9, caps(4), Parameters { max_ulpdu: 64, ..params(crc) });
        let request = read_request(1, (1, 0), 64, (victim.domain_key, victim.base()));
        victim.takes(&request);
        let one = mpa::fpdu_len(14 + 46);
        assert!(victim.qp.fill());
        // The response goes out in part: the peer sees whole frames, then the Terminate.
        let sent = take_output(&mut victim.qp, one - 3);
        victim.takes(
            &request
                .iter()
                .copied()
                .enumerate()
                .map(|(at, octet)| if at == 13 { 2 } else { octet })
                .collect::<Vec<_>>(),
        );
        victim.window.region.revoke_key(victim.domain_key).unwrap();
        let rest = drain(&mut victim.qp);
        let stream = ulpdus(&[sent, rest].concat(), crc);
        assert_eq!(stream.len(), 3, "both frames of the first response, then the Terminate");
        assert_eq!(stream[0][..2], [0x81, 0x42]);
        assert_eq!(stream[1][..2], [0xc1, 0x42]);
        assert_eq!(stream[2][18..], [0x01, 0x00, 0, 0]);
        assert_eq!(victim.qp.fault().unwrap().error.errno, libc::EACCES);
    }
}

#[test]
fn responses_nobody_asked_for_like_this() {
    each(|v| v.refuses(&tagged(RESPONSE, 0x5243_4702, 0, &[9; 8]), 0x1100, Header));
    each(|v| {
        let bad = tagged(RESPONSE, v.stream_key, v.base(), &[9; 8]);
        v.refuses(&bad, 0x1100, Header);
    });
    // Requested: 20 octets to offset 0 of the sink.
    for (control, stag, offset, len, word) in [
        (RESPONSE, 0x5243_4703, 0, 20, 0x1100),
        (RESPONSE, 1, 0, 20, 0x1100),
        (RESPONSE, 0x5243_4702, 1, 20, 0x1101),
        (RESPONSE, 0x5243_4702, u64::MAX, 20, 0x1101),
        (RESPONSE, 0x5243_4702, 0, 21, 0x1101),
        (RESPONSE, 0x5243_4702, 0, 19, 0x1101),
        (0x8142, 0x5243_4702, 0, 21, 0x1101),
    ] {
        each(|mut victim| {
            let request = victim.posts_read(20);
            assert_eq!(request[18..34], [&[0x52, 0x43, 0x47, 0x02][..], &[0; 8], &[0, 0, 0, 20]].concat());
            victim.refuses(&tagged(control, stag, offset, &vec![9; len]), word, Header);
        });
    }
    // Half of it, then a gap, the same again, too much, or an end that comes too early.
    for (control, offset, len) in
        [(RESPONSE, 11, 9), (RESPONSE, 0, 10), (RESPONSE, 10, 11), (RESPONSE, 10, 9)]
    {
        each(|mut victim| {
            victim.posts_read(20);
            victim.takes(&tagged(0x8142, 0x5243_4702, 0, &[9; 10]));
            assert!(!victim.qp.at_boundary());
            victim.refuses(&tagged(control, 0x5243_4702, offset, &vec![9; len]), 0x1101, Header);
        });
    }
    each(|mut victim| {
        victim.posts_read(20);
        victim.takes(&tagged(0x8142, 0x5243_4702, 0, &[9; 20]));
        assert!(completions(&mut victim.qp).is_empty());
        victim.takes(&tagged(RESPONSE, 0x5243_4702, 20, &[]));
        assert_eq!(completions(&mut victim.qp)[0].status, 0, "an empty last segment is an end as well");
        assert_eq!(victim.sink.get(99, 22), [&[CANARY][..], &[9; 20], &[CANARY]].concat());
        victim.refuses(&tagged(RESPONSE, 0x5243_4702, 20, &[]), 0x1100, Header);
    });
}

/// A Terminate of the peer's: nothing is answered, and a Read it refuses gets its own status.
#[test]
fn terminates_of_the_peer() {
    for crc in [false, true] {
        let mut victim = Victim::new(crc, 3, caps(4), params(crc));
        let first = victim.posts_read(8);
        let second = victim.posts_read(20);
        let quoted = [&[0, 46][..], &second[..46]].concat();
        let body = [&[0x01, 0x01, 0xe0, 0][..], &quoted].concat();
        assert_eq!(first[22..30], [0; 8]);
        let frame = fpdu(&untagged(0x4147, 0, [2, 1, 0], &body), crc);
        assert_eq!(feed(&mut victim.qp, &frame, 3), Stop::Fault);
        assert!(!victim.qp.has_output() && !victim.qp.fill());
        let error = &victim.qp.fault().unwrap().error;
        assert_eq!((error.errno, error.provider_code), (libc::EACCES, 0x0101));
        let statuses: Vec<_> = completions(&mut victim.qp).iter().map(|one| one.status).collect();
        assert_eq!(statuses, [-libc::ECANCELED, -libc::EACCES, -libc::ECANCELED]);
    }
    // Without a quote the oldest is taken to be meant; siw's order of bits; cut short; empty.
    for (body, errno, read) in [
        (&[0x01, 0x00, 0, 0][..], libc::EREMOTEIO, -libc::ECANCELED),
        (&[0x01, 0x02, 0x80, 0][..], libc::EACCES, -libc::EACCES),
        (&[0x10, 0x00, 0x04, 0][..], libc::EACCES, -libc::EACCES),
        (&[0x11, 0x00, 0xc0, 0, 0, 22][..], libc::EACCES, -libc::ECANCELED),
        (&[0x20, 0x02, 0, 0][..], libc::EREMOTEIO, -libc::ECANCELED),
        (&[0x01][..], libc::EPROTO, -libc::ECANCELED),
        (&[][..], libc::EPROTO, -libc::ECANCELED),
    ] {
        each(|mut victim| {
            victim.posts_read(8);
            let frame = fpdu(&untagged(0x4147, 0, [2, 1, 0], body), victim.crc);
            assert_eq!(feed(&mut victim.qp, &frame, victim.chunk), Stop::Fault);
            let uncertain = body[..] == [0x01, 0x00, 0, 0];
            let error = victim.qp.fault().unwrap().error.errno;
            assert!(error == errno || uncertain, "{body:02x?}: {error}");
            let done = completions(&mut victim.qp);
            assert!(done[0].status == read || uncertain, "{body:02x?}: {}", done[0].status);
            assert!(!victim.qp.has_output());
        });
    }
}
