//! A whole scenario on two channels that the test runs in turns, and the check of what was promised: used on the model of
//! devices, where anything can fail.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockAddr;

use super::story_test::Story;
use super::{
    AcceptConfig, Channel, ChannelConfig, ConnectConfig, Engine, EngineConfig, Event, ListenConfig, Listener,
    Object, QpConfig, Target, deregister, key, kind, object,
};
use crate::memory::{Access, Region};
use crate::work::{Opcode, Payload, RecvWr, SendWr, SgeList, by_value, flags};

/// Longest message.
const LENGTH: usize = 256;
/// Octets of each side's memory.
const MEMORY: usize = 8 * LENGTH;
/// A test gives up on a run after this.
const PATIENCE: Duration = Duration::from_secs(10);

const CLIENT: usize = 0;
const SERVER: usize = 1;

struct Side {
    channel: Arc<Channel>,
    story: Story,
    region: Arc<Region>,
    memory: Box<[u8; MEMORY]>,
}

/// What the scenario runs on.
pub(super) struct Stage {
    /// Where to listen.
    pub(super) addr: SockAddr,
    pub(super) provider: u32,
    /// Bound on a connect, and on a graceful disconnect.
    pub(super) timeout_ms: u32,
    /// Listens on the client's channel for connections on the server's.
    pub(super) spread: bool,
    /// The server says no.
    pub(super) rejects: bool,
    /// One side leaves by itself: at which turn, which side, and whether gracefully.
    pub(super) leaves: Option<(usize, usize, bool)>,
    /// Called between turns.
    pub(super) tick: Box<dyn Fn()>,
}

/// How a run went.
pub(super) struct Outcome {
    /// The client's story, and the server's.
    pub(super) stories: [Story; 2],
    /// Everything was done that was to be done.
    pub(super) complete: bool,
}

struct Run<'a> {
    stage: &'a Stage,
    sides: [Side; 2],
    listener: Option<Arc<Listener>>,
    listener_closed: bool,
    /// When something has happened last.
    lively: Instant,
}

/// Connects, sends both ways, writes, reads, disconnects; whatever fails, ends in order. Checks what was promised.
pub(super) fn play(stage: &Stage) -> Outcome {
    let engine = Engine::create(EngineConfig::default()).unwrap();
    let side = || {
        let config = ChannelConfig { manual: true, spin_us: Some(0), ..ChannelConfig::default() };
        Channel::create(&engine, config).map(|channel| {
            let mut memory = Box::new([0; MEMORY]);
            let rights = Access::from_bits(7).unwrap();
            // SAFETY: the region is deregistered before the memory is dropped.
            let region = unsafe { engine.register(memory.as_mut_ptr(), MEMORY, rights) }.unwrap();
            Side { channel, story: Story::default(), region, memory }
        })
    };
    let sides = match (side(), side()) {
        (Ok(client), Ok(server)) => [client, server],
        (client, server) => {
            [client, server].into_iter().flatten().for_each(|side| drop(side.end()));
            engine.destroy().unwrap();
            return Outcome { stories: Default::default(), complete: false };
        }
    };
    let mut run = Run { stage, sides, listener: None, listener_closed: false, lively: Instant::now() };
    run.begin();
    run.go_on();
    let complete = run.is_complete();
    let [client, server] = run.sides;
    let stories = [client, server].map(Side::end);
    engine.destroy().unwrap();
    for (side, story) in stories.iter().enumerate() {
        story.check(side == CLIENT);
    }
    Outcome { stories, complete }
}

impl Side {
    fn end(mut self) -> Story {
        self.channel.destroy().unwrap();
        deregister(&self.region).unwrap();
        // It holds the channel.
        self.story.conn = None;
        drop(self.memory);
        self.story
    }

    fn wr(&mut self, opcode: Opcode, user: usize, offset: usize, remote: (u64, u32), flags: u32) -> SendWr {
        let mut sges = SgeList::new();
        let base = self.region.base().wrapping_add(offset);
        sges.push(self.region.sge(base, LENGTH).unwrap());
        let (remote_addr, remote_key) = remote;
        let payload = Payload::Sges(sges);
        SendWr { opcode, flags, payload, remote_addr, remote_key, imm: 0, invalidate_key: 0, user }
    }

