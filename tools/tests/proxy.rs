//! `rcg rpc-proxy` between clients and servers that come and go.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::Watched;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
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

/// A server by TCP: how many calls have come.
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
                        let _ = send(&stream, &[words[0], 1, 0, 0, 0, 0], 0);
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
        let proxy = |listen: &str, server: &str| {
            let mut proxy = Watched::new(dir.path(), &["rpc-proxy", "--provider", "iwarp", listen, server]);
            let mut said = String::new();
            BufReader::new(proxy.0.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
            assert_eq!(said, "ready\n");
            proxy
        };
        let second = proxy("rdma:127.0.0.1:0", &server);
        let middle = second.once(dir.path(), |dump| {
            dump["listeners"][0]["local"].as_str().map(|address| format!("rdma:{address}"))
        });
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let first = proxy(&format!("tcp:127.0.0.1:{port}"), &middle);
        Self { port, proxies: [first, second], calls: serve(listener), _dir: dir }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Threads and descriptors of both proxies.
    fn load(&self) -> Vec<usize> {
        let count = |proxy: &Watched, what| {
            std::fs::read_dir(format!("/proc/{}/{what}", proxy.0.id())).unwrap().count()
        };
        self.proxies.iter().flat_map(|proxy| ["task", "fd"].map(|what| count(proxy, what))).collect()
    }
}

#[test]
fn nothing_is_left_of_connections_that_have_ended() {
    let row = Row::new();
    let idle = row.load();
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
    until(|| row.load() == idle, || format!("threads and descriptors: {:?}, of {idle:?}", row.load()));
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
    let idle = row.load();
    let stream = row.connect();
    called(&stream, 0, STALL);
    // More than sockets take.
    for xid in 1..=32 {
        call(&stream, xid, ANSWER, 1 << 20).unwrap();
    }
    drop(stream);
    until(|| row.load() == idle, || format!("threads and descriptors: {:?}, of {idle:?}", row.load()));
    assert_eq!(row.calls.load(Ordering::SeqCst), 1);
}
