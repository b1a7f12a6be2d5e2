//! The side that accepted the TCP connection.

use super::{
    Agreed, CrcPolicy, Enhanced, Error, Frame, FrameReader, Kind, MAX_RESOURCES, OwnTag, REVISION_2, Result,
    Rtr, Start, Tag, bad_frame, check_private_data, emit, is_enhanced, max_private_data, protocol,
    wrong_state,
};

/// What the responder is ready to agree to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most Read Requests a peer may have outstanding at us.
    pub ird: u16,
    /// Most Read Requests we can have outstanding at a peer.
    pub ord: u16,
    /// Whether to ask for the CRC.
    pub crc: CrcPolicy,
    /// What [`CrcPolicy::Auto`] means on this path.
    pub offer_crc: bool,
    /// The newest revision of MPA to accept: 1 or 2.
    pub max_revision: u8,
    /// Our tag for peers that sent theirs, or none to answer without.
    pub tag: Option<OwnTag>,
}

/// What the initiator asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its application's private data.
    pub private_data: Vec<u8>,
    /// Read Requests we may have outstanding at it. 0 where revision 1 leaves it open, 0x3fff where it does so itself.
    pub ird: u16,
    /// Read Requests it wants to have outstanding at us. 0 or 0x3fff as above.
    pub ord: u16,
    /// It uses this library.
    pub tag: Option<OwnTag>,
    /// It asks for the CRC.
    pub crc: bool,
    /// Revision of MPA: 1 or 2.
    pub revision: u8,
}

/// Why a request is refused before the application hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong with it.
    pub error: Error,
    /// The octets to send before closing, if the peer can understand an answer.
    pub reply: Option<Vec<u8>>,
}

impl Refusal {
    /// Close without a word.
    fn silent(error: Error) -> Self {
        Self { error, reply: None }
    }
}

/// What of the request the reply depends on.
#[derive(Clone, Copy)]
struct Pending {
    start: Start,
    word: Option<Enhanced>,
    peer_tag: Option<OwnTag>,
}

enum State {
    Reading(FrameReader),
    Answering(Pending),
    Done,
}

/// Connection set-up as seen from the side that accepted the TCP connection.
pub struct Responder {
    limits: Limits,
    state: State,
}

