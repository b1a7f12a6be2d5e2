use super::*;
use proptest::prelude::*;

fn offer() -> Offer {
    Offer { revision: 2, ird: 8, ord: 8, ..Offer::default() }
}

fn limits() -> Limits {
    let (crc, tag) = (CrcPolicy::Auto, None);
    Limits { ird: 128, ord: 128, crc, offer_crc: false, max_revision: 2, tag }
}

const OURS: OwnTag = OwnTag { max_ulpdu: 65_000, flags: 3 };
const THEIRS: OwnTag = OwnTag { max_ulpdu: 1442, flags: 1 };

fn initiator(offer: Offer) -> Initiator {
    Initiator::new(offer).unwrap()
}

/// A responder that has read this request.
fn responder(limits: Limits, request: &[u8]) -> (Responder, Request) {
    let mut responder = Responder::new(limits);
    let (used, request) = match responder.input(request) {
        Ok((used, read)) => (used, read.unwrap()),
        Err(refusal) => panic!("{refusal:?}"),
    };
    assert!(used > 0);
    (responder, request)
}

/// What an initiator with this offer makes of a reply.
fn reply_to(offer: Offer, reply: &[u8]) -> std::result::Result<(usize, Option<Agreed>), Failure> {
    initiator(offer).input(reply)
}

fn refused(request: &[u8]) -> Refusal {
    Responder::new(limits()).input(request).unwrap_err()
}

#[test]
fn request_octets() {
    let request = initiator(Offer { private_data: b"hello-pd".to_vec(), ..offer() });
    assert_eq!(request.request(), b"MPA ID Req Frame\x10\x02\x00\x0c\x80\x08\xc0\x08hello-pd");
    let with_crc = initiator(Offer { crc: CrcPolicy::On, ..offer() });
    assert_eq!(with_crc.request(), b"MPA ID Req Frame\x50\x02\x00\x04\x80\x08\xc0\x08");
    let old = initiator(Offer { revision: 1, private_data: b"pd".to_vec(), ..offer() });
    assert_eq!(old.request(), b"MPA ID Req Frame\x00\x01\x00\x02pd");
}

/// The request of kernel soft iWARP, and our answer: no peer-to-peer, because it offers none.
#[test]
fn siw_connects() {
    let (mut responder, request) =
        responder(limits(), b"MPA ID Req Frame\x10\x02\x00\x0c\x00\x08\x00\x08hello-pd");
    let private_data = b"hello-pd".to_vec();
    let expected = Request { private_data, ird: 8, ord: 8, tag: None, crc: false, revision: 2 };
    assert_eq!(request, expected);
    let (reply, agreed) = responder.accept(b"welcome", 1, 16).unwrap();
    assert_eq!(reply, b"MPA ID Rep Frame\x10\x02\x00\x0b\x00\x08\x00\x08welcome");
    let (ird, ord, rtr) = (8, 8, Rtr::None);
    let expected =
        Agreed { revision: 2, crc: false, ird, ord, rtr, peer_tag: None, private_data: Vec::new() };
    assert_eq!(agreed, expected);
}

/// The answers of kernel soft iWARP to our request, with either of the frames it may choose.
#[test]
fn siw_accepts() {
    for (octets, rtr) in [
        (*b"\x80\x08\x80\x08", Rtr::Write),
        (*b"\x80\x08\x40\x08", Rtr::Read),
        (*b"\x80\x08\xc0\x08", Rtr::Write),
        (*b"\x00\x08\x00\x08", Rtr::None),
    ] {
        let reply = [b"MPA ID Rep Frame\x10\x02\x00\x06", &octets[..], b"ok"].concat();
        let (used, agreed) = reply_to(offer(), &reply).unwrap();
        let agreed = agreed.unwrap();
        assert_eq!(used, reply.len());
        assert_eq!((agreed.ird, agreed.ord, agreed.rtr, agreed.crc), (8, 8, rtr, false));
        assert_eq!(agreed.private_data, b"ok");
    }
}

