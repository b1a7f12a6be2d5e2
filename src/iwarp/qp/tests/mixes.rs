//! Random mixes of all operations in both directions, over a pipe that cuts the stream anywhere.

use proptest::prelude::*;

use super::super::{Capabilities, FirstFrame, Parameters, QueuePair, Stop};
use super::scenario::{Op, Scenario, scenario};
use super::support::{Memory, Random, completions, queue_pair, take_output};
use crate::memory::{Access, KeyTable, Owner};
use crate::work::{Completion, Opcode, Payload, RecvWr, SendWr, by_value, flags};

const CANARY: u8 = 0xa5;
const GAP: usize = 16;

/// The pieces of an operation in `source` or `sink`, and its offset in the peer's window or readable memory.
type Place = (Vec<(usize, usize)>, usize);

/// One side, and what is expected of it.
struct End {
    qp: QueuePair,
    source: Memory,
    /// What the peer writes into, and its key.
    window: Memory,
    /// What the peer reads from.
    readable: Memory,
    /// Where receives and Reads go.
    sink: Memory,
    sink_used: usize,
    ops: Vec<Op>,
    posted: usize,
    /// For each operation.
    places: Vec<Place>,
    /// Keys of this end that the peer's Sends invalidate, one for each.
    victims: Vec<u32>,
    /// Lengths of the receives that the peer's operations need, in order, and where the posted ones are.
    receives: Vec<usize>,
    receive_places: Vec<Vec<(usize, usize)>>,
    sent: Vec<Completion>,
    received: Vec<Completion>,
    lent: Vec<u64>,
    wire: Vec<u8>,
    inbox: Vec<u8>,
    blocked: bool,
}

struct Pair {
    ends: [End; 2],
    random: Random,
    scenario: Scenario,
}

fn place_all(ops: &[Op], random: &mut Random, source: usize) -> (Vec<Place>, usize, usize) {
    let (mut window, mut sink) = (0, 0);
    let places = ops.iter().map(|op| {
        let mut pieces = Vec::new();
        for len in &op.lens {
            if op.opcode == Opcode::Read {
                pieces.push((sink, *len));
                sink += len + GAP;
            } else {
                pieces.push((random.below(source - len), *len));
            }
        }
        let at = if op.opcode == Opcode::Read { random.below(source - op.len()) } else { window };
        if op.writes() {
            window += op.len() + GAP;
        }
        (pieces, at)
    });
    let places = places.collect();
    (places, window, sink)
}

impl End {
    fn new(stream: u64, index: usize, scenario: &Scenario, random: &mut Random) -> Self {
        let keys = KeyTable::new();
        let (mine, theirs) = (scenario.ops[index].clone(), &scenario.ops[1 - index]);
        let source_len = 100 + mine.iter().chain(theirs).map(Op::len).max().unwrap_or(0) * 2;
        let (places, _, reads) = place_all(&mine, random, source_len);
        let receives: Vec<_> = theirs
            .iter()
            .filter(|op| op.consumes_receive())
            .map(|op| if op.writes() { 0 } else { op.len() })
            .collect();
        let window_len: usize = theirs.iter().map(|op| op.len() + GAP).sum();
        let sink_len = reads + receives.iter().map(|len| len + 64 + 9 * GAP).sum::<usize>();
        let longest = receives.iter().copied().max().unwrap_or(0).max(1);
        let managed = scenario.managed[index];
        let caps = Capabilities {
            send_depth: scenario.depth,
            recv_depth: if managed > 0 { managed } else { scenario.depth },
            recv_size: if managed > 0 { longest } else { 0 },
            strict_recv: false,
        };
        let readable = Memory::new(&keys, random.octets(source_len.max(1)), 2);
        let invalidations = theirs.iter().filter(|op| op.opcode == Opcode::SendInvalidate).count();
        let victims = (0..invalidations)
            .map(|_| readable.region.key(Owner::Stream(stream), 0, 1, Access::REMOTE_READ).unwrap())
            .collect();
        Self {
            qp: queue_pair(stream, &keys, caps),
            source: Memory::new(&keys, random.octets(source_len), 1),
            window: Memory::filled(&keys, window_len.max(1), CANARY, 4),
            readable,
            sink: Memory::filled(&keys, sink_len.max(1), CANARY, 1),
            sink_used: reads,
            ops: mine,
            posted: 0,
            places,
            victims,
            receives,
            receive_places: Vec::new(),
            sent: Vec::new(),
            received: Vec::new(),
            lent: Vec::new(),
            wire: Vec::new(),
            inbox: Vec::new(),
            blocked: false,
        }
    }

