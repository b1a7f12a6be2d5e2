//! The model itself: that it behaves as rdma_cm and verbs do, so that tests on it mean something.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockAddr;

use super::*;
use crate::verbs::types::{CmKind, ConnParam, PostFailure, QpCaps, Rights, Wc, WrKind, send_flags};

const CAPS: QpCaps = QpCaps { send_wr: 4, recv_wr: 4, send_sge: 2, recv_sge: 2, inline: 64 };
const ALL: Rights = Rights { local_write: true, remote_read: true, remote_write: true };
const SIGNALED: u32 = send_flags::SIGNALED;

fn addr(text: &str) -> SockAddr {
    text.parse::<SocketAddr>().unwrap().into()
}

fn param(data: &[u8]) -> ConnParam {
    let private_data = data.to_vec();
    ConnParam { private_data, responder_resources: 4, initiator_depth: 3, rnr_retry_count: 7 }
}

fn readable(fd: &impl AsRawFd) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
}

#[track_caller]
fn event(channel: &Arc<EventChannel>, kind: CmKind) -> CmEvent {
    assert!(readable(&**channel), "no event where {kind:?} is due");
    let event = channel.next().unwrap().unwrap();
    assert_eq!(event.kind, kind, "with status {}", event.status);
    event
}

#[track_caller]
fn silent(channel: &Arc<EventChannel>) {
    assert!(!readable(&**channel) && channel.next().unwrap().is_none());
}

/// One end of a connection and what it is made of. Fields are dropped in order.
struct End {
    mr: Mr,
    memory: Box<[u8; 256]>,
    cq: Arc<Cq>,
    completions: Arc<CompChannel>,
    events: Arc<EventChannel>,
    pd: Arc<Pd>,
    id: CmId,
}

impl Drop for End {
    fn drop(&mut self) {
        self.id.destroy_qp();
    }
}

impl End {
    fn new(mut id: CmId, events: &Arc<EventChannel>) -> Self {
        let device = id.device().unwrap();
        let pd = Pd::new(device).unwrap();
        let completions = CompChannel::new(device).unwrap();
        let cq = Cq::new(device, &completions, 16, 77).unwrap();
        assert_eq!(id.create_qp(&pd, &cq, CAPS, 5).unwrap(), CAPS);
        let mut memory = Box::new([0; 256]);
        // SAFETY: the memory lives longer than its region.
        let mr = unsafe { Mr::new(&pd, memory.as_mut_ptr(), memory.len(), ALL) }.unwrap();
        Self { id, mr, memory, cq, completions, events: Arc::clone(events), pd }
    }

    fn place(&mut self, offset: usize) -> u64 {
        self.memory.as_mut_ptr().wrapping_add(offset) as u64
    }

    fn recv(&mut self, id: u64, length: u32) -> std::result::Result<(), PostFailure> {
        let mut chain = RecvChain::default();
        chain.element(self.place(128), length, self.mr.local_key());
        chain.recv(id, 1);
        // SAFETY: the memory lives as long as the queue pair.
        unsafe { self.id.qp().unwrap().post_recv(&mut chain) }
    }

    fn send(
        &mut self,
        id: u64,
        kind: WrKind,
        flags: u32,
        remote: (u64, u32),
    ) -> std::result::Result<(), PostFailure> {
        let mut chain = SendChain::default();
        chain.element(self.place(0), 32, self.mr.local_key());
        chain.send(id, kind, flags, 1, remote);
        assert_eq!(chain.len(), 1);
        // SAFETY: as above.
        unsafe { self.id.qp().unwrap().post_send(&mut chain) }
    }

    fn poll(&self) -> Vec<Wc> {
        let mut out = Vec::new();
        while self.cq.poll(&mut out).unwrap() > 0 {}
        out
    }

    fn statuses(&self) -> Vec<(u64, u32)> {
        self.poll().iter().map(|wc| (wc.id, wc.status)).collect()
    }
}

const SERVER: &str = "10.77.0.2:4791";

fn fabric(iwarp: bool) -> Entered {
    let fabric = Fabric::enter();
    let make = if iwarp { DeviceConfig::iwarp } else { DeviceConfig::ib };
    fabric.add_device(make("10.77.0.1"));
    fabric.add_device(make("10.77.0.2"));
    fabric
}

