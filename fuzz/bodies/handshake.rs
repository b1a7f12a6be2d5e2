//! Connection set-up: the outcome does not depend on how the octets arrive, nothing beyond the frame is taken, and
//! whatever a responder accepts its answer can be read.

use rdmacm_gluster::iwarp::handshake::{CrcPolicy, Initiator, Limits, Offer, OwnTag, Responder};
use rdmacm_gluster::wire::mpa::{MAX_PRIVATE_DATA, START_LEN};

pub(crate) fn run(data: &[u8]) {
    let [settings, pieces, peer @ ..] = data else { return };
    let settings = Settings(*settings);
    let piece = usize::from(*pieces).max(1);
    if settings.bit(0) {
        initiator(&settings, peer, piece);
    } else {
        responder(&settings, peer, piece);
    }
}

struct Settings(u8);

impl Settings {
    fn bit(&self, number: u32) -> bool {
        self.0 >> number & 1 == 1
    }

    fn revision(&self) -> u8 {
        1 + u8::from(self.bit(1))
    }

    fn crc(&self) -> CrcPolicy {
        match self.0 >> 2 & 3 {
            0 => CrcPolicy::On,
            1 => CrcPolicy::Off,
            _ => CrcPolicy::Auto,
        }
    }

    fn tag(&self) -> Option<OwnTag> {
        self.bit(4).then_some(OwnTag { max_ulpdu: 65_000, flags: 1 })
    }

    fn resources(&self) -> u16 {
        if self.bit(5) { 128 } else { 1 }
    }

    fn offer(&self) -> Offer {
        Offer {
            revision: self.revision(),
            crc: self.crc(),
            offer_crc: self.bit(6),
            ird: self.resources(),
            ord: self.resources(),
            private_data: b"question".to_vec(),
            tag: self.tag(),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            ird: self.resources(),
            ord: self.resources(),
            crc: self.crc(),
            offer_crc: self.bit(6),
            max_revision: self.revision(),
            tag: self.tag(),
        }
    }
}

/// Feeds `bytes` in pieces: octets taken, and the first outcome or the first failure.
fn feed<T, E>(
    bytes: &[u8],
    piece: usize,
    mut input: impl FnMut(&[u8]) -> Result<(usize, Option<T>), E>,
) -> Result<(usize, Option<T>), E> {
    let mut taken = 0;
    let mut outcome = None;
    for piece in bytes.chunks(piece) {
        let (used, value) = input(piece)?;
        assert!(used <= piece.len());
        taken += used;
        outcome = outcome.or(value);
    }
    assert!(taken <= START_LEN + MAX_PRIVATE_DATA);
    Ok((taken, outcome))
}

fn initiator(settings: &Settings, peer: &[u8], piece: usize) {
    let new = || Initiator::new(settings.offer()).expect("a valid offer");
    let (mut whole, mut pieces) = (new(), new());
    let outcome = feed(peer, peer.len().max(1), |bytes| whole.input(bytes));
    assert_eq!(outcome, feed(peer, piece, |bytes| pieces.input(bytes)));
    match outcome {
        Ok((taken, Some(agreed))) => {
            let offer = settings.offer();
            assert!(taken >= START_LEN && agreed.ird <= offer.ird && agreed.ord <= offer.ord);
        }
        Ok((taken, None)) => assert_eq!(taken, peer.len()),
        Err(failure) => assert!(rdmacm_gluster::error::Error::from(failure).errno > 0),
    }
}

fn responder(settings: &Settings, peer: &[u8], piece: usize) {
    let new = || Responder::new(settings.limits());
    let (mut whole, mut pieces) = (new(), new());
    let outcome = feed(peer, peer.len().max(1), |bytes| whole.input(bytes));
    assert_eq!(outcome, feed(peer, piece, |bytes| pieces.input(bytes)));
    let Ok((taken, Some(request))) = outcome else { return };
    assert_eq!(taken, peer.len());

    let answer = vec![7; whole.max_private_data()];
    let (reply, agreed) = whole.accept(&answer, 1, 1).expect("a whole request can be accepted");
    assert_eq!(reply.len(), START_LEN + MAX_PRIVATE_DATA);
    assert!(agreed.crc || !request.crc);
    let no = pieces.reject(4, &answer).expect("a whole request can be rejected");
    assert_eq!(no.len(), reply.len());
}
