//! Setting up an MPA connection: RFC 5044 §7.1 with the enhanced set-up of RFC 6581, both roles.
//!
//! Octets in, octets and an outcome out; no socket and no clock. The caller sends what it is given, feeds what arrives in
//! pieces of any size, and gives up when its own deadline passes.
//!
//! How the two ends agree:
//! - CRC: used when either side sets C, so a side whose policy is [`CrcPolicy::Off`] still follows a peer that wants it.
//! - Markers: never used. A request for them is answered with a reject.
//! - Revision 2 carries IRD and ORD in a control word in front of the private data; revision 1 has no such word, and
//!   each side uses what its application asked for.
//! - The initiator of revision 2 offers the peer-to-peer model: it sends a ready-to-receive (RTR) frame first, a
//!   zero-length Write or Read Request as the responder chooses, so that either application may then speak first.
//! - A [`Tag`] behind the application's private data tells our own library from all others. A responder sends
//!   one only where the request had one, and the application on neither side sees it.
//!
//! Private data: [`max_private_data`] is what the RFCs allow. Kernel soft iWARP delivers at most [`SIW_PRIVATE_DATA`]
//! octets, tag included, and resets the connection or loses the data beyond.

use crate::error::{Error, Reason, Result, Stage};
use crate::wire::mpa::{self, ENHANCED_LEN, Enhanced, Kind, MpaError, START_LEN, Start};
use crate::wire::rdmap::{TermCode, term};
use crate::wire::tag::{self, Tag};

pub use crate::wire::tag::OwnTag;

/// Most octets of private data, our tag included, that kernel soft iWARP hands to its application.
pub const SIW_PRIVATE_DATA: usize = 251;
/// The largest IRD or ORD that can be agreed on.
pub const MAX_RESOURCES: u16 = mpa::NOT_NEGOTIATED - 1;

/// The newest revision of MPA, that of RFC 6581.
const REVISION_2: u8 = 2;

/// Most octets of the application's private data in a request or reply of this revision.
#[must_use]
pub const fn max_private_data(revision: u8, with_tag: bool) -> usize {
    let word = if revision >= REVISION_2 { ENHANCED_LEN } else { 0 };
    let tag = if with_tag { tag::LEN } else { 0 };
    mpa::MAX_PRIVATE_DATA - word - tag
}

/// Whether this side asks for the CRC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrcPolicy {
    /// As the caller finds fit for the path.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never; the peer may still ask for it, and then it is used.
    Off,
}

impl CrcPolicy {
    /// Whether to set C, `auto` being what the caller finds fit.
    fn offers(self, auto: bool) -> bool {
        match self {
            Self::Auto => auto,
            Self::On => true,
            Self::Off => false,
        }
    }
}

/// The frame the initiator sends before any other, RFC 6581.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rtr {
    /// None: the initiator's application has to speak first.
    #[default]
    None,
    /// A zero-length RDMA Write.
    Write,
    /// A zero-length RDMA Read Request.
    Read,
}

impl Rtr {
    /// The frame named by a control word: Write before Read. `None` where peer-to-peer is set but neither is named.
    fn named_by(word: &Enhanced) -> Option<Self> {
        match word {
            Enhanced { peer_to_peer: false, .. } => Some(Self::None),
            Enhanced { write_rtr: true, .. } => Some(Self::Write),
            Enhanced { read_rtr: true, .. } => Some(Self::Read),
            _ => None,
        }
    }
}

/// What both sides agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Revision of MPA: 1 or 2.
    pub revision: u8,
    /// Every FPDU carries a CRC, which has to be checked.
    pub crc: bool,
    /// Read Requests the peer may have outstanding at us.
    pub ird: u16,
    /// Read Requests we may have outstanding at the peer.
    pub ord: u16,
    /// The frame that comes first: the initiator sends it, the responder waits for it before it sends anything.
    pub rtr: Rtr,
    /// The peer's tag, where both sides sent one.
    pub peer_tag: Option<OwnTag>,
    /// The responder's private data. Empty on the responder's side, see [`Request::private_data`].
    pub private_data: Vec<u8>,
}

/// A start frame with its private data.
struct Frame {
    start: Start,
    private_data: Vec<u8>,
}

