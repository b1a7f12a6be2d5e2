//! The part of a channel's loop that serves the verbs provider: rdma_cm's events, completions, asynchronous events.

use std::sync::Arc;
use std::time::Instant;

use super::channel::{Channel, Command};
use super::conn::Conn;
use super::driver::{
    Driver, Entry, LOOK_EVERY, POLL_BURST, RELISTEN, SEE_OFF, TOKEN_ASYNC, TOKEN_CM, TOKEN_COMPLETIONS,
};
use super::listener::Listener;
use super::log::Level;
use super::perform::Happening;
use super::{Object, object};
use crate::verbs::{self, AsyncEvent, CmEvent, CmKind, Hub, Watch};

/// A manual channel that has had completions a moment ago. Its caller may well run it again at once, and having the device
/// tell of the next completion would cost more than the completion: so its descriptor simply stays readable for as long as a
/// thread would spin, and only then are the queues armed.
#[derive(Default)]
pub(super) struct Warmth {
    /// The descriptor is readable for this.
    pub(super) readable: bool,
    until: Option<Instant>,
    active: bool,
    /// Runs since descriptors were looked at.
    passed: u32,
    /// This run leaves them, and the exact time, for a later one.
    pub(super) passes: bool,
}

impl Driver {
    /// Whether the descriptor is to stay readable after this run.
    pub(super) fn stays_warm(&mut self, channel: &Channel, now: Instant) -> bool {
        if self.hub.is_none() || self.warmth.passes {
            return self.warmth.passes;
        }
        if std::mem::take(&mut self.warmth.active) {
            self.warmth.until = now.checked_add(self.spin.most());
        }
        if self.warmth.until.is_none_or(|until| until <= now) {
            self.cool(channel);
            return false;
        }
        if !std::mem::replace(&mut self.warmth.readable, true) {
            channel.waker().wake();
        }
        true
    }

    /// Whether the run that begins leaves a warm channel's other descriptors for a later one, and does with the time of the
    /// last tick: a system call costs more than a poll.
    pub(super) fn passes_over(&mut self) -> bool {
        self.warmth.passed = (self.warmth.passed + 1) % LOOK_EVERY;
        self.warmth.passes = self.warmth.readable && self.warmth.passed != 0;
        self.warmth.passes
    }

    /// Its descriptor tells the truth again.
    pub(super) fn cool(&mut self, channel: &Channel) {
        self.warmth.until = None;
        self.warmth.passes = false;
        if std::mem::take(&mut self.warmth.readable) {
            channel.waker().drain();
        }
    }

    /// Notices that the channel uses rdma_cm.
    pub(super) fn open_hub(&mut self, channel: &Channel) {
        if self.hub.is_some() {
            return;
        }
        if let Some(events) = channel.events() {
            self.hub = Some(Hub::new(&events, channel.engine().devices()));
            self.watch_fresh();
        }
    }

    /// Watches descriptors that have come, and closes devices that have gone.
    pub(super) fn watch_fresh(&mut self) {
        let Some(hub) = &mut self.hub else { return };
        if hub.sweep() {
            self.timers.set(TOKEN_CM, Instant::now());
        }
        for (fd, watch) in hub.take_fresh() {
            let token = match watch {
                Watch::Cm => TOKEN_CM,
                Watch::Completions => TOKEN_COMPLETIONS,
                Watch::Async => TOKEN_ASYNC,
            };
            // Without it the queues are only polled when something else wakes the channel, and a connect ends with its
            // deadline: there is no descriptor of ours left to do better.
            let _ = self.selector.add_level(fd, token);
        }
    }

    /// Sees devices off that were removed: the kernel takes a moment before it says that they are gone.
    pub(super) fn see_off(&mut self, now: Instant) {
        if self.hub.as_mut().is_some_and(Hub::see_off) {
            self.timers.set(TOKEN_CM, now + SEE_OFF);
        }
    }

