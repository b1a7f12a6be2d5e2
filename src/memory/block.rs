//! Memory of the library's own that is registered.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::sync::Arc;

use super::keys::KeyTable;
use super::region::{Access, Region};
use crate::error::{Error, Reason, Result};

/// Octets of zeros at first, with a region of their own.
pub struct Block {
    region: Arc<Region>,
    layout: Layout,
}

impl Drop for Block {
    fn drop(&mut self) {
        // Whoever owns a block drops the work requests that use it first; were one left, the memory must stay.
        if self.region.deregister().is_err() {
            return;
        }
        // SAFETY: allocated in `new` with this layout and freed only here; the region is deregistered, so no element
        // refers to it and none can be made.
        unsafe { dealloc(self.region.base(), self.layout) };
    }
}

impl Block {
    /// `count` times `size` octets, for peers to reach as `access` says.
    pub fn new(table: &Arc<KeyTable>, size: usize, count: usize, access: Access) -> Result<Self> {
        let bytes = size.checked_mul(count).filter(|bytes| *bytes > 0);
        let layout = bytes
            .and_then(|bytes| Layout::from_size_align(bytes, 64).ok())
            .ok_or_else(|| Error::invalid("buffers of this size and number do not fit the address space"))?;
        // SAFETY: the layout's size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        if base.is_null() {
            let text = format!("no memory for {count} buffers of {size} bytes");
            return Err(Error::new(libc::ENOMEM, Reason::Resources, text));
        }
        // SAFETY: allocated just above, and freed after the region's end only.
        let region = unsafe { Region::new(table, base, layout.size(), access) }?;
        Ok(Self { region, layout })
    }

    /// Its region, which is the whole of it.
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Octets.
    pub fn len(&self) -> usize {
        self.layout.size()
    }

    /// Whether it has none, which is never so.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The address of the octet at `offset`.
    pub fn at(&self, offset: usize) -> *mut u8 {
        self.region.base().wrapping_add(offset)
    }
}