/// `rdma_reject` of kernel soft iWARP: the control word is in front of the reject data.
#[test]
fn siw_rejects() {
    let reply = b"MPA ID Rep Frame\x30\x02\x00\x0b\x00\x00\x00\x00sorry..";
    let failure = reply_to(offer(), reply).unwrap_err();
    assert_eq!(failure, Failure::Rejected { reason: 0, private_data: b"sorry..".to_vec() });
    let error = Error::from(failure);
    assert_eq!((error.reason, error.stage), (Reason::Rejected, Stage::Handshake));

    let (mut responder, _) = responder(limits(), b"MPA ID Req Frame\x10\x02\x00\x04\x00\x08\x00\x08");
    assert_eq!(responder.reject(5, b"sorry..").unwrap(), reply);
}

#[test]
fn markers_are_refused_politely() {
    // M + C + S, as kernel soft iWARP answers it.
    let refusal = refused(b"MPA ID Req Frame\xd0\x02\x00\x06\x00\x08\x00\x08pd");
    assert_eq!(refusal.reply.unwrap(), b"MPA ID Rep Frame\x70\x02\x00\x04\x00\x00\x00\x00");
    let refusal = refused(b"MPA ID Req Frame\x80\x01\x00\x02pd");
    assert_eq!(refusal.reply.unwrap(), b"MPA ID Rep Frame\x20\x01\x00\x00");
    assert_eq!(refusal.error.reason, Reason::Protocol);
    // The same with data behind it.
    assert!(refused(b"MPA ID Req Frame\x80\x01\x00\x02pd\x00\x12").reply.is_some());

    let failure = reply_to(offer(), b"MPA ID Rep Frame\x90\x02\x00\x04\x00\x08\x00\x08").unwrap_err();
    assert!(matches!(failure, Failure::Protocol { terminate: None, .. }), "{failure:?}");
}

#[test]
fn a_missing_control_word_is_rejected() {
    for len in 0..4u8 {
        let request =
            [b"MPA ID Req Frame\x10\x02\x00".as_slice(), &[len], &vec![0; usize::from(len)]].concat();
        assert_eq!(refused(&request).reply.unwrap(), b"MPA ID Rep Frame\x30\x02\x00\x04\x00\x00\x00\x00");
        let reply = [b"MPA ID Rep Frame\x10\x02\x00".as_slice(), &[len], &vec![0; usize::from(len)]].concat();
        let failure = reply_to(offer(), &reply).unwrap_err();
        assert!(matches!(failure, Failure::Protocol { terminate: Some(term::MPA_INVALID_START), .. }));
    }
}

#[test]
fn what_is_no_request_gets_no_reply() {
    for request in [
        b"MPA ID Rep Frame\x10\x02\x00\x04\x00\x08\x00\x08".as_slice(),
        b"GET / HTTP/1.1\r\n",
        b"MPA ID Req Frame\x10\x03\x00\x04\x00\x08\x00\x08",
        b"MPA ID Req Frame\x10\x02\x02\x01",
    ] {
        assert_eq!(refused(request).reply, None);
    }
    let old = Limits { max_revision: 1, ..limits() };
    let refusal = Responder::new(old).input(b"MPA ID Req Frame\x10\x02\x00\x04\x00\x08\x00\x08").unwrap_err();
    assert_eq!(refusal.reply, None);
    assert!(refused(b"G").error.remedy.contains("iWARP"));
}

#[test]
fn revisions_0_and_1_carry_no_resources() {
    for revision in [0, 1] {
        let (mut responder, request) =
            responder(limits(), &[b"MPA ID Req Frame\x00", &[revision, 0, 2][..], b"pd"].concat());
        assert_eq!((request.revision, request.ird, request.ord), (1, 0, 0));
        assert_eq!(request.private_data, b"pd");
        let (reply, agreed) = responder.accept(b"yes", 200, 5).unwrap();
        assert_eq!(reply, [b"MPA ID Rep Frame\x00", &[revision, 0, 3][..], b"yes"].concat());
        assert_eq!((agreed.revision, agreed.ird, agreed.ord, agreed.rtr), (1, 128, 5, Rtr::None));
    }
}

