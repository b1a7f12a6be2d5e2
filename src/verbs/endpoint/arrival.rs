//! What comes from below: rdma_cm's events, completions, asynchronous events, time.

use std::time::{Duration, Instant};

use super::super::hub::Hub;
use super::super::private::separate;
use super::super::sys::{CmEvent, CmId};
use super::post::{NUMBER_MASK, RECV_BIT};
use super::{Endpoint, at};
use crate::cm::Event;
use crate::error::{Error, Reason, Stage};
use crate::tcp::stall::{StallWatch, Verdict};
use crate::verbs::types::{AsyncEvent, CmKind, ConnParam, Wc};

/// How long the passive side on an iWARP device waits for the peer to speak first: an FPDU right behind the MPA reply
/// makes some initiators fail (RFC 5044 section 7.1 has them speak first).
const HOLD: Duration = Duration::from_millis(5);

/// When an initiator on an iWARP device that has heard nothing yet sends a Write of no octets. What reaches kernel soft
/// iWARP (Linux 6.1) between its MPA reply and the moment when it listens is not looked at before more comes.
const NUDGES: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(800)];

/// How long rdma_cm has to tell that a peer is ready that has sent already; then its message about that is lost.
const LATE: Duration = Duration::from_millis(300);

/// How long the peer waits when a message of it met no receive: 0.64 ms in the encoding of InfiniBand (table 45).
const RNR_TIMER: u8 = 12;

/// Reject reasons of the IB CM (IBA 12.6.7.2): the peer's application said no, and nobody listens.
const IB_REJ_CONSUMER: i32 = 28;
const IB_REJ_NO_SERVICE: i32 = 8;

/// Signs of life of the peer's host.
#[derive(Debug)]
pub(super) struct Pulse {
    /// The peer began.
    pub(super) passive: bool,
    /// A third of the time after which a silent peer is dead: in one of them it is found silent, in one it is asked, and in
    /// one it may answer.
    interval: Duration,
    /// Judges what TCP tells, on soft iWARP.
    watch: StallWatch,
    due: Option<Instant>,
    heard: bool,
    asked: bool,
    /// The peer has sent a message.
    spoken: bool,
    nudge_at: Option<Instant>,
    nudged: usize,
}

impl Pulse {
    pub(super) fn new(dead_peer: Duration) -> Self {
        Self {
            passive: false,
            interval: dead_peer / 3,
            watch: StallWatch::new(dead_peer),
            due: None,
            heard: false,
            asked: false,
            spoken: false,
            nudge_at: None,
            nudged: 0,
        }
    }

    fn start(&mut self, now: Instant) {
        self.due = now.checked_add(self.interval);
    }

    /// Sets the time of the next nudge, if there is to be one.
    fn plan_nudge(&mut self, now: Instant) {
        self.nudge_at = NUDGES.get(self.nudged).filter(|_| !self.spoken).map(|after| now + *after);
        self.nudged += 1;
    }

    pub(super) fn stop(&mut self) {
        self.due = None;
        self.nudge_at = None;
    }

    fn hear(&mut self) {
        self.heard = true;
        self.asked = false;
    }
}

impl Endpoint {
    /// An event of rdma_cm on this connection's id.
    pub(crate) fn cm_event(&mut self, event: &CmEvent, hub: &mut Hub, now: Instant, events: &mut Vec<Event>) {
        let status = event.status;
        if matches!(event.kind, CmKind::ConnectError | CmKind::Unreachable | CmKind::Rejected) {
            self.connecting = false;
        }
        match event.kind {
            CmKind::AddrResolved => match self.open_device(hub) {
                Ok(()) => events.push(Event::AddressResolved),
                Err(error) => events.push(Event::Failed(error)),
            },
            CmKind::AddrError => events.push(Event::Failed(address_error(status))),
            CmKind::RouteResolved => events.push(Event::RouteResolved),
            CmKind::RouteError => events.push(Event::Failed(route_error(status))),
            CmKind::ConnectResponse => {}
            CmKind::ConnectError => events.push(Event::Failed(handshake_error(status))),
            CmKind::Unreachable if self.connected => events.push(Event::Unreachable),
            // To rdma_cm the connection is established: it is we who still wait.
            CmKind::Unreachable if self.hold_until.is_some() => {}
            CmKind::Unreachable => events.push(Event::Failed(unreachable(status))),
            CmKind::Rejected => events.push(self.rejected(status, &event.param)),
            CmKind::Established => self.established(&event.param, now, events),
            CmKind::Disconnected => {
                // It was established, however short.
                if self.hold_until.is_some() {
                    self.begin(now, events);
                }
                self.take_as_ready(now, events);
                // The peer may have left because of what has failed.
                let failure = self.failure.take().map(Event::StreamError);
                events.push(self.unless_removed(failure.unwrap_or(Event::Disconnected)));
            }
            CmKind::DeviceRemoval => {
                if let Some(device) = &self.device {
                    device.remove();
                }
                events.push(Event::DeviceRemoved);
            }
            CmKind::AddrChange => events.push(Event::AddressChanged),
            CmKind::TimewaitExit => events.push(Event::TimewaitExit),
            CmKind::ConnectRequest | CmKind::Other(_) => {}
        }
    }

