//! Listeners: who may still come in, and where those who come in go.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::SockAddr;

use super::channel::{Channel, Command, Source};
use super::config::{ListenConfig, PROVIDER_VERBS, QpPlan, millis};
use super::event::{Event, kind};
use super::instance::Engine;
use super::log::Level;
use super::upper::Protocol;
use super::{Object, register, retire};
use crate::error::{Error, Result};
use crate::iwarp::endpoint::OWN_MAX_ULPDU;
use crate::iwarp::handshake::{Limits, OwnTag, Responder};
use crate::iwarp::socket::{self, Options, Socket, is_internal};
use crate::verbs::Listening;

/// What `rcg_listener_query` tells.
#[derive(Clone, Debug)]
pub struct ListenerInfo {
    /// The address, with the port in force.
    pub local: SockAddr,
    /// The backlog in force.
    pub backlog: u32,
    /// Connections whose request is awaited now.
    pub pending: u32,
    /// Connections accepted from TCP.
    pub accepted: u64,
    /// Connections closed at once, because too many requests were awaited.
    pub refused_pending: u64,
    /// Connections that ended before a valid request had come.
    pub failed_handshakes: u64,
    /// Failures of accept(2), as when descriptors run out.
    pub accept_errors: u64,
}

#[derive(Default)]
struct Counters {
    accepted: AtomicU64,
    refused_pending: AtomicU64,
    failed_handshakes: AtomicU64,
    accept_errors: AtomicU64,
}

/// Ports that the kernel chooses for rdma_cm and that TCP must have free as well.
const PORT_TRIES: usize = 16;

/// What listens: a socket, an rdma_cm id, or both on one port.
#[derive(Default)]
struct Ears {
    tcp: Option<socket::Listener>,
    rdma: Option<Listening>,
    /// Whether an id has to be there.
    wants_rdma: bool,
}

/// What listens on an address, and what its connections are made like.
pub struct Listener {
    handle: AtomicUsize,
    id: u64,
    context: usize,
    pub(super) protocol: Option<Protocol>,
    channel: Arc<Channel>,
    spread: Vec<Arc<Channel>>,
    next: AtomicUsize,
    ears: Mutex<Ears>,
    local: OnceLock<SockAddr>,
    backlog: u32,
    v6only: bool,
    max_pending: u32,
    pending: AtomicU32,
    pub(super) handshake_timeout: Duration,
    pub(super) plan: QpPlan,
    counters: Counters,
    closing: AtomicBool,
}

impl Listener {
    pub(super) fn create(channel: &Arc<Channel>, addr: &SockAddr, config: ListenConfig) -> Result<Arc<Self>> {
        let plan = config.qp.plan()?;
        let engine = channel.engine();
        if config.channels.iter().any(|other| !Arc::ptr_eq(other.engine(), engine)) {
            return Err(Error::invalid("the channels of a listener belong to one engine"));
        }
        let handshake_timeout = millis(config.handshake_timeout_ms, 5_000, "handshake_timeout_ms")?;
        let backlog = if config.backlog == 0 { 128 } else { config.backlog };
        let spread = if config.channels.is_empty() { vec![Arc::clone(channel)] } else { config.channels };
        let listener = Arc::new(Self {
            handle: AtomicUsize::new(0),
            id: engine.next_id(),
            context: config.context,
            protocol: config.protocol,
            channel: Arc::clone(channel),
            spread,
            next: AtomicUsize::new(0),
            local: OnceLock::new(),
            backlog: backlog.min(socket::most_backlog()),
            v6only: config.v6only,
            ears: Mutex::default(),
            max_pending: if config.max_pending == 0 { 1024 } else { config.max_pending },
            pending: AtomicU32::new(0),
            handshake_timeout,
            plan,
            counters: Counters::default(),
            closing: AtomicBool::new(false),
        });
        listener.handle.store(register(Object::Listener(Arc::clone(&listener)))?, Ordering::Relaxed);
        let open = listener.open(addr);
        let admitted = open.and_then(|()| channel.admit(Command::Listen(Arc::clone(&listener))));
        if let Err(error) = admitted {
            retire(listener.handle());
            return Err(error);
        }
        Ok(listener)
    }

