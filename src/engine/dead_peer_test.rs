//! Peers that die without a word, on the model.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{
    AcceptConfig, Channel, ChannelConfig, Conn, ConnectConfig, Engine, EngineConfig, Event, ListenConfig,
    Object, PROVIDER_VERBS, QpConfig, Target, deregister, key, kind, object,
};
use crate::memory::{Access, Region};
use crate::verbs::sys::{DeviceConfig, Fabric, Removal};
use crate::work::{Opcode, Payload, SendWr, SgeList, by_value, flags};

const KEEPALIVE: Duration = Duration::from_millis(100);
/// A loaded machine may be late.
const PATIENCE: Duration = Duration::from_secs(10);

type Make = fn(&str) -> DeviceConfig;
const DEVICES: [(&str, Make); 3] =
    [("InfiniBand", DeviceConfig::ib), ("iWARP", DeviceConfig::iwarp), ("siw", DeviceConfig::siw)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// It lives, and takes its time.
    None,
    /// It lives; we are away whenever we have asked.
    Away,
    /// The device is pulled out: nothing is acknowledged, which ours finds out.
    Pulled,
    /// Nothing is acknowledged, and our device goes on trying.
    Mute,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Nothing,
    Told,
    /// What nobody asked a completion for.
    Silent,
    /// Messages that wait for a receive: told, silent.
    ToldMessage,
    SilentMessage,
}

fn run(channels: &[Arc<Channel>; 2], take: &mut dyn FnMut(usize, &Event)) {
    for (side, channel) in channels.iter().enumerate() {
        channel.run(Some(Duration::from_millis(1))).unwrap();
        channel.next(64, &mut |event| take(side, event)).unwrap();
    }
}

fn post(conn: &Arc<Conn>, opcode: Opcode, region: &Arc<Region>, remote: (u64, u32), flags: u32) {
    let mut sges = SgeList::new();
    sges.push(region.sge(region.base(), 8).unwrap());
    let mut wr = Some(SendWr {
        flags,
        remote_addr: remote.0,
        remote_key: remote.1,
        user: 1,
        ..SendWr::new(opcode, Payload::Sges(sges))
    });
    conn.post(1, &mut by_value(|_| Ok(wr.take().unwrap()))).unwrap();
}

/// Connects, posts, and waits until the end of a peer is noticed, but not before it dies.
fn notices(make: Make, death: Death, last: Last) {
    let fabric = Fabric::enter();
    fabric.add_device(make("10.77.0.1"));
    let device = fabric.add_device(make("10.77.0.2"));
    let engine = Engine::create(EngineConfig::default()).unwrap();
    let channels = [(); 2].map(|()| {
        let config = ChannelConfig { manual: true, spin_us: Some(0), ..ChannelConfig::default() };
        Channel::create(&engine, config).unwrap()
    });
    let mut memory = [0; 64];
    let rights = Access::from_bits(7).unwrap();
    // SAFETY: the region is deregistered before the memory goes.
    let region = unsafe { engine.register(memory.as_mut_ptr(), 64, rights) }.unwrap();
    let keepalive_ms = KEEPALIVE.as_millis() as u32;
    let qp = QpConfig { provider: PROVIDER_VERBS, keepalive_ms, ..QpConfig::default() };
    let addr: SocketAddr = "10.77.0.2:7".parse().unwrap();
    let listen = ListenConfig { qp: qp.clone(), ..ListenConfig::default() };
    let listener = channels[1].listen(&addr.into(), listen).unwrap();
    let config = ConnectConfig { qp, ..ConnectConfig::default() };
    let conn = channels[0].connect(Target::Addresses(vec![addr.into()]), config).unwrap();
    let (mut peer, mut established) = (None, 0);
    let end = Instant::now() + PATIENCE;
    while established < 2 {
        assert!(Instant::now() < end);
        run(&channels, &mut |_, event| match (event.kind, object(event.conn)) {
            (kind::CONNECT_REQUEST, Some(Object::Conn(conn))) => {
                conn.accept(AcceptConfig::default()).unwrap();
                peer = Some(conn);
            }
            (kind::ESTABLISHED, _) => established += 1,
            (other, _) => panic!("event {other}"),
        });
    }
    let key = key(&region, peer.as_deref(), 0, 64, rights).unwrap();
    let remote = (region.base().wrapping_add(32) as u64, key);
    match last {
        Last::Nothing => {}
        Last::Told => post(&conn, Opcode::Write, &region, remote, flags::SIGNALED),
        Last::Silent => post(&conn, Opcode::Write, &region, remote, 0),
        Last::ToldMessage => post(&conn, Opcode::Send, &region, (0, 0), flags::SIGNALED),
        Last::SilentMessage => post(&conn, Opcode::Send, &region, (0, 0), 0),
    }
    // All of that is seen, and the peer is alive for a while.
    let began = Instant::now();
    let lives = [Death::None, Death::Away].contains(&death);
    let while_it_lives = if lives { 6 } else { 2 };
    let asked = || fabric.calls().iter().filter(|call| **call == "ibv_post_send").count();
    while began.elapsed() < KEEPALIVE * while_it_lives {
        let before = asked();
        run(&channels, &mut |_, event| assert_eq!(event.kind, kind::COMPLETION, "a living peer"));
        if death == Death::Away && asked() > before {
            std::thread::sleep(KEEPALIVE * 3 / 2);
        }
    }
    match death {
        Death::Pulled => fabric.remove_device(device, Removal::Surprise),
        Death::Mute => fabric.defer_work(true),
        Death::None | Death::Away => {}
    }
    let died = Instant::now();
    let mut noticed = lives;
    while !noticed {
        assert!(died.elapsed() < PATIENCE, "nobody notices");
        run(&channels, &mut |side, event| noticed |= side == 0 && event.kind == kind::DISCONNECTED);
    }
    drop((conn, peer, listener));
    for channel in &channels {
        channel.destroy().unwrap();
    }
    deregister(&region).unwrap();
    engine.destroy().unwrap();
    drop((channels, region));
    fabric.assert_clean();
}

#[test]
fn a_peer_that_takes_its_time_is_not_dead() {
    for last in [Last::Nothing, Last::Silent, Last::ToldMessage, Last::SilentMessage] {
        notices(DeviceConfig::ib, Death::None, last);
    }
    for last in [Last::Nothing, Last::Silent] {
        notices(DeviceConfig::siw, Death::None, last);
    }
}

/// As with a callback that takes its time, or a program that runs its channel now and then.
#[test]
fn who_is_away_does_not_blame_the_peer() {
    notices(DeviceConfig::ib, Death::Away, Last::Nothing);
}

#[test]
fn a_dead_peer_is_noticed() {
    for (name, make) in DEVICES {
        for death in [Death::Pulled, Death::Mute] {
            for last in [Last::Nothing, Last::Told, Last::Silent] {
                eprintln!("{name}, {death:?}, {last:?}");
                notices(make, death, last);
            }
        }
    }
}
