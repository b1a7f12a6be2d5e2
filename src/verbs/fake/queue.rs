//! Queue pairs: their states and queues, posting to them, and their completions.

use std::collections::VecDeque;
use std::time::Instant;

use super::device::Cqe;
use super::execute::gather;
use super::fabric::{Key, State, due};
use super::work::Element;
use crate::verbs::types::{QpCaps, Wc, WrKind, send_flags};

/// A send-queue work request.
pub(crate) struct SendWork {
    pub(super) id: u64,
    pub(super) kind: WrKind,
    pub(super) flags: u32,
    pub(super) elements: Vec<Element>,
    pub(super) remote: (u64, u32),
    /// The payload, if it was taken when it was posted.
    pub(super) inline: Option<Vec<u8>>,
    /// Its place among all that were posted to the queue.
    pub(super) number: u64,
}

impl SendWork {
    pub(super) fn payload(&self) -> Vec<u8> {
        self.inline.clone().unwrap_or_else(|| gather(&self.elements))
    }
}

/// A receive.
pub(crate) struct RecvWork {
    pub(super) id: u64,
    pub(super) elements: Vec<Element>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Init,
    Ready,
    Error,
    /// Of a device that is gone and flushes nothing.
    Dead,
}

/// How a queue pair ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Flush,
    Silence,
}

/// A queue pair.
pub(super) struct Qp {
    pub(super) device: Key,
    pub(super) pd: Key,
    pub(super) cq: Key,
    pub(super) id: Key,
    caps: QpCaps,
    pub(super) context: usize,
    pub(super) mode: Mode,
    pub(super) sends: VecDeque<SendWork>,
    pub(super) recvs: VecDeque<RecvWork>,
    /// Requests posted to the send queue, and those whose slots are free again.
    posted: u64,
    reaped: u64,
    /// Receives whose slots are taken.
    held: usize,
    pub(super) ird: u8,
    pub(super) ord: u8,
    pub(super) rnr_retry: u8,
    /// Completions held back, and until when (`None` = for ever).
    stalled: Option<(Option<Instant>, VecDeque<Cqe>)>,
}

impl Qp {
    /// Whether a posted operation that may still run names this local key.
    pub(super) fn uses(&self, lkey: u32) -> bool {
        if self.mode == Mode::Dead {
            return false;
        }
        let names = |elements: &[Element]| elements.iter().any(|(_, _, key)| *key == lkey);
        let sends = self.sends.iter().any(|send| send.inline.is_none() && names(&send.elements));
        sends || self.recvs.iter().any(|recv| names(&recv.elements))
    }
}

impl State {
    pub(super) fn create_qp(
        &mut self,
        id: Key,
        pd: Key,
        cq: Key,
        caps: QpCaps,
        context: usize,
    ) -> Result<QpCaps, i32> {
        let device = self.ids[&id].device.ok_or(libc::EINVAL)?;
        let same = self.pds[&pd] == device && self.cqs[&cq].device == device;
        if self.ids[&id].qp.is_some() || !same {
            return Err(libc::EINVAL);
        }
        if self.devices[&device].removed {
            return Err(libc::EIO);
        }
        let config = self.config(device);
        let (limits, inline) = (&config.limits, config.max_inline);
        let wide = caps.send_wr.max(caps.recv_wr) > limits.max_wr
            || caps.send_sge.max(caps.recv_sge) > limits.max_sge
            || caps.inline > inline;
        if wide || caps.send_wr == 0 {
            return Err(libc::EINVAL);
        }
        let key = self.key();
        let qp = Qp {
            device,
            pd,
            cq,
            id,
            caps,
            context,
            mode: Mode::Init,
            sends: VecDeque::new(),
            recvs: VecDeque::new(),
            posted: 0,
            reaped: 0,
            held: 0,
            ird: 0,
            ord: 0,
            rnr_retry: 0,
            stalled: None,
        };
        self.qps.insert(key, qp);
        self.id(id).qp = Some(key);
        Ok(caps)
    }

