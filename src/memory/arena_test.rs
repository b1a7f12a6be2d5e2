use super::*;
use crate::memory::Owner;

fn arena(buffer_size: usize, slab: usize, max: usize) -> Arc<Arena> {
    let access = Access::from_bits(7).unwrap();
    Arena::new(&KeyTable::new(), ArenaConfig { buffer_size, slab, max, access }).unwrap()
}

fn take(arena: &Arena) -> Result<(*mut u8, usize, Arc<Region>)> {
    arena.take(|_| Ok(()))
}

fn errno<T>(result: Result<T>) -> i32 {
    result.err().map_or(0, |error| error.errno)
}

#[test]
fn bad_configurations_are_refused() {
    let table = KeyTable::new();
    let access = Access::LOCAL;
    for (buffer_size, slab, max) in
        [(0, 1, 1), (usize::MAX, 2, 2), (1, 1, usize::MAX), (usize::MAX / 8, 16, 0)]
    {
        assert_eq!(errno(Arena::new(&table, ArenaConfig { buffer_size, slab, max, access })), libc::EINVAL);
    }
}

#[test]
fn buffers_are_lent_up_to_the_limit_and_do_not_overlap() {
    let arena = arena(1000, 2, 5);
    let mut regions = 0;
    let mut buffers: Vec<_> = (0..5)
        .map(|_| {
            arena.take(|_| {
                regions += 1;
                Ok(())
            })
        })
        .map(Result::unwrap)
        .collect();
    assert_eq!(regions, 3, "two slabs of two, one of one");
    assert_eq!(errno(take(&arena)), libc::ENOBUFS);
    for (addr, length, region) in &buffers {
        assert!(*length == 1000 && region.holds(*addr, *length));
        // SAFETY: lent to this test.
        assert!(unsafe { std::slice::from_raw_parts(*addr, *length) }.iter().all(|octet| *octet == 0));
    }
    buffers.sort_by_key(|(addr, ..)| *addr as usize);
    assert!(buffers.windows(2).all(|pair| pair[0].0 as usize + 1000 <= pair[1].0 as usize));
    let (addr, ..) = buffers[3];
    arena.put(addr).unwrap();
    assert_eq!(take(&arena).unwrap().0, addr, "the warm one first");
}

#[test]
fn only_lent_buffers_are_taken_back() {
    let arena = arena(100, 4, 4);
    let (addr, ..) = take(&arena).unwrap();
    assert_eq!(errno(arena.put(addr.wrapping_add(1))), libc::EINVAL);
    assert_eq!(errno(arena.put(addr.wrapping_add(100))), libc::EINVAL);
    assert_eq!(errno(arena.put(addr.wrapping_sub(1))), libc::EINVAL);
    assert_eq!(errno(arena.put(std::ptr::null_mut())), libc::EINVAL);
    arena.put(addr).unwrap();
    assert_eq!(errno(arena.put(addr)), libc::EINVAL, "twice");
}

#[test]
fn a_slab_that_can_not_be_registered_is_not_kept() {
    let arena = arena(100, 4, 4);
    let failed = arena.take(|_| Err(Error::invalid("no handle")));
    assert_eq!(errno(failed), libc::EINVAL);
    assert!(take(&arena).is_ok());
}

#[test]
fn destruction_waits_until_nothing_is_lent_or_in_use() {
    let arena = arena(100, 1, 4);
    let (addr, length, region) = take(&arena).unwrap();
    let (other, ..) = take(&arena).unwrap();
    assert_eq!(errno(arena.destroy(|_| ())), libc::EBUSY);
    let element = region.sge(addr, length).unwrap();
    arena.put(addr).unwrap();
    arena.put(other).unwrap();
    assert_eq!(errno(arena.destroy(|_| ())), libc::EBUSY);
    drop(element);
    let key = region.key(Owner::Domain, 0, 100, Access::REMOTE_READ).unwrap();
    let mut gone = 0;
    arena.destroy(|_| gone += 1).unwrap();
    assert_eq!(gone, 2);
    assert!(arena.table.is_empty(), "no key {key} any more");
    assert_eq!(errno(take(&arena)), libc::EBADF);
    assert_eq!(errno(arena.put(addr)), libc::EINVAL);
    assert_eq!(errno(arena.destroy(|_| ())), libc::EBADF);
    assert_eq!(errno(region.sge(addr, 1)), libc::EBADF);
}

/// A use that begins between the check and the end: nothing of what is gone is lent, and a second attempt succeeds.
#[test]
fn destruction_that_fails_half_way_can_be_repeated() {
    let arena = arena(100, 1, 3);
    let buffers: Vec<_> = (0..3).map(|_| take(&arena).unwrap()).collect();
    for (addr, ..) in &buffers {
        arena.put(*addr).unwrap();
    }
    let mut element = None;
    let failed = arena.destroy(|_| {
        let (addr, length, region) = &buffers[2];
        element.get_or_insert_with(|| region.sge(*addr, *length).unwrap());
    });
    assert_eq!(errno(failed), libc::EBUSY);
    let (addr, ..) = take(&arena).unwrap();
    assert_eq!(addr, buffers[2].0);
    assert_eq!(errno(take(&arena)), libc::ENOBUFS);
    drop(element);
    arena.put(addr).unwrap();
    let mut gone = 0;
    arena.destroy(|_| gone += 1).unwrap();
    assert_eq!(gone, 1);
}

#[test]
fn an_arena_dropped_without_destruction_frees_nothing_that_is_used() {
    let arena = arena(100, 1, 3);
    let (lent, ..) = take(&arena).unwrap();
    let (idle, _, region) = take(&arena).unwrap();
    let (posted, length, used) = take(&arena).unwrap();
    let element = used.sge(posted, length).unwrap();
    let key = region.key(Owner::Domain, 0, 100, Access::REMOTE_WRITE).unwrap();
    let table = Arc::clone(&arena.table);
    arena.put(idle).unwrap();
    arena.put(posted).unwrap();
    drop(arena);
    assert!(!table.is_live(key), "no peer reaches what has been freed");
    assert_eq!(errno(region.sge(idle, 1)), libc::EBADF);
    // SAFETY: still lent.
    unsafe { lent.write(1) };
    assert_eq!(element.fill(0, &[1]), 1);
}