    /// Begins to listen with the provider that is wanted or, with `auto`, with all that serve the address.
    fn open(self: &Arc<Self>, addr: &SockAddr) -> Result<()> {
        let devices = self.channel.verbs_for(self.plan.provider)?;
        let any_port = addr.as_socket().is_some_and(|addr| addr.port() == 0);
        let mut tries = if devices && any_port { PORT_TRIES } else { 1 };
        loop {
            tries -= 1;
            match self.open_once(addr, devices) {
                Err(error) if error.errno == libc::EADDRINUSE && tries > 0 => {}
                result => return result,
            }
        }
    }

    fn open_once(&self, addr: &SockAddr, devices: bool) -> Result<()> {
        let must = self.plan.provider == PROVIDER_VERBS;
        let rdma = match self.listen_rdma(addr).filter(|_| devices) {
            Some(Ok(rdma)) => Some(rdma),
            // With `auto` an address that no device serves is TCP's; but who can't have the port is to know, or half of
            // the peers would talk to another program.
            Some(Err(error)) if must || error.errno == libc::EADDRINUSE => return Err(error),
            _ => None,
        };
        let local = rdma.as_ref().and_then(Listening::local).unwrap_or_else(|| addr.clone());
        let options = Options { dead_peer: self.plan.dead_peer, congestion: self.plan.congestion.as_deref() };
        let tcp = match socket::Listener::bind(&local, self.backlog, self.v6only, &options) {
            _ if must => None,
            Ok(tcp) => Some(tcp),
            // The kernel's iWARP has the port, and speaks on it as we would.
            Err(error) if error.errno == libc::EADDRINUSE && rdma.as_ref().is_some_and(takes_tcp) => None,
            Err(error) => return Err(error),
        };
        let bound = tcp.as_ref().map_or(Ok(local), socket::Listener::local)?;
        let wants_rdma = rdma.is_some();
        *self.ears.lock() = Ears { tcp, rdma, wants_rdma };
        let _ = self.local.set(bound);
        Ok(())
    }

    fn listen_rdma(&self, addr: &SockAddr) -> Option<Result<Listening>> {
        let events = self.channel.events()?;
        Some(Listening::new(&events, addr, self.backlog, self.v6only, self.handle()))
    }

    /// The device that served the address has gone.
    pub(super) fn lose_device(&self) {
        // Destroyed outside the lock.
        let lost = self.ears.lock().rdma.take();
        drop(lost);
    }

    /// Listens again on a device that has come back; true when there is nothing more to be done about it.
    pub(super) fn relisten(&self) -> bool {
        let mut ears = self.ears.lock();
        let Some(addr) = self.local.get().filter(|_| ears.wants_rdma && ears.rdma.is_none()) else {
            return true;
        };
        ears.rdma = self.listen_rdma(addr).and_then(Result::ok);
        ears.rdma.is_some()
    }

    /// A request that has come to the id.
    pub(super) fn count_request(&self) {
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        self.channel.engine()
    }

