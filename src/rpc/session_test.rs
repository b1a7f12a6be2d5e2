//! Two sessions that call each other, over TCP and on the model of devices.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Call, Config, Message, Pads, Payload, Reply, Session, kind};
use crate::engine::{
    AcceptConfig, Channel, ChannelConfig, Conn, ConnectConfig, Engine, EngineConfig, Event, ListenConfig,
    Listener, Object, PROVIDER_IWARP, PROVIDER_VERBS, QpConfig, Target, deregister, kind as base, object,
};
use crate::memory::{Access, Region};
pub(super) use crate::verbs::sys::Removal;
use crate::verbs::sys::{DeviceConfig, Entered, Fabric};
use crate::work::Sge;

const PATIENCE: Duration = Duration::from_secs(20);
const MEMORY: usize = 1 << 20;

/// Zones of a side's memory.
pub(super) const SOURCE: usize = 0;
pub(super) const RESULT: usize = MEMORY / 4;
pub(super) const REPLY: usize = MEMORY / 2;

pub(super) struct Side {
    channel: Arc<Channel>,
    conn: Option<Arc<Conn>>,
    pub(super) region: Arc<Region>,
    pub(super) memory: Box<[u8]>,
}

impl Side {
    fn new(engine: &Arc<Engine>) -> Self {
        let config = ChannelConfig { manual: true, spin_us: Some(0), ..ChannelConfig::default() };
        let channel = Channel::create(engine, config).unwrap();
        let mut memory = vec![0; MEMORY].into_boxed_slice();
        let rights = Access::from_bits(7).unwrap();
        // SAFETY: the region is deregistered before the memory is dropped.
        let region = unsafe { engine.register(memory.as_mut_ptr(), MEMORY, rights) }.unwrap();
        Self { channel, conn: None, region, memory }
    }

    pub(super) fn sge(&self, offset: usize, length: usize) -> Sge {
        self.region.sge(self.region.base().wrapping_add(offset), length).unwrap()
    }

    /// Elements of `parts` octets each, the last of what is left.
    pub(super) fn sges(&self, offset: usize, length: usize, part: usize) -> Vec<Sge> {
        (0..length).step_by(part).map(|at| self.sge(offset + at, part.min(length - at))).collect()
    }

    pub(super) fn put(&self, offset: usize, octets: &[u8]) {
        assert!(offset + octets.len() <= MEMORY);
        // SAFETY: within the memory, of which nobody has a reference.
        unsafe {
            let to = self.region.base().wrapping_add(offset);
            std::ptr::copy_nonoverlapping(octets.as_ptr(), to, octets.len());
        }
    }

    /// One turn of its channel, which ends with an event.
    pub(super) fn poll(&self) -> Option<Event> {
        let mut found = None;
        self.channel.run(Some(Duration::from_micros(200))).unwrap();
        self.channel.next(1, &mut |event| found = Some(event.clone())).unwrap();
        found
    }

    pub(super) fn conn(&self) -> &Arc<Conn> {
        self.conn.as_ref().unwrap()
    }

    pub(super) fn session(&self) -> &Session {
        Session::of(self.conn()).unwrap()
    }

    fn call(&self, call: Call) {
        self.session().call(self.conn(), call).unwrap();
    }

    fn reply(&self, call: u64, reply: Reply) {
        self.session().reply(self.conn(), call, reply).unwrap();
    }
}

pub(super) struct Pair {
    pub(super) fabric: Option<Entered>,
    pub(super) devices: Vec<u64>,
    engine: Arc<Engine>,
    listener: Arc<Listener>,
    pub(super) client: Side,
    pub(super) server: Side,
}

pub(super) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

pub(super) fn call_head(xid: u32, length: usize) -> Vec<u8> {
    let mut head = words(&[xid, 0, 2]);
    head.resize(length, b'c');
    head
}

pub(super) fn reply_head(xid: u32, length: usize) -> Vec<u8> {
    let mut head = words(&[xid, 1, 0]);
    head.resize(length, b'r');
    head
}

pub(super) fn message(event: &Event) -> &Message {
    Message::of(event).unwrap()
}

