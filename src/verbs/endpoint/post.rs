//! Posting: on the caller's thread, one doorbell for a chain of requests.

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::send_queue::{Entry, PROBES, SEQUENCE_BITS};
use super::split::{self, Limits, Parts};
use super::{Endpoint, misplaced};
use crate::error::{Error, Reason, Result, Stage};
use crate::memory::Purpose;
use crate::verbs::device::Device;
use crate::verbs::sys::{CmId, RecvChain, SendChain};
use crate::verbs::types::{PostFailure, QpCaps, WrKind, send_flags};
use crate::work::{Fill, MAX_SGE, Opcode, Payload, RecvWr, SendWr, Sge, flags};

/// Set in the identifier of a receive.
pub(super) const RECV_BIT: u64 = 1 << SEQUENCE_BITS;
/// The part of an identifier that is a request's number.
pub(super) const NUMBER_MASK: u64 = RECV_BIT - 1;
/// At least one request in so many is signalled.
const MOST_SILENT: u64 = 64;

/// From so many octets on siw hands the memory of a request that is not signalled to TCP as it is, and calls it done while
/// TCP may still have to send it: memory that a later completion says is free. It copies what is signalled
/// (`siw_qp_prepare_tx` of Linux 6.1, `SENDPAGE_THRESH`).
const SIW_BORROWS: u64 = 4096;

/// How far the doorbells of a batch have come.
#[derive(Default)]
struct Rung {
    /// Something is with the device.
    any: bool,
    /// A later doorbell has failed.
    failed: bool,
}

impl Endpoint {
    /// Queues operations and rings for them: all or none.
    pub(crate) fn post(&mut self, n: usize, fill: &mut Fill<'_, SendWr>) -> Result<()> {
        let Some(caps) = self.qp.filter(|_| self.connected && !self.ended && self.failure.is_none()) else {
            return Err(Error::state(libc::ENOTCONN, "the connection is not established"));
        };
        if n > self.sq.depth() {
            let text = format!("{n} operations can't fit a send queue of {}", self.sq.depth());
            return Err(Error::invalid(text));
        }
        if n > self.sq.room() {
            return Err(self.no_room());
        }
        let before = self.sq.len();
        let queued = self.queue_sends(n, fill, caps);
        queued.and_then(|()| self.ring(before, caps)).map_err(|error| {
            self.sq.truncate(before);
            to_caller(error)
        })?;
        self.counters.operations += n as u64;
        Ok(())
    }

    fn no_room(&mut self) -> Error {
        self.counters.send_stalls += 1;
        Error::state(libc::EAGAIN, "the send queue is full: wait for completions")
    }

    /// Checks work requests and puts them into the queue.
    fn queue_sends(&mut self, n: usize, fill: &mut Fill<'_, SendWr>, caps: QpCaps) -> Result<()> {
        // Some are left for ours.
        let all = u64::from(caps.send_wr).saturating_sub(PROBES as u64);
        let mut room = (all + self.sq.probing() as u64).saturating_sub(self.sq.outstanding());
        for index in 0..n {
            self.sq.push(|wr| fill(index, wr))?;
            let (keys, parts) = self.check(self.sq.last().ok_or_else(misplaced)?, caps)?;
            if parts > all {
                let text =
                    format!("the operation takes {parts} requests of the device's, whose queue holds {all}");
                return Err(Error::new(libc::EMSGSIZE, Reason::Invalid, text));
            }
            room = room.checked_sub(parts).ok_or_else(|| self.no_room())?;
            self.sq.number(keys, parts as u32);
        }
        Ok(())
    }