    /// Posts, and notes what is owed.
    fn post(&mut self, mut wrs: Vec<SendWr>) -> bool {
        let Some(conn) = self.story.conn.clone() else { return false };
        let users: Vec<_> = wrs.iter().map(|wr| (wr.user, wr.flags & flags::SIGNALED != 0)).collect();
        wrs.reverse();
        let posted = conn.post(wrs.len(), &mut by_value(|_| Ok(wrs.pop().unwrap()))).is_ok();
        for (user, signaled) in users.into_iter().filter(|_| posted) {
            if signaled { self.story.posted.push(user) } else { self.story.quiet.push(user) }
        }
        posted
    }

    fn post_recvs(&mut self, users: &[usize]) {
        let Some(conn) = self.story.conn.clone() else { return };
        for user in users {
            let mut sges = SgeList::new();
            let base = self.region.base().wrapping_add(*user % 8 * LENGTH);
            sges.push(self.region.sge(base, LENGTH).unwrap());
            let mut wr = Some(RecvWr { sges, user: *user });
            if conn.post_recv(1, &mut by_value(|_| Ok(wr.take().unwrap()))).is_ok() {
                self.story.posted.push(*user);
            }
        }
    }

    fn leave(&mut self, gracefully: bool) {
        if let Some(conn) = &self.story.conn {
            self.story.left = true;
            if gracefully { conn.disconnect().unwrap() } else { conn.close().unwrap() }
        }
    }
}

