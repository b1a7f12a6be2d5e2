//! `rcg_event`: what a channel tells, and how it gets to a callback.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::null;

use libc::sockaddr;

use super::channel::rcg_channel;
use super::conn::rcg_conn;
use super::ffi::as_pointer;
use super::listener::rcg_listener;
use crate::engine::{ErrorReport, Event, Sink};
use crate::rpc::{Message, MessageView};

/// Event: a peer asks for a connection. `conn` is new; answer by rcg_accept() or rcg_reject(). `listener`,
/// `private_data` and `peer` are set.
pub const RCG_EVENT_CONNECT_REQUEST: u32 = 1;
/// Event: both sides can post. `private_data` is what the peer's accept carried.
pub const RCG_EVENT_ESTABLISHED: u32 = 2;
/// Event: the connection did not come about. `status` and `error` say why, `private_data` is what a reject carried.
pub const RCG_EVENT_CONNECT_FAILED: u32 = 3;
/// Event: an established connection ended. `status` and `error` say why: -ECANCELED this side asked for it, -ESHUTDOWN
/// the peer did, others are failures.
pub const RCG_EVENT_DISCONNECTED: u32 = 4;
/// Event: the last of a connection or, where `conn` is NULL, of a listener: when the callback returns, or at the next
/// rcg_channel_next(), the handle is gone.
pub const RCG_EVENT_CLOSED: u32 = 5;
/// Event: an operation is finished. `op`, `user`, `status` and `length` are set. Operations without RCG_SIGNALED have
/// one only when they fail.
pub const RCG_EVENT_COMPLETION: u32 = 6;
/// Event: a message has arrived, or a receive was flushed. `data`, `length`, `user` and the flags are set.
pub const RCG_EVENT_RECV: u32 = 7;
/// Event: the peer of a connection for RPC calls. `data` is the RPC message less what was taken out of it, which `rpc` tells.
/// To be answered by rcg_rpc_reply() or rcg_rpc_refuse(). `data`, `rpc` and what that points to are lent until the call is
/// answered or, if it never is, until RCG_EVENT_CLOSED.
pub const RCG_EVENT_RPC_CALL: u32 = 8;
/// Event: a call is over: `user`, `status`, and with status 0 `data`, the reply, and `rpc`, how much of each result was
/// placed. `data` is the event's or, where it came in the reply chunk, the call's own memory.
pub const RCG_EVENT_RPC_REPLY: u32 = 9;
/// Event: a reply is out, `user` says which. Its payloads' memory is the caller's again. `status` is not 0 where the
/// connection ended first.
pub const RCG_EVENT_RPC_ANSWERED: u32 = 10;

/// Event flag: `imm` is set.
pub const RCG_EVENT_WITH_IMM: u32 = 1;
/// Event flag: the peer has invalidated `invalidated_key`.
pub const RCG_EVENT_INVALIDATED: u32 = 2;
/// Event flag: the sender asked for attention.
pub const RCG_EVENT_SOLICITED: u32 = 4;
/// Event flag: `data` is a buffer of the library's, to be given back by rcg_recv_release().
pub const RCG_EVENT_LENT: u32 = 8;

/// One event. What it points to is the library's: valid during the callback, or until the next rcg_channel_next() of
/// the channel; a lent buffer until rcg_recv_release().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rcg_event {
    /// `RCG_EVENT_*`.
    pub r#type: u32,
    /// The operation, RCG_SEND to RCG_RECV, of a completion.
    pub op: u32,
    /// 0 or a negative errno. Of operations: -ECANCELED flushed, -EACCES the peer refused key, rights or bounds,
    /// -EMSGSIZE longer than the receive, -EREMOTEIO another error of the peer's, -ECONNRESET the connection broke.
    pub status: i32,
    /// `RCG_EVENT_WITH_IMM` and so on.
    pub flags: u32,
    /// The connection, or NULL.
    pub conn: *mut rcg_conn,
    /// The listener, or NULL.
    pub listener: *mut rcg_listener,
    /// `context` of the connection or listener.
    pub context: *mut c_void,
    /// `user` of the operation or receive.
    pub user: *mut c_void,
    /// First octet received, or NULL.
    pub data: *mut c_void,
    /// Octets received or moved.
    pub length: usize,
    /// Names the lent buffer to rcg_recv_release().
    pub buffer: u64,
    /// Immediate data, in host order.
    pub imm: u32,
    /// The key that the peer invalidated.
    pub invalidated_key: u32,
    /// What the peer's application sent with its connect, accept or reject, exactly; NULL = nothing.
    pub private_data: *const c_void,
    /// Octets of `private_data`.
    pub private_data_len: usize,
    /// The peer's address, or NULL.
    pub peer: *const sockaddr,
    /// Why it failed or ended, or NULL.
    pub error: *const ErrorReport,
    /// Of RCG_EVENT_RPC_CALL and RCG_EVENT_RPC_REPLY: what is to be said of the message besides; else NULL.
    pub rpc: *const MessageView,
    /// 0.
    pub reserved: u64,
}

