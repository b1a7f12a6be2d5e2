//! A manual channel that is polled while completions come fast, on the model of devices.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::turns_test::{PATIENCE, connect, piece, send};
use super::{Channel, ChannelConfig, Conn, Engine, EngineConfig, deregister, kind};
use crate::memory::{Access, Region};
use crate::verbs::sys::{DeviceConfig, Fabric};

fn channel(engine: &Arc<Engine>) -> Arc<Channel> {
    let config = ChannelConfig { manual: true, spin_us: Some(10_000), ..ChannelConfig::default() };
    Channel::create(engine, config).unwrap()
}

/// Polls until the event has come.
fn poll(channel: &Arc<Channel>, wanted: u32) {
    let end = Instant::now() + PATIENCE;
    let mut seen = false;
    while !seen {
        assert!(Instant::now() < end, "no event {wanted}");
        channel.run(Some(Duration::ZERO)).unwrap();
        channel.next(8, &mut |event| seen |= event.kind == wanted).unwrap();
    }
}

/// Two channels with a connection, of which the client has receives; `test` gets the client's, the server's end, and memory to
/// send from.
fn with_a_connection(test: impl FnOnce(&Arc<Channel>, &Arc<Conn>, &Arc<Region>)) {
    let fabric = Fabric::enter();
    for text in ["10.77.0.1", "10.77.0.2"] {
        fabric.add_device(DeviceConfig::ib(text));
    }
    let engine = Engine::create(EngineConfig::default()).unwrap();
    let (client, server) = (channel(&engine), channel(&engine));
    let mut memory = [0_u8; 64];
    // SAFETY: the region is deregistered before the memory goes.
    let region = unsafe { engine.register(memory.as_mut_ptr(), 64, Access::LOCAL) }.unwrap();
    let (conn, peer, listener) = connect(&client, &server, "10.77.0.2:7", 4);
    test(&client, &peer, &region);
    peer.close().unwrap();
    poll(&server, kind::CLOSED);
    poll(&client, kind::CLOSED);
    drop((conn, peer, listener));
    deregister(&region).unwrap();
    client.destroy().unwrap();
    server.destroy().unwrap();
    engine.destroy().unwrap();
    drop((client, server));
    fabric.assert_clean();
}

/// What is told by other means than completions, as the end is, is noticed by a channel that is never run but to poll.
#[test]
fn looks_at_its_descriptors_now_and_then() {
    with_a_connection(|client, peer, region| {
        send(peer, piece(region, 0)).unwrap();
        poll(client, kind::RECV);
        let looks = client.stats().loop_polls;
        for _ in 0..32 {
            client.run(Some(Duration::ZERO)).unwrap();
        }
        assert!(client.stats().loop_polls - looks >= 2, "one run in sixteen looks at the descriptors");
    });
}

/// An event that was left behind is no reason to sleep, whatever the descriptor has told before.
#[test]
fn does_not_sleep_over_events() {
    with_a_connection(|client, peer, region| {
        send(peer, piece(region, 0)).unwrap();
        poll(client, kind::RECV);
        (0..2).for_each(|_| send(peer, piece(region, 0)).unwrap());
        let end = Instant::now() + PATIENCE;
        let (mut seen, mut first) = (0, Instant::now());
        while seen < 2 {
            assert!(Instant::now() < end, "{seen} of 2");
            client.run(if seen == 0 { Some(Duration::ZERO) } else { Some(PATIENCE) }).unwrap();
            client.next(1, &mut |event| seen += usize::from(event.kind == kind::RECV)).unwrap();
            first = if seen == 0 { Instant::now() } else { first };
        }
        assert!(first.elapsed() < PATIENCE / 4, "it has slept");
    });
}