/// The octets of an event's message.
pub(super) fn octets(event: &Event) -> Vec<u8> {
    let mut octets = vec![0; event.length];
    // SAFETY: an event's message lives as long as the event.
    unsafe {
        let from = std::ptr::with_exposed_provenance::<u8>(event.data);
        std::ptr::copy_nonoverlapping(from, octets.as_mut_ptr(), octets.len());
    }
    octets
}

pub(super) fn piece(message: &Message, index: usize) -> Vec<u8> {
    let piece = message.pieces()[index];
    let mut octets = vec![0; piece.length];
    // SAFETY: as above.
    unsafe { std::ptr::copy_nonoverlapping(piece.addr.cast::<u8>(), octets.as_mut_ptr(), octets.len()) };
    octets
}

pub(super) fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(7).wrapping_add(seed)).collect()
}

impl Pair {
    pub(super) fn new(verbs: bool, client: Config, server: Config) -> Self {
        Self::with(verbs, Some(client), Some(server))
    }

    /// `None`: a connection that knows nothing of RPC.
    pub(super) fn with(verbs: bool, client: Option<Config>, server: Option<Config>) -> Self {
        let fabric = verbs.then(Fabric::enter);
        let plug = |fabric: &Entered| {
            ["10.77.0.1", "10.77.0.2"].map(|at| fabric.add_device(DeviceConfig::ib(at))).to_vec()
        };
        let devices = fabric.as_ref().map(plug).unwrap_or_default();
        let (at, provider) =
            if verbs { ("10.77.0.2:2049", PROVIDER_VERBS) } else { ("127.0.0.1:0", PROVIDER_IWARP) };
        let engine = Engine::create(EngineConfig::default()).unwrap();
        let (mut client_side, mut server_side) = (Side::new(&engine), Side::new(&engine));
        let plain = QpConfig { provider, ..QpConfig::default() };
        let qp = |rpc: Option<Config>| match rpc {
            Some(_) => plain.clone(),
            None => QpConfig { recv_depth: 0, recv_size: 4096, recv_count: 32, ..plain.clone() },
        };
        let mut listen = ListenConfig { qp: qp(server), ..ListenConfig::default() };
        server.into_iter().for_each(|rpc| rpc.listen(&mut listen).unwrap());
        let addr: std::net::SocketAddr = at.parse().unwrap();
        let listener = server_side.channel.listen(&addr.into(), listen).unwrap();
        let mut connect = ConnectConfig { qp: qp(client), ..ConnectConfig::default() };
        client.into_iter().for_each(|rpc| rpc.connect(&mut connect).unwrap());
        let target = Target::Addresses(vec![listener.info().local]);
        client_side.conn = Some(client_side.channel.connect(target, connect).unwrap());
        let mut pair = Self { fabric, devices, engine, listener, client: client_side, server: server_side };
        let request = pair.next();
        assert_eq!(request.kind, base::CONNECT_REQUEST);
        let Some(Object::Conn(conn)) = object(request.conn) else { panic!("no connection") };
        conn.accept(AcceptConfig::default()).unwrap();
        server_side = pair.server;
        server_side.conn = Some(conn);
        pair.server = server_side;
        assert_eq!([pair.next().kind, pair.next().kind], [base::ESTABLISHED; 2]);
        pair
    }

    /// One turn of both channels, which ends with an event.
    pub(super) fn poll(&self) -> Option<Event> {
        let found = [&self.client, &self.server].into_iter().find_map(Side::poll);
        if found.is_some() {
            return found;
        }
        self.fabric.iter().for_each(|fabric| fabric.tick());
        None
    }

    fn next(&self) -> Event {
        let end = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < end, "no event");
            if let Some(event) = self.poll() {
                return event;
            }
        }
    }

    #[track_caller]
    fn expect(&self, kind: u32) -> Event {
        let event = self.next();
        assert_eq!((event.kind, event.status), (kind, 0));
        event
    }

    fn end(self) {
        self.client.conn().close().unwrap();
        let mut closed = 0;
        while closed < 2 {
            let kind = self.next().kind;
            assert!([base::DISCONNECTED, base::CLOSED, kind::ANSWERED].contains(&kind), "{kind}");
            closed += usize::from(kind == base::CLOSED);
        }
        self.assert_clean();
    }

    /// When both connections are closed.
    pub(super) fn assert_clean(self) {
        for side in [&self.client, &self.server] {
            side.channel.destroy().unwrap();
            deregister(&side.region).unwrap();
        }
        let Self { fabric, engine, listener, client, server, .. } = self;
        drop((listener, client, server));
        engine.destroy().unwrap();
        drop(engine);
        fabric.iter().for_each(|fabric| fabric.assert_clean());
    }
}

