//! rdma_cm: event channels, ids, and the events copied out and acknowledged at once.
//!
//! As every event is acknowledged before [`EventChannel::next`] returns, destroying an id never waits for one (rdma_destroy_id(3)).

use std::mem::zeroed;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rdma_sys::rdma_cm_event_type as event;
use socket2::{SockAddr, SockAddrStorage};

use super::device::{Cq, DeviceHandle, Pd};
use super::work::RawQp;
use super::{check, failed, failed_with, nonblocking};
use crate::error::{Error, Reason, Result};
use crate::tcp::Liveness;
use crate::tcp::diag::liveness_between;
use crate::verbs::types::{CmKind, ConnParam, QpCaps};

/// `RDMA_OPTION_ID` and its options, which rdma-sys has not; `scripts/check.sh` compares them with the C header.
const OPTION_ID: i32 = 0;
const OPTION_ID_REUSEADDR: i32 = 1;
const OPTION_ID_AFONLY: i32 = 2;

impl CmKind {
    fn from_raw(raw: u32) -> Self {
        match raw {
            event::RDMA_CM_EVENT_ADDR_RESOLVED => Self::AddrResolved,
            event::RDMA_CM_EVENT_ADDR_ERROR => Self::AddrError,
            event::RDMA_CM_EVENT_ROUTE_RESOLVED => Self::RouteResolved,
            event::RDMA_CM_EVENT_ROUTE_ERROR => Self::RouteError,
            event::RDMA_CM_EVENT_CONNECT_REQUEST => Self::ConnectRequest,
            event::RDMA_CM_EVENT_CONNECT_RESPONSE => Self::ConnectResponse,
            event::RDMA_CM_EVENT_CONNECT_ERROR => Self::ConnectError,
            event::RDMA_CM_EVENT_UNREACHABLE => Self::Unreachable,
            event::RDMA_CM_EVENT_REJECTED => Self::Rejected,
            event::RDMA_CM_EVENT_ESTABLISHED => Self::Established,
            event::RDMA_CM_EVENT_DISCONNECTED => Self::Disconnected,
            event::RDMA_CM_EVENT_DEVICE_REMOVAL => Self::DeviceRemoval,
            event::RDMA_CM_EVENT_ADDR_CHANGE => Self::AddrChange,
            event::RDMA_CM_EVENT_TIMEWAIT_EXIT => Self::TimewaitExit,
            other => Self::Other(other),
        }
    }

    /// Whether the event's parameters are those of a connection.
    fn has_params(self) -> bool {
        matches!(self, Self::ConnectRequest | Self::ConnectResponse | Self::Rejected | Self::Established)
    }
}

impl ConnParam {
    fn to_raw(&self) -> Result<rdma_sys::rdma_conn_param> {
        let length = u8::try_from(self.private_data.len())
            .map_err(|_| Error::new(libc::EMSGSIZE, Reason::Invalid, "private data are over 255 octets"))?;
        // SAFETY: all zeros is a valid value of this C struct.
        let mut raw: rdma_sys::rdma_conn_param = unsafe { zeroed() };
        raw.private_data = self.private_data.as_ptr().cast();
        raw.private_data_len = length;
        raw.responder_resources = self.responder_resources;
        raw.initiator_depth = self.initiator_depth;
        raw.retry_count = 7;
        raw.rnr_retry_count = self.rnr_retry_count;
        Ok(raw)
    }
}

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
    raw: NonNull<rdma_sys::rdma_event_channel>,
}

// SAFETY: librdmacm may be called from any thread; the struct behind the pointer is only a descriptor.
unsafe impl Send for EventChannel {}
// SAFETY: as above.
unsafe impl Sync for EventChannel {}

impl AsRawFd for EventChannel {
    fn as_raw_fd(&self) -> RawFd {
        // SAFETY: the channel lives as long as `self`.
        unsafe { self.raw.as_ref().fd }
    }
}

impl Drop for EventChannel {
    fn drop(&mut self) {
        // SAFETY: made in `new`; its ids hold the channel, so none is left.
        unsafe { rdma_sys::rdma_destroy_event_channel(self.raw.as_ptr()) };
    }
}

impl EventChannel {
    /// A new one, whose descriptor does not block.
    pub(crate) fn new() -> Result<Arc<Self>> {
        // SAFETY: no arguments.
        let raw = NonNull::new(unsafe { rdma_sys::rdma_create_event_channel() });
        let channel = Self { raw: raw.ok_or_else(|| failed("rdma_create_event_channel"))? };
        nonblocking(channel.as_raw_fd())?;
        Ok(Arc::new(channel))
    }

