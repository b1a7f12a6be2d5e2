//! The side that opened the TCP connection.

use super::{
    Agreed, CrcPolicy, Enhanced, Error, Frame, FrameReader, Kind, OwnTag, REVISION_2, Reason, Result, Rtr,
    Stage, Start, Tag, TermCode, bad_frame, check_private_data, check_resources, emit, is_enhanced,
    max_private_data, mpa, protocol, term, wrong_state,
};

/// What the initiator proposes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Revision of MPA: 1 or 2.
    pub revision: u8,
    /// Whether to ask for the CRC.
    pub crc: CrcPolicy,
    /// What [`CrcPolicy::Auto`] means on this path.
    pub offer_crc: bool,
    /// Read Requests the peer may have outstanding at us.
    pub ird: u16,
    /// Read Requests we want to have outstanding at the peer.
    pub ord: u16,
    /// The application's private data, at most [`max_private_data`] octets.
    pub private_data: Vec<u8>,
    /// Our tag, or none to send the private data alone.
    pub tag: Option<OwnTag>,
}

/// Why the initiator has no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The peer's application said no.
    Rejected {
        /// The reason in the peer's tag, 0 where it sent none.
        reason: u32,
        /// What the peer's application had to say.
        private_data: Vec<u8>,
    },
    /// The peer only knows revision 1: a new connection that offers it may succeed (RFC 6581).
    Downgrade(Error),
    /// The reply can't be accepted.
    Protocol {
        /// What is wrong with it.
        error: Error,
        /// What to tell the peer in a Terminate before closing, if anything.
        terminate: Option<TermCode>,
    },
}

impl Failure {
    /// A fault that is not worth a Terminate.
    fn silent(error: Error) -> Self {
        Self::Protocol { error, terminate: None }
    }

    /// A fault that the peer is told about.
    fn told(code: TermCode, error: Error) -> Self {
        Self::Protocol { error, terminate: Some(code) }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Rejected { reason, .. } => {
                let code = i32::try_from(reason).unwrap_or(i32::MAX);
                let error =
                    Self::new(libc::ECONNREFUSED, Reason::Rejected, "the peer rejected the connection");
                error.at(Stage::Handshake).with_code(code)
            }
            Failure::Downgrade(error) => error,
            Failure::Protocol { error, terminate } => {
                error.with_code(terminate.map_or(0, |code| i32::from(code.word())))
            }
        }
    }
}

/// Connection set-up as seen from the side that opened the TCP connection.
pub struct Initiator {
    offer: Offer,
    request: Vec<u8>,
    reader: FrameReader,
    done: bool,
}

impl Initiator {
    /// A set-up with this offer.
    pub fn new(offer: Offer) -> Result<Self> {
        if !(1..=REVISION_2).contains(&offer.revision) {
            return Err(Error::invalid("MPA revision is neither 1 nor 2").at(Stage::Handshake));
        }
        check_private_data(offer.private_data.len(), max_private_data(offer.revision, offer.tag.is_some()))?;
        check_resources(offer.ird, offer.ord)?;
        let request = request_of(&offer);
        Ok(Self { offer, request, reader: FrameReader::new(Kind::Reply), done: false })
    }

    /// The octets to send first. Nothing may follow them before the outcome.
    #[must_use]
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Takes what has arrived. Returns how many octets of it belong to the reply, and the outcome when the reply is
    /// whole. The octets behind it are the first FPDUs of a peer that does not wait for ours. After the outcome no more
    /// octets are taken.
    pub fn input(&mut self, bytes: &[u8]) -> std::result::Result<(usize, Option<Agreed>), Failure> {
        if self.done {
            return Ok((0, None));
        }
        let (used, frame) = self.reader.input(bytes).map_err(|error| {
            self.done = true;
            Failure::silent(bad_frame(error))
        })?;
        let Some(frame) = frame else { return Ok((used, None)) };
        self.done = true;
        Ok((used, Some(self.agree(&frame)?)))
    }

    /// Whether the outcome is known.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The error of a connection that ended before the reply was whole.
    #[must_use]
    pub fn closed(&self) -> Error {
        if self.done {
            return wrong_state("the MPA reply had already arrived");
        }
        let text = "the peer closed the connection instead of answering the MPA request";
        Error::new(libc::ECONNRESET, Reason::PeerClosed, text).at(Stage::Handshake)
    }

