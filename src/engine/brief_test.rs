//! A connection that its peer ends at once, on the model.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{
    AcceptConfig, Channel, ChannelConfig, ConnectConfig, Engine, EngineConfig, ListenConfig, Object,
    PROVIDER_VERBS, QpConfig, Target, kind, object,
};
use crate::verbs::sys::{DeviceConfig, Fabric};

const PATIENCE: Duration = Duration::from_secs(10);

/// On iWARP the passive side waits a moment for the peer to speak. One that leaves instead was there all the same.
#[test]
fn a_peer_that_says_nothing_was_connected() {
    let fabric = Fabric::enter();
    let addr = |text: &str| socket2::SockAddr::from(text.parse::<SocketAddr>().unwrap());
    for text in ["10.77.0.1", "10.77.0.2"] {
        fabric.add_device(DeviceConfig::iwarp(text));
    }
    let engine = Engine::create(EngineConfig::default()).unwrap();
    let channels = [(); 2].map(|()| {
        let config = ChannelConfig { manual: true, spin_us: Some(0), ..ChannelConfig::default() };
        Channel::create(&engine, config).unwrap()
    });
    let [client, server] = &channels;
    let qp = QpConfig { provider: PROVIDER_VERBS, ..QpConfig::default() };
    let config = ListenConfig { qp: qp.clone(), ..ListenConfig::default() };
    let listener = server.listen(&addr("10.77.0.2:7"), config).unwrap();
    let target = Target::Addresses(vec![addr("10.77.0.2:7")]);
    let conn = client.connect(target, ConnectConfig { qp, ..ConnectConfig::default() }).unwrap();
    let mut seen = Vec::new();
    let end = Instant::now() + PATIENCE;
    while !seen.contains(&kind::CLOSED) {
        assert!(Instant::now() < end, "{seen:?}");
        client.run(Some(Duration::ZERO)).unwrap();
        let mut established = false;
        client.next(8, &mut |event| established |= event.kind == kind::ESTABLISHED).unwrap();
        if established {
            conn.disconnect().unwrap();
            client.run(Some(Duration::ZERO)).unwrap();
        }
        server.run(Some(Duration::from_millis(1))).unwrap();
        let mut request = None;
        server
            .next(8, &mut |event| {
                seen.push(event.kind);
                if event.kind == kind::CONNECT_REQUEST {
                    request = object(event.conn);
                }
            })
            .unwrap();
        if let Some(Object::Conn(peer)) = request {
            peer.accept(AcceptConfig::default()).unwrap();
        }
    }
    assert_eq!(seen, [kind::CONNECT_REQUEST, kind::ESTABLISHED, kind::DISCONNECTED, kind::CLOSED]);
    drop((conn, listener));
    for channel in &channels {
        channel.destroy().unwrap();
    }
    engine.destroy().unwrap();
    drop(channels);
    fabric.assert_clean();
}