    /// Polls the completion queues for a while and hands out what they held; returns whether there was anything.
    pub(super) fn poll_completions(&mut self, now: Instant) -> bool {
        if self.hub.is_none() {
            return false;
        }
        let mut completions = std::mem::take(&mut self.completions);
        let mut any = false;
        for _ in 0..POLL_BURST {
            let Some(hub) = &mut self.hub else { break };
            if hub.poll(&mut completions) == 0 {
                break;
            }
            any = true;
            self.warmth.active = true;
            let stream = verbs::Endpoint::stream_of;
            for run in completions.chunk_by(|one, next| stream(one.id) == stream(next.id)) {
                let about = run.first().and_then(|first| self.conn(stream(first.id)));
                if let Some(conn) = about {
                    self.drive(&conn, Happening::Work(run), now);
                }
            }
            completions.clear();
        }
        self.completions = completions;
        any
    }

    fn conn(&self, id: u64) -> Option<Arc<Conn>> {
        match self.entries.get(&id) {
            Some(Entry::Conn(conn)) => Some(Arc::clone(conn)),
            _ => None,
        }
    }

    /// Has completions wake the channel; true = there were some already.
    pub(super) fn arm(&mut self) -> bool {
        self.hub.as_mut().is_some_and(Hub::arm) && self.poll_completions(Instant::now())
    }

    pub(super) fn cm_events(&mut self, channel: &Arc<Channel>) {
        loop {
            match self.hub.as_ref().map(Hub::next_event) {
                Some(Ok(Some(event))) => self.cm_event(channel, event),
                Some(Err(error)) => {
                    return channel.engine().log(Level::Error, format_args!("rdma_cm: {error}"));
                }
                Some(Ok(None)) | None => return,
            }
        }
    }

    fn cm_event(&mut self, channel: &Arc<Channel>, event: CmEvent) {
        if self.hub.as_ref().is_some_and(|hub| hub.is_own(&event)) {
            return self.watch_fresh();
        }
        match object(event.context) {
            Some(Object::Conn(conn)) => {
                if Arc::ptr_eq(conn.channel(), channel) && self.entries.contains_key(&conn.id()) {
                    self.drive(&conn, Happening::Cm(&event), Instant::now());
                } else if !conn.is_ended() {
                    // Its channel has it, or will: the command that says so is in the queue already.
                    conn.channel().send(Command::Cm(Arc::clone(&conn), event));
                }
            }
            Some(Object::Listener(listener)) => self.listener_event(&listener, event),
            // Of something that has ended meanwhile.
            _ => {}
        }
    }

    fn listener_event(&mut self, listener: &Arc<Listener>, event: CmEvent) {
        if event.kind == CmKind::DeviceRemoval {
            listener.lose_device();
            self.timers.set(listener.id(), Instant::now() + RELISTEN);
            return;
        }
        let request = verbs::Request::from_event(event);
        if let Some(request) = request.filter(|_| !listener.is_closing() && !self.finished) {
            listener.count_request();
            let target = listener.next_channel();
            let asked = target.open_events().and_then(|_| Conn::asked(&target, listener, request));
            if let Err(error) = asked {
                let engine = target.engine();
                engine.log(Level::Warn, format_args!("listener: no connection for a request: {error}"));
            }
        }
    }

    pub(super) fn async_events(&mut self, channel: &Arc<Channel>) {
        let events = self.hub.as_ref().map(Hub::async_events).unwrap_or_default();
        for event in events {
            if let Some(Object::Conn(conn)) = event.qp.and_then(object) {
                conn.channel().send(Command::Async(Arc::clone(&conn), event));
            } else if event.qp.is_none() {
                self.device_event(channel, event);
            }
        }
    }

    fn device_event(&mut self, channel: &Channel, event: AsyncEvent) {
        let level = if event.is_device_fatal() { Level::Warn } else { Level::Info };
        channel.engine().log(level, format_args!("an RDMA device reports event {}", event.kind));
    }
}