    fn established(&mut self, param: &ConnParam, now: Instant, events: &mut Vec<Event>) {
        events.push(Event::HandshakeDone);
        self.connecting = false;
        self.agree(param);
        if let Some(qp) = self.id.as_ref().and_then(CmId::qp) {
            // rdma_cm's own would have a peer that met no receive wait for 655 ms. Not all devices have it.
            let _ = qp.set_rnr_timer(RNR_TIMER);
        }
        if self.passive() {
            if self.is_iwarp() && !self.connected && self.ready_by.is_none() {
                self.hold_until = Some(now + HOLD);
                return;
            }
        } else {
            let (private, tag) = separate(&param.private_data);
            self.peer_private = private;
            self.terms.own_peer = tag.is_some();
        }
        self.begin(now, events);
    }

    /// What both sides have agreed on about Reads.
    fn agree(&mut self, param: &ConnParam) {
        let (ird, ord) = (param.responder_resources, param.initiator_depth);
        if self.is_siw() {
            // It tells its own view of both, and may have granted more than was asked for (RFC 6581 section 9.1).
            (self.terms.ird, self.terms.ord) = (ord, ird);
        } else if !self.passive() {
            self.terms.ird = self.terms.ird.min(ird);
            self.terms.ord = self.terms.ord.min(ord);
        }
    }

    /// From here on both sides may post.
    fn begin(&mut self, now: Instant, events: &mut Vec<Event>) {
        self.hold_until = None;
        self.ready_by = None;
        if !self.connected && !self.ended {
            self.connected = true;
            if self.is_siw() {
                self.pulse.interval = self.pulse.watch.interval();
            }
            self.pulse.start(now);
            if self.is_iwarp() && !self.passive() {
                self.pulse.plan_nudge(now);
            }
            events.push(Event::Established);
        }
    }

    fn rejected(&mut self, status: i32, param: &ConnParam) -> Event {
        let (private, tag) = separate(&param.private_data);
        let by_application = if self.is_iwarp() {
            // Some drivers have one status for both; only an application has something to say.
            status != -libc::ECONNREFUSED || !param.private_data.is_empty()
        } else {
            status == IB_REJ_CONSUMER
        };
        if !by_application {
            return Event::Failed(refused(status));
        }
        self.peer_private = private;
        let reason = tag.map_or(0, |tag| u32::from(tag.reject_reason));
        let text = crate::work::reject_text(reason);
        let error = Error::new(libc::ECONNREFUSED, Reason::Rejected, text).with_code(reason as i32);
        Event::Rejected(error.at(Stage::Handshake))
    }

    /// Completions of this connection's queue pairs. One that has failed is told by [`Endpoint::report_failure`].
    pub(crate) fn work(&mut self, completions: &[Wc], now: Instant, events: &mut Vec<Event>) {
        for wc in completions {
            // One of an attempt that was abandoned is not about what is in the queues now.
            if wc.id & !(RECV_BIT | NUMBER_MASK) == self.name() && self.qp.is_some() {
                self.completion(wc, now, events);
            }
        }
        self.expect_quiet(now);
        self.check_flushed(events);
    }

    fn completion(&mut self, wc: &Wc, now: Instant, events: &mut Vec<Event>) {
        let number = (wc.id & NUMBER_MASK) as u16;
        let status = status_of(wc);
        if wc.id & RECV_BIT == 0 {
            self.sq.complete(number, status);
        } else {
            self.rq.complete(number, wc, status);
            self.counters.received += if status == 0 { u64::from(wc.length) } else { 0 };
        }
        if status == 0 {
            self.pulse.hear();
            self.pulse.spoken |= wc.id & RECV_BIT != 0;
            if !self.connected && self.passive() && wc.id & RECV_BIT != 0 {
                self.spoken_to(now, events);
            }
        } else if wc.status != Wc::FLUSHED && !self.ended && self.failure.is_none() {
            self.failure = Some(failure(wc, wc.id & RECV_BIT != 0));
        }
    }

    /// The peer has sent before rdma_cm has told that the connection is established. As a rule it is about to: a kernel
    /// that is told at once what it was to tell, and then to disconnect, repeats its reply for a minute, and the id can't
    /// be destroyed meanwhile.
    fn spoken_to(&mut self, now: Instant, events: &mut Vec<Event>) {
        if self.hold_until.is_some() {
            self.begin(now, events);
        } else {
            self.ready_by.get_or_insert(now + LATE);
        }
    }

