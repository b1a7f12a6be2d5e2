//! `rcg bw`: how many octets in a second.

use clap::Args;
use serde::Serialize;
use std::time::{Duration, Instant};

use super::figures::{Rate, Round};
use super::pump::{Load, Moved, Pump, pump};
use super::tcp::{self, Stream};
use super::{Common, Op, in_threads};
use crate::cpu;
use crate::side::{Side, Stages, Way};
use crate::words::MAX_WINDOW;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Octets of an operation
    #[arg(short, long, default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    size: u32,
    /// Operations on their way on each connection
    #[arg(short, long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=MAX_WINDOW as i64))]
    window: u32,
    /// Both ways at a time: Sends are answered by Sends as long, Writes go with Reads
    #[arg(short, long)]
    bidirectional: bool,
    /// Threads to spread connections over
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// Seconds of RDMA in all, and of TCP
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

#[derive(Serialize)]
struct Report {
    test: &'static str,
    op: Op,
    bidirectional: bool,
    size: u32,
    window: u32,
    connections: u32,
    threads: u32,
    #[serde(flatten)]
    way: Way,
    stages: Stages,
    rdma: Rate,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<Rate>,
    /// RDMA's rate over TCP's.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
}

/// One thread's channel with its connections.
struct Share {
    side: Side,
    pumps: Vec<Pump>,
}

fn shares(options: &Options, load: Load) -> Result<Vec<Share>, String> {
    let (common, engine) = (&options.common, Common::engine()?);
    let threads = options.threads.min(common.connections);
    let share = |number| {
        let mut side = Side::of(&engine, Some(common.versus.spin))?;
        let mine = (0..common.connections).filter(|at| at % threads == number);
        let pumps = mine.map(|_| Pump::open(&mut side, &common.peer, load)).collect::<Result<_, _>>()?;
        Ok(Share { side, pumps })
    };
    (0..threads).map(share).collect()
}

fn rdma_round(shares: &mut [Share], seconds: f64) -> Result<Round, String> {
    let used = cpu::used_us();
    let found = in_threads(shares, |share| pump(&share.side, &mut share.pumps, seconds))?;
    let most = |of: fn(&Moved) -> f64| found.iter().map(of).fold(0.0, f64::max);
    Ok(Round {
        octets: found.iter().map(|moved| moved.octets).sum(),
        operations: found.iter().map(|moved| moved.operations).sum(),
        seconds: most(|moved| moved.seconds),
        client_cpu_us: cpu::used_us() - used,
        server_cpu_us: most(|moved| moved.server_cpu_us as f64) as u64,
    })
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let (common, both) = (&options.common, options.bidirectional);
    if u64::from(options.size) * u64::from(options.window) > u64::from(u32::MAX) {
        return Err("--size times --window is 4 GiB at most".into());
    }
    if !(0.01..=86_400.0).contains(&options.seconds) {
        return Err("--seconds is 0.01 to 86400".into());
    }
    let load = Load { op: common.op, both, size: options.size, window: options.window };
    let mut shares = shares(options, load)?;
    let seconds = options.seconds / f64::from(common.rounds);
    let progress = common.progress();
    let (mut rdma, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..common.rounds {
        rdma.push(rdma_round(&mut shares, seconds)?);
        progress.inc(1);
        if !common.versus.no_tcp {
            raw.push(tcp::round(common, || Stream {
                op: common.op,
                both,
                size: options.size,
                window: options.window,
                end: Instant::now() + Duration::from_secs_f64(seconds),
            })?);
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    let link =
        shares.first().and_then(|share| share.pumps.first()).map(|pump| &pump.link).ok_or("no connection")?;
    let (rdma, tcp) = (Rate::of(rdma), (!common.versus.no_tcp).then(|| Rate::of(raw)));
    let report = Report {
        test: "bw",
        op: common.op,
        bidirectional: both,
        size: options.size,
        window: options.window,
        connections: common.connections,
        threads: options.threads,
        way: link.way.clone(),
        stages: link.stages.clone(),
        ratio: tcp.as_ref().map(|tcp| rdma.bytes_per_second / tcp.bytes_per_second),
        rdma,
        tcp,
    };
    common.format.show(&report, Report::text)?;
    shares.into_iter().try_for_each(|Share { mut side, pumps }| {
        pumps.into_iter().try_for_each(|pump| pump.link.close(&mut side))
    })
}

impl Report {
    fn text(&self) -> String {
        let both = if self.bidirectional { ", both ways" } else { "" };
        let mut out = format!(
            "{}\n{}{both}, {} octets, {} at a time, {} connections\n{}\n{}\n",
            self.way.text(),
            self.op.name(),
            self.size,
            self.window,
            self.connections,
            Rate::HEAD,
            self.rdma.line("RDMA")
        );
        if let (Some(tcp), Some(ratio)) = (&self.tcp, self.ratio) {
            out += &format!("{}\nRDMA moves {ratio:.2} times what raw TCP does\n", tcp.line("TCP"));
        }
        out
    }
}
