//! `rcg rpc-proxy` between clients and servers that come and go.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use assert_cmd::cargo::CommandCargoExt;
use common::Watched;
use socket2::{Domain, SockRef, Socket, Type};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest that is read or written.
const MOST: usize = 1 << 20;
const NFS: u32 = 100_003;
/// A program that the proxies know nothing of.
const PROGRAM: u32 = 400_000;
/// Procedures of the server's: it answers; the same, and it ends the connection; it ends it without an answer; it answers
/// and reads no more.
const ANSWER: u32 = 1;
const LEAVE: u32 = 2;
const DESERT: u32 = 3;
const STALL: u32 = 4;

/// Waits until something is so.
fn until(is_so: impl Fn() -> bool, what_is: impl Fn() -> String) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{}", what_is());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// One record of words, and zeros behind them.
fn send(mut stream: &TcpStream, words: &[u32], zeros: usize) -> std::io::Result<()> {
    let length = 4 * words.len() + zeros;
    let header = 1 << 31 | length as u32;
    let mut octets: Vec<u8> =
        [&[header], words].concat().iter().flat_map(|word| word.to_be_bytes()).collect();
    octets.resize(4 + length, 0);
    stream.write_all(&octets)
}

/// The words of one record; none where the stream ends before it.
fn receive(mut stream: &TcpStream) -> std::io::Result<Option<Vec<u32>>> {
    let mut header = [0; 4];
    if stream.read(&mut header[..1])? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut header[1..])?;
    let mut octets = vec![0; (u32::from_be_bytes(header) & !(1 << 31)) as usize];
    stream.read_exact(&mut octets)?;
    Ok(Some(octets.chunks_exact(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect()))
}

fn call(stream: &TcpStream, xid: u32, procedure: u32, zeros: usize) -> std::io::Result<()> {
    send(stream, &[xid, 0, 2, PROGRAM, 1, procedure, 0, 0, 0, 0], zeros)
}

/// Makes a call, and has its reply.
fn called(stream: &TcpStream, xid: u32, procedure: u32) {
    call(stream, xid, procedure, 0).unwrap();
    assert_eq!(receive(stream).unwrap(), Some(vec![xid, 1, 0, 0, 0, 0]));
}

/// A server by TCP: how many calls have come. What it says for NFS is long.
fn serve(listener: TcpListener) -> Arc<AtomicUsize> {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, calls) = (stream.unwrap(), Arc::clone(&counter));
            std::thread::spawn(move || {
                while let Ok(Some(words)) = receive(&stream) {
                    calls.fetch_add(1, Ordering::SeqCst);
                    if words[5] != DESERT {
                        let zeros = if words[3] == NFS { MOST + 200 } else { 0 };
                        let _ = send(&stream, &[words[0], 1, 0, 0, 0, 0], zeros);
                    }
                    match words[5] {
                        LEAVE | DESERT => return,
                        STALL => std::thread::sleep(PATIENCE),
                        _ => {}
                    }
                }
            });
        }
    });
    calls
}

/// A proxy that is ready.
fn proxy(dir: &Path, args: &[&str]) -> Watched {
    let mut proxy = Watched::new(dir, &[&["rpc-proxy", "--provider", "iwarp"], args].concat());
    await_ready(&mut proxy);
    proxy
}

fn await_ready(proxy: &mut Watched) {
    let mut said = String::new();
    BufReader::new(proxy.0.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "ready\n");
}

/// Where it listens for RDMA.
fn rdma(proxy: &Watched, dir: &Path) -> String {
    proxy.once(dir, |dump| dump["listeners"][0]["local"].as_str().map(str::to_owned))
}

/// Threads and descriptors of proxies.
fn load(proxies: &[Watched]) -> Vec<usize> {
    let count =
        |proxy: &Watched, what| std::fs::read_dir(format!("/proc/{}/{what}", proxy.0.id())).unwrap().count();
    proxies.iter().flat_map(|proxy| ["task", "fd"].map(|what| count(proxy, what))).collect()
}

/// Waits until it is again as it was.
fn until_load_is(proxies: &[Watched], idle: &[usize]) {
    until(|| load(proxies) == idle, || format!("threads and descriptors: {:?}, of {idle:?}", load(proxies)));
}

/// Two proxies in a row, TCP to RDMA to TCP, and a server behind them.
struct Row {
    port: u16,
    proxies: [Watched; 2],
    calls: Arc<AtomicUsize>,
    _dir: tempfile::TempDir,
}

impl Row {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("tcp:{}", listener.local_addr().unwrap());
        let second = proxy(dir.path(), &["rdma:127.0.0.1:0", &server]);
        let middle = format!("rdma:{}", rdma(&second, dir.path()));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let first = proxy(dir.path(), &[&format!("tcp:127.0.0.1:{port}"), &middle]);
        Self { port, proxies: [first, second], calls: serve(listener), _dir: dir }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }
}

