//! Event channels, ids and their events, with the interface of `sys`.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::MutexGuard;
use socket2::SockAddr;

use super::device::{Cq, DeviceHandle, Pd};
use super::fabric::{Channel, Fabric, Key, Queued, State};
use super::failed_with;
use super::ids::Id;
use super::signal::Signal;
use super::work::RawQp;
use crate::error::{Error, Reason, Result};
use crate::tcp::Liveness;
use crate::verbs::types::{CmKind, ConnParam, QpCaps};

/// An event, copied.
#[derive(Debug)]
pub(crate) struct CmEvent {
    pub(crate) kind: CmKind,
    /// 0, a negative errno, or the transport's code.
    pub(crate) status: i32,
    /// The context of its id; of a connect request that of the listening one.
    pub(crate) context: usize,
    pub(crate) param: ConnParam,
    /// The new id of a connect request.
    pub(crate) request: Option<CmId>,
}

/// `struct rdma_event_channel`.
pub(crate) struct EventChannel {
    fabric: Arc<Fabric>,
    key: Key,
    fd: RawFd,
}

impl AsRawFd for EventChannel {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl Drop for EventChannel {
    fn drop(&mut self) {
        let mut state = self.fabric.lock();
        if state.ids.values().any(|id| id.channel == self.key) {
            state.violation("an event channel was destroyed that has ids");
        }
        state.channels.remove(&self.key);
    }
}

impl EventChannel {
    /// A new one of the fabric this thread has entered; `ENODEV` where there is none.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let what = "rdma_create_event_channel";
        let fabric = Fabric::current().ok_or_else(|| failed_with(what, libc::ENODEV))?;
        let mut state = fabric.lock();
        state.call(what)?;
        let signal = Signal::new()?;
        let (key, fd) = (state.key(), signal.as_raw_fd());
        state.channels.insert(key, Channel { events: Default::default(), signal });
        drop(state);
        Ok(Arc::new(Self { fabric, key, fd }))
    }

    /// The next event; `None` when none waits.
    pub(crate) fn next(self: &Arc<Self>) -> Result<Option<CmEvent>> {
        let mut state = self.fabric.lock();
        loop {
            if state.channels[&self.key].events.is_empty() {
                return Ok(None);
            }
            // A failure leaves the event where it is.
            state.call("rdma_get_cm_event")?;
            let Some(queued) = state.dequeue(self.key) else { return Ok(None) };
            if let Some(queued) = state.process(queued) {
                let Queued { kind, status, id, param, request } = queued;
                let context = state.ids[&id].context;
                let request = request.map(|key| CmId::of(&self.fabric, key, self));
                return Ok(Some(CmEvent { kind, status, context, param, request }));
            }
        }
    }
}

/// `struct rdma_cm_id` of RDMA_PS_TCP, and its queue pair.
pub(crate) struct CmId {
    fabric: Arc<Fabric>,
    key: Key,
    channel: Arc<EventChannel>,
    /// What the queue pair is made of, while there is one.
    holds: Option<(Arc<Pd>, Arc<Cq>)>,
}

impl std::fmt::Debug for CmId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CmId({})", self.key)
    }
}

impl Drop for CmId {
    fn drop(&mut self) {
        self.destroy_qp();
        self.fabric.lock().destroy_id(self.key);
    }
}

impl CmId {
    fn of(fabric: &Arc<Fabric>, key: Key, channel: &Arc<EventChannel>) -> Self {
        Self { fabric: Arc::clone(fabric), key, channel: Arc::clone(channel), holds: None }
    }

    /// A new id, whose events carry `context`.
    pub(crate) fn new(channel: &Arc<EventChannel>, context: usize) -> Result<Self> {
        let mut state = channel.fabric.lock();
        state.call("rdma_create_id")?;
        let key = state.key();
        state.ids.insert(key, Id::new(channel.key, context));
        drop(state);
        Ok(Self::of(&channel.fabric, key, channel))
    }

