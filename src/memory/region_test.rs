use super::*;

fn region(table: &Arc<KeyTable>, octets: &mut [u8], access: u32) -> Arc<Region> {
    // SAFETY: the memory outlives the region, or is never touched.
    unsafe { Region::new(table, octets.as_mut_ptr(), octets.len(), Access::from_bits(access).unwrap()) }
        .unwrap()
}

fn errno<T>(result: Result<T>) -> i32 {
    result.err().map_or(0, |error| error.errno)
}

#[test]
fn bad_regions_and_rights_are_refused() {
    let table = KeyTable::new();
    let mut octet = 0u8;
    let base = std::ptr::from_mut(&mut octet);
    // SAFETY: the memory outlives the region, or is never touched.
    assert_eq!(errno(unsafe { Region::new(&table, std::ptr::null_mut(), 1, Access::LOCAL) }), libc::EINVAL);
    // SAFETY: the memory outlives the region, or is never touched.
    assert_eq!(errno(unsafe { Region::new(&table, base, 0, Access::LOCAL) }), libc::EINVAL);
    // SAFETY: the memory outlives the region, or is never touched.
    assert_eq!(errno(unsafe { Region::new(&table, base, usize::MAX, Access::LOCAL) }), libc::EINVAL);
    assert_eq!(Access::from_bits(0), None);
    assert_eq!(Access::from_bits(8), None);
    assert_eq!(Access::from_bits(7).map(Access::remote).map(Access::bits), Some(6));
}

#[test]
fn keys_are_limited_to_the_range_and_rights_of_the_region() {
    let table = KeyTable::new();
    let mut octets = [0; 16];
    let region = region(&table, &mut octets, 3);
    let key = |offset, length, access| region.key(Owner::Domain, offset, length, access);
    assert_eq!(errno(key(0, 17, Access::REMOTE_READ)), libc::EINVAL);
    assert_eq!(errno(key(17, 0, Access::REMOTE_READ)), libc::EINVAL);
    assert_eq!(errno(key(usize::MAX, 2, Access::REMOTE_READ)), libc::EINVAL);
    assert_eq!(errno(key(0, 16, Access::REMOTE_WRITE)), libc::EACCES);
    assert_eq!(errno(key(0, 16, Access::LOCAL)), libc::EACCES);
    assert!(key(15, 1, Access::REMOTE_READ).is_ok());
}

#[test]
fn each_key_is_another_one_and_ends_alone() {
    let table = KeyTable::new();
    let mut octets = [0; 16];
    let region = region(&table, &mut octets, 7);
    let whole = |owner| region.key(owner, 0, 16, Access::from_bits(6).unwrap()).unwrap();
    let (first, second, stream) = (whole(Owner::Domain), whole(Owner::Domain), whole(Owner::Stream(1)));
    assert!(first != second && second != stream);
    region.revoke_key(first).unwrap();
    assert!(!table.is_live(first) && table.is_live(second));
    table.revoke_stream(1);
    assert!(!table.is_live(stream) && table.is_live(second));
}

#[test]
fn a_region_in_use_can_not_be_deregistered() {
    let table = KeyTable::new();
    let mut octets = [0; 16];
    let region = region(&table, &mut octets, 7);
    let base = region.base();
    let key = region.key(Owner::Domain, 0, 16, Access::REMOTE_READ).unwrap();
    let first = region.sge(base, 16).unwrap();
    let second = region.sge(base.wrapping_add(16), 0).unwrap();
    assert!(region.in_use());
    assert_eq!(errno(region.deregister()), libc::EBUSY);
    drop(first);
    assert_eq!(errno(region.deregister()), libc::EBUSY);
    assert!(table.is_live(key), "a refusal changes nothing");
    drop(second);
    region.deregister().unwrap();
    assert_eq!(errno(region.deregister()), libc::EBADF);
    assert_eq!(errno(region.sge(base, 1)), libc::EBADF);
    assert_eq!(errno(region.key(Owner::Domain, 0, 1, Access::REMOTE_READ)), libc::EBADF);
    assert!(!region.in_use() && region.is_closed(), "attempts that came too late leave no trace");
}

#[test]
fn elements_lie_within_their_region() {
    let table = KeyTable::new();
    let mut octets = [0; 16];
    let region = region(&table, &mut octets, 1);
    let base = region.base();
    for (addr, length) in [
        (base.wrapping_sub(1), 1),
        (base, 17),
        (base.wrapping_add(17), 0),
        (base.wrapping_add(16), 1),
        (base.wrapping_add(1), usize::MAX),
        (std::ptr::null_mut(), 1),
    ] {
        assert_eq!(errno(region.sge(addr, length)), libc::EINVAL, "{addr:p} {length}");
    }
    let length = u32::MAX as usize + 1;
    // SAFETY: the memory outlives the region, or is never touched.
    let endless = unsafe { Region::new(&table, base, length, Access::LOCAL) }.unwrap();
    assert_eq!(errno(endless.sge(base, length)), libc::EINVAL);
}
