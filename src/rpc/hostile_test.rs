//! A peer that says anything that looks like RPC-over-RDMA: a session answers, or is silent, or ends the connection. What it
//! has promised to its application it keeps, and no octet is touched that was not offered.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::session_test::{
    Pair, REPLY, RESULT, SMALL, SOURCE, Side, both, call_head, message, octets, piece, reply_head, words,
};
use super::{Call, Config, Payload, Reply, kind};
use crate::engine::{Event, Random, key, kind as base, sweep};
use crate::memory::Access;
use crate::work::{Opcode, Payload as Octets, SendWr, SgeList, by_value};

const SEEDS: u64 = 200;
const PATIENCE: Duration = Duration::from_secs(5);
const ROOM: usize = 600;

/// Something close to what it was.
fn mutated(random: &mut Random, mut message: Vec<u32>) -> Vec<u8> {
    const VALUES: [u32; 10] = [0, 1, 2, 3, 4, 5, 0x100, 0x7fff_ffff, 0x8000_0000, u32::MAX];
    for _ in 0..random.below(4) {
        let at = random.below(message.len());
        match random.below(4) {
            0 => message.truncate(at.max(1)),
            1 => message.insert(at, VALUES[random.below(VALUES.len())]),
            2 if message.len() > 1 => drop(message.remove(at)),
            _ => message[at] = VALUES[random.below(VALUES.len())],
        }
    }
    let mut octets = words(&message);
    if random.chance(10) {
        octets.truncate(random.below(octets.len()));
    }
    octets
}

/// One of a few messages.
fn say(side: &Side, number: u32, octets: &[u8]) {
    let at = SOURCE + 4096 * number as usize;
    side.put(at, octets);
    // A connection that has ended takes nothing.
    let _ = side.conn().post(
        1,
        &mut by_value(|_| {
            let sges = SgeList::from_iter([side.sge(at, octets.len())]);
            Ok(SendWr::new(Opcode::Send, Octets::Sges(sges)))
        }),
    );
}

/// What has been promised, by cookie, and how often it came.
#[derive(Default)]
struct Promises {
    told: BTreeMap<usize, usize>,
    closed: usize,
}

impl Promises {
    fn keep(&mut self, event: &Event) {
        *self.told.get_mut(&event.user).expect("a cookie of ours") += 1;
    }

    /// Both connections end, and so does all that was promised.
    fn end(mut self, pair: Pair, of: u32) {
        for side in [&pair.client, &pair.server] {
            side.conn().close().unwrap();
        }
        let began = Instant::now();
        while self.closed < 2 {
            assert!(began.elapsed() < PATIENCE, "no end");
            if let Some(event) = pair.poll() {
                self.closed += usize::from(event.kind == base::CLOSED);
                if event.kind == of {
                    self.keep(&event);
                }
            }
        }
        assert!(self.told.values().all(|times| *times == 1), "{:?}", self.told);
        pair.assert_clean();
    }
}

/// Calls of all kinds, whose keys are good for the peer's memory.
fn any_call(random: &mut Random, xid: u32, key: u32, at: u64) -> Vec<u32> {
    let (high, low) = ((at >> 32) as u32, at as u32);
    let segment = |length| [key, length, high, low];
    let rpc = [xid, 0, 2, 100_003, 4, 1, 0, 0, 0, 0];
    let (proc, lists): (u32, Vec<u32>) = match random.below(6) {
        0 => (0, vec![0, 0, 0]),
        1 => (0, [&[1, 40][..], &segment(100), &[1, 40], &segment(33), &[0, 0, 0]].concat()),
        2 => (0, [&[0, 1, 2][..], &segment(100), &segment(50), &[0, 0]].concat()),
        3 => (0, [&[0, 0, 1, 1][..], &segment(500)].concat()),
        4 => (1, [&[1, 0][..], &segment(40), &[0, 0, 0]].concat()),
        _ => return vec![xid, 1, 4, 2 + random.below(4) as u32, 2, 1, 1, 0],
    };
    let head = [xid, 1, random.below(9) as u32, proc];
    [&head[..], &lists, if proc == 0 { &rpc } else { &[] }].concat()
}

