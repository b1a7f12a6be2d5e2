//! RPC-over-RDMA version 1: the transport header of RFC 8166 section 4, and GlusterFS's dialect of it.
//!
//! ```text
//! xid | version 1 | credits | procedure, and behind RDMA_MSG and RDMA_NOMSG
//! read list    { 1 | position | segment }* 0
//! write list   { 1 | n | n segments }* 0
//! reply chunk  0, or 1 | n | n segments      GlusterFS: one word more, 0
//! RPC message  RDMA_MSG only
//! segment      handle | length | offset (8 octets)
//! ```
//!
//! A received header borrows from the message; its lists have been checked as a whole, so that going through them can't
//! fail. What a list says about memory is not checked, as only the receiver knows what it has offered.

use super::octets::Octets;

/// The version of this header.
pub const VERSION: u32 = 1;
/// Octets of a header without chunks.
pub const MIN_LEN: usize = 28;
/// Most octets of an RDMA_ERROR.
pub const ERROR_LEN: usize = 28;

mod field {
    pub(super) const XID: usize = 0;
    pub(super) const VERSION: usize = 4;
    pub(super) const CREDITS: usize = 8;
    pub(super) const PROCEDURE: usize = 12;
    /// Of an RDMA_ERROR, behind the fixed part.
    pub(super) const ERROR: usize = 16;
    pub(super) const LOW: usize = 20;
    pub(super) const HIGH: usize = 24;

    pub(super) const HANDLE: usize = 0;
    pub(super) const LENGTH: usize = 4;
    pub(super) const OFFSET: usize = 8;
}

mod procedure {
    pub(super) const MSG: u32 = 0;
    pub(super) const NOMSG: u32 = 1;
    /// Obsolete; nothing answers it.
    pub(super) const DONE: u32 = 3;
    pub(super) const ERROR: u32 = 4;
}

const ERR_VERS: u32 = 1;
const ERR_CHUNK: u32 = 2;

const WORD: usize = 4;
/// What comes before the lists.
const FIXED_LEN: usize = 16;

/// Which header it is where the two differ, which is behind a reply chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// RFC 8166.
    #[default]
    Rfc,
    /// GlusterFS 3.4 to 7: one more word behind a reply chunk.
    GlusterFs,
}

/// A piece of the memory of the peer that made the call, as it names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Its remote key.
    pub handle: u32,
    /// Octets.
    pub length: u32,
    /// Where it begins, as the handle counts.
    pub offset: u64,
}

impl Segment {
    /// Octets on the wire.
    pub const LEN: usize = 16;

    fn parse(octets: &[u8; Self::LEN]) -> Self {
        Self {
            handle: octets.get32::<{ field::HANDLE }>(),
            length: octets.get32::<{ field::LENGTH }>(),
            offset: octets.get64::<{ field::OFFSET }>(),
        }
    }

    fn emit(self, out: &mut [u8; Self::LEN]) {
        out.put32::<{ field::HANDLE }>(self.handle);
        out.put32::<{ field::LENGTH }>(self.length);
        out.put64::<{ field::OFFSET }>(self.offset);
    }

    /// Whether it ends before the address space does.
    #[must_use]
    pub fn is_possible(self) -> bool {
        self.offset.checked_add(self.length.into()).is_some()
    }
}

/// An entry of the read list. Those with one position are one chunk, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadSegment {
    /// Where its octets belong: how many of the whole RPC message are before them. 0 = it is the message.
    pub position: u32,
    /// Where they are.
    pub segment: Segment,
}

impl ReadSegment {
    /// Octets on the wire, with the word that says that there is one.
    pub const LEN: usize = 2 * WORD + Segment::LEN;
}

