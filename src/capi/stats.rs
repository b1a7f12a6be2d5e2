//! `rcg_stats`: what has been counted.

use std::ffi::c_int;

use super::channel::rcg_channel;
use super::conn::rcg_conn;
use super::engine::rcg_engine;
use super::ffi::{Versioned, VersionedOut, boundary, look_up};
use crate::engine::Stats;

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
