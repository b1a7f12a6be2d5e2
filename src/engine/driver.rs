//! The event loop of a channel: commands, timers, sockets, delivery.

use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::alarm::Alarm;
use super::channel::{Channel, Command, Commands};
use super::clock::Coarse;
use super::conn::Conn;
use super::driver_listen::Pending;
use super::driver_verbs::Warmth;
use super::event::Event;
use super::listener::Listener;
use super::log::Level;
use super::perform::{Happening, Io};
use super::selector::{Events, Ready, Selector};
use super::spin::{Hot, Spin};
use super::timers::Timers;
use super::tokens::TokenMap;
use super::waker::Waker;
use crate::cm::Request;
use crate::error::{Error, Reason, Result};
use crate::iwarp::endpoint::{Progress, READ_BUFFER, Readiness};
use crate::iwarp::socket::Socket;
use crate::verbs::{Hub, Wc};

/// Token of the waker and of the alarm; connections count from 1.
const TOKEN_WAKER: u64 = 0;
const TOKEN_ALARM: u64 = u64::MAX;
/// Tokens of what the verbs provider has: rdma_cm's events, completions, asynchronous events.
pub(super) const TOKEN_CM: u64 = u64::MAX - 1;
pub(super) const TOKEN_COMPLETIONS: u64 = u64::MAX - 2;
pub(super) const TOKEN_ASYNC: u64 = u64::MAX - 3;
/// While completions come fast, descriptors are looked at once in so many polls.
pub(super) const LOOK_EVERY: u32 = 16;
/// Rounds of polling completion queues before others get their turn.
pub(super) const POLL_BURST: usize = 8;
/// How often a listener whose device has gone looks for one.
pub(super) const RELISTEN: Duration = Duration::from_secs(1);
/// How often it is looked whether a device that was removed is gone.
pub(super) const SEE_OFF: Duration = Duration::from_millis(20);
/// How long a socket that is done may wait for the peer to read what was sent last.
const LINGER: Duration = Duration::from_secs(1);
/// Reads of what comes to it in one turn, after which it is reset.
const LINGER_READS: u32 = 64;
/// Batches delivered before sockets get their turn.
const DELIVER_BURST: usize = 4;
/// Bound on closing everything when a channel is destroyed.
const FINISH: Duration = Duration::from_secs(5);

/// Whatever a token of the selector, or a timer's key, can mean.
pub(super) enum Entry {
    Conn(Arc<Conn>),
    Listener(Arc<Listener>),
    /// A socket whose request has not come yet.
    Pending(Box<Pending>),
    /// A socket that is done; the peer may still have to read.
    Lingering(Socket),
}

/// What makes a channel go: owned by its thread, or run by the caller.
pub(super) struct Driver {
    commands: Commands,
    pub(super) selector: Selector,
    events: Events,
    pub(super) timers: Timers,
    pub(super) entries: TokenMap<Entry>,
    /// Connections with more to do at once.
    again: Vec<Arc<Conn>>,
    /// Connections that the device has failed something of, not told yet.
    failed: Vec<Arc<Conn>>,
    pub(super) buffer: Box<[u8]>,
    batch: Vec<Event>,
    /// What the channel has of rdma_cm and verbs, from their first use on.
    pub(super) hub: Option<Hub>,
    pub(super) completions: Vec<Wc>,
    pub(super) warmth: Warmth,
    clock: Coarse,
    pub(super) spin: Spin,
    hot: Hot,
    alarm: Option<Alarm>,
    /// What the alarm is set to.
    alarmed: Option<Instant>,
    pub(super) finished: bool,
}