    /// Checks one work request against what the device and the peer can do: the keys of its elements, and its parts.
    fn check(&self, wr: &SendWr, caps: QpCaps) -> Result<(ArrayVec<u32, MAX_SGE>, u64)> {
        let device = self.device.as_ref().ok_or_else(misplaced)?;
        let limits = device.limits();
        self.check_opcode(wr)?;
        let length = wr.payload.len();
        let remote = matches!(wr.opcode, Opcode::Write | Opcode::WriteImm | Opcode::Read);
        if remote && wr.remote_addr.checked_add(length).is_none() {
            return Err(Error::invalid("the remote range wraps around the address space"));
        }
        let most =
            if remote { crate::work::MAX_MESSAGE } else { limits.max_message.min(crate::work::MAX_MESSAGE) };
        if length > most {
            let text = format!("a message of {length} octets is over the limit of {most}");
            return Err(Error::new(libc::EMSGSIZE, Reason::Invalid, text));
        }
        let mut keys = ArrayVec::new();
        let mut parts = 1;
        if let Payload::Sges(sges) = &wr.payload {
            self.local_keys(sges, self.purpose(wr.opcode), &mut keys)?;
            parts = split::count(sges, self.part_limits(wr.opcode, caps));
            if parts > 1 && !remote {
                let text = format!("{} takes {} elements in a Send", limits.name, caps.send_sge);
                return Err(Error::invalid(text));
            }
        }
        Ok((keys, parts as u64))
    }

    fn check_opcode(&self, wr: &SendWr) -> Result<()> {
        let limits = self.device.as_ref().ok_or_else(misplaced)?.limits();
        let unsupported = |text: &'static str| Err(Error::new(libc::EOPNOTSUPP, Reason::NoProvider, text));
        match wr.opcode {
            Opcode::SendImm | Opcode::WriteImm if limits.iwarp => {
                unsupported("iWARP devices have no immediate data")
            }
            Opcode::SendInvalidate if !limits.can_invalidate() => {
                unsupported("soft iWARP can't send an invalidate from a program")
            }
            Opcode::Read if self.terms.ord == 0 => unsupported("the peer allows no RDMA Read: its IRD is 0"),
            Opcode::Read if matches!(&wr.payload, Payload::Inline(octets) if !octets.is_empty()) => {
                Err(Error::invalid("a Read can't be inline"))
            }
            Opcode::Recv => Err(Error::invalid("receives belong in the receive queue")),
            _ => Ok(()),
        }
    }

    /// What a device wants the memory of an operation registered for.
    fn purpose(&self, opcode: Opcode) -> Purpose {
        if opcode == Opcode::Read && self.is_iwarp() { Purpose::ReadSink } else { Purpose::Local }
    }

    fn part_limits(&self, opcode: Opcode, caps: QpCaps) -> Limits {
        let Some(device) = &self.device else { return Limits { sges: 1, octets: 1 } };
        let limits = device.limits();
        let sges = match opcode {
            Opcode::Read => caps.send_sge.min(limits.max_read_sge),
            _ => caps.send_sge,
        };
        Limits { sges: sges.min(MAX_SGE as u32) as usize, octets: limits.max_message }
    }

    /// The keys of elements; registers their regions with the device at first use.
    fn local_keys(&self, sges: &[Sge], purpose: Purpose, keys: &mut ArrayVec<u32, MAX_SGE>) -> Result<()> {
        let device = self.device.as_ref().ok_or_else(misplaced)?;
        for sge in sges {
            if !Arc::ptr_eq(sge.region().domain(), &self.keys) {
                return Err(Error::invalid("the region belongs to another engine than the connection"));
            }
            keys.push(device.local_key(sge.region(), purpose)?);
        }
        Ok(())
    }

    /// Posts the entries from `first` on. An error means that nothing has been posted.
    fn ring(&mut self, first: usize, caps: QpCaps) -> Result<()> {
        let mut chain = SendChain::default();
        let mut rung = Rung::default();
        for index in first..self.sq.len() {
            self.append(&mut chain, index, caps, &mut rung)?;
        }
        self.doorbell(&mut chain, &mut rung)
    }

