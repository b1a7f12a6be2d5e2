//! The provider of a connection, behind one set of calls: what the life cycle asks for, and what posting needs.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockAddr;

use super::channel::Channel;
use super::config::{PROVIDER_IWARP, PROVIDER_VERBS, QpPlan};
use super::listener::own_tag;
use super::perform::Io;
use crate::cm::Event as Input;
use crate::error::{Error, Reason, Result, Stage};
use crate::iwarp::endpoint::{self as iwarp, Policy, Progress, Readiness};
use crate::iwarp::handshake::Offer;
use crate::iwarp::socket::{Socket, is_internal};
use crate::memory::{Access, Owner, Region};
use crate::verbs::{self, Hub};
use crate::work::{Completion, Fill, RecvWr, SendWr};

/// A connection's objects of its provider.
pub(super) enum Endpoint {
    Iwarp(Box<iwarp::Endpoint>),
    Verbs(Box<verbs::Endpoint>),
}

/// Where to connect to.
pub(super) struct Path<'a> {
    pub(super) to: &'a SockAddr,
    pub(super) from: Option<SockAddr>,
    pub(super) timeout: Duration,
    /// The connection, as events of its id carry it.
    pub(super) handle: usize,
    /// The same, as events of its socket carry it.
    pub(super) token: u64,
}

/// The caller's part of a handshake.
pub(super) struct Words<'a> {
    pub(super) private_data: &'a [u8],
    pub(super) mpa_revision: u8,
}

impl Endpoint {
    /// An endpoint of the provider with this number.
    pub(super) fn new(provider: u32, channel: &Channel, id: u64, plan: &QpPlan) -> Result<Self> {
        let engine = channel.engine();
        if provider == PROVIDER_VERBS {
            return Ok(Self::Verbs(Box::new(verbs::Endpoint::new(plan.verbs(), id, engine.keys())?)));
        }
        let policy = Policy {
            dead_peer: plan.dead_peer,
            linger: plan.linger,
            max_ulpdu: plan.max_ulpdu,
            congestion: plan.congestion.clone(),
        };
        let endpoint = iwarp::Endpoint::new(plan.caps.clone(), policy, id, engine.keys(), engine.stages())?;
        Ok(Self::Iwarp(Box::new(endpoint)))
    }

    /// `RCG_PROVIDER_*`.
    pub(super) fn provider(&self) -> u32 {
        match self {
            Self::Iwarp(_) => PROVIDER_IWARP,
            Self::Verbs(_) => PROVIDER_VERBS,
        }
    }

    /// The device, as text; empty where it is not known yet.
    pub(super) fn device(&self) -> String {
        match self {
            Self::Iwarp(_) => "tcp".into(),
            Self::Verbs(verbs) => {
                verbs.device().map(|device| device.limits().name.clone()).unwrap_or_default()
            }
        }
    }

    /// Whether a Send can invalidate a key of the peer's; iWARP always has it.
    pub(super) fn can_invalidate(&self) -> bool {
        match self {
            Self::Iwarp(_) => true,
            Self::Verbs(verbs) => verbs.can_invalidate(),
        }
    }

    // ---- posting: any thread, under the connection's lock ----

    /// Posts operations, all or none. `More` = the channel has to go on.
    pub(super) fn post(&mut self, n: usize, fill: &mut Fill<'_, SendWr>) -> Result<Progress> {
        match self {
            Self::Iwarp(iwarp) => iwarp.post(n, fill),
            Self::Verbs(verbs) => verbs.post(n, fill).map(|()| self.after_verbs()),
        }
    }

    /// Posts receives, all or none. `More` = the channel has to go on.
    pub(super) fn post_recv(&mut self, n: usize, fill: &mut Fill<'_, RecvWr>) -> Result<Progress> {
        match self {
            Self::Iwarp(iwarp) => iwarp.post_recv(n, fill),
            Self::Verbs(verbs) => verbs.post_recv(n, fill).map(|()| self.after_verbs()),
        }
    }

