//! Read Requests are exact; a Terminate keeps its meaning when it is written again.

use rdmacm_gluster::wire::rdmap::{Opcode, ReadRequest, TermCode, Terminate};

pub(crate) fn run(data: &[u8]) {
    if let Some(opcode) = data.first().copied().and_then(Opcode::from_u8) {
        assert_eq!(opcode.is_tagged(), opcode.queue().is_none());
        assert_eq!(opcode.control(true).opcode, data[0]);
    }
    if let Some(octets) = data.first_chunk() {
        let mut out = [0; ReadRequest::LEN];
        ReadRequest::parse(octets).emit(&mut out);
        assert_eq!(out, *octets);
    }
    terminate(data);
}

fn terminate(data: &[u8]) {
    let Some(terminate) = Terminate::parse(data) else {
        assert!(data.len() < 4);
        return;
    };
    assert!(!terminate.to_string().is_empty());
    let mut out = [0; Terminate::MAX_LEN];
    let len = terminate.emit(&mut out);
    let again = Terminate::parse(&out[..len]);
    let again = again.expect("a Terminate has its control word");
    assert_eq!(again.ddp_segment_len, terminate.ddp_segment_len);
    assert_eq!(again.ddp_header, terminate.ddp_header);
    assert_eq!(again.read_request, terminate.read_request);
    // An error that no RFC defines, without header bits, may be taken for a swapped one that exists.
    let TermCode { layer, etype, code } = terminate.term_code();
    let readings = [TermCode::new(layer, etype, code), TermCode::new(etype, layer, code)];
    assert!(readings.contains(&again.term_code()));
}
