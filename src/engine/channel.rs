//! The channel: one shard of connections, its thread, and the queue of those that have events.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::{Mutex, RwLock};
use socket2::SockAddr;

use super::config::{ConnectConfig, ListenConfig, PROVIDER_AUTO, PROVIDER_IWARP, Target};
use super::conn::Conn;
use super::driver::Driver;
use super::event::{Event, kind};
use super::instance::Engine;
use super::listener::{Listener, Slot};
use super::stats::{Loop, Stats};
use super::waker::{Parking, Waker};
use super::{Object, each_object, object, register, retire};
use crate::cm::Request;
use crate::error::{Error, Result};
use crate::iwarp::socket::Socket;
use crate::verbs::{self, AsyncEvent, CmEvent};

/// Default of the time a channel spins before it sleeps.
const DEFAULT_SPIN: Duration = Duration::from_micros(50);
/// Longest spin that can be asked for.
const MAX_SPIN: Duration = Duration::from_millis(10);
/// Events in a batch, by default and at most.
const DEFAULT_BATCH: usize = 64;
const MAX_BATCH: usize = 4096;

/// Takes events on the channel's thread.
pub trait Sink: Send + Sync {
    /// Called with one or more events of the channel with this handle; what they point to lives for the call.
    fn deliver(&self, channel: usize, events: &[Event]);
}

/// What `rcg_channel_create` takes.
#[derive(Default)]
pub struct ChannelConfig {
    /// Where events go; `None` = they are fetched by [`Channel::next`].
    pub sink: Option<Box<dyn Sink>>,
    /// No thread: the caller calls [`Channel::run`].
    pub manual: bool,
    /// Microseconds to spin before sleeping; `None` = default, 0 = never.
    pub spin_us: Option<u32>,
    /// Most events in a batch; 0 = 64.
    pub max_batch: usize,
}

/// Something that has events to deliver.
pub(super) enum Source {
    Conn(Arc<Conn>),
    Listener(Arc<Listener>),
}

/// What the channel's driver is asked to do.
pub(super) enum Command {
    Add(Arc<Conn>),
    Request(Arc<Conn>, Request),
    Resolved(Arc<Conn>, Result<Vec<SockAddr>>),
    Listen(Arc<Listener>),
    Unlisten(Arc<Listener>),
    Accepted(Slot, Socket, SockAddr),
    /// A connection for a request that has come to a listening id.
    Asked(Arc<Conn>),
    /// An rdma_cm event that has come to another channel, or too early.
    Cm(Arc<Conn>, CmEvent),
    /// The same of a device's asynchronous event.
    Async(Arc<Conn>, AsyncEvent),
    Shutdown,
}

#[derive(Default)]
struct ReadyQueue {
    sources: VecDeque<Source>,
    signalled: bool,
}

/// One event channel.
pub struct Channel {
    handle: AtomicUsize,
    engine: Arc<Engine>,
    sink: Option<Box<dyn Sink>>,
    manual: bool,
    max_batch: usize,
    waker: Waker,
    parking: Parking,
    commands: Sender<Command>,
    /// A command or a kick may wait: one look for the loop instead of one at each queue.
    asked: AtomicBool,
    ready: Mutex<ReadyQueue>,
    /// How many sources `ready` holds, for a look without its lock.
    waiting: AtomicUsize,
    /// Connections that were left with work to do by a thread that is not the channel's.
    kicks: Mutex<VecDeque<Arc<Conn>>>,
    /// Queue mode: readable while events wait.
    signal: Option<Waker>,
    /// Manual mode: whoever runs the channel holds this.
    driver: Mutex<Option<Driver>>,
    driver_fd: RawFd,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The thread that delivers now, or always.
    owner: Mutex<Option<ThreadId>>,
    /// Events given out by the last [`Channel::next`].
    held: Mutex<Vec<Event>>,
    /// Connections and listeners whose CLOSED has not been delivered.
    live: AtomicUsize,
    /// rdma_cm's events, from the first use of the verbs provider on.
    events: Mutex<Option<Arc<verbs::Events>>>,
    counts: Loop,
    /// What connections that have ended had counted.
    past: Mutex<Stats>,
    /// True once destroyed; held for reading while something is admitted.
    gate: RwLock<bool>,
}

