//! What has been built, to the socket.

use std::io;

use arrayvec::ArrayVec;

use super::QueuePair;
use super::gather::{MAX_KEYS, Piece};
use crate::memory::KeyFault;

/// What became of what there was to send.
pub enum Sent {
    /// All that one call can be given has been taken.
    All,
    /// A part of it; so many octets are left.
    Part(usize),
    /// There was nothing.
    Nothing,
}

impl QueuePair {
    /// Builds frames if none are left and has `socket` send them: it returns how many octets it took. Pieces of memory
    /// that a peer reads are under their keys, none of which can be revoked during the call.
    pub fn send(&mut self, socket: impl FnOnce(&[Piece]) -> io::Result<usize>) -> io::Result<Sent> {
        if !self.fill() {
            return Ok(Sent::Nothing);
        }
        if self.tx.gather.is_lent() { self.send_lent(socket) } else { self.send_gather(socket) }
    }

    #[cold]
    fn send_lent(&mut self, socket: impl FnOnce(&[Piece]) -> io::Result<usize>) -> io::Result<Sent> {
        let lent = self.tx.gather.take_lent();
        let keys = lent.iter().map(|one| one.key.enter());
        let Some(entered) = keys.collect::<Option<ArrayVec<_, MAX_KEYS>>>() else {
            // Revoked while the response was on its way: the stream can't go on.
            self.revoked_under_read(KeyFault::InvalidStag);
            return if self.has_output() { self.send_gather(socket) } else { Ok(Sent::Nothing) };
        };
        let sent = self.send_gather(socket);
        self.tx.gather.keep_rest();
        drop(entered);
        self.tx.gather.give_lent(lent);
        sent
    }

    #[inline]
    fn send_gather(&mut self, socket: impl FnOnce(&[Piece]) -> io::Result<usize>) -> io::Result<Sent> {
        let count = socket(self.tx.gather.pieces())?;
        self.tx.gather.advance(count);
        self.tx.sent += count as u64;
        self.sq.reap(self.tx.sent);
        let left = self.tx.gather.remaining();
        Ok(if left > 0 { Sent::Part(left) } else { Sent::All })
    }
}
