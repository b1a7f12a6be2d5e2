//! What a channel has of the provider: its rdma_cm events, and its completion queues on each device.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use super::cq::{CqSet, Place};
use super::device::{Device, Devices};
use super::sys::{CmEvent, CmId, Departure, EventChannel};
use crate::error::{Error, Reason, Result};
use crate::verbs::types::{AsyncEvent, CmKind, Wc};

/// What a descriptor of the hub is readable for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// rdma_cm events: [`Hub::next_event`].
    Cm,
    /// Completions of queues that were armed: [`Hub::drain`].
    Completions,
    /// Asynchronous events: [`Hub::async_events`].
    Async,
}

/// How often a removed device is looked for before it is taken to stay.
const MOST_TRIES: u32 = 500;

/// A queue pair's place in the completion queues.
pub(super) struct Lease {
    set: usize,
    place: Place,
}

impl Lease {
    pub(super) fn place(&self) -> &Place {
        &self.place
    }
}

/// The event channel that a channel shares with those who listen on it or hand ids over to it.
pub(crate) struct Events(Arc<EventChannel>);

impl Events {
    /// Opens rdma_cm.
    pub(crate) fn new() -> Result<Self> {
        EventChannel::new().map(Self).map_err(|error| {
            let text = format!("rdma_cm can't be opened: {}", error.text);
            Error { reason: Reason::NoProvider, text: text.into(), ..error }
        })
    }

    pub(super) fn channel(&self) -> &Arc<EventChannel> {
        &self.0
    }
}

/// Owned by whoever drives the channel.
pub(crate) struct Hub {
    sets: Vec<Option<CqSet>>,
    devices: Arc<Devices>,
    events: Arc<EventChannel>,
    fresh: Vec<(RawFd, Watch)>,
    /// Devices that were removed and are to be seen off, and how often that has been tried.
    departures: Vec<(Departure, u32)>,
    /// Completions polled to make room, not yet given out.
    polled: Vec<Wc>,
}

impl Hub {
    /// A hub without devices.
    pub(crate) fn new(events: &Events, devices: &Arc<Devices>) -> Self {
        let events = Arc::clone(events.channel());
        let fresh = vec![(events.as_raw_fd(), Watch::Cm)];
        Self {
            sets: Vec::new(),
            devices: Arc::clone(devices),
            events,
            fresh,
            polled: Vec::new(),
            departures: Vec::new(),
        }
    }

    /// Descriptors that have come since the last call and are to be watched, by level, until they are closed.
    pub(crate) fn take_fresh(&mut self) -> Vec<(RawFd, Watch)> {
        std::mem::take(&mut self.fresh)
    }

    pub(super) fn events(&self) -> &Arc<EventChannel> {
        &self.events
    }

    /// The number of the set for the device that `id` is bound to.
    fn set_of(&mut self, id: &CmId) -> Result<usize> {
        let handle = id.device();
        let serves = |set: &CqSet| {
            set.device().is_some_and(|device| !device.is_gone() && Some(device.handle()) == handle)
        };
        if let Some(index) = self.sets.iter().position(|set| set.as_ref().is_some_and(serves)) {
            return Ok(index);
        }
        let free = self.sets.iter().position(Option::is_none);
        let index = free.unwrap_or(self.sets.len());
        // No handle of the engine's looks like that.
        let set = CqSet::new(&self.devices, id, &self.events, usize::MAX - index)?;
        self.fresh.extend(set.fd().map(|fd| (fd, Watch::Completions)));
        self.fresh.push((set.async_fd(), Watch::Async));
        match self.sets.get_mut(index) {
            Some(slot) => *slot = Some(set),
            None => self.sets.push(Some(set)),
        }
        Ok(index)
    }

    /// The device of an id, which stays open as long as the channel uses it.
    pub(super) fn device(&mut self, id: &CmId) -> Result<Arc<Device>> {
        let index = self.set_of(id)?;
        let set = self.sets.get(index).and_then(Option::as_ref);
        let device = set.and_then(CqSet::device);
        device.cloned().ok_or_else(|| Error::new(libc::ENODEV, Reason::DeviceGone, "the device was removed"))
    }

    /// Room for `entries` completions on the device of an id.
    pub(super) fn reserve(&mut self, id: &CmId, entries: u32) -> Result<Lease> {
        let index = self.set_of(id)?;
        let set = self.sets.get_mut(index).and_then(Option::as_mut);
        let set = set.ok_or_else(|| Error::state(libc::EIO, "no completion queues"))?;
        Ok(Lease { set: index, place: set.reserve(entries)? })
    }

    /// Gives the room back when the queue pair is gone. What it has left in the queue is taken out first.
    pub(super) fn release(&mut self, lease: &Lease) {
        if let Some(set) = self.sets.get_mut(lease.set).and_then(Option::as_mut) {
            while set.poll(&mut self.polled) > 0 {}
            set.release(&lease.place);
        }
    }

    /// The next rdma_cm event.
    pub(crate) fn next_event(&self) -> Result<Option<CmEvent>> {
        self.events.next()
    }

    /// Whether an event's context is that of one of the ids that watch devices. If its device was removed that device is
    /// closed.
    pub(crate) fn is_own(&self, event: &CmEvent) -> bool {
        let Some(slot) = self.sets.get(usize::MAX - event.context) else { return false };
        if event.kind == CmKind::DeviceRemoval {
            slot.as_ref().and_then(CqSet::device).inspect(|device| device.remove());
        }
        true
    }

    /// Moves completions to `out`, at most a batch from each queue; returns how many.
    pub(crate) fn poll(&mut self, out: &mut Vec<Wc>) -> usize {
        let before = self.polled.len();
        out.append(&mut self.polled);
        before + self.sets.iter().flatten().map(|set| set.poll(out)).sum::<usize>()
    }

    /// Has completions make a descriptor readable; true = the queues are to be polled once more before sleeping.
    pub(crate) fn arm(&mut self) -> bool {
        let mut newly = false;
        self.sets.iter_mut().flatten().for_each(|set| newly |= set.arm());
        newly
    }

    /// Takes the events that have made descriptors of completions readable.
    pub(crate) fn drain(&mut self) {
        self.sets.iter_mut().flatten().for_each(CqSet::drain);
    }

    /// Asynchronous events of all devices.
    pub(crate) fn async_events(&self) -> Vec<AsyncEvent> {
        let mut all = Vec::new();
        for set in self.sets.iter().flatten() {
            while let Some(event) = set.async_event() {
                all.push(event);
            }
        }
        all
    }

    /// Closes devices that are gone, once no queue pair is left on them. True = they are to be seen off.
    pub(crate) fn sweep(&mut self) -> bool {
        let before = self.departures.len();
        for slot in &mut self.sets {
            let over = |set: &mut CqSet| set.device().is_none_or(|device| device.is_gone()) && set.is_idle();
            if slot.as_mut().is_some_and(over) {
                self.departures.extend(slot.take().and_then(|mut set| set.close()).map(|gone| (gone, 0)));
            }
        }
        self.departures.len() > before
    }

    /// Sees devices off that were removed. True = not all are gone yet: again in a while.
    pub(crate) fn see_off(&mut self) -> bool {
        self.departures.retain_mut(|(departure, tries)| {
            *tries += 1;
            !departure.proceed() && *tries < MOST_TRIES
        });
        !self.departures.is_empty()
    }
}
