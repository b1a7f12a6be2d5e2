//! Entry for fuzz targets and for the replay of their corpus: a hostile peer against one queue pair.

use std::sync::Arc;

use super::{Capabilities, FirstFrame, Parameters, Piece, QueuePair, Stop};
use crate::error::{Error, Result};
use crate::memory::{Access, KeyTable, Owner, Region};
use crate::wire::{crc, ddp, mpa};
use crate::work::{Opcode, Payload, RecvWr, SendWr, SgeList, by_value, flags};

/// Bits of the first octet.
mod option {
    pub(super) const CRC: u8 = 1;
    pub(super) const STRICT: u8 = 2;
    pub(super) const OWN_PEER: u8 = 4;
    pub(super) const MANAGED: u8 = 8;
    pub(super) const FRAMED: u8 = 16;
    pub(super) const READS: u8 = 32;
    pub(super) const SMALL: u8 = 64;
}

const FILL: u8 = 0xa5;
/// Parts of the memory, 128 octets each: in front of everything, what the peer's keys lead to, what those of another
/// stream lead to, where receives and Reads go, behind everything.
const PART: usize = 128;
const PARTS: usize = 5;

/// Feeds `data` to a queue pair: options, rights and IRD, chunk length, then the stream of the peer. With the option
/// `FRAMED` that stream is a list of ULPDUs, each behind its length in one octet, and STags and offsets below 8 and 256
/// stand for those of the keys there are: random octets would never find them. An error is a bug: something was
/// placed where it may not be, a completion was lost or doubled, or memory was not let go. Otherwise it is the number of
/// octets that were parsed.
pub fn stream(data: &[u8]) -> std::result::Result<u64, &'static str> {
    let Some((&[options, rights, chunk], rest)) = data.split_first_chunk() else { return Ok(0) };
    let mut memory = vec![FILL; PART * PARTS];
    let placed = Ground::new(&mut memory, options, rights).map_err(|_| "set-up failed")?.run(rest, chunk);
    let untouched = [0, 2, 4].iter().all(|part| {
        memory.chunks(PART).nth(*part).is_some_and(|octets| octets.iter().all(|octet| *octet == FILL))
    });
    if !untouched {
        return Err("octets outside of what the peer may reach have changed");
    }
    placed
}

struct Ground {
    qp: QueuePair,
    region: Arc<Region>,
    keys: [u32; 4],
    options: u8,
    posted: usize,
    finished: usize,
}

impl Ground {
    fn new(memory: &mut [u8], options: u8, rights: u8) -> Result<Self> {
        let has = |bit| options & bit != 0;
        let table = KeyTable::new();
        let all = Access::from_bits(7).ok_or_else(Error::default)?;
        // SAFETY: `stream` keeps the memory until the ground, and with it the region, is gone.
        let region = unsafe { Region::new(&table, memory.as_mut_ptr(), memory.len(), all) }?;
        let some = Access::from_bits(u32::from(rights) & 6).unwrap_or(all);
        let keys = [
            region.key(Owner::Domain, PART, PART, some)?,
            region.key(Owner::Stream(1), PART, PART, some)?,
            region.key(Owner::Stream(2), 2 * PART, PART, all)?,
            region.key(Owner::Stream(1), PART + 8, 16, all)?,
        ];
        let caps = Capabilities {
            send_depth: 4,
            recv_depth: 2,
            recv_size: if has(option::MANAGED) { 64 } else { 0 },
            strict_recv: has(option::STRICT),
        };
        let mut qp = QueuePair::new(caps, 1, &table, &Arc::default())?;
        qp.activate(Parameters {
            crc: has(option::CRC),
            max_ulpdu: if has(option::SMALL) { 64 } else { 1500 },
            own_peer: has(option::OWN_PEER),
            ird: usize::from(rights >> 3 & 3),
            ord: 2,
            first_frame: if has(option::READS) { FirstFrame::SendRead } else { FirstFrame::Await },
        });
        let mut ground = Self { qp, region, keys, options, posted: 0, finished: 0 };
        ground.post_receives()?;
        Ok(ground)
    }

    fn elements(&self, offset: usize, lens: &[usize]) -> Result<SgeList> {
        let mut at = self.region.base().wrapping_add(3 * PART + offset);
        let pieces = lens.iter().map(|len| {
            let piece = self.region.sge(at, *len);
            at = at.wrapping_add(*len);
            piece
        });
        pieces.collect()
    }

