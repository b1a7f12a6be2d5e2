//! Devices, protection domains, memory regions and completion queues, with the interface of `sys`.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use parking_lot::MutexGuard;

use super::fabric::{Completions, Fabric, Key, Notifier, Region, State};
use super::failed_with;
use super::queue::Qp;
use super::signal::Signal;
use crate::error::Result;
use crate::verbs::types::{AsyncEvent, DeviceLimits, Rights, Wc};

/// The context of a device: valid as long as an id is on the device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceHandle {
    fabric: u64,
    device: Key,
}

/// As `sys`'s: the model's devices wait for nobody.
pub(crate) struct Departure;

impl Departure {
    /// As `sys`'s.
    pub(crate) fn proceed(&self) -> bool {
        true
    }
}

impl DeviceHandle {
    /// As `sys`'s.
    pub(crate) fn depart(self) -> Departure {
        Departure
    }

    pub(super) fn new(fabric: u64, device: Key) -> Self {
        Self { fabric, device }
    }

    /// Begins a call on the device, which librdmacm has closed if it is gone and no id is on it any more.
    fn begin(self, what: &'static str) -> Result<Arc<Fabric>> {
        let fabric = Fabric::find(self.fabric).ok_or_else(|| failed_with(what, libc::EIO))?;
        let mut state = fabric.lock();
        state.touch(self.device, what);
        let removed = state.devices[&self.device].removed;
        state.call(what)?;
        drop(state);
        if removed { Err(failed_with(what, libc::EIO)) } else { Ok(fabric) }
    }

    /// What the device can do through `port`.
    pub(crate) fn limits(self, port: u8) -> Result<DeviceLimits> {
        let fabric = self.begin("ibv_query_device")?;
        let mut state = fabric.lock();
        if port != 1 {
            state.violation(format!("the device has no port {port}"));
        }
        Ok(state.config(self.device).limits.clone())
    }

    /// The descriptor of asynchronous events.
    pub(crate) fn async_fd(self) -> Result<RawFd> {
        let what = "fcntl";
        let fabric = Fabric::find(self.fabric).ok_or_else(|| failed_with(what, libc::EIO))?;
        let mut state = fabric.lock();
        state.call(what)?;
        Ok(state.devices[&self.device].signal.as_raw_fd())
    }

    /// The next asynchronous event; `None` when none waits.
    pub(crate) fn async_event(self) -> Option<AsyncEvent> {
        let fabric = Fabric::find(self.fabric)?;
        let mut state = fabric.lock();
        let device = state.devices.get_mut(&self.device)?;
        let event = device.async_events.pop_front();
        device.signal.set(!device.async_events.is_empty());
        event.map(|(event, _)| event)
    }
}

impl State {
    /// Something is done with a device: it has to be kept open by an id, as librdmacm may close it with the last one.
    fn touch(&mut self, device: Key, what: &str) {
        if !self.ids.values().any(|id| id.device == Some(device)) {
            self.violation(format!("{what} on a device that is closed"));
        }
    }

    /// An asynchronous event, of a queue pair or (0) of the device.
    pub(super) fn push_async(&mut self, device: Key, event: AsyncEvent, qp: Key) {
        let device = self.devices.get_mut(&device).expect("devices stay in the list");
        device.async_events.push_back((event, qp));
        device.signal.set(true);
    }

    /// Asynchronous events of a queue pair that is destroyed.
    pub(super) fn forget_async(&mut self, qp: Key) {
        for device in self.devices.values_mut() {
            device.async_events.retain(|(_, of)| *of != qp);
            device.signal.set(!device.async_events.is_empty());
        }
    }
}

/// `struct ibv_pd`.
pub(crate) struct Pd {
    fabric: Arc<Fabric>,
    key: Key,
}

