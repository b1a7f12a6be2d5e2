//! Between the life cycle and the provider: what has happened goes in, what is to be done comes out and is done.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use socket2::SockAddr;

use super::channel::Command;
use super::conn::{Answer, Conn, Inner};
use super::event::{Event, kind};
use super::listener::own_tag;
use super::report::Subject;
use super::resolve::resolve;
use super::selector::Selector;
use crate::cm::{Action, Event as Input, Report, Request, Role, State};
use crate::error::{Error, Reason, Result, Stage};
use crate::iwarp::endpoint::{Progress, Readiness};
use crate::iwarp::handshake::Offer;
use crate::iwarp::socket::{Socket, is_loopback};

/// What the driver tells a connection.
pub(super) enum Happening {
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
    /// A timer is due.
    Timer,
}

/// What a connection works with on the driver.
pub(super) struct Io<'a> {
    pub(super) selector: &'a Selector,
    pub(super) buffer: &'a mut [u8],
    /// A socket that is done but should not be reset yet.
    pub(super) done: Option<Socket>,
}

/// What the driver has to do next.
pub(super) struct Outcome {
    pub(super) timer: Option<Instant>,
    pub(super) progress: Progress,
    /// The connection needs the driver no more.
    pub(super) closed: bool,
}

impl Inner {
    pub(super) fn drive(
        &mut self,
        conn: &Arc<Conn>,
        happening: Happening,
        now: Instant,
        io: &mut Io<'_>,
    ) -> Outcome {
        let mut inputs = Vec::new();
        let progress =
            if self.closed { Progress::Waiting } else { self.happen(conn, happening, now, io, &mut inputs) };
        self.settle(conn, now, io, &mut inputs);
        if self.draining && self.endpoint.qp().sends_drained() {
            self.draining = false;
            inputs.push(Input::SendsDrained);
            self.settle(conn, now, io, &mut inputs);
        }
        let timer = [self.life.poll_timeout(), self.endpoint.next_timer()].into_iter().flatten().min();
        Outcome { timer: timer.filter(|_| !self.closed), progress, closed: self.closed }
    }

