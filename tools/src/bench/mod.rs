//! `rcg lat`, `rcg bw` and `rcg connect-rate`: how fast, and compared with raw TCP in the same run.

pub(crate) mod bw;
pub(crate) mod connects;
mod figures;
pub(crate) mod lat;
mod pump;
mod tcp;

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use rdmacm_gluster::engine::{Engine, EngineConfig};
use serde::Serialize;

use crate::link::Peer;
use crate::output::Format;
use crate::side::told;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Op {
    Send,
    Write,
    Read,
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Write => "write",
            Self::Read => "read",
        }
    }
}

/// How RDMA is compared with raw TCP.
#[derive(Args)]
struct Versus {
    /// Microseconds to look for work before sleeping, with RDMA and with TCP
    #[arg(long, value_name = "US", default_value_t = 50)]
    spin: u32,
    /// Port of raw TCP; the one after --port unless given
    #[arg(long, value_name = "PORT")]
    tcp_port: Option<u16>,
    /// Do without the comparison
    #[arg(long)]
    no_tcp: bool,
}

impl Versus {
    /// Where a peer serves raw TCP.
    fn place<'a>(&self, peer: &'a Peer) -> tcp::Place<'a> {
        tcp::Place { peer, port: self.tcp_port, spin: Duration::from_micros(self.spin.into()) }
    }
}

/// What lat and bw have in common.
#[derive(Args)]
pub(crate) struct Common {
    #[command(flatten)]
    peer: Peer,
    /// Which operation
    #[arg(short, long, value_enum, default_value = "send")]
    op: Op,
    /// Connections
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    connections: u32,
    /// Rounds; RDMA and raw TCP take turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    #[command(flatten)]
    versus: Versus,
    #[command(flatten)]
    format: Format,
}

impl Common {
    fn place(&self) -> tcp::Place<'_> {
        self.versus.place(&self.peer)
    }

    fn engine() -> Result<Arc<Engine>, String> {
        Engine::create(EngineConfig::default()).map_err(told)
    }

    /// A line on a terminal, which goes when all is done; nothing elsewhere.
    fn progress(&self) -> ProgressBar {
        let kinds = if self.versus.no_tcp { 1 } else { 2 };
        let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}");
        let bar = ProgressBar::new(u64::from(self.rounds) * kinds);
        bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_message(self.op.name())
    }
}

/// Runs `work` for each of `items` in a thread of its own; the first error, if there is one.
fn in_threads<T: Send, R: Send>(
    items: &mut [T],
    work: impl Fn(&mut T) -> Result<R, String> + Sync,
) -> Result<Vec<R>, String> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = items.iter_mut().map(|item| scope.spawn(|| work(item))).collect();
        let ended = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into())));
        ended.collect()
    })
}