impl Driver {
    pub(super) fn new(commands: Commands, waker: &Waker, spin: Duration, manual: bool) -> Result<Self> {
        let selector = Selector::new()?;
        selector.add_level(waker.as_raw_fd(), TOKEN_WAKER)?;
        let alarm = manual.then(Alarm::new).transpose()?;
        if let Some(alarm) = &alarm {
            selector.add_level(alarm.as_raw_fd(), TOKEN_ALARM)?;
        }
        Ok(Self {
            commands,
            selector,
            events: Events::default(),
            timers: Timers::default(),
            entries: TokenMap::default(),
            again: Vec::new(),
            failed: Vec::new(),
            buffer: vec![0; READ_BUFFER].into_boxed_slice(),
            batch: Vec::new(),
            hub: None,
            completions: Vec::new(),
            warmth: Warmth::default(),
            clock: Coarse::default(),
            spin: Spin::new(spin),
            hot: Hot::default(),
            alarm,
            alarmed: None,
            finished: false,
        })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.selector.as_raw_fd()
    }

    /// The thread of a channel. A panic is a bug of ours: it ends the channel's connections, with events, and not the
    /// program.
    pub(super) fn main(mut self, channel: &Arc<Channel>) {
        channel.set_owner(Some(std::thread::current().id()));
        while !self.finished {
            let turn = catch_unwind(AssertUnwindSafe(|| self.turn(channel, Instant::now(), None)));
            match turn {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => self.break_off(channel, &error),
                Err(_) => {
                    let error = Error::new(
                        libc::EIO,
                        Reason::Internal,
                        "a bug in the library stopped this connection",
                    );
                    self.break_off(channel, &error);
                }
            }
        }
        self.finish(channel);
    }

    /// One run of a manual channel.
    pub(super) fn run(&mut self, channel: &Arc<Channel>, timeout: Option<Duration>) -> Result<usize> {
        channel.parking().awake();
        let polls = timeout == Some(Duration::ZERO);
        if !polls {
            self.cool(channel);
        }
        // Events that nobody has fetched yet were told of before, by a descriptor that is not readable for them any more.
        let timeout = if channel.has_ready() { Some(Duration::ZERO) } else { timeout };
        let passes = self.passes_over();
        let now = if passes { self.clock.now() } else { Instant::now() };
        let quiet = passes && !self.has_work(channel) && !self.is_due(now);
        if quiet && !(self.poll_completions(now) && self.has_work(channel)) {
            return Ok(0);
        }
        let delivered = self.turn(channel, now, timeout.map(|timeout| now + timeout));
        // A run that was not to wait has taken no time worth a look at the clock.
        self.rest(channel, if polls { now } else { Instant::now() });
        delivered
    }

    /// Prepares the descriptor of a manual channel for the time until the next run.
    fn rest(&mut self, channel: &Channel, now: Instant) {
        let next = self.timers.next();
        if let Some(alarm) = self.alarm.as_ref().filter(|_| next != self.alarmed) {
            alarm.set(next.map(|at| at.saturating_duration_since(now)));
            self.alarmed = next;
        }
        if self.stays_warm(channel, now) {
            return;
        }
        if self.arm() || !channel.parking().prepare_sleep() || self.has_work(channel) {
            channel.waker().wake();
        }
    }

    /// Ends everything: closes what is open and delivers, or drops, the last events.
    pub(super) fn finish(&mut self, channel: &Arc<Channel>) {
        let deadline = Instant::now() + FINISH;
        self.cool(channel);
        self.close_all();
        while Instant::now() < deadline {
            let now = Instant::now();
            let _ = self.turn(channel, now, Some(now + Duration::from_millis(10)));
            while channel.deliver(&mut self.batch) > 0 {}
            if channel.is_empty() {
                break;
            }
            self.close_all();
        }
        self.entries.clear();
        self.again.clear();
        self.failed.clear();
        self.hub = None;
    }

    fn close_all(&mut self) {
        let now = Instant::now();
        let conns: Vec<_> = self.conns().collect();
        for conn in conns {
            self.drive(&conn, Happening::Request(Request::Close), now);
        }
        let listeners = self.entries.values().filter_map(|entry| match entry {
            Entry::Listener(listener) => Some(Arc::clone(listener)),
            _ => None,
        });
        for listener in listeners.collect::<Vec<_>>() {
            self.unlisten(&listener);
        }
    }

