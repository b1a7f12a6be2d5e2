//! `rcg_engine`: opening the library, its log hook, its providers and their limits.

use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;

use super::connect::rcg_connect_attr;
use super::ffi::{self, Handle, Out, Versioned, VersionedOut, boundary, look_up};
use crate::engine::log::{Level, Logger};
use crate::engine::{Engine, EngineConfig, ErrorReport, Limits, Object, Place};
use crate::error::{Error, Result};

/// The library, opened once or more by a program: one protection domain, its memory and its channels. Pointers to it
/// are handles, never to be dereferenced.
pub struct rcg_engine {
    _private: [u8; 0],
}

impl Handle for rcg_engine {
    type Target = Engine;
    const NAME: &'static str = "rcg_engine";
    fn pick(object: Object) -> Option<Arc<Engine>> {
        if let Object::Engine(engine) = object { Some(engine) } else { None }
    }
}

/// Provider: whichever can reach the peer.
pub const RCG_PROVIDER_AUTO: u32 = 0;
/// Provider: rdma_cm and verbs on an RDMA device.
pub const RCG_PROVIDER_VERBS: u32 = 1;
/// Provider: iWARP in user space over TCP; needs no device.
pub const RCG_PROVIDER_IWARP: u32 = 2;

/// Log level: something failed that the caller may not see otherwise.
pub const RCG_LOG_ERROR: u32 = 1;
/// Log level: something that the administrator should know.
pub const RCG_LOG_WARN: u32 = 2;
/// Log level: connections come and go.
pub const RCG_LOG_INFO: u32 = 3;
/// Log level: everything.
pub const RCG_LOG_DEBUG: u32 = 4;

/// Engine flag: a statistics socket, from which the administrator's command `rcg dump` reads. In the directory that
/// RCG_STATS_DIR in the environment names, which asks for it without the flag, too; else in /run/rcg or, where not root
/// runs the program, in $XDG_RUNTIME_DIR/rcg. Where it can't be made there is none, and no error: the log tells why, by
/// RCG_LOG_INFO where the directory is missing, else by RCG_LOG_WARN.
pub const RCG_ENGINE_STATS_SOCKET: u32 = 1;

/// Takes a message of the library's: `level` is one of `RCG_LOG_*`, `message` is valid for the call, and `arg` is
/// what the attributes said. May be called on any thread, several at once; must not call the library.
pub type rcg_log_fn = Option<unsafe extern "C" fn(arg: *mut c_void, level: u32, message: *const c_char)>;

/// Attributes of an engine. Start from RCG_ENGINE_ATTR_INIT.
#[repr(C)]
pub struct rcg_engine_attr {
    /// `sizeof(rcg_engine_attr)`.
    pub size: usize,
    /// Where messages go; NULL = nowhere, the library prints nothing.
    pub log: rcg_log_fn,
    /// Passed to `log`.
    pub log_arg: *mut c_void,
    /// The least grave messages wanted, `RCG_LOG_*`; 0 = RCG_LOG_WARN.
    pub log_level: u32,
    /// RCG_ENGINE_STATS_SOCKET, or 0.
    pub flags: u32,
}

// SAFETY: `repr(C)`, `size` first, and zeros are a value of every member.
unsafe impl Versioned for rcg_engine_attr {}

