//! The boundary to C, in one place: panics, `errno`, the last error, handles, attributes, outputs and strings.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int};
use std::mem::{offset_of, size_of, zeroed};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::engine::{ErrorReport, Object, Place, check_process, object};
use crate::error::{Error, Reason, Result};

/// Attributes longer than this are taken for garbage, as the kernel does with more than a page.
const MAX_ATTR: usize = 4096;

thread_local! {
    static LAST_ERROR: RefCell<Option<(&'static str, Error)>> = const { RefCell::new(None) };
}

/// Runs the body of the C function `name`: a failure, or a panic, becomes a negative errno and this thread's last
/// error. The caller's `errno` stays as it was.
pub(super) fn boundary(name: &'static str, body: impl FnOnce() -> Result<c_int>) -> c_int {
    let errno = errno();
    let checked = || check_process().and_then(|()| body());
    let result = catch_unwind(AssertUnwindSafe(checked)).unwrap_or_else(|payload| Err(panicked(payload)));
    let code = result.unwrap_or_else(|error| {
        let code = error.code();
        // A thread that is ending has no last error any more; one that is being read is not replaced.
        let _ = LAST_ERROR.try_with(|last| {
            if let Ok(mut last) = last.try_borrow_mut() {
                *last = Some((name, error));
            }
        });
        code
    });
    set_errno(errno);
    code
}

/// The same for a function whose failure must not become the last error, as it is the one that reads it.
pub(super) fn quiet_boundary(body: impl FnOnce() -> Result<c_int>) -> c_int {
    let errno = errno();
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Err(panicked(payload)));
    set_errno(errno);
    result.unwrap_or_else(|error| error.code())
}

fn panicked(payload: Box<dyn Any + Send>) -> Error {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    let error = Error::new(libc::EIO, Reason::Internal, format!("a bug in the library: {text}"));
    // Dropping a payload of unknown type may panic again; a bug may cost its memory.
    std::mem::forget(payload);
    error.with_remedy("please report this with the program's output")
}

fn errno() -> c_int {
    // SAFETY: the C library gives every thread a valid place for its errno.
    unsafe { *libc::__errno_location() }
}

fn set_errno(value: c_int) {
    // SAFETY: as in `errno`.
    unsafe { *libc::__errno_location() = value };
}

/// The report of this thread's last failed call, if there was one.
pub(super) fn last_report() -> Option<ErrorReport> {
    let report = |(name, error): &(&str, Error)| report(error, Place::default(), Some(name));
    LAST_ERROR.try_with(|last| last.try_borrow().ok()?.as_ref().map(report)).ok().flatten()
}

/// The report of an error, its text led by the function that failed and followed by the remedy.
pub(super) fn report(error: &Error, place: Place<'_>, function: Option<&str>) -> ErrorReport {
    let mut text = function.map_or_else(|| error.to_string(), |name| format!("{name}: {error}"));
    if !error.remedy.is_empty() {
        text.push_str("\n  hint: ");
        text.push_str(&error.remedy);
    }
    ErrorReport::new(error, place, &text)
}

/// A count as the `int` that C gets.
pub(super) fn count(value: usize) -> c_int {
    c_int::try_from(value).unwrap_or(c_int::MAX)
}

/// A type of the C API whose pointers are handles: numbers, never dereferenced.
pub(super) trait Handle: Sized {
    /// What such a handle names.
    type Target;
    /// The name of the C type.
    const NAME: &'static str;
    /// Picks the object of the right type.
    fn pick(object: Object) -> Option<Arc<Self::Target>>;
}

/// The object of a handle: `EINVAL` for NULL, `EBADF` for a stale handle or one of another type.
pub(super) fn look_up<H: Handle>(handle: *mut H) -> Result<Arc<H::Target>> {
    if handle.is_null() {
        return Err(Error::invalid(format!("the {} is NULL", H::NAME)));
    }
    object(handle as usize)
        .and_then(H::pick)
        .ok_or_else(|| Error::state(libc::EBADF, format!("not the handle of a live {}", H::NAME)))
}

/// The same where NULL is allowed.
pub(super) fn look_up_optional<H: Handle>(handle: *mut H) -> Result<Option<Arc<H::Target>>> {
    if handle.is_null() { Ok(None) } else { look_up(handle).map(Some) }
}

/// A handle as the pointer that C sees.
pub(super) fn as_pointer<H: Handle>(handle: usize) -> *mut H {
    std::ptr::without_provenance_mut(handle)
}

