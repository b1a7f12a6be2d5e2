//! RPC-over-RDMA version 1 (RFC 8166, 8167, 8797) on top of a connection, in both roles at once.
//!
//! Whoever connects makes calls, whoever accepts answers them; in the backchannel it is the other way round, without
//! chunks. A [`Session`] is the protocol of one connection: it takes the connection's events, keeps the tables of calls in
//! both directions, and makes events about whole RPC messages.
//!
//! - `credits`, `layout`: what may be sent and what goes where, without any state but numbers
//! - `gluster`: what GlusterFS 3.4 to 7 does otherwise
//! - `message`: what callers give and get
//! - `outbox`, `pool`: work requests on their way, and registered memory for them
//! - `requester`, `responder`: the two tables of calls
//! - `standing`: keys that outlive a call
//! - `session`: what joins them to the connection
//!
//! What a peer says about memory is never trusted: a reply's lists are compared with what the call has offered, by number
//! and length only, and keys are revoked before the caller gets its memory back, unless it wants standing ones.

mod config;
mod credits;
#[cfg(test)]
mod fault_test;
mod gluster;
#[cfg(test)]
mod hostile_test;
mod layout;
mod message;
mod outbox;
mod pool;
mod requester;
mod responder;
mod session;
#[cfg(test)]
mod session_test;
mod standing;

pub use config::Config;
pub use layout::Pads;
pub use message::{Call, Message, MessageView, Payload, PieceView, Reply};
pub use session::{Agreed, Counters, Session};

/// Numbers of the events that a session makes, as of `RCG_EVENT_RPC_CALL` and so on.
pub mod kind {
    /// The peer calls.
    pub const CALL: u32 = 8;
    /// A call of ours is over.
    pub const REPLY: u32 = 9;
    /// A reply of ours is out: its memory is the caller's again.
    pub const ANSWERED: u32 = 10;
}
