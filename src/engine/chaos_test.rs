//! Several connections at once, over several devices and channels, whose applications do anything at any time while calls
//! fail, events come late, devices go and come back: whatever happens, each connection keeps its promises.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use socket2::SockAddr;

use super::story_test::Story;
use super::traffic_test::Random;
use super::verbs_test::sweep;
use super::{
    AcceptConfig, Channel, ChannelConfig, Conn, ConnectConfig, Engine, EngineConfig, Event, ListenConfig,
    Listener, Object, PROVIDER_AUTO, PROVIDER_VERBS, QpConfig, Target, deregister, kind, object,
};
use crate::memory::{Access, Region};
use crate::verbs::sys::{Delay, DeviceConfig, Entered, Fabric, Removal};
use crate::work::{Opcode, Payload, RecvWr, SendWr, SgeList, by_value, flags};

const PATIENCE: Duration = Duration::from_secs(20);
const CONNECTS: usize = 5;
const TURNS: usize = 250;
const MEMORY: usize = 1 << 12;
const DEVICES: [&str; 4] = ["10.77.1.1", "10.77.0.1", "10.77.1.2", "10.77.0.2"];
const PORT: u16 = 4791;

struct App {
    active: bool,
    story: Story,
}

struct Chaos {
    fabric: Entered,
    engine: Arc<Engine>,
    /// The client's, the listener's, and one more to spread connections over.
    channels: Vec<Arc<Channel>>,
    listener: Option<Arc<Listener>>,
    apps: BTreeMap<usize, App>,
    region: Arc<Region>,
    memory: Box<[u8; MEMORY]>,
    devices: [Option<u64>; 4],
    random: Random,
    iwarp: bool,
    /// Devices with little of everything.
    small: bool,
    deferred: bool,
    provider: u32,
    next_user: usize,
    left: usize,
    /// Events by kind, and operations that went well.
    tally: [usize; 8],
    done: usize,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let fabric = Fabric::enter();
        let engine = Engine::create(EngineConfig::default()).unwrap();
        let channel = || {
            let config = ChannelConfig { manual: true, spin_us: Some(0), ..ChannelConfig::default() };
            Channel::create(&engine, config).unwrap()
        };
        let channels = vec![channel(), channel(), channel()];
        let mut memory = Box::new([0; MEMORY]);
        let rights = Access::from_bits(7).unwrap();
        // SAFETY: the region is deregistered before the memory is dropped.
        let region = unsafe { engine.register(memory.as_mut_ptr(), MEMORY, rights) }.unwrap();
        let mut random = Random::new(seed);
        let (iwarp, auto) = (random.chance(3), random.chance(4));
        let (small, deferred) = (random.chance(3), random.chance(3));
        fabric.defer_work(deferred);
        let mut chaos = Self {
            fabric,
            engine,
            channels,
            listener: None,
            apps: BTreeMap::new(),
            region,
            memory,
            devices: [None; 4],
            random,
            iwarp,
            small,
            deferred,
            provider: if auto { PROVIDER_AUTO } else { PROVIDER_VERBS },
            next_user: 1,
            left: CONNECTS,
            tally: [0; 8],
            done: 0,
        };
        (0..4).for_each(|index| chaos.plug(index));
        chaos
    }

    fn plug(&mut self, index: usize) {
        let make = if self.iwarp { DeviceConfig::iwarp } else { DeviceConfig::ib };
        let mut config = make(DEVICES[index]);
        config.clean_cq = self.random.chance(2);
        config.flush_on_removal = self.random.chance(2);
        if self.small {
            config.max_inline = 0;
            (config.limits.max_sge, config.limits.max_read_sge) = (2, 1);
            (config.limits.max_wr, config.limits.max_cqe, config.limits.max_message) = (34, 40, 50);
        }
        self.devices[index] = Some(self.fabric.add_device(config));
    }

    fn qp(&self) -> QpConfig {
        QpConfig {
            provider: self.provider,
            send_depth: 4,
            recv_depth: 4,
            keepalive_ms: 60,
            linger_ms: 30,
            ..QpConfig::default()
        }
    }

    fn listen(&mut self) {
        let own = self.random.chance(2);
        let mut qp = self.qp();
        if own {
            (qp.recv_depth, qp.recv_size, qp.recv_count) = (0, 64, 3);
        }
        let channels = self.channels[1..].to_vec();
        let config = ListenConfig { qp, handshake_timeout_ms: 60, channels, ..ListenConfig::default() };
        let addr = if self.provider == PROVIDER_AUTO { "127.0.0.1:0" } else { "0.0.0.0:4791" };
        let addr: SocketAddr = addr.parse().unwrap();
        self.listener = self.channels[1].listen(&addr.into(), config).ok();
    }

    fn connect(&mut self) {
        let mut addrs: Vec<SockAddr> = Vec::new();
        let known = self.listener.as_ref().and_then(|listener| listener.info().local.as_socket());
        for _ in 0..1 + self.random.below(3) {
            let ip = ["10.77.1.2", "10.77.0.2", "10.77.1.9", "192.0.2.1"]
                [self.random.below(4).min(self.random.below(4))];
            let port = if self.random.chance(8) { PORT + 1 } else { PORT };
            addrs.push(SocketAddr::new(ip.parse().unwrap(), port).into());
        }
        if self.provider == PROVIDER_AUTO {
            // Nothing of TCP's may wait for what is not there.
            addrs = known.into_iter().map(SockAddr::from).collect();
        }
        let config = ConnectConfig { qp: self.qp(), timeout_ms: 200, ..ConnectConfig::default() };
        if let Ok(conn) = self.channels[0].connect(Target::Addresses(addrs), config) {
            self.adopt(conn, true);
        }
    }

    fn adopt(&mut self, conn: Arc<Conn>, active: bool) {
        let handle = conn.handle();
        let story = Story { conn: Some(conn), began: true, ..Story::default() };
        assert!(self.apps.insert(handle, App { active, story }).is_none());
    }

    /// One thing that goes wrong.
    fn disturb(&mut self) {
        let random = &mut self.random;
        match random.below(8) {
            0..3 => {
                let errno = [libc::ENOMEM, libc::EINVAL, libc::EIO, libc::EAGAIN][random.below(4)];
                self.fabric.fail_at(self.fabric.calls().len() + 1 + random.below(30), errno);
            }
            3..6 => {
                let delay = [Delay::Never, Delay::For(Duration::from_millis(15))][random.below(2)];
                self.fabric.delay_event(self.fabric.events().len() + 1 + random.below(20), delay);
            }
            _ => {
                let index = random.below(4);
                let removal = [Removal::Orderly, Removal::Surprise][random.below(2)];
                match self.devices[index].take() {
                    Some(device) => self.fabric.remove_device(device, removal),
                    None => self.plug(index),
                }
            }
        }
    }

    /// What one application does, at any time.
    fn act(&mut self, handle: usize) {
        let (user, length) = (self.next_user, self.random.below(64));
        let choice = self.random.below(16);
        let story = &mut self.apps.get_mut(&handle).unwrap().story;
        let Some(conn) = story.conn.clone() else { return };
        let sges = || {
            let mut sges = SgeList::new();
            sges.push(self.region.sge(self.region.base(), length)?);
            Ok::<_, crate::error::Error>(sges)
        };
        match choice {
            0..6 => {
                let bits = [0, flags::SIGNALED, flags::SIGNALED | flags::FENCE][self.random.below(3)];
                // A write has no key that the peer knows.
                let opcode = if choice == 0 && self.random.chance(20) { Opcode::Write } else { Opcode::Send };
                let make = |_| {
                    let payload = Payload::Sges(sges()?);
                    let (remote_addr, remote_key, imm, invalidate_key) = (0, 0, 0, 0);
                    Ok(SendWr {
                        opcode,
                        flags: bits,
                        payload,
                        remote_addr,
                        remote_key,
                        imm,
                        invalidate_key,
                        user,
                    })
                };
                if conn.post(1, &mut by_value(make)).is_ok() {
                    if bits == 0 { story.quiet.push(user) } else { story.posted.push(user) }
                }
            }
            6..12 => {
                let posted = conn.post_recv(1, &mut by_value(|_| Ok(RecvWr { sges: sges()?, user })));
                story.posted.extend(posted.is_ok().then_some(user));
            }
            12 if self.random.chance(12) => conn.disconnect().unwrap(),
            13 if self.random.chance(30) => conn.close().unwrap(),
            14 if story.count(kind::CONNECT_REQUEST) > 0 => {
                story.accepted |= conn.accept(AcceptConfig::default()).is_ok();
            }
            15 if story.count(kind::CONNECT_REQUEST) > 0 && self.random.chance(12) => {
                let _ = conn.reject(3, b"no");
            }
            _ => {}
        }
        self.next_user += 1;
    }

    fn turn(&mut self, wait: Duration) {
        self.fabric.tick();
        if self.deferred && self.random.chance(2) {
            self.fabric.step();
        }
        for index in 0..self.channels.len() {
            let channel = Arc::clone(&self.channels[index]);
            channel.run(Some(wait)).unwrap();
            let mut events = Vec::new();
            channel.next(64, &mut |event| events.push(event.clone())).unwrap();
            events.iter().for_each(|event| self.happened(event));
        }
    }

    fn happened(&mut self, event: &Event) {
        if event.conn == 0 {
            return assert_eq!(event.kind, kind::CLOSED);
        }
        if event.kind == kind::CONNECT_REQUEST {
            let Some(Object::Conn(conn)) = object(event.conn) else { panic!("a request without connection") };
            self.adopt(conn, false);
        }
        let app = self.apps.get_mut(&event.conn).expect("events come for what exists");
        app.story.note(event);
        self.tally[event.kind as usize] += 1;
        self.done += usize::from(event.kind == kind::COMPLETION && event.status == 0);
        if event.kind == kind::RECV && event.buffer != 0 {
            let conn = app.story.conn.clone().unwrap();
            conn.release(event.buffer).unwrap();
        }
        if event.kind == kind::CLOSED {
            app.story.conn = None;
            // Handles are used again.
            let app = self.apps.remove(&event.conn).unwrap();
            app.story.check(app.active);
        }
    }

    fn finish(mut self) {
        let end = Instant::now() + PATIENCE;
        if let Some(listener) = self.listener.take() {
            listener.close().unwrap();
        }
        while !self.apps.is_empty() {
            assert!(Instant::now() < end, "no end");
            for app in self.apps.values() {
                app.story.conn.iter().for_each(|conn| conn.close().unwrap());
            }
            self.turn(Duration::from_millis(1));
        }
        for channel in self.channels.drain(..) {
            let began = Instant::now();
            channel.destroy().unwrap();
            assert!(began.elapsed() < Duration::from_secs(4), "nothing is left to wait for");
        }
        deregister(&self.region).unwrap();
        self.engine.destroy().unwrap();
        let Self { fabric, engine, region, memory, .. } = self;
        drop((region, engine));
        fabric.assert_clean();
        drop(memory);
    }
}

