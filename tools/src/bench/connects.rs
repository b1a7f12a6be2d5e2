//! `rcg connect-rate`: how many connections in a second, and where their time goes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use rdmacm_gluster::engine::{Event, kind};
use serde::Serialize;

use super::figures::{Times, histogram};
use super::{Common, Versus, in_threads, tcp};
use crate::cpu;
use crate::link::Peer;
use crate::output::Format;
use crate::side::{Side, Stages, Way, conn_of, text_of, told};
use crate::words::{TcpWants, Wants};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    peer: Peer,
    /// Connections in all
    #[arg(short, long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    number: u32,
    /// Connections at a time
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    concurrent: u32,
    #[command(flatten)]
    versus: Versus,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Figures {
    connections_per_second: f64,
    /// From the wish to the established connection.
    times: Times,
}

#[derive(Serialize)]
struct Report {
    test: &'static str,
    concurrent: u32,
    #[serde(flatten)]
    way: Way,
    /// Means.
    stages: Stages,
    failed: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    rdma: Figures,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<Figures>,
}

const WANTS: Wants = Wants { message: 16, window: 1, answer: 16, every: 1, memory: 0, echo: false };

/// Connections that come and go.
struct Churn<'a> {
    options: &'a Options,
    side: Side,
    began: HashMap<usize, Instant>,
    times: Histogram<u64>,
    stages: [Duration; rdmacm_gluster::error::STAGE_COUNT],
    way: Way,
    failed: u32,
    failure: Option<String>,
}

impl Churn<'_> {
    fn start(&mut self) -> Result<(), String> {
        let began = Instant::now();
        let config = self.options.peer.config(WANTS.emit(), 1);
        let conn = self.side.channel.connect(self.options.peer.target(), config).map_err(told)?;
        self.began.insert(conn.handle(), began);
        Ok(())
    }

    /// Returns whether a connection has gone.
    fn take(&mut self, event: &Event) -> Result<bool, String> {
        match event.kind {
            kind::ESTABLISHED => {
                let conn = conn_of(event).ok_or("the connection has gone")?;
                if let Some(began) = self.began.get(&event.conn) {
                    self.times.saturating_record(began.elapsed().as_nanos() as u64);
                }
                let info = conn.info();
                self.stages.iter_mut().zip(info.stages).for_each(|(sum, time)| *sum += time);
                self.way = Way::from(&info);
                conn.disconnect().map_err(told)?;
            }
            kind::CONNECT_FAILED => {
                self.failed += 1;
                self.failure.get_or_insert_with(|| text_of(event));
            }
            kind::CLOSED => {
                self.began.remove(&event.conn);
                return Ok(true);
            }
            _ => {}
        }
        Ok(false)
    }

    /// All of them; how long they took.
    fn run(&mut self) -> Result<Duration, String> {
        let (number, began) = (self.options.number, Instant::now());
        let mut started = self.options.concurrent.min(number);
        (0..started).try_for_each(|_| self.start())?;
        let mut gone = 0;
        while gone < number {
            let event = self.side.next(self.options.peer.patience() * 2)?;
            if self.take(&event)? {
                gone += 1;
                if started < number {
                    started += 1;
                    self.start()?;
                }
            }
        }
        Ok(began.elapsed())
    }
}

/// The same over TCP: until the server has said a word.
fn raw(options: &Options) -> Result<Figures, String> {
    let (used, began) = (cpu::used_us(), Instant::now());
    let share = options.number.div_ceil(options.concurrent);
    let mut shares = vec![share; options.concurrent as usize];
    let found = in_threads(&mut shares, |share| {
        let mut times = histogram();
        for _ in 0..*share {
            let began = Instant::now();
            drop(tcp::connect(&options.versus.place(&options.peer), TcpWants { message: 16, answer: 0 })?);
            times.saturating_record(began.elapsed().as_nanos() as u64);
        }
        Ok(times)
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let mut times = histogram();
    found.iter().try_for_each(|found| times.add(found)).map_err(|error| error.to_string())?;
    Ok(Figures {
        connections_per_second: times.len() as f64 / seconds,
        times: Times::of(&times, cpu::used_us() - used),
    })
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let used = cpu::used_us();
    let mut churn = Churn {
        options,
        side: Side::of(&Common::engine()?, Some(options.versus.spin))?,
        began: HashMap::new(),
        times: histogram(),
        stages: Default::default(),
        way: Way::default(),
        failed: 0,
        failure: None,
    };
    let seconds = churn.run()?.as_secs_f64();
    let made = churn.times.len();
    if made == 0 {
        return Err(churn.failure.unwrap_or_else(|| "no connection".into()));
    }
    let mean = churn.stages.map(|sum| sum / u32::try_from(made).unwrap_or(u32::MAX));
    let times = Times::of(&churn.times, cpu::used_us() - used);
    let report = Report {
        test: "connect-rate",
        concurrent: options.concurrent,
        way: churn.way.clone(),
        stages: Stages::from(&mean),
        failed: churn.failed,
        failure: churn.failure.take(),
        rdma: Figures { connections_per_second: made as f64 / seconds, times },
        tcp: (!options.versus.no_tcp).then(|| raw(options)).transpose()?,
    };
    options.format.show(&report, Report::text)?;
    if report.failed > 0 { Err(format!("{} connections failed", report.failed)) } else { Ok(()) }
}

impl Report {
    fn text(&self) -> String {
        let line = |name, figures: &Figures| {
            format!(
                "{}  {:.0} connections in a second\n",
                figures.times.line(name),
                figures.connections_per_second
            )
        };
        let mut out = format!(
            "{}\n{} at a time; means: {}\n{}\n{}",
            self.way.text(),
            self.concurrent,
            self.stages.text(),
            Times::HEAD,
            line("RDMA", &self.rdma)
        );
        out += &self.tcp.as_ref().map(|tcp| line("TCP", tcp)).unwrap_or_default();
        if let Some(failure) = &self.failure {
            out += &format!("{} failed, first: {failure}\n", self.failed);
        }
        out
    }
}