    /// The fabric, at the beginning of a call that may fail.
    fn call(&self, what: &'static str) -> Result<MutexGuard<'_, State>> {
        let mut state = self.fabric.lock();
        state.call(what)?;
        Ok(state)
    }

    /// What its events carry from now on.
    pub(crate) fn set_context(&mut self, context: usize) {
        self.fabric.lock().id(self.key).context = context;
    }

    /// `RDMA_OPTION_ID_AFONLY`
    pub(crate) fn set_v6only(&self, only: bool) -> Result<()> {
        let what = "rdma_set_option";
        self.call(what)?.set_v6only(self.key, only).map_err(|errno| failed_with(what, errno))
    }

    /// `RDMA_OPTION_ID_REUSEADDR`
    pub(crate) fn set_reuse(&self) -> Result<()> {
        let what = "rdma_set_option";
        self.call(what)?.set_reuse(self.key).map_err(|errno| failed_with(what, errno))
    }

    /// `rdma_bind_addr`.
    pub(crate) fn bind(&self, addr: &SockAddr) -> Result<()> {
        let what = "rdma_bind_addr";
        self.call(what)?.bind(self.key, addr).map_err(|errno| failed_with(what, errno))
    }

    /// `rdma_listen`.
    pub(crate) fn listen(&self, backlog: i32) -> Result<()> {
        let what = "rdma_listen";
        self.call(what)?.listen(self.key, backlog).map_err(|errno| failed_with(what, errno))
    }

    /// `rdma_resolve_addr`.
    pub(crate) fn resolve_addr(&self, from: Option<&SockAddr>, to: &SockAddr, timeout_ms: i32) -> Result<()> {
        let what = "rdma_resolve_addr";
        let mut state = self.call(what)?;
        if timeout_ms <= 0 {
            state.violation("an address is resolved without a timeout");
        }
        state.resolve_addr(self.key, from, to).map_err(|errno| failed_with(what, errno))
    }

    /// `rdma_resolve_route`.
    pub(crate) fn resolve_route(&self, timeout_ms: i32) -> Result<()> {
        let what = "rdma_resolve_route";
        let mut state = self.call(what)?;
        if timeout_ms <= 0 {
            state.violation("a route is resolved without a timeout");
        }
        state.resolve_route(self.key).map_err(|errno| failed_with(what, errno))
    }

    /// `rdma_connect`.
    pub(crate) fn connect(&self, param: &ConnParam) -> Result<()> {
        check_length(param)?;
        let what = "rdma_connect";
        self.call(what)?.connect(self.key, param).map_err(|errno| failed_with(what, errno))
    }

    /// `rdma_accept`.
    pub(crate) fn accept(&self, param: &ConnParam) -> Result<()> {
        check_length(param)?;
        let what = "rdma_accept";
        self.call(what)?.accept(self.key, param).map_err(|errno| failed_with(what, errno))
    }

    /// `rdma_reject`.
    pub(crate) fn reject(&self, private_data: &[u8]) -> Result<()> {
        let what = "rdma_reject";
        self.call(what)?.reject(self.key, private_data).map_err(|errno| failed_with(what, errno))
    }

    /// `rdma_disconnect`.
    pub(crate) fn disconnect(&self) -> Result<()> {
        let what = "rdma_disconnect";
        self.call(what)?.disconnect(self.key).map_err(|errno| failed_with(what, errno))
    }

    /// `rdma_notify` of `IBV_EVENT_COMM_EST`.
    pub(crate) fn notify_established(&self) -> Result<()> {
        let what = "rdma_notify";
        self.call(what)?.notify_established(self.key).map_err(|errno| failed_with(what, errno))
    }

    /// Has the id's events come from another channel, those that wait already included.
    pub(crate) fn migrate(&mut self, channel: &Arc<EventChannel>) -> Result<()> {
        self.call("rdma_migrate_id")?.migrate(self.key, channel.key);
        self.channel = Arc::clone(channel);
        Ok(())
    }

    /// The device it is bound to, if it is.
    pub(crate) fn device(&self) -> Option<DeviceHandle> {
        let device = self.fabric.lock().id(self.key).device?;
        Some(DeviceHandle::new(self.fabric.number, device))
    }

    /// As `sys`'s: here a queue pair can be made for a peer that has left.
    pub(crate) fn is_given_up(&self) -> bool {
        false
    }

    /// The port of the device.
    pub(crate) fn port(&self) -> u8 {
        self.fabric.lock().id(self.key).device.map_or(0, |_| 1)
    }

    /// Our address.
    pub(crate) fn local(&self) -> Option<SockAddr> {
        self.fabric.lock().id(self.key).local.map(SockAddr::from)
    }

    /// The peer's address.
    pub(crate) fn peer(&self) -> Option<SockAddr> {
        self.fabric.lock().id(self.key).peer.map(SockAddr::from)
    }

    /// As `sys`'s. Where work is deferred the peer's host is silent.
    pub(crate) fn liveness(&self) -> Option<Liveness> {
        let state = self.fabric.lock();
        let waiting = state.qps.get(&state.ids[&self.key].qp?)?.sends.len() as u32;
        let silent = state.deferred.map_or(Duration::ZERO, |since| since.elapsed());
        Some(Liveness { unacked: waiting, last_ack: silent, ..Liveness::default() })
    }

    /// `rdma_create_qp`: a reliable connected queue pair with one completion queue for both directions. Returns what
    /// the device made of the capabilities.
    pub(crate) fn create_qp(
        &mut self,
        pd: &Arc<Pd>,
        cq: &Arc<Cq>,
        caps: QpCaps,
        context: usize,
    ) -> Result<QpCaps> {
        let what = "rdma_create_qp";
        let made = self.call(what)?.create_qp(self.key, pd.key(), cq.key(), caps, context);
        let made = made.map_err(|errno| failed_with(what, errno))?;
        self.holds = Some((Arc::clone(pd), Arc::clone(cq)));
        Ok(made)
    }

    /// `rdma_destroy_qp`, if there is one: nothing touches its buffers any more.
    pub(crate) fn destroy_qp(&mut self) {
        // They outlive the queue pair.
        let holds = self.holds.take();
        if holds.is_some() {
            self.fabric.lock().destroy_qp(self.key);
        }
    }

    /// The queue pair, if there is one.
    pub(crate) fn qp(&self) -> Option<RawQp<'_>> {
        let key = self.fabric.lock().id(self.key).qp?;
        Some(RawQp::new(&self.fabric, key))
    }
}

fn check_length(param: &ConnParam) -> Result<()> {
    match param.private_data.len() {
        0..=255 => Ok(()),
        _ => Err(Error::new(libc::EMSGSIZE, Reason::Invalid, "private data are over 255 octets")),
    }
}
