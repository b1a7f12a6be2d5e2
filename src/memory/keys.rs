//! Steering tags: the keys by which a peer reaches memory, checked before any octet is placed.
//!
//! RFC 5042 asks that an STag is hard to guess, bound to a stream or a protection domain, checked for bounds,
//! wrap and rights, and that after its revocation the network can no longer touch the buffer.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::region::{Access, Region};
use crate::error::{Error, Result};

/// Who may use a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Owner {
    /// Every stream of the protection domain.
    Domain,
    /// One stream, by its number.
    Stream(u64),
}

/// Why an access by a peer is refused; maps to the Terminate codes of RFC 5040 section 4.8 and RFC 5041 section 8.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyFault {
    /// No such key, or it has been revoked.
    InvalidStag,
    /// Outside the range of the key.
    Bounds,
    /// The key does not give this right.
    Access,
    /// The key belongs to another stream.
    NotAssociated,
    /// The tagged offset wraps.
    Wrap,
    /// The key may not be invalidated by a peer.
    CannotInvalidate,
}

/// One key: a range of a region, with rights, for an owner.
#[derive(Debug)]
pub struct Key {
    stag: u32,
    owner: Owner,
    access: Access,
    /// Address of the range, which is also its first tagged offset.
    base: u64,
    length: u64,
    region: Weak<Region>,
    /// Held for reading while octets are copied; written once, at revocation: see [`Key::enter`].
    valid: RwLock<bool>,
}

impl Key {
    /// The key itself.
    pub fn stag(&self) -> u32 {
        self.stag
    }

    /// Whether a peer has a key to write to the memory, or the region has gone.
    pub fn is_writable_by_peers(&self) -> bool {
        self.region.upgrade().is_none_or(|region| region.is_writable_by_peers())
    }

    fn check(
        &self,
        offset: u64,
        length: u64,
        access: Access,
        stream: u64,
    ) -> std::result::Result<(), KeyFault> {
        if self.owner != Owner::Domain && self.owner != Owner::Stream(stream) {
            return Err(KeyFault::NotAssociated);
        }
        if !self.access.contains(access) {
            return Err(KeyFault::Access);
        }
        let end = offset.checked_add(length).ok_or(KeyFault::Wrap)?;
        if offset < self.base || end > self.base + self.length {
            return Err(KeyFault::Bounds);
        }
        Ok(())
    }

    /// Copies `source` to tagged offset `offset`, which [`KeyTable::check`] has found in range.
    pub fn place(&self, offset: u64, source: &[u8]) -> std::result::Result<(), KeyFault> {
        let valid = self.valid.read();
        self.in_range(*valid, offset, source.len())?;
        // SAFETY: the key is valid while the gate is held for reading, so the region is still registered and the
        // range, checked just above, mapped; `source` is our own buffer and can't overlap it.
        unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), offset as usize as *mut u8, source.len()) };
        Ok(())
    }

    /// Lets `fill` write up to `length` octets at tagged offset `offset`; the key can't be revoked meanwhile.
    pub fn lend<R>(
        &self,
        offset: u64,
        length: usize,
        fill: impl FnOnce(*mut u8) -> R,
    ) -> std::result::Result<R, KeyFault> {
        let valid = self.valid.read();
        self.in_range(*valid, offset, length)?;
        Ok(fill(offset as usize as *mut u8))
    }

    /// Copies from tagged offset `offset` into `target`.
    pub fn fetch(&self, offset: u64, target: &mut [u8]) -> std::result::Result<(), KeyFault> {
        let valid = self.valid.read();
        self.in_range(*valid, offset, target.len())?;
        // SAFETY: as in `place`, with the roles exchanged.
        unsafe {
            std::ptr::copy_nonoverlapping(offset as usize as *const u8, target.as_mut_ptr(), target.len());
        };
        Ok(())
    }

    /// Begins an access that may last for one system call: while it does the key can't be revoked. `None` once it has
    /// been, or is just about to be, so that this never waits and any number of keys can be entered together.
    pub fn enter(&self) -> Option<Entered<'_>> {
        self.valid.try_read().filter(|valid| **valid).map(Entered)
    }

    fn in_range(&self, valid: bool, offset: u64, length: usize) -> std::result::Result<(), KeyFault> {
        if !valid {
            return Err(KeyFault::InvalidStag);
        }
        let end = offset.checked_add(length as u64).ok_or(KeyFault::Wrap)?;
        if offset < self.base || end > self.base + self.length { Err(KeyFault::Bounds) } else { Ok(()) }
    }

    /// Shuts the gate, which waits for a placement that is under way. Returns whether it was open.
    fn revoke(&self) -> bool {
        std::mem::replace(&mut *self.valid.write(), false)
    }
}

/// An access under a key, begun by [`Key::enter`].
pub struct Entered<'a>(#[expect(dead_code, reason = "held, not looked at")] RwLockReadGuard<'a, bool>);

#[derive(Default)]
struct Inner {
    keys: HashMap<u32, Arc<Key>>,
    by_stream: HashMap<u64, HashSet<u32>>,
    by_region: HashMap<usize, HashSet<u32>>,
}

/// A protection domain (one engine): its keys, and how many regions and arenas belong to it.
#[derive(Default)]
pub struct KeyTable {
    /// Regions the application has registered.
    pub regions: AtomicUsize,
    /// Arenas.
    pub arenas: AtomicUsize,
    /// Regions there have been, the library's own included.
    pub registrations: AtomicU64,
    /// Registrations with devices there have been.
    pub device_registrations: AtomicU64,
    /// Octets of the regions there are.
    pub octets: AtomicUsize,
    inner: RwLock<Inner>,
    random: Mutex<RandomPool>,
}