    /// Its handle.
    pub fn handle(&self) -> usize {
        self.handle.load(Ordering::Relaxed)
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Closes it: no more connections come in, those that are there live on.
    pub fn close(self: &Arc<Self>) -> Result<()> {
        if !self.closing.swap(true, Ordering::SeqCst) {
            self.channel.send(Command::Unlisten(Arc::clone(self)));
        }
        Ok(())
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// What it does.
    pub fn info(&self) -> ListenerInfo {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ListenerInfo {
            local: self.local.get().cloned().unwrap_or_else(unspecified),
            backlog: self.backlog,
            pending: self.pending.load(Ordering::Relaxed),
            accepted: count(&self.counters.accepted),
            refused_pending: count(&self.counters.refused_pending),
            failed_handshakes: count(&self.counters.failed_handshakes),
            accept_errors: count(&self.counters.accept_errors),
        }
    }

    /// Runs `visit` with the socket's descriptor, while it is open.
    pub(super) fn with_fd<T>(&self, visit: impl FnOnce(i32) -> T) -> Option<T> {
        self.ears.lock().tcp.as_ref().map(|socket| visit(socket.as_raw_fd()))
    }

    pub(super) fn shut(&self) {
        let mut ears = self.ears.lock();
        ears.wants_rdma = false;
        let heard = (ears.tcp.take(), ears.rdma.take());
        drop(ears);
        drop(heard);
    }

    /// Accepts one connection.
    pub(super) fn accept(self: &Arc<Self>) -> Result<Accepted> {
        let accepted = self.ears.lock().tcp.as_ref().map_or(Ok(None), |socket| socket.accept());
        let Some((socket, peer)) = accepted.inspect_err(|error| self.note_accept_error(error))? else {
            return Ok(Accepted::None);
        };
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        if self.pending.load(Ordering::Relaxed) >= self.max_pending {
            self.counters.refused_pending.fetch_add(1, Ordering::Relaxed);
            return Ok(Accepted::TooMany);
        }
        Ok(Accepted::One(Slot::new(self), socket, peer))
    }

    /// The channels in turn, those that have been destroyed left out.
    pub(super) fn next_channel(&self) -> Arc<Channel> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.spread.len().max(1);
        let (before, after) = self.spread.split_at(turn.min(self.spread.len()));
        let alive = after.iter().chain(before).find(|channel| !channel.is_closed());
        Arc::clone(alive.unwrap_or(&self.channel))
    }

    fn note_accept_error(&self, error: &Error) {
        let before = self.counters.accept_errors.fetch_add(1, Ordering::Relaxed);
        // Once in a while, not at every attempt.
        if before.is_power_of_two() || before == 0 {
            let engine = self.channel.engine();
            engine.log(Level::Warn, format_args!("listener: {error}; {}", error.remedy));
        }
    }

    /// The responder's side of MPA for a peer at this address.
    pub(super) fn responder(&self, peer: &SockAddr, local: Option<&SockAddr>) -> Responder {
        Responder::new(Limits {
            ird: super::config::iwarp_limits().max_ird as u16,
            ord: super::config::iwarp_limits().max_ord as u16,
            crc: self.plan.crc,
            offer_crc: !is_internal(peer, local),
            max_revision: 2,
            tag: (!self.plan.raw_private_data).then_some(own_tag()),
        })
    }

    pub(super) fn context(&self) -> usize {
        self.context
    }

    /// Its last event.
    pub(super) fn closed_event(&self) -> Event {
        Event { kind: kind::CLOSED, listener: self.handle(), context: self.context, ..Event::default() }
    }

    pub(super) fn report_closed(self: &Arc<Self>) {
        self.channel.mark_ready(Source::Listener(Arc::clone(self)));
    }
}

/// Whether an id takes ports of TCP's: one on an iWARP device, or one that listens on all devices.
fn takes_tcp(rdma: &Listening) -> bool {
    rdma.is_iwarp().unwrap_or(true)
}

/// No address.
fn unspecified() -> SockAddr {
    std::net::SocketAddr::from(([0, 0, 0, 0], 0)).into()
}

/// What we tell peers of our own kind.
pub(super) fn own_tag() -> OwnTag {
    OwnTag { max_ulpdu: OWN_MAX_ULPDU as u16, flags: 0 }
}

/// What accepting has brought.
pub(super) enum Accepted {
    None,
    /// One that was closed at once.
    TooMany,
    One(Slot, Socket, SockAddr),
}

/// A place among the connections whose request is awaited; given back when it is dropped.
pub(super) struct Slot {
    pub(super) listener: Arc<Listener>,
    complete: bool,
}

impl Slot {
    fn new(listener: &Arc<Listener>) -> Self {
        listener.pending.fetch_add(1, Ordering::Relaxed);
        Self { listener: Arc::clone(listener), complete: false }
    }

    /// The request has come.
    pub(super) fn complete(mut self) {
        self.complete = true;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.listener.pending.fetch_sub(1, Ordering::Relaxed);
        if !self.complete {
            self.listener.counters.failed_handshakes.fetch_add(1, Ordering::Relaxed);
        }
    }
}