    /// The next event; `None` when none waits. Only one thread at a time.
    pub(crate) fn next(self: &Arc<Self>) -> Result<Option<CmEvent>> {
        let mut raw = ptr::null_mut();
        // SAFETY: the channel is alive, and `raw` takes the event.
        if unsafe { rdma_sys::rdma_get_cm_event(self.raw.as_ptr(), &raw mut raw) } != 0 {
            let error = failed("rdma_get_cm_event");
            return if error.errno == libc::EAGAIN { Ok(None) } else { Err(error) };
        }
        // SAFETY: the event is valid until it is acknowledged, which happens below, once.
        let copied = unsafe { self.copy(&*raw) };
        // SAFETY: as above.
        unsafe { rdma_sys::rdma_ack_cm_event(raw) };
        Ok(Some(copied))
    }

    /// # Safety
    /// `raw` is an event of this channel that has not been acknowledged.
    unsafe fn copy(self: &Arc<Self>, raw: &rdma_sys::rdma_cm_event) -> CmEvent {
        let kind = CmKind::from_raw(raw.event);
        let asked = kind == CmKind::ConnectRequest;
        let id = if asked { raw.listen_id } else { raw.id };
        // SAFETY: the ids of an event are alive until it is acknowledged.
        let context = unsafe { (*id).context as usize };
        let param = if kind.has_params() {
            // SAFETY: events of this kind, of ids in RDMA_PS_TCP, have the parameters of a connection.
            unsafe { copy_param(&raw.param.conn) }
        } else {
            ConnParam::default()
        };
        let request = NonNull::new(raw.id).filter(|_| asked);
        let request = request.map(|raw| CmId { raw, channel: Arc::clone(self), holds: None });
        CmEvent { kind, status: raw.status, context, param, request }
    }
}

/// # Safety
/// The private data are as long as they say.
unsafe fn copy_param(raw: &rdma_sys::rdma_conn_param) -> ConnParam {
    let private_data = if raw.private_data.is_null() {
        Vec::new()
    } else {
        // SAFETY: by this function's contract.
        unsafe { std::slice::from_raw_parts(raw.private_data.cast(), raw.private_data_len.into()) }.to_vec()
    };
    ConnParam {
        private_data,
        responder_resources: raw.responder_resources,
        initiator_depth: raw.initiator_depth,
        rnr_retry_count: raw.rnr_retry_count,
    }
}

/// `struct rdma_cm_id` of RDMA_PS_TCP, and its queue pair.
pub(crate) struct CmId {
    raw: NonNull<rdma_sys::rdma_cm_id>,
    channel: Arc<EventChannel>,
    /// What the queue pair is made of, while there is one.
    holds: Option<(Arc<Pd>, Arc<Cq>)>,
}

// SAFETY: librdmacm may be called from any thread; what changes the struct takes `&mut self`.
unsafe impl Send for CmId {}
// SAFETY: as above.
unsafe impl Sync for CmId {}

impl std::fmt::Debug for CmId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CmId({:p})", self.raw)
    }
}

impl Drop for CmId {
    fn drop(&mut self) {
        self.destroy_qp();
        // SAFETY: made by librdmacm and destroyed once; it has no queue pair any more.
        unsafe { rdma_sys::rdma_destroy_id(self.raw.as_ptr()) };
    }
}

/// An id that is being destroyed, and its queue pair.
pub(super) struct Leaving {
    qp: Option<NonNull<rdma_sys::ibv_qp>>,
    id: CmId,
}

// SAFETY: as for `CmId`; the queue pair is nobody else's.
unsafe impl Send for Leaving {}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(qp) = self.qp {
            // SAFETY: `create_qp` made it and `leave` took it out of the id, so that it is destroyed only here; the id, which
            // is still there, keeps the device open.
            unsafe { rdma_sys::ibv_destroy_qp(qp.as_ptr()) };
        }
        self.id.holds = None;
    }
}

impl CmId {
    /// A new id, whose events carry `context`.
    pub(crate) fn new(channel: &Arc<EventChannel>, context: usize) -> Result<Self> {
        let mut raw = ptr::null_mut();
        let space = rdma_sys::rdma_port_space::RDMA_PS_TCP;
        // SAFETY: the channel is alive, and `raw` takes the id.
        let code =
            unsafe { rdma_sys::rdma_create_id(channel.raw.as_ptr(), &raw mut raw, context as *mut _, space) };
        check("rdma_create_id", code)?;
        let raw = NonNull::new(raw).ok_or_else(|| failed_with("rdma_create_id", libc::EIO))?;
        Ok(Self { raw, channel: Arc::clone(channel), holds: None })
    }

    /// What its events carry from now on.
    pub(crate) fn set_context(&mut self, context: usize) {
        // SAFETY: the id is alive, and nobody else writes to it.
        unsafe { self.raw.as_mut().context = context as *mut _ };
    }

    /// `RDMA_OPTION_ID_AFONLY`: an IPv6 address takes no IPv4 connections.
    pub(crate) fn set_v6only(&self, only: bool) -> Result<()> {
        self.set_option(OPTION_ID_AFONLY, only.into())
    }

