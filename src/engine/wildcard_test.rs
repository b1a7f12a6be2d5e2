//! Listeners on all addresses, on the model.

use super::turns_test::{accept, addr, channel, wait};
use super::{ConnectConfig, Engine, EngineConfig, ListenConfig, PROVIDER_VERBS, QpConfig, Target, kind};
use crate::verbs::sys::{DeviceConfig, Fabric};

fn verbs() -> QpConfig {
    QpConfig { provider: PROVIDER_VERBS, ..QpConfig::default() }
}

fn device(make: fn(&str) -> DeviceConfig) -> DeviceConfig {
    let mut config = make("10.77.0.1");
    config.addrs.push("fd77::1".parse().unwrap());
    config
}

#[test]
fn both_families_reach_it() {
    for make in [DeviceConfig::ib, DeviceConfig::siw] {
        let fabric = Fabric::enter();
        fabric.add_device(device(make));
        let engine = Engine::create(EngineConfig::default()).unwrap();
        let (client, server) = (channel(&engine), channel(&engine));
        let listener =
            server.listen(&addr("[::]:7"), ListenConfig { qp: verbs(), ..ListenConfig::default() });
        for at in ["10.77.0.1:7", "[fd77::1]:7"] {
            let config = ConnectConfig { qp: verbs(), ..ConnectConfig::default() };
            let conn = client.connect(Target::Addresses(vec![addr(at)]), config).unwrap();
            let peer = accept(&wait(&[&client, &server], kind::CONNECT_REQUEST));
            wait(&[&client, &server], kind::ESTABLISHED);
            wait(&[&client, &server], kind::ESTABLISHED);
            let family = |addr: Option<socket2::SockAddr>| addr.map(|addr| addr.family());
            assert_eq!(family(peer.info().peer), Some(addr(at).family()));
            conn.close().unwrap();
            wait(&[&client, &server], kind::DISCONNECTED);
            peer.close().unwrap();
        }
        listener.unwrap().close().unwrap();
        client.destroy().unwrap();
        server.destroy().unwrap();
        engine.destroy().unwrap();
        drop((client, server));
        fabric.assert_clean();
    }
}

#[test]
fn a_port_that_one_family_has_lost_is_taken() {
    let fabric = Fabric::enter();
    fabric.add_device(device(DeviceConfig::ib));
    let engine = Engine::create(EngineConfig::default()).unwrap();
    let server = channel(&engine);
    let listen = |at: &str, v6only| {
        server.listen(&addr(at), ListenConfig { qp: verbs(), v6only, ..ListenConfig::default() })
    };
    let first = listen("0.0.0.0:7", false).unwrap();
    assert_eq!(listen("[::]:7", false).err().map(|error| error.errno), Some(libc::EADDRINUSE));
    let other = listen("[::]:7", true).unwrap();
    first.close().unwrap();
    other.close().unwrap();
    server.destroy().unwrap();
    engine.destroy().unwrap();
    drop((first, other, server));
    fabric.assert_clean();
}