    /// Adds all parts of an entry to the chain; rings whenever that is full.
    fn append(&mut self, chain: &mut SendChain, index: usize, caps: QpCaps, rung: &mut Rung) -> Result<()> {
        let parts = self.sq.get(index).map_or(0, |entry| entry.parts);
        let (mut cursor, mut offset) = (Cursor::default(), 0);
        for part in 0..parts {
            if !chain.has_room(MAX_SGE) {
                self.doorbell(chain, rung)?;
            }
            let octets = self.append_part(chain, index, part, caps, &mut cursor, offset)?;
            offset += octets;
        }
        self.counters.sent += offset;
        Ok(())
    }

    /// Adds one part; returns its octets.
    fn append_part(
        &mut self,
        chain: &mut SendChain,
        index: usize,
        part: u32,
        caps: QpCaps,
        cursor: &mut Cursor,
        offset: u64,
    ) -> Result<u64> {
        let name = self.name();
        let opcode = self.sq.get(index).and_then(|entry| entry.wr.as_ref()).map(|wr| wr.opcode);
        let limits = self.part_limits(opcode.unwrap_or(Opcode::Write), caps);
        let bounced = self.bounce_payload(index, caps)?;
        let Some(entry) = self.sq.get(index) else { return Ok(0) };
        let number = entry.first() + u64::from(part);
        let last = part + 1 == entry.parts;
        let elements = match (&entry.wr, bounced) {
            (_, Some((addr, length, key))) => {
                chain.element(addr, length, key);
                (1, length.into(), 0)
            }
            (None, None) if entry.asks => {
                // siw takes a Read for one of one element, and what it finds for that.
                chain.element(0, 0, 0);
                (1, 0, 0)
            }
            (Some(SendWr { payload: Payload::Inline(octets), .. }), None) if !octets.is_empty() => {
                chain.element(octets.as_ptr() as u64, octets.len() as u32, 0);
                (1, octets.len() as u64, send_flags::INLINE)
            }
            (Some(SendWr { payload: Payload::Sges(sges), .. }), None) => {
                let (count, octets) = cursor.add(chain, sges, &entry.keys, limits);
                (count, octets, 0)
            }
            _ => (0, 0, 0),
        };
        let (count, octets, mut bits) = elements;
        let wanted = entry.wr.as_ref().map_or(flags::SIGNALED, |wr| wr.flags);
        let (kind, remote) = request(entry, last, offset);
        if part == 0 && wanted & flags::FENCE != 0 {
            bits |= send_flags::FENCE;
        }
        if last && wanted & flags::SOLICITED != 0 {
            bits |= send_flags::SOLICITED;
        }
        let period = (u64::from(caps.send_wr) / 4).clamp(1, MOST_SILENT);
        let siw = self.is_siw();
        let overtaken = siw && kind == WrKind::Read;
        let borrowed = siw && octets >= SIW_BORROWS;
        let asked = overtaken || borrowed || (last && wanted & flags::SIGNALED != 0);
        if asked || self.sq.wants_signal(number, period) {
            bits |= send_flags::SIGNALED;
            self.sq.signal(number);
        }
        if overtaken {
            self.sq.may_be_overtaken(number);
        }
        chain.send(name | (number & NUMBER_MASK), kind, bits, count, remote);
        Ok(octets)
    }

    /// Copies an inline payload to registered memory, where the device has no room for it in a request.
    fn bounce_payload(&mut self, index: usize, caps: QpCaps) -> Result<Option<(u64, u32, u32)>> {
        let (Some(entry), Some(pool)) = (self.sq.get(index), &self.bounce) else { return Ok(None) };
        let Some(SendWr { payload: Payload::Inline(octets), .. }) = entry.wr.as_ref() else {
            return Ok(None);
        };
        if octets.is_empty() || octets.len() <= caps.inline as usize {
            return Ok(None);
        }
        let device = self.device.as_ref().ok_or_else(misplaced)?;
        let place = pool.sge(self.sq.slot(index))?;
        place.fill(0, octets);
        let key = device.local_key(place.region(), Purpose::Local)?;
        Ok(Some((place.ptr() as u64, octets.len() as u32, key)))
    }

