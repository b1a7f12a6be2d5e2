//! What must hold for any input: watches one life from outside and panics at the first broken promise.

use std::time::Instant;

use super::super::{Action, Config, Event, Life, Report, Request, Role, State};
use crate::error::Stage;

/// The promises of the module's documentation as seen from the actions alone.
#[derive(Clone)]
pub(super) struct Checker {
    role: Role,
    config: Config,
    /// When the connect's deadline began to count.
    deadline_from: Option<Instant>,
    /// A timeout was served late on purpose: bounds in time are not checked.
    pub(super) late: bool,
    flush_at: Option<Instant>,
    candidate: Option<usize>,
    abandoned: bool,
    seen: Seen,
}

/// The part without times, of which there are only finitely many values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    /// Steps of the present attempt: address, route, queue pair, connect.
    step: u8,
    requested: bool,
    accepted: bool,
    refused: bool,
    pub(super) established: bool,
    pub(super) failed: bool,
    pub(super) disconnected: bool,
    accept_sent: bool,
    reject_sent: bool,
    disconnect_sent: bool,
    flushing: bool,
    flushed: bool,
    destroyed: bool,
    pub(super) closed: bool,
}

impl Checker {
    pub(super) fn new(role: Role, config: Config, now: Instant) -> Self {
        Self {
            role,
            config,
            deadline_from: (role == Role::Passive).then_some(now),
            late: false,
            flush_at: None,
            candidate: None,
            abandoned: false,
            seen: Seen::default(),
        }
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen
    }

    /// Before a request is handed in.
    pub(super) fn requesting(&mut self, life: &Life, request: Request) {
        match (life.state(), request) {
            (State::Requested, Request::Accept) => self.seen.accepted = true,
            (State::Requested, Request::Reject | Request::Close | Request::Disconnect) => {
                self.seen.refused = true
            }
            _ => {}
        }
    }

    /// Before an event is handed in.
    pub(super) fn hearing(&mut self, life: &Life, attempt: usize, event: &Event) {
        let current = attempt == life.attempt();
        match event {
            Event::Flushed if current && life.state() == State::Flushing => self.seen.flushed = true,
            Event::Requested if current && self.role == Role::Passive && life.state() == State::Idle => {
                self.seen.requested = true;
            }
            _ => {}
        }
    }

    /// An action was polled.
    pub(super) fn performing(&mut self, action: &Action, now: Instant) {
        assert!(!self.seen.closed, "{action:?} after Closed");
        if self.seen.destroyed {
            assert_eq!(*action, Action::Report(Report::Closed), "only Closed follows Destroy");
        }
        if self.abandoned {
            assert!(matches!(action, Action::ResolveAddress(_)), "{action:?} between two attempts");
        }
        match action {
            Action::ResolveAddress(_)
            | Action::ResolveRoute
            | Action::CreateQueuePair
            | Action::Connect
            | Action::Abandon => {
                self.attempt_step(action);
            }
            Action::SendAccept => self.accept_sent(),
            Action::SendReject => self.reject_sent(),
            Action::DrainSends => assert!(self.running(), "drains only what is established"),
            Action::SendDisconnect => {
                assert!(
                    self.seen.established && !self.seen.disconnect_sent,
                    "one disconnect, only when established"
                );
                self.seen.disconnect_sent = true;
            }
            Action::FlushQueuePair => self.flush(now),
            Action::Destroy => {
                self.late_enough(now);
                self.seen.destroyed = true;
            }
            Action::Report(report) => self.reported(report, now),
        }
    }

    fn running(&self) -> bool {
        self.seen.established && !self.seen.disconnected
    }

    fn attempt_step(&mut self, action: &Action) {
        assert!(!self.seen.flushing && !self.seen.established, "{action:?} after the attempts");
        let due = match action {
            Action::ResolveAddress(candidate) => {
                let expected = self.candidate.map_or(0, |last| last + 1);
                assert_eq!(*candidate, expected, "candidates in order");
                assert_eq!(self.abandoned, expected > 0, "the attempt before is abandoned first");
                assert!(expected < self.config.candidates.max(1), "no such candidate");
                self.candidate = Some(expected);
                self.abandoned = false;
                self.seen.step = 0;
                0
            }
            Action::Abandon => {
                self.abandoned = true;
                self.seen.step
            }
            Action::ResolveRoute => 1,
            Action::CreateQueuePair if self.role == Role::Passive => self.seen.step,
            Action::CreateQueuePair => 2,
            _ => 3,
        };
        assert_eq!(self.seen.step, due, "{action:?} out of order");
        self.seen.step += 1;
        if self.role == Role::Passive {
            assert!(
                self.seen.accepted && *action == Action::CreateQueuePair,
                "{action:?} on the passive side"
            );
        }
    }

