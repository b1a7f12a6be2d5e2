//! What goes to the socket with one `sendmsg`: headers, copied small payloads, and references to the caller's memory.

mod lent;

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use lent::Lents;
pub(super) use lent::MAX_KEYS;

/// Most pieces of one gather.
pub(super) const MAX_PIECES: usize = 128;
/// Most frames of one gather.
pub(super) const MAX_FRAMES: usize = 96;
/// Octets that a connection can stage at first: a handful of headers and short payloads.
const FIRST_STAGE: usize = 256;
/// Octets that it can always stage once they have not been enough: headers and small payloads.
pub(super) const SMALL_STAGE: usize = 4096;
/// Octets of a leased stage: four of the longest FPDUs, for CRC and for what is left of a Read Response sent in part.
pub(super) const BIG_STAGE: usize = 4 * 65_544;
/// Enough for one `sendmsg`: with half of it long messages are a tenth slower, with twice as much hardly faster.
const MAX_BYTES: usize = 1024 * 1024;

/// One element of a gather: an address and a length, as `struct iovec`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Piece(libc::iovec);

impl Piece {
    /// A piece of memory.
    ///
    /// # Safety
    /// Until the piece has been sent, or filled, its `len` octets stay valid for that.
    pub unsafe fn new(ptr: *const u8, len: usize) -> Self {
        Self(libc::iovec { iov_base: ptr.cast_mut().cast(), iov_len: len })
    }

    /// The piece without its first `count` octets.
    fn behind(&self, count: usize) -> Self {
        let count = count.min(self.len());
        Self(libc::iovec {
            iov_base: self.ptr().wrapping_add(count).cast_mut().cast(),
            iov_len: self.len() - count,
        })
    }

    /// First octet.
    pub fn ptr(&self) -> *const u8 {
        self.0.iov_base.cast_const().cast()
    }

    /// Length in octets.
    pub fn len(&self) -> usize {
        self.0.iov_len
    }

    /// Whether nothing is left of it.
    pub fn is_empty(&self) -> bool {
        self.0.iov_len == 0
    }
}

/// Memory for headers and copied payloads. Held by pointer and not as a slice, because pieces point into what has been
/// written while more is added behind it.
struct Stage {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the stage owns its memory; nothing else refers to it but the pieces of the gather that owns the stage.
unsafe impl Send for Stage {}

impl Stage {
    fn new(len: usize) -> Self {
        let octets = Box::leak(vec![0u8; len].into_boxed_slice());
        Self { base: NonNull::from(octets).cast(), len }
    }

    /// `[at, at + len)`, where it lies within the stage.
    fn slice(&mut self, at: usize, len: usize) -> Option<&mut [u8]> {
        at.checked_add(len).filter(|end| *end <= self.len)?;
        // SAFETY: within the allocation of `len` initialised octets, borrowed as long as the stage is.
        Some(unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(at), len) })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let octets = NonNull::slice_from_raw_parts(self.base, self.len);
        // SAFETY: leaked from such a box in `new`, and given back only here.
        drop(unsafe { Box::from_raw(octets.as_ptr()) });
    }
}

/// Large stages shared by the connections of an engine: leased while frames have to be copied, then given back.
#[derive(Default)]
pub struct StagePool {
    provided: AtomicUsize,
    free: Mutex<Vec<Stage>>,
}

/// Stages kept when nobody uses them.
const KEPT_STAGES: usize = 8;

impl StagePool {
    /// Allocates a stage for a stream that begins, up to those that are kept anyway: posting finds it there.
    pub(super) fn provide(&self) {
        if self.provided.fetch_add(1, Ordering::Relaxed) < KEPT_STAGES {
            self.give_back(Stage::new(BIG_STAGE));
        }
    }

    fn lease(&self) -> Stage {
        let free = self.free.lock().pop();
        free.unwrap_or_else(|| Stage::new(BIG_STAGE))
    }

    fn give_back(&self, stage: Stage) {
        let mut free = self.free.lock();
        if free.len() < KEPT_STAGES {
            free.push(stage);
        }
    }
}