    /// A queue pair that is alive.
    pub(super) fn qp(&mut self, qp: Key) -> &mut Qp {
        self.qps.get_mut(&qp).expect("a queue pair lives as long as its id has it")
    }

    pub(super) fn destroy_qp(&mut self, id: Key) {
        let Some(key) = self.id(id).qp.take() else { return };
        let Some(qp) = self.qps.remove(&key) else { return };
        self.forget_async(key);
        if self.config(qp.device).clean_cq {
            let cq = self.cqs.get_mut(&qp.cq).expect("a queue pair holds its completion queue");
            cq.entries.retain(|cqe| cqe.qp != key);
        }
    }

    /// Makes the queue pair of an id ready to send and receive, as both sides' parameters say.
    pub(super) fn ready_qp(&mut self, id: Key) {
        let Some(key) = self.ids[&id].qp else { return };
        let own = self.ids[&id].said.clone();
        let other = self.ids[&id].other.and_then(|other| self.ids.get(&other)).map(|id| id.said.clone());
        let qp = self.qp(key);
        if qp.mode == Mode::Init {
            qp.mode = Mode::Ready;
        }
        let other = other.unwrap_or_default();
        qp.ord = own.initiator_depth.min(other.responder_resources);
        qp.ird = own.responder_resources.min(other.initiator_depth);
        qp.rnr_retry = other.rnr_retry_count;
    }

    /// To the error state.
    pub(super) fn end_qp(&mut self, qp: Key, ending: Ending) {
        let qp_ref = self.qp(qp);
        if matches!(qp_ref.mode, Mode::Error | Mode::Dead) {
            return;
        }
        qp_ref.mode = if ending == Ending::Flush { Mode::Error } else { Mode::Dead };
        if ending == Ending::Flush {
            self.flush(qp);
        }
    }

    fn flush(&mut self, qp: Key) {
        let (sends, recvs) = {
            let qp = self.qp(qp);
            (std::mem::take(&mut qp.sends), std::mem::take(&mut qp.recvs))
        };
        for send in sends {
            self.complete(qp, wc(send.id, Wc::FLUSHED), Some(send.number));
        }
        for recv in recvs {
            self.complete(qp, wc(recv.id, Wc::FLUSHED), None);
        }
    }

    pub(super) fn post_sends(
        &mut self,
        qp: Key,
        requests: impl Iterator<Item = SendWork>,
    ) -> Result<(), (usize, i32)> {
        for (index, mut request) in requests.enumerate() {
            self.check_send(qp, &mut request).map_err(|errno| (index, errno))?;
            let qp_ref = self.qp(qp);
            qp_ref.posted += 1;
            request.number = qp_ref.posted;
            qp_ref.sends.push_back(request);
            if qp_ref.mode == Mode::Error {
                self.flush(qp);
            } else if self.deferred.is_none() {
                self.run(qp);
            }
        }
        Ok(())
    }

    fn check_send(&mut self, qp: Key, request: &mut SendWork) -> Result<(), i32> {
        let qp_ref = &self.qps[&qp];
        let limits = &self.config(qp_ref.device).limits;
        let read = request.kind == WrKind::Read;
        let misread = read && request.elements.is_empty() && limits.is_siw();
        let sges = if read { qp_ref.caps.send_sge.min(limits.max_read_sge) } else { qp_ref.caps.send_sge };
        if qp_ref.mode == Mode::Init || request.elements.len() > sges as usize {
            return Err(libc::EINVAL);
        }
        if qp_ref.posted - qp_ref.reaped >= u64::from(qp_ref.caps.send_wr) {
            self.violation("a send queue overflows");
            return Err(libc::ENOMEM);
        }
        if request.flags & send_flags::INLINE != 0 {
            if read || length(&request.elements) > u64::from(qp_ref.caps.inline) {
                return Err(libc::EINVAL);
            }
            request.inline = Some(gather(&request.elements));
        }
        if misread {
            self.violation("a Read of no octets, which siw that is sending answers with some");
        }
        Ok(())
    }

