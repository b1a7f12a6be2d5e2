//! The stream: posting, sending, receiving, and the timers that belong to it.

use std::io;
use std::time::Instant;

use super::super::qp::{Direct, Sent, Stop};
use super::super::socket::Socket;
use super::{Endpoint, HOLD_STEP, NUDGES, Phase, Progress, established};
use crate::cm::Event;
use crate::error::{Error, Reason, Result, Stage};
use crate::tcp::stall::Verdict;
use crate::trace;
use crate::work::{Fill, RecvWr, SendWr};

/// Gathers sent before other connections get their turn.
const BURST: usize = 4;
/// Octets read before other connections get their turn.
const READ_BUDGET: usize = 1 << 20;
/// Octets read behind a segment that is placed directly: the next header, and a little more.
const DIRECT_BEHIND: usize = 2048;

impl Endpoint {
    /// Queues operations and hands what it can to the socket, with one system call. `More` = the channel has to
    /// go on.
    pub fn post(&mut self, n: usize, fill: &mut Fill<'_, SendWr>) -> Result<Progress> {
        let backlog = self.qp.has_output();
        self.qp.post_send(n, fill)?;
        if backlog {
            // The socket is full and will tell the channel when it is not.
            return Ok(Progress::Waiting);
        }
        Ok(self.send_once())
    }

    /// Posts receives. `More` = a message waits for them.
    pub fn post_recv(&mut self, n: usize, fill: &mut Fill<'_, RecvWr>) -> Result<Progress> {
        self.qp.post_recv(n, fill)?;
        Ok(if self.blocked { Progress::More } else { Progress::Waiting })
    }

    /// Takes a lent buffer back. `More` = a message waits for it.
    pub fn release(&mut self, buffer: u64) -> Result<Progress> {
        self.qp.release(buffer)?;
        Ok(if self.blocked { Progress::More } else { Progress::Waiting })
    }

    /// Builds a gather if there is none and sends it: one system call at most.
    pub(super) fn send_once(&mut self) -> Progress {
        match self.send_gather() {
            Ok(Sent::All) if !self.qp.is_quiet() => Progress::More,
            // A key was revoked under a Read Response.
            Ok(_) if self.qp.fault().is_some() => Progress::More,
            Ok(_) => Progress::Waiting,
            // The channel tells of it; posting has succeeded.
            Err(error) => {
                self.note_send_error(&error);
                Progress::More
            }
        }
    }

    /// Sends what can be sent now, for a while.
    pub fn flush(&mut self) -> Result<Progress> {
        for _ in 0..BURST {
            match self.send_gather().map_err(|error| self.send_failed(&error))? {
                Sent::All => {}
                Sent::Part(_) => return Ok(Progress::Waiting),
                Sent::Nothing => {
                    self.resume();
                    return Ok(Progress::Waiting);
                }
            }
        }
        self.resume();
        Ok(Progress::More)
    }

    /// That the peer has closed before is for the channel to see.
    fn note_send_error(&mut self, error: &io::Error) {
        if error.kind() != io::ErrorKind::BrokenPipe {
            self.send_error.get_or_insert_with(|| established(Error::os("send", error)));
        }
    }

    /// Why nothing more can be sent.
    fn send_failed(&mut self, error: &io::Error) -> Error {
        self.send_error.take().unwrap_or_else(|| established(Error::os("send", error)))
    }

    /// What waited for the socket is gone, or goes.
    fn resume(&mut self) {
        if std::mem::take(&mut self.stalled) {
            trace::send_resume(self.stream);
        }
    }

