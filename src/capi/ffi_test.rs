//! What C may do wrong, and what we then do.

use std::ffi::c_int;
use std::mem::{MaybeUninit, offset_of, size_of, zeroed};
use std::ptr::{null, null_mut};

use super::ffi::*;
use crate::engine::{ErrorReport, Place};
use crate::error::{Error, Reason, Result};

/// The attributes of one version and of the next.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Old {
    size: usize,
    depth: u32,
    flags: u32,
}
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct New {
    old: Old,
    extra: u64,
}
// SAFETY: `repr(C)`, `size` first, numbers.
unsafe impl Versioned for Old {}
// SAFETY: as above.
unsafe impl Versioned for New {}

fn read<T: Versioned, C>(attr: &C) -> Result<T> {
    // SAFETY: tests only state sizes that are there, or that are refused before anything is read.
    unsafe { read_attr(std::ptr::from_ref(attr).cast::<T>()) }
}

fn with_size(size: usize) -> New {
    New { old: Old { size, depth: 5, flags: 6 }, extra: 0 }
}

#[test]
fn no_attributes_are_all_defaults() {
    // SAFETY: NULL is allowed.
    let attr = unsafe { read_attr::<Old>(null()) }.unwrap();
    assert_eq!((attr.size, attr.depth, attr.flags), (0, 0, 0));
}

#[test]
fn a_size_that_is_none_is_refused() {
    for size in 0..size_of::<usize>() {
        assert_eq!(read::<Old, _>(&with_size(size)).err().unwrap().errno, libc::EINVAL);
    }
    for size in [4097, usize::MAX] {
        assert_eq!(read::<Old, _>(&with_size(size)).err().unwrap().errno, libc::E2BIG);
    }
}

#[test]
fn older_callers_get_defaults_for_what_they_do_not_know() {
    let attr: New = read(&Old { size: size_of::<Old>(), depth: 5, flags: 6 }).unwrap();
    assert_eq!((attr.old.depth, attr.old.flags, attr.extra), (5, 6, 0));
    let attr: New = read(&with_size(12)).unwrap();
    assert_eq!((attr.old.depth, attr.old.flags), (5, 0));
    let attr: New = read(&with_size(8)).unwrap();
    assert_eq!((attr.old.depth, attr.old.flags), (0, 0));
}

#[test]
fn newer_callers_may_know_more_but_not_want_it() {
    let mut attr = with_size(size_of::<New>());
    assert_eq!(read::<Old, _>(&attr).unwrap().flags, 6);
    for octet in 0..8 {
        attr.extra = 1 << (8 * octet);
        let error = read::<Old, _>(&attr).err().unwrap();
        assert_eq!((error.errno, error.reason), (libc::E2BIG, Reason::Invalid));
    }
}

#[test]
fn outputs_stay_within_what_the_caller_has() {
    let value = New { old: Old { size: 99, depth: 5, flags: 6 }, extra: 7 };
    for (size, depth, flags, extra) in
        [(8, 0, 0, 0), (12, 5, 0, 0), (16, 5, 6, 0), (24, 5, 6, 7), (400, 5, 6, 7)]
    {
        let mut place = [New::default(); 2];
        place[0].old.size = size;
        // SAFETY: more than a `New` is there, and never more than that is written.
        unsafe { VersionedOut::new(place.as_mut_ptr()) }.unwrap().set(&value);
        assert_eq!(place[0].old.size, size);
        assert_eq!((place[0].old.depth, place[0].old.flags, place[0].extra), (depth, flags, extra));
        assert_eq!((place[1].old.size, place[1].old.depth, place[1].extra), (0, 0, 0));
    }
}

#[test]
fn outputs_need_a_place_and_a_size() {
    // SAFETY: NULL is refused.
    assert_eq!(unsafe { Out::<u32>::new(null_mut()) }.err().unwrap().errno, libc::EINVAL);
    // SAFETY: as above.
    assert_eq!(unsafe { VersionedOut::<Old>::new(null_mut()) }.err().unwrap().errno, libc::EINVAL);
    let mut place = Old::default();
    // SAFETY: a whole struct.
    assert_eq!(unsafe { VersionedOut::new(&raw mut place) }.err().unwrap().errno, libc::EINVAL);
}

fn last() -> ErrorReport {
    last_report().unwrap()
}

fn string(text: &[std::ffi::c_char]) -> String {
    text.iter().take_while(|octet| **octet != 0).map(|octet| *octet as u8 as char).collect()
}

#[test]
fn a_panic_is_an_error_and_does_not_unwind() {
    let code = boundary("rcg_test", || panic!("number {}", 3));
    assert_eq!(code, -libc::EIO);
    assert_eq!((last().code, last().reason), (-libc::EIO, Reason::Internal as u32));
    assert!(string(&last().text).starts_with("rcg_test: a bug in the library: number 3"));
    assert_eq!(quiet_boundary(|| panic!("static")), -libc::EIO);
    assert_eq!(boundary("rcg_test", || std::panic::panic_any(7)), -libc::EIO);
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a drop");
        }
    }
    assert_eq!(boundary("rcg_test", || std::panic::panic_any(Bomb)), -libc::EIO);
}