    pub(super) fn post_recvs(
        &mut self,
        qp: Key,
        requests: impl Iterator<Item = RecvWork>,
    ) -> Result<(), (usize, i32)> {
        for (index, request) in requests.enumerate() {
            let qp_ref = self.qp(qp);
            if request.elements.len() > qp_ref.caps.recv_sge as usize {
                return Err((index, libc::EINVAL));
            }
            if qp_ref.held >= qp_ref.caps.recv_wr as usize {
                self.violation("a receive queue overflows");
                return Err((index, libc::ENOMEM));
            }
            qp_ref.held += 1;
            qp_ref.recvs.push_back(request);
            if qp_ref.mode == Mode::Error {
                self.flush(qp);
            }
        }
        if let Some(peer) = self.peer_qp(qp).filter(|_| self.deferred.is_none()) {
            self.run(peer);
        }
        Ok(())
    }

    /// The queue pair at the other end.
    pub(super) fn peer_qp(&self, qp: Key) -> Option<Key> {
        let other = self.ids.get(&self.qps[&qp].id)?.other?;
        self.ids.get(&other)?.qp
    }

    /// A completion for the queue, now or late.
    pub(super) fn complete(&mut self, qp: Key, wc: Wc, frees: Option<u64>) {
        let late = self.faults.event(format!("completion of {} with status {}", wc.id, wc.status));
        let cqe = Cqe { wc, qp, frees };
        let qp_ref = self.qp(qp);
        if let Some(delay) = late.filter(|_| qp_ref.stalled.is_none()) {
            qp_ref.stalled = Some((due(delay), VecDeque::new()));
        }
        match &mut qp_ref.stalled {
            Some((_, held)) => held.push_back(cqe),
            None => self.append(cqe),
        }
    }

    fn append(&mut self, cqe: Cqe) {
        let Some(qp) = self.qps.get(&cqe.qp) else { return };
        let cq = self.cqs.get_mut(&qp.cq).expect("a queue pair holds its completion queue");
        if cq.entries.len() >= cq.capacity {
            self.violation("a completion queue overflows");
            return;
        }
        cq.entries.push_back(cqe);
        if std::mem::take(&mut cq.armed) {
            let (key, channel) = (qp.cq, cq.channel);
            let notifier = self.notifiers.get_mut(&channel).expect("a completion queue holds its channel");
            notifier.fired.push_back(key);
            notifier.signal.set(true);
        }
    }

    pub(super) fn release_completions(&mut self, now: Instant) {
        let is_due = |qp: &Qp| matches!(qp.stalled, Some((Some(at), _)) if at <= now);
        let due: Vec<_> = self.qps.iter().filter(|(_, qp)| is_due(qp)).map(|(key, _)| *key).collect();
        for qp in due {
            let held = self.qp(qp).stalled.take().map(|(_, held)| held).unwrap_or_default();
            held.into_iter().for_each(|cqe| self.append(cqe));
        }
    }

    /// A completion is polled: slots come free.
    pub(super) fn reap(&mut self, cqe: &Cqe) {
        let Some(qp) = self.qps.get_mut(&cqe.qp) else { return };
        match cqe.frees {
            Some(number) => qp.reaped = qp.reaped.max(number),
            None => qp.held -= 1,
        }
    }
}

/// A completion of this status, with nothing else to tell.
pub(super) fn wc(id: u64, status: u32) -> Wc {
    Wc { id, status, vendor_error: 0, length: 0, imm: None, invalidated: None }
}

/// The octets in all elements.
pub(super) fn length(elements: &[Element]) -> u64 {
    elements.iter().map(|(_, length, _)| u64::from(*length)).sum()
}
