//! Failures: their stages and reasons as numbers, and the last one of a thread.

use std::ffi::c_int;

use super::ffi::{VersionedOut, last_report, quiet_boundary};
use crate::engine::ErrorReport;
use crate::error::{Error, STAGE_COUNT};

/// Stage: not about a connection.
pub const RCG_STAGE_NONE: u32 = 0;
/// Stage: names and addresses.
pub const RCG_STAGE_ADDRESS: u32 = 1;
/// Stage: the path to the peer.
pub const RCG_STAGE_ROUTE: u32 = 2;
/// Stage: the device, or the socket that stands for it.
pub const RCG_STAGE_DEVICE: u32 = 3;
/// Stage: the queue pair is made.
pub const RCG_STAGE_QUEUE_PAIR: u32 = 4;
/// Stage: the connection managers talk (rdma_connect(3), or the MPA request and reply).
pub const RCG_STAGE_HANDSHAKE: u32 = 5;
/// Stage: ready to receive.
pub const RCG_STAGE_READY: u32 = 6;
/// Stage: an established connection.
pub const RCG_STAGE_CONNECTED: u32 = 7;
/// Number of stages.
pub const RCG_STAGE_COUNT: u32 = 8;

/// Reason: no failure.
pub const RCG_REASON_NONE: u32 = 0;
/// Reason: a name or address could not be resolved.
pub const RCG_REASON_RESOLVE: u32 = 1;
/// Reason: nothing listens there.
pub const RCG_REASON_REFUSED: u32 = 2;
/// Reason: no path to the peer.
pub const RCG_REASON_UNREACHABLE: u32 = 3;
/// Reason: a deadline passed.
pub const RCG_REASON_TIMEOUT: u32 = 4;
/// Reason: the peer's application said no; `provider_code` is its `RCG_REJECT_*`.
pub const RCG_REASON_REJECTED: u32 = 5;
/// Reason: the peer broke the protocol.
pub const RCG_REASON_PROTOCOL: u32 = 6;
/// Reason: descriptors, memory or another limit of this machine.
pub const RCG_REASON_RESOURCES: u32 = 7;
/// Reason: not permitted on this machine.
pub const RCG_REASON_PERMISSION: u32 = 8;
/// Reason: the peer closed the connection.
pub const RCG_REASON_PEER_CLOSED: u32 = 9;
/// Reason: the peer, or something between, reset the connection.
pub const RCG_REASON_PEER_RESET: u32 = 10;
/// Reason: the peer did not answer within the keepalive time.
pub const RCG_REASON_PEER_DEAD: u32 = 11;
/// Reason: the peer sent a Terminate; `provider_code` is its control word.
pub const RCG_REASON_TERMINATED: u32 = 12;
/// Reason: the peer touched memory that it may not.
pub const RCG_REASON_REMOTE_ACCESS: u32 = 13;
/// Reason: the device went away.
pub const RCG_REASON_DEVICE_GONE: u32 = 14;
/// Reason: closed by the caller.
pub const RCG_REASON_CANCELLED: u32 = 15;
/// Reason: no provider can serve this.
pub const RCG_REASON_NO_PROVIDER: u32 = 16;
/// Reason: a bad argument.
pub const RCG_REASON_INVALID: u32 = 17;
/// Reason: not in this state.
pub const RCG_REASON_STATE: u32 = 18;
/// Reason: a bug of the library's.
pub const RCG_REASON_INTERNAL: u32 = 19;

const _: () = assert!(RCG_STAGE_COUNT as usize == STAGE_COUNT);

/// Details of the last call of this thread that returned a negative errno: code, reason, a sentence for people and,
/// where one is known, the remedy. A call that succeeds leaves them as they are.
///
/// `out`: the caller's, its `size` set (RCG_ERROR_INIT); written only on success.
/// Thread rule: any thread; each has its own.
/// Returns 0; -ENOENT: no call of this thread has failed; -EINVAL: `out` is NULL or its `size` is not set.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_last_error(out: *mut ErrorReport) -> c_int {
    quiet_boundary(|| {
        // SAFETY: by this function's contract.
        let out = unsafe { VersionedOut::new(out) }?;
        let report = last_report().ok_or_else(|| Error::state(libc::ENOENT, "no call has failed"))?;
        Ok(out.set(&report))
    })
}
