//! `rcg_stats` and `rcg_engine_dump`: what has been counted, and what there is.

use std::ffi::{c_char, c_int, c_void};

use super::channel::rcg_channel;
use super::conn::rcg_conn;
use super::engine::rcg_engine;
use super::ffi::{Versioned, VersionedOut, boundary, look_up};
use crate::engine::Stats;
use crate::error::Error;

// SAFETY: `repr(C)`, `size` first, numbers otherwise.
unsafe impl Versioned for Stats {}

/// What the engine has counted: the sums of all its channels, also of those that have ended, and of its memory.
///
/// `out`: the caller's, its `size` set; written only on success.
/// Thread rule: any thread; also from callbacks. Takes a look at each connection there is.
/// Returns 0; -EINVAL: NULL, or no `size`; -EBADF: not a live engine. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_engine_stats(engine: *mut rcg_engine, out: *mut Stats) -> c_int {
    boundary("rcg_engine_stats", || {
        let engine = look_up(engine)?;
        // SAFETY: by this function's contract.
        let out = unsafe { VersionedOut::new(out) }?;
        Ok(out.set(&engine.stats()))
    })
}

/// What the channel has counted: the sums of all its connections, also of those that have ended, and of its loop.
///
/// `out`: the caller's, its `size` set; written only on success.
/// Thread rule: any thread; also from callbacks. Takes a look at each connection there is.
/// Returns 0; -EINVAL: NULL, or no `size`; -EBADF: not a live channel. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_channel_stats(channel: *mut rcg_channel, out: *mut Stats) -> c_int {
    boundary("rcg_channel_stats", || {
        let channel = look_up(channel)?;
        // SAFETY: by this function's contract.
        let out = unsafe { VersionedOut::new(out) }?;
        Ok(out.set(&channel.stats()))
    })
}

/// What the connection has counted.
///
/// `out`: the caller's, its `size` set; written only on success.
/// Thread rule: any thread; also from callbacks.
/// Returns 0; -EINVAL: NULL, or no `size`; -EBADF: not a live connection, as after its RCG_EVENT_CLOSED. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_conn_stats(conn: *mut rcg_conn, out: *mut Stats) -> c_int {
    boundary("rcg_conn_stats", || {
        let conn = look_up(conn)?;
        // SAFETY: by this function's contract.
        let out = unsafe { VersionedOut::new(out) }?;
        Ok(out.set(&conn.stats()))
    })
}

/// Takes text: `len` octets at `text`, valid for the call, and `arg`, which the caller has given. Must not call the
/// library.
pub type rcg_dump_fn = Option<unsafe extern "C" fn(arg: *mut c_void, text: *const c_char, len: usize)>;

/// Writes all that is known of an engine, as one JSON object, through a callback: counters, channels, listeners,
/// connections with their last error, and the engine's last failures. What `rcg dump` shows of a statistics socket.
///
/// `write`: called once or more, on this thread, before this returns; `arg` is passed to it.
/// Thread rule: any thread; also from callbacks. Takes a look at each connection there is; allocates.
/// Returns 0; -EINVAL: NULL; -EBADF: not a live engine. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_engine_dump(
    engine: *mut rcg_engine,
    write: rcg_dump_fn,
    arg: *mut c_void,
) -> c_int {
    boundary("rcg_engine_dump", || {
        let engine = look_up(engine)?;
        let write = write.ok_or_else(|| Error::invalid("there is no function to write with"))?;
        let text = engine.dump();
        // SAFETY: the caller's function, with its argument; the text lives for the call.
        unsafe { write(arg, text.as_ptr().cast(), text.len()) };
        Ok(0)
    })
}