#[test]
fn before_revision_2_s_means_nothing() {
    let (mut responder, request) = responder(limits(), b"MPA ID Req Frame\x1f\x01\x00\x02pd");
    assert_eq!(request.private_data, b"pd");
    assert_eq!(responder.accept(b"", 1, 1).unwrap().0, b"MPA ID Rep Frame\x00\x01\x00\x00");
}

#[test]
fn an_unenhanced_request_of_revision_2() {
    let (mut responder, request) = responder(limits(), b"MPA ID Req Frame\x40\x02\x00\x02pd");
    assert_eq!((request.ird, request.ord, request.revision), (0, 0, 2));
    let (reply, agreed) = responder.accept(b"", 1, 1).unwrap();
    assert_eq!(reply, b"MPA ID Rep Frame\x40\x02\x00\x00");
    assert!(agreed.crc);
}

#[test]
fn an_old_responder_asks_for_an_old_request() {
    for reply in [
        b"MPA ID Rep Frame\x00\x01\x00\x00".as_slice(),
        b"MPA ID Rep Frame\x00\x02\x00\x00",
        b"MPA ID Rep Frame\x10\x01\x00\x04\x00\x08\x00\x08",
    ] {
        let failure = reply_to(offer(), reply).unwrap_err();
        assert!(matches!(failure, Failure::Downgrade(_)), "{failure:?}");
    }
    let old = Offer { revision: 1, ..offer() };
    assert!(reply_to(old.clone(), b"MPA ID Rep Frame\x00\x01\x00\x00").unwrap().1.is_some());
    for reply in [b"MPA ID Rep Frame\x00\x03\x00\x00", b"MPA ID Rep Frame\x00\x02\x00\x00"] {
        let failure = reply_to(old.clone(), reply).unwrap_err();
        assert!(matches!(failure, Failure::Protocol { terminate: None, .. }), "{failure:?}");
    }
}

#[test]
fn resources_meet_in_the_middle() {
    // (initiator's IRD, ORD), (responder's IRD, ORD) -> the responder's IRD and ORD.
    for (asked, wanted, agreed) in [
        ((8, 8), (4, 4), (8, 4)),
        ((2, 1), (4, 4), (4, 2)),
        ((0, 0), (0, 0), (0, 0)),
        ((300, 300), (1, 300), (128, 128)),
    ] {
        let mut initiator = initiator(Offer { ird: asked.0, ord: asked.1, ..offer() });
        let (mut responder, request) = responder(limits(), initiator.request());
        assert_eq!((request.ird, request.ord), asked);
        let (reply, theirs) = responder.accept(b"", wanted.0, wanted.1).unwrap();
        assert_eq!((theirs.ird, theirs.ord), agreed);
        let ours = initiator.input(&reply).unwrap().1.unwrap();
        assert_eq!((ours.ird, ours.ord), (asked.0, asked.1.min(agreed.0)));
        assert!(theirs.ord <= ours.ird && ours.ord <= theirs.ird);
    }
}

#[test]
fn a_cap_is_not_exceeded_for_a_greedy_peer() {
    let mut greedy = initiator(Offer { ird: 100, ord: 100, ..offer() });
    let (mut responder, request) = responder(limits(), greedy.request());
    assert_eq!(request.ord, 100);
    responder.cap(4);
    let (reply, agreed) = responder.accept(&[], 4, 8).unwrap();
    assert_eq!((agreed.ird, agreed.ord), (4, 8));
    let there = greedy.input(&reply).unwrap().1.unwrap();
    assert_eq!((there.ird, there.ord), (100, 4), "the initiator keeps to what it was granted");
}

