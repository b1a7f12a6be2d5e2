//! One RDMA connection and one TCP connection, and the messages between them: calls and replies in both directions.

use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdmacm_gluster::engine::{Conn, Event, kind};
use rdmacm_gluster::rpc::{self, Call, Message, Payload, Reply, Session};

use super::buffer::{Buffer, Pools};
use super::nfs::{self, Shape};
use super::record;
use crate::output::complain;
use crate::xdr;

/// Replies up to this need no memory for a reply chunk, whatever the inline threshold.
const SHORT: usize = 768;
/// Where a call does not show how long its reply may be: more than any but directories and data. Registering memory costs
/// by the page.
const LONG: usize = 68 << 10;
/// Of a call of the side that was called: the rest of the threshold.
const BACKCHANNEL_REPLY: usize = 900;
/// How long a connection that is coming may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long what is queued for TCP may take once the connection has ended.
const LINGER: Duration = Duration::from_secs(3);

/// A message for TCP, in pieces, and what they live in.
pub(crate) struct Record {
    spans: Vec<(*const u8, usize)>,
    _keep: Box<dyn Any + Send>,
}

// SAFETY: what the spans point to lives in `_keep`, or is lent by the library until the call is answered, which happens
// when a reply has come to this very record, or until the connection goes, which whoever writes the record holds.
unsafe impl Send for Record {}

/// A call that came by TCP.
struct Made {
    shape: Shape,
    xid: u32,
    _source: Buffer,
    _results: Vec<Buffer>,
    _reply: Option<Buffer>,
}

/// A call that came by RDMA.
struct Asked {
    call: u64,
    shape: Shape,
    rooms: usize,
}

#[derive(Default)]
struct State {
    established: bool,
    ended: bool,
    /// Where messages for TCP are queued; none once it has ended, so that their writer does.
    out: Option<Sender<Record>>,
    /// Nobody writes to TCP any more.
    written: bool,
    last: usize,
    made: HashMap<usize, Made>,
    asked: HashMap<u32, Asked>,
    /// Buffers of replies on their way.
    sent: HashMap<usize, Buffer>,
}

impl State {
    /// A cookie that nothing has.
    fn cookie(&mut self) -> usize {
        self.last += 1;
        self.last
    }
}

/// What all bridges have done.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) bridges: AtomicU64,
    pub(crate) to_tcp: AtomicU64,
    pub(crate) to_rdma: AtomicU64,
    pub(crate) backchannel: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) replies: AtomicU64,
    pub(crate) bad: AtomicU64,
}

