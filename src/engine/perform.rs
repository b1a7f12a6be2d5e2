//! Between the life cycle and the provider: what has happened goes in, what is to be done comes out and is done.

use std::sync::Arc;
use std::time::Instant;

use socket2::SockAddr;

use super::channel::Command;
use super::conn::{Answer, Conn, Inner};
use super::endpoint::{Endpoint, Path, Words};
use super::event::{ErrorReport, Event, kind};
use super::report::Subject;
use super::resolve::resolve;
use super::route::candidates;
use super::selector::Selector;
use crate::cm::{Action, Event as Input, Report, Request, Role, State};
use crate::error::{Error, Reason, Result, Stage};
use crate::iwarp::endpoint::{Progress, Readiness};
use crate::iwarp::socket::Socket;
use crate::trace;
use crate::verbs::{AsyncEvent, CmEvent, Hub, Wc};
use crate::work::by_value;

/// How often a connect tries an address again for want of a free port.
const MOST_AGAIN: usize = 3;

/// What the driver tells a connection.
pub(super) enum Happening<'a> {
    /// The caller wants something.
    Request(Request),
    /// A peer's request has come.
    Requested,
    /// The addresses of a name are known, or not.
    Resolved(Result<Vec<SockAddr>>),
    /// The socket has told something.
    Ready(Readiness),
    /// There was more to do.
    Go,
    /// rdma_cm has told something.
    Cm(&'a CmEvent),
    /// Work requests of its queue pair have completed.
    Work(&'a [Wc]),
    /// The device has told something about its queue pair.
    Async(AsyncEvent),
    /// A timer is due.
    Timer,
}

/// What a connection works with on the driver.
pub(super) struct Io<'a> {
    pub(super) selector: &'a Selector,
    pub(super) buffer: &'a mut [u8],
    /// What the channel has of rdma_cm and verbs, if it uses them.
    pub(super) hub: Option<&'a mut Hub>,
    /// A socket that is done but should not be reset yet.
    pub(super) done: Option<Socket>,
}

/// What the driver has to do next.
pub(super) struct Outcome {
    pub(super) timer: Option<Instant>,
    pub(super) progress: Progress,
    /// The connection needs the driver no more.
    pub(super) closed: bool,
    /// Octets have come from the socket.
    pub(super) received: bool,
}

impl Inner {
    pub(super) fn drive(
        &mut self,
        conn: &Arc<Conn>,
        happening: Happening<'_>,
        now: Instant,
        io: &mut Io<'_>,
    ) -> Outcome {
        let mut inputs = Vec::new();
        let before = self.endpoint.octets_received();
        let progress =
            if self.closed { Progress::Waiting } else { self.happen(conn, happening, now, io, &mut inputs) };
        self.settle(conn, now, io, &mut inputs);
        if self.draining && self.endpoint.sends_drained() {
            self.draining = false;
            inputs.push(Input::SendsDrained);
            self.settle(conn, now, io, &mut inputs);
        }
        let timer = [self.life.poll_timeout(), self.endpoint.next_timer()].into_iter().flatten().min();
        Outcome {
            timer: timer.filter(|_| !self.closed),
            progress,
            closed: self.closed,
            received: self.endpoint.octets_received() > before,
        }
    }

