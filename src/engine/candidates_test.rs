//! Several addresses of one peer on the model: what of an attempt that failed stays for the next.

use std::time::{Duration, Instant};

use super::turns_test::{PATIENCE, accept, addr, channel, next, piece, send, wait};
use super::{
    ConnectConfig, Engine, EngineConfig, ListenConfig, PROVIDER_AUTO, PROVIDER_IWARP, PROVIDER_VERBS,
    QpConfig, Target, deregister, kind,
};
use crate::memory::Access;
use crate::verbs::sys::{DeviceConfig, Fabric, Removal};
use crate::work::{RecvWr, by_value};

/// The device of the first attempt goes, or its peer refuses, while receives are posted to it.
fn receives_survive(goes: bool, managed: bool) {
    let fabric = Fabric::enter();
    let first = fabric.add_device(DeviceConfig::ib("10.77.1.1"));
    for addr in ["10.77.1.2", "10.77.0.1", "10.77.0.2"] {
        fabric.add_device(DeviceConfig::ib(addr));
    }
    let engine = Engine::create(EngineConfig::default()).unwrap();
    let (client, server) = (channel(&engine), channel(&engine));
    let qp = QpConfig { provider: PROVIDER_VERBS, ..QpConfig::default() };
    let listen = |text: &str| {
        server.listen(&addr(text), ListenConfig { qp: qp.clone(), ..ListenConfig::default() }).unwrap()
    };
    let mut listeners = vec![listen("10.77.0.2:7")];
    if goes {
        listeners.push(listen("10.77.1.2:7"));
    }
    let mut memory = [0; 64];
    // SAFETY: the region is deregistered before the memory goes.
    let region = unsafe { engine.register(memory.as_mut_ptr(), 64, Access::LOCAL) }.unwrap();
    let target = Target::Addresses(vec![addr("10.77.1.2:7"), addr("10.77.0.2:7")]);
    let mut config = ConnectConfig { qp, ..ConnectConfig::default() };
    if managed {
        (config.qp.recv_size, config.qp.recv_count) = (8, 1);
    }
    let conn = client.connect(target, config).unwrap();
    let posted = conn.post_recv(1, &mut by_value(|_| Ok(RecvWr { sges: piece(&region, 0), user: 42 })));
    assert_eq!(posted.is_err(), managed);
    let mut request = wait(&[&client, &server], kind::CONNECT_REQUEST);
    if goes {
        fabric.remove_device(first, Removal::Surprise);
        // Its completions may be seen before rdma_cm tells.
        request = wait(&[&client, &server], kind::CONNECT_REQUEST);
    }
    let peer = accept(&request);
    wait(&[&client, &server], kind::ESTABLISHED);
    wait(&[&server], kind::ESTABLISHED);
    send(&peer, piece(&region, 8)).unwrap();
    let got = next(&[&client]);
    let user = if managed { 0 } else { 42 };
    assert_eq!((got.kind, got.user, got.status, got.length), (kind::RECV, user, 0, 8));
    drop((conn, peer, listeners));
    client.destroy().unwrap();
    server.destroy().unwrap();
    deregister(&region).unwrap();
    engine.destroy().unwrap();
    drop((client, server, region));
    fabric.assert_clean();
}

#[test]
fn receives_stay_when_the_device_goes() {
    receives_survive(true, false);
    receives_survive(true, true);
}

#[test]
fn receives_stay_when_nobody_listens() {
    receives_survive(false, false);
    receives_survive(false, true);
}

/// With `auto` TCP is tried where no device serves the address, and the receives go there too.
fn falls_back_to_tcp(managed: bool) {
    let fabric = Fabric::enter();
    fabric.add_device(DeviceConfig::ib("10.77.0.1"));
    let engine = Engine::create(EngineConfig::default()).unwrap();
    let (client, server) = (channel(&engine), channel(&engine));
    let qp = QpConfig { provider: PROVIDER_AUTO, ..QpConfig::default() };
    let config = ListenConfig { qp: qp.clone(), ..ListenConfig::default() };
    let listener = server.listen(&addr("127.0.0.1:0"), config).unwrap();
    let mut memory = [0; 64];
    // SAFETY: the region is deregistered before the memory goes.
    let region = unsafe { engine.register(memory.as_mut_ptr(), 64, Access::LOCAL) }.unwrap();
    let target = Target::Addresses(vec![listener.info().local]);
    let mut config = ConnectConfig { qp, ..ConnectConfig::default() };
    if managed {
        (config.qp.recv_size, config.qp.recv_count) = (8, 1);
    }
    let conn = client.connect(target, config).unwrap();
    let posted = conn.post_recv(1, &mut by_value(|_| Ok(RecvWr { sges: piece(&region, 0), user: 42 })));
    assert_eq!(posted.is_err(), managed);
    let request = wait(&[&client, &server], kind::CONNECT_REQUEST);
    let peer = accept(&request);
    wait(&[&client, &server], kind::ESTABLISHED);
    wait(&[&client, &server], kind::ESTABLISHED);
    assert_eq!(conn.info().provider, PROVIDER_IWARP);
    send(&peer, piece(&region, 8)).unwrap();
    let got = wait(&[&client, &server], kind::RECV);
    let user = if managed { 0 } else { 42 };
    assert_eq!((got.user, got.status, got.length), (user, 0, 8));
    drop((conn, peer, listener));
    client.destroy().unwrap();
    server.destroy().unwrap();
    deregister(&region).unwrap();
    engine.destroy().unwrap();
    drop((client, server, region));
    fabric.assert_clean();
}

#[test]
fn auto_falls_back_to_tcp() {
    falls_back_to_tcp(false);
    falls_back_to_tcp(true);
}

/// A listener whose device goes listens again when that comes back.
#[test]
fn a_listener_comes_back_with_its_device() {
    let fabric = Fabric::enter();
    fabric.add_device(DeviceConfig::ib("10.77.0.1"));
    let device = fabric.add_device(DeviceConfig::ib("10.77.0.2"));
    let engine = Engine::create(EngineConfig::default()).unwrap();
    let (client, server) = (channel(&engine), channel(&engine));
    let qp = QpConfig { provider: PROVIDER_VERBS, ..QpConfig::default() };
    let config = ListenConfig { qp: qp.clone(), ..ListenConfig::default() };
    let listener = server.listen(&addr("10.77.0.2:7"), config).unwrap();
    fabric.remove_device(device, Removal::Orderly);
    server.run(Some(Duration::from_millis(1))).unwrap();
    let connect = || {
        let target = Target::Addresses(vec![addr("10.77.0.2:7")]);
        client.connect(target, ConnectConfig { qp: qp.clone(), ..ConnectConfig::default() }).unwrap()
    };
    drop(connect());
    wait(&[&client], kind::CONNECT_FAILED);
    wait(&[&client], kind::CLOSED);
    fabric.add_device(DeviceConfig::ib("10.77.0.2"));
    let end = Instant::now() + PATIENCE;
    // It looks once a second.
    loop {
        drop(connect());
        let mut events = Vec::new();
        while !events.contains(&kind::CLOSED) && !events.contains(&kind::CONNECT_REQUEST) {
            assert!(Instant::now() < end, "still nobody listens");
            for channel in [&client, &server] {
                channel.run(Some(Duration::from_millis(5))).unwrap();
                channel.next(8, &mut |event| events.push(event.kind)).unwrap();
            }
        }
        if events.contains(&kind::CONNECT_REQUEST) {
            break;
        }
    }
    drop(listener);
    client.destroy().unwrap();
    server.destroy().unwrap();
    engine.destroy().unwrap();
    drop((client, server));
    fabric.assert_clean();
}
