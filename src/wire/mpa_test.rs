use super::*;
use proptest::prelude::*;

/// As kernel siw sends it: IRD 8, ORD 8, no CRC, private data "hello-pd".
const SIW_REQUEST: &[u8; 32] = b"MPA ID Req Frame\x10\x02\x00\x0c\x00\x08\x00\x08hello-pd";

#[test]
fn request_of_siw() {
    let start = Start::parse(Kind::Request, SIW_REQUEST).unwrap().unwrap();
    let expected = Start { enhanced: true, revision: 2, private_data_len: 12, ..Start::default() };
    assert_eq!(start, expected);
    assert_eq!(start.frame_len(), SIW_REQUEST.len());
    let word = Enhanced::parse(SIW_REQUEST[START_LEN..].first_chunk().unwrap());
    assert_eq!(word, Enhanced { ird: 8, ord: 8, ..Enhanced::default() });

    let mut out = [0xaa; START_LEN];
    start.emit(Kind::Request, &mut out);
    assert_eq!(out, SIW_REQUEST[..START_LEN]);
    let mut out = [0xaa; ENHANCED_LEN];
    word.emit(&mut out);
    assert_eq!(out, SIW_REQUEST[START_LEN..][..ENHANCED_LEN]);
}

#[test]
fn flags_one_by_one() {
    for (octet, start) in [
        (0x80, Start { markers: true, ..Start::default() }),
        (0x40, Start { crc: true, ..Start::default() }),
        (0x20, Start { reject: true, ..Start::default() }),
        (0x10, Start { enhanced: true, ..Start::default() }),
        (0x08, Start { other_flags: 8, ..Start::default() }),
        (0x01, Start { other_flags: 1, ..Start::default() }),
    ] {
        let mut bytes = [0; START_LEN];
        start.emit(Kind::Reply, &mut bytes);
        assert_eq!(bytes[..16], *b"MPA ID Rep Frame");
        assert_eq!(bytes[16..], [octet, 0, 0, 0]);
        assert_eq!(Start::parse(Kind::Reply, &bytes), Ok(Some(start)));
    }
}

#[test]
fn control_words_seen_on_the_wire() {
    let word = |octets| Enhanced::parse(&octets);
    let write = Enhanced { ird: 8, ord: 8, peer_to_peer: true, write_rtr: true, ..Enhanced::default() };
    assert_eq!(word([0x80, 0x08, 0x80, 0x08]), write);
    let read = Enhanced { ird: 8, ord: 8, read_rtr: true, ..Enhanced::default() };
    assert_eq!(word([0x00, 0x08, 0x40, 0x08]), read);
    let most = Enhanced { ird: 0x80, ord: 8, ..Enhanced::default() };
    assert_eq!(word([0x00, 0x80, 0x00, 0x08]), most);
    let send = Enhanced { send_rtr: true, ird: NOT_NEGOTIATED, ord: NOT_NEGOTIATED, ..Enhanced::default() };
    assert_eq!(word([0x7f, 0xff, 0x3f, 0xff]), send);
}

#[test]
fn too_large_resources_do_not_become_flags() {
    let mut out = [0; ENHANCED_LEN];
    Enhanced { ird: u16::MAX, ord: 0x4001, ..Enhanced::default() }.emit(&mut out);
    assert_eq!(out, [0x3f, 0xff, 0x3f, 0xff]);
}

#[test]
fn every_prefix_needs_more() {
    for len in 0..START_LEN {
        assert_eq!(Start::parse(Kind::Request, &SIW_REQUEST[..len]), Ok(None), "{len} octets");
    }
}

#[test]
fn a_wrong_key_is_seen_at_its_first_wrong_octet() {
    assert_eq!(Start::parse(Kind::Reply, &SIW_REQUEST[..9]), Ok(None));
    assert_eq!(Start::parse(Kind::Reply, &SIW_REQUEST[..10]), Err(MpaError::Key));
    for wrong in 0..16 {
        let mut bytes = *SIW_REQUEST;
        bytes[wrong] ^= 0x20;
        assert_eq!(Start::parse(Kind::Request, &bytes[..wrong]), Ok(None));
        assert_eq!(Start::parse(Kind::Request, &bytes[..=wrong]), Err(MpaError::Key));
    }
}