    /// `RDMA_OPTION_ID_REUSEADDR`: a port in use by connections that end can be bound.
    pub(crate) fn set_reuse(&self) -> Result<()> {
        self.set_option(OPTION_ID_REUSEADDR, 1)
    }

    fn set_option(&self, option: i32, mut value: i32) -> Result<()> {
        let value = (&raw mut value).cast();
        // SAFETY: the id is alive; the option takes an int.
        let code = unsafe {
            rdma_sys::rdma_set_option(self.raw.as_ptr(), OPTION_ID, option, value, size_of::<i32>())
        };
        check("rdma_set_option", code)
    }

    /// `rdma_bind_addr`.
    pub(crate) fn bind(&self, addr: &SockAddr) -> Result<()> {
        // SAFETY: the id is alive; the address is whole and only read.
        check("rdma_bind_addr", unsafe { rdma_sys::rdma_bind_addr(self.raw.as_ptr(), raw_addr(addr)) })
    }

    /// `rdma_listen`.
    pub(crate) fn listen(&self, backlog: i32) -> Result<()> {
        // SAFETY: the id is alive.
        check("rdma_listen", unsafe { rdma_sys::rdma_listen(self.raw.as_ptr(), backlog) })
    }

    /// `rdma_resolve_addr`.
    pub(crate) fn resolve_addr(&self, from: Option<&SockAddr>, to: &SockAddr, timeout_ms: i32) -> Result<()> {
        let from = from.map_or(ptr::null_mut(), raw_addr);
        // SAFETY: the id is alive; the addresses are whole and only read.
        let code = unsafe { rdma_sys::rdma_resolve_addr(self.raw.as_ptr(), from, raw_addr(to), timeout_ms) };
        check("rdma_resolve_addr", code)
    }

    /// `rdma_resolve_route`.
    pub(crate) fn resolve_route(&self, timeout_ms: i32) -> Result<()> {
        // SAFETY: the id is alive.
        check("rdma_resolve_route", unsafe { rdma_sys::rdma_resolve_route(self.raw.as_ptr(), timeout_ms) })
    }

    /// `rdma_connect`.
    pub(crate) fn connect(&self, param: &ConnParam) -> Result<()> {
        let mut raw = param.to_raw()?;
        // SAFETY: the id is alive; the parameters and their private data live for the call.
        check("rdma_connect", unsafe { rdma_sys::rdma_connect(self.raw.as_ptr(), &raw mut raw) })
    }

    /// `rdma_accept`.
    pub(crate) fn accept(&self, param: &ConnParam) -> Result<()> {
        let mut raw = param.to_raw()?;
        // SAFETY: as in `connect`; the id has a queue pair, as the provider makes one before it accepts.
        check("rdma_accept", unsafe { rdma_sys::rdma_accept(self.raw.as_ptr(), &raw mut raw) })
    }

    /// `rdma_reject`.
    pub(crate) fn reject(&self, private_data: &[u8]) -> Result<()> {
        let length = u8::try_from(private_data.len()).unwrap_or(u8::MAX);
        // SAFETY: the id is alive; `length` octets can be read.
        let code = unsafe { rdma_sys::rdma_reject(self.raw.as_ptr(), private_data.as_ptr().cast(), length) };
        check("rdma_reject", code)
    }

    /// `rdma_disconnect`.
    pub(crate) fn disconnect(&self) -> Result<()> {
        // SAFETY: the id is alive.
        check("rdma_disconnect", unsafe { rdma_sys::rdma_disconnect(self.raw.as_ptr()) })
    }

    /// Tells the connection manager that the peer has sent although its last message of the set-up has not come.
    pub(crate) fn notify_established(&self) -> Result<()> {
        let event = rdma_sys::ibv_event_type::IBV_EVENT_COMM_EST;
        // SAFETY: the id is alive.
        check("rdma_notify", unsafe { rdma_sys::rdma_notify(self.raw.as_ptr(), event) })
    }

    /// Has the id's events come from another channel. Not while an event of it is being looked at.
    pub(crate) fn migrate(&mut self, channel: &Arc<EventChannel>) -> Result<()> {
        // SAFETY: both are alive, and every event got has been acknowledged, so that it does not wait.
        let code = unsafe { rdma_sys::rdma_migrate_id(self.raw.as_ptr(), channel.raw.as_ptr()) };
        check("rdma_migrate_id", code)?;
        self.channel = Arc::clone(channel);
        Ok(())
    }

    /// The device it is bound to, if it is.
    pub(crate) fn device(&self) -> Option<DeviceHandle> {
        // SAFETY: the id is alive; librdmacm sets `verbs` when an address gets bound or resolved.
        NonNull::new(unsafe { self.raw.as_ref().verbs }).map(|raw| DeviceHandle { raw })
    }