fn play(seed: u64) -> ([usize; 8], usize) {
    let mut chaos = Chaos::new(seed);
    chaos.listen();
    for _ in 0..TURNS {
        if chaos.left > 0 && chaos.random.chance(12) {
            chaos.left -= 1;
            chaos.connect();
        }
        if chaos.random.chance(40) {
            chaos.disturb();
        }
        let handles: Vec<_> = chaos.apps.keys().copied().collect();
        for handle in handles {
            if chaos.random.chance(3) {
                chaos.act(handle);
            }
        }
        let wait = if chaos.random.chance(8) { Duration::from_millis(1) } else { Duration::ZERO };
        chaos.turn(wait);
    }
    let tally = (chaos.tally, chaos.done);
    chaos.finish();
    tally
}

#[test]
fn promises_are_kept_whatever_happens() {
    let count = std::env::var("RCG_CHAOS").ok().and_then(|count| count.parse().ok()).unwrap_or(150);
    let (established, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let seeds: Vec<u64> = (1..=count).collect();
    sweep(&seeds, |seed| {
        let (tally, well) = play(*seed);
        established.fetch_add(tally[kind::ESTABLISHED as usize], Ordering::Relaxed);
        done.fetch_add(well, Ordering::Relaxed);
    });
    let (established, done) = (established.into_inner(), done.into_inner());
    assert!(established > 2 * seeds.len() && done > seeds.len(), "chaos, but not only: {established} {done}");
}
