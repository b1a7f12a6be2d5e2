//! The fabric: every object of the model behind one lock, the test's controls, and the ledger.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};

use super::device::Cqe;
use super::faults::{Delay, Faults, Incident};
use super::ids::Id;
use super::queue::Qp;
use super::signal::Signal;
use crate::error::Result;
use crate::verbs::device::VENDOR_SIW;
use crate::verbs::types::{AsyncEvent, CmKind, ConnParam, DeviceLimits, Rights};

/// Names an object of a fabric.
pub(super) type Key = u64;

/// What a device is like.
#[derive(Clone, Debug)]
pub(crate) struct DeviceConfig {
    pub(crate) limits: DeviceLimits,
    pub(crate) max_inline: u32,
    pub(crate) addrs: Vec<IpAddr>,
    /// A peer's Send with invalidate works on regions; else it fails, as with most hardware and plain regions.
    pub(crate) remote_invalidate: bool,
    /// Destroying a queue pair removes its completions from the queue, as mlx5 does; else they stay, as with rxe.
    pub(crate) clean_cq: bool,
    /// What is posted is flushed when the device goes; else it never completes.
    pub(crate) flush_on_removal: bool,
}

impl DeviceConfig {
    /// InfiniBand or RoCE.
    pub(crate) fn ib(addr: &str) -> Self {
        let limits = DeviceLimits {
            name: format!("fake-{addr}"),
            iwarp: false,
            vendor: 0,
            max_wr: 1024,
            max_sge: 16,
            max_read_sge: 16,
            max_cqe: 16_384,
            max_ird: 16,
            max_ord: 16,
            max_message: 1 << 31,
        };
        Self {
            limits,
            max_inline: 256,
            addrs: vec![addr.parse().expect("a numeric address")],
            remote_invalidate: false,
            clean_cq: false,
            flush_on_removal: true,
        }
    }

    /// iWARP.
    pub(crate) fn iwarp(addr: &str) -> Self {
        let mut config = Self::ib(addr);
        config.limits.iwarp = true;
        config.limits.max_read_sge = 1;
        config
    }

    /// The kernel's soft iWARP.
    pub(crate) fn siw(addr: &str) -> Self {
        let mut config = Self::iwarp(addr);
        config.limits.vendor = VENDOR_SIW;
        config
    }
}

/// How a device goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// The driver is unloaded: the connection manager can still say good-bye to peers.
    Orderly,
    /// It is pulled out: peers hear nothing.
    Surprise,
}

pub(super) struct Device {
    pub(super) config: DeviceConfig,
    /// The connection manager tells of its removal.
    pub(super) leaving: bool,
    pub(super) removed: bool,
    pub(super) async_events: VecDeque<(AsyncEvent, Key)>,
    pub(super) signal: Signal,
}

/// An event of the connection manager on its way to the application.
pub(super) struct Queued {
    pub(super) kind: CmKind,
    pub(super) status: i32,
    /// The id it is about; of a connect request the listening one.
    pub(super) id: Key,
    pub(super) param: ConnParam,
    pub(super) request: Option<Key>,
}

pub(super) struct Channel {
    pub(super) events: VecDeque<Queued>,
    pub(super) signal: Signal,
}

pub(super) struct Region {
    pub(super) pd: Key,
    pub(super) base: usize,
    pub(super) length: usize,
    pub(super) rights: Rights,
    /// A peer has invalidated the remote key.
    pub(super) invalidated: bool,
}

pub(super) struct Completions {
    pub(super) device: Key,
    pub(super) channel: Key,
    pub(super) context: usize,
    pub(super) capacity: usize,
    pub(super) entries: VecDeque<Cqe>,
    pub(super) armed: bool,
}

pub(super) struct Notifier {
    pub(super) device: Key,
    /// Completion queues whose event waits.
    pub(super) fired: VecDeque<Key>,
    pub(super) signal: Signal,
}

/// Everything there is.
#[derive(Default)]
pub(super) struct State {
    last_key: Key,
    last_port: u16,
    pub(super) faults: Faults,
    pub(super) violations: Vec<String>,
    pub(super) devices: BTreeMap<Key, Device>,
    pub(super) channels: BTreeMap<Key, Channel>,
    pub(super) ids: BTreeMap<Key, Id>,
    /// Protection domains and their devices.
    pub(super) pds: BTreeMap<Key, Key>,
    pub(super) regions: BTreeMap<Key, Region>,
    pub(super) notifiers: BTreeMap<Key, Notifier>,
    pub(super) cqs: BTreeMap<Key, Completions>,
    pub(super) qps: BTreeMap<Key, Qp>,
    /// Events that come late (`Some`) or never.
    pub(super) late: Vec<(Option<Instant>, Queued)>,
    /// Since when work requests run in `step` only, if they do.
    pub(super) deferred: Option<Instant>,
}

impl State {
    pub(super) fn key(&mut self) -> Key {
        self.last_key += 1;
        self.last_key
    }

    pub(super) fn port(&mut self) -> u16 {
        self.last_port = self.last_port.max(32_767) + 1;
        self.last_port
    }

    /// Counts a call; an error where it is to fail.
    pub(super) fn call(&mut self, what: &'static str) -> Result<()> {
        self.faults.call(what)
    }

    /// Notes something that must not happen.
    pub(super) fn violation(&mut self, text: impl Into<String>) {
        self.violations.push(text.into());
    }

    /// The limits and quirks of a device.
    pub(super) fn config(&self, device: Key) -> &DeviceConfig {
        &self.devices[&device].config
    }