pub(super) fn both(test: impl Fn(bool)) {
    test(false);
    test(true);
}

pub(super) const SMALL: Config = Config {
    credits: 4,
    backchannel: 2,
    inline_send: 1024,
    inline_recv: 1024,
    max_payload: 0,
    silent: false,
    dialect: crate::wire::rpcrdma::Dialect::Rfc,
    gluster_if_silent: false,
    pads: Pads::Words,
    standing_keys: false,
    answered_later: false,
};

/// One call and its reply. Lengths of the head, of a payload, of a result and of the reply's head.
fn exchange(
    pair: &mut Pair,
    xid: u32,
    (head, payload, result, reply): (usize, usize, usize, usize),
    part: usize,
) {
    let sent = pattern(payload, xid as u8);
    pair.client.memory[SOURCE..SOURCE + payload].copy_from_slice(&sent);
    pair.client.memory[RESULT..].fill(0xee);
    let answer = pattern(result, !xid as u8);
    pair.server.memory[SOURCE..SOURCE + result].copy_from_slice(&answer);
    let client = &pair.client;
    // The last word of the head is behind the payload, as with a WRITE and a GETATTR.
    let at = head - 4;
    client.call(Call {
        head: call_head(xid, head),
        payload: (payload > 0).then(|| Payload { sges: client.sges(SOURCE, payload, part), at }),
        results: if result > 0 { vec![client.sges(RESULT, result + 8, part)] } else { Vec::new() },
        reply_max: reply,
        reply: client.sges(REPLY, reply + 4, reply + 4),
        user: 7,
    });
    let call = pair.expect(kind::CALL);
    let asked = message(&call);
    let mut whole = octets(&call);
    if let Some(piece_at) = asked.pieces().first() {
        assert_eq!((asked.pieces().len(), piece_at.at), (1, at));
        let mut octets = piece(asked, 0);
        octets.resize(payload.next_multiple_of(4), 0);
        whole.splice(at..at, octets);
    }
    let mut wanted = call_head(xid, head);
    let mut padded = sent;
    padded.resize(payload.next_multiple_of(4), 0);
    wanted.splice(at..at, padded);
    assert!(whole == wanted, "call {xid}");
    assert_eq!(asked.rooms(), if result > 0 { vec![result as u64 + 8] } else { vec![] });
    assert!(asked.view().reply_max >= reply as u64, "{} for {reply}", asked.view().reply_max);
    let id = asked.call();
    drop(call);
    let server = &pair.server;
    let payloads = if result > 0 {
        vec![Payload { sges: server.sges(SOURCE, result, part), at: reply - 4 }]
    } else {
        Vec::new()
    };
    server.reply(id, Reply { head: reply_head(xid, reply), payloads, user: 8 });
    let events = [pair.next(), pair.next()];
    let of = |kind: u32| events.iter().find(|event| event.kind == kind).unwrap();
    assert_eq!((of(kind::ANSWERED).user, of(kind::ANSWERED).status), (8, 0));
    let got = of(kind::REPLY);
    assert_eq!((got.user, got.status), (7, 0));
    assert!(octets(got) == reply_head(xid, reply), "reply {xid}");
    if result > 0 {
        assert!(piece(message(got), 0) == answer, "result {xid}");
        assert_eq!(pair.client.memory[RESULT + result], 0xee, "no pad is written");
    }
}