    fn happen(
        &mut self,
        conn: &Conn,
        happening: Happening<'_>,
        now: Instant,
        io: &mut Io<'_>,
        inputs: &mut Vec<Input>,
    ) -> Progress {
        match happening {
            Happening::Request(request) => {
                // What can't be done any more was answered by the events that ended it.
                let _ = self.life.handle_request(now, request);
                Progress::Waiting
            }
            Happening::Requested => {
                self.announce(conn);
                inputs.push(Input::Requested);
                self.endpoint.requested(io, inputs)
            }
            Happening::Resolved(result) => {
                self.resolved(result, conn, now, io, inputs);
                Progress::Waiting
            }
            Happening::Ready(readiness) => self.endpoint.ready(readiness, io, inputs),
            Happening::Go => self.endpoint.ready(Readiness::default(), io, inputs),
            Happening::Cm(event) => {
                let (verbs, hub) = (self.endpoint.verbs(), io.hub.as_deref_mut());
                if let (Some(verbs), Some(hub)) = (verbs, hub) {
                    verbs.cm_event(event, hub, now, inputs);
                }
                Progress::Waiting
            }
            Happening::Work(completions) => {
                if let Some(verbs) = self.endpoint.verbs() {
                    verbs.work(completions, now, inputs);
                }
                self.endpoint.after_verbs()
            }
            Happening::Async(event) => {
                if let Some(verbs) = self.endpoint.verbs() {
                    verbs.async_event(event);
                }
                self.endpoint.after_verbs()
            }
            Happening::Timer => {
                if self.life.poll_timeout().is_some_and(|at| at <= now) {
                    self.life.handle_timeout(now);
                }
                self.endpoint.timer(now, inputs)
            }
        }
    }

    /// The addresses of a name are known, or not.
    fn resolved(
        &mut self,
        result: Result<Vec<SockAddr>>,
        conn: &Conn,
        now: Instant,
        io: &mut Io<'_>,
        inputs: &mut Vec<Input>,
    ) {
        match result {
            Ok(mut addrs) => {
                addrs.truncate(super::config::MAX_ADDRESSES);
                self.candidates = candidates(&addrs, self.plan.provider, self.devices);
                self.life.set_candidates(now, self.candidates.len());
                if let Err(error) = self.try_address(conn, io, inputs) {
                    inputs.push(Input::Failed(error));
                }
            }
            Err(error) => inputs.push(Input::Failed(error)),
        }
    }

    /// Begins with the present candidate, by its provider.
    fn try_address(&mut self, conn: &Conn, io: &mut Io<'_>, inputs: &mut Vec<Input>) -> Result<()> {
        let candidate = self.candidates.get(self.life.attempt()).cloned();
        let candidate = candidate.ok_or_else(|| Error::invalid("no such address").at(Stage::Address))?;
        self.peer = Some(Arc::new(candidate.addr.clone()));
        if candidate.provider != self.endpoint.provider() {
            let mut next = Endpoint::new(candidate.provider, conn.channel(), conn.id(), &self.plan)?;
            let mut receives = self.endpoint.take_receives().into_iter();
            let gone = || Error::new(libc::EIO, Reason::Internal, "a receive is missing");
            // Where the library owns the buffers there are none to move, and no posting either.
            if receives.len() > 0 {
                next.post_recv(receives.len(), &mut by_value(|_| receives.next().ok_or_else(gone)))?;
            }
            self.endpoint = next;
        }
        let path = self.path(&candidate.addr, conn);
        self.endpoint.resolve_address(&path, io, inputs)
    }

    /// rdma_cm chooses a port that it has not given to anybody; an iWARP device then finds that TCP has.
    fn try_again_after(&mut self, error: &Error) {
        let local = self.connect.as_ref().and_then(|connect| connect.local.as_ref());
        let chosen = local.and_then(SockAddr::as_socket).is_some_and(|local| local.port() != 0);
        let candidate = self.candidates.get(self.life.attempt()).cloned();
        if error.errno != libc::EADDRINUSE || chosen || self.again == MOST_AGAIN {
            return;
        }
        if let Some(candidate) = candidate.filter(|_| self.life.add_candidate()) {
            self.candidates.insert(self.life.attempt() + 1, candidate);
            self.again += 1;
        }
    }

    /// Feeds the life cycle until nothing is left to be done.
    fn settle(&mut self, conn: &Arc<Conn>, now: Instant, io: &mut Io<'_>, inputs: &mut Vec<Input>) {
        loop {
            for input in inputs.drain(..) {
                if let Input::Failed(error) = &input {
                    self.try_again_after(error);
                }
                self.life.handle_event(now, self.life.attempt(), input);
                self.tell_stage(conn);
            }
            let Some(action) = self.life.poll_action() else { return };
            self.tell_stage(conn);
            if let Err(error) = self.perform(action, conn, now, io, inputs) {
                inputs.push(Input::Failed(error));
            }
        }
    }

