//! The life cycle of one connection as a pure state machine.
//!
//! Events and `now` go in, actions come out: no clock, socket, thread or lock is touched here. One [`Life`]
//! serves both providers, rdma_cm with its awkward event orders and the user-space iWARP over TCP. Its owner
//!
//! 1. calls [`Life::handle_request`] for the caller's wishes, [`Life::handle_event`] for the provider's events
//!    and [`Life::handle_timeout`] once [`Life::poll_timeout`] has passed;
//! 2. after each of these calls polls [`Life::poll_action`] until it is empty and performs what it says, in order.
//!    Actions may be performed late; an answer may be given from inside an action.
//!
//! # What is promised, whatever the order of the input
//! - Active side: exactly one of `Established` and `ConnectFailed` (closed by the caller before: `ConnectFailed`
//!   with `Reason::Cancelled`).
//! - Passive side: accepted: exactly one of the two. Rejected or closed unanswered: neither. Peer lost before the
//!   answer: `ConnectFailed`.
//! - After `Established` exactly one `Disconnected`, whoever ended it.
//! - `Closed` exactly once, last, after `FlushQueuePair`, then the provider's `Flushed` (or `flush_grace`), then
//!   `Destroy`. No action follows it.
//! - Every state that waits for something has a timeout; only those that wait for the caller (an unstarted
//!   connect, an unanswered request, an established connection) have none.
//! - From any state, `Close` leads to `Closed` within `flush_grace`.
//!
//! # Transitions
//! `fail(e)` is: active and another candidate and time left: `Abandon`, `ResolveAddress(next)`, stay in
//! `Connecting`; otherwise `end` with `ConnectFailed` (the failure that came furthest; of equals the last).
//! `end(r)` is: `Report(r)` if any, `FlushQueuePair`, the parting word if any, to `Flushing`. The parting word is
//! `SendReject` while a request is unanswered, `SendDisconnect` once established unless already sent, and nothing
//! to a peer or device that is gone. What is not in the table changes nothing; most of it is counted
//! ([`Life::ignored`]).
//!
//! | state | input | actions | next |
//! |---|---|---|---|
//! | `Idle`, active | `Start` | `ResolveAddress(0)` | `Connecting` |
//! | | `Close`, `Disconnect` | end(`ConnectFailed(Cancelled)`) | `Flushing` |
//! | `Idle`, passive | `Requested` | | `Requested` |
//! | | `Close`, a failure, `deadline` | end(none) | `Flushing` |
//! | `Connecting` | `AddressResolved`, `RouteResolved`, `QueuePairReady` | `ResolveRoute`, `CreateQueuePair`, `Connect` | same |
//! | | `HandshakeDone` | | same, stage ready |
//! | | `Established` (the reply known or not) | `Report(Established)` | `Established` |
//! | | `Failed`, `StreamError`, `Disconnected`, `Unreachable`, `AddressChanged`, `DeviceRemoved`, share of `deadline` | fail | `Connecting` or `Flushing` |
//! | | `Rejected` | end(`ConnectFailed`), no other candidate is tried | `Flushing` |
//! | | `Close`, `Disconnect` | end(`ConnectFailed(Cancelled)`) | `Flushing` |
//! | `Requested` | `Accept` | `CreateQueuePair` | `Accepting` |
//! | | `Reject`, `Close`, `Disconnect` | end(none) with `SendReject` | `Flushing` |
//! | | a failure (as in `Connecting`), `Rejected` | end(`ConnectFailed`) | `Flushing` |
//! | `Accepting` | `QueuePairReady`, `HandshakeDone`, `Established` | `SendAccept`, -, `Report(Established)` | same, same, `Established` |
//! | | a failure, `Rejected`, `Close`, `Disconnect`, `deadline` | end(`ConnectFailed`) | `Flushing` |
//! | `Established` | `Disconnect` | `DrainSends` | `Draining` |
//! | | `Close` | end(`Disconnected(Cancelled)`) | `Flushing` |
//! | | `Disconnected`, `StreamError`, `Failed`, `Rejected`, `AddressChanged`, `DeviceRemoved` | end(`Disconnected`) | `Flushing` |
//! | | `Unreachable`, `TimewaitExit` | | same |
//! | `Draining` | `SendsDrained` | `SendDisconnect` | `Disconnecting` |
//! | | `Close`, `linger`, or as `Established` | end(`Disconnected`) | `Flushing` |
//! | `Disconnecting` | `Disconnected`, `Close`, `linger` | end(`Disconnected(Cancelled)`) | `Flushing` |
//! | | other ends as `Established` | end(`Disconnected`) | `Flushing` |
//! | `Flushing` | `Flushed`, `flush_grace` | `Destroy`, `Report(Closed)` | `Closed` |
//! | `Closed` | anything | | same |
//!
//! # Choices
//! - `UNREACHABLE` on a connected id (Linux 6.0 and later, when a neighbour's hardware address changes) comes from
//!   outside the connection manager's exchange and the connection may well live on: counted, not fatal. If the
//!   peer is really gone, the transport's retries or the keepalive say so.
//! - `ADDR_CHANGE` on a connected id ends the connection: the queue pair still belongs to the port the address has
//!   left, as the kernel's NFS and NVMe clients also hold. A new connect goes by the new port.
//! - Before establishment, everything but an answer of "no" only fails the candidate: another address of the same
//!   peer may use another device or provider. `DeviceRemoved` is no exception.
//! - `Failed` or `Rejected` on an established connection: in doubt it is dead, and ends with that error.
//! - `TIMEWAIT_EXIT` is never waited for: it does not always come.

