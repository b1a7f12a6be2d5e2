//! Receive buffers that the library owns: lent to the application with each message, posted again on release.

use std::sync::Arc;

use super::block::Block;
use super::keys::KeyTable;
use super::region::Access;
use crate::error::{Error, Result};

/// `count` receive buffers of `size` octets in one allocation and one region without remote rights.
pub struct ReceivePool {
    block: Block,
    size: usize,
    lent: Vec<bool>,
}

impl ReceivePool {
    /// Allocates and registers the buffers.
    pub fn new(table: &Arc<KeyTable>, size: usize, count: usize) -> Result<Self> {
        let block = Block::new(table, size, count, Access::LOCAL)?;
        Ok(Self { block, size, lent: vec![false; count] })
    }

    /// Number of buffers.
    pub fn count(&self) -> usize {
        self.lent.len()
    }

    /// The element of one buffer.
    pub fn sge(&self, index: usize) -> Result<crate::work::Sge> {
        let offset = index.checked_mul(self.size).filter(|_| index < self.lent.len());
        let offset = offset.ok_or_else(|| Error::invalid("no such receive buffer"))?;
        self.block.region().sge(self.block.at(offset), self.size)
    }

    /// Marks a buffer lent.
    pub fn lend(&mut self, index: usize) {
        if let Some(lent) = self.lent.get_mut(index) {
            *lent = true;
        }
    }

    /// Takes a lent buffer back; an error when it is not lent.
    pub fn take_back(&mut self, index: usize) -> Result<()> {
        if self.lent.get_mut(index).is_some_and(std::mem::take) {
            return Ok(());
        }
        Err(Error::invalid("the receive buffer is not lent"))
    }
}
