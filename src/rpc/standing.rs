//! Keys that live as long as the connection: to memory of arenas, where the caller wants that. On a device a key is a
//! registration, which costs more than a short call.

use std::sync::Arc;

use crate::engine::{Conn, key};
use crate::error::Result;
use crate::memory::{Access, Region};

/// The keys of a connection, each to a whole region.
#[derive(Default)]
pub(super) struct Standing {
    wanted: bool,
    keys: Vec<(Arc<Region>, Access, u32)>,
}

impl Standing {
    pub(super) fn new(wanted: bool) -> Self {
        Self { wanted, keys: Vec::new() }
    }

    /// The key to a region; `None`: it is to have one for the call.
    pub(super) fn key(&mut self, conn: &Conn, region: &Arc<Region>, access: Access) -> Result<Option<u32>> {
        if !self.wanted || !region.is_of_arena() {
            return Ok(None);
        }
        // Those of arenas that are no more.
        self.keys.retain(|(of, ..)| !of.is_closed());
        let same = |(of, with, _): &&(Arc<Region>, Access, u32)| Arc::ptr_eq(of, region) && *with == access;
        if let Some((.., handle)) = self.keys.iter().find(same) {
            return Ok(Some(*handle));
        }
        let handle = key(region, Some(conn), 0, region.len(), access)?;
        self.keys.push((Arc::clone(region), access, handle));
        Ok(Some(handle))
    }

    /// The connection has ended, and its keys with it.
    pub(super) fn end(&mut self) {
        for (region, _, handle) in self.keys.drain(..) {
            let _ = region.retire_key(handle);
        }
    }
}
