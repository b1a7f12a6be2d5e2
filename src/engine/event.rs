//! Events as the channel delivers them, and the report of a failure.

use std::any::Any;
use std::ffi::c_char;
use std::sync::Arc;

use socket2::SockAddr;

use crate::error::Error;

/// What an event is about; the numbers are those of `RCG_EVENT_*`.
pub mod kind {
    /// A peer asks for a connection.
    pub const CONNECT_REQUEST: u32 = 1;
    /// Both sides can post.
    pub const ESTABLISHED: u32 = 2;
    /// The connection did not come about.
    pub const CONNECT_FAILED: u32 = 3;
    /// An established connection ended.
    pub const DISCONNECTED: u32 = 4;
    /// The last event of a handle.
    pub const CLOSED: u32 = 5;
    /// A send-queue operation is finished.
    pub const COMPLETION: u32 = 6;
    /// A message has arrived, or a receive was flushed.
    pub const RECV: u32 = 7;
}

/// Flags of an event; the numbers are those of `RCG_EVENT_WITH_IMM` and so on.
pub mod event_flags {
    /// `imm` is set.
    pub const WITH_IMM: u32 = 1;
    /// `invalidated_key` is set.
    pub const INVALIDATED: u32 = 2;
    /// The sender asked for attention.
    pub const SOLICITED: u32 = 4;
    /// `data` is a buffer of the library's.
    pub const LENT: u32 = 8;
}

/// One event. What it points to lives as long as it does.
#[derive(Clone, Default)]
pub struct Event {
    /// [`kind`].
    pub kind: u32,
    /// The operation, for completions.
    pub op: u32,
    /// 0 or a negative errno.
    pub status: i32,
    /// [`event_flags`].
    pub flags: u32,
    /// Handle of the connection, or 0.
    pub conn: usize,
    /// Handle of the listener, or 0.
    pub listener: usize,
    /// The caller's cookie of the connection or listener.
    pub context: usize,
    /// The caller's cookie of the operation.
    pub user: usize,
    /// First octet received.
    pub data: usize,
    /// Octets received or moved.
    pub length: usize,
    /// Names a lent buffer.
    pub buffer: u64,
    /// Immediate data.
    pub imm: u32,
    /// The key the peer invalidated.
    pub invalidated_key: u32,
    /// What the peer's application sent with its request, accept or reject.
    pub private_data: Option<Arc<[u8]>>,
    /// The peer's address.
    pub peer: Option<Arc<SockAddr>>,
    /// Why it failed or ended.
    pub error: Option<Arc<ErrorReport>>,
    /// What the protocol on top has to say.
    pub attached: Option<Arc<dyn Any + Send + Sync>>,
}

/// Everything known about a failure, in the layout of `rcg_error`.
#[repr(C)]
#[derive(Clone)]
pub struct ErrorReport {
    /// `sizeof(rcg_error)` of whoever made it.
    pub size: usize,
    /// Negative errno.
    pub code: i32,
    /// `RCG_STAGE_*`: how far it had come.
    pub stage: u32,
    /// `RCG_REASON_*`: why, as a stable number.
    pub reason: u32,
    /// `RCG_PROVIDER_*`: the provider that was used.
    pub provider: u32,
    /// Reject reason, Terminate control word or rdma_cm status; 0 = none.
    pub provider_code: i32,
    /// Milliseconds since the beginning.
    pub elapsed_ms: u32,
    /// Our address, as text; empty = unknown.
    pub local: [c_char; 64],
    /// The peer's address, as text; empty = unknown.
    pub peer: [c_char; 64],
    /// The device, as text; empty = none.
    pub device: [c_char; 32],
    /// The whole message, for people.
    pub text: [c_char; 512],
    /// What to do about it; empty = nothing known.
    pub remedy: [c_char; 256],
}

/// Copies text into a C array, cut at a character boundary and always terminated.
fn put<const N: usize>(text: &str) -> [c_char; N] {
    let mut out = [0; N];
    let mut end = text.len().min(N - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    for (slot, octet) in out.iter_mut().zip(text.as_bytes().iter().take(end)) {
        *slot = *octet as c_char;
    }
    out
}

/// The text in a C array.
fn text(array: &[c_char]) -> String {
    let octets: Vec<u8> = array.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    String::from_utf8_lossy(&octets).into_owned()
}

/// Where and when a failure happened.
#[derive(Clone, Copy, Default)]
pub struct Place<'a> {
    /// `RCG_PROVIDER_*`.
    pub provider: u32,
    /// Our address.
    pub local: &'a str,
    /// The peer's address.
    pub peer: &'a str,
    /// The device.
    pub device: &'a str,
    /// Milliseconds since the beginning.
    pub elapsed_ms: u32,
}

impl ErrorReport {
    /// The whole message, for people.
    pub fn words(&self) -> String {
        text(&self.text)
    }

    /// The device that was used; empty = none.
    pub fn device_name(&self) -> String {
        text(&self.device)
    }

    /// A report of `error` at `place`, with `text` for people.
    pub fn new(error: &Error, place: Place<'_>, text: &str) -> Self {
        Self {
            size: size_of::<Self>(),
            code: error.code(),
            stage: error.stage as u32,
            reason: error.reason as u32,
            provider: place.provider,
            provider_code: error.provider_code,
            elapsed_ms: place.elapsed_ms,
            local: put(place.local),
            peer: put(place.peer),
            device: put(place.device),
            text: put(text),
            remedy: put(&error.remedy),
        }
    }
}
