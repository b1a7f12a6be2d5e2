//! The engine end to end over loopback, as the C API uses it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdmacm_gluster::engine::{
    AcceptConfig, Channel, ChannelConfig, Conn, ConnectConfig, Engine, EngineConfig, Event, ListenConfig,
    Object, Target, deregister, kind, object, resolve,
};
use rdmacm_gluster::memory::{Access, Region};
use rdmacm_gluster::work::{Opcode, Payload, SendWr, SgeList, by_value, flags};

const PATIENCE: Duration = Duration::from_secs(10);

/// A channel in queue mode and the events fetched from it.
struct Side {
    channel: Arc<Channel>,
    events: VecDeque<Event>,
}

impl Side {
    fn new(engine: &Arc<Engine>, manual: bool) -> Self {
        let config = ChannelConfig { manual, ..ChannelConfig::default() };
        Self { channel: Channel::create(engine, config).unwrap(), events: VecDeque::new() }
    }
}

/// Waits for the next event of `side`, driving both where they have no thread.
fn next(sides: &mut [Side; 2], side: usize, manual: bool) -> Event {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(event) = sides[side].events.pop_front() {
            return event;
        }
        assert!(Instant::now() < end, "no event within {PATIENCE:?}");
        for side in sides.iter_mut() {
            if manual {
                side.channel.run(Some(Duration::from_millis(1))).unwrap();
            }
            let events = &mut side.events;
            side.channel.next(64, &mut |event| events.push_back(event.clone())).unwrap();
        }
    }
}

fn conn(event: &Event) -> Arc<Conn> {
    match object(event.conn) {
        Some(Object::Conn(conn)) => conn,
        _ => panic!("no connection in event {}", event.kind),
    }
}

fn wr(opcode: Opcode, region: &Arc<Region>, offset: usize, length: usize, remote: (u64, u32)) -> SendWr {
    let mut sges = SgeList::new();
    sges.push(region.sge(region.base().wrapping_add(offset), length).unwrap());
    SendWr {
        flags: flags::SIGNALED,
        remote_addr: remote.0,
        remote_key: remote.1,
        imm: 7,
        user: 42,
        ..SendWr::new(opcode, Payload::Sges(sges))
    }
}

fn post(conn: &Arc<Conn>, mut make: impl FnMut() -> SendWr) {
    conn.post(1, &mut by_value(|_| Ok(make()))).unwrap();
}

fn loopback(addr: &str, manual: bool, crc: u32, revision: u32) {
    let engine = Engine::create(EngineConfig::default()).unwrap();
    let mut sides = [Side::new(&engine, manual), Side::new(&engine, manual)];
    let mut listen = ListenConfig::default();
    (listen.qp.recv_size, listen.qp.recv_count) = (4096, 16);
    let addr = resolve::numeric(addr, "0").unwrap().remove(0);
    let listener = sides[1].channel.listen(&addr, listen).unwrap();

    let mut config =
        ConnectConfig { private_data: b"hello".to_vec(), mpa_revision: revision, ..Default::default() };
    config.qp.crc = crc;
    let target = Target::Addresses(vec![listener.info().local]);
    let client = sides[0].channel.connect(target, config).unwrap();
    let request = next(&mut sides, 1, manual);
    assert_eq!((request.kind, request.private_data.as_deref()), (kind::CONNECT_REQUEST, Some(&b"hello"[..])));
    let server = conn(&request);
    server.accept(AcceptConfig { private_data: b"welcome".to_vec(), ..AcceptConfig::default() }).unwrap();
    let established = next(&mut sides, 0, manual);
    assert_eq!(
        (established.kind, established.private_data.as_deref()),
        (kind::ESTABLISHED, Some(&b"welcome"[..]))
    );
    assert_eq!(next(&mut sides, 1, manual).kind, kind::ESTABLISHED);
    assert_eq!(client.info().crc, crc == 1);

    const LENGTH: usize = 3 << 20;
    let mut local: Vec<u8> = (0..LENGTH).map(|index| (index * 7 + index / 251) as u8).collect();
    let mut remote = vec![0_u8; LENGTH];
    // SAFETY: both buffers outlive their regions.
    let region = unsafe { engine.register(local.as_mut_ptr(), LENGTH, Access::LOCAL) }.unwrap();
    let rights = Access::from_bits(7).unwrap();
    // SAFETY: both buffers outlive their regions.
    let target = unsafe { engine.register(remote.as_mut_ptr(), LENGTH, rights) }.unwrap();
    let key = rdmacm_gluster::engine::key(&target, Some(&server), 0, LENGTH, rights).unwrap();
    let place = (target.base() as u64, key);

    post(&client, || wr(Opcode::Write, &region, 0, LENGTH, place));
    post(&client, || wr(Opcode::Send, &region, 0, 4096, (0, 0)));
    for opcode in [Opcode::Write, Opcode::Send] {
        let done = next(&mut sides, 0, manual);
        assert_eq!((done.kind, done.op, done.status, done.user), (kind::COMPLETION, opcode as u32, 0, 42));
    }
    let received = next(&mut sides, 1, manual);
    assert_eq!((received.kind, received.status, received.length), (kind::RECV, 0, 4096));
    server.release(received.buffer).unwrap();
    assert!(remote == local, "the write arrived before the send");

    local.fill(0);
    post(&client, || wr(Opcode::Read, &region, 0, LENGTH, place));
    assert_eq!(next(&mut sides, 0, manual).op, Opcode::Read as u32);
    assert!(remote == local, "read back");

    client.disconnect().unwrap();
    for side in [0, 1] {
        assert_eq!(next(&mut sides, side, manual).kind, kind::DISCONNECTED);
        assert_eq!(next(&mut sides, side, manual).kind, kind::CLOSED);
    }
    listener.close().unwrap();
    assert_eq!(next(&mut sides, 1, manual).kind, kind::CLOSED);
    deregister(&region).unwrap();
    deregister(&target).unwrap();
    for side in &sides {
        side.channel.destroy().unwrap();
    }
    engine.destroy().unwrap();
}