/// What can be asked of a provider. Start from RCG_LIMITS_INIT.
#[repr(C)]
pub struct rcg_limits {
    /// `sizeof(rcg_limits)`.
    pub size: usize,
    /// Octets of private data in a connect or an accept.
    pub max_private_data: u32,
    /// Octets of private data in a reject.
    pub max_reject_data: u32,
    /// Scatter/gather elements in one operation.
    pub max_sge: u32,
    /// Octets of an operation with RCG_INLINE.
    pub max_inline: u32,
    /// Operations in a send queue.
    pub max_send_depth: u32,
    /// Receives in a receive queue.
    pub max_recv_depth: u32,
    /// RDMA Reads a peer may have outstanding.
    pub max_ird: u32,
    /// RDMA Reads we may have outstanding.
    pub max_ord: u32,
    /// What `send_depth` 0 means.
    pub default_send_depth: u32,
    /// What `recv_depth` 0 means.
    pub default_recv_depth: u32,
    /// What `ird` 0 means.
    pub default_ird: u32,
    /// What `ord` 0 means.
    pub default_ord: u32,
    /// Octets of one message.
    pub max_message: u64,
    /// Octets of one region.
    pub max_region: u64,
    /// Addresses of one peer.
    pub max_addresses: u32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: as above.
unsafe impl Versioned for rcg_limits {}

impl From<Limits> for rcg_limits {
    fn from(limits: Limits) -> Self {
        Self {
            size: size_of::<Self>(),
            max_private_data: limits.max_private_data,
            max_reject_data: limits.max_reject_data,
            max_sge: limits.max_sge,
            max_inline: limits.max_inline,
            max_send_depth: limits.max_send_depth,
            max_recv_depth: limits.max_recv_depth,
            max_ird: limits.max_ird,
            max_ord: limits.max_ord,
            default_send_depth: limits.default_send_depth,
            default_recv_depth: limits.default_recv_depth,
            default_ird: limits.default_ird,
            default_ord: limits.default_ord,
            max_message: limits.max_message,
            max_region: limits.max_region,
            max_addresses: limits.max_addresses,
            reserved: 0,
        }
    }
}

fn config(attr: &rcg_engine_attr) -> Result<EngineConfig> {
    if attr.flags & !RCG_ENGINE_STATS_SOCKET != 0 {
        return Err(Error::invalid(format!("unknown engine flags {:#x}", attr.flags)));
    }
    let level = match attr.log_level {
        0 => RCG_LOG_WARN,
        level if level <= Level::Debug as u32 => level,
        other => return Err(Error::invalid(format!("no log level has the number {other}"))),
    };
    let logger = Logger::new(attr.log, attr.log_arg, level);
    Ok(EngineConfig { logger, monitor: attr.flags & RCG_ENGINE_STATS_SOCKET != 0 })
}

/// Opens the library. No RDMA device is needed; why one can't be used tells rcg_engine_provider().
///
/// `attr`: NULL = defaults; read during the call only, but `log_arg` must live as long as the engine.
/// `engine`: set on success to a handle that the caller ends by rcg_engine_destroy().
/// Thread rule: any thread.
/// Returns 0; -EINVAL, -E2BIG: bad attributes; -ENFILE: too many objects. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_engine_create(
    attr: *const rcg_engine_attr,
    engine: *mut *mut rcg_engine,
) -> c_int {
    boundary("rcg_engine_create", || {
        // SAFETY: by this function's contract.
        let (attr, out) = unsafe { (ffi::read_attr(attr)?, Out::new(engine)?) };
        Ok(out.set(ffi::as_pointer(Engine::create(config(&attr)?)?.handle())))
    })
}

/// Closes the library. Its channels, regions and arenas must have been destroyed before.
///
/// Thread rule: any thread but a channel's own, as that channel is still there.
/// Returns 0; -EBUSY: channels, regions or arenas are left; -EINVAL: NULL; -EBADF: not a live engine. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_engine_destroy(engine: *mut rcg_engine) -> c_int {
    boundary("rcg_engine_destroy", || look_up(engine)?.destroy().map(|()| 0))
}

/// Asks for the limits of a provider (`RCG_PROVIDER_*`); RCG_PROVIDER_AUTO gives the least of those that are
/// available.
///
/// `out`: the caller's, its `size` set; written only on success.
/// Thread rule: any thread.
/// Returns 0; -ENODEV, -ENOENT, -EACCES: the provider is not available; -EINVAL: no such provider, NULL or no `size`;
/// -EBADF: not a live engine. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_engine_limits(
    engine: *mut rcg_engine,
    provider: u32,
    out: *mut rcg_limits,
) -> c_int {
    boundary("rcg_engine_limits", || {
        let engine = look_up(engine)?;
        // SAFETY: by this function's contract.
        let out = unsafe { VersionedOut::new(out) }?;
        Ok(out.set(&engine.limits(provider)?.into()))
    })
}

/// Whether a provider (`RCG_PROVIDER_*`) can be used and, if it can't, why and what to do.
///
/// `why`: NULL, or the caller's with its `size` set; written only when the provider is not available.
/// Thread rule: any thread.
/// Returns 0: available; -ENODEV: no device, or no driver for it; -ENOENT: a module of the kernel is missing; -EACCES: not
/// permitted; -EINVAL: no such provider, or no `size`; -EBADF: not a live engine. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_engine_provider(
    engine: *mut rcg_engine,
    provider: u32,
    why: *mut ErrorReport,
) -> c_int {
    boundary("rcg_engine_provider", || {
        let engine = look_up(engine)?;
        // SAFETY: by this function's contract.
        let why = unsafe { VersionedOut::optional(why) }?;
        let status = engine.provider_status(provider);
        status.inspect_err(|error| explain(error, provider, why)).map(|()| 0)
    })
}

fn explain(error: &Error, provider: u32, why: Option<VersionedOut<ErrorReport>>) {
    if let Some(why) = why {
        why.set(&ffi::report(error, Place { provider, ..Place::default() }, None));
    }
}

/// How much memory, in octets, the library can hold for one idle connection with these attributes; less until its queues
/// have all been used. For a listener's
/// connections give the members of the same names.
///
/// `attr`: NULL = defaults. `octets`: set on success.
/// Thread rule: any thread.
/// Returns 0; -EINVAL, -E2BIG: bad attributes or NULL; -EBADF: not a live engine. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_conn_memory(
    engine: *mut rcg_engine,
    attr: *const rcg_connect_attr,
    octets: *mut usize,
) -> c_int {
    boundary("rcg_conn_memory", || {
        let engine = look_up(engine)?;
        // SAFETY: by this function's contract.
        let (config, out) = unsafe { (rcg_connect_attr::config(attr)?, Out::new(octets)?) };
        Ok(out.set(engine.conn_memory(&config.qp)?))
    })
}
