//! The same over TCP without RDMA.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::figures::Round;
use super::{Common, Op, in_threads};
use crate::cpu;
use crate::link::Peer;
use crate::raw::Raw;
use crate::words::{TALLY, Tally, TcpWants};

fn told(error: std::io::Error) -> String {
    format!("raw TCP: {error}")
}

/// Where raw TCP is served.
pub(super) struct Place<'a> {
    pub(super) peer: &'a Peer,
    /// `None` = the one after RDMA's.
    pub(super) port: Option<u16>,
    pub(super) spin: Duration,
}

/// Connects; the server's first tally.
pub(super) fn connect(place: &Place<'_>, wants: TcpWants) -> Result<(Raw, Tally), String> {
    let peer = place.peer;
    let port = place.port.unwrap_or_else(|| peer.port.wrapping_add(1));
    let host = peer.host.as_str();
    let mut failure = format!("raw TCP: {host} has no address");
    for address in (host, port).to_socket_addrs().map_err(told)? {
        match TcpStream::connect_timeout(&address, peer.patience()) {
            Ok(stream) => {
                let congestion = peer.tuning.congestion.as_deref();
                let mut raw = Raw::new(stream, place.spin, peer.patience(), congestion).map_err(told)?;
                raw.write_all(&wants.emit()).map_err(told)?;
                return tally(&mut raw).map(|tally| (raw, tally));
            }
            Err(error) => failure = format!("raw TCP: connect to {address}: {error}"),
        }
    }
    Err(failure)
}

fn tally(raw: &mut Raw) -> Result<Tally, String> {
    let mut octets = [0; TALLY];
    raw.read_exact(&mut octets).map_err(told)?;
    Tally::parse(&octets).ok_or_else(|| "raw TCP: no tally".into())
}

/// A message and its answer.
pub(super) fn round_trip(raw: &mut Raw, message: &[u8], answer: &mut [u8]) -> Result<(), String> {
    raw.write_all(message).and_then(|()| raw.read_exact(answer)).map_err(told)
}

/// What a round over TCP moves, and how.
#[derive(Clone, Copy)]
pub(super) struct Stream {
    pub(super) op: Op,
    pub(super) both: bool,
    pub(super) size: u32,
    pub(super) window: u32,
    pub(super) end: Instant,
}

impl Stream {
    pub(super) fn wants(op: Op, both: bool, size: u32) -> TcpWants {
        match op {
            _ if both => TcpWants { message: size, answer: size },
            Op::Send | Op::Write => TcpWants { message: size, answer: 0 },
            Op::Read => TcpWants { message: 8, answer: size },
        }
    }

    /// Moves octets until the end; what the server has counted.
    fn go(self, raw: &mut Raw) -> Result<Tally, String> {
        match self.op {
            _ if self.both => return self.both_ways(raw),
            Op::Send | Op::Write => self.push(raw)?,
            Op::Read => self.pull(raw)?,
        }
        raw.finish().map_err(told)?;
        tally(raw)
    }

    fn push(self, raw: &mut Raw) -> Result<(), String> {
        let message = vec![1; self.size as usize];
        // At least once, as over RDMA.
        loop {
            raw.write_all(&message).map_err(told)?;
            if Instant::now() >= self.end {
                return Ok(());
            }
        }
    }

    /// As many requests on their way as the window has.
    fn pull(self, raw: &mut Raw) -> Result<(), String> {
        let mut answer = vec![0; self.size as usize];
        (0..self.window).try_for_each(|_| raw.write_all(&[0; 8])).map_err(told)?;
        while Instant::now() < self.end {
            raw.read_exact(&mut answer).map_err(told)?;
            raw.write_all(&[0; 8]).map_err(told)?;
        }
        (0..self.window).try_for_each(|_| raw.read_exact(&mut answer)).map_err(told)
    }

    /// One thread writes, this one reads all that comes: answers, and the tally behind them.
    fn both_ways(self, raw: &mut Raw) -> Result<Tally, String> {
        let mut writer = raw.try_clone().map_err(told)?;
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                let result = self.push(&mut writer);
                writer.finish().map_err(told).and(result)
            });
            let tally = read_to_end(raw, self.size as usize);
            writer.join().unwrap_or_else(|_| Err("a thread panicked".into())).and(tally)
        })
    }
}

/// Reads to the end of the stream; the tally in its last octets.
fn read_to_end(raw: &mut Raw, size: usize) -> Result<Tally, String> {
    let mut buffer = vec![0; size + TALLY];
    let mut held = 0;
    loop {
        let count = raw.read_some(buffer.get_mut(held..).unwrap_or_default()).map_err(told)?;
        let filled = held + count;
        held = filled.min(TALLY);
        buffer.copy_within(filled - held..filled, 0);
        if count == 0 {
            let tally = buffer.get(..held).and_then(Tally::parse);
            return tally.ok_or_else(|| "raw TCP: no tally".into());
        }
    }
}

/// One round on fresh connections, each with a thread.
pub(super) fn round(common: &Common, make: impl Fn() -> Stream) -> Result<Round, String> {
    let plan = make();
    let wants = Stream::wants(plan.op, plan.both, plan.size);
    let mut raws =
        (0..common.connections).map(|_| connect(&common.place(), wants)).collect::<Result<Vec<_>, _>>()?;
    let first = raws.first().map_or(0, |(_, tally)| tally.cpu_us);
    let (began, used) = (Instant::now(), cpu::used_us());
    let plan = make();
    let found = in_threads(&mut raws, |(raw, _)| plan.go(raw))?;
    let messages: u64 = found.iter().map(|tally| tally.messages).sum();
    let size = u64::from(plan.size);
    Ok(Round {
        octets: messages * size * if plan.both { 2 } else { 1 },
        operations: messages,
        seconds: began.elapsed().as_secs_f64(),
        client_cpu_us: cpu::used_us() - used,
        server_cpu_us: found.iter().map(|tally| tally.cpu_us).max().unwrap_or(first) - first,
    })
}
