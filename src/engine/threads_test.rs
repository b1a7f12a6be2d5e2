//! Channels with threads on the model: nobody sleeps while there is something to do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use arrayvec::ArrayVec;

use super::{
    AcceptConfig, Channel, ChannelConfig, Conn, ConnectConfig, Engine, EngineConfig, Event, ListenConfig,
    Object, PROVIDER_VERBS, QpConfig, Sink, Target, kind, object,
};
use crate::verbs::sys::{DeviceConfig, Fabric};
use crate::work::{Opcode, Payload, SendWr, by_value, flags};

/// A wake-up that is lost shows as this: the next timer of a connection is later.
const PATIENCE: Duration = Duration::from_secs(5);
const ROUNDS: usize = 2000;

/// What both sides' callbacks share.
#[derive(Default)]
struct Table {
    rounds: AtomicUsize,
    /// Counts connections that are closed.
    closed: Mutex<usize>,
    changed: Condvar,
}

/// Sends back what it receives, until all rounds are done.
struct Player(Arc<Table>);

impl Sink for Player {
    fn deliver(&self, _channel: usize, events: &[Event]) {
        for event in events {
            let Some(Object::Conn(conn)) = object(event.conn) else { continue };
            match event.kind {
                kind::CONNECT_REQUEST => conn.accept(AcceptConfig::default()).unwrap(),
                kind::ESTABLISHED if event.listener == 0 => serve(&conn),
                kind::RECV => {
                    conn.release(event.buffer).unwrap();
                    if self.0.rounds.fetch_add(1, Ordering::SeqCst) < ROUNDS {
                        serve(&conn);
                    } else {
                        conn.disconnect().unwrap();
                    }
                }
                kind::CLOSED => {
                    *self.0.closed.lock().unwrap() += 1;
                    self.0.changed.notify_all();
                }
                kind::CONNECT_FAILED => panic!("no connection"),
                _ => {}
            }
        }
    }
}

fn serve(conn: &Arc<Conn>) {
    let payload = Payload::Inline(ArrayVec::try_from(&b"ball"[..]).unwrap());
    let mut wr = Some(SendWr { flags: flags::INLINE, ..SendWr::new(Opcode::Send, payload) });
    // The other side may have left already.
    let _ = conn.post(1, &mut by_value(|_| Ok(wr.take().unwrap())));
}

fn play(device: impl Fn(&str) -> DeviceConfig, pairs: usize, spin_us: u32) {
    let fabric = Fabric::enter();
    fabric.add_device(device("10.77.0.1"));
    fabric.add_device(device("10.77.0.2"));
    let engine = Engine::create(EngineConfig::default()).unwrap();
    let table = Arc::new(Table::default());
    let channels = [(); 2].map(|()| {
        let sink: Box<dyn Sink> = Box::new(Player(Arc::clone(&table)));
        let config = ChannelConfig { sink: Some(sink), spin_us: Some(spin_us), ..ChannelConfig::default() };
        Channel::create(&engine, config).unwrap()
    });
    let qp = QpConfig { provider: PROVIDER_VERBS, recv_size: 16, recv_count: 4, ..QpConfig::default() };
    let addr: SocketAddr = "10.77.0.2:4791".parse().unwrap();
    let listen = ListenConfig { qp: qp.clone(), ..ListenConfig::default() };
    let listener = channels[1].listen(&addr.into(), listen).unwrap();
    for _ in 0..pairs {
        let config = ConnectConfig { qp: qp.clone(), ..ConnectConfig::default() };
        channels[0].connect(Target::Addresses(vec![addr.into()]), config).unwrap();
    }
    let mut before = usize::MAX;
    let mut closed = table.closed.lock().unwrap();
    while *closed < 2 * pairs {
        let (guard, wait) = table.changed.wait_timeout(closed, PATIENCE).unwrap();
        closed = guard;
        let rounds = table.rounds.load(Ordering::SeqCst);
        assert!(!wait.timed_out() || rounds != before, "asleep after {rounds} rounds, {closed} closed");
        before = rounds;
    }
    drop(closed);
    listener.close().unwrap();
    for channel in &channels {
        channel.destroy().unwrap();
    }
    drop((channels, listener));
    engine.destroy().unwrap();
    fabric.assert_clean();
}

#[test]
fn a_rally_over_infiniband_never_stops() {
    play(DeviceConfig::ib, 1, 0);
    play(DeviceConfig::ib, 5, 0);
}

#[test]
fn a_rally_over_iwarp_never_stops() {
    play(DeviceConfig::iwarp, 1, 0);
    play(DeviceConfig::iwarp, 5, 20);
}