#[test]
fn a_caller_says_anything() {
    let done = AtomicUsize::new(0);
    let seeds: Vec<u64> = (1..=SEEDS).collect();
    let play = |seed: &u64, verbs| {
        let mut random = Random::new(*seed);
        let pair = Pair::with(verbs, None, Some(SMALL));
        let client = &pair.client;
        let region = &client.region;
        let rights = Access::from_bits(7).unwrap();
        let key = key(region, Some(client.conn()), RESULT, 4096, rights).unwrap();
        // What a long call would be.
        client.put(RESULT, &call_head(1, 40));
        let at = region.base().wrapping_add(RESULT) as u64;
        let mut promises = Promises::default();
        for xid in 1..=6 {
            let call = any_call(&mut random, xid, key, at);
            say(client, xid, &mutated(&mut random, call));
            for _ in 0..6 {
                let Some(event) = pair.poll() else { continue };
                match event.kind {
                    kind::CALL => answer(&mut random, &pair, &event, &mut promises),
                    kind::ANSWERED => promises.keep(&event),
                    base::CLOSED => promises.closed += 1,
                    _ => {}
                }
            }
        }
        done.fetch_add(promises.told.len(), Ordering::Relaxed);
        promises.end(pair, kind::ANSWERED);
    };
    both(|verbs| sweep(&seeds, |seed| play(seed, verbs)));
    assert!(done.into_inner() > seeds.len(), "not all of it makes no sense");
}

fn answer(random: &mut Random, pair: &Pair, event: &Event, promises: &mut Promises) {
    let (server, asked) = (&pair.server, message(event));
    let (call, xid) = (asked.call(), asked.view().xid);
    (0..asked.pieces().len()).for_each(|index| drop(piece(asked, index)));
    assert_eq!(octets(event).len(), event.length);
    let head = reply_head(xid, 24 + 4 * random.below(300));
    let payloads = asked.rooms().iter().map(|room| {
        let length = (*room).min(ROOM as u64) as usize;
        Payload { sges: server.sges(SOURCE, length, 4096), at: head.len() }
    });
    let user = 1 + promises.told.len();
    let reply = Reply { payloads: payloads.collect(), head, user };
    match random.below(4) {
        0 => drop(server.session().refuse(server.conn(), call)),
        1 => {}
        _ if server.session().reply(server.conn(), call, reply).is_ok() => {
            promises.told.insert(user, 0);
        }
        _ => {}
    }
}

/// A reply to a call that has two results, of three segments and of one, and a reply chunk of one.
fn any_reply(random: &mut Random, call: &[u32]) -> Vec<u32> {
    let xid = call[0];
    let (writes, reply) = call.get(5..26).zip(call.get(26..32)).unwrap_or_default();
    let rpc = [xid, 1, 0, 0, 0, 0];
    let head = |proc| [xid, 1, 1 + proc, proc, 0];
    match random.below(6) {
        0 => [&head(0)[..], &[0, 0], &rpc].concat(),
        1 => vec![xid, 1, 4, 4, 2],
        2 => [&head(1)[..], writes, reply].concat(),
        _ => [&head(0)[..], writes, &[0], &rpc].concat(),
    }
}

#[test]
fn a_responder_says_anything() {
    let done = AtomicUsize::new(0);
    let seeds: Vec<u64> = (1..=SEEDS).collect();
    let play = |seed: &u64, verbs| {
        let mut random = Random::new(*seed);
        let mut pair = Pair::with(verbs, Some(SMALL), None);
        pair.client.memory[RESULT..].fill(0xee);
        let (client, server) = (&pair.client, &pair.server);
        let (mut promises, mut good) = (Promises::default(), 0);
        for xid in 1..=6 {
            let results = vec![client.sges(RESULT, ROOM, 200), client.sges(RESULT + 4096, ROOM, ROOM)];
            let reply = client.sges(REPLY, 3000, 3000);
            let (head, user) = (call_head(xid, 40), xid as usize);
            let call = Call { head, payload: None, results, reply_max: 2000, reply, user };
            if client.session().call(client.conn(), call).is_ok() {
                promises.told.insert(user, 0);
            }
            for _ in 0..6 {
                let Some(event) = pair.poll() else { continue };
                match event.kind {
                    base::RECV if event.status == 0 => {
                        let call: Vec<u32> = octets(&event)
                            .chunks_exact(4)
                            .map(|word| u32::from_be_bytes(word.try_into().unwrap()))
                            .collect();
                        server.conn().release(event.buffer).unwrap();
                        let reply = any_reply(&mut random, &call);
                        say(server, xid, &mutated(&mut random, reply));
                    }
                    kind::REPLY => {
                        let pieces = Some(&event)
                            .filter(|event| event.status == 0)
                            .map(|event| message(event).pieces());
                        good += pieces.iter().len();
                        assert!(pieces.into_iter().flatten().all(|piece| piece.length <= ROOM));
                        promises.keep(&event);
                    }
                    base::CLOSED => promises.closed += 1,
                    _ => {}
                }
            }
        }
        assert!(
            pair.client.memory[RESULT..].iter().all(|octet| *octet == 0xee),
            "the peer has written nothing"
        );
        promises.end(pair, kind::REPLY);
        done.fetch_add(good, Ordering::Relaxed);
    };
    both(|verbs| sweep(&seeds, |seed| play(seed, verbs)));
    assert!(done.into_inner() > seeds.len(), "not all of it makes no sense");
}