#[test]
fn errno_is_the_callers() {
    let errno = || std::io::Error::last_os_error().raw_os_error();
    let set = |value: c_int| {
        // SAFETY: a valid place.
        unsafe { *libc::__errno_location() = value };
    };
    let disturb = || {
        set(libc::EBADF);
        Ok(1)
    };
    set(libc::EXDEV);
    assert_eq!(boundary("rcg_test", disturb), 1);
    assert_eq!(quiet_boundary(disturb), 1);
    assert_eq!(boundary("rcg_test", || Err(Error::invalid("no"))), -libc::EINVAL);
    assert_eq!(errno(), Some(libc::EXDEV));
}

#[test]
fn the_last_error_is_this_threads_and_stays() {
    let fail = || Err(Error::state(libc::EBUSY, "in use").with_remedy("wait"));
    assert_eq!(boundary("rcg_test", fail), -libc::EBUSY);
    assert_eq!(boundary("rcg_test", || Ok(0)), 0);
    assert_eq!(quiet_boundary(|| Err(Error::invalid("not kept"))), -libc::EINVAL);
    assert_eq!(string(&last().text), "rcg_test: in use\n  hint: wait");
    assert_eq!(string(&last().remedy), "wait");
    std::thread::spawn(|| assert!(last_report().is_none())).join().unwrap();
}

#[test]
fn strings_are_checked() {
    let text = |octets: &'static [u8]| {
        // SAFETY: all of them end in a NUL.
        unsafe { text(octets.as_ptr().cast(), "name") }
    };
    assert_eq!(text(b"storage1\0").unwrap(), "storage1");
    assert_eq!(text(b"\xff\xfe\0").unwrap_err().errno, libc::EINVAL);
    // SAFETY: NULL is refused.
    assert_eq!(unsafe { super::ffi::text(null(), "name") }.unwrap_err().errno, libc::EINVAL);
    assert_eq!(string(&c_text::<4>("tcp")), "tcp");
    assert_eq!(c_text::<4>("longer")[3], 0);
}

#[test]
fn private_data_are_copied_whole_or_refused() {
    let octets = [1_u8, 2, 3];
    // SAFETY: as long as stated, or refused before they are read.
    let read = |pointer, length| unsafe { private_data(pointer, length) };
    assert_eq!(read(octets.as_ptr().cast(), 3).unwrap(), octets);
    assert_eq!(read(null(), 0).unwrap(), []);
    assert_eq!(read(null(), 1).unwrap_err().errno, libc::EINVAL);
    assert_eq!(read(octets.as_ptr().cast(), 65_536).unwrap_err().errno, libc::EMSGSIZE);
}

#[test]
fn arrays_end_where_they_end() {
    let values = [7_u32, 8];
    // SAFETY: two of them.
    let array = unsafe { InArray::new(values.as_ptr(), 2, "values") }.unwrap();
    assert_eq!(array.iter().collect::<Vec<_>>(), values);
    assert_eq!(array.get(2), None);
    // SAFETY: NULL is refused, or never followed.
    unsafe {
        assert_eq!(InArray::<u32>::new(null(), 1, "values").err().unwrap().errno, libc::EINVAL);
        assert_eq!(InArray::<u32>::new(null(), 0, "values").unwrap().iter().count(), 0);
    }
    let mut room = [MaybeUninit::<u32>::uninit(); 2];
    // SAFETY: room for two.
    let mut out = unsafe { OutArray::new(room.as_mut_ptr().cast::<u32>(), 2) };
    (1..=3).for_each(|value| out.push(value));
    // SAFETY: both have been written.
    assert_eq!(room.map(|value| unsafe { value.assume_init() }), [1, 2]);
}

#[test]
fn switches_and_reserved_members_are_checked() {
    assert_eq!(switch(1, "it"), Ok(true));
    assert_eq!(switch(2, "it").unwrap_err().errno, libc::EINVAL);
    assert_eq!(check_zero(0, "it"), Ok(()));
    assert_eq!(check_zero(1 << 31, "it").unwrap_err().errno, libc::EINVAL);
    assert_eq!(count(usize::MAX), c_int::MAX);
}

#[test]
fn strings_that_are_cut_still_end() {
    let error = Error::invalid("a text that is much longer than what the caller has room for");
    let whole = report(&error, Place::default(), None);
    for size in [offset_of!(ErrorReport, text) + 1, offset_of!(ErrorReport, text) + 20] {
        // SAFETY: zeros are a value of it.
        let mut cut: ErrorReport = unsafe { zeroed() };
        cut.size = size;
        cut.text = [1; 512];
        // SAFETY: a whole struct, of which it is told less.
        unsafe { VersionedOut::new(&raw mut cut) }.unwrap().set(&whole);
        let end = size - offset_of!(ErrorReport, text) - 1;
        assert_eq!(cut.text[end], 0);
        assert!(cut.text[..end].iter().all(|octet| *octet > 1) && cut.text[end + 1] == 1);
    }
}
