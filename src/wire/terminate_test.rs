use super::*;
use proptest::prelude::*;

fn emitted(terminate: &Terminate) -> Vec<u8> {
    let mut out = [0xaa; Terminate::MAX_LEN];
    let len = terminate.emit(&mut out);
    out[..len].to_vec()
}

fn read(bytes: &[u8]) -> (TermCode, TermOrder) {
    let terminate = Terminate::parse(bytes).unwrap();
    (terminate.term_code(), terminate.order)
}

/// What kernel siw was seen to send, and the same as RFC 5040 has it.
#[test]
fn control_words_of_siw_and_of_the_rfc() {
    assert_eq!(read(&[0x02, 0x02, 0, 0]), (term::MPA_CRC, TermOrder::Swapped));
    assert_eq!(read(&[0x20, 0x02, 0, 0]), (term::MPA_CRC, TermOrder::Rfc));
    assert_eq!(read(&[0x11, 0x00, 0x03, 0]), (term::DDP_INVALID_STAG, TermOrder::Swapped));
    assert_eq!(read(&[0x11, 0x00, 0xc0, 0]), (term::DDP_INVALID_STAG, TermOrder::Rfc));
    assert_eq!(read(&[0x20, 0x06, 0x03, 0]), (term::RDMAP_OPCODE, TermOrder::Swapped));
    assert_eq!(read(&[0x02, 0x06, 0xc0, 0]), (term::RDMAP_OPCODE, TermOrder::Rfc));
    assert_eq!(read(&[0x21, 0x02, 0x03, 0]), (term::DDP_NO_BUFFER, TermOrder::Swapped));
    assert_eq!(read(&[0x10, 0x00, 0x07, 0]), (term::RDMAP_INVALID_STAG, TermOrder::Swapped));
}

#[test]
fn without_header_bits_only_the_overlap_is_uncertain() {
    // 0x20 is MPA in RFC order and an RDMAP operation error in the other; both have the codes 5 to 7.
    for code in 5..=7 {
        assert_eq!(read(&[0x20, code, 0, 0]), (TermCode::new(2, 0, code), TermOrder::Uncertain));
        assert_eq!(read(&[0x02, code, 0, 0]), (TermCode::new(0, 2, code), TermOrder::Uncertain));
    }
    assert_eq!(read(&[0x20, 0x08, 0, 0]), (term::RDMAP_CATASTROPHIC_GLOBAL, TermOrder::Swapped));
    assert_eq!(read(&[0x02, 0x09, 0, 0]), (term::RDMAP_OPERATION_INVALIDATE, TermOrder::Rfc));
    // 0x10 is a DDP catastrophe or an RDMAP protection error.
    assert_eq!(read(&[0x10, 0x00, 0, 0]), (term::DDP_CATASTROPHIC, TermOrder::Uncertain));
    assert_eq!(read(&[0x10, 0x01, 0, 0]), (term::RDMAP_BASE_BOUNDS, TermOrder::Swapped));
    assert_eq!(read(&[0x01, 0x02, 0, 0]), (term::RDMAP_ACCESS_RIGHTS, TermOrder::Rfc));
    // The same either way, or only one of them exists.
    assert_eq!(read(&[0x11, 0x01, 0, 0]), (term::DDP_BASE_BOUNDS, TermOrder::Rfc));
    assert_eq!(read(&[0x00, 0x00, 0, 0]), (term::RDMAP_CATASTROPHIC, TermOrder::Rfc));
    assert_eq!(read(&[0x12, 0x02, 0, 0]), (term::DDP_NO_BUFFER, TermOrder::Rfc));
    assert_eq!(read(&[0x21, 0x03, 0, 0]), (term::DDP_MSN_RANGE, TermOrder::Swapped));
    // Nonsense stays as it came.
    assert_eq!(read(&[0x9a, 0x33, 0, 0]), (TermCode::new(9, 10, 0x33), TermOrder::Uncertain));
    assert_eq!(read(&[0x12, 0x02, 0xc3, 0]).1, TermOrder::Uncertain);
}