fn listener(channel: &Arc<EventChannel>) -> CmId {
    let id = CmId::new(channel, 100).unwrap();
    id.set_reuse().unwrap();
    id.bind(&addr(SERVER)).unwrap();
    id.listen(8).unwrap();
    id
}

/// An id that has its route, and its queue pair.
fn routed(channel: &Arc<EventChannel>) -> End {
    let id = CmId::new(channel, 1).unwrap();
    id.resolve_addr(None, &addr(SERVER), 100).unwrap();
    event(channel, CmKind::AddrResolved);
    id.resolve_route(100).unwrap();
    assert_eq!(event(channel, CmKind::RouteResolved).context, 1);
    End::new(id, channel)
}

/// Two ends of a connection, and the listener.
fn connected(iwarp: bool, retries: u8) -> (Entered, End, End, CmId) {
    let fabric = fabric(iwarp);
    let (ours, theirs) = (EventChannel::new().unwrap(), EventChannel::new().unwrap());
    let listener = listener(&theirs);
    let client = routed(&ours);
    client.id.connect(&ConnParam { rnr_retry_count: retries, ..param(b"hello") }).unwrap();
    let request = event(&theirs, CmKind::ConnectRequest);
    let length = if iwarp { 5 } else { 56 };
    assert_eq!((request.context, request.param.private_data.len()), (100, length));
    assert!(request.param.private_data.starts_with(b"hello"));
    assert_eq!((request.param.responder_resources, request.param.initiator_depth), (3, 4));
    let server = End::new(request.request.unwrap(), &theirs);
    server.id.accept(&ConnParam { rnr_retry_count: retries, ..param(b"welcome") }).unwrap();
    if !iwarp {
        // Only the active side's look at the reply lets the passive side be established.
        silent(&theirs);
    }
    let reply = event(&ours, CmKind::Established);
    assert!(reply.param.private_data.starts_with(b"welcome"));
    event(&theirs, CmKind::Established);
    silent(&ours);
    (fabric, client, server, listener)
}

fn finish(fabric: &Fabric, ends: impl Sized) {
    drop(ends);
    fabric.assert_clean();
}

#[test]
fn connects_moves_data_and_disconnects() {
    for iwarp in [false, true] {
        let (fabric, mut client, mut server, listener) = connected(iwarp, 7);
        client.memory[..32].copy_from_slice(&[7; 32]);
        server.recv(9, 64).unwrap();
        client.send(1, WrKind::SendImm(0xabcd), SIGNALED, (0, 0)).unwrap();
        assert_eq!(client.statuses(), [(1, 0)]);
        let got = server.poll();
        assert_eq!((got[0].id, got[0].length, got[0].imm), (9, 32, Some(0xabcd)));
        assert_eq!(server.memory[128..160], [7; 32]);

        let remote = (server.place(64), server.mr.remote_key());
        client.send(2, WrKind::Write, 0, remote).unwrap();
        assert_eq!((client.poll(), &server.memory[64..96]), (vec![], &[7; 32][..]));
        client.memory[..32].fill(0);
        client.send(3, WrKind::Read, SIGNALED, remote).unwrap();
        assert_eq!((client.statuses(), &client.memory[..32]), (vec![(3, 0)], &[7; 32][..]));

        server.recv(10, 64).unwrap();
        client.id.disconnect().unwrap();
        event(&server.events, CmKind::Disconnected);
        if iwarp {
            assert_eq!(server.statuses(), [(10, Wc::FLUSHED)]);
            assert_eq!(server.id.disconnect().unwrap_err().errno, libc::EINVAL);
        } else {
            // The peer's queue pair lives on until the peer answers, which is what we wait for.
            silent(&client.events);
            assert_eq!(server.poll(), []);
            server.id.disconnect().unwrap();
            assert_eq!(server.statuses(), [(10, Wc::FLUSHED)]);
            event(&server.events, CmKind::TimewaitExit);
        }
        event(&client.events, CmKind::Disconnected);
        client.send(4, WrKind::Send, 0, (0, 0)).unwrap();
        assert_eq!(client.statuses(), [(4, Wc::FLUSHED)], "posted in error, though not signalled");
        finish(&fabric, (client, server, listener));
    }
}