impl Frame {
    /// Separates the control word, if the frame has one, from the rest: `None` where it is cut short.
    fn split(&self) -> Option<(Option<Enhanced>, &[u8])> {
        if !is_enhanced(&self.start) {
            return Some((None, &self.private_data));
        }
        let (word, rest) = self.private_data.split_first_chunk()?;
        Some((Some(Enhanced::parse(word)), rest))
    }
}

/// Whether private data begins with a control word. Before revision 2, S is just an undefined bit.
fn is_enhanced(start: &Start) -> bool {
    start.enhanced && start.revision >= REVISION_2
}

/// Collects a start frame from pieces.
struct FrameReader {
    kind: Kind,
    bytes: Vec<u8>,
}

impl FrameReader {
    fn new(kind: Kind) -> Self {
        Self { kind, bytes: Vec::new() }
    }

    /// Takes what belongs to the frame and says how much that was.
    fn input(&mut self, bytes: &[u8]) -> std::result::Result<(usize, Option<Frame>), MpaError> {
        let mut rest = bytes;
        loop {
            let start = Start::parse(self.kind, &self.bytes)?;
            let whole = start.map_or(START_LEN, |start| start.frame_len());
            let missing = whole.saturating_sub(self.bytes.len());
            if let (Some(start), 0) = (start, missing) {
                let private_data = self.bytes.get(START_LEN..).unwrap_or_default().to_vec();
                return Ok((bytes.len() - rest.len(), Some(Frame { start, private_data })));
            }
            if rest.is_empty() {
                return Ok((bytes.len(), None));
            }
            let (taken, left) = rest.split_at(missing.min(rest.len()));
            self.bytes.extend_from_slice(taken);
            rest = left;
        }
    }
}

/// Writes a start frame. Its length of private data is that of the parts.
fn emit(kind: Kind, start: Start, word: Option<Enhanced>, user: &[u8], tag: Option<Tag>) -> Vec<u8> {
    let mut private_data = Vec::with_capacity(mpa::MAX_PRIVATE_DATA);
    if let Some(word) = word {
        let mut octets = [0; ENHANCED_LEN];
        word.emit(&mut octets);
        private_data.extend_from_slice(&octets);
    }
    private_data.extend_from_slice(user);
    if let Some(tag) = tag {
        let mut octets = [0; tag::LEN];
        tag.emit(user, &mut octets);
        private_data.extend_from_slice(&octets);
    }
    // Bounded by `check_private_data`, which every caller has passed.
    let private_data_len = private_data.len() as u16;
    let mut header = [0; START_LEN];
    Start { private_data_len, enhanced: word.is_some(), ..start }.emit(kind, &mut header);
    [&header[..], &private_data].concat()
}

/// Refuses private data that does not fit.
fn check_private_data(len: usize, limit: usize) -> Result<()> {
    if len > limit {
        let text = format!("private data of {len} octets is more than the {limit} that fit");
        return Err(Error::invalid(text).at(Stage::Handshake));
    }
    Ok(())
}

/// Refuses an IRD or ORD that the control word can't carry.
fn check_resources(ird: u16, ord: u16) -> Result<()> {
    if ird.max(ord) > MAX_RESOURCES {
        return Err(Error::invalid("IRD and ORD are at most 16382").at(Stage::Handshake));
    }
    Ok(())
}

/// The peer broke the protocol.
fn protocol(text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(libc::EPROTO, Reason::Protocol, text).at(Stage::Handshake)
}

/// A call after the outcome, or before there is anything to answer.
fn wrong_state(text: &'static str) -> Error {
    Error::state(libc::EINVAL, text).at(Stage::Handshake)
}

/// Why a frame was refused, with the usual cause.
fn bad_frame(error: MpaError) -> Error {
    let remedy = match error {
        MpaError::Key => "the peer does not speak iWARP on this port",
        MpaError::PrivateDataLen(_) => "",
    };
    protocol(error.to_string()).with_remedy(remedy)
}

mod initiator;
mod responder;

pub use initiator::{Failure, Initiator, Offer};
pub use responder::{Limits, Refusal, Request, Responder};

#[cfg(test)]
mod test;
