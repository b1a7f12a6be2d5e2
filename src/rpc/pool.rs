//! Registered memory for messages and for what is read from the peer, used again and again: registering costs more than
//! copying a message.

use std::sync::Arc;

use crate::error::Result;
use crate::memory::{Access, Block, KeyTable};
use crate::work::Sge;

/// Blocks that are kept of each size, and octets of all of them together.
const KEEP: usize = 64;
const KEEP_OCTETS: usize = 32 << 20;
/// The smallest block.
const LEAST: usize = 1024;

/// Blocks by size: powers of two.
#[derive(Default)]
pub(super) struct Pool {
    free: Vec<Block>,
    octets: usize,
}

impl Pool {
    /// A block of at least `octets`, which may hold anything.
    pub(super) fn take(&mut self, table: &Arc<KeyTable>, octets: usize) -> Result<Block> {
        let size = octets.max(LEAST).next_power_of_two();
        if let Some(at) = self.free.iter().rposition(|block| block.len() == size) {
            self.octets -= size;
            return Ok(self.free.swap_remove(at));
        }
        Block::new(table, size, 1, Access::LOCAL)
    }

    /// Octets in a block, and the element for them.
    pub(super) fn copy(&mut self, table: &Arc<KeyTable>, octets: &[u8]) -> Result<(Sge, Block)> {
        let block = self.take(table, octets.len())?;
        let sge = block.region().sge(block.at(0), octets.len())?;
        sge.fill(0, octets);
        Ok((sge, block))
    }

    /// Takes a block back that no work request uses.
    pub(super) fn put(&mut self, block: Block) {
        let same = self.free.iter().filter(|other| other.len() == block.len()).count();
        if same < KEEP && self.octets + block.len() <= KEEP_OCTETS && !block.region().in_use() {
            self.octets += block.len();
            self.free.push(block);
        }
    }
}