/// What it is answered must not become ever more of the server's memory.
#[test]
fn a_peer_that_reads_nothing_is_left() {
    let pair = Pair::with(false, None, Some(SMALL));
    let (client, server) = (&pair.client, &pair.server);
    let (mut replies, mut answered, mut closed) = (0, 0, false);
    let began = Instant::now();
    for first in (1..).step_by(SMALL.credits as usize) {
        assert!(began.elapsed() < 4 * PATIENCE, "{replies} replies");
        for xid in first..first + SMALL.credits {
            let call = [xid, 1, 1, 0, 0, 0, 0, xid, 0, 2, 100_003, 4, 1, 0, 0, 0, 0];
            say(client, xid % 64, &words(&call));
        }
        while let Some(event) = server.poll() {
            match event.kind {
                kind::CALL => {
                    let asked = message(&event);
                    let head = reply_head(asked.view().xid, 900);
                    let reply = Reply { payloads: Vec::new(), head, user: 1 };
                    replies +=
                        usize::from(server.session().reply(server.conn(), asked.call(), reply).is_ok());
                }
                kind::ANSWERED => answered += 1,
                base::CLOSED => closed = true,
                _ => {}
            }
        }
        if closed {
            break;
        }
    }
    assert!(replies > 0 && replies == answered, "{replies} replies, told of {answered}");
    client.conn().close().unwrap();
    while pair.poll().is_none_or(|event| event.kind != base::CLOSED) {}
    pair.assert_clean();
}

/// A message of a hundred octets can ask for megabytes of the server's memory; not all of them at once.
#[test]
fn chunks_wait_for_others() {
    const SEGMENT: u32 = 1 << 19;
    let config = Config { max_payload: 8 << 20, ..SMALL };
    let pair = Pair::with(false, None, Some(config));
    let (client, server) = (&pair.client, &pair.server);
    let rights = Access::from_bits(7).unwrap();
    let key = key(&client.region, Some(client.conn()), 0, SEGMENT as usize, rights).unwrap();
    let at = client.region.base() as u64;
    let segment = [1, 40, key, SEGMENT, (at >> 32) as u32, at as u32];
    for xid in 1..=SMALL.credits {
        let rpc = [xid, 0, 2, 100_003, 4, 1, 0, 0, 0, 0, 0];
        let call = [&[xid, 1, 1, 0][..], &segment.repeat(16), &[0, 0, 0], &rpc].concat();
        say(client, 2 + xid, &words(&call));
    }
    // Two of 8 MiB each are allowed.
    let mut calls = Vec::new();
    let turns = |until: usize, calls: &mut Vec<Event>| {
        let began = Instant::now();
        let mut idle = 0;
        while calls.len() < until || idle < 20 {
            assert!(began.elapsed() < 4 * PATIENCE, "{} calls of {until}", calls.len());
            let event = pair.poll();
            idle = if event.is_some() { 0 } else { idle + 1 };
            calls.extend(event.filter(|event| event.kind == kind::CALL));
        }
        assert_eq!(calls.len(), until);
    };
    turns(2, &mut calls);
    for done in 0..SMALL.credits as usize {
        let asked = message(&calls[done]);
        let reply = Reply { payloads: Vec::new(), head: reply_head(asked.view().xid, 24), user: 1 };
        server.session().reply(server.conn(), asked.call(), reply).unwrap();
        turns((3 + done).min(SMALL.credits as usize), &mut calls);
    }
    drop(calls);
    Promises::default().end(pair, u32::MAX);
}
