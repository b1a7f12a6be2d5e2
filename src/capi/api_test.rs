//! The functions of the C API as C calls them.

use std::ffi::{CStr, c_void};
use std::mem::{size_of, zeroed};
use std::ptr::{null, null_mut};

use super::channel::*;
use super::conn::*;
use super::connect::*;
use super::engine::*;
use super::error::*;
use super::event::*;
use super::listener::*;
use super::memory::*;
use super::post::*;
use crate::engine::ErrorReport;

fn garbage<T>() -> *mut T {
    std::ptr::without_provenance_mut(0xdead_beef)
}

fn engine() -> *mut rcg_engine {
    let mut engine = null_mut();
    // SAFETY: a place for the result.
    assert_eq!(unsafe { rcg_engine_create(null(), &raw mut engine) }, 0);
    engine
}

fn manual(engine: *mut rcg_engine) -> *mut rcg_channel {
    let mut channel = null_mut();
    // SAFETY: zeros are attributes, and there is a place for the result.
    unsafe {
        let attr = rcg_channel_attr { size: size_of::<rcg_channel_attr>(), manual: 1, ..zeroed() };
        assert_eq!(rcg_channel_create(engine, &raw const attr, &raw mut channel), 0);
    }
    channel
}

fn last_text() -> String {
    // SAFETY: zeros are a report, whose size is then set.
    unsafe {
        let mut report: ErrorReport = zeroed();
        report.size = size_of::<ErrorReport>();
        assert_eq!(rcg_last_error(&raw mut report), 0);
        CStr::from_ptr(report.text.as_ptr()).to_str().unwrap().to_owned()
    }
}

#[test]
fn null_and_stale_handles_are_told_apart() {
    // SAFETY: handles are never dereferenced; all outputs are refused or unused.
    unsafe {
        for (handle, code) in [(0, -libc::EINVAL), (0xdead_beef_usize, -libc::EBADF)] {
            let (mut key, mut octets) = (0, 0);
            assert_eq!(rcg_engine_destroy(handle as *mut rcg_engine), code);
            assert_eq!(rcg_conn_memory(handle as *mut rcg_engine, null(), &raw mut octets), code);
            assert_eq!(rcg_channel_destroy(handle as *mut rcg_channel), code);
            assert_eq!(rcg_channel_fd(handle as *mut rcg_channel), code);
            assert_eq!(rcg_channel_next(handle as *mut rcg_channel, null_mut(), 0), code);
            assert_eq!(rcg_channel_run(handle as *mut rcg_channel, 0), code);
            assert_eq!(rcg_listener_close(handle as *mut rcg_listener), code);
            assert_eq!(rcg_mr_deregister(handle as *mut rcg_mr), code);
            assert_eq!(rcg_mr_key(handle as *mut rcg_mr, null_mut(), &raw mut key), code);
            assert_eq!(rcg_mr_key_revoke(handle as *mut rcg_mr, 5), code);
            assert_eq!(rcg_arena_destroy(handle as *mut rcg_arena), code);
            assert_eq!(rcg_accept(handle as *mut rcg_conn, null()), code);
            assert_eq!(rcg_reject(handle as *mut rcg_conn, 0, null(), 0), code);
            assert_eq!(rcg_conn_disconnect(handle as *mut rcg_conn), code);
            assert_eq!(rcg_conn_close(handle as *mut rcg_conn), code);
            assert_eq!(rcg_post(handle as *mut rcg_conn, null(), 0), code);
            assert_eq!(rcg_post_recv(handle as *mut rcg_conn, null(), 0), code);
            assert_eq!(rcg_recv_release(handle as *mut rcg_conn, null()), code);
        }
        let engine = engine();
        assert_eq!(rcg_channel_destroy(engine.cast()), -libc::EBADF, "a handle of another type");
        assert_eq!(last_text(), "rcg_channel_destroy: not the handle of a live rcg_channel");
        assert_eq!(rcg_engine_destroy(engine), 0);
        assert_eq!(rcg_engine_destroy(engine), -libc::EBADF);
    }
}