impl Responder {
    /// A set-up within these limits; an IRD or ORD above [`MAX_RESOURCES`] counts as that.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let ird = limits.ird.min(MAX_RESOURCES);
        let ord = limits.ord.min(MAX_RESOURCES);
        Self { limits: Limits { ird, ord, ..limits }, state: State::Reading(FrameReader::new(Kind::Request)) }
    }

    /// Takes what has arrived. Returns how many octets were taken, and the request when it is whole. Octets behind the
    /// request that come before the reply break the protocol (RFC 5044 §7.1.2). Once there is a reply no more are taken.
    pub fn input(&mut self, bytes: &[u8]) -> std::result::Result<(usize, Option<Request>), Refusal> {
        let result = self.read(bytes);
        if result.is_err() {
            self.state = State::Done;
        }
        result
    }

    fn read(&mut self, bytes: &[u8]) -> std::result::Result<(usize, Option<Request>), Refusal> {
        let reader = match &mut self.state {
            State::Reading(reader) => reader,
            State::Answering(_) if !bytes.is_empty() => return Err(early()),
            State::Answering(_) | State::Done => return Ok((0, None)),
        };
        let (used, frame) = reader.input(bytes).map_err(|error| Refusal::silent(bad_frame(error)))?;
        let Some(frame) = frame else { return Ok((used, None)) };
        // A request that is refused for itself is refused the same way however its octets arrive.
        let request = self.request(&frame)?;
        if used < bytes.len() {
            return Err(early());
        }
        Ok((used, Some(request)))
    }

    /// Judges a whole request.
    fn request(&mut self, frame: &Frame) -> std::result::Result<Request, Refusal> {
        let start = frame.start;
        if start.revision > self.limits.max_revision.min(REVISION_2) {
            return Err(Refusal::silent(protocol(format!(
                "MPA request of unknown revision {}",
                start.revision
            ))));
        }
        if start.markers {
            let error = protocol("the peer wants MPA markers, which are not supported");
            return Err(Refusal { error, reply: Some(refuse(&start)) });
        }
        let Some((word, rest)) = frame.split() else {
            let error = protocol("MPA request without its enhanced control word");
            return Err(Refusal { error, reply: Some(refuse(&start)) });
        };
        let (private_data, tag) = Tag::split(rest);
        let tag = tag.map(|tag| tag.own);
        self.state =
            State::Answering(Pending { start, word, peer_tag: tag.filter(|_| self.limits.tag.is_some()) });
        let (ird, ord) = word.map_or((0, 0), |word| (word.ird, word.ord));
        let revision = start.revision.max(1);
        Ok(Request { private_data: private_data.to_vec(), ird, ord, tag, crc: start.crc, revision })
    }

    /// Most octets of private data that fit in the reply to the request that has arrived.
    #[must_use]
    pub fn max_private_data(&self) -> usize {
        match &self.state {
            State::Answering(pending) => pending.max_private_data(),
            _ => max_private_data(REVISION_2, self.limits.tag.is_some()),
        }
    }

    /// Grants no more Read Requests than this, whatever the peer asks for: its own ORD is lowered by the reply.
    pub fn cap(&mut self, ird: u16) {
        self.limits.ird = self.limits.ird.min(ird);
    }

    /// Answers without our tag, so that the peer counts as one that does not use this library.
    pub fn untag(&mut self) {
        self.limits.tag = None;
        if let State::Answering(pending) = &mut self.state {
            pending.peer_tag = None;
        }
    }

    /// Accepts the request. `ird` and `ord` are what the application wants; the IRD is raised to what the peer asked
    /// for, the ORD lowered to what it offers, both within the limits. Returns the octets to send.
    pub fn accept(&mut self, private_data: &[u8], ird: u16, ord: u16) -> Result<(Vec<u8>, Agreed)> {
        let pending = self.pending(private_data)?;
        let crc = pending.start.crc || self.limits.crc.offers(self.limits.offer_crc);
        let (ird, ord) = self.resources(pending.word, ird, ord);
        let rtr = pending.word.map_or(Rtr::None, |word| rtr_for(&word));
        let word = pending.word.map(|_| Enhanced {
            ird,
            ord,
            peer_to_peer: rtr != Rtr::None,
            send_rtr: false,
            write_rtr: rtr == Rtr::Write,
            read_rtr: rtr == Rtr::Read,
        });
        let start = Start { crc, revision: pending.start.revision, ..Start::default() };
        let reply = emit(Kind::Reply, start, word, private_data, self.tag(&pending, 0));
        self.state = State::Done;
        let revision = pending.start.revision.max(1);
        Ok((
            reply,
            Agreed { revision, crc, ird, ord, rtr, peer_tag: pending.peer_tag, private_data: Vec::new() },
        ))
    }

    /// Rejects the request. `reason` reaches a peer that uses this library; above 255 it counts as that. Returns the
    /// octets to send before closing.
    pub fn reject(&mut self, reason: u32, private_data: &[u8]) -> Result<Vec<u8>> {
        let pending = self.pending(private_data)?;
        let Start { crc, revision, .. } = pending.start;
        let start = Start { crc, reject: true, revision, ..Start::default() };
        let reason = u8::try_from(reason).unwrap_or(u8::MAX);
        let word = pending.word.map(|_| Enhanced::default());
        let reply = emit(Kind::Reply, start, word, private_data, self.tag(&pending, reason));
        self.state = State::Done;
        Ok(reply)
    }

    /// The request to be answered with this private data.
    fn pending(&self, private_data: &[u8]) -> Result<Pending> {
        let State::Answering(pending) = &self.state else {
            return Err(wrong_state("there is no MPA request to be answered"));
        };
        check_private_data(private_data.len(), pending.max_private_data())?;
        Ok(*pending)
    }

    /// The tag of the reply.
    fn tag(&self, pending: &Pending, reason: u8) -> Option<Tag> {
        let own = self.limits.tag.filter(|_| pending.peer_tag.is_some())?;
        Some(Tag::new(own, reason))
    }

    /// IRD and ORD from what the application wants. A peer that leaves one open sends the largest number, which
    /// becomes our limit for its ORD, and none for its IRD.
    fn resources(&self, word: Option<Enhanced>, ird: u16, ord: u16) -> (u16, u16) {
        let (wanted, offered) = word.map_or((0, u16::MAX), |word| (word.ord, word.ird));
        (ird.max(wanted).min(self.limits.ird), ord.min(offered).min(self.limits.ord))
    }
}

impl Pending {
    fn max_private_data(&self) -> usize {
        let revision = if self.word.is_some() { REVISION_2 } else { 1 };
        max_private_data(revision, self.peer_tag.is_some())
    }
}

/// The first frame to ask for. Where the peer names none that is known here it is asked for a Write, as kernel soft
/// iWARP does; it says so if it can't.
fn rtr_for(word: &Enhanced) -> Rtr {
    Rtr::named_by(word).unwrap_or(Rtr::Write)
}

/// Octets that came behind the request before it was answered.
fn early() -> Refusal {
    Refusal::silent(protocol("the peer sent data behind its MPA request before the reply"))
}

/// A reject of a request that is wrong in itself. M is ours to set, and never set. The control word is there whenever
/// the request was an enhanced one, because its sender takes four octets off.
fn refuse(request: &Start) -> Vec<u8> {
    let start = Start { crc: request.crc, reject: true, revision: request.revision, ..Start::default() };
    emit(Kind::Reply, start, is_enhanced(request).then(Enhanced::default), &[], None)
}
