//! The one file with the socket calls of the provider.

use std::ffi::CStr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket as Raw, TcpKeepalive, Type};

use super::qp::Piece;
use crate::error::{Error, Reason, Result, Stage};
use crate::tcp::{Liveness, TCP_INFO_LEN};

/// `TCP_RTO_MAX_MS` of linux/tcp.h.
const TCP_RTO_MAX_MS: libc::c_int = 44;

/// What a connection's socket is set to.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Notice a dead, idle peer within this.
    pub dead_peer: Duration,
    /// Congestion control; `None` = the system's.
    pub congestion: Option<&'a CStr>,
}

/// A non-blocking TCP socket.
#[derive(Debug)]
pub struct Socket {
    raw: Raw,
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.raw.as_raw_fd()
    }
}

fn device(what: &str, error: &io::Error) -> Error {
    Error::os(what, error).at(Stage::Device)
}

fn open(addr: &SockAddr) -> Result<Raw> {
    let raw =
        Raw::new(Domain::from(i32::from(addr.family())), Type::STREAM.nonblocking(), Some(Protocol::TCP))
            .map_err(|error| device("socket", &error))?;
    Ok(raw)
}

fn configure(raw: &Raw, options: &Options<'_>) -> Result<()> {
    raw.set_tcp_nodelay(true).map_err(|error| device("set TCP_NODELAY", &error))?;
    raw.set_tcp_keepalive(&keepalive(options.dead_peer)).map_err(|error| device("set keepalive", &error))?;
    probe_often(raw, options.dead_peer);
    if let Some(name) = options.congestion {
        raw.set_tcp_congestion(name.to_bytes()).map_err(|error| {
            device("set TCP_CONGESTION", &error).with_remedy(
                "see sysctl net.ipv4.tcp_available_congestion_control and tcp_allowed_congestion_control",
            )
        })?;
    }
    Ok(())
}

/// Has a closed window probed at least four times in the time after which a peer counts as dead; without this the
/// kernel waits up to two minutes between probes. Kernels before 6.15 do not know the option.
fn probe_often(raw: &Raw, dead_peer: Duration) {
    let longest = dead_peer.as_millis().clamp(4_000, 480_000) as libc::c_int / 4;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `longest` is readable for `size` octets; that it may fail is said above.
    unsafe {
        let value = (&raw const longest).cast();
        libc::setsockopt(raw.as_raw_fd(), libc::IPPROTO_TCP, TCP_RTO_MAX_MS, value, size)
    };
}