#[test]
fn the_last_error_can_only_be_read_where_there_is_one() {
    std::thread::spawn(|| {
        // SAFETY: zeros are a report.
        unsafe {
            let mut report: ErrorReport = zeroed();
            assert_eq!(rcg_last_error(null_mut()), -libc::EINVAL);
            assert_eq!(rcg_last_error(&raw mut report), -libc::EINVAL);
            report.size = size_of::<ErrorReport>();
            assert_eq!(rcg_last_error(&raw mut report), -libc::ENOENT);
            assert_eq!(rcg_engine_create(null(), null_mut()), -libc::EINVAL);
            assert_eq!(rcg_last_error(&raw mut report), 0);
            assert_eq!((report.code, report.reason), (-libc::EINVAL, RCG_REASON_INVALID));
        }
    })
    .join()
    .unwrap();
}

#[test]
fn engines_tell_their_limits_and_why_a_provider_is_missing() {
    let engine = engine();
    // SAFETY: zeros are values of these structs, whose sizes are set.
    unsafe {
        let mut limits = rcg_limits { size: size_of::<rcg_limits>(), ..zeroed() };
        assert_eq!(rcg_engine_limits(engine, RCG_PROVIDER_IWARP, &raw mut limits), 0);
        assert!(limits.max_sge > 0 && limits.max_message > 0 && limits.max_inline > 0);
        let mut why: ErrorReport = zeroed();
        assert_eq!(rcg_engine_provider(engine, RCG_PROVIDER_IWARP, &raw mut why), -libc::EINVAL, "no size");
        why.size = size_of::<ErrorReport>();
        assert_eq!(rcg_engine_provider(engine, RCG_PROVIDER_IWARP, &raw mut why), 0);
        assert_eq!(why.text[0], 0);
        assert_eq!(rcg_engine_provider(engine, 77, null_mut()), -libc::EINVAL);
        assert_eq!(rcg_engine_provider(engine, 77, &raw mut why), -libc::EINVAL);
        assert_eq!((why.code, why.provider, why.text[0] != 0), (-libc::EINVAL, 77, true));
        let attr = rcg_engine_attr { size: size_of::<rcg_engine_attr>(), log_level: 5, ..zeroed() };
        let mut other = null_mut();
        assert_eq!(rcg_engine_create(&raw const attr, &raw mut other), -libc::EINVAL);
        assert!(other.is_null());
        assert_eq!(rcg_engine_destroy(engine), 0);
    }
}

#[test]
fn regions_have_keys_and_end_once() {
    let engine = engine();
    let mut memory = [0_u8; 64];
    let (mut mr, mut key, mut again) = (null_mut(), 0, 0);
    // SAFETY: the memory outlives its registration.
    unsafe {
        let addr = memory.as_mut_ptr().cast();
        let register = |access, mr| rcg_mr_register(engine, addr, 64, access, mr);
        assert_eq!(register(0, &raw mut mr), -libc::EINVAL);
        assert_eq!(register(8, &raw mut mr), -libc::EINVAL);
        assert_eq!(register(RCG_LOCAL | RCG_REMOTE_READ, null_mut()), -libc::EINVAL);
        assert_eq!(register(RCG_LOCAL | RCG_REMOTE_READ, &raw mut mr), 0);
        assert_eq!(rcg_mr_key(mr, null_mut(), null_mut()), -libc::EINVAL);
        assert_eq!(rcg_mr_key(mr, garbage(), &raw mut key), -libc::EBADF);
        assert_eq!(rcg_mr_key(mr, null_mut(), &raw mut key), 0);
        assert_eq!(rcg_mr_key(mr, null_mut(), &raw mut again), 0);
        assert_ne!(key, again);
        assert_eq!(rcg_mr_key_revoke(mr, again), 0);
        let range = |length, access, key| rcg_mr_key_range(mr, null_mut(), 8, length, access, key);
        assert_eq!(range(8, RCG_REMOTE_WRITE, &raw mut again), -libc::EACCES);
        assert_eq!(range(57, RCG_REMOTE_READ, &raw mut again), -libc::EINVAL);
        assert_eq!(range(56, RCG_REMOTE_READ, &raw mut again), 0);
        assert_eq!(rcg_mr_key_revoke(mr, again), 0);
        assert_eq!(rcg_mr_key_revoke(mr, again), -libc::ENOENT);
        assert_eq!(rcg_engine_destroy(engine), -libc::EBUSY);
        assert_eq!(rcg_mr_deregister(mr), 0);
        assert_eq!(rcg_mr_deregister(mr), -libc::EBADF);
        assert_eq!(rcg_engine_destroy(engine), 0);
    }
}

