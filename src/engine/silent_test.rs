//! Which requests are signalled although nobody asked, and which memory peers can write to, on the model.

use std::sync::Arc;

use super::turns_test::{channel, connect};
use super::{Conn, Engine, EngineConfig, deregister, key};
use crate::memory::{Access, Region};
use crate::verbs::sys::{DeviceConfig, Entered, Fabric};
use crate::work::{Opcode, Payload, SendWr, SgeList, by_value};

const ALL: u32 = 7;

/// Both ends of a connection over two devices, and memory with all rights.
fn with_a_connection<T>(
    make: fn(&str) -> DeviceConfig,
    test: impl FnOnce(&Entered, &Arc<Conn>, &Arc<Conn>, &Arc<Region>) -> T,
) -> T {
    let fabric = Fabric::enter();
    for text in ["10.77.0.1", "10.77.0.2"] {
        fabric.add_device(make(text));
    }
    let engine = Engine::create(EngineConfig::default()).unwrap();
    let (client, server) = (channel(&engine), channel(&engine));
    let (conn, peer, listener) = connect(&client, &server, "10.77.0.2:7", 0);
    let mut memory = vec![0; 8192];
    let rights = Access::from_bits(ALL).unwrap();
    // SAFETY: the region is deregistered before the memory goes.
    let region = unsafe { engine.register(memory.as_mut_ptr(), memory.len(), rights) }.unwrap();
    let result = test(&fabric, &conn, &peer, &region);
    drop((conn, peer, listener));
    client.destroy().unwrap();
    server.destroy().unwrap();
    deregister(&region).unwrap();
    engine.destroy().unwrap();
    drop((client, server, region));
    fabric.assert_clean();
    result
}

/// A key of the peer's to all of the memory.
fn key_of(region: &Arc<Region>, peer: &Arc<Conn>, rights: u32) -> u32 {
    key(region, Some(&**peer), 0, region.len(), Access::from_bits(rights).unwrap()).unwrap()
}

/// How many completions the device makes for one Write that nobody wants to hear of.
fn completions(make: fn(&str) -> DeviceConfig, octets: usize) -> usize {
    with_a_connection(make, |fabric, conn, peer, region| {
        let remote_key = key_of(region, peer, ALL);
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
        count() - before
    })
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
    with_a_connection(DeviceConfig::ib, |_, _, peer, region| {
        key_of(region, peer, Access::REMOTE_READ.bits());
        assert!(!region.is_writable_by_peers());
        let to_write = key_of(region, peer, ALL);
        assert!(region.is_writable_by_peers());
        region.revoke_key(to_write).unwrap();
        assert!(!region.is_writable_by_peers());
    });
}
