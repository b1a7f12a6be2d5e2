//! `rcg lat`: how long one operation takes, there and back.

use std::time::Instant;

use clap::Args;
use hdrhistogram::Histogram;
use rdmacm_gluster::engine::kind;
use rdmacm_gluster::work::{Opcode, SendWr, by_value};
use serde::Serialize;

use super::figures::{Times, histogram};
use super::tcp;
use super::{Common, Op, in_threads};
use crate::cpu;
use crate::link::{Link, good};
use crate::raw::Raw;
use crate::side::{Side, Stages, Way, told};
use crate::words::{TcpWants, Wants};

/// Octets of the message that tells of a Write, of its answer, and of what asks for octets over TCP.
const NOTE: u32 = 8;
/// Operations before each round that do not count.
const WARM_UP: u32 = 50;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Octets of an operation
    #[arg(short, long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    size: u32,
    /// Operations on each connection
    #[arg(short, long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    number: u32,
}

/// What a thread has: a connection over RDMA, and one over TCP.
struct Pair {
    side: Side,
    link: Link,
    tcp: Option<Raw>,
}

#[derive(Serialize)]
struct Report {
    test: &'static str,
    op: Op,
    size: u32,
    connections: u32,
    #[serde(flatten)]
    way: Way,
    stages: Stages,
    rdma: Times,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<Times>,
    /// Median over RDMA in that over TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
}

impl Options {
    fn wants(&self) -> Wants {
        let (message, answer, memory) = match self.common.op {
            Op::Send => (self.size, self.size, 0),
            Op::Write | Op::Read => (NOTE, NOTE, self.size),
        };
        Wants { message, window: 1, answer, every: 1, memory, echo: false }
    }

    fn tcp_wants(&self) -> TcpWants {
        let (message, answer) = match self.common.op {
            Op::Send => (self.size, self.size),
            Op::Write => (self.size, NOTE),
            Op::Read => (NOTE, self.size),
        };
        TcpWants { message, answer }
    }
}

/// One operation by RDMA, until it has been answered or is done.
fn operate(side: &mut Side, link: &Link, op: Op, size: usize) -> Result<(), String> {
    let there = (link.offer.addr, link.offer.key);
    let mut missing = 2;
    match op {
        Op::Send => link.conn.post(1, &mut by_value(|_| link.out.send(0, size))),
        Op::Write => link.conn.post(
            2,
            &mut by_value(|at| match at {
                0 => link.out.wr(Opcode::Write, (0, size), there).map(|wr| SendWr { flags: 0, ..wr }),
                _ => link.out.send(1, size.min(NOTE as usize)),
            }),
        ),
        Op::Read => {
            missing = 1;
            link.conn.post(1, &mut by_value(|_| link.out.wr(Opcode::Read, (0, size), there)))
        }
    }
    .map_err(told)?;
    while missing > 0 {
        let event = side.next(link.patience())?;
        good(&event)?;
        if event.kind == kind::RECV {
            link.receive(event.user)?;
        }
        missing -= 1;
    }
    Ok(())
}

/// Times of `number` operations.
fn timed(number: u32, mut operation: impl FnMut() -> Result<(), String>) -> Result<Histogram<u64>, String> {
    let mut times = histogram();
    for _ in 0..WARM_UP.min(number) {
        operation()?;
    }
    for _ in 0..number {
        let began = Instant::now();
        operation()?;
        times.saturating_record(began.elapsed().as_nanos() as u64);
    }
    Ok(times)
}

/// All connections do their operations, each in its thread; adds their times.
fn round(
    pairs: &mut [Pair],
    total: &mut (Histogram<u64>, u64),
    one: impl Fn(&mut Pair) -> Result<Histogram<u64>, String> + Sync,
) -> Result<(), String> {
    let began = cpu::used_us();
    let found = in_threads(pairs, one)?;
    total.1 += cpu::used_us() - began;
    found.iter().try_for_each(|times| total.0.add(times)).map_err(|error| error.to_string())
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let (common, size) = (&options.common, options.size as usize);
    let engine = Common::engine()?;
    let pair = |_| {
        let mut side = Side::of(&engine, Some(common.versus.spin))?;
        let link = Link::open(&mut side, &common.peer, options.wants(), (size, 1))?;
        let tcp = (!common.versus.no_tcp)
            .then(|| tcp::connect(&common.place(), options.tcp_wants()).map(|(raw, _)| raw));
        Ok(Pair { side, link, tcp: tcp.transpose()? })
    };
    let mut pairs = (0..common.connections).map(pair).collect::<Result<Vec<_>, String>>()?;
    let number = options.number.div_ceil(common.rounds);
    let progress = common.progress();
    let (mut rdma, mut raw) = ((histogram(), 0), (histogram(), 0));
    for _ in 0..common.rounds {
        round(&mut pairs, &mut rdma, |Pair { side, link, .. }| {
            timed(number, || operate(side, link, common.op, size))
        })?;
        progress.inc(1);
        if !common.versus.no_tcp {
            let wants = options.tcp_wants();
            round(&mut pairs, &mut raw, |pair| {
                let raw = pair.tcp.as_mut().ok_or("no TCP connection")?;
                let (message, mut answer) = (vec![1; wants.message as usize], vec![0; wants.answer as usize]);
                timed(number, || tcp::round_trip(raw, &message, &mut answer))
            })?;
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    let link = &pairs.first().ok_or("no connection")?.link;
    let (rdma, tcp) = (Times::of(&rdma.0, rdma.1), (!common.versus.no_tcp).then(|| Times::of(&raw.0, raw.1)));
    let report = Report {
        test: "lat",
        op: common.op,
        size: options.size,
        connections: common.connections,
        way: link.way.clone(),
        stages: link.stages.clone(),
        ratio: tcp.as_ref().map(|tcp| rdma.p50_us / tcp.p50_us),
        rdma,
        tcp,
    };
    common.format.show(&report, Report::text)?;
    pairs.into_iter().try_for_each(|Pair { mut side, link, .. }| link.close(&mut side))
}

impl Report {
    fn text(&self) -> String {
        let what = match self.op {
            Op::Send => "Send there, Send of the same size back",
            Op::Write => "Write and a Send of 8 octets there, one of 8 back",
            Op::Read => "Read",
        };
        let mut out = format!("{}\n{what}, {} octets\n{}\n", self.way.text(), self.size, Times::HEAD);
        out += &(self.rdma.line("RDMA") + "\n");
        if let (Some(tcp), Some(ratio)) = (&self.tcp, self.ratio) {
            out += &format!("{}\nmedian over RDMA is {ratio:.2} of that over raw TCP\n", tcp.line("TCP"));
        }
        out
    }
}
