//! The one error type: a stage, a stable reason, an errno and, where one exists, the remedy.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::time::Duration;

/// How far a connection had come. The numbers are those of `RCG_STAGE_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Stage {
    /// Not about a connection.
    #[default]
    None = 0,
    /// Names and addresses.
    Address = 1,
    /// The path to the peer: `rdma_resolve_route`, or TCP's own three-way handshake.
    Route = 2,
    /// The device, or the socket that stands for it.
    Device = 3,
    /// Creating the queue pair.
    QueuePair = 4,
    /// The connection manager's exchange: `rdma_connect`, or the MPA request and reply.
    Handshake = 5,
    /// Ready to receive: the initiator's first FPDU, `RDMA_CM_EVENT_ESTABLISHED`.
    Ready = 6,
    /// An established connection.
    Connected = 7,
}

/// Number of stages, for tables indexed by [`Stage`].
pub const STAGE_COUNT: usize = 8;

/// Why something failed, as a stable code. The numbers are those of `RCG_REASON_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// No failure.
    #[default]
    None = 0,
    /// A name or address could not be resolved.
    Resolve = 1,
    /// Nothing listens there.
    Refused = 2,
    /// No path to the peer.
    Unreachable = 3,
    /// A deadline passed.
    Timeout = 4,
    /// The peer's application said no.
    Rejected = 5,
    /// The peer broke the protocol.
    Protocol = 6,
    /// File descriptors, memory or another limit of this machine.
    Resources = 7,
    /// Not permitted on this machine.
    Permission = 8,
    /// The peer closed the connection.
    PeerClosed = 9,
    /// The peer, or something between, reset the connection.
    PeerReset = 10,
    /// The peer did not answer within the keepalive time.
    PeerDead = 11,
    /// The peer sent a Terminate.
    Terminated = 12,
    /// The peer touched memory it has no right to.
    RemoteAccess = 13,
    /// The device went away.
    DeviceGone = 14,
    /// Closed by the caller.
    Cancelled = 15,
    /// No provider can serve this.
    NoProvider = 16,
    /// A bad argument.
    Invalid = 17,
    /// Not in this state.
    State = 18,
    /// A bug of ours.
    Internal = 19,
}

/// What went wrong, where, and what to do about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Error {
    /// Positive errno.
    pub errno: i32,
    /// How far it had come.
    pub stage: Stage,
    /// The stable reason.
    pub reason: Reason,
    /// Reject reason, Terminate control word or rdma_cm status; 0 = none.
    pub provider_code: i32,
    /// One sentence, without the addresses.
    pub text: Cow<'static, str>,
    /// What the administrator can do, or empty.
    pub remedy: Cow<'static, str>,
}

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with its errno, reason and sentence.
    pub fn new(errno: i32, reason: Reason, text: impl Into<Cow<'static, str>>) -> Self {
        Self { errno, reason, text: text.into(), ..Self::default() }
    }

    /// A bad argument: `EINVAL`.
    pub fn invalid(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(libc::EINVAL, Reason::Invalid, text)
    }

    /// Nothing was heard from the peer's host for `time`, in which it should have answered.
    pub(crate) fn dead_peer(time: Duration) -> Self {
        let text = format!("the peer's host has not answered for {} ms", time.as_millis());
        Self::new(libc::ETIMEDOUT, Reason::PeerDead, text).at(Stage::Connected)
    }

    /// A call in the wrong state.
    pub fn state(errno: i32, text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(errno, Reason::State, text)
    }

    /// The failure of a system call named `what`, with a remedy where there is one.
    pub fn os(what: &str, source: &io::Error) -> Self {
        let errno = source.raw_os_error().unwrap_or(libc::EIO);
        let error = Self::new(errno, reason_of(errno), format!("{what}: {source}"));
        error.with_remedy(remedy_of(errno))
    }

    /// The same error at a stage.
    #[must_use]
    pub fn at(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }

    /// The same error with a remedy.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// The same error with a provider's code.
    #[must_use]
    pub fn with_code(mut self, code: i32) -> Self {
        self.provider_code = code;
        self
    }

    /// What a C function returns: the negative errno.
    pub fn code(&self) -> i32 {
        -self.errno
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

/// The one table from errno to reason.
fn reason_of(errno: i32) -> Reason {
    match errno {
        libc::ECONNREFUSED => Reason::Refused,
        libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENETDOWN | libc::EHOSTDOWN | libc::EADDRNOTAVAIL => {
            Reason::Unreachable
        }
        libc::ETIMEDOUT => Reason::Timeout,
        libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS | libc::ENOSPC => Reason::Resources,
        libc::EACCES | libc::EPERM => Reason::Permission,
        libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED => Reason::PeerReset,
        libc::EINVAL | libc::EAFNOSUPPORT | libc::EADDRINUSE => Reason::Invalid,
        _ => Reason::Internal,
    }
}

/// What an administrator can do about an errno.
fn remedy_of(errno: i32) -> &'static str {
    match errno {
        libc::EMFILE => "raise the process's limit of open files: LimitNOFILE= in the unit, or `ulimit -n`",
        libc::ENFILE => "raise the system's limit of open files: sysctl fs.file-max",
        libc::ECONNREFUSED => "is the server running, and is its port open in the firewall?",
        libc::EADDRINUSE => "another program listens on this address and port: see `ss -ltnp`",
        libc::EADDRNOTAVAIL => "the address is not one of this host's: see `ip addr`",
        libc::ENETUNREACH | libc::EHOSTUNREACH => "no route to the peer: see `ip route get ADDRESS`",
        libc::ENETDOWN => "the network interface is down: see `ip link`",
        libc::EACCES => "ports below 1024 need CAP_NET_BIND_SERVICE",
        libc::ENOMEM | libc::ENOBUFS => "the machine is short of memory",
        _ => "",
    }
}
