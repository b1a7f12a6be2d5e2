//! A timerfd(2), by which a channel without a thread tells the caller's loop that a timer is due.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::error::{Error, Result};

/// A descriptor that becomes readable at a time.
pub(super) struct Alarm {
    fd: OwnedFd,
}

impl AsRawFd for Alarm {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Alarm {
    /// A new one, not set.
    pub(super) fn new() -> Result<Self> {
        // SAFETY: no pointers; the result is checked before it is taken over.
        let fd =
            unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) };
        if fd < 0 {
            return Err(Error::os("timerfd_create", &io::Error::last_os_error()));
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Sets it, in place of an earlier setting; `None` = never.
    pub(super) fn set(&self, after: Option<Duration>) {
        // A time of zero would disarm it.
        let after = after.map(|after| after.max(Duration::from_nanos(1)));
        let value = libc::timespec {
            tv_sec: after.map_or(0, |after| after.as_secs() as libc::time_t),
            tv_nsec: after.map_or(0, |after| libc::c_long::from(after.subsec_nanos() as i32)),
        };
        let spec =
            libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // SAFETY: `spec` is valid for the call; no old value is asked for. Its values are in range, so it can't fail.
        unsafe { libc::timerfd_settime(self.fd.as_raw_fd(), 0, &raw const spec, std::ptr::null_mut()) };
    }
}
