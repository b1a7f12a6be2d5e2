//! From an address to a queue pair and a handshake, in both roles: one call of rdma_cm each.

use std::sync::Arc;
use std::time::Duration;

use socket2::SockAddr;

use super::super::listen::Request;
use super::super::private::{Carrier, compose, separate};
use super::super::sys::CmId;
use super::send_queue::{PROBES, SendQueue};
use super::{Endpoint, Hub, at, misplaced};
use crate::error::{Error, Reason, Result, Stage};
use crate::memory::ReceivePool;
use crate::verbs::types::{ConnParam, QpCaps};
use crate::work::{MAX_INLINE, MAX_SGE};

/// Repeats of a Send that met no receive: without end, which is back-pressure, or none.
const RNR_WAIT: u8 = 7;
const RNR_FAIL: u8 = 0;
/// Inline sizes to ask for, as a device that has less refuses the queue pair.
const INLINE_SIZES: [u32; 3] = [MAX_INLINE as u32, 64, 0];
/// Most requests in a queue, as a completion carries fifteen bits of their number.
const MOST_REQUESTS: u32 = 32_767;

fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

impl Endpoint {
    /// `rdma_resolve_addr`: which device, and where the peer is on its network. `handle`: what events will carry.
    pub(crate) fn resolve_address(
        &mut self,
        hub: &Hub,
        (to, from): (&SockAddr, Option<&SockAddr>),
        timeout: Duration,
        handle: usize,
    ) -> Result<()> {
        let id = CmId::new(hub.events(), handle).map_err(|error| at(error, Stage::Address))?;
        id.resolve_addr(from, to, millis(timeout)).map_err(|error| at(error, Stage::Address))?;
        self.id = Some(id);
        self.handle = handle;
        Ok(())
    }

    /// The address has been resolved: opens the device.
    pub(super) fn open_device(&mut self, hub: &mut Hub) -> Result<()> {
        let id = self.id.as_ref().ok_or_else(misplaced)?;
        self.device = Some(hub.device(id).map_err(|error| at(error, Stage::Device))?);
        Ok(())
    }

    /// `rdma_resolve_route`.
    pub(crate) fn resolve_route(&mut self, timeout: Duration) -> Result<()> {
        let id = self.id.as_ref().ok_or_else(misplaced)?;
        id.resolve_route(millis(timeout)).map_err(|error| at(error, Stage::Route))
    }

    /// Takes over the id of a peer's request, on whichever channel that came. `handle`: what events will carry.
    pub(crate) fn adopt(&mut self, request: Request, handle: usize) {
        let Request { mut id, param } = request;
        id.set_context(handle);
        let (private, tag) = separate(&param.private_data);
        self.peer_private = private;
        self.tagged_request = tag.is_some();
        self.terms.own_peer = tag.is_some();
        self.terms.ird = param.responder_resources;
        self.terms.ord = param.initiator_depth;
        self.pulse.passive = true;
        self.handle = handle;
        self.id = Some(id);
    }

    /// Has the events of an adopted id come to `hub`, and opens the device.
    pub(crate) fn settle(&mut self, hub: &mut Hub) -> Result<()> {
        let events = Arc::clone(hub.events());
        self.id.as_mut().ok_or_else(misplaced)?.migrate(&events)?;
        self.open_device(hub)?;
        let iwarp = self.is_iwarp();
        if iwarp && self.terms.ird == 0 && self.terms.ord == 0 {
            // MPA revision 1 carries neither, and the device goes by what we say.
            self.terms.ird = u8::MAX;
            self.terms.ord = u8::MAX;
        }
        Ok(())
    }

    /// `rdma_create_qp`, and all that a queue pair needs; posts the receives that wait.
    pub(crate) fn create_qp(&mut self, hub: &mut Hub) -> Result<()> {
        self.make_qp(hub).map_err(|error| at(error, Stage::QueuePair))
    }

    fn make_qp(&mut self, hub: &mut Hub) -> Result<()> {
        let (want, passive) = (self.wanted()?, self.passive());
        let device = self.device.clone().ok_or_else(misplaced)?;
        let id = self.id.as_mut().ok_or_else(misplaced)?;
        let lease = hub.reserve(id, want.send_wr + want.recv_wr)?;
        let pd = device.pd();
        let mut last = Err(misplaced());
        for inline in INLINE_SIZES {
            let wanted = QpCaps { inline, ..want };
            last = pd.clone().and_then(|pd| id.create_qp(&pd, &lease.place().cq, wanted, self.handle));
            if !last.as_ref().is_err_and(|error| error.errno == libc::EINVAL) {
                break;
            }
        }
        let caps = match last {
            Ok(caps) => caps,
            Err(error) => {
                hub.release(&lease);
                let left = passive && error.errno == libc::EINVAL && id.is_given_up();
                return Err(if left { peer_left() } else { explain(error, want, &device.limits().name) });
            }
        };
        self.lease = Some(lease);
        // What the device gave beyond what was asked for has no completion reserved.
        let send_wr = caps.send_wr.clamp(1, want.send_wr);
        self.qp = Some(QpCaps { send_wr, ..caps });
        if (caps.inline as usize) < MAX_INLINE {
            let slots = SendQueue::slots(self.plan.caps.send_depth);
            self.bounce = Some(ReceivePool::new(&self.keys, MAX_INLINE, slots)?);
        }
        self.post_receives()
    }

