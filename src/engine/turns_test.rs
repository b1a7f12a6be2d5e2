//! For tests that run channels in turns on one thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{
    AcceptConfig, Channel, ChannelConfig, Conn, ConnectConfig, Engine, Event, ListenConfig, Listener, Object,
    PROVIDER_VERBS, QpConfig, Target, kind, object,
};
use crate::error::Result;
use crate::memory::Region;
use crate::work::{Opcode, Payload, SendWr, SgeList, by_value, flags};

/// A test gives up after this.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// An address from text.
pub(super) fn addr(text: &str) -> socket2::SockAddr {
    text.parse::<SocketAddr>().unwrap().into()
}

/// A channel that the test runs.
pub(super) fn channel(engine: &Arc<Engine>) -> Arc<Channel> {
    let config = ChannelConfig { manual: true, spin_us: Some(0), ..ChannelConfig::default() };
    Channel::create(engine, config).unwrap()
}

/// Runs channels until one of them has an event.
pub(super) fn next(channels: &[&Arc<Channel>]) -> Event {
    let end = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < end, "no event");
        for channel in channels {
            channel.run(Some(Duration::from_millis(1))).unwrap();
            let mut found = None;
            channel.next(1, &mut |event| found = Some(event.clone())).unwrap();
            if let Some(event) = found {
                return event;
            }
        }
    }
}

/// Runs channels until one event of this kind has come, and no receive before it.
pub(super) fn wait(channels: &[&Arc<Channel>], wanted: u32) -> Event {
    let end = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < end, "no event {wanted}");
        let event = next(channels);
        if event.kind == wanted {
            return event;
        }
        assert!(event.kind != kind::RECV, "a receive is over: {}", event.status);
    }
}

/// Eight octets of a region.
pub(super) fn piece(region: &Arc<Region>, at: usize) -> SgeList {
    let mut sges = SgeList::new();
    sges.push(region.sge(region.base().wrapping_add(at), 8).unwrap());
    sges
}

/// Posts one signalled Send.
pub(super) fn send(conn: &Arc<Conn>, sges: SgeList) -> Result<()> {
    let mut wr =
        Some(SendWr { flags: flags::SIGNALED, user: 1, ..SendWr::new(Opcode::Send, Payload::Sges(sges)) });
    conn.post(1, &mut by_value(|_| Ok(wr.take().unwrap())))
}

/// A connection over devices, to where the other channel listens, with so many receives of the library's of 8 octets.
pub(super) fn connect(
    client: &Arc<Channel>,
    server: &Arc<Channel>,
    at: &str,
    receives: u32,
) -> (Arc<Conn>, Arc<Conn>, Arc<Listener>) {
    let qp = QpConfig { provider: PROVIDER_VERBS, ..QpConfig::default() };
    let config = ListenConfig { qp: qp.clone(), ..ListenConfig::default() };
    let listener = server.listen(&addr(at), config).unwrap();
    let mut config = ConnectConfig { qp, ..ConnectConfig::default() };
    if receives > 0 {
        (config.qp.recv_size, config.qp.recv_count) = (8, receives);
    }
    let conn = client.connect(Target::Addresses(vec![addr(at)]), config).unwrap();
    let peer = accept(&wait(&[client, server], kind::CONNECT_REQUEST));
    wait(&[client, server], kind::ESTABLISHED);
    wait(&[client, server], kind::ESTABLISHED);
    (conn, peer, listener)
}

/// Says yes to the request that an event tells of.
pub(super) fn accept(request: &Event) -> Arc<Conn> {
    let Some(Object::Conn(peer)) = object(request.conn) else { panic!("no connection") };
    peer.accept(AcceptConfig::default()).unwrap();
    peer
}