#[test]
fn nothing_is_left_of_connections_that_have_ended() {
    let row = Row::new();
    let idle = load(&row.proxies);
    for xid in 0..64 {
        let stream = row.connect();
        match xid % 3 {
            0 => called(&stream, xid, ANSWER),
            1 => {
                called(&stream, xid, LEAVE);
                assert_eq!(receive(&stream).unwrap(), None, "the server has left");
            }
            _ => {
                call(&stream, xid, DESERT, 0).unwrap();
                assert_eq!(receive(&stream).unwrap(), None, "the call is to be repeated");
            }
        }
    }
    until_load_is(&row.proxies, &idle);
}

#[test]
fn what_was_sent_before_the_end_arrives() {
    let row = Row::new();
    for _ in 0..64 {
        let stream = row.connect();
        called(&stream, 0, ANSWER);
        call(&stream, 1, ANSWER, 0).unwrap();
    }
    let calls = || row.calls.load(Ordering::SeqCst);
    until(|| calls() == 128, || format!("{} of 128 calls have come", calls()));
}

#[test]
fn nothing_is_left_where_the_server_takes_nothing() {
    let row = Row::new();
    let idle = load(&row.proxies);
    let stream = row.connect();
    called(&stream, 0, STALL);
    // More than sockets take.
    for xid in 1..=32 {
        call(&stream, xid, ANSWER, MOST).unwrap();
    }
    drop(stream);
    until_load_is(&row.proxies, &idle);
    assert_eq!(row.calls.load(Ordering::SeqCst), 1);
}

#[test]
fn what_kerberos_has_wrapped_is_carried() {
    let row = Row::new();
    let stream = row.connect();
    // READ of version 3; RPCSEC_GSS with integrity or privacy, a handle, a verifier; arguments of which nothing is to be seen.
    for service in [2, 3] {
        let head = [service, 0, 2, NFS, 3, 6, 6, 24, 1, 0, 99, service, 4, 0x1234, 6, 28];
        send(&stream, &[&head[..], &[0x0404_04ff; 20]].concat(), 0).unwrap();
        let reply = receive(&stream).unwrap().unwrap();
        assert_eq!((&reply[..6], reply.len()), (&[service, 1, 0, 0, 0, 0][..], 6 + (MOST + 200) / 4));
    }
}

/// An RDMA client that asks for a connection: MPA (RFC 5044), with CRC and without private data.
fn ask(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"MPA ID Req Frame\x40\x01\x00\x00").unwrap();
    stream
}

/// Whether it has been rejected.
fn is_rejected(mut stream: &TcpStream) -> bool {
    let mut reply = [0; 20];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply[..16], b"MPA ID Rep Frame");
    reply[16] & 0x20 != 0
}

#[test]
fn clients_that_leave_while_the_server_is_sought_take_no_slot_along() {
    let dir = tempfile::tempdir().unwrap();
    // A server that has one connection waiting and takes no other: who connects, waits.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let server = listener.local_addr().unwrap();
    let waiting = TcpStream::connect(server).unwrap();

    let args = ["--max-connections", "3", "rdma:127.0.0.1:0", &format!("tcp:{server}")];
    let proxies = [proxy(dir.path(), &args)];
    let address = rdma(&proxies[0], dir.path());
    let idle = load(&proxies);
    let connections = |count| {
        proxies[0].once(dir.path(), |dump| (dump["connections"].as_array()?.len() == count).then_some(()));
    };
    let clients = [(); 3].map(|()| ask(&address));
    connections(3);
    assert!(is_rejected(&ask(&address)));
    // The others have slots, and no server yet.
    connections(3);
    drop(clients);
    connections(0);

    drop(waiting);
    SockRef::from(&listener).listen(128).unwrap();
    serve(listener);
    until_load_is(&proxies, &idle);
    let clients = [(); 3].map(|()| ask(&address));
    assert!(clients.iter().all(|client| !is_rejected(client)), "slots are lost");
}

#[test]
fn it_lives_on_when_nobody_reads_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::cargo_bin("rcg").unwrap();
    command.args(["rpc-proxy", "--provider", "iwarp", "rdma:127.0.0.1:0", "tcp:127.0.0.1:1"]);
    command.env("RCG_STATS_DIR", dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut proxy = Watched(command.spawn().unwrap());
    await_ready(&mut proxy);
    let address = rdma(&proxy, dir.path());
    drop((proxy.0.stdout.take(), proxy.0.stderr.take()));

    // It complains that there is no server, and tells the client.
    assert!(is_rejected(&ask(&address)));
    for signal in [libc::SIGUSR1, libc::SIGTERM] {
        // SAFETY: no pointers; the child has not been waited for.
        unsafe { libc::kill(proxy.0.id() as i32, signal) };
    }
    assert_eq!(proxy.0.wait().unwrap().code(), Some(0));
}