impl Totals {
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// Both connections.
pub(crate) struct Bridge {
    conn: Arc<Conn>,
    tcp: TcpStream,
    pools: Arc<Pools>,
    totals: Arc<Totals>,
    /// This side has connected over RDMA: calls that come by TCP go out with chunks.
    active: bool,
    credits: usize,
    state: Mutex<State>,
    changed: Condvar,
}

impl Bridge {
    pub(crate) fn new(
        conn: Arc<Conn>,
        tcp: TcpStream,
        (pools, totals): (Arc<Pools>, Arc<Totals>),
        active: bool,
        credits: usize,
    ) -> io::Result<(Arc<Self>, Receiver<Record>)> {
        tcp.set_nodelay(true)?;
        let (out, records) = std::sync::mpsc::channel();
        Totals::add(&totals.bridges, 1);
        let state = Mutex::new(State { out: Some(out), ..State::default() });
        let bridge = Self { conn, tcp, pools, totals, active, credits, state, changed: Condvar::new() };
        Ok((Arc::new(bridge), records))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes records until nobody makes any, or nobody takes them.
    pub(crate) fn write(&self, records: &Receiver<Record>) {
        for record in records {
            // SAFETY: see `Record`.
            let span =
                |(addr, octets): &(*const u8, usize)| unsafe { std::slice::from_raw_parts(*addr, *octets) };
            let pieces: Vec<&[u8]> = record.spans.iter().map(span).collect();
            if record::write(&mut &self.tcp, &pieces).is_err() {
                break;
            }
        }
        self.written();
    }

    /// Nothing more is written.
    pub(crate) fn written(&self) {
        self.end();
        self.state().written = true;
        self.changed.notify_all();
    }

    /// Reads records until there are no more.
    pub(crate) fn read(&self) {
        if self.wait_until(|state| state.established, Some(PATIENCE)) {
            // What has come before the end can still be read after it.
            while !self.state().ended && matches!(self.read_one(&mut &self.tcp), Ok(true)) {}
        }
        self.end();
    }

    /// Leaves TCP, after the end: when all is written, or nobody takes it.
    pub(crate) fn leave_tcp(&self) {
        drop(self.changed.wait_timeout_while(self.state(), LINGER, |state| !state.written));
        let _ = self.tcp.shutdown(Shutdown::Both);
    }

    fn read_one(&self, tcp: &mut &TcpStream) -> Result<bool, Box<dyn std::error::Error>> {
        let mut buffer = self.pools.source()?;
        let Some(length) = record::read(tcp, buffer.octets_mut())? else { return Ok(false) };
        let message = buffer.octets().get(..length).unwrap_or_default();
        match (xdr::word(message, 0), xdr::word(message, 4)) {
            (Some(xid), Some(0)) => self.call(xid, buffer, length)?,
            (Some(xid), Some(1)) => self.reply(xid, buffer, length)?,
            _ => return Err("neither a call nor a reply".into()),
        }
        Ok(true)
    }

    /// Waits until something is so; false: the connection has ended, or the time is over.
    fn wait_until(&self, is_so: impl Fn(&State) -> bool, patience: Option<Duration>) -> bool {
        let waits = |state: &mut State| !state.ended && !is_so(state);
        let state = match patience {
            Some(patience) => self
                .changed
                .wait_timeout_while(self.state(), patience, waits)
                .map_or_else(|error| error.into_inner().0, |got| got.0),
            None => self.changed.wait_while(self.state(), waits).unwrap_or_else(PoisonError::into_inner),
        };
        !state.ended && is_so(&state)
    }

    /// Ends both connections.
    pub(crate) fn end(&self) {
        let _ = self.conn.disconnect();
        self.ended();
    }

    /// It has ended: nothing more is read from TCP, and no more queued for it.
    fn ended(&self) {
        let mut state = self.state();
        (state.ended, state.out) = (true, None);
        drop(state);
        self.changed.notify_all();
        let _ = self.tcp.shutdown(Shutdown::Read);
    }

    fn queue(&self, record: Record) {
        if let Some(out) = &self.state().out {
            let _ = out.send(record);
        }
    }

    // ---- from TCP ----

    fn call(&self, xid: u32, buffer: Buffer, length: usize) -> Result<(), Box<dyn std::error::Error>> {
        if !self.wait_until(|state| state.made.len() < self.credits, None) {
            return Err("the connection has ended".into());
        }
        let message = buffer.octets().get(..length).unwrap_or_default();
        let mut call = Call { reply_max: BACKCHANNEL_REPLY, ..Call::default() };
        let (mut results, mut reply, mut shape) = (Vec::new(), None, Shape::Other);
        if self.active {
            let asked = nfs::look_at_call(message);
            shape = asked.shape;
            let place = asked.payload.filter(|place| place.octets > 0 && place.at + place.octets <= length);
            (call.head, call.payload) = match place {
                Some(place) => {
                    let behind = (place.at + place.octets.next_multiple_of(4)).min(length);
                    let head =
                        [message.get(..place.at), message.get(behind..)].map(Option::unwrap_or_default);
                    (
                        head.concat(),
                        Some(Payload { sges: vec![buffer.sge(place.at, place.octets)?], at: place.at }),
                    )
                }
                None => (message.to_vec(), None),
            };
            let fit = |octets: &usize| *octets > 0 && *octets <= buffer.len();
            if asked.results.iter().all(fit) {
                for octets in &asked.results {
                    let sink = self.pools.sink()?;
                    call.results.push(vec![sink.sge(0, *octets)?]);
                    results.push(sink);
                }
            }
            // Kernel servers want room for the results here, too, where both chunks are offered.
            let results: usize = asked.results.iter().sum();
            call.reply_max = asked.reply.unwrap_or_else(|| LONG.saturating_add(results));
            if call.reply_max > SHORT {
                let sink = self.pools.sink()?;
                call.reply_max = call.reply_max.min(sink.len());
                call.reply = vec![sink.sge(0, call.reply_max)?];
                reply = Some(sink);
            }
            Totals::add(&self.totals.to_rdma, 1);
        } else {
            call.head = message.to_vec();
            Totals::add(&self.totals.backchannel, 1);
        }
        let mut state = self.state();
        let user = state.cookie();
        call.user = user;
        state.made.insert(user, Made { shape, xid, _source: buffer, _results: results, _reply: reply });
        drop(state);
        let made = Session::of(&self.conn).and_then(|session| session.call(&self.conn, call));
        if let Err(error) = made {
            drop(self.state().made.remove(&user));
            // One that is outstanding already will be answered.
            if !matches!(error.code(), code if code == -libc::EEXIST || code == -libc::ENOTCONN) {
                complain(format_args!("call {xid:#x}: {error}"));
                self.fail(xid);
            }
        }
        Ok(())
    }

    fn reply(&self, xid: u32, buffer: Buffer, length: usize) -> Result<(), Box<dyn std::error::Error>> {
        let Some(Asked { call, shape, rooms }) = self.state().asked.remove(&xid) else { return Ok(()) };
        let message = buffer.octets().get(..length).unwrap_or_default();
        let places = if rooms > 0 { nfs::look_at_reply(shape, message, |_| true) } else { Vec::new() };
        let (mut head, mut payloads, mut done) = (Vec::new(), Vec::new(), 0);
        for place in places.iter().take(rooms) {
            head.extend_from_slice(message.get(done..place.at).unwrap_or_default());
            let sges = if place.octets > 0 { vec![buffer.sge(place.at, place.octets)?] } else { Vec::new() };
            payloads.push(Payload { sges, at: head.len() });
            done = place.at + place.octets.next_multiple_of(4);
        }
        head.extend_from_slice(message.get(done..).unwrap_or_default());
        let mut state = self.state();
        let user = state.cookie();
        state.sent.insert(user, buffer);
        drop(state);
        let session = Session::of(&self.conn)?;
        if let Err(error) = session.reply(&self.conn, call, Reply { head, payloads, user }) {
            drop(self.state().sent.remove(&user));
            if error.code() == -libc::EMSGSIZE {
                Totals::add(&self.totals.refused, 1);
                let _ = session.refuse(&self.conn, call);
            }
        }
        Ok(())
    }

    // ---- from RDMA, on the channel's thread ----

    /// Takes an event.
    pub(crate) fn take(&self, event: &Event) {
        match event.kind {
            kind::ESTABLISHED => {
                self.state().established = true;
                self.changed.notify_all();
            }
            rpc::kind::CALL => self.asked(event),
            rpc::kind::REPLY => self.answered(event),
            rpc::kind::ANSWERED => drop(self.state().sent.remove(&event.user)),
            kind::DISCONNECTED | kind::CONNECT_FAILED => self.ended(),
            kind::CLOSED => {
                self.ended();
                self.count();
            }
            _ => {}
        }
    }

    fn count(&self) {
        let Ok((_, counters)) = Session::of(&self.conn).map(Session::info) else { return };
        let totals = &self.totals;
        for (total, count) in [
            (&totals.reads, counters.reads),
            (&totals.writes, counters.writes),
            (&totals.replies, counters.replies),
            (&totals.bad, counters.bad),
        ] {
            Totals::add(total, count);
        }
    }

    fn asked(&self, event: &Event) {
        let Some(message) = Message::of(event) else { return };
        // SAFETY: lent until the call is answered.
        let data = unsafe { octets_of(event) };
        let xid = message.view().xid;
        let asked = Asked {
            call: message.call(),
            shape: nfs::look_at_call(data).shape,
            rooms: message.rooms().len(),
        };
        let mut state = self.state();
        if state.asked.contains_key(&xid) {
            drop(state);
            let _ = Session::of(&self.conn).and_then(|session| session.refuse(&self.conn, asked.call));
            return;
        }
        state.asked.insert(xid, asked);
        drop(state);
        Totals::add(if self.active { &self.totals.backchannel } else { &self.totals.to_tcp }, 1);
        let pieces = message
            .pieces()
            .iter()
            .map(|piece| (piece.at, piece.addr.cast::<u8>().cast_const(), piece.length));
        self.queue(Record { spans: woven(data, pieces), _keep: Box::new(event.clone()) });
    }

    fn answered(&self, event: &Event) {
        let made = self.state().made.remove(&event.user);
        self.changed.notify_all();
        let Some(made) = made else { return };
        let message = Message::of(event).filter(|_| event.status == 0);
        let Some(message) = message else {
            if event.status == -libc::ECANCELED {
                // The connection's end, not the server's word: the caller is to repeat its call on another.
                return self.end();
            }
            let error = io::Error::from_raw_os_error(-event.status);
            complain(format_args!("call {:#x}: the RDMA server's transport: {error}", made.xid));
            return self.fail(made.xid);
        };
        // SAFETY: the event's, or of the call's own memory, which is kept below.
        let data = unsafe { octets_of(event) };
        let pieces = message.pieces();
        let there = |index: usize| pieces.get(index).is_none_or(|piece| piece.length == 0);
        let places = nfs::look_at_reply(made.shape, data, there);
        let placed = places.iter().zip(pieces).filter(|(_, piece)| piece.length > 0);
        let placed =
            placed.map(|(place, piece)| (place.at, piece.addr.cast::<u8>().cast_const(), piece.length));
        self.queue(Record { spans: woven(data, placed), _keep: Box::new((event.clone(), made)) });
    }

    /// Tells a caller by TCP that its call can't be carried: SYSTEM_ERR.
    fn fail(&self, xid: u32) {
        Totals::add(&self.totals.refused, 1);
        let octets = Box::new(xdr::octets(&[xid, 1, 0, 0, 0, 5]));
        self.queue(Record { spans: vec![(octets.as_ptr(), octets.len())], _keep: octets });
    }
}

/// # Safety
/// The event's data live as long as is made use of them.
unsafe fn octets_of<'a>(event: &Event) -> &'a [u8] {
    if event.length == 0 {
        return &[];
    }
    // SAFETY: by this function's contract.
    unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(event.data), event.length) }
}

/// A message with what was taken out of it in its place, and XDR's pads.
fn woven(data: &[u8], pieces: impl Iterator<Item = (usize, *const u8, usize)>) -> Vec<(*const u8, usize)> {
    static PAD: [u8; 3] = [0; 3];
    let (mut spans, mut done) = (Vec::new(), 0);
    for (at, addr, octets) in pieces {
        let before = data.get(done..at).unwrap_or_default();
        spans.push((before.as_ptr(), before.len()));
        spans.push((addr, octets));
        spans.push((PAD.as_ptr(), octets.next_multiple_of(4) - octets));
        done = at;
    }
    let rest = data.get(done..).unwrap_or_default();
    spans.push((rest.as_ptr(), rest.len()));
    spans
}