#[test]
fn arenas_lend_and_take_back() {
    let engine = engine();
    let mut arena = null_mut();
    // SAFETY: zeros are values of these structs.
    unsafe {
        let attr = rcg_arena_attr { size: size_of::<rcg_arena_attr>(), max_count: 1, ..zeroed() };
        assert_eq!(rcg_arena_create(engine, &raw const attr, &raw mut arena), -libc::EINVAL);
        let attr = rcg_arena_attr { buffer_size: 4096, ..attr };
        assert_eq!(rcg_arena_create(engine, &raw const attr, &raw mut arena), 0);
        let (mut buffer, mut other) = (zeroed::<rcg_buffer>(), zeroed::<rcg_buffer>());
        assert_eq!(rcg_arena_get(arena, &raw mut buffer), 0);
        assert!(buffer.length == 4096 && !buffer.addr.is_null() && !buffer.mr.is_null());
        assert_eq!(rcg_arena_get(arena, &raw mut other), -libc::ENOBUFS);
        assert!(other.addr.is_null());
        assert_eq!(rcg_arena_destroy(arena), -libc::EBUSY);
        assert_eq!(rcg_arena_put(arena, buffer.addr.cast::<u8>().add(1).cast()), -libc::EINVAL);
        assert_eq!(rcg_arena_put(arena, buffer.addr), 0);
        assert_eq!(rcg_arena_put(arena, buffer.addr), -libc::EINVAL);
        assert_eq!(rcg_arena_destroy(arena), 0);
        assert_eq!(rcg_arena_destroy(arena), -libc::EBADF);
        assert_eq!(rcg_engine_destroy(engine), 0);
    }
}

#[test]
fn bad_attributes_make_no_channel_and_no_connection() {
    let engine = engine();
    let channel = manual(engine);
    let (mut conn, mut other) = (null_mut(), null_mut());
    // SAFETY: zeros are values of these structs; strings end in NULs.
    unsafe {
        let attr = rcg_channel_attr { size: size_of::<rcg_channel_attr>(), manual: 2, ..zeroed() };
        assert_eq!(rcg_channel_create(engine, &raw const attr, &raw mut other), -libc::EINVAL);
        assert_eq!(rcg_channel_run(channel, -2), -libc::EINVAL);
        assert_eq!(rcg_channel_next(channel, null_mut(), 1), -libc::EINVAL);
        assert_eq!(rcg_connect(channel, null(), 1, null(), &raw mut conn), -libc::EINVAL);
        assert_eq!(rcg_connect(channel, null(), 0, null(), &raw mut conn), -libc::EINVAL);
        let nowhere = rcg_addr { addr: null(), length: 16, reserved: 0 };
        assert_eq!(rcg_connect(channel, &raw const nowhere, 1, null(), &raw mut conn), -libc::EINVAL);
        let host = |host, attr, conn| rcg_connect_host(channel, host, c"1".as_ptr(), attr, conn);
        assert_eq!(host(null(), null(), &raw mut conn), -libc::EINVAL);
        assert_eq!(host(c"\xff".as_ptr(), null(), &raw mut conn), -libc::EINVAL);
        assert_eq!(host(c"::1".as_ptr(), null(), null_mut()), -libc::EINVAL);
        let attr = rcg_connect_attr { size: size_of::<rcg_connect_attr>(), ..zeroed() };
        for attr in [
            rcg_connect_attr { provider: 9, ..attr },
            rcg_connect_attr { flags: 64, ..attr },
            rcg_connect_attr { crc: 3, ..attr },
            rcg_connect_attr { mpa_revision: 3, ..attr },
            rcg_connect_attr { reserved: 1, ..attr },
            rcg_connect_attr { private_data_len: 1, ..attr },
            rcg_connect_attr { recv_count: 1, ..attr },
        ] {
            assert_eq!(host(c"::1".as_ptr(), &raw const attr, &raw mut conn), -libc::EINVAL);
        }
        assert!(conn.is_null() && other.is_null());
        assert_eq!(rcg_channel_destroy(channel), 0);
        assert_eq!(rcg_engine_destroy(engine), 0);
    }
}