    /// Live objects by kind.
    fn census(&self) -> [(&'static str, usize); 7] {
        [
            ("event channels", self.channels.len()),
            ("ids", self.ids.len()),
            ("protection domains", self.pds.len()),
            ("regions", self.regions.len()),
            ("completion channels", self.notifiers.len()),
            ("completion queues", self.cqs.len()),
            ("queue pairs", self.qps.len()),
        ]
    }

    /// Releases events and completions whose time has come.
    fn release(&mut self, now: Instant) {
        let (due, late) =
            std::mem::take(&mut self.late).into_iter().partition(|(at, _)| at.is_some_and(|at| at <= now));
        self.late = late;
        for (_, event) in due {
            self.enqueue(event);
        }
        self.release_completions(now);
    }
}

static NEXT: AtomicU64 = AtomicU64::new(1);
/// For device handles, which name a fabric and can't hold it.
static FABRICS: Mutex<BTreeMap<u64, Weak<Fabric>>> = Mutex::new(BTreeMap::new());

thread_local! {
    static CURRENT: RefCell<Option<Arc<Fabric>>> = const { RefCell::new(None) };
}

/// A network of devices.
pub(crate) struct Fabric {
    pub(super) number: u64,
    state: Mutex<State>,
}

impl Drop for Fabric {
    fn drop(&mut self) {
        FABRICS.lock().remove(&self.number);
    }
}

/// A fabric, which is the one event channels made on this thread belong to as long as this lives.
pub(crate) struct Entered(Arc<Fabric>);

impl Deref for Entered {
    type Target = Fabric;

    fn deref(&self) -> &Fabric {
        &self.0
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.with_borrow_mut(Option::take);
    }
}

impl Fabric {
    /// A new fabric without devices.
    pub(crate) fn enter() -> Entered {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let fabric = Arc::new(Self { number, state: Mutex::default() });
        FABRICS.lock().insert(number, Arc::downgrade(&fabric));
        CURRENT.with_borrow_mut(|current| *current = Some(Arc::clone(&fabric)));
        Entered(fabric)
    }

    pub(super) fn current() -> Option<Arc<Self>> {
        CURRENT.with_borrow(Clone::clone)
    }

    pub(super) fn find(number: u64) -> Option<Arc<Self>> {
        FABRICS.lock().get(&number)?.upgrade()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        match state.faults.incident_due.take() {
            Some(Incident::Removal(device, removal)) => state.remove_device(device, removal),
            Some(Incident::Event(kind, status)) => state.tell_connected(kind, status),
            None => {}
        }
        state
    }

    /// A device more; returns its number.
    pub(crate) fn add_device(&self, config: DeviceConfig) -> u64 {
        let mut state = self.lock();
        let key = state.key();
        let signal = Signal::new().expect("an eventfd for the model");
        let device = Device { config, leaving: false, removed: false, async_events: VecDeque::new(), signal };
        state.devices.insert(key, device);
        key
    }

    /// Takes a device away. Adding it again makes another one.
    pub(crate) fn remove_device(&self, device: u64, removal: Removal) {
        self.lock().remove_device(device, removal);
    }

    /// Tells the first connected id of a device that it goes, and no other yet: rdma_cm tells one after another, and may
    /// be kept from going on. The device works as before.
    pub(crate) fn begin_removal(&self, device: u64) {
        self.lock().begin_removal(device);
    }

    /// Has the call at this position (from 1) fail.
    pub(crate) fn fail_at(&self, position: usize, errno: i32) {
        self.lock().faults.fail_at.insert(position, errno);
    }

    /// Has every call of this function fail; `None` = no more.
    pub(crate) fn fail_named(&self, fault: Option<(&'static str, i32)>) {
        self.lock().faults.fail_named = fault;
    }

    /// Has the event at this position (from 1) come late or never. A completion holds back those behind it.
    pub(crate) fn delay_event(&self, position: usize, delay: Delay) {
        self.lock().faults.delay_at.insert(position, delay);
    }

    /// Has something happen right after the event at this position.
    pub(crate) fn happen_at(&self, position: usize, incident: Incident) {
        self.lock().faults.incident_at = Some((position, incident));
    }

    /// The calls so far that could fail.
    pub(crate) fn calls(&self) -> Vec<&'static str> {
        self.lock().faults.calls.clone()
    }

    /// The events so far.
    pub(crate) fn events(&self) -> Vec<String> {
        self.lock().faults.events.clone()
    }

    /// How many calls were made to fail.
    pub(crate) fn failures(&self) -> usize {
        self.lock().faults.failures
    }

    /// Work requests are run by [`Fabric::step`] only.
    pub(crate) fn defer_work(&self, deferred: bool) {
        self.lock().deferred = deferred.then(Instant::now);
    }

    /// Runs one work request of each queue pair; whether there was any.
    pub(crate) fn step(&self) -> bool {
        self.lock().run_one_each()
    }

    /// Lets time pass: what is late and due comes, and what waits is tried again.
    pub(crate) fn tick(&self) {
        let mut state = self.lock();
        state.release(Instant::now());
        state.run_all();
    }

    /// Live objects, those that there are none of left out.
    pub(crate) fn alive(&self) -> Vec<(&'static str, usize)> {
        self.lock().census().into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// What was done wrong, and forgets it.
    pub(crate) fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().violations)
    }

    /// Asserts that nothing is left over and nothing was done wrong.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.take_violations(), [""; 0], "what must not happen");
        assert_eq!(self.alive(), [], "left over");
    }
}

/// When something late is due.
pub(super) fn due(delay: Delay) -> Option<Instant> {
    match delay {
        Delay::For(time) => Some(Instant::now() + time),
        Delay::Never => None,
    }
}