/// A struct that grows with the versions of the library.
///
/// # Safety
/// The implementor is `repr(C)`, its first member is `size: usize`, and all zeros is one of its values.
pub(super) unsafe trait Versioned: Sized {
    /// Where the struct has strings, from octet to octet: one that is cut for a caller who has no room still ends.
    const STRINGS: &'static [(usize, usize)] = &[];
}

// SAFETY: `repr(C)`, `size` first, numbers otherwise.
unsafe impl Versioned for ErrorReport {
    const STRINGS: &'static [(usize, usize)] = &[
        (offset_of!(Self, local), offset_of!(Self, peer)),
        (offset_of!(Self, peer), offset_of!(Self, device)),
        (offset_of!(Self, device), offset_of!(Self, text)),
        (offset_of!(Self, text), offset_of!(Self, remedy)),
        (offset_of!(Self, remedy), size_of::<Self>()),
    ];
}

/// Reads `size` of a versioned struct.
///
/// # Safety
/// `pointer` points to at least a `size_t`.
unsafe fn stated_size<T: Versioned>(pointer: *const T) -> Result<usize> {
    // SAFETY: the caller vouches for the first member.
    let size = unsafe { pointer.cast::<usize>().read_unaligned() };
    if size < size_of::<usize>() {
        return Err(Error::invalid(format!("size {size} is not that of a struct: use its _INIT macro")));
    }
    Ok(size)
}

/// Reads attributes: NULL and what an older caller's struct lacks are zeros, the defaults; what a newer one has more
/// must be zeros, else `E2BIG`.
///
/// # Safety
/// `attr` is NULL or points to a struct of as many readable octets as its `size` says.
pub(super) unsafe fn read_attr<T: Versioned>(attr: *const T) -> Result<T> {
    // SAFETY: zeros are a value of every `Versioned`.
    let mut known: T = unsafe { zeroed() };
    if attr.is_null() {
        return Ok(known);
    }
    // SAFETY: not NULL, so there is a `size`.
    let size = unsafe { stated_size(attr) }?;
    let octets = attr.cast::<u8>();
    // SAFETY: octets below `size` are readable; a size that is garbage is refused before any is read.
    let unknown = |index: usize| unsafe { octets.add(index).read() } != 0;
    if size > MAX_ATTR || (size_of::<T>()..size).any(unknown) {
        let text = "the attributes ask for something that this version of the library does not have";
        return Err(Error::new(libc::E2BIG, Reason::Invalid, text));
    }
    // SAFETY: that many octets are readable and, in our own struct, writable.
    unsafe { std::ptr::copy_nonoverlapping(octets, (&raw mut known).cast::<u8>(), size.min(size_of::<T>())) };
    Ok(known)
}

/// Where a result goes. It exists before the work is done, so that NULL is refused before.
pub(super) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// # Safety
    /// `pointer` is NULL or points to a writable `T`, which need not be initialised.
    pub(super) unsafe fn new(pointer: *mut T) -> Result<Self> {
        if pointer.is_null() {
            Err(Error::invalid("there is nowhere to put the result"))
        } else {
            Ok(Self(pointer))
        }
    }

    /// Stores the result; returns what C gets for that.
    pub(super) fn set(self, value: T) -> c_int {
        // SAFETY: `new`'s caller has vouched for it.
        unsafe { self.0.write_unaligned(value) };
        0
    }
}

/// Where a result goes of which the caller may know less, or more, than we do.
pub(super) struct VersionedOut<T> {
    pointer: *mut T,
    size: usize,
}

impl<T: Versioned> VersionedOut<T> {
    /// # Safety
    /// `pointer` is NULL or points to a struct of as many writable octets as its `size` says.
    pub(super) unsafe fn new(pointer: *mut T) -> Result<Self> {
        if pointer.is_null() {
            return Err(Error::invalid("there is nowhere to put the result"));
        }
        // SAFETY: not NULL, so there is a `size`.
        let size = unsafe { stated_size(pointer) }?;
        Ok(Self { pointer, size })
    }

    /// The same where NULL is allowed.
    ///
    /// # Safety
    /// As for [`VersionedOut::new`].
    pub(super) unsafe fn optional(pointer: *mut T) -> Result<Option<Self>> {
        // SAFETY: by this function's contract.
        if pointer.is_null() { Ok(None) } else { unsafe { Self::new(pointer) }.map(Some) }
    }

