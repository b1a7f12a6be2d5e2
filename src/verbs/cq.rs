//! What a channel has of a device: completion queues behind one completion channel, and an id that keeps the device open
//! and hears of its removal.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use super::device::{Device, Devices};
use super::sys::{CmId, CompChannel, Cq, Departure, EventChannel};
use crate::error::{Error, Reason, Result};
use crate::verbs::types::{AsyncEvent, Wc};

/// Completions a queue is made for where a connection does not need more.
const ENTRIES: u32 = 4096;

/// One queue, shared by as many queue pairs as it has room for: it can't overflow.
struct Shared {
    cq: Arc<Cq>,
    capacity: u32,
    reserved: u32,
    armed: bool,
}

/// A place for the completions of one queue pair.
pub(super) struct Place {
    pub(super) cq: Arc<Cq>,
    index: usize,
    entries: u32,
}

/// The completion queues of one channel on one device.
pub(crate) struct CqSet {
    device: Option<Arc<Device>>,
    comp: Option<Arc<CompChannel>>,
    queues: Vec<Shared>,
    async_fd: RawFd,
    devices: Arc<Devices>,
    /// Bound to the device: keeps its context open, and hears of its removal.
    keeper: Option<CmId>,
}

impl Drop for CqSet {
    fn drop(&mut self) {
        if let Some(departure) = self.close() {
            // There is nobody left to try it again.
            departure.proceed();
        }
    }
}

impl CqSet {
    /// For the device that `id` is bound to. `context`: what the event of the device's removal carries.
    pub(super) fn new(
        devices: &Arc<Devices>,
        id: &CmId,
        events: &Arc<EventChannel>,
        context: usize,
    ) -> Result<Self> {
        let keeper = CmId::new(events, context)?;
        let mut local = id
            .local()
            .ok_or_else(|| Error::new(libc::EADDRNOTAVAIL, Reason::Internal, "the id has no address"))?;
        clear_port(&mut local);
        keeper.bind(&local)?;
        let device = devices.open(id)?;
        let handle = device.handle();
        let opened = handle.async_fd().and_then(|async_fd| Ok((async_fd, CompChannel::new(handle)?)));
        let (async_fd, comp) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                devices.settle(device);
                return Err(error);
            }
        };
        let devices = Arc::clone(devices);
        let (comp, keeper) = (Some(comp), Some(keeper));
        Ok(Self { device: Some(device), comp, queues: Vec::new(), async_fd, devices, keeper })
    }

    /// Ends it all, each before what it lives in. A device that was removed has to be seen off then.
    pub(super) fn close(&mut self) -> Option<Departure> {
        self.queues.clear();
        self.comp.take();
        let device = self.device.take()?;
        let (removed, handle) = (device.is_gone(), device.handle());
        self.devices.settle(device);
        let departure = removed.then(|| handle.depart());
        self.keeper.take();
        departure
    }

    /// Its device.
    pub(super) fn device(&self) -> Option<&Arc<Device>> {
        self.device.as_ref()
    }

    /// The descriptor that is readable when an armed queue has got a completion.
    pub(super) fn fd(&self) -> Option<RawFd> {
        self.comp.as_ref().map(|comp| comp.as_raw_fd())
    }

    /// The descriptor of the device's asynchronous events.
    pub(super) fn async_fd(&self) -> RawFd {
        self.async_fd
    }

    /// Room for `entries` completions.
    pub(super) fn reserve(&mut self, entries: u32) -> Result<Place> {
        let (Some(device), Some(comp)) = (&self.device, &self.comp) else {
            return Err(Error::state(libc::ENODEV, "no device"));
        };
        let fits = |queue: &Shared| queue.capacity - queue.reserved >= entries;
        if !self.queues.iter().any(fits) {
            let most = device.limits().max_cqe;
            if entries > most {
                let text = format!(
                    "the queues of a connection make up to {entries} completions; {} takes {most} in one queue",
                    device.limits().name
                );
                return Err(Error::new(libc::EINVAL, Reason::Invalid, text)
                    .with_remedy("ask for a smaller send_depth and recv_depth"));
            }
            let capacity = ENTRIES.min(most).max(entries);
            let cq = Cq::new(device.handle(), comp, capacity, self.queues.len())?;
            self.queues.push(Shared { cq, capacity, reserved: 0, armed: false });
        }
        let place = self.queues.iter_mut().enumerate().find(|(_, queue)| fits(queue));
        let (index, queue) = place.ok_or_else(|| Error::state(libc::EIO, "no completion queue"))?;
        queue.reserved += entries;
        Ok(Place { cq: Arc::clone(&queue.cq), index, entries })
    }

    /// Gives a place back. What is left of it in the queue has to be polled first.
    pub(super) fn release(&mut self, place: &Place) {
        if let Some(queue) = self.queues.get_mut(place.index) {
            queue.reserved = queue.reserved.saturating_sub(place.entries);
        }
    }

    /// Whether no queue pair has a place.
    pub(super) fn is_idle(&self) -> bool {
        self.queues.iter().all(|queue| queue.reserved == 0)
    }

    /// Moves completions to `out`; returns how many.
    pub(super) fn poll(&self, out: &mut Vec<Wc>) -> usize {
        // A queue that can't be polled belongs to a device that is gone: its end is told by other means.
        self.queues.iter().map(|queue| queue.cq.poll(out).unwrap_or(0)).sum()
    }

    /// Has the next completion of each queue make the descriptor readable; returns whether one was newly armed: then
    /// the queues have to be polled once more, as a completion may have come before.
    pub(super) fn arm(&mut self) -> bool {
        let mut newly = false;
        for queue in self.queues.iter_mut().filter(|queue| !queue.armed) {
            queue.armed = queue.cq.arm().is_ok();
            newly = true;
        }
        newly
    }

    /// Takes what has made the descriptor readable.
    pub(super) fn drain(&mut self) {
        let (queues, Some(comp)) = (&mut self.queues, &self.comp) else { return };
        comp.drain(|index| {
            if let Some(queue) = queues.get_mut(index) {
                queue.armed = false;
            }
        });
    }

    /// The next asynchronous event of the device.
    pub(super) fn async_event(&self) -> Option<AsyncEvent> {
        self.device.as_ref().and_then(|device| device.handle().async_event())
    }
}

/// Any port of the address.
fn clear_port(addr: &mut socket2::SockAddr) {
    if let Some(mut plain) = addr.as_socket() {
        plain.set_port(0);
        *addr = plain.into();
    }
}
