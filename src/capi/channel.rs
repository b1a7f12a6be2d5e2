//! `rcg_channel`: where events come from.

use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::time::Duration;

use super::engine::rcg_engine;
use super::event::{Callback, rcg_event, rcg_events_fn};
use super::ffi::{self, Handle, Out, Versioned, boundary, look_up};
use crate::engine::{Channel, ChannelConfig, Object, Sink};
use crate::error::{Error, Result};

/// One event channel: one thread, unless it is manual, and the connections that it serves. Pointers to it are handles,
/// never to be dereferenced.
pub struct rcg_channel {
    _private: [u8; 0],
}

impl Handle for rcg_channel {
    type Target = Channel;
    const NAME: &'static str = "rcg_channel";
    fn pick(object: Object) -> Option<Arc<Channel>> {
        if let Object::Channel(channel) = object { Some(channel) } else { None }
    }
}

/// Value of `spin_us`: sleep at once, never spin.
pub const RCG_SPIN_NEVER: u32 = 0xffff_ffff;

/// Attributes of a channel. Start from RCG_CHANNEL_ATTR_INIT.
#[repr(C)]
pub struct rcg_channel_attr {
    /// `sizeof(rcg_channel_attr)`.
    pub size: usize,
    /// Called with the channel's events; NULL = they are fetched by rcg_channel_next().
    pub on_events: rcg_events_fn,
    /// Passed to `on_events`.
    pub arg: *mut c_void,
    /// 1 = the channel has no thread, the caller calls rcg_channel_run(); 0 = it has one.
    pub manual: u32,
    /// Microseconds that the channel spins before it sleeps; 0 = 50; at most 10000; RCG_SPIN_NEVER.
    pub spin_us: u32,
    /// Most events in one call of `on_events`; 0 = 64; at most 4096.
    pub max_batch: u32,
    /// Must be 0.
    pub flags: u32,
}

// SAFETY: `repr(C)`, `size` first, and zeros are a value of every member.
unsafe impl Versioned for rcg_channel_attr {}

fn config(attr: &rcg_channel_attr) -> Result<ChannelConfig> {
    ffi::check_zero(attr.flags, "flags")?;
    Ok(ChannelConfig {
        sink: attr.on_events.map(|function| Box::new(Callback::new(function, attr.arg)) as Box<dyn Sink>),
        manual: ffi::switch(attr.manual, "manual")?,
        spin_us: match attr.spin_us {
            0 => None,
            RCG_SPIN_NEVER => Some(0),
            us => Some(us),
        },
        max_batch: attr.max_batch as usize,
    })
}

/// Makes a channel: by default one with a thread whose events wait until they are fetched; with `on_events`, one that
/// calls back; with `manual`, one that works only while the caller lets it.
///
/// `attr`: NULL = defaults; read during the call only, but `arg` must live as long as the channel.
/// `channel`: set on success to a handle that the caller ends by rcg_channel_destroy().
/// Thread rule: any thread.
/// Returns 0; -EINVAL, -E2BIG: bad attributes; -EBADF: not a live engine; -EMFILE, -ENFILE, -EAGAIN: no descriptor or
/// no thread is left. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_channel_create(
    engine: *mut rcg_engine,
    attr: *const rcg_channel_attr,
    channel: *mut *mut rcg_channel,
) -> c_int {
    boundary("rcg_channel_create", || {
        let engine = look_up(engine)?;
        // SAFETY: by this function's contract.
        let (attr, out) = unsafe { (ffi::read_attr(attr)?, Out::new(channel)?) };
        Ok(out.set(ffi::as_pointer(Channel::create(&engine, config(&attr)?)?.handle())))
    })
}

/// Closes all connections and listeners of the channel and ends it. With `on_events` their last events are delivered
/// before this returns; otherwise those not fetched are lost, and what earlier ones point to is gone.
///
/// Waits for the channel's thread, and so for a callback in progress.
/// Thread rule: any thread but the channel's own.
/// Returns 0; -EDEADLK: called from the channel's own callback; -EBUSY: another thread is in rcg_channel_run();
/// -EINVAL: NULL; -EBADF: not a live channel. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_channel_destroy(channel: *mut rcg_channel) -> c_int {
    boundary("rcg_channel_destroy", || look_up(channel)?.destroy().map(|()| 0))
}

/// A descriptor for poll(2) and epoll(7): readable while rcg_channel_next() has events or rcg_channel_run() has
/// something to do. It belongs to the channel: never read, write or close it.
///
/// Thread rule: any thread.
/// Returns the descriptor, 0 or more; -EINVAL: NULL, or a channel whose thread calls back; -EBADF: not a live channel.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_channel_fd(channel: *mut rcg_channel) -> c_int {
    boundary("rcg_channel_fd", || look_up(channel)?.fd())
}

/// Fetches events of a channel without `on_events`, without waiting. What they point to is valid until the next call
/// for this channel; a handle whose RCG_EVENT_CLOSED was fetched is gone from then on.
///
/// `events`: room for `max`; so many of them are written as the result says.
/// Thread rule: any thread, one at a time.
/// Returns the number of events, 0 = none wait; -EINVAL: NULL, or a channel with a callback; -EBUSY: another thread is
/// fetching; -EBADF: not a live channel. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_channel_next(
    channel: *mut rcg_channel,
    events: *mut rcg_event,
    max: usize,
) -> c_int {
    boundary("rcg_channel_next", || {
        let channel = look_up(channel)?;
        ffi::check_array(events, max, "events")?;
        // SAFETY: by this function's contract there is room for `max`.
        let mut out = unsafe { ffi::OutArray::new(events, max) };
        channel.next(max, &mut |event| out.push(rcg_event::from(event))).map(ffi::count)
    })
}

/// Lets a manual channel work: until something has happened, but at most for `timeout_ms` milliseconds; 0 = what can
/// be done at once, -1 = no limit. Callbacks are called inside, on this thread.
///
/// Thread rule: any thread, one at a time; not from the channel's own callback.
/// Returns, with `on_events`, how many events were delivered; without, more than 0 when rcg_channel_next() has some;
/// -EINVAL: NULL, not a manual channel, or a time below -1; -EBUSY: it is being run already; -EBADF: not a live
/// channel. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_channel_run(channel: *mut rcg_channel, timeout_ms: c_int) -> c_int {
    boundary("rcg_channel_run", || look_up(channel)?.run(timeout(timeout_ms)?).map(ffi::count))
}

fn timeout(timeout_ms: c_int) -> Result<Option<Duration>> {
    match timeout_ms {
        -1 => Ok(None),
        ms => u64::try_from(ms)
            .map(|ms| Some(Duration::from_millis(ms)))
            .map_err(|_| Error::invalid(format!("timeout_ms is {ms}, below -1"))),
    }
}