/// A gather under construction or on its way out.
pub(super) struct Gather {
    pieces: Vec<Piece>,
    /// Pieces before this one have been sent.
    first: usize,
    small: Stage,
    /// The small stage was too small for a frame behind others.
    cramped: bool,
    /// There is more to do than to forget the pieces when all has been sent.
    untidy: bool,
    big: Option<Stage>,
    staged: usize,
    /// The last piece lies in the stage, so that what is staged next only makes it longer.
    ends_staged: bool,
    bytes: usize,
    /// Stream positions, relative to the beginning of the gather, at which its frames end.
    frame_ends: Vec<u32>,
    sent: usize,
    lent: Lents,
    /// What is left of a frame that has been sent in part.
    rest: Option<Stage>,
    pool: Arc<StagePool>,
}

// SAFETY: the pieces point into the stages, which the gather owns, into memory of work requests that the send queue
// holds until they have been sent (or the gather has been sealed), or into memory under the keys in `lent`, which is only
// read while these are entered.
unsafe impl Send for Gather {}

impl Gather {
    pub(super) fn new(pool: &Arc<StagePool>) -> Self {
        Self {
            pieces: Vec::new(),
            first: 0,
            small: Stage::new(FIRST_STAGE),
            cramped: false,
            untidy: false,
            big: None,
            staged: 0,
            ends_staged: false,
            bytes: 0,
            frame_ends: Vec::new(),
            sent: 0,
            lent: Lents::new(),
            rest: None,
            pool: Arc::clone(pool),
        }
    }

    /// Makes sure that a large stage can be leased without an allocation.
    pub(super) fn provide(&self) {
        self.pool.provide();
    }