#[test]
fn not_negotiated_is_no_limit() {
    let (mut responder, request) = responder(limits(), b"MPA ID Req Frame\x10\x02\x00\x04\x3f\xff\x3f\xff");
    assert_eq!((request.ird, request.ord), (0x3fff, 0x3fff));
    // As kernel soft iWARP answers it.
    let (reply, _) = responder.accept(b"", 8, 8).unwrap();
    assert_eq!(reply[START_LEN..], [0x00, 0x80, 0x00, 0x08]);

    let reply = b"MPA ID Rep Frame\x10\x02\x00\x04\x3f\xff\x3f\xff";
    let agreed = reply_to(offer(), reply).unwrap().1.unwrap();
    assert_eq!((agreed.ird, agreed.ord), (8, 8));
}

#[test]
fn a_responder_that_wants_too_much_is_told() {
    let failure = reply_to(offer(), b"MPA ID Rep Frame\x10\x02\x00\x04\x00\x08\x00\x09").unwrap_err();
    assert!(
        matches!(&failure, Failure::Protocol { terminate: Some(term::MPA_INSUFFICIENT_IRD), .. }),
        "{failure:?}"
    );
    assert_eq!(Error::from(failure).provider_code, 0x2006);
    let failure = reply_to(offer(), b"MPA ID Rep Frame\x10\x02\x00\x04\xc0\x08\x00\x08").unwrap_err();
    assert!(matches!(failure, Failure::Protocol { terminate: Some(term::MPA_NO_MATCHING_RTR), .. }));
}

#[test]
fn the_first_frame_as_it_was_offered() {
    for (word, expected) in [
        ([0x80, 8, 0xc0, 8], [0x80, 8, 0x80, 8]),
        ([0x80, 8, 0x40, 8], [0x80, 8, 0x40, 8]),
        ([0x80, 8, 0x00, 8], [0x80, 8, 0x80, 8]),
        ([0xc0, 8, 0x00, 8], [0x80, 8, 0x80, 8]),
        // No peer-to-peer, hence no such frame.
        ([0x40, 8, 0xc0, 8], [0x00, 8, 0x00, 8]),
        ([0x00, 8, 0x00, 8], [0x00, 8, 0x00, 8]),
    ] {
        let request = [b"MPA ID Req Frame\x10\x02\x00\x04", &word[..]].concat();
        let (mut responder, _) = responder(limits(), &request);
        assert_eq!(responder.accept(b"", 8, 8).unwrap().0[START_LEN..], expected);
    }
}

/// Every revision, CRC policy of either side, first frame, tag of either side and length of private data, one octet
/// at a time.
#[test]
fn the_matrix() {
    let policies = [CrcPolicy::Auto, CrcPolicy::On, CrcPolicy::Off];
    let tags = [(None, None), (Some(OURS), None), (None, Some(THEIRS)), (Some(OURS), Some(THEIRS))];
    for case in 0..2 * 9 * 3 * 4 * 3 {
        let revision = 1 + case as u8 % 2;
        let (here, there) = (policies[case / 2 % 3], policies[case / 6 % 3]);
        let rtr_bits = [0xc0, 0x40, 0x80][case / 18 % 3];
        let (ours, theirs) = tags[case / 54 % 4];
        let len = [0, 1, 492][case / 216 % 3];
        let private_data = vec![case as u8; len];
        let offer = Offer { revision, crc: here, tag: ours, private_data: private_data.clone(), ..offer() };
        let mut initiator = initiator(offer);
        let mut request = initiator.request().to_vec();
        if revision == 2 {
            request[START_LEN + 2] = rtr_bits;
        }
        let mut responder = Responder::new(Limits { crc: there, tag: theirs, ..limits() });
        let read = in_pieces(&request, &[1], |piece| responder.input(piece)).unwrap().unwrap();
        assert_eq!(read.private_data, private_data);
        let (reply, agreed) = responder.accept(&private_data, 8, 8).unwrap();
        let seen = in_pieces(&reply, &[1], |piece| initiator.input(piece)).unwrap().unwrap();
        let rtr = match (revision, rtr_bits) {
            (1, _) => Rtr::None,
            (_, 0x40) => Rtr::Read,
            _ => Rtr::Write,
        };
        let crc = here == CrcPolicy::On || there == CrcPolicy::On;
        let both = ours.is_some() && theirs.is_some();
        let expected = |peer_tag: Option<OwnTag>, private_data| {
            let peer_tag = peer_tag.filter(|_| both);
            Agreed { revision, crc, ird: 8, ord: 8, rtr, peer_tag, private_data }
        };
        assert_eq!(agreed, expected(ours, Vec::new()));
        assert_eq!(seen, expected(theirs, private_data));
    }
}