    /// The outcome of a whole reply.
    fn agree(&self, reply: &Frame) -> std::result::Result<Agreed, Failure> {
        let start = &reply.start;
        if start.reject {
            return Err(self.rejected(reply));
        }
        if start.markers {
            return Err(Failure::silent(protocol("the peer wants MPA markers, which are not supported")));
        }
        self.check_revision(start)?;
        let Some((word, rest)) = reply.split() else {
            let error = protocol("MPA reply without its enhanced control word");
            return Err(Failure::told(term::MPA_INVALID_START, error));
        };
        let (ird, ord, rtr) = self.negotiate(word)?;
        let (private_data, tag) = self.split_tag(rest);
        Ok(Agreed {
            revision: self.offer.revision,
            crc: start.crc || self.offer.crc.offers(self.offer.offer_crc),
            ird,
            ord,
            rtr,
            peer_tag: tag.map(|tag| tag.own),
            private_data: private_data.to_vec(),
        })
    }

    /// The reply has to be of the revision of the request. What answers revision 2 with 1 does not know RFC 6581.
    fn check_revision(&self, start: &Start) -> std::result::Result<(), Failure> {
        let enhanced = is_enhanced(start) && start.revision == REVISION_2;
        match self.offer.revision {
            REVISION_2 if enhanced => Ok(()),
            REVISION_2 if start.revision <= REVISION_2 => {
                let error = protocol("the peer answers MPA revision 2 without its enhanced set-up");
                Err(Failure::Downgrade(error.with_remedy("connect with MPA revision 1")))
            }
            1 if start.revision <= 1 => Ok(()),
            offered => {
                let text = format!("the peer answers MPA revision {offered} with {}", start.revision);
                Err(Failure::silent(protocol(text)))
            }
        }
    }

    /// IRD, ORD and first frame, from the peer's control word.
    fn negotiate(&self, word: Option<Enhanced>) -> std::result::Result<(u16, u16, Rtr), Failure> {
        let Offer { ird, ord, .. } = self.offer;
        let Some(word) = word else { return Ok((ird, ord, Rtr::None)) };
        if word.ord != mpa::NOT_NEGOTIATED && word.ord > ird {
            let text =
                format!("the peer wants {} Read Requests outstanding, more than the {ird} offered", word.ord);
            return Err(Failure::told(term::MPA_INSUFFICIENT_IRD, protocol(text)));
        }
        let Some(rtr) = Rtr::named_by(&word) else {
            let error = protocol("the peer chose no ready-to-receive frame that was offered");
            return Err(Failure::told(term::MPA_NO_MATCHING_RTR, error));
        };
        // "Not negotiated" is the largest number, hence no limit.
        Ok((ird, ord.min(word.ird), rtr))
    }

    /// A peer answers with a tag only to a tag.
    fn split_tag<'a>(&self, private_data: &'a [u8]) -> (&'a [u8], Option<Tag>) {
        if self.offer.tag.is_some() { Tag::split(private_data) } else { (private_data, None) }
    }

    /// What a reject says. A peer that does not put the control word in front of its data has none to be taken off.
    fn rejected(&self, reply: &Frame) -> Failure {
        let (_, rest) = reply.split().unwrap_or_default();
        let (private_data, tag) = self.split_tag(rest);
        let reason = tag.map_or(0, |tag| u32::from(tag.reject_reason));
        Failure::Rejected { reason, private_data: private_data.to_vec() }
    }
}

/// The MPA request of an offer.
fn request_of(offer: &Offer) -> Vec<u8> {
    let crc = offer.crc.offers(offer.offer_crc);
    let start = Start { crc, revision: offer.revision, ..Start::default() };
    let word = (offer.revision == REVISION_2).then_some(Enhanced {
        ird: offer.ird,
        ord: offer.ord,
        peer_to_peer: true,
        send_rtr: false,
        write_rtr: true,
        read_rtr: true,
    });
    emit(Kind::Request, start, word, &offer.private_data, offer.tag.map(|own| Tag::new(own, 0)))
}