    /// Takes a lent buffer back. `More` = the channel has to go on.
    pub(super) fn release(&mut self, buffer: u64) -> Result<Progress> {
        match self {
            Self::Iwarp(iwarp) => iwarp.release(buffer),
            Self::Verbs(verbs) => verbs.release(buffer).map(|()| self.after_verbs()),
        }
    }

    /// A device goes on by itself; the channel has to see only what has failed.
    pub(super) fn after_verbs(&self) -> Progress {
        match self {
            Self::Verbs(verbs) if verbs.has_failed() => Progress::More,
            _ => Progress::Waiting,
        }
    }

    /// The next completion.
    pub(super) fn poll(&mut self) -> Option<Completion> {
        match self {
            Self::Iwarp(iwarp) => iwarp.qp_mut().poll(),
            Self::Verbs(verbs) => verbs.poll(),
        }
    }

    /// Whether [`Endpoint::poll`] has something.
    pub(super) fn has_completion(&self) -> bool {
        match self {
            Self::Iwarp(iwarp) => iwarp.qp().has_completion(),
            Self::Verbs(verbs) => verbs.has_completion(),
        }
    }

    /// Octets that the socket has brought; devices are not read from.
    pub(super) fn octets_received(&self) -> u64 {
        match self {
            Self::Iwarp(iwarp) => iwarp.qp().counters().received,
            Self::Verbs(_) => 0,
        }
    }

    /// Whether every posted send-queue operation is done.
    pub(super) fn sends_drained(&self) -> bool {
        match self {
            Self::Iwarp(iwarp) => iwarp.qp().sends_drained(),
            Self::Verbs(verbs) => verbs.sends_drained(),
        }
    }

    /// A key by which this connection's peer reaches a part of a region.
    pub(super) fn grant(
        &mut self,
        region: &Arc<Region>,
        stream: u64,
        range: (usize, usize),
        access: Access,
    ) -> Result<u32> {
        match self {
            Self::Iwarp(_) => region.key(Owner::Stream(stream), range.0, range.1, access),
            Self::Verbs(verbs) => verbs.grant(region, range.0, range.1, access),
        }
    }

    // ---- what is to be said ----

    /// From now on a message without a posted receive ends the connection.
    pub(super) fn set_strict(&mut self) {
        match self {
            Self::Iwarp(iwarp) => iwarp.qp_mut().set_strict(),
            Self::Verbs(verbs) => verbs.set_strict(),
        }
    }

    /// Answers the request without our tag.
    pub(super) fn untag(&mut self) {
        match self {
            Self::Iwarp(iwarp) => iwarp.untag(),
            Self::Verbs(verbs) => verbs.untag(),
        }
    }

    /// Most octets of private data in a connect or an accept.
    pub(super) fn max_private_data(&self) -> usize {
        match self {
            Self::Iwarp(iwarp) => iwarp.max_private_data(),
            Self::Verbs(verbs) => verbs.max_private_data(),
        }
    }

    /// Most octets of private data in a reject.
    pub(super) fn max_reject_data(&self) -> usize {
        match self {
            Self::Iwarp(iwarp) => iwarp.max_private_data(),
            Self::Verbs(verbs) => verbs.max_reject_data(),
        }
    }

    /// What the peer's application sent with its request, accept or reject.
    pub(super) fn peer_private(&self) -> Option<Arc<[u8]>> {
        match self {
            Self::Iwarp(iwarp) => iwarp.peer_private(),
            Self::Verbs(verbs) => verbs.peer_private(),
        }
    }

    /// Our address, once it is known.
    pub(super) fn local(&self) -> Option<SockAddr> {
        match self {
            Self::Iwarp(iwarp) => iwarp.socket().and_then(Socket::local),
            Self::Verbs(verbs) => verbs.local(),
        }
    }

    // ---- what the life cycle asks for: the channel's driver only ----