impl Socket {
    /// Starts to connect; the socket becomes writable, or closed, when that has ended.
    pub fn connect(addr: &SockAddr, local: Option<&SockAddr>, options: &Options<'_>) -> Result<Self> {
        let socket = Self { raw: open(addr)? };
        configure(&socket.raw, options)?;
        if let Some(local) = local {
            socket.raw.bind(local).map_err(|error| device("bind to the local address", &error))?;
        }
        match socket.raw.connect(addr) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
                Err(Error::os("connect", &error).at(Stage::Route))
            }
            _ => Ok(socket),
        }
    }

    /// Whether TCP has connected the socket to itself, as it does when it chooses the very port it connects to.
    pub fn is_self_connected(&self) -> bool {
        self.raw.peer_addr().is_ok_and(|peer| self.local() == Some(peer))
    }

    /// The error a non-blocking connect, or the network, has left.
    pub fn take_error(&self) -> Result<()> {
        match self.raw.take_error() {
            Ok(None) => Ok(()),
            Ok(Some(error)) | Err(error) => Err(Error::os("connect", &error)),
        }
    }

    /// Our address.
    pub fn local(&self) -> Option<SockAddr> {
        self.raw.local_addr().ok()
    }

    /// Octets of one TCP segment.
    pub fn mss(&self) -> usize {
        self.raw.tcp_mss().map_or(536, |mss| mss as usize)
    }

    /// Sends the FIN.
    pub fn shutdown_write(&self) -> io::Result<()> {
        self.raw.shutdown(std::net::Shutdown::Write)
    }

    /// Has the socket reset when it is closed: the peer is not to wait for what has not been sent.
    pub fn reset_on_close(&self) {
        // It fails for sockets that are not TCP's only.
        let _ = self.raw.set_linger(Some(Duration::ZERO));
    }

    /// Reads what there is.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the buffer is writable for its length.
        retry(|| unsafe {
            libc::recv(self.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT)
        })
    }

    /// Reads what there is, first into a piece of memory that is ours to fill now, then into `behind`, with one call.
    pub fn recv_piece(&self, piece: Piece, behind: &mut [u8]) -> io::Result<usize> {
        // SAFETY: `behind` is writable for its length until this call returns.
        let pieces = [piece, unsafe { Piece::new(behind.as_mut_ptr(), behind.len()) }];
        // SAFETY: all zeros is a valid `msghdr` without a name or control data.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = pieces.as_ptr().cast_mut().cast();
        message.msg_iovlen = pieces.len() as _;
        // SAFETY: `Piece` is a transparent `iovec`; whoever made a piece has promised that it is valid until it is filled.
        retry(|| unsafe { libc::recvmsg(self.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) })
    }

    /// Sends octets of our own.
    pub fn send(&self, octets: &[u8]) -> io::Result<usize> {
        // SAFETY: the octets are readable until this call returns.
        self.send_vectored(&[unsafe { Piece::new(octets.as_ptr(), octets.len()) }])
    }

    /// Sends pieces with one system call. They may lie in memory that a peer or the application writes to, so they are
    /// never slices; each has to stay valid until it has been sent.
    pub fn send_vectored(&self, pieces: &[Piece]) -> io::Result<usize> {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        if let [piece] = pieces {
            // SAFETY: as below; `send` has the kernel copy and check less.
            return retry(|| unsafe { libc::send(self.as_raw_fd(), piece.ptr().cast(), piece.len(), flags) });
        }
        // SAFETY: all zeros is a valid `msghdr` without a name or control data.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = pieces.as_ptr().cast_mut().cast();
        message.msg_iovlen = pieces.len() as _;
        // SAFETY: `Piece` is a transparent `iovec`; whoever made a piece has promised that it is valid until it is sent,
        // and the kernel only reads.
        retry(|| unsafe { libc::sendmsg(self.as_raw_fd(), &raw const message, flags) })
    }

    /// What TCP knows about the peer's answers.
    pub fn liveness(&self) -> Result<Liveness> {
        let mut info = [0; TCP_INFO_LEN];
        let mut length = info.len() as libc::socklen_t;
        // SAFETY: `info` has `length` writable octets; an older kernel writes fewer.
        let result = unsafe {
            libc::getsockopt(
                self.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut length,
            )
        };
        if result < 0 {
            return Err(Error::os("TCP_INFO", &io::Error::last_os_error()));
        }
        Ok(Liveness::of(&info))
    }
}

/// Idle for half of the time, then up to three probes in the other half; the kernel takes whole seconds, so the
/// shortest is two of them.
fn keepalive(dead_peer: Duration) -> TcpKeepalive {
    let seconds = dead_peer.as_secs().max(2);
    let idle = seconds / 2;
    let interval = ((seconds - idle) / 3).max(1);
    let probes = ((seconds - idle) / interval).clamp(1, 127) as u32;
    TcpKeepalive::new()
        .with_time(Duration::from_secs(idle))
        .with_interval(Duration::from_secs(interval))
        .with_retries(probes)
}

fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        let result = call();
        if result >= 0 {
            return Ok(result as usize);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    raw: Raw,
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.raw.as_raw_fd()
    }
}

impl Listener {
    /// Listens at `addr`. What is accepted has the options, as Linux copies them from the listening socket.
    pub fn bind(addr: &SockAddr, backlog: u32, v6only: bool, options: &Options<'_>) -> Result<Self> {
        let raw = open(addr)?;
        configure(&raw, options)?;
        let name = addr.as_socket().map_or_else(String::new, |addr: SocketAddr| addr.to_string());
        let fail = |what: &str, error: io::Error| device(&format!("{what} {name}"), &error);
        raw.set_reuse_address(true).map_err(|error| fail("set SO_REUSEADDR on", error))?;
        if addr.is_ipv6() {
            raw.set_only_v6(v6only).map_err(|error| fail("set IPV6_V6ONLY on", error))?;
        }
        raw.bind(addr).map_err(|error| fail("bind to", error))?;
        raw.listen(i32::try_from(backlog).unwrap_or(i32::MAX)).map_err(|error| fail("listen on", error))?;
        Ok(Self { raw })
    }

    /// The address, with the port the system has chosen where 0 was asked for.
    pub fn local(&self) -> Result<SockAddr> {
        self.raw.local_addr().map_err(|error| device("getsockname", &error))
    }

