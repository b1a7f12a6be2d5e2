//! One client of `rcg serve`.

use std::sync::Arc;

use rdmacm_gluster::engine::{Conn, Engine, Event, key, kind};
use rdmacm_gluster::error::Result;
use rdmacm_gluster::memory::{Access, Block};
use rdmacm_gluster::work::by_value;

use crate::cpu;
use crate::slots::Slots;
use crate::words::{Offer, TALLY, Tally, Wants};

/// What the peer may do to the memory that it has asked for.
fn remote() -> Access {
    Access::from_bits(Access::REMOTE_READ.bits() | Access::REMOTE_WRITE.bits()).unwrap_or(Access::LOCAL)
}

/// Its connection, and what it has asked for.
pub(super) struct Client {
    conn: Arc<Conn>,
    wants: Wants,
    messages: Slots,
    answers: Slots,
    /// Pieces of `answers` that are not on their way.
    free: Vec<usize>,
    /// Pieces of `messages` that wait for one of those, and the octets in them.
    unanswered: Vec<(usize, usize)>,
    memory: Option<Block>,
    received: u64,
}

impl Client {
    /// Takes the request's connection and posts its receives.
    pub(super) fn new(engine: &Engine, conn: &Arc<Conn>, wants: Wants) -> Result<Self> {
        let (window, message, answer) =
            (wants.window as usize, wants.message as usize, wants.answer as usize);
        // One more than the window, for a message that asks for a tally.
        let receives = window + 1;
        let memory =
            (wants.memory > 0).then(|| Block::new(engine.keys(), wants.memory as usize, 1, remote()));
        let client = Self {
            conn: Arc::clone(conn),
            wants,
            messages: Slots::new(engine, message, receives)?,
            answers: Slots::new(engine, answer, window)?,
            free: (0..window).collect(),
            unanswered: Vec::with_capacity(receives),
            memory: memory.transpose()?,
            received: 0,
        };
        conn.post_recv(receives, &mut by_value(|slot| client.messages.recv(slot)))?;
        Ok(client)
    }

    /// What goes with the accept: a key to the memory that was asked for.
    pub(super) fn offer(&self) -> Result<Vec<u8>> {
        let Some(memory) = &self.memory else { return Ok(Vec::new()) };
        let key = key(memory.region(), Some(&self.conn), 0, memory.len(), remote())?;
        Ok(Offer { addr: memory.at(0) as u64, key }.emit())
    }

    pub(super) fn messages(&self) -> u64 {
        self.received
    }

    /// Answers a message, or goes on when an answer has left.
    pub(super) fn take(&mut self, event: &Event) {
        let result = match event.kind {
            // Those that are flushed at the end go with the connection.
            _ if event.status != 0 => Ok(()),
            kind::RECV => self.message(event.user, event.length),
            kind::COMPLETION => {
                self.free.push(event.user);
                self.unanswered.pop().map_or(Ok(()), |(slot, octets)| self.answer(slot, octets))
            }
            kind::DISCONNECTED => self.conn.close(),
            _ => Ok(()),
        };
        if result.is_err() {
            // It has ended meanwhile, or will have.
            let _ = self.conn.close();
        }
    }

    fn message(&mut self, slot: usize, octets: usize) -> Result<()> {
        self.received += 1;
        let short = octets < self.wants.message as usize;
        if short || self.received % u64::from(self.wants.every) == 0 {
            return self.answer(slot, octets);
        }
        self.conn.post_recv(1, &mut by_value(|_| self.messages.recv(slot)))
    }

    fn answer(&mut self, slot: usize, octets: usize) -> Result<()> {
        let Some(free) = self.free.pop() else {
            self.unanswered.push((slot, octets));
            return Ok(());
        };
        let length = self.wants.answer as usize;
        let target = self.answers.sge(free, length)?;
        if self.wants.echo {
            let mut copy = vec![0; octets.min(length)];
            self.messages.sge(slot, copy.len())?.read(0, &mut copy);
            target.fill(0, &copy);
        } else if length >= TALLY {
            // The clock is read for those who ask only.
            let asked = octets < self.wants.message as usize;
            let cpu_us = if asked { cpu::used_us() } else { 0 };
            target.fill(0, &Tally { messages: self.received, cpu_us }.emit());
        }
        // The receive first: the client may send again as soon as it has the answer.
        self.conn.post_recv(1, &mut by_value(|_| self.messages.recv(slot)))?;
        self.conn.post(1, &mut by_value(|_| self.answers.send(free, length)))
    }
}
