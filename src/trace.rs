//! Tracepoints (USDT): where bpftrace, perf or a debugger can look into a program that runs. Each is one NOP, and a note in
//! the library of where it is and where its arguments are: rdmacm-gluster-tracepoints(7).
//!
//! Arguments are what is at hand where the tracepoint is: to compute one would be paid for by everybody.

use probe::probe;

/// A tracepoint as a function, so that its arguments have types.
macro_rules! tracepoints {
    ($($(#[$doc:meta])+ $name:ident($($arg:ident: $type:ty),*);)+) => {
        $(
            $(#[$doc])+
            #[inline(always)]
            pub(crate) fn $name($($arg: $type),*) {
                probe!(rdmacm_gluster, $name, $($arg),*);
            }
        )+
    };
}

tracepoints! {
    /// A connection enters a stage.
    conn_stage(conn: u64, stage: u32, peer: *const u8);
    /// A connect or accept has failed.
    conn_failed(conn: u64, stage: u32, reason: u32, errno: i32, peer: *const u8);
    /// An established connection has ended.
    conn_ended(conn: u64, reason: u32, errno: i32, peer: *const u8);
    /// An operation is being posted.
    post(conn: u64, opcode: u32, octets: u64);
    /// A batch was refused, with what of it was being posted.
    post_refused(conn: u64, errno: i32);
    /// A completion or a received message is told.
    completion(conn: u64, opcode: u32, status: i32, octets: u64);
    /// The socket is full.
    send_stall(conn: u64, octets: usize);
    /// It has taken all that waited.
    send_resume(conn: u64);
    /// A message waits for a receive.
    recv_stall(conn: u64);
    /// None waits any more.
    recv_resume(conn: u64);
    /// Memory is registered.
    mr_register(addr: *mut u8, octets: usize, access: u32);
    /// It no longer is.
    mr_deregister(addr: *mut u8, octets: usize);
    /// The program makes a call.
    rpc_call(conn: u64, xid: u32, head: *const u8, octets: usize);
    /// There was a credit for it: it goes out.
    rpc_call_sent(conn: u64, xid: u32);
    /// A call of ours is over.
    rpc_reply_received(conn: u64, xid: u32, status: i32);
    /// The program is told of a call of the peer's.
    rpc_call_received(conn: u64, xid: u32, message: usize, octets: usize);
    /// The program has answered it.
    rpc_reply_sent(conn: u64, xid: u32);
}
