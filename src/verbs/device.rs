//! Devices in use, and the registrations of memory with them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::sys::{CmId, DeviceHandle, Mr, Pd, await_softirqs};
use crate::error::{Error, Reason, Result};
use crate::memory::{Access, Hold, Purpose, Region, WriteGrant};
use crate::verbs::types::{DeviceLimits, Rights};

/// Vendor number of the kernel's soft iWARP, whose user library sends every invalidate for STag 0.
pub(super) const VENDOR_SIW: u32 = 0x0062_6d74;

impl DeviceLimits {
    /// Whether a Send can invalidate a key of the peer's.
    pub(crate) fn can_invalidate(&self) -> bool {
        !self.is_siw()
    }

    /// Whether it is the kernel's soft iWARP.
    pub(crate) fn is_siw(&self) -> bool {
        self.iwarp && self.vendor == VENDOR_SIW
    }
}

/// A device that is in use: its protection domain and what is registered in that.
pub(crate) struct Device {
    /// Its number in this program: a device that comes back gets another one.
    number: u64,
    handle: DeviceHandle,
    limits: DeviceLimits,
    pd: Mutex<Option<Arc<Pd>>>,
    gone: Arc<AtomicBool>,
    registered: Mutex<Vec<(Weak<Region>, Weak<Registered>)>>,
}

/// A registration, ended once.
struct Registered {
    mr: Mutex<Option<(Mr, Option<WriteGrant>)>>,
    /// siw looks at a key and then copies what one buffer of the network's holds; ending the registration does not wait for
    /// that (Linux 6.1: `siw_proc_write`, `siw_mr_drop_mem`).
    lingers: bool,
}

impl Hold for Registered {
    fn release(&self) {
        let mr = self.mr.lock().take();
        drop(mr);
    }

    fn lingers(&self) -> bool {
        self.lingers
    }

    fn settle(&self) {
        await_softirqs();
    }
}

impl Device {
    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// What it can do.
    pub(crate) fn limits(&self) -> &DeviceLimits {
        &self.limits
    }

    pub(super) fn handle(&self) -> DeviceHandle {
        self.handle
    }

    /// Its protection domain; an error once it is gone.
    pub(super) fn pd(&self) -> Result<Arc<Pd>> {
        self.pd.lock().clone().ok_or_else(gone)
    }

    /// Whether it has been removed, as far as any engine of this process has been told.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// The key for our own use of a region on this device; registers it at first.
    pub(crate) fn local_key(&self, region: &Arc<Region>, purpose: Purpose) -> Result<u32> {
        if let Some(key) = region.device_key(self.number, purpose) {
            return Ok(key);
        }
        let rights =
            Rights { local_write: true, remote_read: false, remote_write: purpose == Purpose::ReadSink };
        let (whole, access) = ((region.base(), region.len()), rights);
        // Memory that can't be written can still be sent from.
        let read_only = Rights { local_write: false, ..rights };
        let mr = self.register(whole, access).or_else(|error| match error.errno {
            libc::EFAULT | libc::EACCES | libc::EPERM if purpose == Purpose::Local => {
                self.register(whole, read_only).map_err(|_| error)
            }
            _ => Err(error),
        })?;
        let key = mr.local_key();
        self.keep(region, purpose, key, (mr, None))
    }

    /// A key by which a peer reaches a part of the region.
    pub(crate) fn remote_key(
        &self,
        region: &Arc<Region>,
        offset: usize,
        length: usize,
        access: Access,
    ) -> Result<u32> {
        let access = region.check_grant(offset, length, access)?;
        let write = access.contains(Access::REMOTE_WRITE);
        let rights = Rights {
            local_write: write,
            remote_read: access.contains(Access::REMOTE_READ),
            remote_write: write,
        };
        let mr = self.register((region.base().wrapping_add(offset), length), rights)?;
        let key = mr.remote_key();
        let grant = write.then(|| region.grant_writing());
        self.keep(region, Purpose::Remote, key, (mr, grant))
    }

    fn register(&self, (addr, length): (*mut u8, usize), rights: Rights) -> Result<Mr> {
        let pd = self.pd()?;
        // SAFETY: the memory lies in a region, which stays mapped until it is deregistered; that ends this first.
        unsafe { Mr::new(&pd, addr, length, rights) }.map_err(|error| self.explain(error, length))
    }

    fn keep(
        &self,
        region: &Arc<Region>,
        purpose: Purpose,
        key: u32,
        mr: (Mr, Option<WriteGrant>),
    ) -> Result<u32> {
        let lingers = self.limits.is_siw() && purpose != Purpose::Local;
        let hold = Arc::new(Registered { mr: Mutex::new(Some(mr)), lingers });
        let mut registered = self.registered.lock();
        if self.is_gone() {
            hold.release();
            return Err(gone());
        }
        if registered.len() == registered.capacity() {
            registered.retain(|(_, hold)| hold.strong_count() > 0);
        }
        registered.push((Arc::downgrade(region), Arc::downgrade(&hold)));
        region.domain().device_registrations.fetch_add(1, Ordering::Relaxed);
        drop(registered);
        region.add_device_key(self.number, purpose, key, hold)
    }