    /// The port of the device.
    pub(crate) fn port(&self) -> u8 {
        // SAFETY: the id is alive.
        unsafe { self.raw.as_ref().port_num }
    }

    /// Our address.
    pub(crate) fn local(&self) -> Option<SockAddr> {
        // SAFETY: the id is alive; the storage has room for every address.
        addr_of_storage(unsafe { &raw const (*self.raw.as_ptr()).route.addr.src_addr_union.src_storage })
    }

    /// The peer's address.
    pub(crate) fn peer(&self) -> Option<SockAddr> {
        // SAFETY: as above.
        addr_of_storage(unsafe { &raw const (*self.raw.as_ptr()).route.addr.dst_addr_union.dst_storage })
    }

    /// What the kernel's TCP knows of the peer, where the device is one in front of it, as soft iWARP is.
    pub(crate) fn liveness(&self) -> Option<Liveness> {
        let (local, peer) = (self.local()?.as_socket()?, self.peer()?.as_socket()?);
        liveness_between(local, peer).ok()
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
        // SAFETY: all zeros is a valid value of this C struct.
        let mut attr: rdma_sys::ibv_qp_init_attr = unsafe { zeroed() };
        attr.qp_context = context as *mut _;
        attr.send_cq = cq.raw();
        attr.recv_cq = cq.raw();
        attr.cap = caps.to_raw();
        attr.qp_type = rdma_sys::ibv_qp_type::IBV_QPT_RC;
        // SAFETY: all are alive, and the queue pair keeps them so.
        check("rdma_create_qp", unsafe {
            rdma_sys::rdma_create_qp(self.raw.as_ptr(), pd.raw(), &raw mut attr)
        })?;
        self.holds = Some((Arc::clone(pd), Arc::clone(cq)));
        Ok(QpCaps::from_raw(&attr.cap))
    }

    /// Whether the kernel's connection manager has given up an id that has not been answered yet: it has no attributes for
    /// a queue pair then.
    pub(crate) fn is_given_up(&self) -> bool {
        // SAFETY: all zeros is a valid value of this C struct.
        let mut attr: rdma_sys::ibv_qp_attr = unsafe { zeroed() };
        attr.qp_state = rdma_sys::ibv_qp_state::IBV_QPS_INIT;
        let mut mask = 0;
        // SAFETY: the id is alive; `attr` and `mask` take the answer.
        unsafe { rdma_sys::rdma_init_qp_attr(self.raw.as_ptr(), &raw mut attr, &raw mut mask) != 0 }
    }

    /// `rdma_destroy_qp`, if there is one: nothing touches its buffers any more.
    pub(crate) fn destroy_qp(&mut self) {
        // Dropped at the end: a queue pair is gone before its protection domain and its completion queue.
        let holds = self.holds.take();
        if holds.is_some() {
            // SAFETY: the id has the queue pair that `create_qp` made.
            unsafe { rdma_sys::rdma_destroy_qp(self.raw.as_ptr()) };
        }
    }

    /// Prepares the end of an id and its queue pair on another thread.
    pub(super) fn leave(mut self) -> Leaving {
        // What still comes is nobody's.
        self.set_context(0);
        // SAFETY: the id is alive, and nobody else writes to it. librdmacm touches the queue pair of an id when some events
        // come: not this one, which may be gone by then.
        let qp = unsafe { std::mem::replace(&mut self.raw.as_mut().qp, ptr::null_mut()) };
        Leaving { qp: NonNull::new(qp), id: self }
    }

    /// The queue pair, if there is one.
    pub(crate) fn qp(&self) -> Option<RawQp<'_>> {
        // SAFETY: the id is alive, and so is its queue pair as long as the borrow.
        let raw = NonNull::new(unsafe { self.raw.as_ref().qp })?;
        Some(RawQp::new(raw, &self.raw))
    }
}

/// librdmacm takes addresses as pointers to what it does not change.
fn raw_addr(addr: &SockAddr) -> *mut libc::sockaddr {
    addr.as_ptr().cast::<libc::sockaddr>().cast_mut()
}

fn addr_of_storage(storage: *const libc::sockaddr_storage) -> Option<SockAddr> {
    // SAFETY: the storage is part of a live id; the family is in it.
    let family = i32::from(unsafe { (*storage).ss_family });
    let length = match family {
        libc::AF_INET => size_of::<libc::sockaddr_in>(),
        libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
        _ => return None,
    };
    let mut copy = SockAddrStorage::zeroed();
    // SAFETY: both are storages, and hold an address of this length.
    unsafe {
        ptr::copy_nonoverlapping(storage.cast::<u8>(), (&raw mut copy).cast::<u8>(), length);
        Some(SockAddr::new(copy, length as libc::socklen_t))
    }
}