    fn payload_of(&self, index: usize) -> Vec<u8> {
        self.places[index].0.iter().flat_map(|(at, len)| self.source.get(*at, *len)).collect()
    }

    fn post_receive(&mut self, random: &mut Random) {
        let Some(len) = self.receives.get(self.receive_places.len()).copied() else { return };
        let mut left = len + if random.below(2) == 0 { 0 } else { random.below(64) };
        let count = random.below(4) + 1;
        let used = self.sink_used;
        let mut pieces = Vec::new();
        for piece in 0..count {
            let part = if piece + 1 == count { left } else { random.below(left + 1) };
            pieces.push((self.sink_used, part));
            self.sink_used += part + GAP;
            left -= part;
        }
        let user = self.receive_places.len();
        let sges = self.sink.sges(&pieces).unwrap();
        let mut request = Some(RecvWr { sges, user });
        if self.qp.post_recv(1, &mut by_value(|_| Ok(request.take().unwrap()))).is_ok() {
            self.receive_places.push(pieces);
        } else {
            self.sink_used = used;
        }
    }
}

/// Offers octets for direct placement; returns how many were placed.
fn receive_directly(qp: &mut QueuePair, octets: &[u8]) -> usize {
    let direct = qp.receive_direct(&mut |piece| {
        let count = piece.len().min(octets.len());
        // SAFETY: the queue pair lends the piece for this call.
        unsafe { std::ptr::copy_nonoverlapping(octets.as_ptr(), piece.ptr().cast_mut(), count) };
        Ok(octets.len())
    });
    direct.map_or(0, |direct| direct.unwrap().placed)
}

impl Pair {
    fn new(scenario: Scenario) -> Self {
        let mut random = Random(scenario.seed);
        let mut ends = [0, 1].map(|index| End::new(index as u64 + 7, index, &scenario, &mut random));
        let (ird, ord) = scenario.resources;
        for (index, first_frame) in [(0, scenario.first_frame), (1, FirstFrame::Await)] {
            let (ird, ord) = if index == 0 { (ird, ord) } else { (ord, ird) };
            let max_ulpdu = scenario.max_ulpdu;
            let params = Parameters { crc: scenario.crc, max_ulpdu, own_peer: true, ird, ord, first_frame };
            ends[index].qp.activate(params);
        }
        Self { ends, random, scenario }
    }

    fn request(&self, side: usize, index: usize) -> SendWr {
        let (end, peer) = (&self.ends[side], &self.ends[1 - side]);
        let op = &end.ops[index];
        let (pieces, at) = &end.places[index];
        let payload = match op.opcode {
            Opcode::Read => Payload::Sges(end.sink.sges(pieces).unwrap()),
            _ if op.flags & flags::INLINE != 0 => {
                Payload::Inline(end.payload_of(index).into_iter().collect())
            }
            _ => Payload::Sges(end.source.sges(pieces).unwrap()),
        };
        let window = if op.opcode == Opcode::Read { &peer.readable } else { &peer.window };
        let invalidations = end.ops[..index].iter().filter(|op| op.opcode == Opcode::SendInvalidate).count();
        let remote_key = match op.opcode {
            Opcode::Send | Opcode::SendImm | Opcode::SendInvalidate => 0,
            _ => window.region.key(Owner::Domain, 0, window.region.len(), window.region.access()).unwrap(),
        };
        SendWr {
            opcode: op.opcode,
            flags: op.flags,
            payload,
            remote_addr: window.address(*at),
            remote_key,
            imm: op.imm,
            invalidate_key: if op.opcode == Opcode::SendInvalidate {
                peer.victims[invalidations]
            } else {
                op.imm
            },
            user: index,
        }
    }

