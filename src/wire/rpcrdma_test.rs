use super::*;
use proptest::prelude::*;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn chunks_of(octets: &[u8]) -> (Chunks<'_>, Option<&[u8]>) {
    match Header::parse(octets, Dialect::Rfc).unwrap().body {
        Body::Message(chunks, rpc) => (chunks, Some(rpc)),
        Body::NoMessage(chunks) => (chunks, None),
        Body::Error(complaint) => panic!("{complaint:?}"),
    }
}

fn emitted(header: &Outgoing<'_>) -> Vec<u8> {
    let mut out = vec![0xaa; header.octets()];
    assert_eq!(header.emit(&mut out), Some(header.octets()));
    for room in 0..header.octets() {
        assert_eq!(header.emit(&mut vec![0; room]), None);
    }
    out
}

/// The beginning of an RPC call: xid, CALL, version 2, program NFS, version 4.
fn call(xid: u32) -> [u32; 5] {
    [xid, 0, 2, 100_003, 4]
}

#[test]
fn a_call_of_the_kernel_with_a_reply_chunk() {
    let octets = words(
        &[&[0x20ad_b33b, 1, 128, 0, 0, 0, 1, 1, 0xccf, 4240, 0x3bb3_ad20, 0x1000][..], &call(0x20ad_b33b)]
            .concat(),
    );
    let header = Header::parse(&octets, Dialect::Rfc).unwrap();
    assert_eq!((header.xid, header.credits), (0x20ad_b33b, 128));
    let (chunks, rpc) = chunks_of(&octets);
    assert_eq!(rpc, Some(&words(&call(0x20ad_b33b))[..]));
    assert_eq!(
        (chunks.reads, chunks.writes, chunks.dialect),
        (Reads::default(), Writes::default(), Dialect::Rfc)
    );
    let segment = Segment { handle: 0xccf, length: 4240, offset: 0x3bb3_ad20_0000_1000 };
    assert_eq!(chunks.reply.unwrap().segments().collect::<Vec<_>>(), [segment]);
    let header = Outgoing {
        xid: 0x20ad_b33b,
        credits: 128,
        message: true,
        reply: Some(&[segment]),
        ..Outgoing::default()
    };
    assert_eq!(emitted(&header), octets[..header.octets()]);
}

#[test]
fn a_call_of_the_kernel_with_a_read_chunk() {
    // 256 KiB in two segments of one position.
    let octets =
        words(&[9, 1, 128, 0, 1, 184, 7, 131_072, 9, 0, 1, 184, 8, 131_072, 10, 0, 0, 0, 0, 9, 0, 2]);
    let (chunks, rpc) = chunks_of(&octets);
    let expected = [(7, 9 << 32), (8, 10 << 32)].map(|(handle, offset)| ReadSegment {
        position: 184,
        segment: Segment { handle, length: 131_072, offset },
    });
    assert_eq!(chunks.reads.segments().collect::<Vec<_>>(), expected);
    assert_eq!((chunks.reads.len(), rpc.map(<[u8]>::len)), (2, Some(12)));
    let header = Outgoing { xid: 9, credits: 128, message: true, reads: &expected, ..Outgoing::default() };
    assert_eq!(emitted(&header), octets[..octets.len() - 12]);
}

#[test]
fn a_write_list_of_several_chunks() {
    let segment = |handle, length| Segment { handle, length, offset: 0x1_0000_0000 };
    let (first, second) = ([segment(1, 10), segment(2, 0)], [segment(3, 5)]);
    let header = Outgoing { xid: 1, credits: 2, writes: &[&first, &[], &second], ..Outgoing::default() };
    let octets = emitted(&header);
    let (chunks, rpc) = chunks_of(&octets);
    assert_eq!(rpc, None);
    let lists: Vec<Vec<_>> = chunks.writes.chunks().map(|chunk| chunk.segments().collect()).collect();
    assert_eq!(lists, [&first[..], &[], &second]);
    assert_eq!(chunks.writes.chunks().map(Chunk::octets).collect::<Vec<_>>(), [10, 0, 5]);
    assert_eq!(chunks.writes.chunks().map(Chunk::len).collect::<Vec<_>>(), [2, 0, 1]);
}

