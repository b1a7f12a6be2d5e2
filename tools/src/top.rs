//! `rcg top`: connections that move something now.

use std::collections::HashMap;
use std::fmt::Write;
use std::io::{IsTerminal, stdout};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::output::{Format, complain};
use crate::sockets::{Connection, Dump, NOBODY, Selection, number, sum};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    selection: Selection,
    /// Seconds between two looks
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1.0)]
    interval: f64,
    /// Stop after so many; without end by default
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    format: Format,
}

/// What a connection has moved by some time.
#[derive(Clone, Copy)]
struct Moved {
    time_ms: u64,
    sent: u64,
    received: u64,
    operations: u64,
}

/// A connection since the last look.
#[derive(Serialize)]
struct Line {
    program: String,
    pid: u32,
    engine: u32,
    id: u64,
    state: String,
    provider: String,
    device: String,
    peer: String,
    sent_per_second: f64,
    received_per_second: f64,
    operations_per_second: f64,
    in_flight: u64,
    stalls: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rpc: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A connection's process, engine and id.
type Key = (u32, u32, u64);

#[derive(Default)]
struct Looks(HashMap<Key, Moved>);

impl Looks {
    /// Lines of one look, the busiest first.
    fn lines(&mut self, dumps: &[Dump]) -> Vec<Line> {
        let before = std::mem::take(&mut self.0);
        let mut lines = Vec::new();
        for dump in dumps {
            lines.extend(dump.connections.iter().map(|conn| self.line(&before, dump, conn)));
        }
        let weight = |line: &Line| line.sent_per_second + line.received_per_second;
        lines.sort_by(|one, other| weight(other).total_cmp(&weight(one)));
        lines
    }

    fn line(&mut self, before: &HashMap<Key, Moved>, dump: &Dump, conn: &Connection) -> Line {
        let of = |name| number(&conn.stats, name);
        let now = Moved {
            time_ms: dump.time_ms,
            sent: of("bytes_sent"),
            received: of("bytes_received"),
            operations: sum(&conn.stats, "ops"),
        };
        let key = (dump.pid, dump.engine, conn.id);
        self.0.insert(key, now);
        // At the first look nothing is known to have moved.
        let then = before.get(&key).copied().unwrap_or(now);
        let seconds = now.time_ms.saturating_sub(then.time_ms).max(1) as f64 / 1000.0;
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        Line {
            program: dump.program.clone(),
            pid: dump.pid,
            engine: dump.engine,
            id: conn.id,
            state: conn.state.clone(),
            provider: conn.provider.clone(),
            device: conn.device.clone(),
            peer: conn.peer.clone(),
            sent_per_second: rate(now.sent, then.sent),
            received_per_second: rate(now.received, then.received),
            operations_per_second: rate(now.operations, then.operations),
            in_flight: conn.in_flight,
            stalls: of("send_stalls") + of("recv_stalls") + of("queue_full"),
            rpc: conn.rpc.clone(),
            error: conn.error.clone(),
        }
    }
}

/// The columns of connections for RPC: what is used and granted, of our credits and of the peer's.
fn rpc_columns(rpc: &Map<String, Value>) -> String {
    let of = |name| number(rpc, name);
    let ours = format!("{}/{}", of("credits_in_use"), of("credits_granted"));
    let theirs = format!("{}/{}", of("peer_credits_in_use"), of("peer_credits_granted"));
    format!("{ours:>10} {:>7} {theirs:>10}", of("calls_waiting"))
}

fn text(lines: &Vec<Line>) -> String {
    let mut out = String::new();
    if stdout().is_terminal() {
        // Home, and clear what is below.
        out += "\x1b[H\x1b[J";
    }
    out += "PROGRAM          PID     PEER                         STATE         DEVICE    MB/s out   MB/s in      op/s  \
            FLIGHT  STALLS";
    let rpc = lines.iter().any(|line| line.rpc.is_some());
    out += if rpc { "    CREDITS WAITING   PEER'S\n" } else { "\n" };
    for line in lines {
        // Writing to a String can't fail.
        let _ = writeln!(
            out,
            "{:<16} {:<7} {:<28} {:<13} {:<8} {:>9.1} {:>9.1} {:>9.0} {:>7} {:>7} {}",
            line.program,
            line.pid,
            line.peer,
            line.state,
            line.device,
            line.sent_per_second / 1e6,
            line.received_per_second / 1e6,
            line.operations_per_second,
            line.in_flight,
            line.stalls,
            line.rpc.as_ref().map(rpc_columns).unwrap_or_default()
        );
    }
    out
}

/// Says so when a signal has come that is to end us.
fn signalled() -> Result<Receiver<()>, String> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|error| error.to_string())?;
    let (sender, receiver) = channel();
    let wait = move || {
        signals.forever().next();
        // Nobody waits any more: it ends anyway.
        let _ = sender.send(());
    };
    std::thread::Builder::new().name("rcg-signals".into()).spawn(wait).map_err(|error| error.to_string())?;
    Ok(receiver)
}

pub(crate) fn run(options: &Options) -> Result<ExitCode, String> {
    if !(0.01..=86_400.0).contains(&options.interval) {
        return Err("--interval is 0.01 to 86400".into());
    }
    let end = signalled()?;
    let interval = Duration::from_secs_f64(options.interval);
    let mut looks = Looks::default();
    let mut dumps = options.selection.dumps();
    looks.lines(&dumps);
    let mut left = options.count;
    while !dumps.is_empty() && left != Some(0) {
        if end.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
            return Ok(ExitCode::SUCCESS);
        }
        dumps = options.selection.dumps();
        if !options.format.tell(&looks.lines(&dumps), text)? {
            return Ok(ExitCode::SUCCESS);
        }
        left = left.map(|left| left - 1);
    }
    if dumps.is_empty() {
        complain(NOBODY);
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn engines_of_one_process_are_told_apart() {
        let dump = |engine: u32, time_ms: u64, sent: u64| -> Dump {
            serde_json::from_value(serde_json::json!({
                "pid": 7, "engine": engine, "program": "p", "time_ms": time_ms, "stats": {},
                "connections": [{
                    "id": 1, "state": "established", "provider": "iwarp", "device": "tcp", "local": "l", "peer": "p",
                    "in_flight": 0, "send_room": 1, "receives": 0, "stats": { "bytes_sent": sent }
                }],
            }))
            .unwrap()
        };
        let mut looks = Looks::default();
        looks.lines(&[dump(0, 1000, 500), dump(1, 1000, 0)]);
        let lines = looks.lines(&[dump(0, 2000, 500), dump(1, 2000, 100)]);
        let found: Vec<_> = lines.iter().map(|line| (line.engine, line.sent_per_second)).collect();
        assert_eq!(found, [(1, 100.0), (0, 0.0)]);
    }
}
