//! A connection that its peer ends at once, on the model.

use std::time::{Duration, Instant};

use super::turns_test::{PATIENCE, accept, addr, channel};
use super::{ConnectConfig, Engine, EngineConfig, ListenConfig, PROVIDER_VERBS, QpConfig, Target, kind};
use crate::verbs::sys::{DeviceConfig, Fabric};

/// On iWARP the passive side waits a moment for the peer to speak. One that leaves instead was there all the same.
#[test]
fn a_peer_that_says_nothing_was_connected() {
    let fabric = Fabric::enter();
    for text in ["10.77.0.1", "10.77.0.2"] {
        fabric.add_device(DeviceConfig::iwarp(text));
    }
    let engine = Engine::create(EngineConfig::default()).unwrap();
    let (client, server) = (channel(&engine), channel(&engine));
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
                    request = Some(event.clone());
                }
            })
            .unwrap();
        request.iter().for_each(|request| drop(accept(request)));
    }
    assert_eq!(seen, [kind::CONNECT_REQUEST, kind::ESTABLISHED, kind::DISCONNECTED, kind::CLOSED]);
    drop((conn, listener));
    client.destroy().unwrap();
    server.destroy().unwrap();
    engine.destroy().unwrap();
    drop((client, server));
    fabric.assert_clean();
}