#[test]
fn loopback_with_threads() {
    loopback("127.0.0.1", false, 0, 2);
}

#[test]
fn loopback_with_crc_and_revision_1() {
    loopback("::1", false, 1, 1);
}

#[test]
fn loopback_driven_by_the_caller() {
    loopback("127.0.0.1", true, 0, 2);
}

/// Waits for an event of this kind on a channel with a thread.
fn await_kind(side: &mut Side, wanted: u32) -> Event {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(at) = side.events.iter().position(|event| event.kind == wanted) {
            return side.events.remove(at).unwrap();
        }
        assert!(Instant::now() < end, "no event {wanted} within {PATIENCE:?}");
        let events = &mut side.events;
        side.channel.next(64, &mut |event| events.push_back(event.clone())).unwrap();
    }
}

#[test]
fn accepted_connections_are_spread_over_channels_by_name() {
    let engine = Engine::create(EngineConfig::default()).unwrap();
    let mut client = Side::new(&engine, false);
    let mut servers = [(); 3].map(|()| Side::new(&engine, false));
    let channels = servers.iter().map(|side| Arc::clone(&side.channel)).collect();
    let addr = resolve::numeric("127.0.0.1", "0").unwrap().remove(0);
    let listener =
        client.channel.listen(&addr, ListenConfig { channels, ..ListenConfig::default() }).unwrap();
    let port = listener.info().local.as_socket().unwrap().port();
    let mut dial = |accepting: &mut [Side], turn: usize| {
        let target = Target::Host("localhost".into(), port.to_string());
        client.channel.connect(target, ConnectConfig::default()).unwrap();
        let side = &mut accepting[turn % accepting.len()];
        let request = await_kind(side, kind::CONNECT_REQUEST);
        conn(&request).accept(AcceptConfig::default()).unwrap();
        await_kind(side, kind::ESTABLISHED);
        await_kind(&mut client, kind::ESTABLISHED);
    };
    for turn in 0..9 {
        dial(&mut servers, turn);
    }
    // A channel that is gone is left out, and its connections have ended.
    servers[0].channel.destroy().unwrap();
    for turn in [0, 0, 1] {
        dial(&mut servers[1..], turn);
    }
    assert_eq!(listener.info().accepted, 12);
    for _ in 0..3 {
        await_kind(&mut client, kind::DISCONNECTED);
    }
    client.channel.destroy().unwrap();
    servers[1..].iter().for_each(|side| side.channel.destroy().unwrap());
    engine.destroy().unwrap();
}

/// Somebody asks all the time; what has been counted once must not go, nor be counted twice.
#[test]
fn counters_lose_nothing_while_connections_come_and_go() {
    const ROUNDS: u64 = 40;
    let engine = Engine::create(EngineConfig::default()).unwrap();
    let mut sides = [Side::new(&engine, false), Side::new(&engine, false)];
    let mut listen = ListenConfig::default();
    (listen.qp.recv_size, listen.qp.recv_count) = (64, 4);
    let addr = resolve::numeric("127.0.0.1", "0").unwrap().remove(0);
    let listener = sides[1].channel.listen(&addr, listen).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut before, end) = (engine.stats(), Instant::now() + 6 * PATIENCE);
            while !done.load(std::sync::atomic::Ordering::Relaxed) && Instant::now() < end {
                let now = engine.stats();
                assert!(now.connects >= before.connects && now.requests >= before.requests);
                assert!(now.established >= before.established && now.established <= 2 * ROUNDS);
                assert!(now.ops.iter().zip(before.ops).all(|(now, before)| *now >= before), "{now:?}");
                assert!(now.events >= before.events && now.send_calls >= before.send_calls);
                before = now;
            }
        });
        for _ in 0..ROUNDS {
            let target = Target::Addresses(vec![listener.info().local]);
            let client = sides[0].channel.connect(target, ConnectConfig::default()).unwrap();
            conn(&await_kind(&mut sides[1], kind::CONNECT_REQUEST)).accept(AcceptConfig::default()).unwrap();
            await_kind(&mut sides[0], kind::ESTABLISHED);
            post(&client, || SendWr {
                opcode: Opcode::Send,
                flags: 0,
                payload: Payload::Sges(SgeList::new()),
                remote_addr: 0,
                remote_key: 0,
                imm: 0,
                invalidate_key: 0,
                user: 0,
            });
            await_kind(&mut sides[1], kind::RECV);
            client.disconnect().unwrap();
            sides.iter_mut().for_each(|side| drop(await_kind(side, kind::CLOSED)));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let check = |when: &str| {
        let stats = engine.stats();
        assert_eq!(
            (stats.connects, stats.requests, stats.established),
            (ROUNDS, ROUNDS, 2 * ROUNDS),
            "{when}"
        );
        let ops = [Opcode::Send, Opcode::Recv].map(|op| stats.ops[op as usize]);
        assert_eq!(ops, [ROUNDS, ROUNDS], "{when}");
        assert_eq!(stats.ended_for.iter().sum::<u64>(), 2 * ROUNDS, "{when}");
        stats.open
    };
    check("while the channels live");
    sides.iter().for_each(|side| side.channel.destroy().unwrap());
    assert_eq!(check("after them"), 0);
    engine.destroy().unwrap();
}
