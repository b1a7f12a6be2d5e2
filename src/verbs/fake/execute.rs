//! What becomes of the work requests that are posted.

use super::device::{region_of_local, region_of_remote};
use super::fabric::{Key, Region, State};
use super::ids::Phase;
use super::queue::{Ending, Mode, SendWork, length, wc};
use super::work::Element;
use crate::verbs::types::{AsyncEvent, Wc, WrKind, send_flags};

/// What became of a work request.
enum Outcome {
    Done,
    /// It has to wait for a receive.
    Wait,
    /// It fails with this status, and the queue pair with it.
    Fail(u32),
    /// iWARP: the stream is gone; the request itself may have succeeded.
    Terminate(u32),
}

impl State {
    /// Runs the send queue until it is empty or has to wait.
    pub(super) fn run(&mut self, qp: Key) {
        while self.run_one(qp) {}
    }

    pub(super) fn run_all(&mut self) {
        if self.deferred.is_none() {
            self.qps.keys().copied().collect::<Vec<_>>().into_iter().for_each(|qp| self.run(qp));
        }
    }

    pub(super) fn run_one_each(&mut self) -> bool {
        let qps: Vec<_> = self.qps.keys().copied().collect();
        qps.into_iter().filter(|qp| self.run_one(*qp)).count() > 0
    }

    /// Runs the first request of the send queue; false when there is none or it has to wait.
    fn run_one(&mut self, qp: Key) -> bool {
        let qp_ref = self.qp(qp);
        if qp_ref.mode != Mode::Ready {
            return false;
        }
        let Some(send) = qp_ref.sends.pop_front() else { return false };
        let iwarp = self.config(self.qps[&qp].device).limits.iwarp;
        let outcome = self.execute(qp, &send, iwarp);
        let bytes = length(&send.elements) as u32;
        match outcome {
            Outcome::Wait => {
                self.qp(qp).sends.push_front(send);
                return false;
            }
            Outcome::Done => self.done(qp, &send, 0, bytes),
            Outcome::Fail(status) => {
                self.done(qp, &send, status, 0);
                self.end_qp(qp, Ending::Flush);
            }
            Outcome::Terminate(status) => {
                self.done(qp, &send, status, bytes);
                let (id, context, device) = (self.qps[&qp].id, self.qps[&qp].context, self.qps[&qp].device);
                self.push_async(device, AsyncEvent { kind: AsyncEvent::QP_FATAL, qp: Some(context) }, qp);
                self.reset_stream(id, true);
            }
        }
        true
    }

    /// A completion, where there is to be one.
    fn done(&mut self, qp: Key, send: &SendWork, status: u32, length: u32) {
        if status != 0 || send.flags & send_flags::SIGNALED != 0 {
            self.complete(qp, Wc { length, ..wc(send.id, status) }, Some(send.number));
        }
    }

    fn execute(&mut self, qp: Key, send: &SendWork, iwarp: bool) -> Outcome {
        let limit = self.config(self.qps[&qp].device).limits.max_message;
        if length(&send.elements) > limit {
            return Outcome::Fail(Wc::LOCAL_LENGTH);
        }
        let pd = self.qps[&qp].pd;
        let into = send.kind == WrKind::Read;
        if send.inline.is_none() && !self.local(pd, &send.elements, into) {
            self.violation("an operation on memory that its keys don't cover");
            return Outcome::Fail(Wc::LOCAL_PROTECTION);
        }
        let Some(peer) = self.peer_qp(qp).filter(|peer| self.qps[peer].mode == Mode::Ready) else {
            return Outcome::Fail(Wc::RETRIES);
        };
        let takes_receive = !matches!(send.kind, WrKind::Write | WrKind::Read);
        if takes_receive && self.qps[&peer].recvs.is_empty() {
            return match self.qps[&qp].rnr_retry {
                _ if iwarp => Outcome::Terminate(0),
                7 => Outcome::Wait,
                _ => Outcome::Fail(Wc::NO_RECEIVE),
            };
        }
        self.note_first_message(peer);
        let outcome = match send.kind {
            WrKind::Send => self.deliver(peer, send, None, None),
            WrKind::SendImm(imm) => self.deliver(peer, send, Some(imm), None),
            WrKind::SendInvalidate(key) => self.deliver(peer, send, None, Some(key)),
            WrKind::Write | WrKind::WriteImm(_) => self.write(peer, send),
            WrKind::Read => self.read(qp, peer, send),
        };
        match outcome {
            Outcome::Fail(_) if iwarp && send.kind != WrKind::Read => Outcome::Terminate(0),
            Outcome::Fail(status) if iwarp => Outcome::Terminate(status),
            other => other,
        }
    }

    /// A message that comes before the passive side is established makes an asynchronous event.
    fn note_first_message(&mut self, peer: Key) {
        let (id, device, context) = (self.qps[&peer].id, self.qps[&peer].device, self.qps[&peer].context);
        if self.ids[&id].phase == Phase::Accepted {
            self.push_async(device, AsyncEvent { kind: AsyncEvent::COMM_EST, qp: Some(context) }, peer);
        }
    }

