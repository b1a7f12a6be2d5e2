//! A registered region: its bounds, its rights, who uses it now and the keys that lead to it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use super::keys::{KeyTable, Owner};
use super::registration::{Hold, Purpose, Registrations};
use crate::error::{Error, Result};
use crate::trace;

/// What may be done with a region; the bits are those of `RCG_LOCAL`, `RCG_REMOTE_READ`, `RCG_REMOTE_WRITE`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access(u32);

impl Access {
    /// Local operations only: the region can be sent from and received into.
    pub const LOCAL: Self = Self(1);
    /// A peer that holds a key may read.
    pub const REMOTE_READ: Self = Self(2);
    /// A peer that holds a key may write.
    pub const REMOTE_WRITE: Self = Self(4);

    /// The rights in `bits`; `None` for no right at all or an unknown one.
    pub fn from_bits(bits: u32) -> Option<Self> {
        (bits != 0 && bits & !7 == 0).then_some(Self(bits))
    }

    /// The rights as bits.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether every right in `other` is held.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The rights a peer can be given.
    pub fn remote(self) -> Self {
        Self(self.0 & 6)
    }
}

/// Set in [`Region::uses`] once deregistered: no new use can begin.
const CLOSED: u32 = 1 << 31;

/// Memory the application has registered. It stays the application's; the region must outlive every posted
/// operation on it, which [`Region::deregister`] enforces.
pub struct Region {
    base: *mut u8,
    length: usize,
    access: Access,
    /// Operations that hold a piece of the region, and [`CLOSED`].
    uses: AtomicU32,
    /// Keys by which a peer may write.
    write_keys: AtomicU32,
    table: Arc<KeyTable>,
    handle: AtomicUsize,
    of_arena: AtomicBool,
    registrations: Registrations,
}

// SAFETY: `base` is only dereferenced by the copying functions of this module and of `work`, within bounds and
// while a use or a key gate is held; the struct itself is otherwise made of `Send` parts.
unsafe impl Send for Region {}
// SAFETY: as above; all interior state is atomic or behind a lock.
unsafe impl Sync for Region {}

