//! Memory that a peer reads, sent from where it is: whoever sends enters its keys, so that none can be revoked meanwhile.

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::{Gather, Piece};
use crate::memory::Key;

/// Most keys under which one gather refers to exposed memory.
pub(in crate::iwarp::qp) const MAX_KEYS: usize = 8;

/// A key under which a gather refers to memory, and the last of its frames that does.
pub(in crate::iwarp::qp) struct Lent {
    pub(in crate::iwarp::qp) key: Arc<Key>,
    frame: usize,
}

/// All of a gather.
pub(in crate::iwarp::qp) type Lents = ArrayVec<Lent, MAX_KEYS>;

impl Gather {
    /// Whether exposed memory under `key` can be referred to.
    pub(in crate::iwarp::qp) fn can_borrow(&self, key: &Arc<Key>) -> bool {
        !self.lent.is_full() || self.lent.last().is_some_and(|last| Arc::ptr_eq(&last.key, key))
    }

    /// Refers to `len` octets under a key, where [`Gather::can_borrow`] has said so. They are read by the system call
    /// that sends them, and by nobody before: see [`Gather::take_lent`].
    pub(in crate::iwarp::qp) fn borrow(&mut self, key: &Arc<Key>, ptr: *const u8, len: usize) {
        self.refer(ptr, len);
        self.untidy = true;
        let frame = self.frame_ends.len();
        match self.lent.last_mut() {
            Some(last) if Arc::ptr_eq(&last.key, key) => last.frame = frame,
            _ => self.lent.push(Lent { key: Arc::clone(key), frame }),
        }
    }

    /// Whether there are keys to enter before anything is sent.
    pub(in crate::iwarp::qp) fn is_lent(&self) -> bool {
        !self.lent.is_empty()
    }

    /// The keys that have to be entered while the pieces are read.
    pub(in crate::iwarp::qp) fn take_lent(&mut self) -> Lents {
        std::mem::take(&mut self.lent)
    }

    /// Takes those keys back whose memory has still to be read, once [`Gather::keep_rest`] has seen to the frame begun.
    pub(in crate::iwarp::qp) fn give_lent(&mut self, mut lent: Lents) {
        let begun = self.begun_end();
        lent.retain(|one| self.frame_ends.get(one.frame).is_some_and(|end| *end as usize > begun));
        self.lent = lent;
    }

    /// Copies what is left of a frame that has been sent in part: it can be sent to its end whatever becomes of the keys,
    /// which the caller has entered.
    pub(in crate::iwarp::qp) fn keep_rest(&mut self) {
        let mut left = self.begun_end() - self.sent;
        // The last piece of a frame is staged: its trailer, with which the next frame may begin.
        if self.pieces().first().is_none_or(|piece| piece.len() >= left) {
            return;
        }
        let rest = self.rest.get_or_insert_with(|| self.pool.lease());
        self.untidy = true;
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
}
