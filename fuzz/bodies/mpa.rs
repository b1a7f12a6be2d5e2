//! What is read is written back octet by octet, and nothing panics.

use rdmacm_gluster::wire::mpa::{self, CRC_FIELD, Enhanced, Kind, LENGTH_FIELD, START_LEN, Start};
use rdmacm_gluster::wire::tag::{self, Tag};

pub(crate) fn run(data: &[u8]) {
    start(Kind::Request, data);
    start(Kind::Reply, data);
    word(data);
    fpdu(data);
    tag(data);
}

fn start(kind: Kind, data: &[u8]) {
    let Ok(Some(start)) = Start::parse(kind, data) else { return };
    let mut out = [0; START_LEN];
    start.emit(kind, &mut out);
    assert_eq!(out, data[..START_LEN]);
    for len in 0..START_LEN {
        assert_eq!(Start::parse(kind, &data[..len]), Ok(None));
    }
}

fn word(data: &[u8]) {
    let Some(octets) = data.first_chunk() else { return };
    let mut out = [0; mpa::ENHANCED_LEN];
    Enhanced::parse(octets).emit(&mut out);
    assert_eq!(out, *octets);
}

fn fpdu(data: &[u8]) {
    let Some(len) = mpa::ulpdu_len(data) else { return };
    let Some(fpdu) = data.get(..mpa::fpdu_len(len)) else { return };
    assert_eq!(fpdu.len() % 4, 0);
    assert!(mpa::max_ulpdu_within(fpdu.len()) >= len);
    let whole = mpa::crc_matches(fpdu);
    let (covered, field) = fpdu.split_at(fpdu.len() - CRC_FIELD);
    let crc = rdmacm_gluster::wire::crc::crc32c(covered);
    assert_eq!(whole, mpa::crc_to_wire(crc) == *field);
    let rebuilt = [&covered[..LENGTH_FIELD + len], &mpa::trailer(len, crc)].concat();
    assert_eq!(rebuilt.len(), fpdu.len());
}

fn tag(data: &[u8]) {
    let (user, Some(tag)) = Tag::split(data) else { return };
    let mut out = [0; tag::LEN];
    tag.emit(user, &mut out);
    assert_eq!([user, &out].concat(), data);
}