    /// Stores what the caller has room for, and leaves `size` and all beyond what we know as it is; returns what C
    /// gets for that.
    pub(super) fn set(self, value: &T) -> c_int {
        let first = size_of::<usize>();
        let count = self.size.min(size_of::<T>()).saturating_sub(first);
        let source = std::ptr::from_ref(value).cast::<u8>();
        // SAFETY: `first + count` octets lie within `value`, and within the caller's struct by its own word.
        unsafe {
            std::ptr::copy_nonoverlapping(source.add(first), self.pointer.cast::<u8>().add(first), count)
        };
        if T::STRINGS.iter().any(|(start, end)| *start < self.size && self.size < *end) {
            // SAFETY: the last octet of the caller's struct, which lies behind `size`.
            unsafe { self.pointer.cast::<u8>().add(self.size - 1).write(0) };
        }
        0
    }
}

/// A string of the caller's.
///
/// # Safety
/// `pointer` is NULL or points to a string that lives for `'a`.
pub(super) unsafe fn text<'a>(pointer: *const c_char, what: &str) -> Result<&'a str> {
    if pointer.is_null() {
        return Err(Error::invalid(format!("the {what} is NULL")));
    }
    // SAFETY: not NULL, so a string by the caller's word.
    let text = unsafe { CStr::from_ptr(pointer) }.to_str();
    text.map_err(|_| Error::invalid(format!("the {what} is not valid UTF-8")))
}

/// Refuses NULL for an array of the caller's, unless it is empty.
pub(super) fn check_array<T>(pointer: *const T, count: usize, what: &str) -> Result<()> {
    if pointer.is_null() && count > 0 {
        return Err(Error::invalid(format!("the {what} are NULL, but there are {count} of them")));
    }
    Ok(())
}

/// Refuses what must be zero.
pub(super) fn check_zero(value: u32, what: &str) -> Result<()> {
    if value == 0 { Ok(()) } else { Err(Error::invalid(format!("{what} is {value:#x}, but must be 0"))) }
}

/// A switch: 0 or 1.
pub(super) fn switch(value: u32, what: &str) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Error::invalid(format!("{what} is {other}, not 0 or 1"))),
    }
}

/// A copy of private data of the caller's.
///
/// # Safety
/// `pointer` points to `length` readable octets, or is NULL.
pub(super) unsafe fn private_data(pointer: *const std::ffi::c_void, length: u32) -> Result<Vec<u8>> {
    if length == 0 {
        return Ok(Vec::new());
    }
    check_array(pointer, length as usize, "octets of private data")?;
    if length > u32::from(u16::MAX) {
        let text = format!("{length} octets of private data are more than any provider takes");
        return Err(Error::new(libc::EMSGSIZE, Reason::Invalid, text));
    }
    let mut octets = vec![0; length as usize];
    // SAFETY: not NULL and readable by the caller's word; copied, as it may be memory that a peer writes to.
    unsafe { std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), octets.as_mut_ptr(), octets.len()) };
    Ok(octets)
}

/// An array of the caller's that is filled from its beginning.
pub(super) struct OutArray<T> {
    next: *mut T,
    room: usize,
}

impl<T> OutArray<T> {
    /// # Safety
    /// `first` points to `room` writable elements, which need not be initialised; NULL if `room` is 0.
    pub(super) unsafe fn new(first: *mut T, room: usize) -> Self {
        Self { next: first, room }
    }

    /// Stores one more; what there is no room for is dropped.
    pub(super) fn push(&mut self, value: T) {
        if let Some(room) = self.room.checked_sub(1) {
            // SAFETY: there is room for one more by the word of `new`'s caller.
            unsafe {
                self.next.write_unaligned(value);
                self.next = self.next.add(1);
            }
            self.room = room;
        }
    }
}

/// An array of the caller's that is read by value.
#[derive(Clone, Copy)]
pub(super) struct InArray<T> {
    first: *const T,
    count: usize,
}

impl<T: Copy> InArray<T> {
    /// # Safety
    /// `first` is NULL or points to `count` elements, which stay as they are while the array is used.
    pub(super) unsafe fn new(first: *const T, count: usize, what: &str) -> Result<Self> {
        check_array(first, count, what)?;
        Ok(Self { first, count })
    }

    pub(super) fn get(&self, index: usize) -> Option<T> {
        // SAFETY: within the array by the word of `new`'s caller.
        (index < self.count).then(|| unsafe { self.first.add(index).read_unaligned() })
    }

    pub(super) fn iter(self) -> impl Iterator<Item = T> {
        (0..self.count).filter_map(move |index| self.get(index))
    }
}

/// Text as a C array of `N` octets, cut to fit and always terminated.
pub(super) fn c_text<const N: usize>(text: &str) -> [c_char; N] {
    let mut out = [0; N];
    let room = N.saturating_sub(1);
    for (slot, octet) in out.iter_mut().take(room).zip(text.bytes()) {
        *slot = octet as c_char;
    }
    out
}