    fn tell_stage(&mut self, conn: &Conn) {
        let stage = self.life.stage();
        if std::mem::replace(&mut self.told_stage, stage) != stage {
            trace::conn_stage(conn.id(), stage as u32, self.peer_ptr());
        }
    }

    /// The peer's `struct sockaddr`, for whoever traces.
    fn peer_ptr(&self) -> *const u8 {
        self.peer.as_ref().map_or(std::ptr::null(), |peer| peer.as_ptr().cast())
    }

    fn perform(
        &mut self,
        action: Action,
        conn: &Arc<Conn>,
        now: Instant,
        io: &mut Io<'_>,
        inputs: &mut Vec<Input>,
    ) -> Result<()> {
        match action {
            Action::ResolveAddress(_) if self.host.is_some() => self.resolve_name(conn, inputs),
            Action::ResolveAddress(_) => return self.try_address(conn, io, inputs),
            Action::ResolveRoute => return self.resolve_route(conn, io),
            Action::CreateQueuePair => return self.endpoint.create_queue_pair(io, inputs),
            Action::Connect => return self.send_request(),
            Action::SendAccept => return self.send_accept(inputs),
            Action::SendReject => self.send_reject(),
            Action::DrainSends => {
                self.draining = true;
                self.endpoint.drain();
            }
            Action::SendDisconnect => self.endpoint.disconnect(),
            Action::FlushQueuePair => self.endpoint.flush(now, inputs),
            Action::Abandon => self.endpoint.abandon(io),
            Action::Destroy => io.done = self.endpoint.destroy(io),
            Action::Report(report) => self.report(report, conn, now),
        }
        Ok(())
    }

    /// Looks the peer's name up.
    fn resolve_name(&mut self, conn: &Arc<Conn>, inputs: &mut Vec<Input>) {
        let Some((host, service)) = self.host.take() else { return };
        // The name service may take long: it gets a thread of its own, which ends with its answer.
        let conn = Arc::clone(conn);
        let thread = std::thread::Builder::new().name("rcg-resolve".into()).spawn(move || {
            let result = resolve(&host, &service);
            conn.channel().send(Command::Resolved(Arc::clone(&conn), result));
        });
        if let Err(error) = thread {
            inputs.push(Input::Failed(
                Error::os("create a thread for the name service", &error).at(Stage::Address),
            ));
        }
    }