impl Channel {
    /// A channel of `engine`, with its thread unless it is manual.
    pub fn create(engine: &Arc<Engine>, config: ChannelConfig) -> Result<Arc<Self>> {
        let spin =
            config.spin_us.map_or(DEFAULT_SPIN, |us| Duration::from_micros(u64::from(us)).min(MAX_SPIN));
        let (sender, receiver) = unbounded();
        let waker = Waker::new()?;
        let driver = Driver::new(receiver, &waker, spin, config.manual)?;
        let queue = config.sink.is_none() && !config.manual;
        let channel = Arc::new(Self {
            handle: AtomicUsize::new(0),
            engine: Arc::clone(engine),
            sink: config.sink,
            manual: config.manual,
            max_batch: if config.max_batch == 0 { DEFAULT_BATCH } else { config.max_batch.min(MAX_BATCH) },
            waker,
            parking: Parking::default(),
            commands: sender,
            asked: AtomicBool::new(false),
            ready: Mutex::default(),
            waiting: AtomicUsize::new(0),
            kicks: Mutex::default(),
            signal: if queue { Some(Waker::new()?) } else { None },
            driver_fd: driver.fd(),
            driver: Mutex::new(None),
            thread: Mutex::new(None),
            owner: Mutex::new(None),
            held: Mutex::default(),
            live: AtomicUsize::new(0),
            events: Mutex::new(None),
            counts: Loop::default(),
            past: Mutex::default(),
            gate: RwLock::new(false),
        });
        channel.handle.store(register(Object::Channel(Arc::clone(&channel)))?, Ordering::Relaxed);
        if let Err(error) = channel.start(driver) {
            retire(channel.handle());
            return Err(error);
        }
        engine.channel_created();
        Ok(channel)
    }