    /// Gives away the caller's receives, for an endpoint of another provider.
    pub(super) fn take_receives(&mut self) -> Vec<RecvWr> {
        match self {
            Self::Iwarp(iwarp) => iwarp.qp_mut().take_receives(),
            Self::Verbs(verbs) => verbs.take_receives(),
        }
    }

    pub(super) fn resolve_address(
        &mut self,
        path: &Path<'_>,
        io: &mut Io<'_>,
        inputs: &mut Vec<Input>,
    ) -> Result<()> {
        match self {
            Self::Iwarp(_) => inputs.push(Input::AddressResolved),
            Self::Verbs(verbs) => {
                verbs.resolve_address(io.hub()?, (path.to, path.from.as_ref()), path.timeout, path.handle)?;
            }
        }
        Ok(())
    }

    pub(super) fn resolve_route(&mut self, path: &Path<'_>, io: &Io<'_>) -> Result<()> {
        match self {
            Self::Iwarp(iwarp) => {
                let socket = iwarp.connect(path.to, path.from.as_ref())?;
                io.selector.add(socket.as_raw_fd(), path.token).map_err(|error| error.at(Stage::Device))
            }
            Self::Verbs(verbs) => verbs.resolve_route(path.timeout),
        }
    }

    pub(super) fn create_queue_pair(&mut self, io: &mut Io<'_>, inputs: &mut Vec<Input>) -> Result<()> {
        if let Self::Verbs(verbs) = self {
            verbs.create_qp(io.hub()?)?;
        }
        inputs.push(Input::QueuePairReady);
        Ok(())
    }

    pub(super) fn connect(
        &mut self,
        words: &Words<'_>,
        peer: Option<&SockAddr>,
        plan: &QpPlan,
    ) -> Result<()> {
        let internal = peer.is_some_and(|peer| is_internal(peer, self.local().as_ref()));
        match self {
            Self::Iwarp(iwarp) => iwarp.request(Offer {
                revision: words.mpa_revision,
                crc: plan.crc,
                offer_crc: !internal,
                ird: plan.ird,
                ord: plan.ord,
                private_data: words.private_data.to_vec(),
                tag: (!plan.raw_private_data).then(own_tag),
            }),
            Self::Verbs(verbs) => verbs.connect(words.private_data),
        }
    }

    pub(super) fn accept(
        &mut self,
        private_data: &[u8],
        (ird, ord): (u16, u16),
        inputs: &mut Vec<Input>,
    ) -> Result<()> {
        match self {
            Self::Iwarp(iwarp) => iwarp.accept(private_data, ird, ord, inputs),
            Self::Verbs(verbs) => verbs.accept(private_data, ird, ord),
        }
    }

    pub(super) fn reject(&mut self, reason: u32, private_data: &[u8]) -> Result<()> {
        match self {
            Self::Iwarp(iwarp) => iwarp.reject(reason, private_data),
            Self::Verbs(verbs) => verbs.reject(reason, private_data),
        }
    }

    /// Sees to it that [`Endpoint::sends_drained`] becomes true when all that is posted is done.
    pub(super) fn drain(&mut self) {
        if let Self::Verbs(verbs) = self {
            verbs.drain();
        }
    }

    pub(super) fn disconnect(&mut self) {
        match self {
            Self::Iwarp(iwarp) => iwarp.shut_down(),
            Self::Verbs(verbs) => verbs.disconnect(),
        }
    }

    /// Has everything posted complete, then says `Flushed`.
    pub(super) fn flush(&mut self, now: Instant, inputs: &mut Vec<Input>) {
        match self {
            Self::Iwarp(iwarp) => {
                let text = "the connection has ended";
                iwarp.flush_queue_pair(Error::new(libc::ECANCELED, Reason::Cancelled, text));
                inputs.push(Input::Flushed);
            }
            Self::Verbs(verbs) => verbs.flush(now, inputs),
        }
    }

