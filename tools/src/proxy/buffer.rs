//! Registered buffers of the proxy's, lent by arenas.

use std::sync::Arc;

use rdmacm_gluster::engine::{Engine, arena_destroy, arena_take};
use rdmacm_gluster::error::Result;
use rdmacm_gluster::memory::{Access, Arena, ArenaConfig, Region};
use rdmacm_gluster::work::Sge;

/// Octets of a message besides its payload.
const HEAD_ROOM: usize = 64 << 10;

/// Buffers for messages: those that peers read, and those that they write.
pub(crate) struct Pools {
    source: Arc<Arena>,
    sink: Arc<Arena>,
}

impl Pools {
    pub(crate) fn new(engine: &Engine, max_payload: usize, max: usize) -> Result<Self> {
        let arena = |access| {
            let buffer_size = max_payload + HEAD_ROOM;
            engine.arena(ArenaConfig { buffer_size, slab: 4, max, access })
        };
        Ok(Self { source: arena(Access::REMOTE_READ)?, sink: arena(Access::REMOTE_WRITE)? })
    }

    /// A buffer that a peer may be allowed to read.
    pub(crate) fn source(&self) -> Result<Buffer> {
        Buffer::take(&self.source)
    }

    /// A buffer that a peer may be allowed to write.
    pub(crate) fn sink(&self) -> Result<Buffer> {
        Buffer::take(&self.sink)
    }

    pub(crate) fn destroy(&self) -> Result<()> {
        arena_destroy(&self.source).and_then(|()| arena_destroy(&self.sink))
    }
}

/// One buffer, given back when it is dropped.
pub(crate) struct Buffer {
    addr: *mut u8,
    length: usize,
    region: Arc<Region>,
    arena: Arc<Arena>,
}

// SAFETY: the buffer is this value's alone; what a peer may do to it is said at `octets`.
unsafe impl Send for Buffer {}

impl Drop for Buffer {
    fn drop(&mut self) {
        let _ = self.arena.put(self.addr);
    }
}

impl Buffer {
    fn take(arena: &Arc<Arena>) -> Result<Self> {
        let (addr, length, region) = arena_take(arena)?;
        Ok(Self { addr, length, region, arena: Arc::clone(arena) })
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn sge(&self, at: usize, octets: usize) -> Result<Sge> {
        self.region.sge(self.addr.wrapping_add(at), octets)
    }

    /// Its octets: only while no peer may write to it, which is before a call and after its reply.
    pub(crate) fn octets(&self) -> &[u8] {
        // SAFETY: lent to this value alone, and the library has revoked the keys of a call whose reply it tells.
        unsafe { std::slice::from_raw_parts(self.addr, self.length) }
    }

    /// Its octets to be filled: only while no peer may read it.
    pub(crate) fn octets_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.addr, self.length) }
    }
}