    fn start(self: &Arc<Self>, driver: Driver) -> Result<()> {
        if self.manual {
            // Between two runs the channel counts as asleep, so that work given to it makes its descriptor readable.
            self.parking.prepare_sleep();
            *self.driver.lock() = Some(driver);
            return Ok(());
        }
        let channel = Arc::clone(self);
        let thread =
            std::thread::Builder::new().name("rcg-channel".into()).spawn(move || driver.main(&channel));
        let thread = thread.map_err(|error| {
            Error::os("create the channel's thread", &error)
                .with_remedy("see the limit of processes: LimitNPROC= in the unit, or `ulimit -u`")
        })?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// Its handle.
    pub fn handle(&self) -> usize {
        self.handle.load(Ordering::Relaxed)
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// rdma_cm's events, if the channel uses them.
    pub(super) fn events(&self) -> Option<Arc<verbs::Events>> {
        self.events.lock().clone()
    }

    /// rdma_cm's events; opens rdma_cm at first use. A command has to follow, by which the driver notices.
    pub(super) fn open_events(&self) -> Result<Arc<verbs::Events>> {
        let mut events = self.events.lock();
        if let Some(events) = &*events {
            return Ok(Arc::clone(events));
        }
        Ok(Arc::clone(events.insert(Arc::new(verbs::Events::new()?))))
    }

    /// Whether devices are to be tried for a provider's number; prepares for them. An error where they have to be used
    /// and can't be.
    pub(super) fn verbs_for(&self, provider: u32) -> Result<bool> {
        if provider == PROVIDER_IWARP {
            return Ok(false);
        }
        match verbs::probe::available().and_then(|()| self.open_events()) {
            Ok(_) => Ok(true),
            Err(_) if provider == PROVIDER_AUTO => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn counts(&self) -> &Loop {
        &self.counts
    }

    /// Its connections that are not closed, or whose end has not been delivered.
    pub(super) fn conns(&self) -> Vec<Arc<Conn>> {
        let mut conns = Vec::new();
        each_object(|object| match object {
            Object::Conn(conn) if std::ptr::eq(&**conn.channel(), self) => conns.push(Arc::clone(conn)),
            _ => {}
        });
        conns
    }

    /// What it and its connections have counted.
    pub fn stats(&self) -> Stats {
        // Held until the end, so that no connection is counted twice or not at all.
        let past = self.past.lock();
        let mut stats = *past;
        self.conns().iter().for_each(|conn| stats.add(&conn.stats()));
        let signal = self.signal.as_ref().map_or(0, Waker::count);
        stats.add(&Stats {
            loop_polls: self.counts.polls.get(),
            loop_sleeps: self.counts.sleeps.get(),
            wakeups: self.waker.count() + signal,
            events: self.counts.events.get(),
            ..Stats::default()
        });
        stats
    }

    pub(super) fn parking(&self) -> &Parking {
        &self.parking
    }

    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    pub(super) fn set_owner(&self, owner: Option<ThreadId>) {
        *self.owner.lock() = owner;
    }

    /// A connection or listener more, asked for by the caller: refused once the channel is being destroyed, so that
    /// the driver sees everything that it has to end.
    pub(super) fn admit(&self, command: Command) -> Result<()> {
        let gate = self.gate.read();
        if *gate {
            return Err(Error::state(libc::EBADF, "the channel is destroyed"));
        }
        self.adopt();
        self.send(command);
        Ok(())
    }

    /// Whether the channel is being destroyed.
    pub(super) fn is_closed(&self) -> bool {
        *self.gate.read()
    }

    /// A connection or listener more.
    pub(super) fn adopt(&self) {
        let live = self.live.fetch_add(1, Ordering::SeqCst) + 1;
        // Room for each of them, so that marking never allocates.
        let mut ready = self.ready.lock();
        let missing = live.saturating_sub(ready.sources.len());
        ready.sources.reserve(missing);
        drop(ready);
        let mut kicks = self.kicks.lock();
        let missing = live.saturating_sub(kicks.len());
        kicks.reserve(missing);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live.load(Ordering::SeqCst) == 0
    }

    pub(super) fn send(&self, command: Command) {
        // The receiver lives as long as the driver does; after that nothing is left to be asked for.
        let _ = self.commands.send(command);
        self.ask();
    }

    /// Leaves a connection's work to the driver.
    pub(super) fn kick(&self, conn: &Arc<Conn>) {
        if conn.begin_kick() {
            self.kicks.lock().push_back(Arc::clone(conn));
            self.ask();
        }
    }

    fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        self.parking.notify(&self.waker);
    }

    /// Whether commands or kicks may wait.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// The same; the caller then takes all there are.
    pub(super) fn take_asked(&self) -> bool {
        self.is_asked() && self.asked.swap(false, Ordering::SeqCst)
    }

    pub(super) fn take_kick(&self) -> Option<Arc<Conn>> {
        self.kicks.lock().pop_front()
    }

    /// Queues a source of events, once.
    pub(super) fn mark_ready(&self, source: Source) {
        if matches!(&source, Source::Conn(conn) if !conn.begin_ready()) {
            return;
        }
        let mut ready = self.ready.lock();
        ready.sources.push_back(source);
        self.waiting.store(ready.sources.len(), Ordering::Release);
        match &self.signal {
            Some(signal) if !ready.signalled => {
                ready.signalled = true;
                signal.wake();
            }
            Some(_) => {}
            None => {
                drop(ready);
                self.parking.notify(&self.waker);
            }
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Whether the driver has to deliver what is ready.
    pub(super) fn delivers(&self) -> bool {
        self.sink.is_some()
    }

    fn pop_ready(&self) -> Option<Source> {
        if self.signal.is_none() && !self.has_ready() {
            return None;
        }
        let mut ready = self.ready.lock();
        let source = ready.sources.pop_front();
        self.waiting.store(ready.sources.len(), Ordering::Release);
        if source.is_none() && std::mem::take(&mut ready.signalled) {
            self.signal.iter().for_each(Waker::drain);
        }
        source
    }

    /// Fetches up to `max` events.
    fn collect(&self, max: usize, out: &mut Vec<Event>) {
        let before = out.len();
        self.collect_from_sources(max, out);
        self.counts.events.add((out.len() - before) as u64);
    }

    fn collect_from_sources(&self, max: usize, out: &mut Vec<Event>) {
        while out.len() < max {
            let Some(source) = self.pop_ready() else { return };
            match source {
                Source::Listener(listener) => out.push(listener.closed_event()),
                Source::Conn(conn) => {
                    if conn.collect(max, out) {
                        self.mark_ready(Source::Conn(conn));
                    }
                }
            }
        }
    }

    /// Ends the handles whose CLOSED has been delivered.
    fn retire_closed(&self, events: &mut Vec<Event>) {
        // Most polls have none.
        if events.is_empty() {
            return;
        }
        for event in events.drain(..) {
            if event.kind == kind::CLOSED {
                self.retire_source(&event);
                self.live.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// Ends the handle of a connection, whose counts stay with the channel, or of a listener.
    fn retire_source(&self, event: &Event) {
        if event.conn == 0 {
            return retire(event.listener);
        }
        let Some(Object::Conn(conn)) = object(event.conn) else { return };
        let mut past = self.past.lock();
        past.add(&Stats { open: 0, ..conn.stats() });
        retire(event.conn);
    }

    /// Delivers one batch to the sink; returns how many events there were.
    pub(super) fn deliver(&self, batch: &mut Vec<Event>) -> usize {
        self.collect(self.max_batch, batch);
        if batch.is_empty() {
            return 0;
        }
        if let Some(sink) = &self.sink {
            sink.deliver(self.handle(), batch);
        }
        let count = batch.len();
        self.retire_closed(batch);
        count
    }

    /// The descriptor that is readable when [`Channel::next`] or [`Channel::run`] has something to do.
    pub fn fd(&self) -> Result<RawFd> {
        match &self.signal {
            Some(signal) => Ok(signal.as_raw_fd()),
            None if self.manual => Ok(self.driver_fd),
            None => Err(Error::invalid("a channel with a callback has no descriptor to wait for")),
        }
    }

    /// Passes up to `max` events to `out`; they stay alive until the next call.
    pub fn next(&self, max: usize, out: &mut dyn FnMut(&Event)) -> Result<usize> {
        if self.sink.is_some() {
            return Err(Error::invalid("the events of this channel go to its callback"));
        }
        let Some(mut held) = self.held.try_lock() else {
            return Err(Error::state(libc::EBUSY, "another thread is fetching events of this channel"));
        };
        self.retire_closed(&mut held);
        self.collect(max.min(MAX_BATCH), &mut held);
        held.iter().for_each(out);
        Ok(held.len())
    }

    /// Manual mode: works for at most `timeout` (`None` = until something happens); returns how many events were
    /// delivered or, without a sink, how many connections and listeners have some.
    pub fn run(self: &Arc<Self>, timeout: Option<Duration>) -> Result<usize> {
        if !self.manual {
            return Err(Error::invalid("the channel has a thread of its own"));
        }
        let Some(mut driver) = self.driver.try_lock() else {
            return Err(Error::state(libc::EBUSY, "the channel is being run already"));
        };
        let Some(driver) = driver.as_mut() else {
            return Err(Error::state(libc::EBADF, "the channel is destroyed"));
        };
        self.set_owner(Some(std::thread::current().id()));
        let result = driver.run(self, timeout);
        self.set_owner(None);
        let delivered = result?;
        Ok(if self.sink.is_some() { delivered } else { self.waiting.load(Ordering::SeqCst) })
    }

    /// Connects to a peer.
    pub fn connect(self: &Arc<Self>, target: Target, config: ConnectConfig) -> Result<Arc<Conn>> {
        Conn::connect(self, target, config)
    }

    /// Listens.
    pub fn listen(self: &Arc<Self>, addr: &SockAddr, config: ListenConfig) -> Result<Arc<Listener>> {
        Listener::create(self, addr, config)
    }

    /// Closes all that is open and ends the channel. With a callback the last events are delivered before it returns;
    /// otherwise events not fetched are lost.
    pub fn destroy(self: &Arc<Self>) -> Result<()> {
        if *self.owner.lock() == Some(std::thread::current().id()) {
            return Err(Error::state(libc::EDEADLK, "a channel can't be destroyed by its own callback"));
        }
        if std::mem::replace(&mut *self.gate.write(), true) {
            return Err(Error::state(libc::EBADF, "the channel is destroyed"));
        }
        // What the caller has fetched last counts as delivered.
        self.retire_closed(&mut self.held.lock());
        if self.manual {
            let Some(mut guard) = self.driver.try_lock() else {
                *self.gate.write() = false;
                return Err(Error::state(libc::EBUSY, "the channel is being run by another thread"));
            };
            self.send(Command::Shutdown);
            if let Some(mut driver) = guard.take() {
                self.set_owner(Some(std::thread::current().id()));
                driver.finish(self);
                self.set_owner(None);
            }
        } else {
            self.send(Command::Shutdown);
            let thread = self.thread.lock().take();
            if let Some(thread) = thread {
                // The thread catches its own panics.
                let _ = thread.join();
            }
        }
        self.ready.lock().sources.clear();
        self.engine.channel_destroyed(self);
        Ok(())
    }
}

/// What the driver receives its commands by.
pub(super) type Commands = Receiver<Command>;
