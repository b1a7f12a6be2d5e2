//! The machine itself. The table of its transitions stands in the module's documentation.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::stages::StageClock;
use super::{Action, Attempt, Config, Event, Report, Request, Role, State, reasons};
use crate::error::{Error, Result, STAGE_COUNT, Stage};

/// A candidate that is not the last gets at least this long, however many wait behind it.
const LEAST_SHARE: Duration = Duration::from_millis(250);

/// Longer bounds are cut to this: a year of 365 days.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// The life of one connection, from the first wish to the last report.
///
/// Not synchronised: the owner keeps it under the connection's lock. Allocates for the queue of actions and one
/// entry for each candidate that failed.
#[derive(Clone, Debug)]
pub struct Life {
    config: Config,
    role: Role,
    state: State,
    clock: StageClock,
    /// The candidate now tried; events for others are stale.
    attempt: usize,
    attempt_began: Instant,
    /// End of the whole connect.
    deadline: Instant,
    timer: Option<Instant>,
    accept_sent: bool,
    actions: VecDeque<Action>,
    failures: Vec<Attempt>,
    ignored: u32,
    unreachable: u32,
}

/// What the peer hears when a connection ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parting {
    /// What the state owes it.
    Tell,
    /// Nothing: it, or the device, is gone.
    Silent,
}

impl Life {
    /// A connection to make: waits for [`Request::Start`].
    pub fn active(config: Config, now: Instant) -> Self {
        Self::new(Role::Active, config, now)
    }

    /// A connection asked for by a peer: waits for [`Event::Requested`], at most `deadline`.
    pub fn passive(config: Config, now: Instant) -> Self {
        let mut life = Self::new(Role::Passive, config, now);
        life.timer = Some(life.deadline);
        life
    }

    fn new(role: Role, mut config: Config, now: Instant) -> Self {
        config.candidates = config.candidates.max(1);
        Self {
            config,
            role,
            state: State::Idle,
            clock: StageClock::new(now),
            attempt: 0,
            attempt_began: now,
            deadline: after(now, config.deadline),
            timer: None,
            accept_sent: false,
            actions: VecDeque::new(),
            failures: Vec::new(),
            ignored: 0,
            unreachable: 0,
        }
    }

    /// Takes a wish of the caller.
    ///
    /// `Close` and `Disconnect` always succeed. `Start`, `Accept` and `Reject` in the wrong state change nothing
    /// and are an error: `EINVAL` for the wrong role, `EISCONN` when already done, `ENOTCONN` when nothing is there.
    pub fn handle_request(&mut self, now: Instant, request: Request) -> Result<()> {
        match (request, self.state) {
            (Request::Start, State::Idle) if self.role == Role::Active => self.start(now),
            (Request::Accept, State::Requested) => self.accept(now),
            (Request::Reject, State::Requested) => self.end(now, None, Parting::Tell),
            (Request::Start | Request::Accept | Request::Reject, _) => return Err(self.misplaced(request)),
            (Request::Disconnect, State::Established) => self.drain(now),
            (Request::Disconnect, State::Draining | State::Disconnecting) => {}
            (Request::Disconnect | Request::Close, _) => self.close(now),
        }
        Ok(())
    }

    /// Takes an event of the provider about candidate `attempt` (passive: 0). Stale, doubled and misplaced events
    /// are ignored and counted.
    pub fn handle_event(&mut self, now: Instant, attempt: usize, event: Event) {
        if attempt != self.attempt {
            self.ignored = self.ignored.saturating_add(1);
            return;
        }
        match event {
            Event::Failed(error) | Event::StreamError(error) => self.broken(now, error, Parting::Tell),
            Event::Rejected(error) => self.rejected(now, error),
            Event::Disconnected => self.peer_left(now),
            Event::Unreachable => self.unreachable(now),
            Event::AddressChanged => self.broken(now, reasons::address_changed(), Parting::Tell),
            Event::DeviceRemoved => self.broken(now, reasons::device_gone(), Parting::Silent),
            Event::TimewaitExit => {}
            Event::SendsDrained if self.state == State::Draining => {
                self.actions.push_back(Action::SendDisconnect);
                self.state = State::Disconnecting;
            }
            Event::Flushed if self.state == State::Flushing => self.destroy(),
            other => self.advance(now, &other),
        }
    }

