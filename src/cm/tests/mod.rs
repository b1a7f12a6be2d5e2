//! Tests of the life cycle on a virtual clock: named orders, random and exhaustive inputs, and two ends joined.

mod checker;
mod named;
mod pair;
mod random;
mod stages;

use std::time::{Duration, Instant};

use super::{Action, Config, Event, Life, Report, Request, Role, State};
use crate::error::{Error, Reason, Stage};
use checker::Checker;

const fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

fn config(candidates: usize) -> Config {
    Config { candidates, deadline: ms(5000), linger: ms(2000), flush_grace: ms(500) }
}

fn refused() -> Error {
    Error::new(libc::ECONNREFUSED, Reason::Refused, "connection refused")
}

fn reset() -> Error {
    Error::new(libc::ECONNRESET, Reason::PeerReset, "connection reset")
}

fn said_no() -> Error {
    Error::new(libc::ECONNREFUSED, Reason::Rejected, "the peer said no").with_code(3)
}

/// Every event there is.
fn all_events() -> Vec<Event> {
    vec![
        Event::AddressResolved,
        Event::RouteResolved,
        Event::QueuePairReady,
        Event::Requested,
        Event::HandshakeDone,
        Event::Established,
        Event::Failed(refused()),
        Event::Rejected(said_no()),
        Event::Disconnected,
        Event::Unreachable,
        Event::AddressChanged,
        Event::DeviceRemoved,
        Event::TimewaitExit,
        Event::StreamError(reset()),
        Event::SendsDrained,
        Event::Flushed,
    ]
}

const REQUESTS: [Request; 5] =
    [Request::Start, Request::Accept, Request::Reject, Request::Disconnect, Request::Close];

/// What a provider without faults answers.
fn answers(role: Role, action: &Action) -> Vec<Event> {
    match action {
        Action::ResolveAddress(_) => vec![Event::AddressResolved],
        Action::ResolveRoute => vec![Event::RouteResolved],
        Action::CreateQueuePair => vec![Event::QueuePairReady],
        Action::Connect if role == Role::Active => vec![Event::HandshakeDone, Event::Established],
        Action::SendAccept => vec![Event::HandshakeDone, Event::Established],
        Action::DrainSends => vec![Event::SendsDrained],
        Action::SendDisconnect => vec![Event::Disconnected],
        Action::FlushQueuePair => vec![Event::Flushed],
        _ => Vec::new(),
    }
}

/// One life, its clock and the checker that watches every step.
#[derive(Clone)]
struct Rig {
    life: Life,
    now: Instant,
    check: Checker,
    /// All actions so far.
    done: Vec<Action>,
}

impl Rig {
    fn new(role: Role, config: Config) -> Self {
        let now = Instant::now();
        let life = match role {
            Role::Active => Life::active(config, now),
            Role::Passive => Life::passive(config, now),
        };
        let check = Checker::new(role, config, now);
        let mut rig = Self { life, now, check, done: Vec::new() };
        rig.settle();
        rig
    }

    fn active(candidates: usize) -> Self {
        Self::new(Role::Active, config(candidates))
    }

    fn passive() -> Self {
        Self::new(Role::Passive, config(1))
    }

    /// An active one brought to `stage`; `Connected` is established.
    fn active_at(candidates: usize, stage: Stage) -> Self {
        let mut rig = Self::active(candidates);
        rig.request(Request::Start);
        let steps =
            [Event::AddressResolved, Event::RouteResolved, Event::QueuePairReady, Event::HandshakeDone];
        for step in steps.into_iter().chain([Event::Established]) {
            if rig.life.stage() < stage {
                rig.advance(ms(1));
                rig.event(step);
            }
        }
        assert_eq!(rig.life.stage(), stage);
        rig
    }

    /// A passive one brought to `state`.
    fn passive_at(state: State) -> Self {
        let mut rig = Self::passive();
        for step in 0..5 {
            if rig.life.state() == state {
                return rig;
            }
            match step {
                0 => rig.event(Event::Requested),
                1 => rig.request(Request::Accept),
                2 => rig.event(Event::QueuePairReady),
                _ => rig.event(Event::Established),
            }
        }
        assert_eq!(rig.life.state(), state);
        rig
    }