mod life;
mod reasons;
mod stages;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::error::Error;
pub use life::Life;

/// Who began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Connects: `rdma_connect`, the MPA initiator.
    Active,
    /// Was asked: `RDMA_CM_EVENT_CONNECT_REQUEST`, the MPA responder.
    Passive,
}

/// Bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Addresses to try, in order; active side only. 0 counts as 1.
    pub candidates: usize,
    /// Active: the whole connect, from `Start`, over all candidates. Passive: first the wait for the request, from
    /// creation; then, anew, from `Accept` to established. The time the caller takes to answer is its own.
    pub deadline: Duration,
    /// The whole graceful disconnect: draining and waiting for the peer's side of it.
    pub linger: Duration,
    /// The wait for `Flushed` after the queue pair went to error; then the provider's objects are destroyed anyway.
    pub flush_grace: Duration,
}

/// Where the connection is. See the module's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Not started; passive: no request yet.
    Idle,
    /// Active, in one of the stages from address to ready.
    Connecting,
    /// Passive: the request waits for the caller's answer.
    Requested,
    /// Passive: accepted, not yet established.
    Accepting,
    /// Established: operations run.
    Established,
    /// Graceful disconnect: what is queued goes out.
    Draining,
    /// Graceful disconnect: told the peer, waiting for its side.
    Disconnecting,
    /// Over; operations still have to complete.
    Flushing,
    /// Over, reported, nothing left.
    Closed,
}

/// What the caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Begin to connect.
    Start,
    /// Say yes to a request.
    Accept,
    /// Say no to a request.
    Reject,
    /// Leave gracefully: what is queued goes out first. Before establishment the same as `Close`.
    Disconnect,
    /// Leave now. Never fails, may come at any time and any number of times.
    Close,
}