    /// To be called when [`Life::poll_timeout`] has passed; too early changes nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        while self.timer.is_some_and(|due| due <= now) {
            self.expire(now);
        }
    }

    /// When [`Life::handle_timeout`] is to be called next. Changes with every input.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timer
    }

    /// The next thing to do; to be polled until `None` after every input.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Where the connection is.
    pub fn state(&self) -> State {
        self.state
    }

    /// Who began.
    pub fn role(&self) -> Role {
        self.role
    }

    /// How far it came; stays once the connection has ended.
    pub fn stage(&self) -> Stage {
        self.clock.stage()
    }

    /// The candidate now tried, or the last one.
    pub fn attempt(&self) -> usize {
        self.attempt
    }

    /// Candidates that failed, in order. A connect the caller cut short is not listed.
    pub fn attempts(&self) -> &[Attempt] {
        &self.failures
    }

    /// The time each stage of this attempt took so far, indexed by [`Stage`]; their sum is [`Life::elapsed`].
    /// Index 0 is what candidates that failed before had cost (passive: the wait for the request is not counted,
    /// that for the caller's answer is part of the handshake).
    pub fn stage_times(&self, now: Instant) -> [Duration; STAGE_COUNT] {
        self.clock.times(now)
    }

    /// Time since the start (active: `Start`; passive: the request), until the connection's end.
    pub fn elapsed(&self, now: Instant) -> Duration {
        self.clock.elapsed(now)
    }

    /// Whether the caller may post operations that send.
    pub fn may_post_send(&self) -> bool {
        self.state == State::Established
    }

    /// Whether the caller may post receives: from the connect or the request on, until the connection has ended.
    pub fn may_post_recv(&self) -> bool {
        match self.state {
            State::Idle => self.role == Role::Active,
            State::Flushing | State::Closed => false,
            _ => true,
        }
    }

    /// Events that were stale, doubled or out of place.
    pub fn ignored(&self) -> u32 {
        self.ignored
    }

    /// `RDMA_CM_EVENT_UNREACHABLE` on the connected id.
    pub fn unreachable_while_connected(&self) -> u32 {
        self.unreachable
    }

    fn start(&mut self, now: Instant) {
        self.deadline = after(now, self.config.deadline);
        self.state = State::Connecting;
        self.clock.start(now, Stage::Address);
        self.try_candidate(now);
    }

    /// Tells how many candidates there are, once the first `ResolveAddress` has turned a name into addresses. The
    /// first of them is the present candidate, and gets its share anew.
    pub fn set_candidates(&mut self, now: Instant, candidates: usize) {
        self.config.candidates = candidates.max(1);
        if self.state == State::Connecting {
            self.share_time(now);
        }
    }

    /// Has the candidate behind the present one be one more, unless no other will be tried.
    pub fn add_candidate(&mut self) -> bool {
        let connecting = self.state == State::Connecting;
        self.config.candidates += usize::from(connecting);
        connecting
    }

    /// Begins with the present candidate, which gets its fair share of what time is left.
    fn try_candidate(&mut self, now: Instant) {
        self.attempt_began = now;
        self.share_time(now);
        self.actions.push_back(Action::ResolveAddress(self.attempt));
    }

    fn share_time(&mut self, now: Instant) {
        let left = u32::try_from(self.config.candidates.saturating_sub(self.attempt)).unwrap_or(u32::MAX);
        let share = self.deadline.saturating_duration_since(now).checked_div(left).unwrap_or_default();
        let due =
            if left <= 1 { self.deadline } else { after(now, share.max(LEAST_SHARE)).min(self.deadline) };
        self.timer = Some(due);
    }

    fn accept(&mut self, now: Instant) {
        self.deadline = after(now, self.config.deadline);
        self.timer = Some(self.deadline);
        self.state = State::Accepting;
        self.step(now, Stage::QueuePair, Action::CreateQueuePair);
    }

    fn drain(&mut self, now: Instant) {
        self.state = State::Draining;
        self.timer = Some(after(now, self.config.linger));
        self.actions.push_back(Action::DrainSends);
    }

    fn close(&mut self, now: Instant) {
        let error = reasons::cancelled().at(self.stage());
        let report = match (self.state, self.role) {
            (State::Flushing | State::Closed, _) => return,
            (State::Idle, Role::Passive) | (State::Requested, _) => None,
            (State::Idle | State::Connecting | State::Accepting, _) => Some(Report::ConnectFailed(error)),
            (State::Established | State::Draining | State::Disconnecting, _) => {
                Some(Report::Disconnected(error))
            }
        };
        self.end(now, report, Parting::Tell);
    }

    /// The events of a connect that goes well, each only where it is due.
    fn advance(&mut self, now: Instant, event: &Event) {
        use Stage::{Address, Handshake, QueuePair, Ready, Route};
        match (event, self.state, self.stage()) {
            (Event::AddressResolved, State::Connecting, Address) => {
                self.step(now, Route, Action::ResolveRoute)
            }
            (Event::RouteResolved, State::Connecting, Route) => {
                self.step(now, QueuePair, Action::CreateQueuePair)
            }
            (Event::QueuePairReady, State::Connecting, QueuePair) => {
                self.step(now, Handshake, Action::Connect)
            }
            (Event::QueuePairReady, State::Accepting, QueuePair) => {
                self.accept_sent = true;
                self.step(now, Handshake, Action::SendAccept);
            }
            (Event::Requested, State::Idle, _) if self.role == Role::Passive => {
                self.clock.start(now, Handshake);
                self.timer = None;
                self.state = State::Requested;
            }
            (Event::HandshakeDone, State::Connecting | State::Accepting, Handshake) => {
                self.clock.enter(now, Ready)
            }
            (Event::Established, State::Connecting | State::Accepting, Handshake | Ready) => {
                self.clock.enter(now, Stage::Connected);
                self.timer = None;
                self.state = State::Established;
                self.actions.push_back(Action::Report(Report::Established));
            }
            _ => self.ignored = self.ignored.saturating_add(1),
        }
    }

    fn step(&mut self, now: Instant, stage: Stage, action: Action) {
        self.clock.enter(now, stage);
        self.actions.push_back(action);
    }

    /// `RDMA_CM_EVENT_DISCONNECTED`: the end, a failed connect, or what a graceful disconnect waits for.
    fn peer_left(&mut self, now: Instant) {
        match self.state {
            State::Disconnecting => self.close(now),
            // The peer's disconnect request wants an answer (InfiniBand's DREP).
            State::Established | State::Draining => self.broken(now, reasons::peer_closed(), Parting::Tell),
            _ => self.broken(now, reasons::peer_left(), Parting::Silent),
        }
    }

    fn unreachable(&mut self, now: Instant) {
        match self.state {
            State::Established | State::Draining | State::Disconnecting => {
                self.unreachable = self.unreachable.saturating_add(1);
            }
            _ => self.broken(now, reasons::unreachable(), Parting::Tell),
        }
    }

    /// The peer answered no: no other address of it is asked.
    fn rejected(&mut self, now: Instant, error: Error) {
        if self.state != State::Connecting {
            return self.broken(now, error, Parting::Silent);
        }
        let error = self.record(now, error);
        self.end(now, Some(Report::ConnectFailed(error)), Parting::Silent);
    }

    /// Something failed; what that means depends on how far we are.
    fn broken(&mut self, now: Instant, error: Error, parting: Parting) {
        match self.state {
            State::Idle if self.role == Role::Passive => self.end(now, None, Parting::Silent),
            State::Idle | State::Flushing | State::Closed => self.ignored = self.ignored.saturating_add(1),
            State::Connecting => self.next_candidate(now, error),
            State::Requested => {
                let error = self.located(error);
                self.end(now, Some(Report::ConnectFailed(error)), Parting::Silent);
            }
            State::Accepting => {
                let error = self.located(error);
                self.end(now, Some(Report::ConnectFailed(error)), parting);
            }
            State::Established | State::Draining | State::Disconnecting => {
                let error = self.located(error);
                self.end(now, Some(Report::Disconnected(error)), parting);
            }
        }
    }

    /// This candidate failed: on to the next, or the end with the failure that came furthest.
    fn next_candidate(&mut self, now: Instant, error: Error) {
        let error = self.record(now, error);
        let next = self.attempt.saturating_add(1);
        if next < self.config.candidates && now < self.deadline {
            self.actions.push_back(Action::Abandon);
            self.attempt = next;
            self.clock.restart(now, Stage::Address);
            return self.try_candidate(now);
        }
        // Of equal stages max_by_key keeps the last.
        let told =
            self.failures.iter().max_by_key(|tried| tried.error.stage).map(|tried| tried.error.clone());
        self.end(now, Some(Report::ConnectFailed(told.unwrap_or(error))), Parting::Silent);
    }

    fn record(&mut self, now: Instant, error: Error) -> Error {
        let error = self.located(error);
        let elapsed = now.saturating_duration_since(self.attempt_began);
        self.failures.push(Attempt { candidate: self.attempt, error: error.clone(), elapsed });
        error
    }

    /// The error with a stage: its own, or else the present one.
    fn located(&self, error: Error) -> Error {
        if error.stage == Stage::None { error.at(self.stage()) } else { error }
    }

    fn expire(&mut self, now: Instant) {
        match self.state {
            State::Draining | State::Disconnecting => self.close(now),
            State::Flushing => self.destroy(),
            _ => {
                self.timer = None;
                self.broken(now, reasons::timed_out(self.stage()), Parting::Tell);
            }
        }
    }

    /// The one way out: report, flush, a parting word, and the wait for the flush.
    fn end(&mut self, now: Instant, report: Option<Report>, parting: Parting) {
        self.actions.extend(report.map(Action::Report));
        self.actions.push_back(Action::FlushQueuePair);
        if parting == Parting::Tell {
            self.actions.extend(self.farewell());
        }
        self.clock.stop(now);
        self.timer = Some(after(now, self.config.flush_grace));
        self.state = State::Flushing;
    }

    fn farewell(&self) -> Option<Action> {
        match self.state {
            State::Requested => Some(Action::SendReject),
            State::Accepting if !self.accept_sent => Some(Action::SendReject),
            State::Established | State::Draining => Some(Action::SendDisconnect),
            _ => None,
        }
    }

    fn destroy(&mut self) {
        self.timer = None;
        self.state = State::Closed;
        self.actions.extend([Action::Destroy, Action::Report(Report::Closed)]);
    }

    /// Why `request` cannot be served now.
    fn misplaced(&self, request: Request) -> Error {
        match (request, self.role, self.state) {
            (Request::Start, Role::Passive, _) => Error::invalid("only the side that connects starts"),
            (Request::Start, ..) => Error::state(libc::EISCONN, "already started"),
            (_, Role::Active, _) => Error::invalid("only the side that was asked accepts or rejects"),
            (_, _, State::Idle) => Error::state(libc::ENOTCONN, "no request has come"),
            (_, _, State::Flushing | State::Closed) => Error::state(libc::ENOTCONN, "the request is gone"),
            _ => Error::state(libc::EISCONN, "already answered"),
        }
    }
}

fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait.min(LONGEST)).unwrap_or(now)
}
