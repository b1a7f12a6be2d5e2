//! `rcg probe`: by which ways a peer can be reached.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use rdmacm_gluster::engine::{ConnectConfig, Event, QpConfig, Target, kind, resolve};
use serde::Serialize;
use socket2::SockAddr;

use crate::output::Format;
use crate::side::{Provider, Side, Stages, Way, told};
use crate::words::{PORT, Wants};

/// RCG_REASON_REFUSED and RCG_REASON_REJECTED: somebody has answered.
const REFUSED: u32 = 2;
const REJECTED: u32 = 5;

#[derive(Args)]
pub(crate) struct Options {
    /// Name or address of the peer
    host: String,
    /// Port to try: 20049 is NFS over RDMA, 24007 glusterd's
    #[arg(short, long, default_value_t = PORT)]
    port: u16,
    /// Only by one provider
    #[arg(long, value_enum, default_value = "auto")]
    provider: Provider,
    /// Seconds for each way
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    timeout: u32,
    #[command(flatten)]
    format: Format,
}

/// What became of one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// A connection came about.
    Connected,
    /// The way is there: the peer has refused, or nobody listens.
    Refused,
    /// There is no way.
    Failed,
}

/// One address of the peer by one provider.
#[derive(Serialize)]
struct Attempt {
    address: String,
    outcome: Outcome,
    #[serde(flatten)]
    way: Way,
    stages: Stages,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct Report {
    host: String,
    port: u16,
    /// The address and provider that a connect with provider auto would end at.
    chosen: Option<Chosen>,
    attempts: Vec<Attempt>,
}

#[derive(Serialize)]
struct Chosen {
    address: String,
    provider: &'static str,
    device: String,
}

impl Attempt {
    fn new(address: &SockAddr, provider: Provider, timeout: u32) -> Result<Self, String> {
        let mut side = Side::new()?;
        let text = resolve::format_addr(address);
        let qp = QpConfig { provider: provider.number(), ..QpConfig::default() };
        // What `rcg serve` takes; to others it is private data that they do not know.
        let wants = Wants { message: 64, window: 1, answer: 64, every: 1, memory: 0, echo: true };
        let private_data = wants.emit();
        let config =
            ConnectConfig { qp, timeout_ms: timeout * 1000, private_data, ..ConnectConfig::default() };
        let conn = match side.channel.connect(Target::Addresses(vec![address.clone()]), config) {
            Ok(conn) => conn,
            // The provider can't be used at all.
            Err(error) => {
                let provider = crate::side::provider_name(provider.number());
                let way = Way { provider, peer: text.clone(), ..Way::default() };
                let (reason, stages) = (Some(told(error)), Stages::default());
                return Ok(Self {
                    address: text,
                    outcome: Outcome::Failed,
                    way,
                    stages,
                    stage: None,
                    reason,
                });
            }
        };
        let event = side.next(Duration::from_secs(u64::from(timeout) + 5))?;
        let mut info = conn.info();
        if let Some(error) = &event.error {
            // The attempt that failed is gone; what is told of it has its device.
            info.device = error.device_name();
        }
        let (outcome, stage, reason) = Self::judge(&event);
        Ok(Self {
            address: text,
            outcome,
            way: Way::from(&info),
            stages: Stages::from(&info.stages),
            stage,
            reason,
        })
    }

    fn judge(event: &Event) -> (Outcome, Option<String>, Option<String>) {
        let Some(error) = event.error.as_ref().filter(|_| event.kind != kind::ESTABLISHED) else {
            return (Outcome::Connected, None, None);
        };
        let answered = [REFUSED, REJECTED].contains(&error.reason);
        let stages = ["", "address", "route", "device", "queue pair", "handshake", "ready", "connected"];
        let stage = stages.get(error.stage as usize).map(|name| (*name).to_owned());
        (if answered { Outcome::Refused } else { Outcome::Failed }, stage, Some(error.words()))
    }
}

impl Report {
    fn text(&self) -> String {
        let mut out =
            format!("{:<44} {:<8} {:<10} {:<10} TIMES\n", "ADDRESS", "PROVIDER", "DEVICE", "RESULT");
        for attempt in &self.attempts {
            let word = match attempt.outcome {
                Outcome::Connected => "connected",
                Outcome::Refused => "refused",
                Outcome::Failed => "no way",
            };
            let device = if attempt.way.device.is_empty() { "none" } else { &attempt.way.device };
            // Where nothing was begun nothing took time.
            let times = if attempt.stages == Stages::default() { "-".into() } else { attempt.stages.text() };
            // Writing to a String can't fail, here and below.
            let _ = writeln!(
                out,
                "{:<44} {:<8} {device:<10} {word:<10} {times}",
                attempt.address, attempt.way.provider
            );
            if !attempt.way.local.is_empty() {
                let _ = writeln!(out, "    from {}", attempt.way.local);
            }
            if let Some(reason) = &attempt.reason {
                let _ = writeln!(out, "    {}", reason.replace('\n', "\n    "));
            }
        }
        let _ = match &self.chosen {
            Some(way) => writeln!(
                out,
                "\na connect would use {}, provider {}, device {}",
                way.address, way.provider, way.device
            ),
            None => writeln!(
                out,
                "\nno connection to {} port {}; does an RDMA program listen there? `rcg serve` is one",
                self.host, self.port
            ),
        };
        out
    }
}

pub(crate) fn run(options: &Options) -> Result<ExitCode, String> {
    let found = resolve::resolve(&options.host, &options.port.to_string()).map_err(told)?;
    let providers = match options.provider {
        Provider::Auto => &[Provider::Verbs, Provider::Iwarp][..],
        Provider::Verbs => &[Provider::Verbs],
        Provider::Iwarp => &[Provider::Iwarp],
    };
    let mut attempts = Vec::new();
    // In the order in which the library would try them.
    for provider in providers {
        for address in &found {
            attempts.push(Attempt::new(address, *provider, options.timeout)?);
        }
    }
    let first = attempts.iter().find(|attempt| attempt.outcome == Outcome::Connected);
    let chosen = first.map(|attempt| Chosen {
        address: attempt.address.clone(),
        provider: attempt.way.provider,
        device: attempt.way.device.clone(),
    });
    let code = if chosen.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    let report = Report { host: options.host.clone(), port: options.port, chosen, attempts };
    options.format.show(&report, Report::text)?;
    Ok(code)
}