    fn send_gather(&mut self) -> io::Result<Sent> {
        let Some(socket) = &self.socket else { return Ok(Sent::Nothing) };
        let calls = &mut self.calls.send;
        let sent = self.qp.send(|pieces| {
            *calls += 1;
            match socket.send_vectored(pieces) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                taken => taken,
            }
        })?;
        // A socket that took less than all is full: it will tell when it is not.
        if let Sent::Part(left) = sent {
            self.send_stalls += 1;
            if !std::mem::replace(&mut self.stalled, true) {
                trace::send_stall(self.stream, left);
            }
        }
        Ok(sent)
    }

    /// Reads what the socket has, for [`Endpoint::ready`] with the same buffer to follow at once; false = it has nothing.
    pub fn look(&mut self, buffer: &mut [u8]) -> bool {
        let between = self.stash.is_empty() && !self.blocked && self.qp.at_boundary();
        let Some(socket) = self.socket.as_ref().filter(|_| between && matches!(self.phase, Phase::Streaming))
        else {
            return true;
        };
        let count = socket.recv(buffer);
        if matches!(&count, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            self.calls.recv += 1;
            self.readable = false;
            return false;
        }
        self.found = Some(count);
        true
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        let Some(socket) = &self.socket else { return Ok(None) };
        if !self.readable {
            return Ok(None);
        }
        let count = self.found.take().unwrap_or_else(|| socket.recv(buffer));
        self.judge_read(count, buffer.len())
    }

    /// What a read into `room` octets says about the socket.
    fn judge_read(&mut self, count: io::Result<usize>, room: usize) -> Result<Option<usize>> {
        self.calls.recv += 1;
        match count {
            Ok(count) => {
                // A short read has emptied the socket, unless a FIN that made the same edge lies behind.
                self.readable = count == room || count == 0 || self.hung_up;
                Ok(Some(count))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(None)
            }
            Err(error) => Err(established(Error::os("receive", &error))),
        }
    }

    /// Reads, parses and sends for a while.
    pub(super) fn stream(&mut self, buffer: &mut [u8], events: &mut Vec<Event>) -> Result<Progress> {
        let received = self.receive(buffer, events);
        self.tell_ready(events);
        let received = received?;
        let sent = self.flush();
        // What the peer has said tells more than what its socket has.
        if let Some(fault) = self.qp.fault() {
            events.push(Event::StreamError(fault.error.clone()));
            return Ok(Progress::Waiting);
        }
        let sent = sent?;
        Ok(if received == Progress::More || sent == Progress::More {
            Progress::More
        } else {
            Progress::Waiting
        })
    }

    /// A responder's connection is established when the peer has spoken, even if it has left since.
    fn tell_ready(&mut self, events: &mut Vec<Event>) {
        if !self.ready_told && self.qp.heard() {
            self.ready_told = true;
            events.push(Event::Established);
        }
    }

    fn receive(&mut self, buffer: &mut [u8], events: &mut Vec<Event>) -> Result<Progress> {
        let Some(mut have) = self.parse_stash(buffer) else { return Ok(Progress::Waiting) };
        let mut budget = READ_BUDGET;
        while budget > 0 {
            match self.read_on(buffer, have)? {
                None => {
                    self.keep(buffer, have);
                    return Ok(Progress::Waiting);
                }
                Some(Direct { placed: 0, behind: 0 }) => {
                    self.tell_ready(events);
                    events.push(self.end_of_file(have));
                    self.readable = false;
                    return Ok(Progress::Waiting);
                }
                Some(Direct { placed, behind }) => {
                    have += behind;
                    budget = budget.saturating_sub(placed + behind);
                }
            }
            if have > 0 {
                let input = self.qp.input(buffer.get(..have).unwrap_or_default());
                buffer.copy_within(input.consumed..have, 0);
                have -= input.consumed;
                if !self.goes_on(input.stop) {
                    self.keep(buffer, have);
                    return Ok(Progress::Waiting);
                }
            }
        }
        self.keep(buffer, have);
        Ok(Progress::More)
    }

    /// Parses what was kept, where it is; `None` = it goes no further. What wants more octets moves to the buffer: how many.
    fn parse_stash(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if self.stash.is_empty() {
            return Some(0);
        }
        let input = self.qp.input(self.stash.get(self.parsed..).unwrap_or_default());
        self.parsed += input.consumed;
        let goes_on = self.goes_on(input.stop);
        let rest = self.stash.get(self.parsed..).unwrap_or_default();
        let have = rest.len();
        if let Some(start) = buffer.get_mut(..have).filter(|_| goes_on) {
            start.copy_from_slice(rest);
        }
        if goes_on || have == 0 {
            self.stash.clear();
            self.parsed = 0;
        }
        goes_on.then_some(have)
    }

    /// Whether what has been parsed wants more; notes whether a message waits for a receive.
    fn goes_on(&mut self, stop: Stop) -> bool {
        let blocked = stop == Stop::Blocked;
        match (std::mem::replace(&mut self.blocked, blocked), blocked) {
            (false, true) => trace::recv_stall(self.stream),
            (true, false) => trace::recv_resume(self.stream),
            _ => {}
        }
        self.give_up = self.give_up.filter(|_| self.blocked);
        self.watch_blocked();
        stop == Stop::More
    }

    /// Reads behind the `have` octets that wait for more or, where none wait and a long segment is open, straight to
    /// where that belongs.
    fn read_on(&mut self, buffer: &mut [u8], have: usize) -> Result<Option<Direct>> {
        if have == 0 && self.readable {
            let (qp, socket) = (&mut self.qp, &self.socket);
            let mut room = 0;
            let direct = qp.receive_direct(&mut |piece| {
                let behind = buffer.get_mut(..DIRECT_BEHIND).unwrap_or_default();
                room = piece.len() + behind.len();
                socket.as_ref().map_or(Ok(0), |socket| socket.recv_piece(piece, behind))
            });
            if let Some(result) = direct {
                let mut read = None;
                let count = result.map(|direct| {
                    let count = direct.placed + direct.behind;
                    read = Some(direct);
                    count
                });
                return Ok(self.judge_read(count, room)?.and(read));
            }
        }
        let behind = self.read(buffer.get_mut(have..).unwrap_or_default())?;
        Ok(behind.map(|behind| Direct { placed: 0, behind }))
    }

    /// Keeps what could not be parsed, in memory of its own: the buffer is the channel's.
    fn keep(&mut self, buffer: &[u8], have: usize) {
        self.stash.extend_from_slice(buffer.get(..have).unwrap_or_default());
        if self.stash.is_empty() && self.stash.capacity() > 4096 {
            self.stash = Vec::new();
        }
    }

    fn end_of_file(&mut self, unparsed: usize) -> Event {
        if let Some(error) = self.send_error.take() {
            return Event::StreamError(error);
        }
        if unparsed == 0 && self.qp.at_boundary() {
            return Event::Disconnected;
        }
        let text = "the peer closed the connection in the middle of a frame";
        Event::StreamError(Error::new(libc::ECONNRESET, Reason::PeerReset, text).at(Stage::Connected))
    }

    /// When [`Endpoint::timer`] is to be called.
    pub fn next_timer(&self) -> Option<Instant> {
        if !matches!(self.phase, Phase::Streaming) {
            return None;
        }
        [self.hold_until, self.next_watch, self.give_up, self.nudge_at].into_iter().flatten().min()
    }

    /// Time-driven work: who may speak first, and whether the peer's host is alive.
    pub fn timer(&mut self, now: Instant, events: &mut Vec<Event>) -> Progress {
        if !matches!(self.phase, Phase::Streaming) {
            return Progress::Waiting;
        }
        if self.next_watch.is_some_and(|at| at <= now) {
            self.next_watch = Some(now + self.watch.interval());
            self.check_peer(now, events);
        }
        if self.give_up.is_some_and(|at| at <= now) {
            let text = "the peer has closed the connection; its last messages found no receive posted";
            let error = Error::new(libc::ESHUTDOWN, Reason::PeerClosed, text).at(Stage::Connected);
            events.push(Event::StreamError(error));
            return Progress::Waiting;
        }
        if self.hold_until.is_some_and(|at| at <= now) {
            return self.check_hold(now);
        }
        if self.nudge_at.is_some_and(|at| at <= now) {
            return self.nudge(now);
        }
        Progress::Waiting
    }

    /// See [`NUDGES`].
    fn nudge(&mut self, now: Instant) -> Progress {
        self.nudge_at = None;
        if self.qp.heard() || self.finishing {
            return Progress::Waiting;
        }
        self.nudged += 1;
        self.nudge_at = NUDGES.get(self.nudged).map(|after| now + *after);
        self.qp.nudge();
        Progress::More
    }

    /// A peer without RFC 6581's ready-to-receive may fail when an FPDU is glued to the reply: wait until the reply
    /// has been acknowledged, and a step more.
    fn check_hold(&mut self, now: Instant) -> Progress {
        if self.qp.heard() || self.acknowledged {
            self.hold_until = None;
            self.qp.release_hold();
            return Progress::More;
        }
        let live = self.socket.as_ref().and_then(|socket| socket.liveness().ok());
        self.acknowledged = live.is_none_or(|live| live.unacked == 0);
        self.hold_until = Some(now + HOLD_STEP);
        Progress::Waiting
    }

    fn check_peer(&mut self, now: Instant, events: &mut Vec<Event>) {
        let sent = self.qp.octets_sent();
        if self.watched == sent {
            return;
        }
        let Some(Ok(live)) = self.socket.as_ref().map(Socket::liveness) else { return };
        match self.watch.observe(now, live) {
            Verdict::Idle => self.watched = sent,
            Verdict::Progress | Verdict::Stalled => {}
            Verdict::Dead => events.push(Event::StreamError(Error::dead_peer(self.policy.dead_peer))),
        }
    }
}