/// What the provider says. Each comes with the candidate it is about: [`Life::handle_event`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `RDMA_CM_EVENT_ADDR_RESOLVED`.
    AddressResolved,
    /// `RDMA_CM_EVENT_ROUTE_RESOLVED`; TCP's own handshake is through.
    RouteResolved,
    /// The queue pair exists.
    QueuePairReady,
    /// Passive: a request has arrived.
    Requested,
    /// Active: the reply has arrived (`RDMA_CM_EVENT_CONNECT_RESPONSE`; may be left out). Passive: the accept has
    /// been sent.
    HandshakeDone,
    /// `RDMA_CM_EVENT_ESTABLISHED`; iWARP: both may send.
    Established,
    /// `ADDR_ERROR`, `ROUTE_ERROR`, `CONNECT_ERROR`, no queue pair, no socket. An error without a stage gets the
    /// present one.
    Failed(Error),
    /// `RDMA_CM_EVENT_REJECTED` where the peer's application answered no: ends the whole connect. A refusal by the
    /// peer's machine (nothing listens there) is `Failed`.
    Rejected(Error),
    /// `RDMA_CM_EVENT_DISCONNECTED`; TCP's end of file at an FPDU boundary.
    Disconnected,
    /// `RDMA_CM_EVENT_UNREACHABLE`, which can also arrive on a connected id.
    Unreachable,
    /// `RDMA_CM_EVENT_ADDR_CHANGE`.
    AddressChanged,
    /// `RDMA_CM_EVENT_DEVICE_REMOVAL`.
    DeviceRemoved,
    /// `RDMA_CM_EVENT_TIMEWAIT_EXIT`: without meaning here.
    TimewaitExit,
    /// Protocol error, reset, Terminate, keepalive lost, queue pair in error.
    StreamError(Error),
    /// After `DrainSends`: nothing queued to send. Say it at once when nothing was queued.
    SendsDrained,
    /// After `FlushQueuePair`: every posted operation has its completion. Say it at once when nothing was posted or
    /// there is no queue pair.
    Flushed,
}

/// What the owner has to do. An action belongs to the candidate of the last `ResolveAddress` polled (passive: 0);
/// what comes of it carries that number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Bind to and resolve this candidate. Answers: `AddressResolved`, `Failed`.
    ResolveAddress(usize),
    /// `rdma_resolve_route`, or TCP's connect. Answers: `RouteResolved`, `Failed`.
    ResolveRoute,
    /// Answers: `QueuePairReady`, `Failed`. Receives posted before are to be handed to it.
    CreateQueuePair,
    /// `rdma_connect`, or send the MPA request. Answers: `HandshakeDone`, `Established`, `Rejected`, `Failed`...
    Connect,
    /// `rdma_accept`, or send the MPA reply. Answers: `HandshakeDone`, `Established`, `Failed`...
    SendAccept,
    /// `rdma_reject`, or an MPA reply that rejects. No answer; its failure means nothing.
    SendReject,
    /// Answer `SendsDrained` once nothing is queued to send.
    DrainSends,
    /// `rdma_disconnect`, or TCP's FIN; if the peer began, this answers it. At most once for a connection. Its
    /// failure means nothing: on iWARP only one side's call succeeds.
    SendDisconnect,
    /// The queue pair to error: every operation posted is to complete as flushed. Answer: `Flushed`.
    FlushQueuePair,
    /// Drop this attempt's provider objects; the caller's posted receives stay for the next attempt.
    Abandon,
    /// Drop the provider's objects; a peer still in the handshake learns of it by that. An operation still without completion (`flush_grace` passed) is completed as
    /// flushed after that, when nothing can touch its buffers any more and before `Closed` is delivered.
    Destroy,
    /// Tell the caller.
    Report(Report),
}

/// What the caller is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Operations may be posted.
    Established,
    /// Nothing came of it, at the error's stage.
    ConnectFailed(Error),
    /// An established connection has ended, for this reason; what is posted gets flushed.
    Disconnected(Error),
    /// The last of all.
    Closed,
}

/// A candidate that failed, for the list of what was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Index of the address.
    pub candidate: usize,
    /// Why, with its stage.
    pub error: Error,
    /// How long it was tried.
    pub elapsed: Duration,
}
