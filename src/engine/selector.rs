//! Readiness by epoll(7).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::error::{Error, Result};

/// Events fetched at a time.
const CAPACITY: usize = 128;

/// One descriptor that has become ready.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    /// The number it was added with.
    pub token: u64,
    /// Something can be read, an end of file included.
    pub readable: bool,
    /// Something can be written.
    pub writable: bool,
    /// The peer has shut down, or an error waits.
    pub closed: bool,
}

/// Room for what one wait returns.
pub(super) struct Events {
    list: Vec<libc::epoll_event>,
}

impl Default for Events {
    fn default() -> Self {
        Self { list: Vec::with_capacity(CAPACITY) }
    }
}

impl Events {
    /// Forgets what the last wait returned.
    pub(super) fn clear(&mut self) {
        self.list.clear();
    }

    /// What the last wait returned, by number.
    pub(super) fn get(&self, index: usize) -> Option<Ready> {
        let event = self.list.get(index)?;
        let has = |bits: i32| event.events & bits as u32 != 0;
        Some(Ready {
            token: event.u64,
            readable: has(libc::EPOLLIN),
            writable: has(libc::EPOLLOUT),
            closed: has(libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR),
        })
    }
}

/// An epoll instance.
pub(super) struct Selector {
    epoll: OwnedFd,
}

impl AsRawFd for Selector {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

impl Selector {
    /// A new instance.
    pub(super) fn new() -> Result<Self> {
        // SAFETY: no pointers; the result is checked before it is taken over.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(Error::os("epoll_create1", &io::Error::last_os_error()));
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self { epoll: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Watches a connection's socket: edges, both directions, for as long as it is open.
    pub(super) fn add(&self, fd: RawFd, token: u64) -> Result<()> {
        self.control(
            libc::EPOLL_CTL_ADD,
            fd,
            libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET,
            token,
        )
    }

    /// Watches for reading, by level.
    pub(super) fn add_level(&self, fd: RawFd, token: u64) -> Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN, token)
    }

    /// Stops watching.
    pub(super) fn remove(&self, fd: RawFd) {
        // A descriptor that is not watched any more needs no removal.
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, 0);
    }

    fn control(&self, operation: i32, fd: RawFd, events: i32, token: u64) -> Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: token };
        // SAFETY: `event` is valid for the call, which does not keep it.
        let result = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) };
        if result < 0 {
            return Err(Error::os("epoll_ctl", &io::Error::last_os_error()));
        }
        Ok(())
    }

    /// Waits at most `timeout` (`None` = without end), rounded up to milliseconds so that a deadline has passed when
    /// it returns. Returns the number of events; an interruption by a signal is none.
    pub(super) fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> Result<usize> {
        let millis =
            timeout.map_or(-1, |timeout| timeout.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32);
        events.list.clear();
        // SAFETY: the list has room for `CAPACITY` events, and the kernel writes at most that many.
        let count = unsafe {
            libc::epoll_wait(self.epoll.as_raw_fd(), events.list.as_mut_ptr(), CAPACITY as i32, millis)
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                return Ok(0);
            }
            return Err(Error::os("epoll_wait", &error));
        }
        // SAFETY: the kernel has initialised that many events, which is within the capacity.
        unsafe { events.list.set_len(count as usize) };
        Ok(count as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn tells_edges_once_and_hangups() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let selector = Selector::new().unwrap();
        let mut events = Events::default();
        selector.add(near.as_raw_fd(), 7).unwrap();
        assert_eq!(selector.wait(&mut events, Some(Duration::ZERO)).unwrap(), 1, "writable at once");
        assert_eq!(selector.wait(&mut events, Some(Duration::ZERO)).unwrap(), 0, "edges come once");
        far.write_all(b"x").unwrap();
        assert_eq!(selector.wait(&mut events, None).unwrap(), 1);
        let ready = events.get(0).unwrap();
        assert!(ready.readable && !ready.closed && ready.token == 7);
        drop(far);
        assert_eq!(selector.wait(&mut events, None).unwrap(), 1);
        assert!(events.get(0).unwrap().closed);
        selector.remove(near.as_raw_fd());
        assert_eq!(selector.wait(&mut events, Some(Duration::ZERO)).unwrap(), 0);
    }
}