    /// Rings for the chain.
    fn doorbell(&mut self, chain: &mut SendChain, rung: &mut Rung) -> Result<()> {
        let count = chain.len();
        if count == 0 || rung.failed {
            return Ok(());
        }
        let qp = self.id.as_ref().and_then(CmId::qp).ok_or_else(misplaced)?;
        self.counters.doorbells += 1;
        // SAFETY: the entries of the queue hold the memory until their requests have completed or the queue pair is gone.
        match unsafe { qp.post_send(chain) } {
            Ok(()) => {
                self.sq.posted(count);
                rung.any = true;
                Ok(())
            }
            Err(PostFailure { posted: 0, error }) if !rung.any => Err(error),
            Err(PostFailure { posted, error }) => {
                // Part of the batch is with the device and can't be taken back: the connection ends, and with it the rest.
                self.sq.posted(posted);
                rung.failed = true;
                self.failure.get_or_insert_with(|| error.at(Stage::Connected));
                Ok(())
            }
        }
    }

    /// Posts a request of ours that moves nothing. Its completion tells that all before it are done; one that asks, that the
    /// peer's host is there.
    pub(super) fn post_probe(&mut self, asks: bool) -> Result<()> {
        let Some(caps) = self.qp.filter(|_| self.connected) else { return Ok(()) };
        if self.sq.probing() >= PROBES || self.sq.outstanding() >= caps.send_wr.into() {
            return Ok(());
        }
        let before = self.sq.len();
        // InfiniBand acknowledges a Write; on iWARP it is done when TCP has it.
        let asks = asks && self.is_iwarp() && self.terms.ord > 0;
        self.sq.push_probe(asks);
        self.ring(before, caps).inspect_err(|_| self.sq.truncate(before))
    }

    /// Queues receives and posts them: all or none. Before there is a queue pair they wait for one.
    pub(crate) fn post_recv(&mut self, n: usize, fill: &mut Fill<'_, RecvWr>) -> Result<()> {
        if self.ended {
            return Err(Error::state(libc::ENOTCONN, "the connection has ended"));
        }
        if self.rq.is_managed() {
            return Err(Error::invalid("the library owns this connection's receive buffers"));
        }
        if n > self.rq.depth() {
            let text = format!("{n} receives can't fit a receive queue of {}", self.rq.depth());
            return Err(Error::invalid(text));
        }
        let before = self.rq.len();
        if before + n > self.rq.depth() {
            return Err(Error::state(libc::EAGAIN, "the receive queue is full"));
        }
        let queued = (0..n).try_for_each(|index| {
            self.rq.push(|wr| fill(index, wr))?;
            let wr = self.rq.last().ok_or_else(misplaced)?;
            if !wr.sges.iter().all(|sge| Arc::ptr_eq(sge.region().domain(), &self.keys)) {
                return Err(Error::invalid("the region belongs to another engine than the connection"));
            }
            Ok(())
        });
        let with_device = self.rq.outstanding();
        let Err(error) = queued.and_then(|()| self.post_receives()) else { return Ok(()) };
        if self.rq.outstanding() > with_device {
            // As in `doorbell`: part of the batch can't be taken back.
            self.failure.get_or_insert_with(|| error.at(Stage::Connected));
            return Ok(());
        }
        self.rq.truncate(before);
        Err(to_caller(error))
    }

    /// Takes a lent buffer back and posts it again.
    pub(crate) fn release(&mut self, buffer: u64) -> Result<()> {
        self.rq.release(buffer)?;
        if self.ended {
            return Ok(());
        }
        if let Err(error) = self.post_receives() {
            // The buffer is taken back, but the peer may wait for it for ever.
            self.failure.get_or_insert_with(|| error.at(Stage::Connected));
        }
        Ok(())
    }