    /// Drops an attempt that has failed; posted receives stay.
    pub(super) fn abandon(&mut self, io: &mut Io<'_>) {
        self.forget_socket(io);
        match self {
            Self::Iwarp(iwarp) => iwarp.abandon(),
            Self::Verbs(verbs) => verbs.abandon(io.hub.as_deref_mut()),
        }
    }

    /// Drops everything. Returns a socket from which the peer should still read what was sent last.
    pub(super) fn destroy(&mut self, io: &mut Io<'_>) -> Option<Socket> {
        self.forget_socket(io);
        match self {
            Self::Iwarp(iwarp) => iwarp.destroy(),
            Self::Verbs(verbs) => {
                verbs.destroy(io.hub.as_deref_mut());
                None
            }
        }
    }

    fn forget_socket(&self, io: &Io<'_>) {
        let socket = if let Self::Iwarp(iwarp) = self { iwarp.socket() } else { None };
        if let Some(socket) = socket {
            io.selector.remove(socket.as_raw_fd());
        }
    }

    /// Ends everything at once, without the channel's help.
    pub(super) fn break_off(&mut self, error: &Error) {
        match self {
            Self::Iwarp(iwarp) => {
                iwarp.abandon();
                iwarp.flush_queue_pair(error.clone());
            }
            Self::Verbs(verbs) => verbs.destroy(None),
        }
    }

    // ---- what has happened ----

    /// A request has come: nothing that happened before it makes another event.
    pub(super) fn requested(&mut self, io: &mut Io<'_>, inputs: &mut Vec<Input>) -> Progress {
        match self {
            // The peer may have gone already: its FIN makes no new edge.
            Self::Iwarp(iwarp) => {
                iwarp.ready(Readiness { readable: true, ..Readiness::default() }, io.buffer, inputs)
            }
            Self::Verbs(verbs) => {
                if let Err(error) = io.hub().and_then(|hub| verbs.settle(hub)) {
                    inputs.push(Input::Failed(error));
                }
                Progress::Waiting
            }
        }
    }

    /// Whether there is something to be read, or might be: [`Endpoint::ready`] with the same buffer is to follow at once.
    pub(super) fn look(&mut self, buffer: &mut [u8]) -> bool {
        match self {
            Self::Iwarp(iwarp) => iwarp.look(buffer),
            Self::Verbs(_) => false,
        }
    }

    /// The socket has told something, or there was more to do.
    pub(super) fn ready(
        &mut self,
        readiness: Readiness,
        io: &mut Io<'_>,
        inputs: &mut Vec<Input>,
    ) -> Progress {
        match self {
            Self::Iwarp(iwarp) => iwarp.ready(readiness, io.buffer, inputs),
            Self::Verbs(verbs) => {
                verbs.report_failure(inputs);
                Progress::Waiting
            }
        }
    }

    /// What the device or rdma_cm tells; nothing to a connection that has left them meanwhile.
    pub(super) fn verbs(&mut self) -> Option<&mut verbs::Endpoint> {
        match self {
            Self::Iwarp(_) => None,
            Self::Verbs(verbs) => Some(verbs),
        }
    }

    pub(super) fn timer(&mut self, now: Instant, inputs: &mut Vec<Input>) -> Progress {
        match self {
            Self::Iwarp(iwarp) => iwarp.timer(now, inputs),
            Self::Verbs(verbs) => {
                verbs.timer(now, inputs);
                Progress::Waiting
            }
        }
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        match self {
            Self::Iwarp(iwarp) => iwarp.next_timer(),
            Self::Verbs(verbs) => verbs.next_timer(),
        }
    }
}

impl Io<'_> {
    /// What the channel has of rdma_cm and verbs.
    pub(super) fn hub(&mut self) -> Result<&mut Hub> {
        let missing = || Error::new(libc::ENODEV, Reason::NoProvider, "rdma_cm is not open");
        self.hub.as_deref_mut().ok_or_else(missing)
    }
}