    fn accept_sent(&mut self) {
        assert!(self.seen.accepted && !self.seen.accept_sent && !self.seen.reject_sent, "one accept");
        assert!(!self.seen.flushing);
        self.seen.accept_sent = true;
    }

    fn reject_sent(&mut self) {
        assert!(self.seen.requested && !self.seen.accept_sent && !self.seen.reject_sent, "one answer");
        self.seen.reject_sent = true;
    }

    fn flush(&mut self, now: Instant) {
        assert!(!self.seen.flushing, "flushed twice");
        assert_eq!(self.seen.established, self.seen.disconnected, "Disconnected is told before the flush");
        self.seen.flushing = true;
        self.flush_at = Some(now);
    }

    fn late_enough(&self, now: Instant) {
        let flush_at = self.flush_at.expect("flush before destroy");
        assert!(!self.seen.destroyed, "destroyed twice");
        assert!(
            self.seen.flushed || now >= flush_at + self.config.flush_grace,
            "destroyed before the flush is over"
        );
    }

    fn reported(&mut self, report: &Report, now: Instant) {
        match report {
            Report::Established => {
                assert!(!self.seen.established && !self.seen.failed && !self.seen.flushing, "one outcome");
                assert!(self.role == Role::Active || self.seen.accept_sent, "established unanswered");
                self.seen.established = true;
                self.outcome_in_time(now);
            }
            Report::ConnectFailed(error) => {
                assert!(!self.seen.established && !self.seen.failed && !self.seen.flushing, "one outcome");
                assert!(!self.seen.refused, "the caller refused and is owed no outcome");
                assert!(error.errno > 0 && !error.text.is_empty());
                assert!(error.stage != Stage::None || self.candidate.is_none(), "a failure names its stage");
                self.seen.failed = true;
                self.outcome_in_time(now);
            }
            Report::Disconnected(error) => {
                assert!(self.running(), "one Disconnected, after Established");
                assert_eq!(error.stage, Stage::Connected);
                self.seen.disconnected = true;
            }
            Report::Closed => self.closed(),
        }
    }

    fn outcome_in_time(&self, now: Instant) {
        if let Some(from) = self.deadline_from.filter(|_| !self.late) {
            assert!(now <= from + self.config.deadline, "the connect outlived its deadline");
        }
    }

    fn closed(&mut self) {
        assert!(self.seen.destroyed, "Closed before Destroy");
        assert_eq!(self.seen.established, self.seen.disconnected);
        let outcomes = usize::from(self.seen.established) + usize::from(self.seen.failed);
        let owed = match self.role {
            Role::Active => 1,
            Role::Passive => usize::from(self.seen.requested && !self.seen.refused),
        };
        assert_eq!(outcomes, owed, "exactly the outcomes owed: {:?}", self.seen);
        self.seen.closed = true;
    }

    /// What holds between two inputs, with all actions polled.
    pub(super) fn holds(&mut self, life: &Life, now: Instant) {
        let state = life.state();
        let waits = match state {
            State::Idle => self.role == Role::Passive,
            State::Requested | State::Established | State::Closed => false,
            _ => true,
        };
        assert_eq!(life.poll_timeout().is_some(), waits, "timeout in {state:?}");
        assert_eq!(life.may_post_send(), state == State::Established);
        assert!(!life.may_post_send() || self.running());
        assert!(!life.may_post_recv() || !self.seen.flushing);
        assert_eq!(state == State::Closed, self.seen.closed);
        assert_eq!(life.stage_times(now).iter().sum::<std::time::Duration>(), life.elapsed(now));
        assert!(life.attempts().len() <= self.config.candidates.max(1));
        if let (Some(at), State::Flushing) = (self.flush_at, state) {
            assert!(life.poll_timeout() <= Some(at + self.config.flush_grace));
        }
        match state {
            State::Connecting | State::Accepting if self.deadline_from.is_none() => {
                self.deadline_from = Some(now)
            }
            State::Requested => self.deadline_from = None,
            _ => {}
        }
        let bound = self.deadline_from.map(|from| from + self.config.deadline);
        if let (Some(bound), State::Connecting | State::Accepting) = (bound, state) {
            assert!(life.poll_timeout() <= Some(bound), "one deadline for the whole connect");
        }
    }
}
