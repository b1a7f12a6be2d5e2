use super::*;
use proptest::prelude::*;

#[test]
fn opcodes_are_their_numbers() {
    for number in 0..=u8::MAX {
        match Opcode::from_u8(number) {
            Some(opcode) => assert_eq!(opcode as u8, number),
            None => assert!(number > 9),
        }
    }
    assert_eq!(Opcode::from_u8(9), Some(Opcode::ImmediateSolicited));
}

#[test]
fn what_each_opcode_means() {
    use Opcode as O;
    let all: Vec<O> = (0..10).filter_map(O::from_u8).collect();
    let those = |test: fn(O) -> bool| all.iter().copied().filter(|opcode| test(*opcode)).collect::<Vec<_>>();
    assert_eq!(those(O::is_tagged), [O::Write, O::ReadResponse]);
    assert_eq!(those(O::invalidates), [O::SendInvalidate, O::SendSolicitedInvalidate]);
    assert_eq!(those(O::is_solicited), [O::SendSolicited, O::SendSolicitedInvalidate, O::ImmediateSolicited]);
    assert_eq!(those(O::is_send), [O::Send, O::SendInvalidate, O::SendSolicited, O::SendSolicitedInvalidate]);
    let queues: Vec<_> = all.iter().map(|opcode| opcode.queue()).collect();
    let [send, read, terminate] = [Some(0), Some(1), Some(2)];
    assert_eq!(queues, [None, read, None, send, send, send, send, terminate, send, send]);
}

#[test]
fn control_octets_of_each() {
    let octets = |opcode: Opcode, last| {
        let mut out = [0; ddp::CONTROL_LEN];
        opcode.control(last).emit(&mut out);
        out
    };
    assert_eq!(octets(Opcode::Send, true), [0x41, 0x43]);
    assert_eq!(octets(Opcode::Write, false), [0x81, 0x40]);
    assert_eq!(octets(Opcode::ReadRequest, true), [0x41, 0x41]);
    assert_eq!(octets(Opcode::ReadResponse, true), [0xc1, 0x42]);
    assert_eq!(octets(Opcode::Terminate, true), [0x41, 0x47]);
    assert_eq!(octets(Opcode::ImmediateSolicited, true), [0x41, 0x49]);
}

#[test]
fn read_request() {
    let octets: [u8; ReadRequest::LEN] = [
        0x00, 0x01, 0x02, 0x03, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x00, 0x00, 0x10, 0x00, 0x20,
        0x21, 0x22, 0x23, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37,
    ];
    let request = ReadRequest {
        sink_stag: 0x0001_0203,
        sink_offset: 0x1011_1213_1415_1617,
        size: 4096,
        source_stag: 0x2021_2223,
        source_offset: 0x3031_3233_3435_3637,
    };
    assert_eq!(ReadRequest::parse(&octets), request);
    let mut out = [0; ReadRequest::LEN];
    request.emit(&mut out);
    assert_eq!(out, octets);
}

#[test]
fn immediate_data_of_verbs() {
    let immediate = ImmediateData::from_u32(0x0102_0304);
    assert_eq!(immediate, ImmediateData([1, 2, 3, 4, 0, 0, 0, 0]));
    assert_eq!(immediate.to_u32(), 0x0102_0304);
}

proptest! {
    #[test]
    fn every_read_request_round_trips(octets: [u8; ReadRequest::LEN]) {
        let mut out = [0; ReadRequest::LEN];
        ReadRequest::parse(&octets).emit(&mut out);
        prop_assert_eq!(out, octets);
    }
}
