//! A descriptor that is readable while something waits.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::failed_with;
use crate::error::Result;

/// An eventfd(2).
pub(super) struct Signal {
    fd: OwnedFd,
    set: bool,
}

impl AsRawFd for Signal {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Signal {
    pub(super) fn new() -> Result<Self> {
        // SAFETY: no pointers; the result is checked before it is taken over.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(failed_with(
                "eventfd",
                io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO),
            ));
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, set: false })
    }

    /// Makes it readable, or not.
    pub(super) fn set(&mut self, set: bool) {
        let mut octets = 1_u64.to_ne_bytes();
        if std::mem::replace(&mut self.set, set) == set {
            return;
        }
        let (fd, length) = (self.as_raw_fd(), octets.len());
        // SAFETY: eight octets that can be read and written.
        let count = unsafe {
            match set {
                true => libc::write(fd, octets.as_ptr().cast(), length),
                false => libc::read(fd, octets.as_mut_ptr().cast(), length),
            }
        };
        assert_eq!(count, 8, "an eventfd that only the model uses");
    }
}
