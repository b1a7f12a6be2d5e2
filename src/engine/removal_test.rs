//! A device that goes with both ends of a connection on it, on the model.

use super::turns_test::{channel, connect, next, piece, send, wait};
use super::{Engine, EngineConfig, deregister, kind};
use crate::error::Reason;
use crate::memory::Access;
use crate::verbs::sys::{DeviceConfig, Fabric, Removal};

/// rdma_cm tells the one end, whose engine tears it down, and is then kept from telling the other, whose device fails what
/// is posted or tells that the peer has left.
fn one_end_hears_first(config: DeviceConfig, posts: bool) {
    let fabric = Fabric::enter();
    let device = fabric.add_device(config);
    let engines = [(); 2].map(|()| Engine::create(EngineConfig::default()).unwrap());
    let (client, server) = (channel(&engines[0]), channel(&engines[1]));
    let (conn, peer, listener) = connect(&client, &server, "10.77.0.1:7", 2);
    let mut memory = [0; 8];
    // SAFETY: the region is deregistered before the memory goes.
    let mut region = || unsafe { engines[1].register(memory.as_mut_ptr(), 8, Access::LOCAL) }.unwrap();
    let known = region();
    send(&peer, piece(&known, 0)).unwrap();
    wait(&[&server], kind::COMPLETION);
    wait(&[&client], kind::RECV);

    fabric.begin_removal(device);
    wait(&[&client], kind::CLOSED);
    let unknown = region();
    if posts {
        assert_eq!(send(&peer, piece(&unknown, 0)).unwrap_err().errno, libc::ENOTCONN);
        send(&peer, piece(&known, 0)).unwrap();
        assert_ne!(next(&[&server]).status, 0);
    }
    let end = next(&[&server]);
    assert_eq!(end.kind, kind::DISCONNECTED);
    let report = end.error.unwrap();
    assert_eq!((report.reason, report.code), (Reason::DeviceGone as u32, -libc::ENODEV));
    wait(&[&server], kind::CLOSED);
    fabric.remove_device(device, Removal::Orderly);

    drop((conn, peer, listener));
    client.destroy().unwrap();
    server.destroy().unwrap();
    [&known, &unknown].into_iter().for_each(|region| deregister(region).unwrap());
    drop((client, server, known, unknown));
    engines.iter().for_each(|engine| engine.destroy().unwrap());
    fabric.assert_clean();
}

#[test]
fn a_failed_operation_is_the_removal() {
    one_end_hears_first(DeviceConfig::ib("10.77.0.1"), true);
}

#[test]
fn a_peer_that_leaves_is_the_removal() {
    one_end_hears_first(DeviceConfig::iwarp("10.77.0.1"), false);
}