impl KeyTable {
    /// An empty table.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Adds a key for a range of `region`.
    pub(super) fn insert(
        &self,
        region: &Arc<Region>,
        owner: Owner,
        offset: usize,
        length: usize,
        access: Access,
    ) -> Result<u32> {
        let base = region.base() as u64 + offset as u64;
        let (stag, mut inner) = loop {
            let stag = self.random.lock().draw()?;
            let inner = self.inner.write();
            // 0 means "none" on the wire of some peers, 1 is used for zero-length ready-to-receive frames.
            if stag > 1 && !inner.keys.contains_key(&stag) {
                break (stag, inner);
            }
        };
        let region_id = Arc::as_ptr(region) as usize;
        if access.contains(Access::REMOTE_WRITE) {
            region.count_write_key();
        }
        let key = Key {
            stag,
            owner,
            access,
            base,
            length: length as u64,
            region: Arc::downgrade(region),
            valid: RwLock::new(true),
        };
        inner.keys.insert(stag, Arc::new(key));
        inner.by_region.entry(region_id).or_default().insert(stag);
        if let Owner::Stream(stream) = owner {
            inner.by_stream.entry(stream).or_default().insert(stag);
        }
        Ok(stag)
    }

    /// Looks a key up for an access of `length` octets at `offset` by `stream`.
    pub fn check(
        &self,
        stag: u32,
        offset: u64,
        length: u64,
        access: Access,
        stream: u64,
    ) -> std::result::Result<Arc<Key>, KeyFault> {
        let key = self.inner.read().keys.get(&stag).cloned().ok_or(KeyFault::InvalidStag)?;
        key.check(offset, length, access, stream)?;
        Ok(key)
    }

    /// Whether a key exists.
    pub fn is_live(&self, stag: u32) -> bool {
        self.inner.read().keys.contains_key(&stag)
    }

    /// Number of keys, for tests and statistics.
    pub fn len(&self) -> usize {
        self.inner.read().keys.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A peer asks, by Send with Invalidate on `stream`, for the end of a key. Only keys that belong to that very
    /// stream can be invalidated (RFC 5042: never one that streams share).
    pub fn invalidate(&self, stag: u32, stream: u64) -> std::result::Result<(), KeyFault> {
        let key = self.inner.read().keys.get(&stag).cloned().ok_or(KeyFault::InvalidStag)?;
        match key.owner {
            Owner::Stream(owner) if owner == stream => {
                self.remove(&key).then_some(()).ok_or(KeyFault::InvalidStag)
            }
            Owner::Stream(_) => Err(KeyFault::NotAssociated),
            Owner::Domain => Err(KeyFault::CannotInvalidate),
        }
    }

    /// Revokes every key of a stream that has ended.
    pub fn revoke_stream(&self, stream: u64) {
        let keys = self.collect(|inner| inner.by_stream.get(&stream));
        for key in keys {
            self.remove(&key);
        }
    }

    /// Revokes every key of a region.
    pub(super) fn revoke_region(&self, region: &Region) {
        let id = std::ptr::from_ref(region) as usize;
        let keys = self.collect(|inner| inner.by_region.get(&id));
        for key in keys {
            self.remove(&key);
        }
    }

    pub(super) fn revoke_of_region(&self, stag: u32, region: &Region) -> Result<()> {
        let key = self.inner.read().keys.get(&stag).cloned();
        if key.is_some_and(|key| std::ptr::eq(key.region.as_ptr(), region) && self.remove(&key)) {
            return Ok(());
        }
        Err(Error::new(libc::ENOENT, crate::error::Reason::Invalid, "no such key of this region"))
    }

    fn collect(&self, index: impl FnOnce(&Inner) -> Option<&HashSet<u32>>) -> Vec<Arc<Key>> {
        let inner = self.inner.read();
        let stags = index(&inner).into_iter().flatten();
        stags.filter_map(|stag| inner.keys.get(stag).cloned()).collect()
    }

    /// Revokes a key and takes it out; whether this call is the one that did. The gate comes first: as long as a
    /// placement may still be under way the key can be found, so that whoever else revokes it waits as well. The
    /// wait happens outside the table's lock, so that other keys stay usable.
    fn remove(&self, key: &Key) -> bool {
        if !key.revoke() {
            return false;
        }
        if let Some(region) = key.region.upgrade().filter(|_| key.access.contains(Access::REMOTE_WRITE)) {
            region.forget_write_key();
        }
        {
            let mut inner = self.inner.write();
            inner.keys.remove(&key.stag);
            if let Owner::Stream(stream) = key.owner {
                remove_from(&mut inner.by_stream, &stream, key.stag);
            }
            remove_from(&mut inner.by_region, &(key.region.as_ptr() as usize), key.stag);
        }
        true
    }
}

fn remove_from<K: Eq + std::hash::Hash>(index: &mut HashMap<K, HashSet<u32>>, id: &K, stag: u32) {
    if let Some(stags) = index.get_mut(id) {
        stags.remove(&stag);
        if stags.is_empty() {
            index.remove(id);
        }
    }
}

/// Random keys, drawn from the system by the page.
#[derive(Default)]
struct RandomPool {
    octets: Vec<u8>,
}

impl RandomPool {
    fn draw(&mut self) -> Result<u32> {
        if self.octets.len() < 4 {
            self.octets.resize(256, 0);
            getrandom::fill(&mut self.octets).map_err(|error| {
                Error::new(
                    libc::EIO,
                    crate::error::Reason::Resources,
                    format!("no random numbers for keys: {error}"),
                )
            })?;
        }
        let rest = self.octets.len().saturating_sub(4);
        let word = self.octets.drain(rest..);
        Ok(word.fold(0, |value, octet| value << 8 | u32::from(octet)))
    }
}

#[cfg(test)]
#[path = "keys_test.rs"]
mod test;