    fn deliver(&mut self, peer: Key, send: &SendWork, imm: Option<u32>, invalidate: Option<u32>) -> Outcome {
        let data = send.payload();
        let Some(recv) = self.qp(peer).recvs.pop_front() else { return Outcome::Wait };
        let pd = self.qps[&peer].pd;
        let (local, remote) = if length(&recv.elements) < data.len() as u64 {
            (Wc::LOCAL_LENGTH, Wc::REMOTE_INVALID)
        } else if !self.local(pd, &recv.elements, true) {
            self.violation("a receive into memory that its keys don't cover");
            (Wc::LOCAL_PROTECTION, Wc::REMOTE_OPERATION)
        } else if !invalidate.is_none_or(|key| self.invalidate(peer, key)) {
            (Wc::REMOTE_INVALID, Wc::REMOTE_OPERATION)
        } else {
            scatter(&recv.elements, &data);
            (0, 0)
        };
        let length = if local == 0 { data.len() as u32 } else { 0 };
        let done = Wc { length, imm, invalidated: invalidate, ..wc(recv.id, local) };
        self.complete(peer, done, None);
        if local != 0 {
            self.end_qp(peer, Ending::Flush);
            return Outcome::Fail(remote);
        }
        Outcome::Done
    }

    fn invalidate(&mut self, peer: Key, key: u32) -> bool {
        let (pd, device) = (self.qps[&peer].pd, self.qps[&peer].device);
        let allowed = self.config(device).remote_invalidate;
        let region = region_of_remote(key).and_then(|region| self.regions.get_mut(&region));
        match region.filter(|region| allowed && region.pd == pd) {
            Some(region) => {
                region.invalidated = true;
                true
            }
            None => false,
        }
    }

    fn write(&mut self, peer: Key, send: &SendWork) -> Outcome {
        let data = send.payload();
        if !data.is_empty() {
            let allowed = self.remote(peer, send.remote, data.len(), |region| region.rights.remote_write);
            let Some(addr) = allowed else { return self.refuse_access(peer) };
            write_memory(addr, &data);
        }
        if let WrKind::WriteImm(imm) = send.kind {
            let Some(recv) = self.qp(peer).recvs.pop_front() else { return Outcome::Wait };
            let done = Wc { length: data.len() as u32, imm: Some(imm), ..wc(recv.id, 0) };
            self.complete(peer, done, None);
        }
        Outcome::Done
    }

    fn read(&mut self, qp: Key, peer: Key, send: &SendWork) -> Outcome {
        if self.qps[&qp].ord == 0 || self.qps[&peer].ird == 0 {
            return Outcome::Fail(Wc::REMOTE_INVALID);
        }
        let count = length(&send.elements) as usize;
        if count > 0 {
            let allowed = self.remote(peer, send.remote, count, |region| region.rights.remote_read);
            let Some(addr) = allowed else { return self.refuse_access(peer) };
            scatter(&send.elements, &read_memory(addr, count));
        }
        Outcome::Done
    }

    /// The responder's side of an access that is not allowed.
    fn refuse_access(&mut self, peer: Key) -> Outcome {
        let (device, context) = (self.qps[&peer].device, self.qps[&peer].context);
        self.push_async(device, AsyncEvent { kind: AsyncEvent::QP_ACCESS, qp: Some(context) }, peer);
        self.end_qp(peer, Ending::Flush);
        Outcome::Fail(Wc::REMOTE_ACCESS)
    }

    /// Whether the local keys cover the elements.
    fn local(&self, pd: Key, elements: &[Element], write: bool) -> bool {
        elements.iter().all(|(addr, length, lkey)| {
            let region = region_of_local(*lkey).and_then(|region| self.regions.get(&region));
            *length == 0
                || region.is_some_and(|region| {
                    region.pd == pd
                        && region.holds(*addr, *length as usize)
                        && (!write || region.rights.local_write)
                })
        })
    }

    /// The place a peer may touch.
    fn remote(
        &self,
        peer: Key,
        (addr, rkey): (u64, u32),
        length: usize,
        may: impl Fn(&Region) -> bool,
    ) -> Option<usize> {
        let region = region_of_remote(rkey).and_then(|region| self.regions.get(&region))?;
        let fits = region.pd == self.qps[&peer].pd && region.holds(addr, length);
        (fits && !region.invalidated && may(region)).then_some(addr as usize)
    }
}

impl Region {
    fn holds(&self, addr: u64, length: usize) -> bool {
        let Some(offset) = (addr as usize).checked_sub(self.base) else { return false };
        offset.checked_add(length).is_some_and(|end| end <= self.length)
    }
}

/// The octets of the elements, in their order.
pub(super) fn gather(elements: &[Element]) -> Vec<u8> {
    elements.iter().flat_map(|(addr, length, _)| read_memory(*addr as usize, *length as usize)).collect()
}

/// Writes data to the elements, in their order.
fn scatter(elements: &[Element], mut data: &[u8]) {
    for (addr, length, _) in elements {
        let (now, rest) = data.split_at(data.len().min(*length as usize));
        write_memory(*addr as usize, now);
        data = rest;
    }
}

fn read_memory(addr: usize, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    let from = std::ptr::with_exposed_provenance::<u8>(addr);
    // SAFETY: a region that is registered holds the range, or the caller of `post_send` vouches for it (inline).
    unsafe { std::ptr::copy(from, data.as_mut_ptr(), length) };
    data
}

fn write_memory(addr: usize, data: &[u8]) {
    let to = std::ptr::with_exposed_provenance_mut::<u8>(addr);
    // SAFETY: a region that is registered, and may be written to, holds the range.
    unsafe { std::ptr::copy(data.as_ptr(), to, data.len()) };
}
