//! What passes between the provider and the devices, whether these are the kernel's (`sys`) or the model's in unit tests:
//! plain values in verbs' own numbers, which `sys` compares with those of libibverbs when it is compiled.

use crate::error::Error;

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CmKind {
    AddrResolved,
    AddrError,
    RouteResolved,
    RouteError,
    ConnectRequest,
    ConnectResponse,
    ConnectError,
    Unreachable,
    Rejected,
    Established,
    Disconnected,
    DeviceRemoval,
    AddrChange,
    TimewaitExit,
    /// One that is not known here.
    Other(u32),
}

/// `struct rdma_conn_param`, as far as it is used.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnParam {
    /// For the peer's application; an event of an InfiniBand connection has zeros behind it.
    pub(crate) private_data: Vec<u8>,
    /// RDMA Reads that may be outstanding towards us.
    pub(crate) responder_resources: u8,
    /// RDMA Reads that we may have outstanding.
    pub(crate) initiator_depth: u8,
    /// How often the peer repeats a Send that met no receive; 7 = without end.
    pub(crate) rnr_retry_count: u8,
}

/// What a device can do, as far as it matters here.
#[derive(Clone, Debug, Default)]
pub struct DeviceLimits {
    /// Its name, as in `/sys/class/infiniband`.
    pub name: String,
    /// Whether it speaks iWARP.
    pub iwarp: bool,
    /// Number of the vendor.
    pub vendor: u32,
    /// Work requests in a queue.
    pub max_wr: u32,
    /// Scatter/gather elements of a work request.
    pub max_sge: u32,
    /// Elements of an RDMA Read's sink.
    pub max_read_sge: u32,
    /// Completions in a queue.
    pub max_cqe: u32,
    /// RDMA Reads a peer may have outstanding.
    pub max_ird: u32,
    /// RDMA Reads we may have outstanding.
    pub max_ord: u32,
    /// Octets of one message.
    pub max_message: u64,
}

/// What becomes of registered memory when the program forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForkState {
    /// The kernel copies pinned pages at fork.
    Unneeded,
    /// libibverbs keeps registered pages from the child.
    Enabled,
    /// Parent and child may lose each other's writes.
    Disabled,
}

/// An asynchronous event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AsyncEvent {
    /// `IBV_EVENT_*`: a number, as a newer libibverbs has more of them.
    pub(crate) kind: u32,
    /// The context of its queue pair, where it is about one.
    pub(crate) qp: Option<usize>,
}

impl AsyncEvent {
    /// `IBV_EVENT_QP_FATAL`
    pub(super) const QP_FATAL: u32 = 1;
    /// `IBV_EVENT_QP_REQ_ERR`
    pub(super) const QP_REQUEST: u32 = 2;
    /// `IBV_EVENT_QP_ACCESS_ERR`
    pub(super) const QP_ACCESS: u32 = 3;
    /// `IBV_EVENT_COMM_EST`
    pub(super) const COMM_EST: u32 = 4;
    /// `IBV_EVENT_DEVICE_FATAL`
    pub(super) const DEVICE_FATAL: u32 = 8;

    /// `IBV_EVENT_DEVICE_FATAL`: the device is about to go.
    pub(crate) fn is_device_fatal(self) -> bool {
        self.kind == Self::DEVICE_FATAL
    }

    /// Whether the queue pair has failed.
    pub(crate) fn is_qp_failure(self) -> bool {
        [Self::QP_FATAL, Self::QP_REQUEST, Self::QP_ACCESS].contains(&self.kind)
    }
}

/// What a registration allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) local_write: bool,
    pub(crate) remote_read: bool,
    pub(crate) remote_write: bool,
}

/// Capabilities of a queue pair, as asked for or as the device made them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QpCaps {
    pub(crate) send_wr: u32,
    pub(crate) recv_wr: u32,
    pub(crate) send_sge: u32,
    pub(crate) recv_sge: u32,
    pub(crate) inline: u32,
}

/// What a send-queue work request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WrKind {
    Send,
    /// With immediate data, in host order.
    SendImm(u32),
    /// Invalidates a key of the peer's.
    SendInvalidate(u32),
    Write,
    /// With immediate data, in host order.
    WriteImm(u32),
    Read,
}

/// A completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wc {
    pub(crate) id: u64,
    /// `IBV_WC_*`; 0 = success.
    pub(crate) status: u32,
    pub(crate) vendor_error: u32,
    pub(crate) length: u32,
    /// Immediate data, in host order.
    pub(crate) imm: Option<u32>,
    pub(crate) invalidated: Option<u32>,
}

impl Wc {
    /// `IBV_WC_LOC_LEN_ERR`
    pub(crate) const LOCAL_LENGTH: u32 = 1;
    /// `IBV_WC_LOC_PROT_ERR`
    pub(crate) const LOCAL_PROTECTION: u32 = 4;
    /// `IBV_WC_WR_FLUSH_ERR`
    pub(crate) const FLUSHED: u32 = 5;
    /// `IBV_WC_REM_INV_REQ_ERR`
    pub(crate) const REMOTE_INVALID: u32 = 9;
    /// `IBV_WC_REM_ACCESS_ERR`
    pub(crate) const REMOTE_ACCESS: u32 = 10;
    /// `IBV_WC_REM_OP_ERR`
    pub(crate) const REMOTE_OPERATION: u32 = 11;
    /// `IBV_WC_RETRY_EXC_ERR`
    pub(crate) const RETRIES: u32 = 12;
    /// `IBV_WC_RNR_RETRY_EXC_ERR`
    pub(crate) const NO_RECEIVE: u32 = 13;
}

/// Flags of a send-queue work request: `IBV_SEND_*`.
pub(crate) mod send_flags {
    pub(crate) const FENCE: u32 = 1;
    pub(crate) const SIGNALED: u32 = 2;
    pub(crate) const SOLICITED: u32 = 4;
    pub(crate) const INLINE: u32 = 8;
}

/// A doorbell that failed.
#[derive(Debug)]
pub(crate) struct PostFailure {
    /// Requests of the chain that were posted all the same.
    pub(crate) posted: usize,
    pub(crate) error: Error,
}
