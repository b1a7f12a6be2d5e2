//! Arenas: buffers of one size that come registered, for callers that would otherwise register per operation.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::keys::KeyTable;
use super::region::{Access, Region};
use crate::error::{Error, Reason, Result};

/// Size and limits of an arena.
#[derive(Clone, Copy, Debug)]
pub struct ArenaConfig {
    /// Octets in each buffer.
    pub buffer_size: usize,
    /// Buffers allocated and registered at a time; 0 = 16.
    pub slab: usize,
    /// Most buffers at all; 0 = 1024.
    pub max: usize,
    /// Rights of the buffers' regions.
    pub access: Access,
}

/// Page size: what slabs are aligned to, so that no foreign data shares a page with registered memory.
const PAGE: usize = 4096;

/// One allocation, one region, many buffers.
struct Slab {
    region: Arc<Region>,
    layout: Layout,
    lent: Vec<bool>,
}

impl Drop for Slab {
    fn drop(&mut self) {
        let lent = self.lent.iter().any(|lent| *lent);
        if lent || !(self.region.is_closed() || self.region.deregister().is_ok()) {
            // Dropped without `Arena::destroy`, while somebody may still use the memory: it must stay.
            return;
        }
        // SAFETY: allocated with this layout in `Arena::grow` and freed only here. No buffer is lent, and the region
        // is deregistered: no operation uses it, none can begin to, and no key leads to it.
        unsafe { dealloc(self.region.base(), self.layout) };
    }
}

#[derive(Default)]
struct State {
    slabs: Vec<Slab>,
    /// (slab, buffer) pairs not lent, last in first out so that warm buffers are used again.
    free: Vec<(u32, u32)>,
    closed: bool,
}

/// A pool of registered buffers.
pub struct Arena {
    config: ArenaConfig,
    table: Arc<KeyTable>,
    state: Mutex<State>,
    handle: AtomicUsize,
}

impl Arena {
    /// An empty arena; memory is taken slab by slab when asked for.
    pub fn new(table: &Arc<KeyTable>, mut config: ArenaConfig) -> Result<Arc<Self>> {
        if config.slab == 0 {
            config.slab = 16;
        }
        if config.max == 0 {
            config.max = 1024;
        }
        config.slab = config.slab.min(config.max);
        let bytes =
            config.buffer_size.checked_mul(config.slab).filter(|bytes| *bytes <= isize::MAX as usize / 2);
        if config.buffer_size == 0 || bytes.is_none() || u32::try_from(config.max).is_err() {
            return Err(Error::invalid("an arena needs a buffer size, and slabs that fit the address space"));
        }
        Ok(Arc::new(Self {
            config,
            table: Arc::clone(table),
            state: Mutex::default(),
            handle: AtomicUsize::new(0),
        }))
    }

    /// The protection domain it belongs to.
    pub fn domain(&self) -> &Arc<KeyTable> {
        &self.table
    }

    /// The handle under which the C API knows it, 0 before it has one.
    pub fn handle(&self) -> usize {
        self.handle.load(Ordering::Relaxed)
    }

    /// Gives it its handle.
    pub fn set_handle(&self, handle: usize) {
        self.handle.store(handle, Ordering::Relaxed);
    }

    /// Lends a buffer: its address, length and region. `register` is told of each new region.
    pub fn take(
        &self,
        register: impl FnOnce(&Arc<Region>) -> Result<()>,
    ) -> Result<(*mut u8, usize, Arc<Region>)> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::state(libc::EBADF, "the arena is destroyed"));
        }
        if state.free.is_empty() {
            self.grow(&mut state, register)?;
        }
        let Some((slab_index, index)) = state.free.pop() else {
            return Err(Error::new(libc::ENOBUFS, Reason::Resources, "all buffers of the arena are lent"));
        };
        let Some(slab) = state.slabs.get_mut(slab_index as usize) else {
            return Err(Error::new(libc::EIO, Reason::Internal, "arena index out of range"));
        };
        if let Some(lent) = slab.lent.get_mut(index as usize) {
            *lent = true;
        }
        let addr = slab.region.base().wrapping_add(index as usize * self.config.buffer_size);
        Ok((addr, self.config.buffer_size, Arc::clone(&slab.region)))
    }

    fn grow(&self, state: &mut State, register: impl FnOnce(&Arc<Region>) -> Result<()>) -> Result<()> {
        let have: usize = state.slabs.iter().map(|slab| slab.lent.len()).sum();
        let count = self.config.slab.min(self.config.max.saturating_sub(have));
        if count == 0 {
            return Ok(());
        }
        let layout = Layout::from_size_align(count * self.config.buffer_size, PAGE)
            .map_err(|_| Error::invalid("the slab does not fit the address space"))?;
        // SAFETY: the layout's size is not zero: both factors are checked above and in `new`.
        let base = unsafe { alloc_zeroed(layout) };
        if base.is_null() {
            let text = format!("no memory for a slab of {} bytes", layout.size());
            return Err(Error::new(libc::ENOMEM, Reason::Resources, text));
        }
        // SAFETY: allocated just above; the slab frees it after the region's end only.
        let region = unsafe { Region::new(&self.table, base, layout.size(), self.config.access) }?;
        region.give_to_arena();
        let slab = Slab { region, layout, lent: vec![false; count] };
        register(&slab.region)?;
        let slab_index = state.slabs.len() as u32;
        state.slabs.push(slab);
        state.free.extend((0..count as u32).rev().map(|index| (slab_index, index)));
        Ok(())
    }

    /// Takes a lent buffer back.
    pub fn put(&self, addr: *mut u8) -> Result<()> {
        let mut state = self.state.lock();
        let place = state.slabs.iter().position(|slab| slab.region.holds(addr, 1));
        let Some(slab_index) = place else { return Err(Error::invalid("not a buffer of this arena")) };
        let size = self.config.buffer_size;
        let lent = state.slabs.get_mut(slab_index).and_then(|slab| {
            let offset = addr as usize - slab.region.base() as usize;
            let index = offset / size;
            let slot = slab.lent.get_mut(index)?;
            (offset % size == 0 && std::mem::take(slot)).then_some(index as u32)
        });
        let Some(index) = lent else { return Err(Error::invalid("the buffer is not lent")) };
        state.free.push((slab_index as u32, index));
        Ok(())
    }

    /// Ends the arena; `EBUSY` while buffers are lent or operations use them.
    pub fn destroy(&self, mut unregister: impl FnMut(&Arc<Region>)) -> Result<()> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::state(libc::EBADF, "the arena is destroyed"));
        }
        let lent = state.slabs.iter().flat_map(|slab| &slab.lent).filter(|lent| **lent).count();
        if lent > 0 || state.slabs.iter().any(|slab| slab.region.in_use()) {
            return Err(Error::state(
                libc::EBUSY,
                format!("{lent} buffers of the arena are still lent or in use"),
            ));
        }
        let State { slabs, free, .. } = &mut *state;
        for slab in slabs.iter().filter(|slab| !slab.region.is_closed()) {
            if let Err(error) = slab.region.deregister() {
                // A use began since the check. The slabs that are gone lend nothing any more; the rest can be
                // destroyed later.
                free.retain(|(index, _)| {
                    slabs.get(*index as usize).is_some_and(|slab| !slab.region.is_closed())
                });
                return Err(error);
            }
            unregister(&slab.region);
        }
        state.closed = true;
        state.slabs.clear();
        state.free.clear();
        Ok(())
    }
}

#[cfg(test)]
#[path = "arena_test.rs"]
mod test;