#[test]
fn dropping_an_id_says_good_bye() {
    for iwarp in [false, true] {
        let (fabric, client, mut server, listener) = connected(iwarp, 7);
        drop(client);
        event(&server.events, CmKind::Disconnected);
        if !iwarp {
            server.send(1, WrKind::Send, 0, (0, 0)).unwrap();
            assert_eq!(server.statuses(), [(1, Wc::RETRIES)], "nobody is there");
        }
        finish(&fabric, (server, listener));
    }
}

#[test]
fn refuses_and_rejects() {
    for (iwarp, nobody, said_no) in [(false, 8, 28), (true, -libc::ECONNREFUSED, -libc::ECONNREFUSED)] {
        let fabric = fabric(iwarp);
        let (ours, theirs) = (EventChannel::new().unwrap(), EventChannel::new().unwrap());
        let client = routed(&ours);
        client.id.connect(&param(b"")).unwrap();
        assert_eq!(event(&ours, CmKind::Rejected).status, nobody);
        drop(client);

        let listener = listener(&theirs);
        let mut client = routed(&ours);
        client.recv(1, 8).unwrap();
        client.id.connect(&param(b"")).unwrap();
        let request = event(&theirs, CmKind::ConnectRequest).request.unwrap();
        request.reject(b"no").unwrap();
        assert_eq!(request.reject(b"no").unwrap_err().errno, libc::EINVAL);
        let event = event(&ours, CmKind::Rejected);
        assert_eq!((event.status, event.param.private_data.len()), (said_no, if iwarp { 2 } else { 148 }));
        assert_eq!(client.statuses(), [(1, Wc::FLUSHED)], "librdmacm has failed the queue pair");
        finish(&fabric, (client, request, listener, ours, theirs));
    }
}

#[test]
fn a_request_without_an_answer() {
    let fabric = fabric(false);
    let (ours, theirs) = (EventChannel::new().unwrap(), EventChannel::new().unwrap());
    let listener = listener(&theirs);
    // Dropped by the passive side: a reject. Dropped by the active side: nothing, and accepting fails.
    let client = routed(&ours);
    client.id.connect(&param(b"")).unwrap();
    drop(event(&theirs, CmKind::ConnectRequest));
    assert_eq!(event(&ours, CmKind::Rejected).status, 28);
    drop(client);
    let client = routed(&ours);
    client.id.connect(&param(b"")).unwrap();
    let server = End::new(event(&theirs, CmKind::ConnectRequest).request.unwrap(), &theirs);
    drop(client);
    silent(&theirs);
    assert_eq!(server.id.accept(&param(b"")).unwrap_err().errno, libc::EINVAL);
    drop(server);
    // Never seen by the passive side: gone with the listener.
    let client = routed(&ours);
    client.id.connect(&param(b"")).unwrap();
    drop(listener);
    silent(&theirs);
    assert_eq!(event(&ours, CmKind::Rejected).status, 28);
    drop((ours, theirs));
    finish(&fabric, client);
}

#[test]
fn checks_states_addresses_and_sizes() {
    let fabric = fabric(false);
    let channel = EventChannel::new().unwrap();
    let errno = |result: Result<()>| result.unwrap_err().errno;
    let id = CmId::new(&channel, 0).unwrap();
    assert_eq!(errno(id.listen(1)), libc::EINVAL);
    assert_eq!(errno(id.resolve_route(1)), libc::EINVAL);
    assert_eq!(errno(id.bind(&addr("127.0.0.1:1"))), libc::ENODEV);
    assert_eq!(errno(id.bind(&addr("192.0.2.1:1"))), libc::EADDRNOTAVAIL);
    id.bind(&addr("0.0.0.0:0")).unwrap();
    let port = id.local().unwrap().as_socket().unwrap().port();
    assert!(port >= 32_768 && id.device().is_none());
    id.listen(1).unwrap();
    let second = CmId::new(&channel, 0).unwrap();
    assert_eq!(errno(second.bind(&addr(&format!("10.77.0.1:{port}")))), libc::EADDRINUSE);
    second.resolve_addr(None, &addr("192.0.2.1:1"), 10).unwrap();
    assert_eq!(event(&channel, CmKind::AddrError).status, -libc::ENODEV);

    let client = routed(&channel);
    assert_eq!(errno(client.id.connect(&param(&[0; 57]))), libc::EINVAL);
    assert_eq!(errno(client.id.connect(&param(&[0; 256]))), libc::EMSGSIZE);
    let greedy = ConnParam { initiator_depth: 17, ..param(b"") };
    assert_eq!(errno(client.id.connect(&greedy)), libc::EINVAL);
    assert_eq!(errno(client.id.accept(&param(b""))), libc::EINVAL);
    drop(channel);
    finish(&fabric, (id, second, client));
}

