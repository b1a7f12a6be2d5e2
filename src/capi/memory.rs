//! `rcg_mr` and `rcg_arena`: memory that operations and peers may touch.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use super::conn::rcg_conn;
use super::engine::rcg_engine;
use super::ffi::{self, Handle, Out, Versioned, boundary, look_up};
use crate::engine::{self, Object};
use crate::error::{Error, Result};
use crate::memory::{Access, Arena, ArenaConfig, Region};

/// A registered region of the caller's memory. Pointers to it are handles, never to be dereferenced.
pub struct rcg_mr {
    _private: [u8; 0],
}

impl Handle for rcg_mr {
    type Target = Region;
    const NAME: &'static str = "rcg_mr";
    fn pick(object: Object) -> Option<Arc<Region>> {
        if let Object::Region(region) = object { Some(region) } else { None }
    }
}

/// A pool of buffers that come registered. Pointers to it are handles, never to be dereferenced.
pub struct rcg_arena {
    _private: [u8; 0],
}

impl Handle for rcg_arena {
    type Target = Arena;
    const NAME: &'static str = "rcg_arena";
    fn pick(object: Object) -> Option<Arc<Arena>> {
        if let Object::Arena(arena) = object { Some(arena) } else { None }
    }
}

/// Access: operations of this side.
pub const RCG_LOCAL: u32 = 1;
/// Access: a peer that has a key may read.
pub const RCG_REMOTE_READ: u32 = 2;
/// Access: a peer that has a key may write.
pub const RCG_REMOTE_WRITE: u32 = 4;

/// Attributes of an arena. Start from RCG_ARENA_ATTR_INIT.
#[repr(C)]
pub struct rcg_arena_attr {
    /// `sizeof(rcg_arena_attr)`.
    pub size: usize,
    /// Octets in each buffer; must be set.
    pub buffer_size: usize,
    /// Buffers allocated and registered at a time; 0 = 16.
    pub count: usize,
    /// Most buffers at all; 0 = 1024.
    pub max_count: usize,
    /// Rights of the buffers, RCG_LOCAL and so on; 0 = RCG_LOCAL.
    pub access: u32,
    /// Must be 0.
    pub flags: u32,
}

// SAFETY: `repr(C)`, `size` first, and zeros are a value of every member.
unsafe impl Versioned for rcg_arena_attr {}

/// A buffer lent by an arena.
#[repr(C)]
pub struct rcg_buffer {
    /// Its first octet.
    pub addr: *mut c_void,
    /// Its length in octets.
    pub length: usize,
    /// The region that it lies in, together with others; the arena's, so never to be deregistered.
    pub mr: *mut rcg_mr,
}

fn access(bits: u32) -> Result<Access> {
    Access::from_bits(bits)
        .ok_or_else(|| Error::invalid(format!("{bits:#x} is no access right, or more than those")))
}

fn arena_config(attr: &rcg_arena_attr) -> Result<ArenaConfig> {
    ffi::check_zero(attr.flags, "flags")?;
    let rights = if attr.access == 0 { RCG_LOCAL } else { attr.access };
    Ok(ArenaConfig {
        buffer_size: attr.buffer_size,
        slab: attr.count,
        max: attr.max_count,
        access: access(rights)?,
    })
}

/// Registers memory of the caller's, so that operations can use it and, with RCG_REMOTE_READ or RCG_REMOTE_WRITE, keys
/// can be given to peers. The memory must stay mapped until rcg_mr_deregister() has succeeded. It is registered with the
/// RDMA devices that the engine uses already, and with others when they first need it.
///
/// `length`: octets, not 0. `access`: one or more of RCG_LOCAL, RCG_REMOTE_READ, RCG_REMOTE_WRITE.
/// `mr`: set on success to a handle that the caller ends by rcg_mr_deregister().
/// Thread rule: any thread.
/// Returns 0; -EINVAL: NULL, no length, or bad rights; -EBADF: not a live engine; -ENOMEM: too much is locked; -ENFILE:
/// too many objects. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_mr_register(
    engine: *mut rcg_engine,
    addr: *mut c_void,
    length: usize,
    access: u32,
    mr: *mut *mut rcg_mr,
) -> c_int {
    boundary("rcg_mr_register", || {
        let engine = look_up(engine)?;
        // SAFETY: by this function's contract.
        let out = unsafe { Out::new(mr) }?;
        // SAFETY: that the memory stays is the contract of this function, which its documentation states.
        let region = unsafe { engine.register(addr.cast(), length, self::access(access)?) }?;
        Ok(out.set(ffi::as_pointer(region.handle())))
    })
}

/// Ends a registration: revokes all keys and waits for a peer's access in progress. When it has succeeded nobody
/// touches the memory any more.
///
/// Thread rule: any thread.
/// Returns 0; -EBUSY: posted operations or receives still use it, nothing is changed; -EINVAL: NULL; -EBADF: not a live
/// region. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_mr_deregister(mr: *mut rcg_mr) -> c_int {
    boundary("rcg_mr_deregister", || engine::deregister(&look_up(mr)?).map(|()| 0))
}

