//! A peer of the iwarp provider that leaves at once; where it resets its connection it is a plain socket.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::turns_test::{PATIENCE, accept, addr, channel, next, send, wait};
use super::{
    Channel, Conn, ConnectConfig, Engine, EngineConfig, ListenConfig, PROVIDER_IWARP, QpConfig, Target, kind,
};
use crate::iwarp::handshake::{CrcPolicy, Initiator, Limits, Offer, Responder};
use crate::work::SgeList;

fn qp() -> QpConfig {
    QpConfig { provider: PROVIDER_IWARP, ..QpConfig::default() }
}

/// Not a FIN, whatever it has not read.
fn reset(socket: TcpStream) {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
}

/// A connection that a plain socket has asked for.
fn asked_for(server: &Arc<Channel>) -> (TcpStream, Arc<Conn>) {
    let listener =
        server.listen(&addr("127.0.0.1:0"), ListenConfig { qp: qp(), ..ListenConfig::default() }).unwrap();
    let mut socket = TcpStream::connect(listener.info().local.as_socket().unwrap()).unwrap();
    let initiator = Initiator::new(Offer { revision: 1, ..Offer::default() }).unwrap();
    socket.write_all(initiator.request()).unwrap();
    let conn = accept(&wait(&[server], kind::CONNECT_REQUEST));
    wait(&[server], kind::ESTABLISHED);
    (socket, conn)
}

/// A message and the end in one read are a connection, a message and its end.
#[test]
fn a_message_and_the_end_come_in_their_order() {
    let engine = Engine::create(EngineConfig::default()).unwrap();
    let (client, server) = (channel(&engine), channel(&engine));
    let config = QpConfig { recv_size: 64, recv_count: 4, ..qp() };
    let listen = ListenConfig { qp: config, ..ListenConfig::default() };
    let listener = server.listen(&addr("127.0.0.1:0"), listen).unwrap();
    let target = Target::Addresses(vec![listener.info().local]);
    let conn = client.connect(target, ConnectConfig { qp: qp(), ..ConnectConfig::default() }).unwrap();
    let peer = accept(&wait(&[&client, &server], kind::CONNECT_REQUEST));
    // From here on the server's channel does not run, until all of the client's is there.
    server.run(Some(Duration::ZERO)).unwrap();
    wait(&[&client], kind::ESTABLISHED);
    send(&conn, SgeList::new()).unwrap();
    conn.disconnect().unwrap();
    wait(&[&client], kind::COMPLETION);
    for _ in 0..4 {
        client.run(Some(Duration::from_millis(1))).unwrap();
    }
    let kinds = [(); 3].map(|()| next(&[&server]).kind);
    assert_eq!(kinds, [kind::ESTABLISHED, kind::RECV, kind::DISCONNECTED]);
    wait(&[&client, &server], kind::CLOSED);
    wait(&[&client, &server], kind::CLOSED);
    drop((conn, peer, listener));
    client.destroy().unwrap();
    server.destroy().unwrap();
    engine.destroy().unwrap();
}

/// The socket tells of a reset once; it may be a post that hears it.
#[test]
fn a_reset_that_a_post_meets_first_is_told() {
    let engine = Engine::create(EngineConfig::default()).unwrap();
    let server = channel(&engine);
    let (socket, conn) = asked_for(&server);
    // From here on posting sends at once.
    send(&conn, SgeList::new()).unwrap();
    wait(&[&server], kind::COMPLETION);
    reset(socket);
    send(&conn, SgeList::new()).unwrap();
    let end = wait(&[&server], kind::DISCONNECTED);
    assert_eq!(end.status, -libc::ECONNRESET);
    wait(&[&server], kind::CLOSED);
    drop(conn);
    server.destroy().unwrap();
    engine.destroy().unwrap();
}

/// What a peer that has accepted does then is the connection's: no other address is tried, whose terms would be others.
#[test]
fn an_accept_and_a_reset_are_a_connection_and_its_end() {
    let engine = Engine::create(EngineConfig::default()).unwrap();
    let client = channel(&engine);
    let [first, second] = [(); 2].map(|()| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    });
    let targets = [&first, &second].map(|listener| listener.local_addr().unwrap().into()).to_vec();
    let config = ConnectConfig { qp: qp(), ..ConnectConfig::default() };
    let conn = client.connect(Target::Addresses(targets), config).unwrap();
    let end = Instant::now() + PATIENCE;
    let limits = Limits { ird: 1, ord: 1, crc: CrcPolicy::Off, offer_crc: false, max_revision: 2, tag: None };
    let mut responder = Responder::new(limits);
    let (mut peer, mut request) = (None::<TcpStream>, [0; 512]);
    let asked = loop {
        assert!(Instant::now() < end, "no request");
        client.run(Some(Duration::from_millis(1))).unwrap();
        peer = peer.or_else(|| first.accept().ok().map(|(socket, _)| socket));
        let Some(socket) = &mut peer else { continue };
        socket.set_nonblocking(true).unwrap();
        if let Ok(count) = socket.read(&mut request) {
            break responder.input(&request[..count]).unwrap().1;
        }
    };
    assert!(asked.is_some());
    let mut peer = peer.unwrap();
    peer.write_all(&responder.accept(b"", 1, 1).unwrap().0).unwrap();
    reset(peer);
    assert_eq!(wait(&[&client], kind::ESTABLISHED).status, 0);
    assert_eq!(wait(&[&client], kind::DISCONNECTED).status, -libc::ECONNRESET);
    wait(&[&client], kind::CLOSED);
    assert!(second.accept().is_err(), "the other address was not tried");
    drop(conn);
    client.destroy().unwrap();
    engine.destroy().unwrap();
}