    fn happen(
        &mut self,
        conn: &Conn,
        happening: Happening,
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
                // The peer may have gone already: its FIN makes no new edge.
                self.endpoint.ready(Readiness { readable: true, ..Readiness::default() }, io.buffer, inputs)
            }
            Happening::Resolved(result) => {
                inputs.push(self.resolved(result, now));
                Progress::Waiting
            }
            Happening::Ready(readiness) => self.endpoint.ready(readiness, io.buffer, inputs),
            Happening::Go => self.endpoint.ready(Readiness::default(), io.buffer, inputs),
            Happening::Timer => {
                if self.life.poll_timeout().is_some_and(|at| at <= now) {
                    self.life.handle_timeout(now);
                }
                self.endpoint.timer(now, inputs)
            }
        }
    }

    fn resolved(&mut self, result: Result<Vec<SockAddr>>, now: Instant) -> Input {
        match result {
            Ok(mut addrs) => {
                addrs.truncate(super::config::MAX_ADDRESSES);
                self.life.set_candidates(now, addrs.len());
                self.peer = addrs.first().cloned().map(Arc::new);
                self.candidates = addrs;
                Input::AddressResolved
            }
            Err(error) => Input::Failed(error),
        }
    }

    /// Feeds the life cycle until nothing is left to be done.
    fn settle(&mut self, conn: &Arc<Conn>, now: Instant, io: &mut Io<'_>, inputs: &mut Vec<Input>) {
        loop {
            for input in inputs.drain(..) {
                self.life.handle_event(now, self.life.attempt(), input);
            }
            let Some(action) = self.life.poll_action() else { return };
            if let Err(error) = self.perform(action, conn, now, io, inputs) {
                inputs.push(Input::Failed(error));
            }
        }
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
            Action::ResolveAddress(candidate) => self.resolve_address(candidate, conn, inputs),
            Action::ResolveRoute => return self.resolve_route(conn, io),
            Action::CreateQueuePair => inputs.push(Input::QueuePairReady),
            Action::Connect => return self.send_request(),
            Action::SendAccept => return self.send_accept(inputs),
            Action::SendReject => self.send_reject(),
            Action::DrainSends => self.draining = true,
            Action::SendDisconnect => self.endpoint.shut_down(),
            Action::FlushQueuePair => {
                let error = Error::new(libc::ECANCELED, Reason::Cancelled, "the connection has ended");
                self.endpoint.flush_queue_pair(error);
                inputs.push(Input::Flushed);
            }
            Action::Abandon => {
                self.forget_socket(io);
                self.endpoint.abandon();
            }
            Action::Destroy => {
                self.forget_socket(io);
                io.done = self.endpoint.destroy();
            }
            Action::Report(report) => self.report(report, conn, now),
        }
        Ok(())
    }

    fn forget_socket(&self, io: &Io<'_>) {
        if let Some(socket) = self.endpoint.socket() {
            io.selector.remove(socket.as_raw_fd());
        }
    }

    fn resolve_address(&mut self, candidate: usize, conn: &Arc<Conn>, inputs: &mut Vec<Input>) {
        if let Some(addr) = self.candidates.get(candidate) {
            self.peer = Some(Arc::new(addr.clone()));
            inputs.push(Input::AddressResolved);
            return;
        }
        let Some((host, service)) = self.host.take() else {
            inputs.push(Input::Failed(Error::invalid("no such address").at(Stage::Address)));
            return;
        };
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

    fn resolve_route(&mut self, conn: &Arc<Conn>, io: &Io<'_>) -> Result<()> {
        let Some(addr) = self.candidates.get(self.life.attempt()) else {
            return Err(Error::invalid("no such address").at(Stage::Address));
        };
        let local = self.connect.as_ref().and_then(|connect| connect.local.as_ref());
        let socket = self.endpoint.connect(addr, local)?;
        io.selector.add(socket.as_raw_fd(), conn.id()).map_err(|error| error.at(Stage::Device))
    }

    fn send_request(&mut self) -> Result<()> {
        self.local = self.endpoint.socket().and_then(Socket::local);
        let connect = self.connect.as_ref();
        let offer = Offer {
            revision: connect.map_or(2, |connect| if connect.mpa_revision == 1 { 1 } else { 2 }),
            crc: self.plan.crc,
            offer_crc: !self.peer.as_deref().is_some_and(is_loopback),
            ird: self.plan.ird,
            ord: self.plan.ord,
            private_data: connect.map(|connect| connect.private_data.clone()).unwrap_or_default(),
            tag: (!self.plan.raw_private_data).then(own_tag),
        };
        self.endpoint.request(offer)
    }

    fn send_accept(&mut self, inputs: &mut Vec<Input>) -> Result<()> {
        let Some(Answer::Accept(config)) = &self.answer else { return Ok(()) };
        let choose = |asked: u32, planned: u16| if asked == 0 { planned } else { asked as u16 };
        let (ird, ord) = (choose(config.ird, self.plan.ird), choose(config.ord, self.plan.ord));
        self.endpoint.accept(&config.private_data, ird, ord, inputs)
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
                let private_data = self.endpoint.peer_private().filter(|_| self.life.role() == Role::Active);
                self.early.push_back(Event { kind: kind::ESTABLISHED, private_data, ..base });
            }
            Report::ConnectFailed(error) => {
                let report = self.subject(conn, now).failed(
                    if self.life.role() == Role::Active { "connect to" } else { "connection from" },
                    &error,
                    self.life.attempts(),
                    &self.candidates,
                );
                let rejected = error.reason == Reason::Rejected;
                let private_data = self.endpoint.peer_private().filter(|_| rejected);
                self.early.push_back(Event {
                    kind: kind::CONNECT_FAILED,
                    status: error.code(),
                    private_data,
                    error: Some(Arc::new(report)),
                    ..base
                });
            }
            Report::Disconnected(error) => {
                let report = self.subject(conn, now).ended(&error);
                let error_report = Some(Arc::new(report));
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

    fn subject<'a>(&'a self, conn: &'a Conn, now: Instant) -> Subject<'a> {
        Subject {
            name: &conn.name,
            local: self.local.as_ref(),
            peer: self.peer.as_deref(),
            elapsed: self.life.elapsed(now),
        }
    }

    /// The promised events without the machine that makes them.
    pub(super) fn break_off(&mut self, conn: &Conn, error: &Error) {
        if self.closed {
            return;
        }
        let now = Instant::now();
        self.endpoint.abandon();
        self.endpoint.flush_queue_pair(error.clone());
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