    /// The next connection; `None` when there is none.
    pub fn accept(&self) -> Result<Option<(Socket, SockAddr)>> {
        loop {
            match self.raw.accept4(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) {
                Ok((raw, addr)) => return Ok(Some((Socket { raw }, addr))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(device("accept", &error)),
            }
        }
    }
}

/// Errors that belong to the connection that could not be accepted, not to the listener (accept(2)).
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EINTR
                | libc::ECONNABORTED
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::ENONET
                | libc::EOPNOTSUPP
        )
    )
}

/// The system's limit of a backlog: sysctl net.core.somaxconn.
pub fn most_backlog() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    text.trim().parse().unwrap_or(4096)
}

/// Whether an error is about a limit that passes by itself.
pub fn is_shortage(error: &Error) -> bool {
    error.reason == Reason::Resources
}

/// Whether the octets of a connection stay on this host, as far as its two addresses tell.
pub fn is_internal(peer: &SockAddr, local: Option<&SockAddr>) -> bool {
    let ip = |addr: &SockAddr| addr.as_socket().map(|addr| addr.ip());
    ip(peer).is_some_and(|peer| peer.is_loopback() || local.and_then(ip) == Some(peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_with_our_own_address_is_on_this_host() {
        let addr = |text: &str| SockAddr::from(text.parse::<SocketAddr>().unwrap());
        let internal = |peer: &str, local: &str| is_internal(&addr(peer), Some(&addr(local)));
        assert!(internal("192.0.2.1:7", "192.0.2.1:9") && internal("127.0.0.2:7", "127.0.0.1:9"));
        assert!(internal("[::1]:7", "[::1]:9") && internal("[fd77::1]:7", "[fd77::1]:9"));
        assert!(!internal("192.0.2.1:7", "192.0.2.2:7") && !is_internal(&addr("[fd77::1]:7"), None));
    }

    fn loopback(addr: &str) {
        let addr: SocketAddr = addr.parse().unwrap();
        let options = Options { dead_peer: Duration::from_secs(20), congestion: Some(c"reno") };
        let listener = Listener::bind(&addr.into(), 16, true, &options).unwrap();
        assert!(listener.accept().unwrap().is_none());
        let near = Socket::connect(&listener.local().unwrap(), None, &options).unwrap();
        let far = loop {
            if let Some((far, peer)) = listener.accept().unwrap() {
                assert_eq!(Some(peer), near.local());
                break far;
            }
        };
        near.take_error().unwrap();
        for end in [&near.raw, &far.raw] {
            assert!(end.tcp_nodelay().unwrap() && end.keepalive().unwrap());
            assert_eq!(end.tcp_keepalive_time().unwrap(), Duration::from_secs(10));
            assert_eq!(end.tcp_keepalive_interval().unwrap(), Duration::from_secs(3));
            assert!(end.tcp_congestion().unwrap().starts_with(b"reno"));
        }
        let (one, two) = (*b"one", *b"two");
        // SAFETY: both arrays live until the end of the function.
        let pieces = unsafe { [Piece::new(one.as_ptr(), 3), Piece::new(two.as_ptr(), 3)] };
        assert_eq!(near.send_vectored(&pieces).unwrap(), 6);
        let mut buffer = [0; 16];
        let count = loop {
            match far.recv(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => break other.unwrap(),
            }
        };
        assert_eq!(&buffer[..count], b"onetwo");
        assert!(near.mss() > 500 && near.liveness().is_ok());
        near.shutdown_write().unwrap();
    }

    #[test]
    fn sockets_work_over_both_families() {
        loopback("127.0.0.1:0");
        loopback("[::1]:0");
    }

    #[test]
    fn failures_name_the_address_and_the_remedy() {
        let addr: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let plain = Options { dead_peer: Duration::from_secs(20), congestion: None };
        let first = Listener::bind(&addr.into(), 1, false, &plain).unwrap();
        let taken = first.local().unwrap();
        let error = Listener::bind(&taken, 1, false, &plain).unwrap_err();
        assert_eq!((error.errno, error.stage), (libc::EADDRINUSE, Stage::Device));
        assert!(error.text.contains("127.0.0.1:") && !error.remedy.is_empty(), "{error}");
        let options = Options { congestion: Some(c"no-such-thing"), ..plain };
        for error in [
            Socket::connect(&taken, None, &options).unwrap_err(),
            Listener::bind(&addr.into(), 1, false, &options).unwrap_err(),
        ] {
            assert!(error.text.contains("TCP_CONGESTION") && !error.remedy.is_empty(), "{error}");
        }
    }
}
