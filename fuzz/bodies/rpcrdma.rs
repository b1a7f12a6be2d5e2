//! What is read is written back octet by octet, whatever the lists hold, and nothing panics.

use rdmacm_gluster::wire::cm_private::{self, CmPrivate};
use rdmacm_gluster::wire::rpcrdma::{Body, Chunks, Dialect, Header, Outgoing, ReadSegment, Segment};

pub(crate) fn run(data: &[u8]) {
    for dialect in [Dialect::Rfc, Dialect::GlusterFs] {
        header(data, dialect);
    }
    private(data);
}

fn header(data: &[u8], expected: Dialect) {
    let Ok(header) = Header::parse(data, expected) else { return };
    let (chunks, rest) = match header.body {
        Body::Message(chunks, rpc) => (chunks, Some(rpc)),
        Body::NoMessage(chunks) => (chunks, None),
        Body::Error(_) => return,
    };
    let Chunks { reads, writes, reply, dialect } = chunks;
    let reads: Vec<ReadSegment> = reads.segments().collect();
    let writes: Vec<Vec<Segment>> = writes.chunks().map(|chunk| chunk.segments().collect()).collect();
    let writes: Vec<&[Segment]> = writes.iter().map(Vec::as_slice).collect();
    let reply: Option<Vec<Segment>> = reply.map(|chunk| chunk.segments().collect());
    let again = Outgoing {
        xid: header.xid,
        credits: header.credits,
        message: rest.is_some(),
        reads: &reads,
        writes: &writes,
        reply: reply.as_deref(),
        dialect,
    };
    let mut out = vec![0; again.octets()];
    assert_eq!(again.emit(&mut out), Some(out.len()));
    assert_eq!(out, data[..out.len()]);
    if let Some(rpc) = rest {
        assert_eq!(out.len() + rpc.len(), data.len());
    }
}

fn private(data: &[u8]) {
    let Some(said) = CmPrivate::parse(data) else { return };
    let mut out = [0; cm_private::LEN];
    said.emit(&mut out);
    assert_eq!(CmPrivate::parse(&out), Some(said));
}
