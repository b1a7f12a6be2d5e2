use super::*;
use proptest::prelude::*;

/// The control octets of every message siw sends and takes.
#[test]
fn control_octets() {
    for (octets, tagged, last, opcode) in [
        ([0x41, 0x43], false, true, 3),
        ([0x01, 0x43], false, false, 3),
        ([0xc1, 0x40], true, true, 0),
        ([0x81, 0x40], true, false, 0),
        ([0x41, 0x41], false, true, 1),
        ([0xc1, 0x42], true, true, 2),
        ([0x41, 0x47], false, true, 7),
    ] {
        let control = Control::new(tagged, last, opcode);
        assert_eq!(Control::parse(&octets), control);
        let mut out = [0xff; CONTROL_LEN];
        control.emit(&mut out);
        assert_eq!(out, octets);
    }
}

#[test]
fn reserved_bits_are_ignored_and_written_as_zero() {
    let control = Control::parse(&[0xfd, 0x70]);
    assert_eq!(control, Control::new(true, true, 0));
    let mut out = [0; CONTROL_LEN];
    control.emit(&mut out);
    assert_eq!(out, [0xc1, 0x40]);
}

/// The ready-to-receive frame: a zero-length RDMA Write to STag 1, offset 0.
#[test]
fn tagged_header() {
    let octets = [0xc1, 0x40, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let header = Header::Tagged(Tagged { control: Control::new(true, true, 0), stag: 1, offset: 0 });
    assert_eq!(Header::parse(&octets), Ok(Some(header)));
    assert_eq!(header.len(), TAGGED_LEN);
    let mut out = [0xaa; 16];
    assert_eq!(header.emit(&mut out), TAGGED_LEN);
    assert_eq!(out[..TAGGED_LEN], octets);
    assert_eq!(out[TAGGED_LEN..], [0xaa, 0xaa]);

    let octets = [0x81, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let control = Control::new(true, false, 2);
    let header = Header::Tagged(Tagged { control, stag: 0x0102_0304, offset: 0x0506_0708_090a_0b0c });
    assert_eq!(Header::parse(&octets), Ok(Some(header)));
}

#[test]
fn untagged_header() {
    let octets = [0x41, 0x44, 1, 2, 3, 4, 0, 0, 0, 2, 0, 0, 0, 1, 0, 1, 0, 0];
    let header = Header::Untagged(Untagged {
        control: Control::new(false, true, 4),
        invalidate_stag: 0x0102_0304,
        queue: QN_TERMINATE,
        msn: FIRST_MSN,
        offset: 0x1_0000,
    });
    assert_eq!(Header::parse(&octets), Ok(Some(header)));
    assert_eq!(header.len(), UNTAGGED_LEN);
    let mut out = [0; UNTAGGED_LEN];
    assert_eq!(header.emit(&mut out), UNTAGGED_LEN);
    assert_eq!(out, octets);
}

#[test]
fn every_prefix_needs_more() {
    let tagged = [0xc1, 0x40, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let untagged = [0x41, 0x43, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    assert!((0..TAGGED_LEN).all(|len| Header::parse(&tagged[..len]) == Ok(None)));
    assert!((0..UNTAGGED_LEN).all(|len| Header::parse(&untagged[..len]) == Ok(None)));
    assert!(Header::parse(&tagged).unwrap().is_some() && Header::parse(&untagged).unwrap().is_some());
}

#[test]
fn a_buffer_too_short_stays_as_it_was() {
    let header = Header::Tagged(Tagged { control: Control::new(true, true, 0), stag: 1, offset: 0 });
    let mut out = [0xaa; TAGGED_LEN - 1];
    assert_eq!(header.emit(&mut out), 0);
    assert_eq!(out, [0xaa; TAGGED_LEN - 1]);
}

#[test]
fn other_versions_are_refused_at_once() {
    for version in [0, 2, 3] {
        let refused = |tagged| Err(DdpError::Version { tagged, version });
        assert_eq!(Header::parse(&[0xc0 | version, 0x40]), refused(true));
        assert_eq!(Header::parse(&[0x40 | version, 0x43]), refused(false));
    }
}

fn any_header() -> impl Strategy<Value = Header> {
    let words = any::<(u32, u32, u32, u32, u64)>();
    (any::<(bool, bool)>(), 0..4u8, 0..16u8, words).prop_map(
        |((tagged, last), rdmap_version, opcode, words)| {
            let control = Control { rdmap_version, ..Control::new(tagged, last, opcode) };
            let (stag, queue, msn, offset, tagged_offset) = words;
            if tagged {
                Header::Tagged(Tagged { control, stag, offset: tagged_offset })
            } else {
                Header::Untagged(Untagged { control, invalidate_stag: stag, queue, msn, offset })
            }
        },
    )
}

proptest! {
    #[test]
    fn round_trip(header in any_header(), more in prop::collection::vec(any::<u8>(), 0..8)) {
        let mut bytes = vec![0; header.len()];
        prop_assert_eq!(header.emit(&mut bytes), header.len());
        bytes.extend(more);
        prop_assert_eq!(Header::parse(&bytes), Ok(Some(header)));
        prop_assert_eq!(header.control().tagged, matches!(header, Header::Tagged(_)));
    }

    #[test]
    fn any_octets_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..32)) {
        if let Ok(Some(header)) = Header::parse(&bytes) {
            let mut out = vec![0; header.len()];
            header.emit(&mut out);
            prop_assert_eq!(Header::parse(&out), Ok(Some(header)));
        }
    }
}
