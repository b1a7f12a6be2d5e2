//! Random operations both ways on the model of devices, some of them small, until queues are full and requests split:
//! what arrives, in which order, and what completes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

use super::{
    AcceptConfig, Channel, ChannelConfig, Conn, ConnectConfig, Engine, EngineConfig, Event, ListenConfig,
    Object, PROVIDER_VERBS, QpConfig, Target, deregister, event_flags, key, kind, object,
};
use crate::memory::{Access, Region};
use crate::verbs::sys::{DeviceConfig, Entered, Fabric};
use crate::work::{MAX_INLINE, MAX_SGE, Opcode, Payload, RecvWr, SendWr, SgeList, by_value, flags};

const PATIENCE: Duration = Duration::from_secs(60);
/// Octets of each zone of a side's memory.
const ZONE: usize = 4096;
/// Zones: what is sent and read from, which stays; what Reads bring; what the peer writes; what is received into.
const SOURCE: usize = 0;
const SINK: usize = ZONE;
const WRITTEN: usize = 2 * ZONE;
const RECEIVED: usize = 3 * ZONE;
const MEMORY: usize = 4 * ZONE;
/// Receives that are kept posted, and octets of each.
const RECEIVES: usize = 8;
const RECEIVE: usize = ZONE / RECEIVES;

/// xorshift64
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    pub(crate) fn chance(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }
}

/// A message that the peer is to receive: its octets and immediate data.
type Message = (Vec<u8>, Option<u32>);

struct End {
    channel: Arc<Channel>,
    conn: Option<Arc<Conn>>,
    events: VecDeque<Event>,
    region: Arc<Region>,
    memory: Box<[u8; MEMORY]>,
    /// What the memory should be in the end, but for what is received.
    expected: Vec<u8>,
    /// Messages under way to this side.
    coming: VecDeque<Message>,
    /// Cookies of signalled operations under way, in order.
    under_way: VecDeque<usize>,
    next_user: usize,
    next_receive: usize,
    /// Cookies of posted receives.
    receives: VecDeque<usize>,
    left: usize,
    remote: (u64, u32),
}

impl End {
    fn new(engine: &Arc<Engine>, operations: usize, random: &mut Random) -> Self {
        let config = ChannelConfig { manual: true, spin_us: Some(0), ..ChannelConfig::default() };
        let mut memory = Box::new([0; MEMORY]);
        memory[SOURCE..SOURCE + ZONE].fill_with(|| random.below(256) as u8);
        let rights = Access::from_bits(7).unwrap();
        // SAFETY: the region is deregistered before the memory is dropped.
        let region = unsafe { engine.register(memory.as_mut_ptr(), MEMORY, rights) }.unwrap();
        Self {
            channel: Channel::create(engine, config).unwrap(),
            conn: None,
            events: VecDeque::new(),
            region,
            expected: memory.to_vec(),
            memory,
            coming: VecDeque::new(),
            under_way: VecDeque::new(),
            next_user: 0,
            next_receive: 0,
            receives: VecDeque::new(),
            left: operations,
            remote: (0, 0),
        }
    }

    fn fetch(&mut self) {
        self.channel.run(Some(Duration::ZERO)).unwrap();
        let events = &mut self.events;
        self.channel.next(64, &mut |event| events.push_back(event.clone())).unwrap();
    }

    fn conn(&self) -> &Arc<Conn> {
        self.conn.as_ref().unwrap()
    }

    /// Keeps receives posted; their cookies count up, which tells where each goes.
    fn post_receives(&mut self) {
        while self.receives.len() < RECEIVES {
            let user = self.next_receive;
            let base = self.region.base().wrapping_add(RECEIVED + user % RECEIVES * RECEIVE);
            let (region, conn) = (Arc::clone(&self.region), Arc::clone(self.conn()));
            let make = |_| {
                let mut sges = SgeList::new();
                sges.push(region.sge(base, RECEIVE / 2)?);
                sges.push(region.sge(base.wrapping_add(RECEIVE / 2), RECEIVE / 2)?);
                Ok(RecvWr { sges, user })
            };
            conn.post_recv(1, &mut by_value(make)).unwrap();
            self.receives.push_back(user);
            self.next_receive += 1;
        }
    }