#[test]
fn every_truncation_needs_more() {
    let request =
        initiator(Offer { private_data: b"pd".to_vec(), tag: Some(OURS), ..offer() }).request().to_vec();
    let (mut answered, _) = responder(Limits { tag: Some(THEIRS), ..limits() }, &request);
    let (reply, _) = answered.accept(b"answer", 1, 1).unwrap();
    for len in 0..request.len() {
        assert_eq!(Responder::new(limits()).input(&request[..len]).unwrap(), (len, None));
    }
    for len in 0..reply.len() {
        assert_eq!(reply_to(offer(), &reply[..len]).unwrap(), (len, None));
    }
}

#[test]
fn fpdus_behind_the_reply_are_left_alone() {
    let mut initiator = initiator(offer());
    let bytes = b"MPA ID Rep Frame\x10\x02\x00\x06\x80\x08\x80\x08ok\x00\x12\x41\x43";
    let (used, agreed) = initiator.input(bytes).unwrap();
    assert_eq!(used, 26);
    assert_eq!(agreed.unwrap().private_data, b"ok");
    assert!(initiator.is_done());
    assert_eq!(initiator.input(b"\x00\x12\x41\x43").unwrap(), (0, None));
}

#[test]
fn octets_behind_the_request_break_the_protocol() {
    let request = b"MPA ID Req Frame\x10\x02\x00\x04\x00\x08\x00\x08";
    assert_eq!(refused(&[&request[..], b"\x00"].concat()).reply, None);

    let (mut one, _) = responder(limits(), request);
    assert_eq!(one.input(b"").unwrap(), (0, None));
    assert_eq!(one.input(b"\x00").unwrap_err().reply, None);
    assert_eq!(one.accept(b"", 1, 1).unwrap_err().reason, Reason::State);

    let (mut one, _) = responder(limits(), request);
    one.accept(b"", 1, 1).unwrap();
    assert_eq!(one.input(b"\x00\x12").unwrap(), (0, None));
}

#[test]
fn an_answer_is_given_once() {
    let mut early = Responder::new(limits());
    assert_eq!(early.reject(0, b"").unwrap_err().reason, Reason::State);
    let (mut responder, _) = responder(limits(), initiator(offer()).request());
    responder.accept(b"", 1, 1).unwrap();
    assert_eq!(responder.accept(b"", 1, 1).unwrap_err().reason, Reason::State);
    assert_eq!(responder.reject(0, b"").unwrap_err().reason, Reason::State);
}

#[test]
fn private_data_up_to_the_limit_and_no_more() {
    assert_eq!(max_private_data(1, false), 512);
    assert_eq!(max_private_data(2, false), 508);
    assert_eq!(max_private_data(2, true), 492);
    for (revision, tag) in [(1, None), (1, Some(OURS)), (2, None), (2, Some(OURS))] {
        let most = max_private_data(revision, tag.is_some());
        let too_much = Offer { revision, tag, private_data: vec![7; most + 1], ..offer() };
        assert_eq!(Initiator::new(too_much).err().unwrap().reason, Reason::Invalid);
        let mut initiator = initiator(Offer { revision, tag, private_data: vec![7; most], ..offer() });
        assert_eq!(initiator.request().len(), START_LEN + 512);

        let (mut responder, request) = responder(Limits { tag, ..limits() }, initiator.request());
        assert_eq!(request.private_data, vec![7; most]);
        assert_eq!(responder.max_private_data(), most);
        // A refused answer leaves the request to be answered.
        assert_eq!(responder.accept(&vec![9; most + 1], 1, 1).unwrap_err().reason, Reason::Invalid);
        let (reply, _) = responder.accept(&vec![9; most], 1, 1).unwrap();
        assert_eq!(initiator.input(&reply).unwrap().1.unwrap().private_data, vec![9; most]);
    }
}

