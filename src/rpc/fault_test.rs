//! Two sessions on the model of devices, of whose calls each fails in turn, or whose devices go: every call ends once, every
//! reply's memory comes back once, and nothing is left.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::session_test::{
    Pair, REPLY, RESULT, Removal, SMALL, SOURCE, call_head, message, octets, pattern, reply_head,
};
use super::{Call, Config, Payload, Reply, kind};
use crate::engine::{Event, kind as base, sweep};

/// Lengths of a call's head, payload, result, and of its reply's head; 0 = it is refused.
const SHAPES: [(usize, usize, usize, usize); 7] = [
    (44, 0, 0, 24),
    (44, 5000, 0, 24),
    (44, 0, 5001, 28),
    (2000, 0, 0, 24),
    (44, 0, 0, 3000),
    (44, 3000, 3000, 28),
    (44, 100, 100, 0),
];
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    /// The call at this position after the connection has come about.
    Call(usize, i32),
    /// A device, when so many events have come.
    Device(usize, usize, Removal),
}

/// What each cookie has been told.
#[derive(Default)]
struct Told {
    events: BTreeMap<usize, Vec<i32>>,
    closed: usize,
}

struct Play {
    pair: Pair,
    replies: Told,
    answered: Told,
    events: usize,
}

impl Play {
    /// Makes all calls, answers them, and ends. Returns how many calls of the model it took, and how many events and good
    /// replies came.
    fn run(fault: Fault) -> (usize, usize, usize) {
        let config = Config { credits: SHAPES.len() as u32, ..SMALL };
        let mut pair = Pair::new(true, config, config);
        let answer = pattern(5001, 9);
        pair.server.memory[SOURCE..SOURCE + answer.len()].copy_from_slice(&answer);
        let fabric = pair.fabric.as_ref().unwrap();
        let before = fabric.calls().len();
        if let Fault::Call(position, errno) = fault {
            fabric.fail_at(before + position, errno);
        }
        let mut play = Self { pair, replies: Told::default(), answered: Told::default(), events: 0 };
        play.call_all();
        let good = play.until_over(fault);
        let (calls, events) = (play.pair.fabric.as_ref().unwrap().calls().len() - before, play.events);
        play.end();
        (calls, events, good)
    }

    fn call_all(&mut self) {
        let client = &self.pair.client;
        for (index, (head, payload, result, reply)) in SHAPES.into_iter().enumerate() {
            let call = Call {
                head: call_head(index as u32 + 1, head),
                payload: (payload > 0)
                    .then(|| Payload { sges: client.sges(SOURCE, payload, 3000), at: head - 4 }),
                results: if result > 0 {
                    vec![client.sges(RESULT + (index << 13), result, 3000)]
                } else {
                    vec![]
                },
                reply_max: reply,
                reply: client.sges(REPLY + (index << 13), reply + 4, reply + 4),
                user: index + 1,
            };
            if client.session().call(client.conn(), call).is_ok() {
                self.replies.events.insert(index + 1, Vec::new());
            }
        }
    }

    fn until_over(&mut self, fault: Fault) -> usize {
        let (mut good, mut over) = (0, false);
        let mut last = Instant::now();
        while !over && self.replies.events.values().any(Vec::is_empty) {
            if let Fault::Device(device, at, removal) = fault
                && at == self.events
            {
                self.pair.fabric.as_ref().unwrap().remove_device(self.pair.devices[device], removal);
            }
            let Some(event) = self.pair.poll() else {
                assert!(last.elapsed() < PATIENCE, "calls without an end: {:?}", self.replies.events);
                continue;
            };
            last = Instant::now();
            self.events += 1;
            over |= [base::DISCONNECTED, base::CLOSED].contains(&event.kind);
            good += usize::from(self.note(&event));
        }
        good
    }

    /// Whether it was a good reply.
    fn note(&mut self, event: &Event) -> bool {
        match event.kind {
            kind::CALL => self.answer(event),
            kind::REPLY => {
                self.replies.events.get_mut(&event.user).expect("a call that was made").push(event.status);
                if event.status == 0 {
                    let reply = SHAPES[event.user - 1].3;
                    assert!(octets(event) == reply_head(event.user as u32, reply), "reply {}", event.user);
                    return true;
                }
            }
            kind::ANSWERED => {
                self.answered.events.get_mut(&event.user).expect("a reply that was given").push(event.status);
            }
            base::CLOSED => self.replies.closed += 1,
            _ => {}
        }
        false
    }

    fn answer(&mut self, event: &Event) {
        let server = &self.pair.server;
        let asked = message(event);
        let xid = asked.view().xid;
        let (_, _, result, reply) = SHAPES[xid as usize - 1];
        let payloads = if result > 0 {
            vec![Payload { sges: server.sges(SOURCE, result, 2000), at: reply.saturating_sub(4) }]
        } else {
            Vec::new()
        };
        let (session, call, user) = (server.session(), asked.call(), 100 + xid as usize);
        let answer = Reply { head: reply_head(xid, reply), payloads, user };
        let refused = reply == 0;
        if !refused && session.reply(server.conn(), call, answer).is_ok() {
            self.answered.events.insert(user, Vec::new());
        } else if session.refuse(server.conn(), call).is_err() {
            // What an application does that can't answer at all.
            server.conn().disconnect().unwrap();
        }
    }

    fn end(mut self) {
        for side in [&self.pair.client, &self.pair.server] {
            side.conn().close().unwrap();
        }
        let last = Instant::now();
        while self.replies.closed < 2 {
            assert!(last.elapsed() < PATIENCE, "connections without an end");
            if let Some(event) = self.pair.poll() {
                self.note(&event);
            }
        }
        for (user, told) in self.replies.events.iter().chain(&self.answered.events) {
            assert_eq!(told.len(), 1, "{user}: {told:?}");
        }
        self.pair.assert_clean();
    }
}

#[test]
fn every_call_fails_in_turn() {
    let (calls, _, good) = Play::run(Fault::None);
    assert_eq!(good, SHAPES.len() - 1);
    let errnos = [libc::ENOMEM, libc::EINVAL, libc::EIO];
    let cases: Vec<_> =
        (1..=calls).flat_map(|position| errnos.map(|errno| Fault::Call(position, errno))).collect();
    sweep(&cases, |fault| {
        Play::run(*fault);
    });
}

#[test]
fn a_device_goes_at_any_moment() {
    let (_, events, _) = Play::run(Fault::None);
    let removals = [Removal::Orderly, Removal::Surprise];
    let each = |at| [0, 1].map(|device| removals.map(|removal| Fault::Device(device, at, removal)));
    let cases: Vec<_> = (0..events).flat_map(each).flatten().collect();
    sweep(&cases, |fault| {
        Play::run(*fault);
    });
}