    /// Pieces of a zone, one behind the other, `length` octets in all.
    fn pieces(&self, from: usize, length: usize, random: &mut Random, most: usize) -> SgeList {
        let mut sges = SgeList::new();
        let mut at = 0;
        while at < length || (sges.is_empty() && random.chance(2)) {
            let last = sges.len() + 1 == most;
            let piece = if last { length - at } else { random.below(length - at + 1) };
            let base = self.region.base().wrapping_add(from + at);
            sges.push(self.region.sge(base, piece).unwrap());
            at += piece;
        }
        sges
    }

    fn place(random: &mut Random, longest: usize) -> (usize, usize) {
        let length = if random.chance(8) { 0 } else { random.below(longest) };
        (random.below(ZONE - length), length)
    }

    /// Makes up an operation; `most`: elements of a Send.
    fn make_up(&self, random: &mut Random, immediate: bool, most: usize) -> Made {
        let kinds = if immediate { 5 } else { 3 };
        let opcode = [Opcode::Send, Opcode::Write, Opcode::Read, Opcode::SendImm, Opcode::WriteImm]
            [random.below(kinds)];
        let message = matches!(opcode, Opcode::Send | Opcode::SendImm);
        let inline = opcode != Opcode::Read && random.chance(3);
        let longest = if inline {
            MAX_INLINE
        } else if message {
            RECEIVE
        } else {
            1500
        };
        let (from, length) = Self::place(random, longest);
        let (to, _) = Self::place(random, ZONE - length);
        let to = to.min(ZONE - length);
        let payload = if inline {
            let octets: ArrayVec<u8, MAX_INLINE> = self.memory[from..from + length].iter().copied().collect();
            Payload::Inline(octets)
        } else if opcode == Opcode::Read {
            Payload::Sges(self.pieces(SINK + to, length, random, MAX_SGE))
        } else {
            Payload::Sges(self.pieces(SOURCE + from, length, random, if message { most } else { MAX_SGE }))
        };
        let remote = if opcode == Opcode::Read { SOURCE + from } else { WRITTEN + to };
        let bits = [flags::SIGNALED, flags::FENCE, flags::SOLICITED]
            .map(|bit| if random.chance(2) { bit } else { 0 });
        let flags = bits.into_iter().sum::<u32>() | if inline { flags::INLINE } else { 0 };
        Made { opcode, payload, flags, from, to, length, remote, imm: random.below(1 << 30) as u32 }
    }
}

/// An operation made up: from where in the source zone, to where in the other one.
struct Made {
    opcode: Opcode,
    payload: Payload,
    flags: u32,
    from: usize,
    to: usize,
    length: usize,
    remote: usize,
    imm: u32,
}

struct Traffic {
    fabric: Entered,
    ends: [End; 2],
    random: Random,
    immediate: bool,
    most_sges: usize,
    deferred: bool,
}

