//! Receive buffers that the library owns: lent to the application with each message, posted again on release.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::sync::Arc;

use super::keys::KeyTable;
use super::region::{Access, Region};
use crate::error::{Error, Reason, Result};

/// `count` receive buffers of `size` octets in one allocation and one region without remote rights.
pub struct ReceivePool {
    region: Arc<Region>,
    layout: Layout,
    size: usize,
    lent: Vec<bool>,
}

impl Drop for ReceivePool {
    fn drop(&mut self) {
        // The receive queue that owns the pool drops its work requests first; were one left, the memory must stay.
        if self.region.deregister().is_err() {
            return;
        }
        // SAFETY: allocated in `new` with this layout and freed only here; the region is deregistered, so no element
        // refers to it and none can be made.
        unsafe { dealloc(self.region.base(), self.layout) };
    }
}

impl ReceivePool {
    /// Allocates and registers the buffers.
    pub fn new(table: &Arc<KeyTable>, size: usize, count: usize) -> Result<Self> {
        let bytes = size.checked_mul(count).filter(|bytes| *bytes > 0);
        let layout = bytes.and_then(|bytes| Layout::from_size_align(bytes, 64).ok()).ok_or_else(|| {
            Error::invalid("receive buffers of this size and number do not fit the address space")
        })?;
        // SAFETY: the layout's size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        if base.is_null() {
            let text = format!("no memory for {count} receive buffers of {size} bytes");
            return Err(Error::new(libc::ENOMEM, Reason::Resources, text));
        }
        // SAFETY: allocated just above; the pool frees it after the region's end only.
        let region = unsafe { Region::new(table, base, layout.size(), Access::LOCAL) }?;
        Ok(Self { region, layout, size, lent: vec![false; count] })
    }

    /// Number of buffers.
    pub fn count(&self) -> usize {
        self.lent.len()
    }

    /// The element of one buffer.
    pub fn sge(&self, index: usize) -> Result<crate::work::Sge> {
        let offset = index.checked_mul(self.size).filter(|_| index < self.lent.len());
        let offset = offset.ok_or_else(|| Error::invalid("no such receive buffer"))?;
        self.region.sge(self.region.base().wrapping_add(offset), self.size)
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
