use super::*;
use crate::memory::Access;

fn memory(len: usize) -> (Vec<u8>, Arc<KeyTable>) {
    (vec![0; len], KeyTable::new())
}

fn region(table: &Arc<KeyTable>, octets: &mut [u8], access: u32) -> Arc<Region> {
    // SAFETY: the memory outlives the region, or is never touched.
    unsafe { Region::new(table, octets.as_mut_ptr(), octets.len(), Access::from_bits(access).unwrap()) }
        .unwrap()
}

const WRITE: Access = Access::REMOTE_WRITE;
const READ: Access = Access::REMOTE_READ;

#[test]
fn a_key_serves_its_range_its_rights_and_its_owner_only() {
    let (mut octets, table) = memory(100);
    let region = region(&table, &mut octets, 7);
    let base = region.base() as u64;
    let key = region.key(Owner::Stream(1), 10, 20, WRITE).unwrap();
    let fault =
        |offset, length, access, stream| table.check(key, offset, length, access, stream).unwrap_err();
    assert!(table.check(key, base + 10, 20, WRITE, 1).is_ok());
    assert!(table.check(key, base + 30, 0, WRITE, 1).is_ok());
    assert_eq!(fault(base + 9, 1, WRITE, 1), KeyFault::Bounds);
    assert_eq!(fault(base + 10, 21, WRITE, 1), KeyFault::Bounds);
    assert_eq!(fault(base + 31, 0, WRITE, 1), KeyFault::Bounds);
    assert_eq!(fault(0, 1, WRITE, 1), KeyFault::Bounds);
    assert_eq!(fault(base + 10, u64::MAX, WRITE, 1), KeyFault::Wrap);
    assert_eq!(fault(u64::MAX, 1, WRITE, 1), KeyFault::Wrap);
    assert_eq!(fault(base + 10, 1, READ, 1), KeyFault::Access);
    assert_eq!(fault(base + 10, 1, WRITE, 2), KeyFault::NotAssociated);
    assert_eq!(table.check(key ^ 1, base + 10, 1, WRITE, 1).unwrap_err(), KeyFault::InvalidStag);
    // Whoever may not use a key learns nothing of its rights or its range.
    assert_eq!(fault(0, u64::MAX, READ, 2), KeyFault::NotAssociated);
    // A placement is checked again: it may be called with more than was checked.
    let found = table.check(key, base + 10, 20, WRITE, 1).unwrap();
    assert_eq!(found.place(base + 29, &[1, 2]), Err(KeyFault::Bounds));
    assert_eq!(found.place(u64::MAX, &[1, 2]), Err(KeyFault::Wrap));
    assert_eq!(found.fetch(base + 9, &mut [0]), Err(KeyFault::Bounds));
    found.place(base + 28, &[1, 2]).unwrap();
    drop((region, found));
    let expected: Vec<u8> =
        (0..100).map(|at| [1, 2].get((at as usize).wrapping_sub(28)).copied().unwrap_or(0)).collect();
    assert_eq!(octets, expected);
}

#[test]
fn a_domain_key_serves_every_stream_and_a_peer_cannot_end_it() {
    let (mut octets, table) = memory(8);
    let region = region(&table, &mut octets, 4);
    let key = region.key(Owner::Domain, 0, 8, WRITE).unwrap();
    assert!(table.check(key, region.base() as u64, 8, WRITE, 1).is_ok());
    assert!(table.check(key, region.base() as u64, 8, WRITE, u64::MAX).is_ok());
    assert_eq!(table.invalidate(key, 1), Err(KeyFault::CannotInvalidate));
    table.revoke_stream(1);
    assert!(table.is_live(key));
}

#[test]
fn invalidation_is_for_the_own_stream_and_happens_once() {
    let (mut octets, table) = memory(8);
    let region = region(&table, &mut octets, 4);
    let key = region.key(Owner::Stream(5), 0, 8, WRITE).unwrap();
    let held = table.check(key, region.base() as u64, 8, WRITE, 5).unwrap();
    assert_eq!(table.invalidate(key, 6), Err(KeyFault::NotAssociated));
    assert_eq!(table.invalidate(key, 5), Ok(()));
    assert_eq!(table.invalidate(key, 5), Err(KeyFault::InvalidStag));
    // Found before, dead all the same.
    assert_eq!(held.place(region.base() as u64, &[1]), Err(KeyFault::InvalidStag));
    assert_eq!(held.fetch(region.base() as u64, &mut [1]), Err(KeyFault::InvalidStag));
    assert_eq!(region.revoke_key(key).unwrap_err().errno, libc::ENOENT);
}