#[test]
fn bad_attributes_make_no_listener() {
    let engine = engine();
    let channel = manual(engine);
    let mut listener = null_mut();
    // SAFETY: zeros are values of these structs.
    unsafe {
        assert_eq!(rcg_listen(channel, null(), 0, null(), &raw mut listener), -libc::EINVAL);
        let attr = rcg_listen_attr { size: size_of::<rcg_listen_attr>(), nchannels: 1, ..zeroed() };
        let addr: libc::sockaddr_in = zeroed();
        let listen = |attr, listener| rcg_listen(channel, (&raw const addr).cast(), 16, attr, listener);
        assert_eq!(listen(&raw const attr, &raw mut listener), -libc::EINVAL);
        let garbage = [garbage::<rcg_channel>()];
        let attr = rcg_listen_attr { channels: garbage.as_ptr(), ..attr };
        assert_eq!(listen(&raw const attr, &raw mut listener), -libc::EBADF);
        assert_eq!(listen(null(), &raw mut listener), -libc::EAFNOSUPPORT);
        assert!(listener.is_null());
        assert_eq!(rcg_channel_destroy(channel), 0);
        assert_eq!(rcg_engine_destroy(engine), 0);
    }
}

/// Both ends of a connection, on one manual channel without a callback.
struct Pair {
    engine: *mut rcg_engine,
    channel: *mut rcg_channel,
    listener: *mut rcg_listener,
    client: *mut rcg_conn,
    server: *mut rcg_conn,
    mr: *mut rcg_mr,
    memory: Box<[u8; 64]>,
}

/// Runs the channel until an event of this type comes.
fn wait(channel: *mut rcg_channel, wanted: u32) -> rcg_event {
    let mut event = blank();
    for _ in 0..1000 {
        // SAFETY: room for one event.
        let got = unsafe { rcg_channel_next(channel, &raw mut event, 1) };
        assert!(got >= 0);
        if got == 1 && event.r#type == wanted {
            return event;
        }
        if got == 0 {
            // SAFETY: a live channel.
            assert!(unsafe { rcg_channel_run(channel, 100) } >= 0);
        }
    }
    panic!("event {wanted} does not come");
}

impl Pair {
    fn new() -> Self {
        let engine = engine();
        let channel = manual(engine);
        let (mut listener, mut client, mut mr) = (null_mut(), null_mut(), null_mut());
        let mut memory = Box::new([b'm'; 64]);
        // SAFETY: all structs are whole, and the memory outlives its registration.
        unsafe {
            assert_eq!(rcg_mr_register(engine, memory.as_mut_ptr().cast(), 64, RCG_LOCAL, &raw mut mr), 0);
            let mut addr: libc::sockaddr_in = zeroed();
            addr.sin_family = libc::AF_INET as libc::sa_family_t;
            addr.sin_addr.s_addr = u32::from_be_bytes([127, 0, 0, 1]).to_be();
            let attr = rcg_listen_attr {
                size: size_of::<rcg_listen_attr>(),
                context: 7 as *mut c_void,
                recv_size: 256,
                recv_count: 4,
                ..zeroed()
            };
            let addr = (&raw const addr).cast();
            assert_eq!(rcg_listen(channel, addr, 16, &raw const attr, &raw mut listener), 0);
            let mut info = rcg_listener_info { size: size_of::<rcg_listener_info>(), ..zeroed() };
            assert_eq!(rcg_listener_query(listener, &raw mut info), 0);
            let target = rcg_addr { addr: (&raw const info.local).cast(), length: 16, reserved: 0 };
            let hello = b"hello";
            let attr = rcg_connect_attr {
                size: size_of::<rcg_connect_attr>(),
                private_data: hello.as_ptr().cast(),
                private_data_len: 5,
                ..zeroed()
            };
            assert_eq!(rcg_connect(channel, &raw const target, 1, &raw const attr, &raw mut client), 0);
        }
        Self { engine, channel, listener, client, server: null_mut(), mr, memory }
    }

    fn establish(&mut self) {
        let request = wait(self.channel, RCG_EVENT_CONNECT_REQUEST);
        // SAFETY: what the event points to is valid until the next fetch.
        unsafe {
            let hello =
                std::slice::from_raw_parts(request.private_data.cast::<u8>(), request.private_data_len);
            assert_eq!(hello, b"hello");
            assert_eq!(i32::from((*request.peer).sa_family), libc::AF_INET);
            assert_eq!((request.context, request.listener), (7 as *mut c_void, self.listener));
            self.server = request.conn;
            assert_eq!(rcg_accept(request.conn, null()), 0);
            assert_eq!(rcg_accept(request.conn, null()), -libc::EALREADY);
        }
        while wait(self.channel, RCG_EVENT_ESTABLISHED).conn != self.client {}
    }

