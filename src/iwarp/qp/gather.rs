//! What goes to the socket with one `sendmsg`: headers, copied small payloads, and references to the caller's memory.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrayvec::ArrayVec;
use parking_lot::Mutex;

use crate::memory::Key;

/// Most pieces of one gather.
pub(super) const MAX_PIECES: usize = 128;
/// Most frames of one gather.
pub(super) const MAX_FRAMES: usize = 96;
/// Most keys under which one gather refers to exposed memory.
pub(super) const MAX_KEYS: usize = 8;
/// Octets that a connection can always stage: headers and small payloads.
pub(super) const SMALL_STAGE: usize = 4096;
/// Octets of a leased stage: four of the longest FPDUs, for CRC and for what is left of a Read Response sent in part.
pub(super) const BIG_STAGE: usize = 4 * 65_544;
/// Enough for one `sendmsg`.
const MAX_BYTES: usize = 512 * 1024;

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

/// A key under which a gather refers to memory, and the last of its frames that does.
pub(super) struct Lent {
    pub(super) key: Arc<Key>,
    frame: usize,
}

/// All of a gather.
pub(super) type Lents = ArrayVec<Lent, MAX_KEYS>;

/// A gather under construction or on its way out.
pub(super) struct Gather {
    pieces: Vec<Piece>,
    /// Pieces before this one have been sent.
    first: usize,
    small: Stage,
    big: Option<Stage>,
    staged: usize,
    /// The last piece lies in the stage, so that what is staged next only makes it longer.
    ends_staged: bool,
    bytes: usize,
    /// Stream positions, relative to the beginning of the gather, at which its frames end.
    frame_ends: Vec<usize>,
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
            pieces: Vec::with_capacity(MAX_PIECES),
            first: 0,
            small: Stage::new(SMALL_STAGE),
            big: None,
            staged: 0,
            ends_staged: false,
            bytes: 0,
            frame_ends: Vec::with_capacity(MAX_FRAMES),
            sent: 0,
            lent: ArrayVec::new(),
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
        self.lent.clear();
        for stage in [self.big.take(), self.rest.take()].into_iter().flatten() {
            self.pool.give_back(stage);
        }
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
        let capacity = self.big.as_ref().map_or(SMALL_STAGE, |big| big.len);
        if self.staged + stage <= capacity {
            return true;
        }
        if self.bytes == 0 && self.big.is_none() && stage <= BIG_STAGE {
            self.big = Some(self.pool.lease());
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

    /// Whether exposed memory under `key` can be referred to.
    pub(super) fn can_borrow(&self, key: &Arc<Key>) -> bool {
        !self.lent.is_full() || self.lent.last().is_some_and(|last| Arc::ptr_eq(&last.key, key))
    }

    /// Refers to `len` octets under a key, where [`Gather::can_borrow`] has said so. They are read by the system call
    /// that sends them, and by nobody before: see [`Gather::take_lent`].
    pub(super) fn borrow(&mut self, key: &Arc<Key>, ptr: *const u8, len: usize) {
        self.refer(ptr, len);
        let frame = self.frame_ends.len();
        match self.lent.last_mut() {
            Some(last) if Arc::ptr_eq(&last.key, key) => last.frame = frame,
            _ => self.lent.push(Lent { key: Arc::clone(key), frame }),
        }
    }

    /// Whether there are keys to enter before anything is sent.
    pub(super) fn is_lent(&self) -> bool {
        !self.lent.is_empty()
    }

    /// The keys that have to be entered while the pieces are read.
    pub(super) fn take_lent(&mut self) -> Lents {
        std::mem::take(&mut self.lent)
    }

    /// Takes those keys back whose memory has still to be read, once [`Gather::keep_rest`] has seen to the frame begun.
    pub(super) fn give_lent(&mut self, mut lent: Lents) {
        let begun = self.begun_end();
        lent.retain(|one| self.frame_ends.get(one.frame).is_some_and(|end| *end > begun));
        self.lent = lent;
    }

    /// Ends a frame.
    pub(super) fn end_frame(&mut self) {
        self.frame_ends.push(self.bytes);
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
        let next = self.frame_ends.partition_point(|end| *end <= self.sent);
        let start = next.checked_sub(1).and_then(|last| self.frame_ends.get(last)).copied().unwrap_or(0);
        if start == self.sent { self.sent } else { self.frame_ends.get(next).copied().unwrap_or(self.sent) }
    }

    /// Copies what is left of a frame that has been sent in part: it can be sent to its end whatever becomes of the keys,
    /// which the caller has entered.
    pub(super) fn keep_rest(&mut self) {
        let mut left = self.begun_end() - self.sent;
        // The last piece of a frame is staged: its trailer, with which the next frame may begin.
        if self.pieces().first().is_none_or(|piece| piece.len() >= left) {
            return;
        }
        let rest = self.rest.get_or_insert_with(|| self.pool.lease());
        let mut have = 0;
        while let Some(piece) = self.pieces.get_mut(self.first).filter(|_| left > 0) {
            let count = piece.len().min(left);
            let Some(target) = rest.slice(have, count) else { return };
            // SAFETY: the piece is valid, as the keys are entered; `target` is ours and as long.
            unsafe { std::ptr::copy_nonoverlapping(piece.ptr(), target.as_mut_ptr(), count) };
            (have, left) = (have + count, left - count);
            self.first += usize::from(count == piece.len());
            *piece = piece.behind(count);
        }
        // All of the first piece has been copied, so that there is a place in front of those that are left.
        self.first -= 1;
        if let Some(piece) = self.pieces.get_mut(self.first) {
            // SAFETY: the stage is the gather's own and outlives its pieces.
            *piece = unsafe { Piece::new(rest.base.as_ptr(), have) };
        }
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
            // `count` octets are within it and within `rest`,
            // which has just been made that long.
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