    /// Whether all of it has been sent.
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.bytes
    }

    /// What is still to be sent.
    pub(super) fn pieces(&self) -> &[Piece] {
        self.pieces.get(self.first..).unwrap_or_default()
    }

    /// Octets still to be sent.
    pub(super) fn remaining(&self) -> usize {
        self.bytes - self.sent
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> (usize, usize) {
        (self.pieces.capacity(), self.frame_ends.capacity())
    }

    #[cfg(test)]
    pub(super) fn holds_lease(&self) -> bool {
        self.big.is_some()
    }

    /// Prepares for building; only when everything has been sent.
    pub(super) fn reset(&mut self) {
        self.pieces.clear();
        self.frame_ends.clear();
        (self.first, self.staged, self.bytes, self.sent) = (0, 0, 0, 0);
        self.ends_staged = false;
        if self.untidy {
            self.tidy();
        }
    }

    #[cold]
    fn tidy(&mut self) {
        self.untidy = false;
        self.lent.clear();
        for stage in [self.big.take(), self.rest.take()].into_iter().flatten() {
            self.pool.give_back(stage);
        }
        if std::mem::take(&mut self.cramped) {
            self.grow();
        }
    }

    /// Makes the small stage as large as it can be. Whether it was not: only when nothing is staged.
    fn grow(&mut self) -> bool {
        let first = self.small.len < SMALL_STAGE;
        if first {
            self.small = Stage::new(SMALL_STAGE);
        }
        first
    }

    /// Makes room for a frame that stages `stage` octets and refers to `references` pieces of memory. A leased stage
    /// is taken only at the beginning, so that what is staged stays in one place.
    pub(super) fn reserve(&mut self, stage: usize, references: usize) -> bool {
        if self.bytes >= MAX_BYTES
            || self.frame_ends.len() == MAX_FRAMES
            || self.pieces.len() + references + 2 > MAX_PIECES
        {
            return false;
        }
        let capacity = self.big.as_ref().map_or(self.small.len, |big| big.len);
        if self.staged + stage <= capacity {
            return true;
        }
        self.make_stage(stage)
    }

    #[cold]
    fn make_stage(&mut self, stage: usize) -> bool {
        self.cramped |= self.small.len < SMALL_STAGE && self.big.is_none();
        self.untidy |= self.cramped;
        if self.bytes == 0 && stage <= SMALL_STAGE && self.grow() {
            return true;
        }
        if self.bytes == 0 && self.big.is_none() && stage <= BIG_STAGE {
            self.big = Some(self.pool.lease());
            self.untidy = true;
            return true;
        }
        false
    }

    /// `len` staged octets, to be filled by the caller; empty where there is no room, which `reserve` rules out.
    pub(super) fn stage(&mut self, len: usize) -> &mut [u8] {
        if len == 0 {
            return &mut [];
        }
        let stage = self.big.as_mut().unwrap_or(&mut self.small);
        let Some(octets) = stage.slice(self.staged, len) else { return &mut [] };
        self.staged += len;
        self.bytes += len;
        match self.pieces.last_mut() {
            Some(last) if self.ends_staged => last.0.iov_len += len,
            // SAFETY: the stage is the gather's own and outlives its pieces.
            _ => self.pieces.push(unsafe { Piece::new(octets.as_ptr(), len) }),
        }
        self.ends_staged = true;
        octets
    }

    /// The last `len` staged octets.
    pub(super) fn staged_tail(&mut self, len: usize) -> &[u8] {
        let start = self.staged.saturating_sub(len);
        let stage = self.big.as_mut().unwrap_or(&mut self.small);
        stage.slice(start, self.staged - start).unwrap_or_default()
    }

    /// Refers to `len` octets of a posted work request.
    pub(super) fn refer(&mut self, ptr: *const u8, len: usize) {
        if len > 0 {
            self.bytes += len;
            // SAFETY: the send queue holds the work request until its last octet has been sent, or the gather is sealed.
            self.pieces.push(unsafe { Piece::new(ptr, len) });
            self.ends_staged = false;
        }
    }

    /// Ends a frame.
    pub(super) fn end_frame(&mut self) {
        self.frame_ends.push(self.bytes as u32);
    }

    /// Notes that `count` octets have been sent; a leased stage goes back with the last of them.
    pub(super) fn advance(&mut self, mut count: usize) {
        self.sent += count;
        if self.sent >= self.bytes {
            self.reset();
            return;
        }
        while let Some(piece) = self.pieces.get_mut(self.first) {
            if count < piece.len() {
                *piece = piece.behind(count);
                return;
            }
            count -= piece.len();
            self.first += 1;
        }
    }

    /// Where the frame that has been sent in part ends; where there is none, what has been sent.
    fn begun_end(&self) -> usize {
        let end = |frame: usize| self.frame_ends.get(frame).map(|end| *end as usize);
        let next = self.frame_ends.partition_point(|end| *end as usize <= self.sent);
        let start = next.checked_sub(1).and_then(end).unwrap_or(0);
        if start == self.sent { self.sent } else { end(next).unwrap_or(self.sent) }
    }

    /// Cuts the gather behind the frame that has been sent in part and copies what is left of that frame, so that no
    /// memory of a work request is referred to any more. There is room behind it for a frame of `more` octets.
    pub(super) fn seal(&mut self, more: usize) {
        let (sent, end) = (self.sent, self.begun_end());
        let mut rest: Vec<u8> = Vec::with_capacity(end - sent);
        for piece in self.pieces.iter().skip(self.first) {
            let have = rest.len();
            let count = piece.len().min(end - sent - have);
            rest.resize(have + count, 0);
            // SAFETY: the piece is valid until sent (see `refer`), and one under a key has been copied (`keep_rest`);
            // `count` octets are within it and within `rest`, which has just been made that long.
            unsafe { std::ptr::copy_nonoverlapping(piece.ptr(), rest.as_mut_ptr().add(have), count) };
        }
        self.reset();
        if !rest.is_empty() && self.reserve(rest.len() + more, 0) {
            self.stage(rest.len()).copy_from_slice(&rest);
            self.end_frame();
        }
    }
}

#[cfg(test)]
#[path = "gather_test.rs"]
mod test;