#[test]
fn bad_offers() {
    for bad in [
        Offer { revision: 0, ..offer() },
        Offer { revision: 3, ..offer() },
        Offer { ird: 0x3fff, ..offer() },
        Offer { ord: 0x4000, ..offer() },
    ] {
        assert_eq!(Initiator::new(bad).err().unwrap().reason, Reason::Invalid);
    }
    let most = Limits { ird: u16::MAX, ord: u16::MAX, ..limits() };
    let (mut responder, _) = responder(most, b"MPA ID Req Frame\x10\x02\x00\x04\x3f\xff\x3f\xff");
    let (_, agreed) = responder.accept(b"", u16::MAX, u16::MAX).unwrap();
    assert_eq!((agreed.ird, agreed.ord), (0x3ffe, 0x3ffe));
}

#[test]
fn tags_are_exchanged_and_hidden() {
    for (ours, theirs) in [(None, None), (Some(OURS), None), (None, Some(THEIRS)), (Some(OURS), Some(THEIRS))]
    {
        let mut initiator = initiator(Offer { tag: ours, private_data: b"question".to_vec(), ..offer() });
        let (mut responder, request) = responder(Limits { tag: theirs, ..limits() }, initiator.request());
        assert_eq!((request.tag, &request.private_data[..]), (ours, &b"question"[..]));
        let (reply, there) = responder.accept(b"answer", 1, 1).unwrap();
        let here = initiator.input(&reply).unwrap().1.unwrap();
        assert_eq!(here.private_data, b"answer");
        let both = ours.is_some() && theirs.is_some();
        assert_eq!(here.peer_tag, theirs.filter(|_| both));
        assert_eq!(there.peer_tag, ours.filter(|_| both));
        assert_eq!(reply.len(), START_LEN + ENHANCED_LEN + 6 + if both { tag::LEN } else { 0 });
    }
}

#[test]
fn a_reject_carries_its_reason_to_our_own() {
    for (tag, reason, seen) in [(Some(OURS), 4, 4), (Some(OURS), 1000, 255), (None, 4, 0)] {
        let mut initiator = initiator(Offer { tag, ..offer() });
        let (mut responder, _) = responder(Limits { tag: Some(THEIRS), ..limits() }, initiator.request());
        let reply = responder.reject(reason, b"no").unwrap();
        let failure = initiator.input(&reply).unwrap_err();
        assert_eq!(failure, Failure::Rejected { reason: seen, private_data: b"no".to_vec() });
    }
}

#[test]
fn a_peer_that_hangs_up() {
    let mut initiator = initiator(offer());
    initiator.input(b"MPA ID R").unwrap();
    assert_eq!(initiator.closed().reason, Reason::PeerClosed);
    initiator.input(b"ep Frame\x10\x02\x00\x04\x80\x08\x80\x08").unwrap();
    assert_eq!(initiator.closed().reason, Reason::State);
}

/// Feeds `bytes` in pieces of these lengths, over and over.
fn in_pieces<T, E>(
    bytes: &[u8],
    lens: &[usize],
    mut input: impl FnMut(&[u8]) -> std::result::Result<(usize, Option<T>), E>,
) -> std::result::Result<Option<T>, E> {
    let mut rest = bytes;
    for len in lens.iter().cycle() {
        let (piece, left) = rest.split_at((*len).clamp(1, rest.len().max(1)).min(rest.len()));
        let (used, outcome) = input(piece)?;
        if outcome.is_some() || left.is_empty() {
            return Ok(outcome);
        }
        assert_eq!(used, piece.len());
        rest = left;
    }
    Ok(None)
}

fn any_tag() -> impl Strategy<Value = Option<OwnTag>> {
    prop::option::of((any::<u16>(), any::<u16>()).prop_map(|(max_ulpdu, flags)| OwnTag { max_ulpdu, flags }))
}