impl Drop for Pd {
    fn drop(&mut self) {
        let mut state = self.fabric.lock();
        let used = state.regions.values().any(|region| region.pd == self.key)
            || state.qps.values().any(|qp| qp.pd == self.key);
        if used {
            state.violation("a protection domain was deallocated that is in use");
        }
        if let Some(device) = state.pds.remove(&self.key) {
            state.touch(device, "ibv_dealloc_pd");
        }
    }
}

impl Pd {
    /// `ibv_alloc_pd`.
    pub(crate) fn new(device: DeviceHandle) -> Result<Arc<Self>> {
        let fabric = device.begin("ibv_alloc_pd")?;
        let mut state = fabric.lock();
        let key = state.key();
        state.pds.insert(key, device.device);
        drop(state);
        Ok(Arc::new(Self { fabric, key }))
    }

    pub(super) fn key(&self) -> Key {
        self.key
    }
}

/// `struct ibv_mr`.
pub(crate) struct Mr {
    pd: Arc<Pd>,
    key: Key,
}

impl Drop for Mr {
    fn drop(&mut self) {
        let mut state = self.pd.fabric.lock();
        let lkey = self.local_key();
        let staying = |qp: &Qp| !state.devices[&qp.device].leaving;
        if state.qps.values().any(|qp| qp.uses(lkey) && staying(qp)) {
            state.violation("a region was deregistered that posted operations use");
        }
        let device = state.pds[&self.pd.key];
        state.touch(device, "ibv_dereg_mr");
        state.regions.remove(&self.key);
    }
}

impl Mr {
    /// `ibv_reg_mr`.
    ///
    /// # Safety
    /// The memory stays mapped as long as the region lives.
    pub(crate) unsafe fn new(pd: &Arc<Pd>, addr: *mut u8, length: usize, rights: Rights) -> Result<Self> {
        let what = "ibv_reg_mr";
        let mut state = pd.fabric.lock();
        state.call(what)?;
        let device = state.pds[&pd.key];
        if state.devices[&device].removed {
            return Err(failed_with(what, libc::EIO));
        }
        if length == 0 || (rights.remote_write && !rights.local_write) {
            return Err(failed_with(what, libc::EINVAL));
        }
        let key = state.key();
        let base = addr.expose_provenance();
        state.regions.insert(key, Region { pd: pd.key, base, length, rights, invalidated: false });
        drop(state);
        Ok(Self { pd: Arc::clone(pd), key })
    }

    /// The key for our own work requests.
    pub(crate) fn local_key(&self) -> u32 {
        local_key(self.key)
    }

    /// The key for peers.
    pub(crate) fn remote_key(&self) -> u32 {
        remote_key(self.key)
    }
}

fn local_key(region: Key) -> u32 {
    (region as u32) << 8 | 0x11
}

fn remote_key(region: Key) -> u32 {
    (region as u32) << 8 | 0x22
}

/// The region of a local key.
pub(super) fn region_of_local(key: u32) -> Option<Key> {
    (key & 0xff == 0x11).then_some(Key::from(key >> 8))
}

/// The region of a remote key.
pub(super) fn region_of_remote(key: u32) -> Option<Key> {
    (key & 0xff == 0x22).then_some(Key::from(key >> 8))
}

/// `struct ibv_comp_channel`.
pub(crate) struct CompChannel {
    fabric: Arc<Fabric>,
    key: Key,
    fd: RawFd,
}

impl AsRawFd for CompChannel {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl Drop for CompChannel {
    fn drop(&mut self) {
        let mut state = self.fabric.lock();
        if state.cqs.values().any(|cq| cq.channel == self.key) {
            state.violation("a completion channel was destroyed that has queues");
        }
        if let Some(notifier) = state.notifiers.remove(&self.key) {
            state.touch(notifier.device, "ibv_destroy_comp_channel");
        }
    }
}

impl CompChannel {
    /// `ibv_create_comp_channel`, whose descriptor does not block.
    pub(crate) fn new(device: DeviceHandle) -> Result<Arc<Self>> {
        let fabric = device.begin("ibv_create_comp_channel")?;
        let signal = Signal::new()?;
        let mut state = fabric.lock();
        let (key, fd) = (state.key(), signal.as_raw_fd());
        state.notifiers.insert(key, Notifier { device: device.device, fired: Default::default(), signal });
        drop(state);
        Ok(Arc::new(Self { fabric, key, fd }))
    }