    /// Goes on without the peer's last message of the set-up, where something has come that shows that it is lost.
    fn take_as_ready(&mut self, now: Instant, events: &mut Vec<Event>) {
        if self.ready_by.is_some() {
            events.push(Event::HandshakeDone);
            self.begin(now, events);
        }
    }

    /// An asynchronous event about the queue pair, as [`Endpoint::work`].
    pub(crate) fn async_event(&mut self, event: AsyncEvent) {
        if event.is_qp_failure() && !self.ended {
            let text = format!("the device reports a failure of the queue pair (event {})", event.kind);
            let error = Error::new(libc::ECONNRESET, Reason::Protocol, text).with_code(event.kind as i32);
            self.failure.get_or_insert_with(|| error.at(Stage::Connected));
        }
    }

    /// Says that the connection has failed, once.
    pub(crate) fn report_failure(&mut self, events: &mut Vec<Event>) {
        if !self.ended {
            let failure = self.failure.take().map(Event::StreamError);
            events.extend(failure.map(|event| self.unless_removed(event)));
        }
    }

    /// An end of the connection, or what is behind it: rdma_cm may not have told this id yet that its device goes.
    fn unless_removed(&self, event: Event) -> Event {
        if self.device.as_ref().is_some_and(|device| device.is_gone()) { Event::DeviceRemoved } else { event }
    }

    /// Whether there is a failure to report: of the device's, or of a doorbell on a thread that is not the channel's.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.is_some() && !self.ended
    }

    /// Sees to it that the end of what has been posted will be noticed: what was done in silence has no completion, not
    /// even when the queue pair is flushed.
    pub(crate) fn drain(&mut self) {
        if self.sq.has_silent_end() {
            // A queue without room is full of requests of which one at least is signalled.
            let _ = self.post_probe(false);
        }
    }

    /// When [`Endpoint::timer`] is to be called.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        [self.hold_until, self.pulse.nudge_at, self.pulse.due, self.quiet_at, self.ready_by]
            .into_iter()
            .flatten()
            .min()
    }

    /// Time-driven work: who may speak first, and whether the peer's host is alive.
    pub(crate) fn timer(&mut self, now: Instant, events: &mut Vec<Event>) {
        if self.hold_until.is_some_and(|at| at <= now) {
            self.begin(now, events);
        }
        if self.pulse.nudge_at.is_some_and(|at| at <= now) {
            self.pulse.plan_nudge(now);
            if !self.pulse.spoken && self.sq.probing() == 0 {
                let _ = self.post_probe(false);
            }
        }
        if self.ready_by.is_some_and(|at| at <= now) {
            if let Some(id) = &self.id {
                let _ = id.notify_established();
            }
            self.take_as_ready(now, events);
        }
        if self.quiet_at.is_some_and(|at| at <= now) {
            self.quiet_at = None;
            if std::mem::take(&mut self.flushing) {
                events.push(Event::Flushed);
            }
        }
        if self.pulse.due.is_some_and(|at| at <= now) {
            self.pulse.start(now);
            if self.is_siw() {
                self.check_tcp(now, events);
            } else {
                self.check_peer(events);
            }
        }
    }

    /// Asks a silent peer's host for an acknowledgement; one that gives none in as much time again is dead.
    fn check_peer(&mut self, events: &mut Vec<Event>) {
        if std::mem::take(&mut self.pulse.heard) {
            return;
        }
        // On iWARP no message waits: one without a receive ends the stream.
        let waits = self.sq.waits_for_answer(!self.is_iwarp());
        if self.pulse.asked && waits {
            events.push(Event::StreamError(Error::dead_peer(self.plan.dead_peer)));
        } else if self.sq.probing() == 0 && (self.sq.is_drained() || self.sq.has_silent_end()) {
            self.pulse.asked = true;
            let _ = self.post_probe(true);
        } else if waits {
            self.pulse.asked = true;
        }
    }

    /// As [`Self::check_peer`] for soft iWARP, which completes a Write when TCP has it, and answers a Read of no octets
    /// with some of its last request if it is sending at that moment (`siw_activate_tx` of Linux 6.1). Its TCP is the
    /// kernel's, which can be asked.
    fn check_tcp(&mut self, now: Instant, events: &mut Vec<Event>) {
        let seen = self.id.as_ref().and_then(CmId::liveness);
        let verdict = seen.map_or(Verdict::Idle, |seen| self.pulse.watch.observe(now, seen));
        let silent = seen.map_or(self.pulse.interval, |seen| seen.last_ack);
        let asks = self.sq.probing() > 0;
        let dead = match verdict {
            Verdict::Dead => true,
            // Reads that are not answered hold back what asks.
            Verdict::Idle => asks && silent >= self.plan.dead_peer,
            Verdict::Progress | Verdict::Stalled => false,
        };
        if dead {
            events.push(Event::StreamError(Error::dead_peer(self.plan.dead_peer)));
        } else if verdict == Verdict::Idle && silent >= self.pulse.interval && !asks {
            // Something to acknowledge. A TCP that can't be seen finds out in its own time that nobody does.
            let _ = self.post_probe(false);
        }
    }
}