#[test]
fn notifies_only_when_armed() {
    let (fabric, mut client, mut server, listener) = connected(false, 7);
    server.recv(1, 64).unwrap();
    server.recv(2, 64).unwrap();
    client.send(1, WrKind::Send, SIGNALED, (0, 0)).unwrap();
    server.cq.arm().unwrap();
    assert!(!readable(&*server.completions), "what is there already makes no event");
    client.send(2, WrKind::Send, SIGNALED, (0, 0)).unwrap();
    assert!(readable(&*server.completions) && !readable(&*client.completions));
    let mut fired = Vec::new();
    server.completions.drain(|context| fired.push(context));
    assert_eq!((fired, readable(&*server.completions)), (vec![77], false));
    assert_eq!(server.statuses(), [(1, 0), (2, 0)]);
    finish(&fabric, (client, server, listener));
}

#[test]
fn waits_for_a_receive_or_gives_up() {
    let (fabric, mut client, mut server, listener) = connected(false, 7);
    client.send(1, WrKind::Send, SIGNALED, (0, 0)).unwrap();
    assert_eq!(client.poll(), []);
    server.recv(2, 64).unwrap();
    assert_eq!((client.statuses(), server.statuses()), (vec![(1, 0)], vec![(2, 0)]));
    finish(&fabric, (client, server, listener));

    let (fabric, mut client, server, listener) = connected(false, 3);
    client.send(1, WrKind::Send, 0, (0, 0)).unwrap();
    assert_eq!(client.statuses(), [(1, Wc::NO_RECEIVE)]);
    finish(&fabric, (client, server, listener));

    let (fabric, mut client, server, listener) = connected(true, 7);
    client.send(1, WrKind::Send, SIGNALED, (0, 0)).unwrap();
    assert_eq!(client.statuses(), [(1, 0)], "it went out");
    event(&client.events, CmKind::Disconnected);
    event(&server.events, CmKind::Disconnected);
    finish(&fabric, (client, server, listener));
}

#[test]
fn checks_what_a_peer_touches() {
    for (offset, key) in [(240, 0), (0, 1)] {
        let (fabric, mut client, mut server, listener) = connected(false, 7);
        server.recv(9, 8).unwrap();
        let remote = (server.place(offset), server.mr.remote_key() + key);
        client.send(1, WrKind::Write, 0, remote).unwrap();
        assert_eq!(client.statuses(), [(1, Wc::REMOTE_ACCESS)]);
        assert_eq!(server.statuses(), [(9, Wc::FLUSHED)]);
        let failure = server.id.device().unwrap().async_event().unwrap();
        assert!(failure.is_qp_failure() && failure.qp == Some(5));
        silent(&client.events);
        finish(&fabric, (client, server, listener));
    }
    let (fabric, mut client, mut server, listener) = connected(false, 7);
    server.recv(9, 31).unwrap();
    client.send(1, WrKind::Send, 0, (0, 0)).unwrap();
    assert_eq!(client.statuses(), [(1, Wc::REMOTE_INVALID)]);
    assert_eq!(server.statuses(), [(9, Wc::LOCAL_LENGTH)]);
    finish(&fabric, (client, server, listener));
}

#[test]
fn slots_come_free_when_completions_are_polled() {
    let (fabric, mut client, mut server, listener) = connected(false, 7);
    let remote = (server.place(64), server.mr.remote_key());
    for (id, flags) in [(1, 0), (2, 0), (3, 0), (4, SIGNALED)] {
        client.send(id, WrKind::Write, flags, remote).unwrap();
    }
    assert_eq!(client.send(5, WrKind::Write, 0, remote).unwrap_err().error.errno, libc::ENOMEM);
    assert_eq!(fabric.take_violations(), ["a send queue overflows"]);
    assert_eq!(client.statuses(), [(4, 0)]);
    client.send(5, WrKind::Write, 0, remote).unwrap();
    finish(&fabric, (client, server, listener));
}