    /// Takes and acknowledges all events that wait; `fired` gets the context of each event's completion queue.
    pub(crate) fn drain(&self, mut fired: impl FnMut(usize)) {
        let mut state = self.fabric.lock();
        let Some(notifier) = state.notifiers.get_mut(&self.key) else { return };
        let queues = std::mem::take(&mut notifier.fired);
        notifier.signal.set(false);
        let contexts: Vec<_> = queues.iter().map(|cq| state.cqs[cq].context).collect();
        drop(state);
        contexts.into_iter().for_each(&mut fired);
    }
}

/// A completion in its queue.
pub(super) struct Cqe {
    pub(super) wc: Wc,
    pub(super) qp: Key,
    /// When it is polled, the send queue's slots up to this number are free; `None`: one of the receive queue's.
    pub(super) frees: Option<u64>,
}

/// `struct ibv_cq`.
pub(crate) struct Cq {
    channel: Arc<CompChannel>,
    key: Key,
}

impl Drop for Cq {
    fn drop(&mut self) {
        let mut state = self.lock();
        if state.qps.values().any(|qp| qp.cq == self.key) {
            state.violation("a completion queue was destroyed that has queue pairs");
        }
        if let Some(cq) = state.cqs.remove(&self.key) {
            state.touch(cq.device, "ibv_destroy_cq");
        }
        if let Some(notifier) = state.notifiers.get_mut(&self.channel.key) {
            notifier.fired.retain(|cq| *cq != self.key);
            notifier.signal.set(!notifier.fired.is_empty());
        }
    }
}

impl Cq {
    /// `ibv_create_cq` for at least `entries` completions; its events carry `context`.
    pub(crate) fn new(
        device: DeviceHandle,
        channel: &Arc<CompChannel>,
        entries: u32,
        context: usize,
    ) -> Result<Arc<Self>> {
        let what = "ibv_create_cq";
        let fabric = device.begin(what)?;
        let mut state = fabric.lock();
        if entries == 0 || entries > state.config(device.device).limits.max_cqe {
            return Err(failed_with(what, libc::EINVAL));
        }
        let key = state.key();
        let completions = Completions {
            device: device.device,
            channel: channel.key,
            context,
            capacity: entries as usize,
            entries: Default::default(),
            armed: false,
        };
        state.cqs.insert(key, completions);
        drop(state);
        Ok(Arc::new(Self { channel: Arc::clone(channel), key }))
    }

    pub(super) fn key(&self) -> Key {
        self.key
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.channel.fabric.lock()
    }

    /// `ibv_poll_cq`: moves completions to `out`, at most 32.
    pub(crate) fn poll(&self, out: &mut Vec<Wc>) -> Result<usize> {
        const BATCH: usize = 32;
        let mut state = self.lock();
        let count = state.cqs[&self.key].entries.len().min(BATCH);
        if count == 0 {
            return Ok(0);
        }
        state.call("ibv_poll_cq")?;
        for _ in 0..count {
            let Some(cqe) = state.cqs.get_mut(&self.key).and_then(|cq| cq.entries.pop_front()) else { break };
            state.reap(&cqe);
            out.push(cqe.wc);
        }
        Ok(count)
    }

    /// `ibv_req_notify_cq`: the next completion makes an event; those that are there already make none.
    pub(crate) fn arm(&self) -> Result<()> {
        let mut state = self.lock();
        state.call("ibv_req_notify_cq")?;
        if let Some(cq) = state.cqs.get_mut(&self.key) {
            cq.armed = true;
        }
        Ok(())
    }
}