    /// The way to an address. rdma_cm's own bound on each step is the whole connect's: the life cycle has its own.
    fn path<'a>(&self, to: &'a SockAddr, conn: &Conn) -> Path<'a> {
        Path {
            to,
            from: self.connect.as_ref().and_then(|connect| connect.local.clone()),
            timeout: self.timeout,
            handle: conn.handle(),
            token: conn.id(),
        }
    }

    fn resolve_route(&mut self, conn: &Conn, io: &Io<'_>) -> Result<()> {
        let Some(addr) = self.candidates.get(self.life.attempt()).map(|candidate| candidate.addr.clone())
        else {
            return Err(Error::invalid("no such address").at(Stage::Address));
        };
        let path = self.path(&addr, conn);
        self.endpoint.resolve_route(&path, io)
    }

    fn send_request(&mut self) -> Result<()> {
        self.local = self.endpoint.local();
        let Some(connect) = &self.connect else { return Ok(()) };
        let mpa_revision = if connect.mpa_revision == 1 { 1 } else { 2 };
        let words = Words { private_data: &connect.private_data, mpa_revision };
        self.endpoint.connect(&words, self.peer.as_deref(), &self.plan)
    }

    fn send_accept(&mut self, inputs: &mut Vec<Input>) -> Result<()> {
        let Some(Answer::Accept(config)) = &self.answer else { return Ok(()) };
        let choose = |asked: u32, planned: u16| if asked == 0 { planned } else { asked as u16 };
        let (ird, ord) = (choose(config.ird, self.plan.ird), choose(config.ord, self.plan.ord));
        self.endpoint.accept(&config.private_data, (ird, ord), inputs)
    }

    fn send_reject(&mut self) {
        let (reason, private_data) = match &self.answer {
            Some(Answer::Reject(reason, private_data)) => (*reason, private_data.as_slice()),
            _ => (0, [].as_slice()),
        };
        // A peer that is gone needs no answer.
        let _ = self.endpoint.reject(reason, private_data);
    }

    /// Turns a report into an event.
    fn report(&mut self, report: Report, conn: &Conn, now: Instant) {
        let base = self.event(conn.handle());
        match report {
            Report::Established => {
                self.tally.established = true;
                let private_data = self.endpoint.peer_private().filter(|_| self.life.role() == Role::Active);
                self.early.push_back(Event { kind: kind::ESTABLISHED, private_data, ..base });
            }
            Report::ConnectFailed(error) => {
                self.tally.failed(&error);
                let (stage, reason) = (error.stage as u32, error.reason as u32);
                trace::conn_failed(conn.id(), stage, reason, error.errno, self.peer_ptr());
                let report = self.subject(conn, now).failed(
                    if self.life.role() == Role::Active { "connect to" } else { "connection from" },
                    &error,
                    self.life.attempts(),
                    &self.candidates,
                );
                let rejected = error.reason == Reason::Rejected;
                let private_data = self.endpoint.peer_private().filter(|_| rejected);
                let report = Some(self.remember(report, &error, conn));
                self.early.push_back(Event {
                    kind: kind::CONNECT_FAILED,
                    status: error.code(),
                    private_data,
                    error: report,
                    ..base
                });
            }
            Report::Disconnected(error) => {
                self.tally.ended(&error);
                trace::conn_ended(conn.id(), error.reason as u32, error.errno, self.peer_ptr());
                let report = self.subject(conn, now).ended(&error);
                let error_report = Some(self.remember(report, &error, conn));
                self.disconnected = Some(Event {
                    kind: kind::DISCONNECTED,
                    status: error.code(),
                    error: error_report,
                    ..base
                });
            }
            Report::Closed => self.closed = true,
        }
    }

    /// Keeps a report for those who look at the connection or, unless it is just an end, at the engine.
    fn remember(&mut self, report: ErrorReport, error: &Error, conn: &Conn) -> Arc<ErrorReport> {
        let report = Arc::new(report);
        self.last_error = Some(Arc::clone(&report));
        if !matches!(error.reason, Reason::None | Reason::PeerClosed | Reason::Cancelled) {
            conn.engine().failures().add(Arc::clone(&report));
        }
        report
    }

    fn subject<'a>(&'a self, conn: &'a Conn, now: Instant) -> Subject<'a> {
        Subject {
            name: &conn.name,
            local: self.local.as_ref(),
            peer: self.peer.as_deref(),
            elapsed: self.life.elapsed(now),
            provider: self.endpoint.provider(),
            device: self.endpoint.device(),
        }
    }

    /// The promised events without the machine that makes them.
    pub(super) fn break_off(&mut self, conn: &Conn, error: &Error) {
        if self.closed {
            return;
        }
        let now = Instant::now();
        self.endpoint.break_off(error);
        match self.life.state() {
            State::Established | State::Draining | State::Disconnecting => {
                self.report(Report::Disconnected(error.clone()), conn, now);
            }
            State::Idle | State::Connecting | State::Accepting => {
                self.report(Report::ConnectFailed(error.clone()), conn, now);
            }
            State::Requested | State::Flushing | State::Closed => {}
        }
        self.report(Report::Closed, conn, now);
    }

    /// A peer's request as an event.
    fn announce(&mut self, conn: &Conn) {
        let private_data = self.endpoint.peer_private();
        self.early.push_back(Event {
            kind: kind::CONNECT_REQUEST,
            private_data,
            ..self.event(conn.handle())
        });
    }
}