/// As captured of GlusterFS on siw; only the offsets are others.
#[test]
fn messages_of_glusterfs() {
    let reply = [1, 1, 0xc476_c200, 0x2_0000, 0x7f20, 0xc804_1318, 0];
    let rpc = [0x3a, 0, 2, 0x0013_d005, 0x190, 0x28];
    let readdirp = words(&[&[0x3a, 1, 0x80, 0, 0, 0][..], &reply, &rpc].concat());
    let (chunks, inline) = chunks_of(&readdirp);
    assert_eq!((chunks.dialect, inline), (Dialect::GlusterFs, Some(&words(&rpc)[..])));
    let segments: Vec<_> = chunks.reply.unwrap().segments().collect();
    let header = Outgoing {
        xid: 0x3a,
        credits: 0x80,
        message: true,
        reply: Some(&segments),
        dialect: Dialect::GlusterFs,
        ..Outgoing::default()
    };
    assert_eq!(emitted(&header), readdirp[..readdirp.len() - 24]);

    let answer = words(&[0x3a, 1, 0x80, 1, 0, 0, 1, 1, 1, 0x340, 0, 0x1000, 0]);
    let (chunks, inline) = chunks_of(&answer);
    assert_eq!((chunks.dialect, inline), (Dialect::GlusterFs, None));

    // Without a reply chunk it is what RFC 8166 has, and only the connection knows.
    let write = words(&[0x1b, 1, 0x80, 0, 1, 0x50, 0xee57_5600, 0x2000, 0, 0x1000, 0, 0, 0, 0x1b, 0, 2]);
    for dialect in [Dialect::Rfc, Dialect::GlusterFs] {
        let Body::Message(chunks, rpc) = Header::parse(&write, dialect).unwrap().body else { panic!() };
        assert_eq!((chunks.dialect, rpc.len()), (dialect, 12));
    }

    let error = words(&[0x43, 1, 0x80, 4, 2, 0, 0, 0x42, 1]);
    let header = Header::parse(&error, Dialect::GlusterFs).unwrap();
    assert_eq!((header.xid, header.body), (0x43, Body::Error(Complaint::Chunk)));
}

#[test]
fn an_xid_of_0_does_not_hide_the_dialect() {
    let head = [0, 1, 1, 0, 0, 0, 1, 1, 7, 8, 0, 0];
    for (rpc, dialect) in [
        (&[0, 0, 2, 1][..], Dialect::Rfc),
        (&[0, 0, 0, 2, 1], Dialect::GlusterFs),
        (&[0, 1, 0, 0, 0], Dialect::Rfc),
        (&[0, 0, 1, 0, 0], Dialect::GlusterFs),
    ] {
        let octets = words(&[&head[..], rpc].concat());
        assert_eq!(chunks_of(&octets).0.dialect, dialect, "{rpc:?}");
    }
}

#[test]
fn refusals() {
    let parse = |list: &[u32]| Header::parse(&words(list), Dialect::Rfc).map(|_| ()).unwrap_err();
    let chunk = |version| Refusal::Answer { xid: 5, version, complaint: Complaint::Chunk };
    let versions = Complaint::Version { low: 1, high: 1 };
    assert_eq!(parse(&[5, 2, 1, 0, 0, 0, 0]), Refusal::Answer { xid: 5, version: 2, complaint: versions });
    assert_eq!(parse(&[5, 1, 1]), Refusal::Silence);
    // RDMA_MSGP, a procedure that nobody has, and RDMA_DONE.
    assert_eq!(parse(&[5, 1, 1, 2, 0, 0, 0]), chunk(1));
    assert_eq!(parse(&[5, 1, 1, 99, 0, 0, 0]), chunk(1));
    assert_eq!(parse(&[5, 1, 1, 3, 0, 0, 0]), Refusal::Silence);
    assert_eq!(parse(&[5, 1, 1, 4]), Refusal::Silence);
    assert_eq!(parse(&[5, 1, 1, 4, 1, 1]), Refusal::Silence);
    for lists in [
        // No list, a list without end, neither 0 nor 1.
        &[][..],
        &[0, 0],
        &[2, 0, 0],
        &[0, 7, 0],
        &[0, 0, 3],
        // A position that is not one of XDR's, and memory behind the end of the address space.
        &[1, 5, 7, 8, 0, 0, 0, 0, 0],
        &[1, 4, 7, 8, u32::MAX, u32::MAX - 6, 0, 0, 0],
        &[0, 1, 1, 7, 8, u32::MAX, u32::MAX - 6, 0, 0],
        &[0, 0, 1, 1, 7, 8, u32::MAX, u32::MAX - 6],
        // More segments than there are, whose octets would wrap around.
        &[0, 1, 2, 7, 8, 0, 0, 0, 0],
        &[0, 1, 0x1000_0001, 7, 8, 0, 0, 0, 0],
        &[0, 0, 1, u32::MAX, 7, 8, 0, 0],
    ] {
        assert_eq!(parse(&[&[5, 1, 1, 0][..], lists].concat()), chunk(1), "{lists:?}");
        assert_eq!(parse(&[&[5, 1, 1, 1][..], lists].concat()), chunk(1), "{lists:?}");
    }
}