#[test]
fn too_much_private_data_is_refused() {
    let mut bytes = [0; START_LEN];
    Start { private_data_len: 512, ..Start::default() }.emit(Kind::Request, &mut bytes);
    assert!(Start::parse(Kind::Request, &bytes).unwrap().is_some());
    Start { private_data_len: 513, ..Start::default() }.emit(Kind::Request, &mut bytes);
    assert_eq!(Start::parse(Kind::Request, &bytes), Err(MpaError::PrivateDataLen(513)));
}

#[test]
fn padding_and_length() {
    assert_eq!([0, 1, 2, 3, 4].map(pad), [2, 1, 0, 3, 2]);
    // Zero-length RDMA Write, Read Request, empty Send, and siw's longest at MTU 1500.
    assert_eq!([14, 46, 18, 1442].map(fpdu_len), [20, 52, 24, 1448]);
    assert_eq!(fpdu_len(MAX_ULPDU), 2 + 65535 + 3 + 4);
    assert_eq!(fpdu_len(usize::MAX), usize::MAX);
    assert_eq!(ulpdu_len(&[0xff]), None);
    assert_eq!(ulpdu_len(&[0xff, 0xfe, 0]), Some(0xfffe));
}

#[test]
fn most_within_a_segment() {
    assert_eq!([0, 3, 6, 8, 1448, 1449, 1451].map(max_ulpdu_within), [0, 0, 0, 2, 1442, 1442, 1442]);
    assert_eq!(max_ulpdu_within(usize::MAX), MAX_ULPDU);
}

/// A zero-length RDMA Write to STag 1, offset 0: the ready-to-receive frame, its CRC by the bit-wise definition.
#[test]
fn crc_is_little_endian_on_the_wire() {
    let ulpdu = [0xc1, 0x40, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut fpdu = vec![0, 14];
    fpdu.extend(ulpdu);
    let crc = crc::crc32c(&fpdu);
    fpdu.extend(trailer(ulpdu.len(), crc));
    assert_eq!(fpdu.len(), fpdu_len(ulpdu.len()));
    assert!(crc_matches(&fpdu));
    assert_eq!(crc_to_wire(0xe306_9283), [0x83, 0x92, 0x06, 0xe3]);
    assert_eq!(crc_from_wire([0x83, 0x92, 0x06, 0xe3]), 0xe306_9283);
    assert!(crc_matches(b"123456789\x83\x92\x06\xe3"));
    assert!(!crc_matches(b"123456789\xe3\x06\x92\x83"));
    assert!(!crc_matches(b"123"));
}

fn any_start() -> impl Strategy<Value = Start> {
    (any::<[bool; 4]>(), 0..16u8, any::<u8>(), 0..=512u16).prop_map(|(flags, other_flags, revision, len)| {
        let [markers, crc, reject, enhanced] = flags;
        Start { markers, crc, reject, enhanced, other_flags, revision, private_data_len: len }
    })
}

proptest! {
    #[test]
    fn start_round_trip(start in any_start(), request: bool) {
        let kind = if request { Kind::Request } else { Kind::Reply };
        let mut bytes = [0; START_LEN];
        start.emit(kind, &mut bytes);
        prop_assert_eq!(Start::parse(kind, &bytes), Ok(Some(start)));
    }

    #[test]
    fn every_control_word_round_trips(octets: [u8; 4]) {
        let mut out = [0; ENHANCED_LEN];
        Enhanced::parse(&octets).emit(&mut out);
        prop_assert_eq!(out, octets);
    }

    #[test]
    fn any_octets_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..64), request: bool) {
        let kind = if request { Kind::Request } else { Kind::Reply };
        let _ = Start::parse(kind, &bytes);
        let mut keyed = kind.key().to_vec();
        keyed.extend(&bytes);
        let _ = Start::parse(kind, &keyed);
        let _ = (ulpdu_len(&bytes), crc_matches(&bytes));
    }

    #[test]
    fn trailers_fill_up_to_four(len in 0..=MAX_ULPDU, crc: u32) {
        let trailer = trailer(len, crc);
        prop_assert_eq!(LENGTH_FIELD + len + trailer.len(), fpdu_len(len));
        prop_assert_eq!(fpdu_len(len) % 4, 0);
        let (padding, field) = trailer.split_last_chunk().unwrap();
        prop_assert!(padding.iter().all(|octet| *octet == 0));
        prop_assert_eq!(crc_from_wire(*field), crc);
        let budget = fpdu_len(len);
        prop_assert!(max_ulpdu_within(budget) >= len && fpdu_len(max_ulpdu_within(budget)) <= budget);
    }
}