/// What has arrived and not been looked at.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn chunk<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(first)
    }

    fn word(&mut self) -> Option<u32> {
        self.chunk::<WORD>().map(|word| word.get32::<0>())
    }

    /// Whether there is one more of something: XDR's optional data.
    fn more(&mut self) -> Option<bool> {
        match self.word()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// What is between here and a later state of the same reader.
    fn until(self, later: Self) -> &'a [u8] {
        let length = self.0.len().saturating_sub(later.0.len());
        self.0.get(..length).unwrap_or_default()
    }

    /// The octets of a list of optional items, each of which `item` takes and checks.
    fn list(&mut self, item: impl Fn(&mut Self) -> Option<()>) -> Option<&'a [u8]> {
        let mut end = *self;
        loop {
            let list = self.until(end);
            if !end.more()? {
                *self = end;
                return Some(list);
            }
            item(&mut end)?;
        }
    }

    /// An entry of the read list, behind the word that says that there is one.
    fn read(&mut self) -> Option<ReadSegment> {
        Some(ReadSegment { position: self.word()?, segment: Segment::parse(self.chunk()?) })
    }

    fn reads(&mut self) -> Option<Reads<'a>> {
        let sound = |read: &ReadSegment| read.position % WORD as u32 == 0 && read.segment.is_possible();
        self.list(|reader| reader.read().filter(sound).map(drop)).map(Reads)
    }

    /// The segments of one chunk.
    fn segments(&mut self) -> Option<Chunk<'a>> {
        let count = usize::try_from(self.word()?).ok()?;
        let (segments, rest) = self.0.split_at_checked(count.checked_mul(Segment::LEN)?)?;
        self.0 = rest;
        let chunk = Chunk(segments);
        chunk.segments().all(Segment::is_possible).then_some(chunk)
    }

    fn writes(&mut self) -> Option<Writes<'a>> {
        self.list(|reader| reader.segments().map(drop)).map(Writes)
    }

    fn reply(&mut self) -> Option<Option<Chunk<'a>>> {
        if self.more()? { self.segments().map(Some) } else { Some(None) }
    }
}

/// The read list of a received header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads<'a>(&'a [u8]);

impl<'a> Reads<'a> {
    /// How many segments it has.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.len() / ReadSegment::LEN
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Its segments in the order of the list.
    pub fn segments(self) -> impl Iterator<Item = ReadSegment> + Clone + 'a {
        let mut rest = Reader(self.0);
        std::iter::from_fn(move || if rest.more()? { rest.read() } else { None })
    }
}

/// A write chunk or the reply chunk of a received header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunk<'a>(&'a [u8]);

impl<'a> Chunk<'a> {
    /// How many segments it has; 0 in a call: nothing is to be placed there.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.len() / Segment::LEN
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Its segments in their order.
    pub fn segments(self) -> impl Iterator<Item = Segment> + Clone + 'a {
        self.0.chunks_exact(Segment::LEN).filter_map(<[u8]>::first_chunk).map(Segment::parse)
    }

    /// Octets of all of them.
    #[must_use]
    pub fn octets(self) -> u64 {
        self.segments().map(|segment| u64::from(segment.length)).sum()
    }
}

/// The write list of a received header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writes<'a>(&'a [u8]);

impl<'a> Writes<'a> {
    /// Whether it has no chunk.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Its chunks in their order.
    pub fn chunks(self) -> impl Iterator<Item = Chunk<'a>> + Clone {
        let mut rest = Reader(self.0);
        std::iter::from_fn(move || if rest.more()? { rest.segments() } else { None })
    }
}

/// The three lists of a received header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunks<'a> {
    /// From where the receiver of a call is to read.
    pub reads: Reads<'a>,
    /// In a call: where results may be written. In its reply: where they have been.
    pub writes: Writes<'a>,
    /// The same for a whole reply.
    pub reply: Option<Chunk<'a>>,
    /// Told by what follows the reply chunk; without one it is as the caller expected.
    pub dialect: Dialect,
}

/// What an RDMA_ERROR says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// ERR_VERS: the versions that its sender knows.
    Version {
        /// The lowest.
        low: u32,
        /// The highest.
        high: u32,
    },
    /// ERR_CHUNK: the header made no sense, or a reply had no room in what was offered.
    Chunk,
    /// A number that the RFC does not have.
    Unknown(u32),
}

/// What a received message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// RDMA_MSG: an RPC message, less what its chunks hold.
    Message(Chunks<'a>, &'a [u8]),
    /// RDMA_NOMSG: the RPC message is in a chunk.
    NoMessage(Chunks<'a>),
    /// RDMA_ERROR.
    Error(Complaint),
}

/// A received header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// That of the RPC message.
    pub xid: u32,
    /// In a call how many credits its sender wants, in a reply how many it grants.
    pub credits: u32,
    /// What is behind it.
    pub body: Body<'a>,
}