    fn conns(&self) -> impl Iterator<Item = Arc<Conn>> + '_ {
        self.entries.values().filter_map(|entry| match entry {
            Entry::Conn(conn) => Some(Arc::clone(conn)),
            _ => None,
        })
    }

    fn break_off(&mut self, channel: &Channel, error: &Error) {
        channel.engine().log(Level::Error, format_args!("channel: {error}"));
        for conn in self.conns().collect::<Vec<_>>() {
            conn.break_off(error);
            self.entries.remove(&conn.id());
        }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        self.timers.next().is_some_and(|at| at <= now)
    }

    fn has_work(&self, channel: &Channel) -> bool {
        !self.again.is_empty()
            || !self.failed.is_empty()
            || channel.is_asked()
            || (channel.delivers() && channel.has_ready())
    }

    /// One turn: do what is to be done, wait at most until `deadline` (`None` = as long as it takes) if there was
    /// nothing, deliver. Returns the number of events delivered.
    fn turn(&mut self, channel: &Arc<Channel>, now: Instant, deadline: Option<Instant>) -> Result<usize> {
        self.work(channel, now);
        let timeout = if self.has_work(channel) || self.finished {
            Some(Duration::ZERO)
        } else {
            let next = [self.timers.next(), deadline].into_iter().flatten().min();
            next.map(|at| at.saturating_duration_since(now))
        };
        let now = self.wait(channel, timeout, now)?;
        self.dispatch(channel, now);
        self.work(channel, now);
        let mut delivered = 0;
        if channel.delivers() {
            for _ in 0..DELIVER_BURST {
                match channel.deliver(&mut self.batch) {
                    0 => break,
                    count => delivered += count,
                }
            }
        }
        Ok(delivered)
    }

    /// Waits for readiness: looks, spins for a while, then sleeps. Returns what time it is, a few polls ago.
    fn wait(&mut self, channel: &Channel, timeout: Option<Duration>, now: Instant) -> Result<Instant> {
        let polled = self.poll_completions(now);
        if self.warmth.passes {
            self.events.clear();
            return Ok(now);
        }
        let (waits, spins) = (timeout != Some(Duration::ZERO), self.spin.budget() > Duration::ZERO);
        if waits && !polled && (!spins || self.hot.may_read()) {
            // Asleep the selector tells at once, too; the hot socket is read before it is asked.
            self.events.clear();
        } else if self.look(channel)? || polled || !waits {
            return Ok(now);
        }
        if let Some(now) = self.spin_until_ready(channel, timeout, now)? {
            return Ok(now);
        }
        if channel.parking().prepare_sleep() && !self.arm() && !self.has_work(channel) {
            channel.counts().sleeps.add(1);
            self.hot.looked();
            self.selector.wait(&mut self.events, timeout)?;
        }
        channel.parking().awake();
        Ok(Instant::now())
    }

    /// Whether a descriptor is ready now.
    fn look(&mut self, channel: &Channel) -> Result<bool> {
        channel.counts().polls.add(1);
        self.hot.looked();
        Ok(self.selector.wait(&mut self.events, Some(Duration::ZERO))? > 0)
    }

    /// The time when something came.
    fn spin_until_ready(
        &mut self,
        channel: &Channel,
        timeout: Option<Duration>,
        mut now: Instant,
    ) -> Result<Option<Instant>> {
        let budget = self.spin.budget().min(timeout.unwrap_or(Duration::MAX));
        if budget > Duration::ZERO {
            let end = now + budget;
            let every = if self.hub.is_some() { LOOK_EVERY } else { 1 };
            for round in 0_u32.. {
                // The clock costs as much as several polls of a queue, and is a system call on some machines.
                if round % LOOK_EVERY == LOOK_EVERY - 1 {
                    now = Instant::now();
                    if now >= end {
                        break;
                    }
                }
                let looks = if self.hot.is_some() { !self.hot.may_read() } else { round % every == 0 };
                if self.poll_completions(now)
                    || self.read_hot(now)
                    || (looks && self.look(channel)?)
                    || self.has_work(channel)
                {
                    self.spin.hit();
                    return Ok(Some(now));
                }
            }
        }
        self.spin.miss();
        Ok(None)
    }

    /// Reads the hot socket. That the selector tells of it later is nothing new then.
    fn read_hot(&mut self, now: Instant) -> bool {
        let Some(token) = self.hot.read() else { return false };
        let Some(Entry::Conn(conn)) = self.entries.get(&token) else {
            self.hot.gone();
            return false;
        };
        if !conn.look(&mut self.buffer) {
            return false;
        }
        let conn = Arc::clone(conn);
        self.tell(&conn, Happening::Ready(Readiness { readable: true, ..Readiness::default() }), now)
    }

    /// Commands, timers that are due, and connections that were left with work.
    fn work(&mut self, channel: &Arc<Channel>, now: Instant) {
        let asked = channel.take_asked();
        if asked {
            while let Ok(command) = self.commands.try_recv() {
                self.command(channel, command);
            }
        }
        if self.is_due(now) {
            // Where the channel has been away for long, what came meanwhile is no silence.
            self.poll_completions(now);
            while let Some(key) = self.timers.pop(now) {
                self.timer(key, now);
            }
        }
        if !self.failed.is_empty() {
            // rdma_cm may have told why already.
            self.cm_events(channel);
        }
        if !self.failed.is_empty() || !self.again.is_empty() {
            for conn in self.failed.drain(..).chain(self.again.drain(..)).collect::<Vec<_>>() {
                self.drive(&conn, Happening::Go, now);
            }
        }
        if asked {
            while let Some(conn) = channel.take_kick() {
                conn.end_kick();
                self.drive(&conn, Happening::Go, now);
            }
        }
    }

    fn command(&mut self, channel: &Arc<Channel>, command: Command) {
        let now = Instant::now();
        self.open_hub(channel);
        match command {
            Command::Add(conn) => {
                self.entries.insert(conn.id(), Entry::Conn(Arc::clone(&conn)));
                self.drive(&conn, Happening::Request(Request::Start), now);
            }
            Command::Request(conn, request) => self.drive(&conn, Happening::Request(request), now),
            Command::Resolved(conn, result) => self.drive(&conn, Happening::Resolved(result), now),
            Command::Listen(listener) => self.listen(channel, &listener),
            Command::Unlisten(listener) => self.unlisten(&listener),
            Command::Accepted(slot, socket, peer) => self.pend(channel, slot, socket, peer),
            Command::Asked(conn) => {
                self.entries.insert(conn.id(), Entry::Conn(Arc::clone(&conn)));
                self.drive(&conn, Happening::Requested, now);
            }
            Command::Cm(conn, event) => self.drive(&conn, Happening::Cm(&event), now),
            Command::Async(conn, event) => self.drive(&conn, Happening::Async(event), now),
            Command::Shutdown => self.finished = true,
        }
    }

    /// Tells a connection what has happened and does what comes of it.
    pub(super) fn drive(&mut self, conn: &Arc<Conn>, happening: Happening<'_>, now: Instant) {
        self.tell(conn, happening, now);
    }

    /// The same. Returns whether octets have come.
    fn tell(&mut self, conn: &Arc<Conn>, happening: Happening<'_>, now: Instant) -> bool {
        if conn.is_ended() {
            return false;
        }
        let hub = self.hub.as_mut();
        let mut io = Io { selector: &self.selector, buffer: &mut self.buffer, hub, done: None };
        let by_device = matches!(happening, Happening::Work(_) | Happening::Async(_));
        let outcome = conn.drive(happening, now, &mut io);
        let done = io.done.take();
        self.timers.update(conn.id(), outcome.timer);
        if outcome.progress == Progress::More {
            let list = if by_device { &mut self.failed } else { &mut self.again };
            list.push(Arc::clone(conn));
        }
        self.watch_fresh();
        if outcome.closed {
            self.entries.remove(&conn.id());
            if let Some(socket) = done {
                self.linger(conn.id(), socket, now);
            }
        }
        outcome.received
    }

    /// Lets the peer read what was sent last: closing a socket with unread octets would reset it.
    pub(super) fn linger(&mut self, token: u64, socket: Socket, now: Instant) {
        let _ = socket.shutdown_write();
        if self.selector.add(socket.as_raw_fd(), token).is_ok() {
            self.timers.set(token, now + LINGER);
            self.entries.insert(token, Entry::Lingering(socket));
        }
    }

    fn timer(&mut self, key: u64, now: Instant) {
        if key == TOKEN_CM {
            return self.see_off(now);
        }
        match self.entries.get(&key) {
            Some(Entry::Conn(conn)) => {
                let conn = Arc::clone(conn);
                self.drive(&conn, Happening::Timer, now);
            }
            Some(Entry::Listener(listener)) => {
                // The rest is over: accept again. A descriptor that is watched already stays so.
                let _ = listener.with_fd(|fd| self.selector.add_level(fd, key));
                if !listener.relisten() {
                    self.timers.set(key, now + RELISTEN);
                }
            }
            Some(Entry::Pending(_)) => self.drop_pending(key),
            Some(Entry::Lingering(socket)) => {
                // The peer does not read: it would not notice a FIN behind what it has not read either.
                socket.reset_on_close();
                self.entries.remove(&key);
            }
            None => {}
        }
    }

    fn dispatch(&mut self, channel: &Arc<Channel>, now: Instant) {
        for index in 0.. {
            let Some(ready) = self.events.get(index) else { return };
            match ready.token {
                TOKEN_WAKER if self.warmth.readable => {}
                TOKEN_WAKER => channel.waker().drain(),
                TOKEN_ALARM => {
                    self.alarm.iter().for_each(|alarm| alarm.set(None));
                    self.alarmed = None;
                }
                TOKEN_CM => self.cm_events(channel),
                TOKEN_COMPLETIONS => self.hub.iter_mut().for_each(Hub::drain),
                TOKEN_ASYNC => self.async_events(channel),
                _ => self.ready(channel, ready, now),
            }
        }
    }

    fn ready(&mut self, channel: &Arc<Channel>, ready: Ready, now: Instant) {
        match self.entries.get_mut(&ready.token) {
            Some(Entry::Conn(conn)) => {
                let conn = Arc::clone(conn);
                let readiness =
                    Readiness { readable: ready.readable, writable: ready.writable, closed: ready.closed };
                if readiness.readable {
                    self.hot.readable(ready.token);
                }
                self.drive(&conn, Happening::Ready(readiness), now);
            }
            Some(Entry::Listener(listener)) => {
                let listener = Arc::clone(listener);
                self.accept(channel, &listener);
            }
            Some(Entry::Pending(_)) if ready.readable || ready.closed => {
                self.read_request(channel, ready.token)
            }
            Some(Entry::Lingering(socket)) => {
                let gone = listen_on(socket, &mut self.buffer);
                if gone {
                    self.timers.update(ready.token, None);
                    self.entries.remove(&ready.token);
                }
            }
            _ => {}
        }
    }
}

/// Reads what comes to a socket that is done; true = it can go. One whose peer goes on sending is not read for ever.
fn listen_on(socket: &Socket, buffer: &mut [u8]) -> bool {
    for _ in 0..LINGER_READS {
        match socket.recv(buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
    socket.reset_on_close();
    true
}