    /// Posts some of what is left to post.
    fn post(&mut self, side: usize) {
        let posted = self.ends[side].posted;
        let count = (self.random.below(4) + 1).min(self.ends[side].ops.len() - posted);
        let mut requests: Vec<_> =
            (posted..posted + count).map(|index| Some(self.request(side, index))).collect();
        let end = &mut self.ends[side];
        match end.qp.post_send(count, &mut by_value(|index| Ok(requests[index].take().unwrap()))) {
            Ok(()) => end.posted += count,
            Err(error) if error.errno == libc::EAGAIN || error.errno == libc::EINVAL => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Lets the pipe carry something from `side` to its peer.
    fn carry(&mut self, side: usize) {
        let limit = self.random.below(self.scenario.chunk) + 1;
        let end = &mut self.ends[side];
        end.qp.fill();
        assert!(end.qp.reads.len() <= end.qp.parameters().ord.max(1));
        let octets = take_output(&mut end.qp, limit);
        end.wire.extend(octets);
        let count = (self.random.below(self.scenario.chunk) + 1).min(end.wire.len());
        let octets: Vec<u8> = end.wire.drain(..count).collect();
        let direct = self.random.below(2) == 0;
        let peer = &mut self.ends[1 - side];
        let placed =
            if direct && peer.inbox.is_empty() { receive_directly(&mut peer.qp, &octets) } else { 0 };
        peer.inbox.extend(&octets[placed..]);
        let input = peer.qp.input(&peer.inbox);
        peer.inbox.drain(..input.consumed);
        assert_ne!(input.stop, Stop::Fault, "{:?}", peer.qp.fault());
        peer.blocked = input.stop == Stop::Blocked;
    }

    /// Collects what is finished and checks it at once: what comes before it must have been placed.
    fn collect(&mut self, side: usize) {
        for completion in completions(&mut self.ends[side].qp) {
            assert_eq!(completion.status, 0);
            if completion.opcode != Opcode::Recv {
                self.check_sent(side, &completion);
                self.ends[side].sent.push(completion);
                continue;
            }
            self.check_received(side, &completion);
            let end = &mut self.ends[side];
            end.received.push(completion);
            end.lent.extend((completion.buffer > 0).then_some(completion.buffer));
        }
    }

    fn check_sent(&self, side: usize, completion: &Completion) {
        let end = &self.ends[side];
        let mut signalled = end.ops.iter().enumerate().filter(|(_, op)| op.flags & flags::SIGNALED != 0);
        let (index, op) = signalled.nth(end.sent.len()).unwrap();
        assert_eq!(
            (completion.user, completion.opcode, completion.length),
            (index, op.opcode, op.len() as u64)
        );
        for earlier in 0..=index {
            self.check_read(side, earlier);
        }
    }

    fn check_read(&self, side: usize, index: usize) {
        let (end, peer) = (&self.ends[side], &self.ends[1 - side]);
        if end.ops[index].opcode != Opcode::Read {
            return;
        }
        let (pieces, at) = &end.places[index];
        let have: Vec<u8> = pieces.iter().flat_map(|(at, len)| end.sink.get(*at, *len)).collect();
        assert!(have == peer.readable.get(*at, have.len()), "Read {index}");
    }

    fn check_write(&self, side: usize, index: usize) {
        let (end, peer) = (&self.ends[side], &self.ends[1 - side]);
        let op = &end.ops[index];
        if op.writes() {
            let at = end.places[index].1;
            assert!(peer.window.get(at, op.len()) == end.payload_of(index), "Write {index}");
            assert_eq!(peer.window.get(at + op.len(), GAP), [CANARY; GAP]);
        }
    }

    fn check_received(&self, side: usize, completion: &Completion) {
        let (end, peer) = (&self.ends[side], &self.ends[1 - side]);
        let count = end.received.len();
        let (index, op) =
            peer.ops.iter().enumerate().filter(|(_, op)| op.consumes_receive()).nth(count).unwrap();
        for earlier in 0..=index {
            self.check_write(1 - side, earlier);
            if op.flags & flags::FENCE != 0 {
                self.check_read(1 - side, earlier);
            }
        }
        let with_imm = matches!(op.opcode, Opcode::SendImm | Opcode::WriteImm);
        assert_eq!(completion.imm, with_imm.then_some(op.imm));
        assert_eq!(completion.solicited, op.flags & flags::SOLICITED != 0);
        let victims = peer.ops[..index].iter().filter(|op| op.opcode == Opcode::SendInvalidate).count();
        let invalidated = (op.opcode == Opcode::SendInvalidate).then(|| end.victims[victims]);
        assert_eq!(completion.invalidated, invalidated);
        if let Some(key) = invalidated {
            assert_eq!(end.readable.region.revoke_key(key).unwrap_err().errno, libc::ENOENT);
        }
        let expected = if op.writes() { Vec::new() } else { peer.payload_of(index) };
        assert_eq!(completion.length, expected.len() as u64);
        let have: Vec<u8> = if completion.buffer > 0 {
            // SAFETY: a lent buffer, of at least this length.
            unsafe { std::slice::from_raw_parts(completion.data as *const u8, expected.len()) }.to_vec()
        } else {
            assert_eq!(completion.user, count);
            let pieces = &end.receive_places[count];
            assert_eq!(completion.data as u64, end.sink.address(pieces[0].0));
            pieces.iter().flat_map(|(at, len)| end.sink.get(*at, *len)).take(expected.len()).collect()
        };
        assert!(have == expected, "message {index}");
    }

    fn done(&self) -> bool {
        self.ends.iter().all(|end| {
            let signalled = end.ops.iter().filter(|op| op.flags & flags::SIGNALED != 0).count();
            end.posted == end.ops.len()
                && end.qp.sends_drained()
                && end.wire.is_empty()
                && end.inbox.is_empty()
                && end.qp.reads.is_empty()
                && end.sent.len() == signalled
                && end.received.len() == end.receives.len()
        })
    }

    fn run(mut self) {
        for _turn in 0..2_000_000 {
            if self.done() {
                return self.finish();
            }
            let side = self.random.below(2);
            match self.random.below(8) {
                0 => self.post(side),
                1 if self.random.below(self.scenario.late) == 0 => {
                    let end = &mut self.ends[side];
                    if self.scenario.managed[side] == 0 {
                        end.post_receive(&mut self.random);
                    } else if let Some(buffer) = end.lent.pop() {
                        end.qp.release(buffer).unwrap();
                        assert!(end.qp.release(buffer).is_err());
                    }
                }
                2 => self.collect(side),
                _ => self.carry(side),
            }
        }
        let states = self.ends.each_ref().map(|end| {
            (end.posted, end.ops.len(), end.received.len(), end.receives.len(), end.blocked, end.inbox.len())
        });
        panic!("stuck: {states:?}");
    }

    fn finish(mut self) {
        for side in [0, 1] {
            for index in 0..self.ends[side].ops.len() {
                self.check_write(side, index);
                self.check_read(side, index);
            }
        }
        assert!(self.ends[1].qp.heard());
        for end in &mut self.ends {
            assert!(end.qp.at_boundary() && !end.qp.has_output());
            assert!(!end.qp.fill() && completions(&mut end.qp).is_empty());
            assert!(end.qp.reads.is_empty() && end.qp.tx.responses.is_empty());
            let canaries = end.sink.all();
            assert!(canaries[end.sink_used..].iter().all(|octet| *octet == CANARY));
            end.qp.abort(crate::error::Error::default());
            assert!(completions(&mut end.qp).iter().all(|flushed| flushed.status == -libc::ECANCELED));
        }
        for end in self.ends {
            // With the queue pair still there: completions alone have to let go of the memory.
            end.source.close();
            end.window.close();
            end.readable.close();
            end.sink.close();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn small_frames(scenario in scenario(300, 64..1500usize)) {
        Pair::new(scenario).run();
    }

    #[test]
    fn frames_of_our_own_peers(scenario in scenario(400, Just(65_042))) {
        Pair::new(scenario).run();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn long_messages(scenario in scenario(60_000, prop_oneof![Just(65_042), Just(1442), Just(65_535)])) {
        Pair::new(scenario).run();
    }
}