impl From<&Event> for rcg_event {
    fn from(event: &Event) -> Self {
        let private_data = event.private_data.as_deref().unwrap_or_default();
        Self {
            r#type: event.kind,
            op: event.op,
            status: event.status,
            flags: event.flags,
            conn: as_pointer(event.conn),
            listener: as_pointer(event.listener),
            context: event.context as *mut c_void,
            user: event.user as *mut c_void,
            data: event.data as *mut c_void,
            length: event.length,
            buffer: event.buffer,
            imm: event.imm,
            invalidated_key: event.invalidated_key,
            private_data: if private_data.is_empty() { null() } else { private_data.as_ptr().cast() },
            private_data_len: private_data.len(),
            peer: event.peer.as_ref().map_or(null(), |peer| peer.as_ptr().cast()),
            error: event.error.as_ref().map_or(null(), |error| std::ptr::from_ref(&**error)),
            rpc: Message::of(event).map_or(null(), |message| std::ptr::from_ref(message.view())),
            reserved: 0,
        }
    }
}

/// Takes a batch of `n` events, one or more, of `channel`; `arg` is what the channel's attributes said. Called on the
/// channel's thread, or within rcg_channel_run(), never twice at a time for one channel. May call all functions but
/// rcg_channel_destroy() and rcg_channel_run() of that channel; should not block.
pub type rcg_events_fn = Option<
    unsafe extern "C" fn(channel: *mut rcg_channel, events: *const rcg_event, n: usize, arg: *mut c_void),
>;

/// What [`rcg_events_fn`] holds when it is not NULL.
pub(super) type EventsFunction =
    unsafe extern "C" fn(channel: *mut rcg_channel, events: *const rcg_event, n: usize, arg: *mut c_void);

/// Delivers events to a function of the caller's.
pub(super) struct Callback {
    function: EventsFunction,
    arg: *mut c_void,
}

// SAFETY: the argument is the caller's cookie, never looked at here; the C API says on which threads it is passed on.
unsafe impl Send for Callback {}
// SAFETY: as above; nothing is ever changed.
unsafe impl Sync for Callback {}

impl Callback {
    pub(super) fn new(function: EventsFunction, arg: *mut c_void) -> Self {
        Self { function, arg }
    }
}

thread_local! {
    /// The events of a batch as C sees them, kept so that a batch needs no allocation.
    static BATCH: Cell<Vec<rcg_event>> = const { Cell::new(Vec::new()) };
}

impl Sink for Callback {
    fn deliver(&self, channel: usize, events: &[Event]) {
        // Taken out, not borrowed: a callback may run another channel, whose batch then is another vector.
        let mut batch = BATCH.try_with(Cell::take).unwrap_or_default();
        batch.clear();
        batch.extend(events.iter().map(rcg_event::from));
        // SAFETY: the caller has given a function of this type and its argument; the events live for the call, as does
        // all that they point to.
        unsafe { (self.function)(as_pointer(channel), batch.as_ptr(), batch.len(), self.arg) };
        let _ = BATCH.try_with(|kept| kept.set(batch));
    }
}

/// No event, for the arrays of tests.
#[cfg(test)]
pub(super) fn blank() -> rcg_event {
    (&Event::default()).into()
}
