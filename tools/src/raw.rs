//! A TCP connection without RDMA, to compare with: it spins before it sleeps, as a channel does.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{SockRef, TcpKeepalive};

/// A connection, how long it looks before it sleeps, and how long it waits for the peer; without end if `None`.
pub(crate) struct Raw {
    stream: TcpStream,
    spin: Duration,
    patience: Option<Duration>,
}

impl Raw {
    pub(crate) fn new(
        stream: TcpStream,
        spin: Duration,
        patience: Duration,
        congestion: Option<&str>,
    ) -> io::Result<Self> {
        if let Some(name) = congestion {
            SockRef::from(&stream).set_tcp_congestion(name.as_bytes())?;
        }
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, spin, patience: Some(patience) })
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()?, ..*self })
    }

    /// From here on waits for the peer as long as it is alive: the kernel ends the connection when it has answered nothing,
    /// or taken nothing, for `dead`.
    pub(crate) fn wait_while_alive(&mut self, dead: Duration) -> io::Result<()> {
        let socket = SockRef::from(&self.stream);
        // The kernel takes whole seconds.
        let seconds = |time: Duration| time.max(Duration::from_secs(1));
        let probes = TcpKeepalive::new().with_time(seconds(dead / 2)).with_interval(seconds(dead / 8));
        socket.set_tcp_keepalive(&probes)?;
        // Bounds the probes, and what is on its way, during which none are sent.
        socket.set_tcp_user_timeout(Some(dead))?;
        self.patience = None;
        Ok(())
    }

    /// Whether all of `buffer` was filled; false at the end of the stream before its first octet.
    pub(crate) fn read_full(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.again(PollFlags::POLLIN, |mut stream| stream.read(rest))? {
                0 if done == 0 => return Ok(false),
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => done += count,
            }
        }
        Ok(true)
    }

    /// What there is, at least one octet; 0 at the end of the stream.
    pub(crate) fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.again(PollFlags::POLLIN, |mut stream| stream.read(buffer))
    }

    /// The same where the stream must not have ended.
    pub(crate) fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if self.read_full(buffer)? { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    pub(crate) fn write_all(&mut self, octets: &[u8]) -> io::Result<()> {
        let mut rest = octets;
        while !rest.is_empty() {
            let count = self.again(PollFlags::POLLOUT, |mut stream| stream.write(rest))?;
            rest = rest.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Nothing more will be written.
    pub(crate) fn finish(&self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)
    }

    /// Tries until it does not have to wait; an error when it has waited for as long as it may.
    fn again(
        &self,
        flags: PollFlags,
        mut attempt: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let (mut began, mut end) = (None, None);
        loop {
            match attempt(&self.stream) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => return result,
            }
            let now = Instant::now();
            let waited = now - *began.get_or_insert(now);
            let left = self.patience.map(|patience| patience.saturating_sub(waited));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(self.impatient(flags));
            }
            if now >= *end.get_or_insert(now + self.spin) {
                // Milliseconds, rounded up.
                let left = left.map(|left| PollTimeout::try_from(left + Duration::from_millis(1)));
                let left = left.map_or(PollTimeout::NONE, |left| left.unwrap_or(PollTimeout::MAX));
                match poll(&mut [PollFd::new(self.stream.as_fd(), flags)], left) {
                    Err(nix::errno::Errno::EINTR) | Ok(_) => end = None,
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    fn impatient(&self, flags: PollFlags) -> io::Error {
        let what =
            if flags == PollFlags::POLLIN { "no answer within" } else { "the peer has taken nothing for" };
        let seconds = self.patience.unwrap_or_default().as_secs_f64();
        io::Error::new(ErrorKind::TimedOut, format!("{what} {seconds} s"))
    }
}

#[cfg(test)]
mod test {
    use std::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(100);

    /// A connection and its other end.
    fn pair(spin: Duration) -> (Raw, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Raw::new(stream, spin, PATIENCE, None).unwrap(), listener.accept().unwrap().0)
    }

    fn is_impatient(result: io::Result<()>, words: &str) {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::TimedOut, words.into()));
    }

    #[test]
    fn a_peer_that_says_or_takes_nothing_is_an_error() {
        // One that sleeps, and one that would look for longer than it may wait.
        for spin in [Duration::ZERO, PATIENCE * 100] {
            let (mut raw, _silent) = pair(spin);
            let began = Instant::now();
            is_impatient(raw.read_exact(&mut [0; 4]), "no answer within 0.1 s");
            let waited = began.elapsed();
            assert!(PATIENCE <= waited && waited < PATIENCE * 50, "{waited:?}");
            let more_than_sockets_hold = vec![0; 64 << 20];
            is_impatient(raw.write_all(&more_than_sockets_hold), "the peer has taken nothing for 0.1 s");
        }
    }

    #[test]
    fn patience_is_for_each_wait() {
        let (mut raw, mut slow) = pair(Duration::ZERO);
        let (count, pause) = (4_u8, PATIENCE / 2);
        let writer = std::thread::spawn(move || {
            for octet in 0..count {
                std::thread::sleep(pause);
                slow.write_all(&[octet]).unwrap();
            }
            slow
        });
        let mut octets = [0; 4];
        raw.read_exact(&mut octets).unwrap();
        assert_eq!(octets, [0, 1, 2, 3]);
        writer.join().unwrap();
    }

    #[test]
    fn the_kernel_looks_whether_the_peer_is_alive() {
        let (mut raw, mut slow) = pair(Duration::ZERO);
        raw.wait_while_alive(Duration::from_secs(20)).unwrap();
        let socket = SockRef::from(&raw.stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(10));
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(20)));
        let writer = std::thread::spawn(move || {
            std::thread::sleep(PATIENCE * 2);
            slow.write_all(b"late").map(|()| slow).unwrap()
        });
        let mut octets = [0; 4];
        raw.read_exact(&mut octets).unwrap();
        assert_eq!(&octets, b"late");
        writer.join().unwrap();
    }
}