/// Why a message is refused, and so the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// None: there is no xid, or the message is of a kind that nothing answers.
    Silence,
    /// An RDMA_ERROR with this xid and version: RFC 8166 section 4.5 wants both as they came.
    Answer {
        /// Of the refused message.
        xid: u32,
        /// Of the refused message.
        version: u32,
        /// Version or chunk.
        complaint: Complaint,
    },
}

impl<'a> Header<'a> {
    /// Reads a message. `expected`: what is known of the sender, for where its header does not show it.
    pub fn parse(message: &'a [u8], expected: Dialect) -> Result<Self, Refusal> {
        let (fixed, lists) = message.split_first_chunk::<FIXED_LEN>().ok_or(Refusal::Silence)?;
        let xid = fixed.get32::<{ field::XID }>();
        let version = fixed.get32::<{ field::VERSION }>();
        let credits = fixed.get32::<{ field::CREDITS }>();
        let procedure = fixed.get32::<{ field::PROCEDURE }>();
        let refuse = |complaint| Refusal::Answer { xid, version, complaint };
        // An error carries the version of what it is about, which its sender may not know.
        if procedure == procedure::ERROR {
            let complaint = parse_complaint(lists).ok_or(Refusal::Silence)?;
            return Ok(Self { xid, credits, body: Body::Error(complaint) });
        }
        if version != VERSION {
            return Err(refuse(Complaint::Version { low: VERSION, high: VERSION }));
        }
        let body = match procedure {
            procedure::MSG => {
                parse_lists(lists, xid, expected, true).map(|(chunks, rpc)| Body::Message(chunks, rpc))
            }
            procedure::NOMSG => {
                parse_lists(lists, xid, expected, false).map(|(chunks, _)| Body::NoMessage(chunks))
            }
            procedure::DONE => return Err(Refusal::Silence),
            _ => None,
        };
        body.map(|body| Self { xid, credits, body }).ok_or_else(|| refuse(Complaint::Chunk))
    }
}

fn parse_complaint(octets: &[u8]) -> Option<Complaint> {
    let mut words = Reader(octets);
    Some(match words.word()? {
        ERR_VERS => Complaint::Version { low: words.word()?, high: words.word()? },
        ERR_CHUNK => Complaint::Chunk,
        other => Complaint::Unknown(other),
    })
}

/// The lists, and what follows them.
fn parse_lists(lists: &[u8], xid: u32, expected: Dialect, message: bool) -> Option<(Chunks<'_>, &[u8])> {
    let mut reader = Reader(lists);
    let (reads, writes, reply) = (reader.reads()?, reader.writes()?, reader.reply()?);
    let mut dialect = expected;
    if reply.is_some() {
        dialect = if message { dialect_of_message(reader, xid) } else { dialect_of_end(reader) };
        if dialect == Dialect::GlusterFs {
            reader.word()?;
        }
    }
    Some((Chunks { reads, writes, reply, dialect }, reader.0))
}

/// Whether an RPC message begins here or a word later. It begins with the xid, and goes on with 0 and the version of RPC, 2,
/// where it is a call, and with 1 where it is a reply.
fn dialect_of_message(mut at: Reader<'_>, xid: u32) -> Dialect {
    let words = [at.word(), at.word(), at.word()];
    let later = match words {
        [Some(0), Some(second), third] if second == xid => xid != 0 || third != Some(2),
        _ => false,
    };
    if later { Dialect::GlusterFs } else { Dialect::Rfc }
}

fn dialect_of_end(at: Reader<'_>) -> Dialect {
    if at.0 == [0; WORD] { Dialect::GlusterFs } else { Dialect::Rfc }
}

/// Octets of a header with so many read segments, write chunks of so many segments, and a reply chunk.
#[must_use]
pub fn header_octets(reads: usize, writes: &[usize], reply: Option<usize>, dialect: Dialect) -> usize {
    octets_of(reads, writes.iter().copied(), reply, dialect)
}