impl Traffic {
    /// Posts a batch on one side; what the queue has no room for is left for later.
    fn post(&mut self, side: usize) {
        let batch = 1 + self.random.below(4);
        let batch = batch.min(self.ends[side].left);
        let made: Vec<_> = (0..batch)
            .map(|_| self.ends[side].make_up(&mut self.random, self.immediate, self.most_sges))
            .collect();
        let peer = &self.ends[1 - side];
        // On iWARP the sender has to know that there is a receive.
        if !self.immediate && peer.receives.len() < peer.coming.len() + batch {
            return;
        }
        let [end, peer] = self.ends.get_disjoint_mut([side, 1 - side]).unwrap();
        let first = end.next_user;
        let effects: Vec<_> = made
            .iter()
            .map(|made| (made.opcode, made.flags, made.from, made.to, made.length, made.imm))
            .collect();
        let mut made = made.into_iter();
        let remote = end.remote;
        let posted = end.conn.clone().unwrap().post(
            batch,
            &mut by_value(|index| {
                let made = made.next().unwrap();
                Ok(SendWr {
                    opcode: made.opcode,
                    flags: made.flags,
                    payload: made.payload,
                    remote_addr: remote.0 + made.remote as u64,
                    remote_key: remote.1,
                    imm: made.imm,
                    invalidate_key: 0,
                    user: first + index,
                })
            }),
        );
        if let Err(error) = posted {
            assert_eq!(error.errno, libc::EAGAIN, "{error}");
            return;
        }
        end.next_user += batch;
        end.left -= batch;
        for (index, (opcode, bits, from, to, length, imm)) in effects.into_iter().enumerate() {
            let source = |end: &End| end.memory[from..from + length].to_vec();
            let imm = matches!(opcode, Opcode::SendImm | Opcode::WriteImm).then_some(imm);
            match opcode {
                Opcode::Read => {
                    let data = source(peer);
                    end.expected[SINK + to..SINK + to + length].copy_from_slice(&data);
                }
                Opcode::Write | Opcode::WriteImm => {
                    peer.expected[WRITTEN + to..WRITTEN + to + length].copy_from_slice(&source(end));
                }
                _ => peer.coming.push_back((source(end), imm)),
            }
            if opcode == Opcode::WriteImm {
                peer.coming.push_back((Vec::new(), imm));
            }
            if bits & flags::SIGNALED != 0 {
                end.under_way.push_back(first + index);
            }
        }
    }

    fn turn(&mut self) {
        if self.deferred {
            self.fabric.step();
        }
        for side in [0, 1] {
            let end = &mut self.ends[side];
            end.fetch();
            while let Some(event) = end.events.pop_front() {
                assert_eq!(event.status, 0, "event {} of side {side}", event.kind);
                match event.kind {
                    kind::COMPLETION => assert_eq!(end.under_way.pop_front(), Some(event.user)),
                    kind::RECV => end.received(&event),
                    other => panic!("event {other}"),
                }
            }
            if !self.random.chance(4) {
                self.ends[side].post_receives();
            }
        }
    }

    fn is_done(&self) -> bool {
        self.ends.iter().all(|end| end.left == 0 && end.under_way.is_empty() && end.coming.is_empty())
    }
}

impl End {
    fn received(&mut self, event: &Event) {
        assert_eq!(self.receives.pop_front(), Some(event.user));
        let (data, imm) = self.coming.pop_front().expect("nothing comes that was not sent");
        let with_imm = event.flags & event_flags::WITH_IMM != 0;
        assert_eq!(with_imm.then_some(event.imm), imm);
        let at = RECEIVED + event.user % RECEIVES * RECEIVE;
        assert!(self.memory[at..at + data.len()] == data[..], "message {}", event.user);
        if !data.is_empty() {
            assert_eq!(event.length, data.len());
        }
    }
}

fn connect(engine: &Arc<Engine>, ends: &mut [End; 2], depth: u32) {
    let qp = QpConfig { provider: PROVIDER_VERBS, send_depth: depth, recv_depth: 8, ..QpConfig::default() };
    let addr: SocketAddr = "10.77.0.2:4791".parse().unwrap();
    let listener = ListenConfig { qp: qp.clone(), ..ListenConfig::default() };
    let listener = ends[1].channel.listen(&addr.into(), listener).unwrap();
    let target = Target::Addresses(vec![addr.into()]);
    ends[0].conn = Some(ends[0].channel.connect(target, ConnectConfig { qp, ..Default::default() }).unwrap());
    let end = Instant::now() + PATIENCE;
    let mut established = 0;
    while established < 2 {
        assert!(Instant::now() < end);
        for side in ends.iter_mut() {
            side.fetch();
            while let Some(event) = side.events.pop_front() {
                match (event.kind, object(event.conn)) {
                    (kind::CONNECT_REQUEST, Some(Object::Conn(conn))) => {
                        conn.accept(AcceptConfig::default()).unwrap();
                        side.conn = Some(conn);
                        side.post_receives();
                    }
                    (kind::ESTABLISHED, _) => established += 1,
                    (other, _) => panic!("event {other}"),
                }
            }
        }
    }
    ends[0].post_receives();
    for side in [0, 1] {
        let rights = Access::from_bits(6).unwrap();
        let key = key(&ends[side].region, ends[side].conn.as_deref(), 0, MEMORY, rights).unwrap();
        ends[1 - side].remote = (ends[side].region.base() as u64, key);
    }
    listener.close().unwrap();
    ends[1].fetch();
    assert!(engine.destroy().is_err(), "in use");
    assert_eq!(ends[1].events.pop_front().map(|event| event.kind), Some(kind::CLOSED));
}