#[test]
fn the_end_of_a_stream_or_a_region_takes_its_keys_and_no_other() {
    let (mut octets, table) = memory(16);
    let (first, second) = octets.split_at_mut(8);
    let (first, second) = (region(&table, first, 6), region(&table, second, 6));
    let keys: Vec<_> = [(&first, 1), (&first, 2), (&second, 1), (&second, 2)]
        .map(|(region, stream)| region.key(Owner::Stream(stream), 0, 4, READ).unwrap())
        .to_vec();
    let live = || keys.iter().map(|key| table.is_live(*key)).collect::<Vec<_>>();
    assert_eq!(first.revoke_key(keys[2]).unwrap_err().errno, libc::ENOENT);
    table.revoke_stream(1);
    assert_eq!(live(), [false, true, false, true]);
    first.deregister().unwrap();
    assert_eq!(live(), [false, false, false, true]);
    second.revoke_key(keys[3]).unwrap();
    assert!(table.is_empty());
    let inner = table.inner.read();
    assert!(inner.by_stream.is_empty() && inner.by_region.is_empty());
}

#[test]
fn a_region_that_is_dropped_takes_its_keys_along() {
    let (mut octets, table) = memory(8);
    let region = region(&table, &mut octets, 4);
    let key = region.key(Owner::Domain, 0, 8, WRITE).unwrap();
    let held = table.check(key, region.base() as u64, 1, WRITE, 0).unwrap();
    let base = region.base() as u64;
    drop(region);
    assert!(table.is_empty());
    assert_eq!(held.place(base, &[1]), Err(KeyFault::InvalidStag));
}

#[test]
fn a_hundred_thousand_keys_are_distinct_and_in_no_order() {
    let (mut octets, table) = memory(8);
    let region = region(&table, &mut octets, 4);
    let keys: Vec<u32> =
        (0..100_000).map(|stream| region.key(Owner::Stream(stream), 0, 8, WRITE).unwrap()).collect();
    assert_eq!(table.len(), 100_000);
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), 100_000);
    assert!(!keys.contains(&0) && !keys.contains(&1));
    let rising = keys.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!((48_000..52_000).contains(&rising), "{rising} rising pairs");
    // The next key is not near the one before it either.
    let near = keys.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 65_536).count();
    assert!(near < 30, "{near} neighbours");
    let ones: u32 = keys.iter().map(|key| key.count_ones()).sum();
    assert!((1_590_000..1_610_000).contains(&ones), "{ones} bits set");
    for stream in 0..50_000 {
        table.revoke_stream(stream);
    }
    assert_eq!(table.len(), 50_000);
    region.deregister().unwrap();
    assert!(table.is_empty());
}

#[test]
fn revocation_waits_for_a_placement_under_way() {
    let (mut octets, table) = memory(8);
    let region = region(&table, &mut octets, 4);
    let key = region.key(Owner::Domain, 0, 8, WRITE).unwrap();
    let held = table.check(key, region.base() as u64, 8, WRITE, 0).unwrap();
    let placing = held.valid.read();
    std::thread::scope(|scope| {
        // Two at once: neither may return before the placement is over, the one that lost the race included.
        let revoke = scope.spawn(|| region.revoke_key(key).is_ok());
        let deregister = scope.spawn(|| region.deregister().is_ok());
        while table.inner.try_write().is_none() || held.valid.try_read().is_some() {
            std::thread::yield_now();
        }
        // A revoker waits at the gate now; the key stays where the others can find it.
        assert!(table.is_live(key));
        assert!(!revoke.is_finished() && !deregister.is_finished());
        drop(placing);
        assert!(revoke.join().unwrap() | deregister.join().unwrap());
    });
    assert!(table.is_empty());
}

/// Memory is handed back while another thread places: not one octet may land afterwards.
#[test]
fn nothing_is_placed_after_revocation() {
    let table = KeyTable::new();
    for _round in 0..200 {
        let mut octets = vec![0u8; 4096];
        let region = region(&table, &mut octets, 4);
        let base = region.base() as u64;
        let key = region.key(Owner::Domain, 0, 4096, WRITE).unwrap();
        let held = table.check(key, base, 4096, WRITE, 0).unwrap();
        let pattern = [7u8; 4096];
        std::thread::scope(|scope| {
            let placer = scope.spawn(|| while held.place(base, &pattern).is_ok() {});
            region.deregister().unwrap();
            // SAFETY: in bounds; deregistered, so that only this thread touches it.
            unsafe { std::ptr::write_bytes(region.base(), 9, 4096) };
            placer.join().unwrap();
        });
        drop(region);
        assert!(octets.iter().all(|octet| *octet == 9));
    }
}

#[test]
fn a_key_that_is_being_revoked_is_not_entered() {
    let (mut octets, table) = memory(8);
    let region = region(&table, &mut octets, 4);
    let key = region.key(Owner::Domain, 0, 8, WRITE).unwrap();
    let held = table.check(key, region.base() as u64, 8, WRITE, 0).unwrap();
    let both = (held.enter().unwrap(), held.enter().unwrap());
    std::thread::scope(|scope| {
        let revoker = scope.spawn(|| region.revoke_key(key).unwrap());
        // Those that are in stay in; whoever comes now is refused and does not wait.
        while held.enter().is_some() {
            std::thread::yield_now();
        }
        assert!(!revoker.is_finished());
        drop(both);
        revoker.join().unwrap();
    });
    assert!(held.enter().is_none());
}