impl Run<'_> {
    fn qp(&self) -> QpConfig {
        QpConfig {
            provider: self.stage.provider,
            send_depth: 8,
            recv_depth: 4,
            keepalive_ms: self.stage.timeout_ms,
            linger_ms: self.stage.timeout_ms,
            ..QpConfig::default()
        }
    }

    fn begin(&mut self) {
        let qp = QpConfig { recv_depth: 0, recv_size: LENGTH as u32, recv_count: 2, ..self.qp() };
        let handshake_timeout_ms = self.stage.timeout_ms;
        let channels = vec![Arc::clone(&self.sides[SERVER].channel)];
        let config = ListenConfig { qp, handshake_timeout_ms, channels, ..ListenConfig::default() };
        let side = if self.stage.spread { CLIENT } else { SERVER };
        self.listener = self.sides[side].channel.listen(&self.stage.addr, config).ok();
        self.listener_closed = self.listener.is_none();
        let at = self.listener.as_ref().map(|listener| listener.info().local);
        let Some(at) = at else { return };
        let config = ConnectConfig {
            qp: self.qp(),
            private_data: b"hello".to_vec(),
            timeout_ms: self.stage.timeout_ms,
            ..ConnectConfig::default()
        };
        let client = self.sides[CLIENT].channel.connect(Target::Addresses(vec![at]), config);
        self.sides[CLIENT].story.began = client.is_ok();
        self.sides[CLIENT].story.conn = client.ok();
        self.sides[CLIENT].post_recvs(&[21, 22]);
    }

    /// Until nothing is open.
    fn go_on(&mut self) {
        let end = Instant::now() + PATIENCE;
        for turn in 1.. {
            if self.is_over() {
                break;
            }
            if let Some((_, side, gracefully)) = self.stage.leaves.filter(|(at, ..)| *at == turn) {
                self.sides[side].leave(gracefully);
            }
            let states: Vec<_> = self.sides.iter().map(|side| side.story.kinds.clone()).collect();
            assert!(Instant::now() < end, "no end within {PATIENCE:?}: {states:?}");
            (self.stage.tick)();
            for side in [CLIENT, SERVER] {
                let quiet = self.lively.elapsed() > Duration::from_micros(200);
                let wait = if quiet { Duration::from_millis(1) } else { Duration::ZERO };
                self.sides[side].channel.run(Some(wait)).unwrap();
                let mut events = VecDeque::new();
                self.sides[side].channel.next(64, &mut |event| events.push_back(event.clone())).unwrap();
                while let Some(event) = events.pop_front() {
                    self.lively = Instant::now();
                    self.happened(side, &event);
                }
            }
            self.move_on();
        }
    }

    fn is_over(&self) -> bool {
        self.listener_closed && self.sides.iter().all(|side| side.story.is_over())
    }

    fn is_complete(&self) -> bool {
        let [client, server] = &self.sides;
        client.story.succeeded(&[1, 2, 3, 21]) && server.story.succeeded(&[11])
    }

    /// What the applications do by themselves.
    fn move_on(&mut self) {
        // Without an event for this long, the application closes what it has.
        let bored = self.lively.elapsed() > 3 * Duration::from_millis(self.stage.timeout_ms.into());
        let client_over = self.sides[CLIENT].story.is_over();
        // Nobody else will come.
        if let Some(listener) = self.listener.take_if(|_| client_over) {
            listener.close().unwrap();
        }
        if bored {
            for side in &mut self.sides {
                side.leave(false);
            }
            self.lively = Instant::now();
        }
    }

    fn happened(&mut self, side: usize, event: &Event) {
        if event.conn == 0 {
            assert_eq!((event.kind, self.listener_closed), (kind::CLOSED, false));
            self.listener_closed = true;
            return;
        }
        if event.kind == kind::CONNECT_REQUEST {
            assert!(side == SERVER && self.sides[side].story.conn.is_none(), "one request");
            assert_eq!(event.private_data.as_deref(), Some(&b"hello"[..]));
            let Some(Object::Conn(conn)) = object(event.conn) else { panic!("a request without connection") };
            self.sides[side].story.began = true;
            self.sides[side].story.conn = Some(conn);
        }
        let story = &mut self.sides[side].story;
        let conn = story.conn.clone().expect("events come for what exists");
        assert_eq!(event.conn, conn.handle());
        story.note(event);
        let lent = event.kind == kind::RECV && event.buffer != 0;
        match (side, event.kind) {
            (_, kind::RECV) if lent => {
                assert_eq!((event.status, event.length), (0, LENGTH));
                conn.release(event.buffer).unwrap();
            }
            (SERVER, kind::CONNECT_REQUEST) if self.stage.rejects => {
                // The peer may have gone.
                let _ = conn.reject(4, b"no");
            }
            (SERVER, kind::CONNECT_REQUEST) => {
                let config = AcceptConfig { private_data: b"welcome".to_vec(), ..AcceptConfig::default() };
                story.accepted = conn.accept(config).is_ok();
                if !story.accepted {
                    self.sides[side].leave(false);
                }
            }
            (SERVER, kind::ESTABLISHED) => {
                let wr = self.sides[side].wr(Opcode::Send, 11, 0, (0, 0), flags::SIGNALED);
                self.post_or_leave(side, vec![wr]);
            }
            (CLIENT, kind::ESTABLISHED) => {
                assert_eq!(event.private_data.as_deref(), Some(&b"welcome"[..]));
                self.operate();
            }
            _ => {}
        }
        let client = &mut self.sides[CLIENT];
        if client.story.succeeded(&[1, 2, 3, 21]) && !client.story.left {
            assert!(client.memory[3 * LENGTH..4 * LENGTH] == [9; LENGTH], "read what was written");
            client.leave(true);
        }
    }

    /// The client's operations.
    fn operate(&mut self) {
        let [client, server] = &mut self.sides;
        let rights = Access::from_bits(6).unwrap();
        let granted =
            server.story.conn.as_deref().map(|conn| key(&server.region, Some(conn), 0, MEMORY, rights));
        let Some(Ok(key)) = granted else { return client.leave(false) };
        let there = (server.region.base() as u64 + 4 * LENGTH as u64, key);
        client.memory[..LENGTH].fill(9);
        let wrs = vec![
            client.wr(Opcode::Send, 1, 0, (0, 0), flags::SIGNALED),
            client.wr(Opcode::Write, 2, 0, there, flags::SIGNALED),
            client.wr(Opcode::Write, 4, 0, there, 0),
            client.wr(Opcode::Read, 3, 3 * LENGTH, there, flags::SIGNALED),
        ];
        self.post_or_leave(CLIENT, wrs);
    }

    fn post_or_leave(&mut self, side: usize, wrs: Vec<SendWr>) {
        if !self.sides[side].post(wrs) {
            self.sides[side].leave(false);
        }
    }
}