impl Drop for Region {
    /// A region that is dropped without having been deregistered: its keys end all the same.
    fn drop(&mut self) {
        if *self.uses.get_mut() & CLOSED == 0 {
            trace::mr_deregister(self.base, self.length);
            self.table.octets.fetch_sub(self.length, Ordering::Relaxed);
        }
        self.table.revoke_region(self);
        self.registrations.end(|_, _, _| true);
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({:p} + {:#x}, {:?})", self.base, self.length, self.access)
    }
}

impl Region {
    /// Registers `length` octets at `base`.
    ///
    /// # Safety
    /// The memory stays mapped, readable and (where it is received into or written to) writable, until
    /// [`Region::deregister`] succeeds.
    pub unsafe fn new(
        table: &Arc<KeyTable>,
        base: *mut u8,
        length: usize,
        access: Access,
    ) -> Result<Arc<Self>> {
        if base.is_null() || length == 0 {
            return Err(Error::invalid("a region needs an address and a length"));
        }
        if (base as usize).checked_add(length).is_none() {
            return Err(Error::invalid("the region wraps around the address space"));
        }
        trace::mr_register(base, length, access.bits());
        table.registrations.fetch_add(1, Ordering::Relaxed);
        table.octets.fetch_add(length, Ordering::Relaxed);
        Ok(Arc::new(Self {
            base,
            length,
            access,
            uses: AtomicU32::new(0),
            write_keys: AtomicU32::new(0),
            table: Arc::clone(table),
            handle: AtomicUsize::new(0),
            of_arena: AtomicBool::new(false),
            registrations: Registrations::default(),
        }))
    }

    /// First octet.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// Length in octets.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Never true: a region has at least one octet.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The rights it was registered with.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The protection domain it belongs to.
    pub fn domain(&self) -> &Arc<KeyTable> {
        &self.table
    }

    /// The handle under which the C API knows it, 0 before it has one.
    pub fn handle(&self) -> usize {
        self.handle.load(Ordering::Relaxed)
    }

    /// Whether it is the slab of an arena, whose business it is to end it.
    pub fn is_of_arena(&self) -> bool {
        self.of_arena.load(Ordering::Relaxed)
    }

    pub(super) fn give_to_arena(&self) {
        self.of_arena.store(true, Ordering::Relaxed);
    }

    /// Gives it its handle.
    pub fn set_handle(&self, handle: usize) {
        self.handle.store(handle, Ordering::Relaxed);
    }

    /// Whether `[addr, addr + length)` lies in the region.
    pub fn holds(&self, addr: *const u8, length: usize) -> bool {
        let Some(offset) = (addr as usize).checked_sub(self.base as usize) else { return false };
        offset.checked_add(length).is_some_and(|end| end <= self.length)
    }

    /// Begins a use: the region can't be deregistered until [`Region::end_use`].
    pub(crate) fn begin_use(&self) -> Result<()> {
        // One addition, taken back where it came too late: no loop on the path of every post.
        if self.uses.fetch_add(1, Ordering::AcqRel) & CLOSED == 0 {
            return Ok(());
        }
        self.end_use();
        Err(Error::state(libc::EBADF, "the region is deregistered"))
    }

    /// Ends a use.
    pub(crate) fn end_use(&self) {
        self.uses.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether a peer may write to it now.
    pub(crate) fn is_writable_by_peers(&self) -> bool {
        self.write_keys.load(Ordering::Acquire) > 0
    }

    pub(super) fn count_write_key(&self) {
        self.write_keys.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn forget_write_key(&self) {
        self.write_keys.fetch_sub(1, Ordering::AcqRel);
    }

    /// That a device lets a peer write to it, for as long as what is returned lives.
    pub(crate) fn grant_writing(self: &Arc<Self>) -> WriteGrant {
        self.count_write_key();
        WriteGrant(Arc::downgrade(self))
    }

    /// Whether posted operations hold pieces of it.
    pub fn in_use(&self) -> bool {
        self.uses.load(Ordering::Acquire) & !CLOSED != 0
    }

    /// Whether it has been deregistered.
    pub(crate) fn is_closed(&self) -> bool {
        self.uses.load(Ordering::Acquire) & CLOSED != 0
    }

    /// A new key for `[offset, offset + length)` with the rights `access`, for `owner`. Each call gives another one, so
    /// that revoking or invalidating one leaves the others alone.
    pub fn key(self: &Arc<Self>, owner: Owner, offset: usize, length: usize, access: Access) -> Result<u32> {
        let access = self.check_grant(offset, length, access)?;
        self.begin_use()?;
        let key = self.table.insert(self, owner, offset, length, access);
        self.end_use();
        key
    }

    /// Revokes one key, of whichever provider. When it returns, no peer can reach the memory by it.
    pub fn revoke_key(&self, key: u32) -> Result<()> {
        let is_it = |_, purpose, other| purpose == Purpose::Remote && other == key;
        self.end_key(key, self.registrations.end_settled(is_it))
    }

    /// The same for a key whose peer has done what it was for: what its device may still be placing is not waited for.
    pub fn retire_key(&self, key: u32) -> Result<()> {
        let is_it = |_, purpose, other| purpose == Purpose::Remote && other == key;
        self.end_key(key, self.registrations.end(is_it))
    }

    fn end_key(&self, key: u32, of_devices: usize) -> Result<()> {
        let of_table = self.table.revoke_of_region(key, self);
        if of_devices > 0 { Ok(()) } else { of_table }
    }

    /// The key of the region's registration with a device, if it has one for this purpose.
    pub fn device_key(&self, device: u64, purpose: Purpose) -> Option<u32> {
        self.registrations.key(device, purpose)
    }

    /// Keeps a registration with a device; returns the key to use, which for our own purposes is that of the first.
    pub fn add_device_key(
        &self,
        device: u64,
        purpose: Purpose,
        key: u32,
        hold: Arc<dyn Hold>,
    ) -> Result<u32> {
        // A region that has been deregistered meanwhile would never end it.
        if let Err(error) = self.begin_use() {
            hold.release();
            return Err(error);
        }
        let key = self.registrations.add(device, purpose, key, hold);
        self.end_use();
        Ok(key)
    }

    /// Whether a peer's key on a device is still good.
    pub fn has_device_key(&self, device: u64, key: u32) -> bool {
        self.registrations.has_remote(device, key)
    }

    /// Ends a peer's key of a device, as when its connection ends or the peer has invalidated it.
    pub fn end_device_key(&self, device: u64, key: u32) -> bool {
        let ended = |of, purpose, other| of == device && purpose == Purpose::Remote && other == key;
        self.registrations.end(ended) > 0
    }

    /// Forgets a device that is gone.
    pub fn end_device(&self, device: u64) {
        self.registrations.end(|of, _, _| of == device);
    }

    /// Checks what a key is to open: a range of the region, with remote rights that the region has.
    pub fn check_grant(&self, offset: usize, length: usize, access: Access) -> Result<Access> {
        if offset.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(Error::invalid("the range lies outside the region"));
        }
        if length == 0 {
            return Err(Error::invalid("a key for no octets opens nothing"));
        }
        let access = access.remote();
        if access.bits() == 0 || !self.access.contains(access) {
            return Err(Error::new(
                libc::EACCES,
                crate::error::Reason::Invalid,
                "the region was not registered with these remote rights",
            ));
        }
        Ok(access)
    }

    /// Ends the registration: refused with `EBUSY` while posted operations hold it; otherwise every key is
    /// revoked, a placement in progress is waited for, and no peer can reach the memory any more.
    pub fn deregister(&self) -> Result<()> {
        match self.uses.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                trace::mr_deregister(self.base, self.length);
                self.table.octets.fetch_sub(self.length, Ordering::Relaxed);
                self.table.revoke_region(self);
                self.registrations.end_settled(|_, _, _| true);
                Ok(())
            }
            Err(uses) if uses & CLOSED != 0 => Err(Error::state(libc::EBADF, "the region is deregistered")),
            Err(uses) => {
                Err(Error::state(libc::EBUSY, format!("{uses} posted operations still use the region")))
            }
        }
    }
}

/// See [`Region::grant_writing`].
pub(crate) struct WriteGrant(Weak<Region>);

impl Drop for WriteGrant {
    fn drop(&mut self) {
        if let Some(region) = self.0.upgrade() {
            region.forget_write_key();
        }
    }
}

#[cfg(test)]
#[path = "region_test.rs"]
mod test;
