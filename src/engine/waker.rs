//! Waking a channel that sleeps, and only then.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::error::{Error, Result};

/// An eventfd(2).
pub(super) struct Waker {
    fd: OwnedFd,
    /// Times it was made readable.
    count: AtomicU64,
}

impl AsRawFd for Waker {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Waker {
    /// A new one, not signalled.
    pub(super) fn new() -> Result<Self> {
        // SAFETY: no pointers; the result is checked before it is taken over.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(Error::os("eventfd", &io::Error::last_os_error()));
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, count: AtomicU64::new(0) })
    }

    /// Makes it readable.
    pub(super) fn wake(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let one = 1_u64.to_ne_bytes();
        // SAFETY: eight readable octets. It can only fail when the counter is full, and then it is readable anyway.
        unsafe { libc::write(self.fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Times it was made readable.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Makes it not readable.
    pub(super) fn drain(&self) {
        let mut count = [0_u8; 8];
        // SAFETY: eight writable octets. It fails only when there is nothing to drain.
        unsafe { libc::read(self.fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;
const NOTIFIED: u32 = 2;

/// Whether a channel sleeps. Whoever gives it work first publishes the work, then calls [`Parking::notify`]; the
/// channel first calls [`Parking::prepare_sleep`], then looks for work once more, then sleeps. All four steps are
/// sequentially consistent, so either the channel sees the work or the notifier sees it asleep: no wake-up is lost.
#[derive(Default)]
pub(super) struct Parking {
    state: AtomicU32,
}

impl Parking {
    /// Announces sleep; false when a notification has come since the last time awake.
    pub(super) fn prepare_sleep(&self) -> bool {
        self.state.compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Announces that the channel looks for work itself.
    pub(super) fn awake(&self) {
        self.state.store(AWAKE, Ordering::SeqCst);
    }

    /// Tells of work that has been published: writes to `waker` only where the channel sleeps.
    pub(super) fn notify(&self, waker: &Waker) {
        if self.state.swap(NOTIFIED, Ordering::SeqCst) == ASLEEP {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::selector::{Events, Selector};
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn no_wake_up_is_lost() {
        const ROUNDS: u64 = 20_000;
        let shared =
            Arc::new((Parking::default(), Waker::new().unwrap(), AtomicU64::new(0), AtomicU64::new(0)));
        let theirs = Arc::clone(&shared);
        let sleeper = std::thread::spawn(move || {
            let (parking, waker, work, done) = &*theirs;
            let selector = Selector::new().unwrap();
            selector.add_level(waker.as_raw_fd(), 0).unwrap();
            let mut events = Events::default();
            let mut seen = 0;
            while seen < ROUNDS {
                if parking.prepare_sleep() && work.load(Ordering::SeqCst) == seen {
                    let woken = selector.wait(&mut events, Some(Duration::from_secs(20))).unwrap();
                    assert_eq!(woken, 1, "slept through a notification at {seen}");
                    waker.drain();
                }
                parking.awake();
                seen = work.load(Ordering::SeqCst);
                done.store(seen, Ordering::SeqCst);
            }
        });
        let (parking, waker, work, done) = &*shared;
        for round in 1..=ROUNDS {
            work.store(round, Ordering::SeqCst);
            parking.notify(waker);
            if round % 3 == 0 {
                while done.load(Ordering::SeqCst) < round {
                    std::hint::spin_loop();
                }
            }
        }
        sleeper.join().unwrap();
    }
}
