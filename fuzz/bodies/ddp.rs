//! A header is written back as it was read, but for the reserved bits.

use rdmacm_gluster::wire::ddp::{Control, Header};

pub(crate) fn run(data: &[u8]) {
    if let Some(octets) = data.first_chunk() {
        let mut out = [0; 2];
        Control::parse(octets).emit(&mut out);
        assert_eq!(out, [octets[0] & 0xc3, octets[1] & 0xcf]);
    }
    let Ok(Some(header)) = Header::parse(data) else { return };
    let mut out = data[..header.len()].to_vec();
    assert_eq!(header.emit(&mut out), header.len());
    assert_eq!(out[2..], data[2..header.len()]);
    assert_eq!(Header::parse(&out), Ok(Some(header)));
    for len in 0..header.len() {
        assert_eq!(Header::parse(&data[..len]), Ok(None));
        assert_eq!(header.emit(&mut out[..len]), 0);
    }
}