fn any_policy() -> impl Strategy<Value = CrcPolicy> {
    prop::sample::select(vec![CrcPolicy::Auto, CrcPolicy::On, CrcPolicy::Off])
}

prop_compose! {
    fn any_offer()(
        revision in 1..=2u8, crc in any_policy(), offer_crc: bool, ird in 0..=MAX_RESOURCES,
        ord in 0..=MAX_RESOURCES, private_data in prop::collection::vec(any::<u8>(), 0..=492), tag in any_tag(),
    ) -> Offer {
        Offer { revision, crc, offer_crc, ird, ord, private_data, tag }
    }
}

prop_compose! {
    fn any_limits()(
        ird: u16, ord: u16, crc in any_policy(), offer_crc: bool, tag in any_tag(),
    ) -> Limits {
        Limits { ird, ord, crc, offer_crc, max_revision: 2, tag }
    }
}

proptest! {
    /// Whatever two of our own ask for, both come to the same view of the connection, in pieces of any size.
    #[test]
    fn both_ends_agree(
        offer in any_offer(), limits in any_limits(), answer in prop::collection::vec(any::<u8>(), 0..=492),
        ird: u16, ord: u16, lens in prop::collection::vec(1..40usize, 1..5),
    ) {
        let mut initiator = initiator(offer.clone());
        let mut responder = Responder::new(limits);
        let bytes = initiator.request().to_vec();
        let request = in_pieces(&bytes, &lens, |piece| responder.input(piece)).unwrap().unwrap();
        prop_assert_eq!(&request.private_data, &offer.private_data);
        prop_assert_eq!((request.tag, request.revision), (offer.tag, offer.revision));

        let (reply, there) = responder.accept(&answer, ird, ord).unwrap();
        let outcome = in_pieces(&reply, &lens, |piece| initiator.input(piece));
        if offer.revision == 2 {
            prop_assert!(there.ord <= offer.ird);
        }
        let here = outcome.unwrap().unwrap();
        let crc = offer.crc.offers(offer.offer_crc) || limits.crc.offers(limits.offer_crc);
        prop_assert_eq!((here.crc, there.crc), (crc, crc));
        let rtr = if offer.revision == 2 { Rtr::Write } else { Rtr::None };
        prop_assert_eq!((here.rtr, there.rtr), (rtr, rtr));
        prop_assert_eq!(here.private_data, answer);
        prop_assert_eq!(here.peer_tag.is_some(), there.peer_tag.is_some());
        if offer.revision == 2 {
            prop_assert!(here.ord <= there.ird && there.ord <= here.ird);
        }
    }

    #[test]
    fn both_ends_survive_any_octets(
        start: [u8; 4], rest in prop::collection::vec(any::<u8>(), 0..64), offer in any_offer(), limits in any_limits(),
    ) {
        let request = [&mpa::REQUEST_KEY[..], &start, &rest].concat();
        let mut responder = Responder::new(limits);
        if let Ok((_, Some(_))) = responder.input(&request) {
            prop_assert!(responder.accept(b"x", 1, 1).is_ok());
        }
        let reply = [&mpa::REPLY_KEY[..], &start, &rest].concat();
        if let Err(failure) = initiator(offer).input(&reply) {
            prop_assert!(Error::from(failure).errno > 0);
        }
    }

    #[test]
    fn flipped_bits_and_truncations_are_survived(offer in any_offer(), bit in 0..4096usize, keep in 0..600usize) {
        let mut initiator = initiator(offer);
        let mut bytes = initiator.request().to_vec();
        let at = bit / 8 % bytes.len();
        bytes[at] ^= 1 << (bit % 8);
        bytes.truncate(keep);
        let mut one = Responder::new(limits());
        if let Ok((_, Some(_))) = one.input(&bytes) {
            let (mut reply, _) = one.accept(b"answer", 4, 4).unwrap();
            let at = bit / 8 % reply.len();
            reply[at] ^= 1 << (bit % 8);
            let _ = initiator.input(&reply);
        }
    }
}