    fn post(&self, op: rcg_op) -> i32 {
        // SAFETY: one operation, whose elements live in the caller.
        unsafe { rcg_post(self.client, &raw const op, 1) }
    }

    fn end(self) {
        // SAFETY: live handles; the memory is still there.
        unsafe {
            assert_eq!(rcg_conn_close(self.client), 0);
            assert_eq!(rcg_conn_close(self.client), 0);
            while wait(self.channel, RCG_EVENT_CLOSED).conn != self.client {}
            assert_eq!(rcg_listener_close(self.listener), 0);
            assert_eq!(rcg_channel_destroy(self.channel), 0);
            assert_eq!(rcg_conn_close(self.client), -libc::EBADF);
            assert_eq!(rcg_mr_deregister(self.mr), 0);
            assert_eq!(rcg_engine_destroy(self.engine), 0);
        }
        drop(self.memory);
    }
}

fn op() -> rcg_op {
    // SAFETY: zeros are an operation, if none that can be posted.
    rcg_op { opcode: RCG_SEND, ..unsafe { zeroed() } }
}

#[test]
fn messages_go_out_of_regions_and_inline() {
    let mut pair = Pair::new();
    pair.establish();
    let sge = |length, mr| rcg_sge { addr: pair.memory.as_ptr() as *mut c_void, length, mr };
    let pinned = sge(10, pair.mr);
    let loose = [sge(3, null_mut()), sge(4, null_mut())];
    let sent = [
        rcg_op { sge: &raw const pinned, nsge: 1, flags: RCG_SIGNALED, user: 9 as *mut c_void, ..op() },
        rcg_op { sge: loose.as_ptr(), nsge: 2, flags: RCG_INLINE, ..op() },
        rcg_op { copy: c"done".as_ptr().cast(), copy_len: 4, flags: RCG_INLINE, ..op() },
    ];
    // SAFETY: three operations.
    assert_eq!(unsafe { rcg_post(pair.client, sent.as_ptr(), 3) }, 0, "{}", last_text());
    let mut completed = None;
    let mut received = Vec::new();
    let mut event = blank();
    while received.len() < 3 || completed.is_none() {
        // SAFETY: room for one event; lent buffers are as long as the event says.
        unsafe {
            match rcg_channel_next(pair.channel, &raw mut event, 1) {
                1 if event.r#type == RCG_EVENT_COMPLETION => {
                    completed = Some((event.op, event.status, event.user))
                }
                1 if event.r#type == RCG_EVENT_RECV => {
                    let octets = std::slice::from_raw_parts(event.data.cast::<u8>(), event.length);
                    received.push(octets.to_vec());
                    assert_eq!(rcg_recv_release(pair.client, &raw const event), -libc::EINVAL);
                    assert_eq!(rcg_recv_release(pair.server, &raw const event), 0);
                    assert_eq!(rcg_recv_release(pair.server, &raw const event), -libc::EINVAL);
                }
                1 => {}
                _ => assert!(rcg_channel_run(pair.channel, 1000) >= 0),
            }
        }
    }
    assert_eq!(received, [b"mmmmmmmmmm".to_vec(), b"mmmmmmm".to_vec(), b"done".to_vec()]);
    assert_eq!(completed, Some((RCG_SEND, 0, 9 as *mut c_void)));
    pair.end();
}