/// Some operations both ways over a device like this.
fn exchange(device: impl Fn(&str) -> DeviceConfig, seed: u64, depth: u32, deferred: bool) {
    let fabric = Fabric::enter();
    let configs = ["10.77.0.1", "10.77.0.2"].map(device);
    let limits = configs[0].limits.clone();
    for config in configs {
        fabric.add_device(config);
    }
    let engine = Engine::create(EngineConfig::default()).unwrap();
    let mut random = Random::new(seed);
    let mut ends = [0, 1].map(|_| End::new(&engine, 150, &mut random));
    connect(&engine, &mut ends, depth);
    fabric.defer_work(deferred);
    let most_sges = limits.max_sge.min(MAX_SGE as u32) as usize;
    let mut traffic = Traffic { fabric, ends, random, immediate: !limits.iwarp, most_sges, deferred };
    let end = Instant::now() + PATIENCE;
    while !traffic.is_done() {
        assert!(Instant::now() < end, "stuck");
        for side in [0, 1] {
            if traffic.ends[side].left > 0 && traffic.random.chance(2) {
                traffic.post(side);
            }
        }
        traffic.turn();
    }
    // What nobody asked a completion for may still be under way.
    traffic.fabric.defer_work(false);
    traffic.fabric.tick();
    for (side, end) in traffic.ends.iter().enumerate() {
        assert!(end.memory[..RECEIVED] == end.expected[..RECEIVED], "memory of side {side}");
    }
    let Traffic { fabric, ends, .. } = traffic;
    for end in ends {
        let began = Instant::now();
        end.channel.destroy().unwrap();
        assert!(began.elapsed() < Duration::from_millis(700), "waits for what does not come");
        deregister(&end.region).unwrap();
    }
    engine.destroy().unwrap();
    fabric.assert_clean();
}

/// Runs a body for a number of seeds and tells which one failed.
fn seeds(count: u64, body: impl Fn(u64)) {
    for seed in 1..=count {
        let note = Note(seed);
        body(seed);
        drop(note);
    }
}

struct Note(u64);

impl Drop for Note {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("with seed {}", self.0);
        }
    }
}

#[test]
fn everything_arrives_in_order_over_infiniband() {
    seeds(12, |seed| exchange(DeviceConfig::ib, seed, 16, seed % 2 == 0));
}

#[test]
fn everything_arrives_in_order_over_iwarp() {
    seeds(12, |seed| exchange(DeviceConfig::iwarp, seed, 16, seed % 2 == 0));
}

#[test]
fn a_device_with_little_of_everything_is_enough() {
    let small = |addr: &str| {
        let mut config = DeviceConfig::ib(addr);
        config.max_inline = 32;
        config.limits.max_sge = 2;
        config.limits.max_read_sge = 1;
        config.limits.max_wr = 40;
        config.limits.max_cqe = 64;
        config.limits.max_message = 600;
        config.clean_cq = true;
        config
    };
    seeds(12, |seed| exchange(small, seed, 8 + (seed as u32 % 3) * 12, seed % 2 == 0));
}
