//! Connections over RDMA that are kept busy.

use std::time::Instant;

use rdmacm_gluster::engine::{Event, kind};
use rdmacm_gluster::work::{Opcode, by_value};

use super::Op;
use crate::link::{Link, Peer, good};
use crate::side::{Side, told};
use crate::words::{TALLY, Tally, Wants};

/// What goes over a connection.
#[derive(Clone, Copy)]
pub(super) struct Load {
    pub(super) op: Op,
    /// Octets go both ways: a Send is answered by one as long, Writes and Reads go at a time.
    pub(super) both: bool,
    pub(super) size: u32,
    /// Operations on their way.
    pub(super) window: u32,
}

impl Load {
    fn wants(self) -> Wants {
        let (tally, size, window) = (TALLY as u32, self.size, self.window);
        match self.op {
            Op::Send if self.both => {
                Wants { message: size, window, answer: size.max(tally), every: 1, memory: 0, echo: false }
            }
            // Two answers in a window: the second half is on its way when the first is answered.
            Op::Send => {
                let every = window.div_ceil(2);
                Wants { message: size, window, answer: tally, every, memory: 0, echo: false }
            }
            Op::Write | Op::Read => {
                Wants { message: 1, window: 1, answer: tally, every: 1, memory: size * window, echo: false }
            }
        }
    }
}

/// A connection with its window.
pub(super) struct Pump {
    pub(super) link: Link,
    load: Load,
    /// Sends or Writes, and Reads, whose completion is not seen yet.
    sending: u32,
    reading: u32,
    /// Messages, and what the server has said of them last.
    sent: u64,
    tally: Tally,
    /// Writes and Reads that are done.
    done: u64,
}

/// What the connections of one thread have done in a round.
pub(super) struct Moved {
    pub(super) octets: u64,
    pub(super) operations: u64,
    pub(super) seconds: f64,
    pub(super) server_cpu_us: u64,
}

impl Pump {
    pub(super) fn open(side: &mut Side, peer: &Peer, load: Load) -> Result<Self, String> {
        let link = Link::open(side, peer, load.wants(), (load.size as usize, load.window))?;
        Ok(Self { link, load, sending: 0, reading: 0, sent: 0, tally: Tally::default(), done: 0 })
    }

    /// Posts as much as the window lets in.
    fn fill(&mut self) -> Result<(), String> {
        let window = self.load.window;
        let unanswered = (self.sent - self.tally.messages) as u32;
        let (sends, reads) = match self.load.op {
            Op::Send => (window.saturating_sub(unanswered.max(self.sending)), 0),
            _ if self.load.both => (window.div_ceil(2) - self.sending, (window / 2).max(1) - self.reading),
            Op::Write => (window - self.sending, 0),
            Op::Read => (0, window - self.reading),
        };
        let opcode = if self.load.op == Op::Send { Opcode::Send } else { Opcode::Write };
        self.post(opcode, sends)?;
        self.post(Opcode::Read, reads)?;
        self.sending += sends;
        self.reading += reads;
        self.sent += if self.load.op == Op::Send { sends.into() } else { 0 };
        Ok(())
    }

    fn post(&self, opcode: Opcode, count: u32) -> Result<(), String> {
        if count == 0 {
            return Ok(());
        }
        let (link, size) = (&self.link, self.load.size as usize);
        let mut fill = by_value(|at| {
            let there = (link.offer.addr + (at * size) as u64, link.offer.key);
            link.out.wr(opcode, (at, size), if opcode == Opcode::Send { (0, 0) } else { there })
        });
        link.conn.post(count as usize, &mut fill).map_err(told)
    }

    /// Asks for a tally: when it is there, so is all that was sent before.
    fn ask(&mut self) -> Result<(), String> {
        self.sent += 1;
        self.sending += 1;
        self.link.ask()
    }

    fn take(&mut self, event: &Event) -> Result<(), String> {
        good(event)?;
        match (event.kind, Opcode::from_u32(event.op)) {
            (kind::RECV, _) => {
                let tally = self.link.tally_of(event)?;
                // Only those that were asked for have a time.
                let cpu_us = tally.cpu_us.max(self.tally.cpu_us);
                self.tally = Tally { cpu_us, ..tally };
                return self.link.receive(event.user);
            }
            (_, Some(Opcode::Read)) => {
                self.reading -= 1;
                self.done += 1;
            }
            (_, opcode) => {
                self.sending -= 1;
                self.done += u64::from(opcode == Some(Opcode::Write));
            }
        }
        Ok(())
    }

    /// Whether all operations are done; answers to Sends may still be missing.
    fn is_done(&self) -> bool {
        self.sending == 0 && self.reading == 0
    }

    /// Whether everything has been answered, too.
    fn is_settled(&self) -> bool {
        self.is_done() && self.sent == self.tally.messages
    }

    /// Operations so far.
    fn operations(&self) -> u64 {
        if self.load.op == Op::Send { self.tally.messages } else { self.done }
    }
}

/// Keeps all connections of a side busy until `end` says it is over, then waits for what is on its way.
pub(super) fn pump(side: &Side, pumps: &mut [Pump], seconds: f64) -> Result<Moved, String> {
    settle(side, pumps)?;
    let sum = |pumps: &[Pump]| pumps.iter().map(Pump::operations).sum::<u64>();
    let cpu = |pumps: &[Pump]| pumps.iter().map(|pump| pump.tally.cpu_us).max().unwrap_or(0);
    let (before, cpu_before, began) = (sum(pumps), cpu(pumps), Instant::now());
    // At least once: who is kept from running would have measured nothing.
    loop {
        pumps.iter_mut().try_for_each(Pump::fill)?;
        turn(side, pumps)?;
        if began.elapsed().as_secs_f64() >= seconds {
            break;
        }
    }
    while !pumps.iter().all(Pump::is_done) {
        turn(side, pumps)?;
    }
    settle(side, pumps)?;
    let load = pumps.first().map(|pump| pump.load).ok_or("no connection")?;
    // One message of each connection has asked for the tally.
    let asked = if load.op == Op::Send { pumps.len() as u64 } else { 0 };
    let operations = sum(pumps) - before - asked;
    Ok(Moved {
        octets: operations * u64::from(load.size) * if load.both && load.op == Op::Send { 2 } else { 1 },
        operations,
        seconds: began.elapsed().as_secs_f64(),
        server_cpu_us: cpu(pumps) - cpu_before,
    })
}

/// Waits until everything has arrived.
fn settle(side: &Side, pumps: &mut [Pump]) -> Result<(), String> {
    pumps.iter_mut().try_for_each(Pump::ask)?;
    while !pumps.iter().all(Pump::is_settled) {
        turn(side, pumps)?;
    }
    Ok(())
}

/// The events there are; waits for one.
fn turn(side: &Side, pumps: &mut [Pump]) -> Result<(), String> {
    let patience = pumps.first().map(|pump| pump.link.patience()).ok_or("no connection")?;
    side.batch(patience, |event| {
        let pump = pumps.iter_mut().find(|pump| pump.link.conn.handle() == event.conn);
        pump.map_or(Ok(()), |pump| pump.take(event))
    })
}