    /// As many as there is room for.
    fn post_receives(&mut self) -> Result<()> {
        while self.options & option::MANAGED == 0 {
            let mut request = Some(RecvWr { sges: self.elements(0, &[7, 0, 41])?, user: 0 });
            if self.qp.post_recv(1, &mut by_value(|_| request.take().ok_or_else(Error::default))).is_err() {
                break;
            }
            self.posted += 1;
        }
        Ok(())
    }

    fn post_read(&mut self) -> Result<()> {
        let sges = self.elements(64, &[30, 34])?;
        let mut request =
            Some(SendWr { flags: flags::SIGNALED, ..SendWr::new(Opcode::Read, Payload::Sges(sges)) });
        if self.qp.post_send(1, &mut by_value(|_| request.take().ok_or_else(Error::default))).is_ok() {
            self.posted += 1;
        }
        Ok(())
    }

    fn run(mut self, data: &[u8], chunk: u8) -> std::result::Result<u64, &'static str> {
        let data = if self.options & option::FRAMED != 0 { self.framed(data) } else { data.to_vec() };
        let mut inbox = Vec::new();
        for part in data.chunks(usize::from(chunk).max(1)) {
            inbox.extend_from_slice(part);
            self.turn().map_err(|_| "posting failed")?;
            let input = self.qp.input(&inbox);
            if input.consumed > inbox.len() {
                return Err("more consumed than there was");
            }
            inbox.drain(..input.consumed);
            if input.stop == Stop::Blocked {
                self.post_receives().map_err(|_| "posting failed")?;
            }
        }
        self.qp.abort(Error::default());
        self.poll();
        if self.options & option::MANAGED == 0 && self.finished != self.posted {
            return Err("a completion was lost or doubled");
        }
        self.region.deregister().map_err(|_| "memory was not let go")?;
        Ok(self.qp.counters().received)
    }

    /// What the owner of the connection does between two readings: sends a part, collects, posts.
    fn turn(&mut self) -> Result<()> {
        let sent = self.qp.send(|pieces| Ok(pieces.iter().map(Piece::len).sum::<usize>().min(33)));
        sent.map_err(|error| Error::os("send", &error))?;
        self.poll();
        if self.options & option::READS != 0 && self.qp.fault().is_none() {
            self.post_read()?;
        }
        Ok(())
    }

    fn poll(&mut self) {
        while let Some(completion) = self.qp.poll() {
            self.finished += 1;
            let _ = self.qp.release(completion.buffer);
        }
    }

    /// Frames a list of ULPDUs, with the keys and addresses they are meant to have.
    fn framed(&self, mut data: &[u8]) -> Vec<u8> {
        let mut octets = Vec::new();
        while let Some((len, rest)) = data.split_first() {
            let (ulpdu, rest) = rest.split_at(usize::from(*len).min(rest.len()));
            data = rest;
            let mut ulpdu = ulpdu.to_vec();
            self.substitute(&mut ulpdu);
            let frame = octets.len();
            octets.extend((ulpdu.len() as u16).to_be_bytes());
            octets.extend_from_slice(&ulpdu);
            octets.resize(octets.len() + mpa::pad(ulpdu.len()), 0);
            let crc = self.options & option::CRC != 0;
            let sum = if crc { crc::crc32c(octets.get(frame..).unwrap_or_default()) } else { 0 };
            octets.extend(mpa::crc_to_wire(sum));
        }
        octets
    }

    fn substitute(&self, ulpdu: &mut [u8]) {
        let tagged = ulpdu.first().is_some_and(|octet| octet & 0x80 != 0);
        self.name_key(ulpdu, 2);
        if tagged {
            self.name_address(ulpdu, 6);
        } else {
            self.name_key(ulpdu, ddp::UNTAGGED_LEN + 16);
            self.name_address(ulpdu, ddp::UNTAGGED_LEN + 20);
        }
    }

    fn name_key(&self, ulpdu: &mut [u8], at: usize) {
        let Some(field) = ulpdu.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) else { return };
        let stag = u32::from_be_bytes(*field);
        let index = stag.checked_sub(2).and_then(|index| usize::try_from(index).ok());
        let named = index.and_then(|index| self.keys.get(index)).copied();
        let sink = (stag == 6).then(|| super::tx::Tx::sink_stag(true));
        *field = named.or(sink).unwrap_or(stag).to_be_bytes();
    }

    fn name_address(&self, ulpdu: &mut [u8], at: usize) {
        let Some(field) = ulpdu.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) else { return };
        let offset = u64::from_be_bytes(*field);
        // The first few are offsets in the sinks of Reads, which begin at 0.
        if (64..64 + 2 * PART as u64).contains(&offset) {
            *field = (self.region.base() as u64 + offset).to_be_bytes();
        }
    }
}