#[test]
fn errors_as_they_are_answered() {
    let answer = |complaint, version| {
        let mut out = [0xaa; ERROR_LEN];
        let octets = emit_error(5, version, 64, complaint, &mut out);
        assert_eq!(Header::parse(&out[..octets], Dialect::Rfc).unwrap().body, Body::Error(complaint));
        out[..octets].to_vec()
    };
    assert_eq!(answer(Complaint::Version { low: 1, high: 1 }, 2), words(&[5, 2, 64, 4, 1, 1, 1]));
    assert_eq!(answer(Complaint::Chunk, 1), words(&[5, 1, 64, 4, 2]));
    assert_eq!(answer(Complaint::Unknown(9), 1), words(&[5, 1, 64, 4, 9]));
}

/// A header as its owner.
#[derive(Clone, Debug)]
struct Owned {
    xid: u32,
    credits: u32,
    message: bool,
    reads: Vec<ReadSegment>,
    writes: Vec<Vec<Segment>>,
    reply: Option<Vec<Segment>>,
    dialect: Dialect,
}

impl Owned {
    fn emit(&self) -> Vec<u8> {
        let writes: Vec<_> = self.writes.iter().map(Vec::as_slice).collect();
        emitted(&Outgoing {
            xid: self.xid,
            credits: self.credits,
            message: self.message,
            reads: &self.reads,
            writes: &writes,
            reply: self.reply.as_deref(),
            dialect: self.dialect,
        })
    }
}

fn segment() -> impl Strategy<Value = Segment> {
    (any::<u32>(), any::<u32>(), 0..=u64::MAX - u64::from(u32::MAX))
        .prop_map(|(handle, length, offset)| Segment { handle, length, offset })
}

fn read() -> impl Strategy<Value = ReadSegment> {
    (0..=u32::MAX / 4, segment()).prop_map(|(word, segment)| ReadSegment { position: word * 4, segment })
}

fn header() -> impl Strategy<Value = Owned> {
    let chunk = || prop::collection::vec(segment(), 0..4);
    let lists = (
        prop::collection::vec(read(), 0..5),
        prop::collection::vec(chunk(), 0..4),
        prop::option::of(chunk()),
    );
    let dialect = prop_oneof![Just(Dialect::Rfc), Just(Dialect::GlusterFs)];
    (any::<u32>(), any::<u32>(), any::<bool>(), lists, dialect).prop_map(
        |(xid, credits, message, (reads, writes, reply), dialect)| Owned {
            xid,
            credits,
            message,
            reads,
            writes,
            reply,
            dialect,
        },
    )
}

proptest! {
    #[test]
    fn what_is_sent_is_received(sent in header()) {
        let mut octets = sent.emit();
        let rpc = if sent.message { words(&call(sent.xid)) } else { Vec::new() };
        octets.extend(&rpc);
        let header = Header::parse(&octets, sent.dialect).unwrap();
        prop_assert_eq!((header.xid, header.credits), (sent.xid, sent.credits));
        let (chunks, inline) = match header.body {
            Body::Message(chunks, inline) => (chunks, inline),
            Body::NoMessage(chunks) => (chunks, &[][..]),
            Body::Error(_) => unreachable!(),
        };
        prop_assert_eq!(inline, &rpc[..]);
        prop_assert_eq!(chunks.dialect, sent.dialect);
        prop_assert_eq!(chunks.reads.segments().collect::<Vec<_>>(), sent.reads);
        let writes: Vec<Vec<_>> = chunks.writes.chunks().map(|chunk| chunk.segments().collect()).collect();
        prop_assert_eq!(writes, sent.writes);
        prop_assert_eq!(chunks.reply.map(|chunk| chunk.segments().collect::<Vec<_>>()), sent.reply);
    }

    #[test]
    fn nothing_that_is_cut_short_is_taken(sent in header()) {
        let octets = Owned { dialect: Dialect::Rfc, ..sent }.emit();
        for length in 0..octets.len() {
            prop_assert!(Header::parse(&octets[..length], Dialect::Rfc).is_err(), "{length}");
        }
    }

    #[test]
    fn any_octets_are_survived(lists in prop::collection::vec(0u32..3, 0..40), noise in prop::collection::vec(any::<u8>(), 0..64)) {
        // Small words are most of what lists are made of.
        for octets in [[words(&[5, 1, 1, 0]), words(&lists), noise.clone()].concat(), noise] {
            let Ok(Header { body: Body::Message(chunks, rpc), .. }) = Header::parse(&octets, Dialect::Rfc) else { continue };
            let writes: usize = chunks.writes.chunks().map(|chunk| chunk.segments().count()).sum();
            let segments = chunks.reads.segments().count() + writes + chunks.reply.map_or(0, Chunk::len);
            prop_assert!(segments * Segment::LEN + rpc.len() + MIN_LEN <= octets.len());
        }
    }
}