#[test]
fn calls_of_all_sizes() {
    both(|verbs| {
        let mut pair = Pair::new(verbs, SMALL, SMALL);
        let mut xid = 1;
        for payload in [0, 1, 3, 4, 97, 100, 900, 1021, 5000, 20_000] {
            for (head, result, reply) in [(44, 0, 24), (44, 10_001, 44), (1500, 0, 3000), (120, 3, 28)] {
                for part in [4096, 30_000] {
                    exchange(&mut pair, xid, (head, payload, result, reply), part);
                    xid += 1;
                }
            }
        }
        let (made, taken) = (pair.client.session().info().1, pair.server.session().info().1);
        assert_eq!((made.calls, taken.asked), (u64::from(xid) - 1, u64::from(xid) - 1));
        assert_eq!((made.bad, taken.bad, taken.errors), (0, 0, 0));
        assert!(made.reads > 0 && made.writes > 0 && made.replies > 0);
        assert_eq!((taken.reads, taken.replies), (made.reads, made.replies));
        pair.end();
    });
}

/// Many segments, more than fit one doorbell or one send queue.
#[test]
fn results_in_many_segments() {
    both(|verbs| {
        let large = Config { inline_send: 65_536, inline_recv: 65_536, ..SMALL };
        let mut pair = Pair::new(verbs, large, large);
        for (xid, part) in [(1, 1000), (2, 300)] {
            exchange(&mut pair, xid, (44, 100_000, 100_001, 28), part);
        }
        pair.end();
    });
}

/// Credits granted and used, calls that wait; the peer's credits granted and used.
fn figures(side: &Side) -> [u64; 5] {
    let (_, figures) = side.conn().upper().unwrap().figures();
    std::array::from_fn(|at| figures[at].1)
}

#[test]
fn calls_wait_for_credits() {
    both(|verbs| {
        let pair = Pair::new(verbs, SMALL, SMALL);
        let call =
            |xid| Call { head: call_head(xid, 44), reply_max: 24, user: xid as usize, ..Call::default() };
        (1..=4).for_each(|xid| pair.client.call(call(xid)));
        let error = pair.client.session().call(pair.client.conn(), call(5)).unwrap_err();
        assert_eq!(error.errno, libc::EAGAIN);
        let error = pair.client.session().call(pair.client.conn(), call(4)).unwrap_err();
        assert_eq!(error.errno, libc::EEXIST);
        // One until the first grant.
        let first = pair.expect(kind::CALL);
        assert_eq!((figures(&pair.client), figures(&pair.server)), ([1, 1, 3, 2, 0], [1, 0, 0, 4, 1]));
        for _ in 0..20 {
            pair.client.channel.run(Some(Duration::from_millis(1))).unwrap();
            assert_eq!(pair.server.channel.run(Some(Duration::from_millis(1))).unwrap(), 0);
        }
        let answer = |event: &Event| {
            let (call, xid) = (message(event).call(), message(event).view().xid);
            pair.server.reply(call, Reply { head: reply_head(xid, 24), ..Reply::default() });
        };
        assert_eq!(message(&first).view().credits, 4);
        answer(&first);
        let (mut calls, mut replies) = (Vec::new(), Vec::new());
        while calls.len() < 3 {
            let event = pair.next();
            match event.kind {
                kind::CALL => calls.push(event),
                kind::REPLY => replies.push(event.user),
                kind => assert_eq!(kind, kind::ANSWERED),
            }
        }
        assert_eq!(replies, [1]);
        assert_eq!((figures(&pair.client), figures(&pair.server)), ([4, 3, 0, 2, 0], [1, 0, 0, 4, 3]));
        // In any order.
        calls.iter().rev().for_each(answer);
        while replies.len() < 4 {
            let event = pair.next();
            if event.kind == kind::REPLY {
                replies.push(event.user);
            }
        }
        assert_eq!(replies, [1, 4, 3, 2]);
        assert_eq!((figures(&pair.client), figures(&pair.server)), ([4, 0, 0, 2, 0], [1, 0, 0, 4, 0]));
        drop((first, calls));
        pair.end();
    });
}

#[test]
fn the_backchannel() {
    both(|verbs| {
        let pair = Pair::new(verbs, SMALL, SMALL);
        for xid in 1..4 {
            let call = |length| Call { head: call_head(xid, length), reply_max: 24, ..Call::default() };
            pair.server.call(call(500));
            let asked = pair.expect(kind::CALL);
            assert_eq!(octets(&asked), call_head(xid, 500));
            assert_eq!(message(&asked).view().credits, 2);
            pair.client
                .reply(message(&asked).call(), Reply { head: reply_head(xid, 24), ..Reply::default() });
            let mut kinds = [pair.next().kind, pair.next().kind];
            kinds.sort_unstable();
            assert_eq!(kinds, [kind::REPLY, kind::ANSWERED]);
            let long = pair.server.session().call(pair.server.conn(), call(2000));
            assert_eq!(long.unwrap_err().errno, libc::EMSGSIZE);
        }
        pair.end();
    });
}