#[test]
fn bad_operations_are_refused_with_their_number() {
    let mut pair = Pair::new();
    // SAFETY: one operation.
    assert_eq!(pair.post(op()), -libc::ENOTCONN);
    pair.establish();
    let inside = rcg_sge { addr: pair.memory.as_ptr() as *mut c_void, length: 64, mr: pair.mr };
    let outside = rcg_sge { length: 65, ..inside };
    let nowhere = rcg_sge { mr: null_mut(), ..inside };
    let stale = rcg_sge { mr: garbage(), ..inside };
    let many = [inside; 9];
    let long = [0_u8; 193];
    let one = |sge: &rcg_sge| rcg_op { sge: std::ptr::from_ref(sge), nsge: 1, ..op() };
    let inline = rcg_op { flags: RCG_INLINE, ..op() };
    for (bad, code) in [
        (rcg_op { opcode: 0, ..op() }, libc::EINVAL),
        (rcg_op { opcode: RCG_RECV, ..op() }, libc::EINVAL),
        (rcg_op { opcode: u32::MAX, ..op() }, libc::EINVAL),
        (rcg_op { flags: 16, ..op() }, libc::EINVAL),
        (rcg_op { reserved: 1, ..op() }, libc::EINVAL),
        (rcg_op { nsge: 1, ..op() }, libc::EINVAL),
        (rcg_op { sge: many.as_ptr(), nsge: 9, ..op() }, libc::EINVAL),
        (one(&outside), libc::EINVAL),
        (one(&nowhere), libc::EINVAL),
        (one(&stale), libc::EBADF),
        (rcg_op { copy: long.as_ptr().cast(), copy_len: 4, ..op() }, libc::EINVAL),
        (rcg_op { copy: long.as_ptr().cast(), copy_len: 4, flags: RCG_INLINE, ..one(&inside) }, libc::EINVAL),
        (rcg_op { copy_len: 4, ..inline }, libc::EINVAL),
        (rcg_op { copy: long.as_ptr().cast(), copy_len: 193, ..inline }, libc::EMSGSIZE),
        (rcg_op { opcode: RCG_READ, ..inline }, libc::EINVAL),
    ] {
        let both = [one(&inside), bad];
        // SAFETY: two operations, of which none may be done.
        assert_eq!(unsafe { rcg_post(pair.client, both.as_ptr(), 2) }, -code, "{}", last_text());
        assert!(last_text().starts_with("rcg_post: number 1: "), "{}", last_text());
    }
    // SAFETY: refused before any is read; a whole info; a whole receive.
    unsafe {
        assert_eq!(rcg_post(pair.client, null(), 1), -libc::EINVAL);
        assert_eq!(rcg_post(pair.client, &raw const inline, 1_000_000), -libc::EINVAL);
        let mut info = rcg_conn_info { size: size_of::<rcg_conn_info>(), ..zeroed() };
        assert_eq!(rcg_conn_query(pair.client, &raw mut info), 0);
        assert_eq!((info.state, info.operations), (RCG_STATE_ESTABLISHED, 0));
        assert_eq!(CStr::from_ptr(info.device.as_ptr()), c"tcp");
        let recv = rcg_recv { sge: &raw const outside, nsge: 1, reserved: 0, user: null_mut() };
        assert_eq!(rcg_post_recv(pair.client, &raw const recv, 1), -libc::EINVAL);
        assert!(last_text().starts_with("rcg_post_recv: number 0: "), "{}", last_text());
    }
    pair.end();
}

/// What a callback has seen: types, and whether a handle of its channel came along.
unsafe extern "C" fn note(channel: *mut rcg_channel, events: *const rcg_event, n: usize, arg: *mut c_void) {
    // SAFETY: the test has passed its own vector, which outlives the channel; there are `n` events.
    let (seen, events) = unsafe { (&mut *arg.cast::<Vec<u32>>(), std::slice::from_raw_parts(events, n)) };
    seen.extend(events.iter().map(|event| event.r#type));
    // SAFETY: never dereferenced.
    assert_eq!(unsafe { rcg_channel_destroy(channel) }, -libc::EDEADLK);
}

#[test]
fn callbacks_get_events_and_cannot_end_their_channel() {
    let engine = engine();
    let (mut channel, mut conn) = (null_mut(), null_mut());
    let mut seen: Vec<u32> = Vec::new();
    // SAFETY: the vector outlives the channel, and is not touched while that may call.
    unsafe {
        let attr = rcg_channel_attr {
            size: size_of::<rcg_channel_attr>(),
            on_events: Some(note),
            arg: (&raw mut seen).cast(),
            manual: 1,
            ..zeroed()
        };
        assert_eq!(rcg_channel_create(engine, &raw const attr, &raw mut channel), 0);
        let mut event = blank();
        assert_eq!(rcg_channel_next(channel, &raw mut event, 1), -libc::EINVAL);
        assert_eq!(rcg_connect_host(channel, c"127.0.0.1".as_ptr(), c"1".as_ptr(), null(), &raw mut conn), 0);
        assert_eq!(rcg_channel_destroy(channel), 0);
        assert_eq!(rcg_conn_close(conn), -libc::EBADF);
        assert_eq!(rcg_engine_destroy(engine), 0);
    }
    assert_eq!(seen, [RCG_EVENT_CONNECT_FAILED, RCG_EVENT_CLOSED]);
}