    /// One rig in every state and stage that can be told apart, with its name.
    fn everywhere() -> Vec<(String, Self)> {
        let mut all = vec![("active idle".into(), Self::active(2)), ("passive idle".into(), Self::passive())];
        let stages = [
            Stage::Address,
            Stage::Route,
            Stage::QueuePair,
            Stage::Handshake,
            Stage::Ready,
            Stage::Connected,
        ];
        for stage in stages {
            all.push((format!("active {stage:?}"), Self::active_at(1, stage)));
            all.push((format!("active of two {stage:?}"), Self::active_at(2, stage)));
        }
        for state in [State::Requested, State::Accepting, State::Established] {
            all.push((format!("passive {state:?}"), Self::passive_at(state)));
        }
        let mut replied = Self::passive_at(State::Accepting);
        replied.event(Event::QueuePairReady);
        all.push(("passive handshake".into(), replied.clone()));
        replied.event(Event::HandshakeDone);
        all.push(("passive ready".into(), replied));
        for mut rig in [Self::active_at(1, Stage::Connected), Self::passive_at(State::Established)] {
            rig.request(Request::Disconnect);
            all.push((format!("{:?} draining", rig.life.role()), rig.clone()));
            rig.event(Event::SendsDrained);
            all.push((format!("{:?} disconnecting", rig.life.role()), rig.clone()));
            rig.request(Request::Close);
            all.push((format!("{:?} flushing", rig.life.role()), rig.clone()));
            rig.event(Event::Flushed);
            all.push((format!("{:?} closed", rig.life.role()), rig));
        }
        all
    }

    fn request(&mut self, request: Request) {
        let _ = self.try_request(request);
    }

    /// The errno of a request that cannot be served; it must change nothing.
    fn try_request(&mut self, request: Request) -> Result<(), i32> {
        let (before, done) = (self.life.state(), self.done.len());
        self.check.requesting(&self.life, request);
        let result = self.life.handle_request(self.now, request);
        self.settle();
        result.map_err(|error| {
            assert_eq!(
                (self.life.state(), self.done.len()),
                (before, done),
                "{request:?} failed and did something"
            );
            assert!(!matches!(request, Request::Close | Request::Disconnect), "leaving never fails");
            error.errno
        })
    }

    fn event(&mut self, event: Event) {
        self.event_for(self.life.attempt(), event);
    }

    fn event_for(&mut self, attempt: usize, event: Event) {
        self.check.hearing(&self.life, attempt, &event);
        self.life.handle_event(self.now, attempt, event);
        self.settle();
    }

    /// Lets time pass, with every timeout on the dot.
    fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(due) = self.life.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.timeout();
        }
        self.now = end;
        self.check.holds(&self.life, self.now);
    }

    /// Jumps to the next timeout.
    fn fire(&mut self) {
        if let Some(due) = self.life.poll_timeout() {
            self.now = self.now.max(due);
            self.timeout();
        }
    }

    fn timeout(&mut self) {
        self.life.handle_timeout(self.now);
        assert!(
            self.life.poll_timeout().is_none_or(|due| due > self.now),
            "a timeout left behind spins the loop"
        );
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(action) = self.life.poll_action() {
            self.check.performing(&action, self.now);
            self.done.push(action);
        }
        self.check.holds(&self.life, self.now);
    }

    fn reports(&self) -> Vec<Report> {
        self.done
            .iter()
            .filter_map(|action| match action {
                Action::Report(report) => Some(report.clone()),
                _ => None,
            })
            .collect()
    }

    /// The error of the connect's failure or of the disconnect.
    fn error(&self) -> Error {
        self.reports()
            .into_iter()
            .find_map(|report| match report {
                Report::ConnectFailed(error) | Report::Disconnected(error) => Some(error),
                _ => None,
            })
            .expect("an error was reported")
    }

    fn did(&self, action: &Action) -> bool {
        self.done.contains(action)
    }
}