/// What a completion tells its poster.
fn status_of(wc: &Wc) -> i32 {
    match wc.status {
        0 => 0,
        Wc::FLUSHED => -libc::ECANCELED,
        Wc::REMOTE_ACCESS => -libc::EACCES,
        Wc::LOCAL_LENGTH => -libc::EMSGSIZE,
        Wc::REMOTE_INVALID | Wc::REMOTE_OPERATION | Wc::NO_RECEIVE => -libc::EREMOTEIO,
        Wc::LOCAL_PROTECTION => -libc::EFAULT,
        _ => -libc::ECONNRESET,
    }
}

/// Why the connection ends with a completion that is not a success.
fn failure(wc: &Wc, receive: bool) -> Error {
    let (errno, reason, text) = match wc.status {
        Wc::RETRIES => (libc::ETIMEDOUT, Reason::PeerDead, "the peer's host does not acknowledge any more"),
        Wc::NO_RECEIVE => (libc::ENOBUFS, Reason::Resources, "the peer had no receive posted for a message"),
        Wc::REMOTE_ACCESS => (
            libc::EACCES,
            Reason::RemoteAccess,
            "the peer refused access to its memory: key, rights or bounds",
        ),
        Wc::REMOTE_INVALID => (libc::EREMOTEIO, Reason::Protocol, "the peer could not take what was sent"),
        Wc::REMOTE_OPERATION => (libc::EREMOTEIO, Reason::Protocol, "the peer's device failed the operation"),
        Wc::LOCAL_LENGTH if receive => {
            (libc::EMSGSIZE, Reason::Protocol, "a message was longer than the receive")
        }
        Wc::LOCAL_PROTECTION => (libc::EFAULT, Reason::Invalid, "the device can't reach memory of ours"),
        _ => (libc::ECONNRESET, Reason::PeerReset, "the device failed a work request"),
    };
    let text = format!("{text} (completion status {}, vendor {:#x})", wc.status, wc.vendor_error);
    Error::new(errno, reason, text).with_code(wc.status as i32).at(Stage::Connected)
}

/// The status of an event as an errno: negative errnos, and codes of the transport.
fn errno_of(status: i32, otherwise: i32) -> i32 {
    if status < 0 { -status } else { otherwise }
}

fn os_error(what: &str, status: i32, stage: Stage) -> Error {
    let errno = errno_of(status, libc::EIO);
    at(Error::os(what, &std::io::Error::from_raw_os_error(errno)), stage).with_code(status)
}

fn address_error(status: i32) -> Error {
    if -status == libc::ENODEV {
        let text = "no RDMA device of this machine serves a path to the address";
        return Error::new(libc::ENODEV, Reason::NoProvider, text)
            .with_remedy("the address has to lie in a network of an RDMA device: see `rdma link` and `ip route get ADDRESS`")
            .with_code(status)
            .at(Stage::Address);
    }
    os_error("rdma_resolve_addr", status, Stage::Address)
}

fn route_error(status: i32) -> Error {
    let error = os_error("rdma_resolve_route", status, Stage::Route);
    if error.errno == libc::ETIMEDOUT {
        return error.with_remedy("on InfiniBand the subnet manager answers this: is opensm running?");
    }
    error
}

fn handshake_error(status: i32) -> Error {
    os_error("rdma_connect", status, Stage::Handshake)
}

/// `RDMA_CM_EVENT_UNREACHABLE` before the connection is established: the peer's machine does not answer.
fn unreachable(status: i32) -> Error {
    let errno = errno_of(status, libc::ETIMEDOUT);
    Error::new(errno, Reason::Unreachable, "the peer does not answer the connection request")
        .with_remedy(
            "is the peer up, does a service for RDMA listen there, and is UDP port 4791 (RoCE) open?",
        )
        .with_code(status)
        .at(Stage::Handshake)
}

/// A refusal that is not the application's.
fn refused(status: i32) -> Error {
    let nobody = status == IB_REJ_NO_SERVICE || -status == libc::ECONNREFUSED;
    let text = if nobody {
        "nothing listens for RDMA on that port".into()
    } else {
        format!("the peer's connection manager refused (reason {status})")
    };
    Error::new(libc::ECONNREFUSED, Reason::Refused, text)
        .with_remedy("is the server running, and does it listen with provider verbs or auto?")
        .with_code(status)
        .at(Stage::Handshake)
}