    /// Posts the receives that wait, if there is a queue pair.
    pub(super) fn post_receives(&mut self) -> Result<()> {
        let Some(caps) = self.qp else { return Ok(()) };
        let device = self.device.clone().ok_or_else(misplaced)?;
        let name = self.name();
        loop {
            let mut chain = RecvChain::default();
            while let Some((wr, number)) = self.rq.upcoming(chain.len()).filter(|_| chain.has_room(MAX_SGE)) {
                let elements = add_receive(&mut chain, wr, &device, caps)?;
                chain.recv(name | RECV_BIT | u64::from(number), elements);
            }
            let count = chain.len();
            if count == 0 {
                return Ok(());
            }
            let qp = self.id.as_ref().and_then(CmId::qp).ok_or_else(misplaced)?;
            // SAFETY: the slots of the queue hold the memory until their receives have completed or the queue pair is gone.
            let posted = unsafe { qp.post_recv(&mut chain) };
            self.rq.posted(posted.as_ref().err().map_or(count, |failure| failure.posted));
            posted.map_err(|failure| failure.error)?;
        }
    }
}

/// Adds the elements of a receive to a chain; returns how many.
fn add_receive(chain: &mut RecvChain, wr: &RecvWr, device: &Device, caps: QpCaps) -> Result<usize> {
    let limits = device.limits();
    if wr.sges.len() > caps.recv_sge as usize {
        let text = format!("{} takes {} elements in a receive", limits.name, caps.recv_sge);
        return Err(Error::invalid(text));
    }
    let mut count = 0;
    for sge in wr.sges.iter().filter(|sge| !sge.is_empty()) {
        let key = device.local_key(sge.region(), Purpose::Local)?;
        chain.element(sge.ptr() as u64, sge.len() as u32, key);
        count += 1;
    }
    // siw's user library refuses a receive without elements. To it one of no octets is the same; to others it may be 2 GiB.
    if count == 0 && limits.is_siw() {
        chain.element(0, 0, 0);
        count = 1;
    }
    Ok(count)
}

/// What a call says of a device that was removed: the connection has ended, although its event may be yet to come.
pub(super) fn to_caller(error: Error) -> Error {
    if error.reason == Reason::DeviceGone { Error { errno: libc::ENOTCONN, ..error } } else { error }
}

/// The operation of one part of a work request and where it goes.
fn request(entry: &Entry, last: bool, offset: u64) -> (WrKind, (u64, u32)) {
    let Some(wr) = &entry.wr else {
        // Some iWARP devices refuse STag 0 even for no octets.
        return (if entry.asks { WrKind::Read } else { WrKind::Write }, (0, 1));
    };
    let kind = match wr.opcode {
        Opcode::SendImm => WrKind::SendImm(wr.imm),
        Opcode::SendInvalidate => WrKind::SendInvalidate(wr.invalidate_key),
        // Only the last part tells the peer.
        Opcode::WriteImm if last => WrKind::WriteImm(wr.imm),
        Opcode::Write | Opcode::WriteImm => WrKind::Write,
        Opcode::Read => WrKind::Read,
        Opcode::Send | Opcode::Recv => WrKind::Send,
    };
    (kind, (wr.remote_addr.wrapping_add(offset), wr.remote_key))
}

/// How far the elements of a work request have been added to a chain.
#[derive(Default)]
struct Cursor {
    at: split::Position,
}

impl Cursor {
    /// Adds the elements of the next part; returns how many, and their octets.
    fn add(&mut self, chain: &mut SendChain, sges: &[Sge], keys: &[u32], limits: Limits) -> (usize, u64) {
        let mut parts = Parts::resume(sges, limits, self.at);
        let (mut count, mut octets) = (0, 0);
        while let Some((index, offset, length)) = parts.next_piece() {
            // An empty element stands for 2 GiB on some devices.
            if let (Some(sge), Some(key), 1..) = (sges.get(index), keys.get(index), length) {
                chain.element(sge.ptr() as u64 + offset as u64, length as u32, *key);
                count += 1;
                octets += length as u64;
            }
        }
        self.at = parts.position();
        (count, octets)
    }
}
