//! What an end of RPC-over-RDMA is made like.

use crate::engine::{ConnectConfig, FLAG_RAW_PRIVATE_DATA, ListenConfig, Protocol, QpConfig};
use crate::error::{Error, Result};
use crate::wire::cm_private::{self, CmPrivate, DEFAULT_THRESHOLD};
use crate::wire::rpcrdma::Dialect;

use super::gluster;
use super::layout::Pads;
use super::session::Session;

const DEFAULT_CREDITS: u32 = 64;
const MAX_CREDITS: u32 = 1024;
const DEFAULT_BACKCHANNEL: u32 = 16;
const DEFAULT_INLINE: usize = 4096;
const MAX_INLINE: usize = 65_536;
const DEFAULT_PAYLOAD: usize = 1 << 20;
const MAX_PAYLOAD: usize = 1 << 30;
/// What a long call may have besides its payload.
const HEAD_ROOM: usize = 65_536;
/// See [`Config::most_held`].
const MOST_HELD: u64 = 16 << 20;
/// Receives beyond the credits: of answers to what went wrong, and of calls that come before a grant has shrunk.
const SLACK: u32 = 8;
/// The shortest send queue: a reply in many segments goes out in several batches.
const LEAST_DEPTH: u32 = 128;

/// Values as C gave them; 0 = default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// Who connects: calls it wants to have outstanding. Who accepts: calls that it takes at a time.
    pub credits: u32,
    /// The same for the backchannel, where the roles are exchanged.
    pub backchannel: u32,
    /// Octets of the longest message to send.
    pub inline_send: usize,
    /// Octets of each receive.
    pub inline_recv: usize,
    /// Octets that a call may have in chunks.
    pub max_payload: usize,
    /// No private data: RFC 8166 alone, 1024 octets in both directions.
    pub silent: bool,
    /// Of the peer, where that is known.
    pub dialect: Dialect,
    /// A peer without private data speaks GlusterFS's.
    pub gluster_if_silent: bool,
    /// Of payloads and messages.
    pub pads: Pads,
    /// Keys to memory of arenas live as long as the connection.
    pub standing_keys: bool,
    /// That a reply is out is told with the connection's next event.
    pub answered_later: bool,
}

fn bounded<T: PartialOrd + Default + std::fmt::Display>(
    value: &mut T,
    default: T,
    (least, most): (T, T),
    what: &str,
) -> Result<()> {
    if *value == T::default() {
        *value = default;
    }
    if *value < least || *value > most {
        return Err(Error::invalid(format!("{what} {value} is not between {least} and {most}")));
    }
    Ok(())
}

impl Config {
    /// With defaults, and checked.
    fn complete(mut self) -> Result<Self> {
        let sizes = (DEFAULT_THRESHOLD, MAX_INLINE);
        bounded(&mut self.credits, DEFAULT_CREDITS, (1, MAX_CREDITS), "credits")?;
        bounded(&mut self.backchannel, DEFAULT_BACKCHANNEL, (1, MAX_CREDITS), "backchannel")?;
        bounded(&mut self.inline_send, DEFAULT_INLINE, sizes, "inline_send")?;
        bounded(&mut self.inline_recv, DEFAULT_INLINE, sizes, "inline_recv")?;
        bounded(&mut self.max_payload, DEFAULT_PAYLOAD, (1, MAX_PAYLOAD), "max_payload")?;
        Ok(self)
    }

    /// Octets that all chunks of a call may have together.
    pub(super) fn max_call(&self) -> u64 {
        (self.max_payload + HEAD_ROOM) as u64
    }

    /// Octets of the peer's calls that are read, or have been, at the same time; what is over that waits. One that sends
    /// little could otherwise have as many of our octets in use, and registered, as it has credits for.
    pub(super) fn most_held(&self) -> u64 {
        self.max_call().max(MOST_HELD)
    }

    /// Most sends that can be waiting for room at once while the peer keeps to its credits: of each call that it has made the
    /// reply or the Reads, and of each of ours the Send.
    pub(super) fn most_waiting(&self) -> usize {
        (2 * (self.credits + self.backchannel) + SLACK) as usize
    }

    /// What it says of itself: RFC 8797. Memory is registered as a whole here, not by windows, so that no peer may
    /// invalidate it.
    pub(super) fn private_data(&self) -> Vec<u8> {
        if self.silent {
            return Vec::new();
        }
        let mut octets = [0; cm_private::LEN];
        CmPrivate { invalidate: false, send_size: self.inline_send, recv_size: self.inline_recv }
            .emit(&mut octets);
        octets.to_vec()
    }

    /// `active`: this end connects.
    fn qp(&self, active: bool, qp: &mut QpConfig) -> Result<Protocol> {
        if qp.recv_size != 0 || qp.recv_count != 0 || qp.recv_depth != 0 || qp.send_depth != 0 {
            return Err(Error::invalid("the queues of a connection for RPC are the library's to choose"));
        }
        let both = self.credits + self.backchannel;
        qp.flags |= FLAG_RAW_PRIVATE_DATA;
        let gluster = self.gluster_if_silent || self.dialect == Dialect::GlusterFs;
        qp.recv_size = self.inline_recv.max(if gluster { gluster::RECEIVE } else { 0 }) as u32;
        qp.recv_count = both + SLACK;
        qp.send_depth = (2 * both).max(LEAST_DEPTH);
        let config = *self;
        Ok(Protocol::new(move || Session::new(config, active)))
    }

    /// Has a connect make an RPC connection.
    pub fn connect(self, config: &mut ConnectConfig) -> Result<()> {
        let rpc = self.complete()?;
        if !config.private_data.is_empty() {
            return Err(Error::invalid("the private data of a connection for RPC are the library's"));
        }
        config.protocol = Some(rpc.qp(true, &mut config.qp)?);
        config.private_data = rpc.private_data();
        Ok(())
    }

    /// Has a listener take RPC connections.
    pub fn listen(self, config: &mut ListenConfig) -> Result<()> {
        let rpc = self.complete()?;
        config.protocol = Some(rpc.qp(false, &mut config.qp)?);
        Ok(())
    }
}
