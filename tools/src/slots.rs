//! Registered memory in equal pieces, and the work requests that use them.

use rdmacm_gluster::engine::Engine;
use rdmacm_gluster::error::Result;
use rdmacm_gluster::memory::{Access, Block};
use rdmacm_gluster::work::{Opcode, Payload, RecvWr, SendWr, Sge, SgeList, flags};

/// `count` pieces of `size` octets.
pub(crate) struct Slots {
    block: Block,
    size: usize,
}

impl Slots {
    pub(crate) fn new(engine: &Engine, size: usize, count: usize) -> Result<Self> {
        Ok(Self { block: Block::new(engine.keys(), size, count, Access::LOCAL)?, size })
    }

    /// The first `length` octets of a piece.
    pub(crate) fn sge(&self, slot: usize, length: usize) -> Result<Sge> {
        self.block.region().sge(self.block.at(slot * self.size), length)
    }

    /// A receive into a piece, whose number is its cookie.
    pub(crate) fn recv(&self, slot: usize) -> Result<RecvWr> {
        Ok(RecvWr { sges: SgeList::from_iter([self.sge(slot, self.size)?]), user: slot })
    }

    /// A Send of the first `length` octets of a piece, whose number is its cookie.
    pub(crate) fn send(&self, slot: usize, length: usize) -> Result<SendWr> {
        self.wr(Opcode::Send, (slot, length), (0, 0))
    }

    /// Any operation on the first `length` octets of a piece and memory of the peer's: its address and key.
    pub(crate) fn wr(
        &self,
        opcode: Opcode,
        (slot, length): (usize, usize),
        (remote_addr, remote_key): (u64, u32),
    ) -> Result<SendWr> {
        let sges = (length > 0).then(|| self.sge(slot, length)).transpose()?.into_iter().collect();
        let wr = SendWr::new(opcode, Payload::Sges(sges));
        Ok(SendWr { flags: flags::SIGNALED, remote_addr, remote_key, user: slot, ..wr })
    }
}
