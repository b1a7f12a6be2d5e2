//! Which requests are signalled although nobody asked, and which memory peers can write to, on the model.

use super::turns_test::{channel, connect};
use super::{Engine, EngineConfig, deregister, key};
use crate::memory::Access;
use crate::verbs::sys::{DeviceConfig, Fabric};
use crate::work::{Opcode, Payload, SendWr, SgeList, by_value};

/// How many completions the device makes for one Write that nobody wants to hear of.
fn completions(make: fn(&str) -> DeviceConfig, octets: usize) -> usize {
    let fabric = Fabric::enter();
    for text in ["10.77.0.1", "10.77.0.2"] {
        fabric.add_device(make(text));
    }
    let engine = Engine::create(EngineConfig::default()).unwrap();
    let (client, server) = (channel(&engine), channel(&engine));
    let (conn, peer, listener) = connect(&client, &server, "10.77.0.2:7", 0);
    let mut memory = vec![0; 8192];
    let rights = Access::from_bits(7).unwrap();
    // SAFETY: the region is deregistered before the memory goes.
    let region = unsafe { engine.register(memory.as_mut_ptr(), memory.len(), rights) }.unwrap();
    let remote_key = key(&region, Some(&*peer), 0, memory.len(), rights).unwrap();
    let count = || fabric.events().iter().filter(|event| event.starts_with("completion")).count();
    let before = count();
    let mut sges = SgeList::new();
    sges.push(region.sge(region.base(), octets).unwrap());
    let mut wr = Some(SendWr {
        remote_addr: region.base() as u64,
        remote_key,
        user: 1,
        ..SendWr::new(Opcode::Write, Payload::Sges(sges))
    });
    conn.post(1, &mut by_value(|_| Ok(wr.take().unwrap()))).unwrap();
    let made = count() - before;
    drop((conn, peer, listener));
    client.destroy().unwrap();
    server.destroy().unwrap();
    deregister(&region).unwrap();
    engine.destroy().unwrap();
    drop((client, server, region));
    fabric.assert_clean();
    made
}

/// siw lends memory to TCP beyond the completion that says it is free, unless the request is signalled.
#[test]
fn long_requests_to_siw_are_signalled() {
    let made = [completions(DeviceConfig::siw, 4095), completions(DeviceConfig::siw, 4096)];
    assert_eq!((made, completions(DeviceConfig::iwarp, 4096)), ([0, 1], 0));
}

/// Memory that a device lets a peer write to may change at any time, for the other provider as well.
#[test]
fn a_key_of_a_device_counts_as_long_as_it_lives() {
    let fabric = Fabric::enter();
    for text in ["10.77.0.1", "10.77.0.2"] {
        fabric.add_device(DeviceConfig::ib(text));
    }
    let engine = Engine::create(EngineConfig::default()).unwrap();
    let (client, server) = (channel(&engine), channel(&engine));
    let (conn, peer, listener) = connect(&client, &server, "10.77.0.2:7", 0);
    let mut memory = vec![0; 4096];
    let rights = Access::from_bits(7).unwrap();
    // SAFETY: the region is deregistered before the memory goes.
    let region = unsafe { engine.register(memory.as_mut_ptr(), memory.len(), rights) }.unwrap();
    let of = |rights| key(&region, Some(&*peer), 0, 4096, Access::from_bits(rights).unwrap()).unwrap();
    let _to_read = of(Access::REMOTE_READ.bits());
    assert!(!region.is_writable_by_peers());
    let to_write = of(rights.bits());
    assert!(region.is_writable_by_peers());
    region.revoke_key(to_write).unwrap();
    assert!(!region.is_writable_by_peers());
    drop((conn, peer, listener));
    client.destroy().unwrap();
    server.destroy().unwrap();
    deregister(&region).unwrap();
    engine.destroy().unwrap();
    drop((client, server, region));
    fabric.assert_clean();
}