fn octets_of(
    reads: usize,
    writes: impl Iterator<Item = usize>,
    reply: Option<usize>,
    dialect: Dialect,
) -> usize {
    let chunk = |segments: usize| WORD + segments * Segment::LEN;
    let extra = if dialect == Dialect::GlusterFs { WORD } else { 0 };
    MIN_LEN
        + reads * ReadSegment::LEN
        + writes.map(|segments| WORD + chunk(segments)).sum::<usize>()
        + reply.map_or(0, |segments| chunk(segments) + extra)
}

/// A header to be sent, of RDMA_MSG or RDMA_NOMSG.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outgoing<'a> {
    /// That of the RPC message.
    pub xid: u32,
    /// Wanted or granted.
    pub credits: u32,
    /// Whether the RPC message follows.
    pub message: bool,
    /// The read list.
    pub reads: &'a [ReadSegment],
    /// The write list, chunk by chunk.
    pub writes: &'a [&'a [Segment]],
    /// The reply chunk.
    pub reply: Option<&'a [Segment]>,
    /// Of the receiver.
    pub dialect: Dialect,
}

impl Outgoing<'_> {
    /// Octets that it takes.
    #[must_use]
    pub fn octets(&self) -> usize {
        let writes = self.writes.iter().map(|segments| segments.len());
        octets_of(self.reads.len(), writes, self.reply.map(<[Segment]>::len), self.dialect)
    }

    /// Writes it to the beginning of `out` and returns its octets; `None`: there is no room.
    pub fn emit(&self, out: &mut [u8]) -> Option<usize> {
        let room = out.len();
        let mut writer = Writer(out);
        let fixed = writer.chunk::<FIXED_LEN>()?;
        fixed.put32::<{ field::XID }>(self.xid);
        fixed.put32::<{ field::VERSION }>(VERSION);
        fixed.put32::<{ field::CREDITS }>(self.credits);
        fixed.put32::<{ field::PROCEDURE }>(if self.message { procedure::MSG } else { procedure::NOMSG });
        for read in self.reads {
            writer.word(1)?;
            writer.word(read.position)?;
            read.segment.emit(writer.chunk()?);
        }
        writer.word(0)?;
        for segments in self.writes {
            writer.word(1)?;
            writer.segments(segments)?;
        }
        writer.word(0)?;
        match self.reply {
            None => writer.word(0)?,
            Some(segments) => {
                writer.word(1)?;
                writer.segments(segments)?;
                if self.dialect == Dialect::GlusterFs {
                    writer.word(0)?;
                }
            }
        }
        Some(room - writer.0.len())
    }
}

/// Writes an RDMA_ERROR and returns its octets. `xid` and `version` are those of the message it is about.
pub fn emit_error(
    xid: u32,
    version: u32,
    credits: u32,
    complaint: Complaint,
    out: &mut [u8; ERROR_LEN],
) -> usize {
    out.put32::<{ field::XID }>(xid);
    out.put32::<{ field::VERSION }>(version);
    out.put32::<{ field::CREDITS }>(credits);
    out.put32::<{ field::PROCEDURE }>(procedure::ERROR);
    let code = match complaint {
        Complaint::Version { low, high } => {
            out.put32::<{ field::ERROR }>(ERR_VERS);
            out.put32::<{ field::LOW }>(low);
            out.put32::<{ field::HIGH }>(high);
            return ERROR_LEN;
        }
        Complaint::Chunk => ERR_CHUNK,
        Complaint::Unknown(code) => code,
    };
    out.put32::<{ field::ERROR }>(code);
    FIXED_LEN + WORD
}

/// Room that has not been written to.
struct Writer<'a>(&'a mut [u8]);

impl<'a> Writer<'a> {
    fn chunk<const N: usize>(&mut self) -> Option<&'a mut [u8; N]> {
        let (first, rest) = std::mem::take(&mut self.0).split_first_chunk_mut()?;
        self.0 = rest;
        Some(first)
    }

    fn word(&mut self, value: u32) -> Option<()> {
        self.chunk::<WORD>().map(|word| word.put32::<0>(value))
    }

    fn segments(&mut self, segments: &[Segment]) -> Option<()> {
        self.word(u32::try_from(segments.len()).ok()?)?;
        segments.iter().try_for_each(|segment| self.chunk().map(|octets| segment.emit(octets)))
    }
}

#[cfg(test)]
#[path = "rpcrdma_test.rs"]
mod test;