    /// What an administrator wants to know of a registration that failed.
    fn explain(&self, error: Error, length: usize) -> Error {
        let what = format!("register {} with {}: {}", octets(length as u64), self.limits.name, error.text);
        // The kernel says EPERM where the limit is 0.
        if ![libc::ENOMEM, libc::EAGAIN, libc::EPERM].contains(&error.errno) {
            return Error { text: what.into(), ..error };
        }
        let pinned = octets(pinned_memory());
        let limit = memlock_limit().map_or_else(|| "none".to_owned(), octets);
        let text = format!("{what}; locked-memory limit {limit}, pinned {pinned}");
        Error::new(libc::ENOMEM, Reason::Resources, text)
            .with_remedy("LimitMEMLOCK=infinity in the unit, or `ulimit -l unlimited`")
    }

    /// The device has been removed: what is registered with it ends, so that its driver can go.
    pub(super) fn remove(&self) {
        self.gone.store(true, Ordering::Release);
        self.close();
    }

    /// Ends all registrations and the protection domain, as far as no queue pair holds it.
    fn close(&self) {
        let registered = std::mem::take(&mut *self.registered.lock());
        for (region, hold) in registered {
            if let Some(hold) = hold.upgrade() {
                hold.release();
            }
            if let Some(region) = region.upgrade() {
                region.end_device(self.number);
            }
        }
        self.pd.lock().take();
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.close();
    }
}

/// What tells that a device was removed, one for all engines of the process. The kernel tells one id after another, and
/// both ends of a connection may be here: whoever is told first tears his end down, and the other is to know why.
fn removal_flag(handle: DeviceHandle) -> Arc<AtomicBool> {
    static FLAGS: Mutex<Vec<(DeviceHandle, Weak<AtomicBool>)>> = Mutex::new(Vec::new());
    let mut flags = FLAGS.lock();
    flags.retain(|(_, flag)| flag.strong_count() > 0);
    // One that was raised is another device's, whose context lay at the same address.
    let lowered = |flag: &Arc<AtomicBool>| !flag.load(Ordering::Acquire);
    let mut known = flags.iter().filter(|(other, _)| *other == handle);
    if let Some(flag) = known.find_map(|(_, flag)| flag.upgrade().filter(lowered)) {
        return flag;
    }
    let flag = Arc::default();
    flags.push((handle, Arc::downgrade(&flag)));
    flag
}

fn gone() -> Error {
    Error::new(libc::ENODEV, Reason::DeviceGone, "the device was removed")
}

/// The devices of an engine that are in use.
#[derive(Default)]
pub(crate) struct Devices {
    list: Mutex<Vec<Arc<Device>>>,
}

impl Devices {
    /// The device that an id is bound to. It stays open until [`Devices::settle`] finds that nobody needs it.
    pub(crate) fn open(&self, id: &CmId) -> Result<Arc<Device>> {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let handle = id.device().ok_or_else(|| {
            Error::new(libc::ENODEV, Reason::NoProvider, "no RDMA device serves the address")
        })?;
        let mut list = self.list.lock();
        let known = list.iter().find(|device| device.handle == handle && !device.is_gone());
        if let Some(device) = known {
            return Ok(Arc::clone(device));
        }
        let device = Arc::new(Device {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            handle,
            limits: handle.limits(id.port())?,
            pd: Mutex::new(Some(Pd::new(handle)?)),
            gone: removal_flag(handle),
            registered: Mutex::default(),
        });
        list.push(Arc::clone(&device));
        Ok(device)
    }

    /// Those that are in use.
    pub(crate) fn all(&self) -> Vec<Arc<Device>> {
        self.list.lock().iter().filter(|device| !device.is_gone()).cloned().collect()
    }

    /// Forgets a device that is gone, or that no channel has completion queues for any more. To be called while the id
    /// that keeps its context is still there.
    pub(super) fn settle(&self, device: Arc<Device>) {
        let mut list = self.list.lock();
        let listed = list.iter().any(|other| Arc::ptr_eq(other, &device));
        // The caller and the list, and nobody else.
        let last = Arc::strong_count(&device) == 1 + usize::from(listed);
        if device.is_gone() || last {
            list.retain(|other| !Arc::ptr_eq(other, &device));
        }
    }
}

/// A number of octets for people.
fn octets(count: u64) -> String {
    const UNITS: [(u32, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = UNITS.iter().find(|(shift, _)| count >> shift > 0);
    match unit {
        Some((shift, name)) => format!("{:.1} {name}", count as f64 / (1_u64 << shift) as f64),
        None => format!("{count} B"),
    }
}

/// The limit of locked memory; `None` = without end.
fn memlock_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` takes the answer.
    let code = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    (code == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// What this process has pinned for devices: `VmPin` of proc(5).
fn pinned_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPin:"));
    let kilo = line.and_then(|line| line.split_whitespace().next()).and_then(|text| text.parse::<u64>().ok());
    kilo.unwrap_or(0) << 10
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn sizes_for_people() {
        assert_eq!(octets(0), "0 B");
        assert_eq!(octets(1023), "1023 B");
        assert_eq!(octets(1 << 10), "1.0 KiB");
        assert_eq!(octets(8 << 20), "8.0 MiB");
        assert_eq!(octets(3 << 29), "1.5 GiB");
    }
}