#[test]
fn a_reply_without_room() {
    both(|verbs| {
        let pair = Pair::new(verbs, SMALL, SMALL);
        let client = &pair.client;
        client.call(Call {
            head: call_head(1, 44),
            results: vec![client.sges(RESULT, 100, 100)],
            reply_max: 24,
            ..Call::default()
        });
        let asked = pair.expect(kind::CALL);
        let call = message(&asked).call();
        let server = &pair.server;
        let reply = |length, result| Reply {
            head: reply_head(1, length),
            payloads: vec![Payload { sges: server.sges(SOURCE, result, result), at: 24 }],
            user: 0,
        };
        for (length, result) in [(24, 101), (2000, 100)] {
            let error = server.session().reply(server.conn(), call, reply(length, result)).unwrap_err();
            assert_eq!(error.errno, libc::EMSGSIZE);
        }
        server.session().refuse(server.conn(), call).unwrap();
        let again = server.session().refuse(server.conn(), call).unwrap_err();
        assert_eq!(again.errno, libc::ENOENT);
        let got = pair.next();
        assert_eq!((got.kind, got.status), (kind::REPLY, -libc::EREMOTEIO));
        drop(asked);
        pair.end();
    });
}

#[test]
fn what_is_outstanding_ends_with_the_connection() {
    both(|verbs| {
        let pair = Pair::new(verbs, SMALL, SMALL);
        for xid in 1..=3 {
            let head = call_head(xid, 44);
            pair.client.call(Call { head, reply_max: 24, user: xid as usize, ..Call::default() });
        }
        let asked = pair.expect(kind::CALL);
        pair.client.conn().close().unwrap();
        let (mut ended, mut closed) = (Vec::new(), 0);
        while closed < 2 {
            let event = pair.next();
            match event.kind {
                kind::REPLY => ended.push((event.user, event.status)),
                base::CLOSED => closed += 1,
                kind => assert_eq!(kind, base::DISCONNECTED),
            }
        }
        ended.sort_unstable();
        assert_eq!(ended, [1, 2, 3].map(|user| (user, -libc::ECANCELED)));
        // The server's caller still has the one.
        assert_eq!((figures(&pair.client), figures(&pair.server)), ([1, 0, 0, 2, 0], [1, 0, 0, 4, 1]));
        let server = &pair.server;
        let reply = Reply { head: reply_head(1, 24), ..Reply::default() };
        let error = server.session().reply(server.conn(), message(&asked).call(), reply).unwrap_err();
        assert_eq!(error.errno, libc::ENOTCONN);
        drop(asked);
        pair.assert_clean();
    });
}

#[test]
fn what_may_be_told_later_comes_with_the_next_event() {
    let pair = Pair::new(false, SMALL, Config { answered_later: true, ..SMALL });
    let call = |xid| pair.client.call(Call { head: call_head(xid, 40), reply_max: 40, ..Call::default() });
    let answer = |event: &Event, user| {
        let head = reply_head(message(event).view().xid, 40);
        pair.server.reply(message(event).call(), Reply { head, payloads: Vec::new(), user });
    };
    call(1);
    answer(&pair.expect(kind::CALL), 8);
    assert_eq!(pair.expect(kind::REPLY).status, 0);
    assert!((0..50).all(|_| pair.poll().is_none()), "nothing has come since");
    call(2);
    assert_eq!(pair.expect(kind::ANSWERED).user, 8);
    answer(&pair.expect(kind::CALL), 9);
    assert_eq!(pair.expect(kind::REPLY).status, 0);
    // The last one is not forgotten.
    pair.client.conn().close().unwrap();
    let (mut told, mut closed) = (0, 0);
    while closed < 2 {
        let event = pair.next();
        told += usize::from(event.kind == kind::ANSWERED && event.user == 9);
        closed += usize::from(event.kind == base::CLOSED);
    }
    assert_eq!(told, 1);
    pair.assert_clean();
}