#[test]
fn devices_go() {
    for removal in [Removal::Orderly, Removal::Surprise] {
        let (fabric, mut client, mut server, listener) = connected(false, 7);
        client.recv(1, 8).unwrap();
        let device = client.id.device().unwrap();
        fabric.remove_device(1, removal);
        event(&client.events, CmKind::DeviceRemoval);
        assert_eq!(client.statuses(), [(1, Wc::FLUSHED)]);
        assert!(device.async_event().unwrap().is_device_fatal());
        assert!(Pd::new(device).is_err());
        match removal {
            Removal::Orderly => drop(event(&server.events, CmKind::Disconnected)),
            Removal::Surprise => silent(&server.events),
        }
        server.send(2, WrKind::Send, 0, (0, 0)).unwrap();
        assert_eq!(server.statuses(), [(2, Wc::RETRIES)]);
        finish(&fabric, (client, server, listener));
        assert!(device.limits(1).is_err(), "closed with the last id");
        assert_eq!(fabric.take_violations(), ["ibv_query_device on a device that is closed"]);
    }
}

#[test]
fn events_move_with_their_id() {
    let (fabric, client, mut server, listener) = connected(false, 7);
    let third = EventChannel::new().unwrap();
    client.id.disconnect().unwrap();
    server.id.set_context(42);
    server.id.migrate(&third).unwrap();
    silent(&server.events);
    assert_eq!(event(&third, CmKind::Disconnected).context, 42);
    drop(third);
    finish(&fabric, (client, server, listener));
}

#[test]
fn fails_calls_and_delays_events() {
    let (fabric, mut client, mut server, listener) = connected(false, 7);
    server.recv(1, 64).unwrap();
    fabric.fail_at(fabric.calls().len() + 1, libc::ENOMEM);
    let failure = client.send(1, WrKind::Send, 0, (0, 0)).unwrap_err();
    assert_eq!((failure.posted, failure.error.errno, fabric.failures()), (0, libc::ENOMEM, 1));
    // The receive's completion comes first.
    fabric.delay_event(fabric.events().len() + 1, Delay::For(Duration::from_millis(1)));
    client.send(2, WrKind::Send, SIGNALED, (0, 0)).unwrap();
    assert_eq!((client.statuses(), server.statuses()), (vec![(2, 0)], vec![]));
    std::thread::sleep(Duration::from_millis(2));
    fabric.tick();
    assert_eq!(server.statuses(), [(1, 0)]);
    fabric.delay_event(fabric.events().len() + 1, Delay::Never);
    client.id.disconnect().unwrap();
    fabric.tick();
    silent(&server.events);
    finish(&fabric, (client, server, listener));
}

#[test]
fn work_can_be_deferred() {
    let (fabric, mut client, mut server, listener) = connected(false, 7);
    fabric.defer_work(true);
    server.recv(1, 64).unwrap();
    client.send(1, WrKind::Send, SIGNALED, (0, 0)).unwrap();
    fabric.tick();
    assert_eq!(client.poll(), []);
    assert!(fabric.step() && !fabric.step());
    assert_eq!((client.statuses(), server.statuses()), (vec![(1, 0)], vec![(1, 0)]));
    client.send(2, WrKind::Write, 0, (0, 0)).unwrap();
    // SAFETY: never used: the fabric notes the early end.
    let other = unsafe { Mr::new(&client.pd, client.memory.as_mut_ptr(), 1, ALL) }.unwrap();
    drop(std::mem::replace(&mut client.mr, other));
    assert_eq!(fabric.take_violations(), ["a region was deregistered that posted operations use"]);
    finish(&fabric, (client, server, listener));
}

#[test]
fn is_absent_where_no_fabric_is_entered() {
    assert_eq!(EventChannel::new().err().unwrap().errno, libc::ENODEV);
    assert_eq!(count_devices(), 0);
    assert_eq!(devices().unwrap_err().errno, libc::ENODEV);
    prepare_fork().unwrap();
    assert_eq!(fork_state(), ForkState::Unneeded);
}
