//! What ends a stream: what the caller is told, and what the peer is told by Terminate.

use crate::error::{Error, Reason, Stage};
use crate::memory::KeyFault;
use crate::wire::ddp::{self, Header};
use crate::wire::rdmap::{ReadRequest, TermCode, Terminate, term};

/// Why a stream has failed.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What the caller is told.
    pub error: Error,
    /// What the peer is told; `None` = nothing.
    pub(super) terminate: Option<Terminate>,
    /// What becomes of an open Read, where the peer's Terminate is about one.
    pub(super) blames_read: Option<Blame>,
}

/// The open Read that the peer has refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blame {
    /// Negative errno.
    pub(super) status: i32,
    /// Its sink offset, where the Terminate tells; otherwise it is taken to be the oldest.
    pub(super) sink_offset: Option<u64>,
}

impl Fault {
    /// Whether the peer is told by a Terminate.
    pub fn tells_peer(&self) -> bool {
        self.terminate.is_some()
    }

    /// A fault that the peer did not cause.
    pub(super) fn local(error: Error) -> Self {
        Self { error, terminate: None, blames_read: None }
    }

    /// The peer broke the protocol; `segment` is the header and the ULPDU length of what broke it.
    pub(super) fn protocol(code: TermCode, segment: Option<(&Header, usize)>) -> Self {
        let terminate = match segment {
            Some((header, length)) => about(code, header, length, None),
            None => Terminate::new(code),
        };
        Self { error: error_of(code), terminate: Some(terminate), blames_read: None }
    }

    /// The peer's Read Request can't be served.
    pub(super) fn read_request(code: TermCode, header: &Header, request: &ReadRequest) -> Self {
        let terminate = about(code, header, ddp::UNTAGGED_LEN + ReadRequest::LEN, Some(*request));
        Self { error: error_of(code), terminate: Some(terminate), blames_read: None }
    }

    /// The peer has sent a Terminate, `None` where it could not be read.
    pub(super) fn terminated(terminate: Option<&Terminate>) -> Self {
        let Some(terminate) = terminate else {
            let text = "the peer terminated the stream with a message too short to read";
            return Self::local(Error::new(libc::EPROTO, Reason::Terminated, text).at(Stage::Connected));
        };
        let code = terminate.term_code();
        let protection = |code: TermCode| code.layer == 0 && code.etype == 1;
        let about_memory = protection(code)
            || (code.layer, code.etype) == (1, 1)
            || terminate.other_reading().is_some_and(protection);
        let errno = if about_memory { libc::EACCES } else { libc::EREMOTEIO };
        let reason = if about_memory { Reason::RemoteAccess } else { Reason::Terminated };
        let error = Error::new(errno, reason, format!("the peer terminated the stream: {terminate}"))
            .at(Stage::Connected)
            .with_code(i32::from(code.word()));
        let sink_offset = terminate.read_request.map(|request| request.sink_offset);
        let blame = Blame { status: -errno, sink_offset };
        Self { error, terminate: None, blames_read: protection(code).then_some(blame) }
    }
}

fn about(code: TermCode, header: &Header, length: usize, request: Option<ReadRequest>) -> Terminate {
    let mut octets = [0; ddp::UNTAGGED_LEN];
    let count = header.emit(&mut octets);
    Terminate::about(code, length as u16, octets.get(..count).unwrap_or_default(), request)
}

fn error_of(code: TermCode) -> Error {
    let memory = matches!((code.layer, code.etype), (0 | 1, 1)) && code != term::DDP_TAGGED_VERSION;
    let (errno, reason, text) = if memory {
        (libc::EACCES, Reason::RemoteAccess, format!("the peer touched memory it may not: {code}"))
    } else if code == term::DDP_NO_BUFFER {
        (libc::ENOBUFS, Reason::Protocol, "the peer sent a message for which no receive was posted".into())
    } else {
        (libc::EPROTO, Reason::Protocol, format!("the peer broke the protocol: {code}"))
    };
    Error::new(errno, reason, text).at(Stage::Connected).with_code(i32::from(code.word()))
}

/// A tagged segment, of `length` payload octets, that may not be placed: DDP's errors, RFC 5041 section 7.
pub(super) fn tagged_fault(fault: KeyFault, header: &Header, length: usize) -> Fault {
    let code = match fault {
        KeyFault::InvalidStag => term::DDP_INVALID_STAG,
        KeyFault::Bounds => term::DDP_BASE_BOUNDS,
        KeyFault::NotAssociated => term::DDP_STAG_NOT_ASSOCIATED,
        KeyFault::Wrap => term::DDP_OFFSET_WRAP,
        // DDP has no code for rights: they are RDMAP's.
        KeyFault::Access | KeyFault::CannotInvalidate => term::RDMAP_ACCESS_RIGHTS,
    };
    Fault::protocol(code, Some((header, header.len() + length)))
}

/// RDMAP's code for a key: RFC 5040 section 4.8.
pub(super) fn rdmap_code(fault: KeyFault) -> TermCode {
    match fault {
        KeyFault::InvalidStag => term::RDMAP_INVALID_STAG,
        KeyFault::Bounds => term::RDMAP_BASE_BOUNDS,
        KeyFault::Access => term::RDMAP_ACCESS_RIGHTS,
        KeyFault::NotAssociated => term::RDMAP_STAG_NOT_ASSOCIATED,
        KeyFault::Wrap => term::RDMAP_OFFSET_WRAP,
        KeyFault::CannotInvalidate => term::RDMAP_PROTECTION_INVALIDATE,
    }
}

/// A Send with Invalidate whose key can't be invalidated.
pub(super) fn invalidate_fault(fault: KeyFault, header: &Header, length: usize) -> Fault {
    Fault::protocol(rdmap_code(fault), Some((header, header.len() + length)))
}