/// A key by which a peer reaches the whole region, with all remote rights that the region has; each call makes a new
/// one. The peer addresses the region by the addresses it has here. A key lives until rcg_mr_key_revoke(), until the
/// region is deregistered, or until its connection ends.
///
/// Memory that changes while a peer reads more than 4096 octets of it: the peer gets the old, the new or a mixture, but with
/// CRC (provider iwarp) its sum may be wrong, and then the connection ends. Where a peer has had a key to write to the region
/// since before the Read came that can't be: it costs a copy.
///
/// `conn`: the connection whose peer may use the key. NULL = those of all connections of the engine with provider iwarp: a
/// device has keys of its own, so that with provider verbs a connection has to be named.
/// `key`: set on success.
/// Thread rule: any thread.
/// Returns 0; -EACCES: the region has no remote rights; -ENOTCONN: the connection has ended; -EAGAIN: on the side that
/// connects, with provider verbs, before RCG_EVENT_ESTABLISHED; -ENOMEM: too much is locked; -EINVAL: NULL; -EBADF: not a
/// live region or connection. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_mr_key(mr: *mut rcg_mr, conn: *mut rcg_conn, key: *mut u32) -> c_int {
    boundary("rcg_mr_key", || {
        let (region, conn) = (look_up(mr)?, ffi::look_up_optional(conn)?);
        // SAFETY: by this function's contract.
        let out = unsafe { Out::new(key) }?;
        Ok(out.set(engine::key(&region, conn.as_deref(), 0, region.len(), region.access())?))
    })
}

/// The same for a part of the region, and with the rights given.
///
/// `offset`, `length`: octets from the beginning of the region. `access`: RCG_REMOTE_READ, RCG_REMOTE_WRITE or both.
/// `conn`, `key`: as for rcg_mr_key().
/// Thread rule: any thread.
/// Returns 0; -EACCES: the region does not have these rights; -ENOTCONN, -EAGAIN, -ENOMEM: as for rcg_mr_key();
/// -EINVAL: NULL, bad rights, or outside the region; -EBADF: not a live region or connection. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_mr_key_range(
    mr: *mut rcg_mr,
    conn: *mut rcg_conn,
    offset: usize,
    length: usize,
    access: u32,
    key: *mut u32,
) -> c_int {
    boundary("rcg_mr_key_range", || {
        let (region, conn) = (look_up(mr)?, ffi::look_up_optional(conn)?);
        // SAFETY: by this function's contract.
        let out = unsafe { Out::new(key) }?;
        Ok(out.set(engine::key(&region, conn.as_deref(), offset, length, self::access(access)?)?))
    })
}

/// Revokes a key of the region. When it has succeeded no peer can touch the memory by that key any more.
///
/// Thread rule: any thread.
/// Returns 0; -ENOENT: the region has no such key; -EINVAL: NULL; -EBADF: not a live region. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_mr_key_revoke(mr: *mut rcg_mr, key: u32) -> c_int {
    boundary("rcg_mr_key_revoke", || look_up(mr)?.revoke_key(key).map(|()| 0))
}

/// Makes an arena: a pool of buffers of one size that come registered, allocated when they are needed.
///
/// `attr`: read during the call only; `buffer_size` must be set.
/// `arena`: set on success to a handle that the caller ends by rcg_arena_destroy().
/// Thread rule: any thread.
/// Returns 0; -EINVAL, -E2BIG: bad attributes; -EBADF: not a live engine; -ENFILE: too many objects. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_arena_create(
    engine: *mut rcg_engine,
    attr: *const rcg_arena_attr,
    arena: *mut *mut rcg_arena,
) -> c_int {
    boundary("rcg_arena_create", || {
        let engine = look_up(engine)?;
        // SAFETY: by this function's contract.
        let (attr, out) = unsafe { (ffi::read_attr(attr)?, Out::new(arena)?) };
        Ok(out.set(ffi::as_pointer(engine.arena(arena_config(&attr)?)?.handle())))
    })
}

/// Lends a buffer. It holds what its last user left in it.
///
/// `buffer`: set on success; the caller gives it back by rcg_arena_put().
/// Thread rule: any thread.
/// Returns 0; -ENOBUFS: all `max_count` are lent; -ENOMEM: no memory; -EINVAL: NULL; -EBADF: not a live arena.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_arena_get(arena: *mut rcg_arena, buffer: *mut rcg_buffer) -> c_int {
    boundary("rcg_arena_get", || {
        let arena = look_up(arena)?;
        // SAFETY: by this function's contract.
        let out = unsafe { Out::new(buffer) }?;
        let (addr, length, region) = engine::arena_take(&arena)?;
        Ok(out.set(rcg_buffer { addr: addr.cast(), length, mr: ffi::as_pointer(region.handle()) }))
    })
}

/// Gives a buffer back. Operations on it must be finished, and keys to it revoked.
///
/// `addr`: as rcg_arena_get() gave it.
/// Thread rule: any thread.
/// Returns 0; -EINVAL: NULL, or not a lent buffer of this arena; -EBADF: not a live arena. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_arena_put(arena: *mut rcg_arena, addr: *mut c_void) -> c_int {
    boundary("rcg_arena_put", || look_up(arena)?.put(addr.cast()).map(|()| 0))
}

/// Ends an arena and frees its memory.
///
/// Thread rule: any thread.
/// Returns 0; -EBUSY: buffers are lent or in use, nothing is changed; -EINVAL: NULL; -EBADF: not a live arena.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcg_arena_destroy(arena: *mut rcg_arena) -> c_int {
    boundary("rcg_arena_destroy", || {
        let arena = look_up(arena)?;
        engine::arena_destroy(&arena).map(|()| 0)
    })
}
