//! `rcg ping`: a message there and back, and whether it is still the same.

use std::fmt::Write;
use std::time::Instant;

use clap::Args;
use rdmacm_gluster::engine::kind;
use rdmacm_gluster::work::by_value;
use serde::Serialize;

use crate::link::{Link, Peer, good};
use crate::output::Format;
use crate::side::{Side, Stages, Way, told};
use crate::words::Wants;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    peer: Peer,
    /// How many messages
    #[arg(short, long, default_value_t = 4)]
    count: u32,
    /// Octets of a message
    #[arg(short, long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=16 << 20))]
    size: u32,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    way: Way,
    stages: Stages,
    size: u32,
    round_trips_us: Vec<f64>,
}

impl Report {
    fn text(&self) -> String {
        let mut out = format!("{}\nconnect: {}\n", self.way.text(), self.stages.text());
        for (number, time) in self.round_trips_us.iter().enumerate() {
            // Writing to a String can't fail.
            let _ = writeln!(out, "{} octets, {}: {time:.1} us", self.size, number + 1);
        }
        out
    }
}

/// Octets that tell one message, and one place in it, from another.
fn pattern(number: u32, size: usize) -> Vec<u8> {
    (0..size)
        .map(|at| (at as u32).wrapping_mul(31).wrapping_add(number * 7 + (at as u32 >> 8)) as u8)
        .collect()
}

fn round(side: &mut Side, link: &Link, number: u32, options: &Options) -> Result<f64, String> {
    let size = options.size as usize;
    let sent = pattern(number, size);
    link.out.sge(0, size).map_err(told)?.fill(0, &sent);
    let began = Instant::now();
    link.conn.post(1, &mut by_value(|_| link.out.send(0, size))).map_err(told)?;
    let (mut time, mut done) = (None, false);
    while time.is_none() || !done {
        let event = side.next(options.peer.patience())?;
        good(&event)?;
        if event.kind != kind::RECV {
            done = true;
            continue;
        }
        time = Some(began.elapsed().as_nanos() as f64 / 1000.0);
        let mut back = vec![0; event.length];
        link.answers.sge(event.user, event.length).map_err(told)?.read(0, &mut back);
        if back != sent {
            return Err(format!("message {} has come back changed", number + 1));
        }
        link.receive(event.user)?;
    }
    time.ok_or_else(|| "no answer".into())
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let mut side = Side::new()?;
    let size = options.size;
    let wants = Wants { message: size, window: 1, answer: size, every: 1, memory: 0, echo: true };
    let link = Link::open(&mut side, &options.peer, wants, (size as usize, 1))?;
    let times = (0..options.count).map(|number| round(&mut side, &link, number, options));
    let round_trips_us = times.collect::<Result<_, _>>()?;
    let report = Report { way: link.way.clone(), stages: link.stages.clone(), size, round_trips_us };
    link.close(&mut side)?;
    options.format.show(&report, Report::text)
}