/// A refused RDMA Read: every part, in the order of RFC 5040.
#[test]
fn all_parts_in_order() {
    let header = [0x41, 0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0];
    let request = ReadRequest {
        sink_stag: 1,
        sink_offset: 2,
        size: 16,
        source_stag: 0x0102_0304,
        source_offset: 0x1000,
    };
    let terminate = Terminate::about(term::RDMAP_INVALID_STAG, 46, &header, Some(request));
    let mut expected = vec![0x01, 0x00, 0xe0, 0x00, 0x00, 0x2e];
    expected.extend(header);
    expected.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 16, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0x10, 0]);
    assert_eq!(emitted(&terminate), expected);
    assert_eq!(expected.len(), Terminate::MAX_LEN);
    assert_eq!(Terminate::parse(&expected), Some(terminate.clone()));

    // As siw would send it.
    let mut swapped = expected;
    swapped[0] = 0x10;
    swapped[2] = 0x07;
    assert_eq!(Terminate::parse(&swapped), Some(Terminate { order: TermOrder::Swapped, ..terminate }));
}

#[test]
fn what_is_cut_short_is_left_out() {
    let tagged = [0xc1, 0x40, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0];
    let bytes = emitted(&Terminate::about(term::DDP_INVALID_STAG, 100, &tagged, None));
    assert_eq!(bytes.len(), 4 + 2 + 14);
    for len in 0..bytes.len() {
        let parsed = Terminate::parse(&bytes[..len]);
        assert_eq!(parsed.is_some(), len >= 4, "{len} octets");
        let Some(parsed) = parsed else { continue };
        assert_eq!(parsed.term_code(), term::DDP_INVALID_STAG);
        assert_eq!(parsed.ddp_segment_len.is_some(), len >= 6);
        assert!(parsed.ddp_header.is_empty());
    }
    assert!(Terminate::about(term::MPA_LENGTH, 3, &tagged[..3], None).ddp_header.is_empty());
}

#[test]
fn sentences() {
    assert_eq!(term::DDP_INVALID_STAG.to_string(), "DDP tagged buffer error: invalid STag");
    assert_eq!(term::MPA_INSUFFICIENT_IRD.to_string(), "MPA error: insufficient IRD resources");
    assert_eq!(TermCode::new(0, 0, 7).to_string(), "RDMAP local catastrophic error");
    assert_eq!(TermCode::new(3, 0, 1).to_string(), "undefined error: layer 3, type 0, code 0x01");
    let uncertain = Terminate::parse(&[0x20, 0x06, 0, 0]).unwrap().to_string();
    assert!(uncertain.contains("insufficient IRD") && uncertain.contains("unexpected opcode"), "{uncertain}");
    assert_eq!(term::MPA_INSUFFICIENT_IRD.word(), 0x2006);
}

#[test]
fn every_error_is_listed_once() {
    for (index, (code, text)) in term::NAMES.iter().enumerate() {
        assert_eq!(code.text(), Some(*text));
        assert!(term::NAMES[index + 1..].iter().all(|(other, named)| other != code && named != text));
    }
}

#[test]
fn a_refused_header_has_its_code() {
    let code = |tagged| TermCode::from(DdpError::Version { tagged, version: 2 });
    assert_eq!(code(true), TermCode::new(1, 1, 4));
    assert_eq!(code(false), TermCode::new(1, 2, 6));
}

fn any_terminate() -> impl Strategy<Value = Terminate> {
    let code = prop::sample::select(term::NAMES).prop_map(|(code, _)| code);
    let header = (any::<bool>(), any::<[u8; ddp::UNTAGGED_LEN]>()).prop_map(|(tagged, mut octets)| {
        octets[0] = (octets[0] & 0x7f) | if tagged { 0x80 } else { 0 };
        octets
    });
    let request = any::<[u8; ReadRequest::LEN]>().prop_map(|octets| ReadRequest::parse(&octets));
    (code, any::<u16>(), header, prop::option::of(request))
        .prop_map(|(code, len, header, request)| Terminate::about(code, len, &header, request))
}

proptest! {
    #[test]
    fn round_trip(terminate in any_terminate()) {
        prop_assert_eq!(Terminate::parse(&emitted(&terminate)), Some(terminate));
    }

    #[test]
    fn a_swapped_control_word_means_the_same(terminate in any_terminate()) {
        let mut bytes = emitted(&terminate);
        bytes[0] = bytes[0].rotate_left(4);
        bytes[2] = bytes[2].reverse_bits();
        prop_assert_eq!(Terminate::parse(&bytes), Some(Terminate { order: TermOrder::Swapped, ..terminate }));
    }

    #[test]
    fn any_octets_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Some(terminate) = Terminate::parse(&bytes) {
            let _ = (emitted(&terminate), terminate.to_string(), terminate.other_reading());
        }
    }
}