    /// The capabilities to ask for: requests for every operation, and for the parts of those that get split.
    fn wanted(&self) -> Result<QpCaps> {
        let limits = self.device.as_ref().ok_or_else(misplaced)?.limits();
        let sges = limits.max_sge.clamp(1, MAX_SGE as u32);
        let most = limits.max_wr.clamp(1, MOST_REQUESTS);
        let (sends, recvs) = (self.plan.caps.send_depth as u32, self.plan.caps.recv_depth as u32);
        let ours = PROBES as u32;
        if sends.saturating_add(ours) > most || recvs > most {
            let text = format!(
                "queues of {sends} sends and {recvs} receives; {} takes {} and {most}",
                limits.name,
                most.saturating_sub(ours)
            );
            return Err(Error::new(libc::EINVAL, Reason::Resources, text)
                .with_remedy("ask for a smaller send_depth or recv_depth"));
        }
        let per_read = (MAX_SGE as u32).div_ceil(limits.max_read_sge.clamp(1, sges));
        let send_wr = sends.saturating_mul(per_read).saturating_add(ours).min(most);
        Ok(QpCaps { send_wr, recv_wr: recvs.max(1), send_sge: sges, recv_sge: sges, inline: 0 })
    }

    fn rnr_retry(&self) -> u8 {
        if self.plan.caps.strict_recv { RNR_FAIL } else { RNR_WAIT }
    }

    /// Resources for Reads within what the device has: towards us, and ours.
    fn reads(&self, ird: u16, ord: u16) -> (u8, u8) {
        let Some(device) = &self.device else { return (0, 0) };
        let limits = device.limits();
        // 255 would mean the device's own limit.
        let least = |asked: u16, most: u32| u32::from(asked).min(most).min(254) as u8;
        (least(ird, limits.max_ird), least(ord, limits.max_ord))
    }

    /// `rdma_connect`.
    pub(crate) fn connect(&mut self, private_data: &[u8]) -> Result<()> {
        let (ird, ord) = self.reads(self.plan.ird, self.plan.ord);
        let param = ConnParam {
            private_data: compose(private_data, Carrier::Connect, self.is_iwarp(), self.tags(), 0)
                .map_err(|error| at(error, Stage::Handshake))?,
            responder_resources: ird,
            initiator_depth: ord,
            rnr_retry_count: self.rnr_retry(),
        };
        (self.terms.ird, self.terms.ord) = (ird, ord);
        let id = self.id.as_ref().ok_or_else(misplaced)?;
        id.connect(&param).map_err(|error| at(error, Stage::Handshake))?;
        self.connecting = true;
        Ok(())
    }

    /// `rdma_accept`.
    pub(crate) fn accept(&mut self, private_data: &[u8], ird: u16, ord: u16) -> Result<()> {
        let (ird, ord) = self.reads(ird, ord);
        self.terms.ird = self.terms.ird.min(ird);
        self.terms.ord = self.terms.ord.min(ord);
        let param = ConnParam {
            private_data: compose(private_data, Carrier::Accept, self.is_iwarp(), self.tags(), 0)
                .map_err(|error| at(error, Stage::Handshake))?,
            responder_resources: self.terms.ird,
            initiator_depth: self.terms.ord,
            rnr_retry_count: self.rnr_retry(),
        };
        let id = self.id.as_ref().ok_or_else(misplaced)?;
        id.accept(&param).map_err(|error| at(error, Stage::Handshake))
    }

    /// `rdma_reject`. `reason` reaches a peer that is this library.
    pub(crate) fn reject(&mut self, reason: u32, private_data: &[u8]) -> Result<()> {
        let reason = u8::try_from(reason).unwrap_or(0);
        let octets = compose(private_data, Carrier::Reject, self.is_iwarp(), self.tags(), reason)?;
        self.id.as_ref().map_or(Ok(()), |id| id.reject(&octets))
    }
}

/// rdma_cm does not tell that a peer has left before it was answered: it shows when the answer is prepared.
fn peer_left() -> Error {
    Error::new(libc::ECONNRESET, Reason::PeerClosed, "the peer left before it was answered")
        .at(Stage::Handshake)
}

/// What an administrator wants to know of a queue pair that could not be made.
fn explain(error: Error, want: QpCaps, device: &str) -> Error {
    let QpCaps { send_wr, recv_wr, send_sge, .. } = want;
    let text = format!(
        "no queue pair on {device} with {send_wr} send and {recv_wr} receive requests of {send_sge} elements: {}",
        error.text
    );
    let remedy = match error.errno {
        libc::ENOMEM => {
            "LimitMEMLOCK=infinity in the unit, or `ulimit -l unlimited`; `rdma res` shows how many queue pairs there are"
        }
        libc::EINVAL => "ask for a smaller send_depth or recv_depth",
        _ => "",
    };
    Error { text: text.into(), remedy: remedy.into(), ..error }
}
