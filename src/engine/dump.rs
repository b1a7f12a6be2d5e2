//! All that is known of an engine, as JSON: for whoever looks at a program that runs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::channel::Channel;
use super::config::{PROVIDER_IWARP, PROVIDER_VERBS};
use super::conn::Conn;
use super::endpoint::Endpoint;
use super::event::ErrorReport;
use super::instance::Engine;
use super::json::Json;
use super::listener::Listener;
use super::resolve::format_addr;
use super::stats::Stats;
use super::upper::Upper;
use super::{Object, each_object, names};
use crate::cm::Role;

/// Failures that are remembered.
const FAILURES: usize = 16;

/// The last failures of an engine, with when they were.
#[derive(Default)]
pub(super) struct Failures(VecDeque<(SystemTime, Arc<ErrorReport>)>);

impl Failures {
    pub(super) fn add(&mut self, report: Arc<ErrorReport>) {
        if self.0.len() == FAILURES {
            self.0.pop_front();
        }
        self.0.push_back((SystemTime::now(), report));
    }
}

impl Engine {
    /// Its counters, channels, listeners, connections and last failures, as one JSON object.
    pub fn dump(&self) -> String {
        let mut json = Json::default();
        json.object(None, |json| {
            json.text(Some("version"), env!("CARGO_PKG_VERSION"));
            json.number("pid", std::process::id().into());
            json.text(Some("program"), &program());
            json.number("time_ms", since_epoch(SystemTime::now()));
            json.object(Some("stats"), |json| write_stats(json, &self.stats()));
            let channels = self.channels();
            json.array("channels", |json| {
                channels.iter().for_each(|channel| write_channel(json, channel));
            });
            json.array("listeners", |json| {
                self.listeners().iter().for_each(|listener| write_listener(json, listener));
            });
            json.array("connections", |json| {
                let conns = channels.iter().flat_map(|channel| channel.conns());
                conns.for_each(|conn| write_conn(json, &conn));
            });
            json.array("failures", |json| {
                for (time, report) in &self.failures().0 {
                    json.object(None, |json| {
                        json.number("time_ms", since_epoch(*time));
                        json.text(Some("text"), &report.words());
                    });
                }
            });
        });
        json.into_text()
    }

    fn listeners(&self) -> Vec<Arc<Listener>> {
        let mut listeners = Vec::new();
        each_object(|object| match object {
            Object::Listener(listener) if std::ptr::eq(&**listener.engine(), self) => {
                listeners.push(Arc::clone(listener))
            }
            _ => {}
        });
        listeners
    }
}

fn since_epoch(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

fn program() -> String {
    std::fs::read_to_string("/proc/self/comm").map(|name| name.trim_end().to_owned()).unwrap_or_default()
}

/// Numbers as they are; of tables what is not 0, by name.
fn write_stats(json: &mut Json, stats: &Stats) {
    stats.numbers().for_each(|(name, number)| json.number(name, number));
    for (name, table) in stats.tables() {
        let names = match name {
            "failed_at" => &names::STAGES[..],
            "ops" | "op_bytes" => &names::OPS,
            _ => &names::REASONS,
        };
        json.object(Some(name), |json| {
            let counted = table.iter().enumerate().filter(|(_, number)| **number > 0);
            counted.for_each(|(at, number)| json.number(names::of(names, at), *number));
        });
    }
}

fn write_channel(json: &mut Json, channel: &Channel) {
    json.object(None, |json| {
        json.number("id", channel.handle() as u64);
        json.object(Some("stats"), |json| write_stats(json, &channel.stats()));
    });
}

fn write_listener(json: &mut Json, listener: &Listener) {
    let info = listener.info();
    json.object(None, |json| {
        json.text(Some("local"), &format_addr(&info.local));
        json.number("backlog", info.backlog.into());
        json.number("pending", info.pending.into());
        json.number("accepted", info.accepted);
        json.number("refused_pending", info.refused_pending);
        json.number("failed_handshakes", info.failed_handshakes);
        json.number("accept_errors", info.accept_errors);
    });
}

fn write_conn(json: &mut Json, conn: &Conn) {
    // A protocol on top posts behind its own lock: not to be asked behind the connection's.
    let (info, stats, figures) = (conn.info(), conn.stats(), conn.upper().map(Upper::figures));
    let inner = conn.inner.lock();
    let (in_flight, receives) = match &inner.endpoint {
        Endpoint::Iwarp(iwarp) => iwarp.qp().queued(),
        Endpoint::Verbs(verbs) => verbs.queued(),
    };
    let role = if inner.life.role() == Role::Active { "active" } else { "passive" };
    let (age, error) = (inner.life.elapsed(Instant::now()), inner.last_error.clone());
    drop(inner);
    let address = |address: &Option<_>| address.as_ref().map(format_addr).unwrap_or_default();
    json.object(None, |json| {
        json.number("id", conn.id());
        json.number("channel", conn.channel().handle() as u64);
        json.text(Some("state"), names::of(&names::STATES, info.state as usize));
        json.text(Some("role"), role);
        json.text(Some("provider"), provider(info.provider));
        json.text(Some("device"), &info.device);
        json.text(Some("local"), &address(&info.local));
        json.text(Some("peer"), &address(&info.peer));
        json.number("age_ms", age.as_millis() as u64);
        json.number("send_depth", info.send_depth.into());
        json.number("in_flight", in_flight as u64);
        json.number("send_room", u64::from(info.send_depth).saturating_sub(in_flight as u64));
        json.number("recv_depth", info.recv_depth.into());
        json.number("receives", receives as u64);
        if let Some(error) = &error {
            json.text(Some("error"), &error.words());
        }
        json.object(Some("stats"), |json| write_stats(json, &stats));
        if let Some((name, figures)) = &figures {
            json.object(Some(name), |json| {
                figures.iter().for_each(|(name, number)| json.number(name, *number))
            });
        }
    });
}

fn provider(number: u32) -> &'static str {
    match number {
        PROVIDER_VERBS => "verbs",
        PROVIDER_IWARP => "iwarp",
        _ => "auto",
    }
}
