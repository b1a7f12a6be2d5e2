//! A TCP connection without RDMA, to compare with: it spins before it sleeps, as a channel does.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;

/// A connection and how long it looks before it sleeps.
pub(crate) struct Raw {
    stream: TcpStream,
    spin: Duration,
}

impl Raw {
    pub(crate) fn new(stream: TcpStream, spin: Duration, congestion: Option<&str>) -> io::Result<Self> {
        if let Some(name) = congestion {
            SockRef::from(&stream).set_tcp_congestion(name.as_bytes())?;
        }
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, spin })
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()?, spin: self.spin })
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

    /// Tries until it does not have to wait.
    fn again(
        &self,
        flags: PollFlags,
        mut attempt: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut end = None;
        loop {
            match attempt(&self.stream) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => return result,
            }
            let now = Instant::now();
            if now >= *end.get_or_insert(now + self.spin) {
                match poll(&mut [PollFd::new(self.stream.as_fd(), flags)], PollTimeout::NONE) {
                    Err(nix::errno::Errno::EINTR) | Ok(_) => end = None,
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}
