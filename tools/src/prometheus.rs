//! Statistics in the text exposition format of Prometheus (version 0.0.4).

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use crate::sockets::{Connection, Dump, number};

/// Levels; all else counts.
const LEVELS: [&str; 2] = ["open", "registered_bytes"];
/// What each connection is told of: name, and whether it is a level.
const OF_CONNECTIONS: [(&str, bool); 7] = [
    ("bytes_sent", false),
    ("bytes_received", false),
    ("send_stalls", false),
    ("recv_stalls", false),
    ("queue_full", false),
    ("in_flight", true),
    ("send_room", true),
];

/// Samples of one name have to stand together, whichever program they are of.
#[derive(Default)]
struct Families(BTreeMap<String, (bool, Vec<String>)>);

impl Families {
    fn add(&mut self, name: &str, level: bool, labels: &[(&str, &str)], value: u64) {
        let name = if level { format!("rcg_{name}") } else { format!("rcg_{name}_total") };
        let labels: Vec<_> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        let sample = format!("{name}{{{}}} {value}", labels.join(","));
        self.0.entry(name).or_insert_with(|| (level, Vec::new())).1.push(sample);
    }

    fn program(&mut self, dump: &Dump) {
        let pid = dump.pid.to_string();
        let engine = dump.engine.to_string();
        let own = [("program", &*dump.program), ("pid", &*pid), ("engine", &*engine)];
        for (name, value) in &dump.stats {
            match value {
                Value::Number(_) => {
                    self.add(name, LEVELS.contains(&&**name), &own, number(&dump.stats, name))
                }
                Value::Object(table) => {
                    let label = match &**name {
                        "failed_at" => "stage",
                        "ops" | "op_bytes" => "op",
                        _ => "reason",
                    };
                    for (key, value) in table {
                        let labels = [&own[..], &[(label, key.as_str())]].concat();
                        self.add(name, false, &labels, value.as_u64().unwrap_or(0));
                    }
                }
                _ => {}
            }
        }
        dump.connections.iter().for_each(|conn| self.connection(&own, conn));
    }

    fn connection(&mut self, own: &[(&str, &str)], conn: &Connection) {
        let id = conn.id.to_string();
        let ends = [
            ("conn", &*id),
            ("peer", &*conn.peer),
            ("provider", &*conn.provider),
            ("device", &*conn.device),
            ("state", &*conn.state),
        ];
        let labels = [own, &ends].concat();
        for (name, level) in OF_CONNECTIONS {
            let value = match name {
                "in_flight" => conn.in_flight,
                "send_room" => conn.send_room,
                _ => number(&conn.stats, name),
            };
            self.add(&format!("conn_{name}"), level, &labels, value);
        }
        for (name, value) in conn.rpc.iter().flatten() {
            self.add(&format!("conn_rpc_{name}"), true, &labels, value.as_u64().unwrap_or(0));
        }
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// All of them.
pub(crate) fn text(dumps: &[Dump]) -> String {
    let mut families = Families::default();
    dumps.iter().for_each(|dump| families.program(dump));
    let mut out = String::new();
    for (name, (level, samples)) in &families.0 {
        let kind = if *level { "gauge" } else { "counter" };
        // Writing to a String can't fail.
        let _ = writeln!(out, "# TYPE {name} {kind}\n{}", samples.join("\n"));
    }
    out
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn families_stand_together_and_values_are_escaped() {
        let dump = |pid: u32, engine: u32| -> Dump {
            serde_json::from_value(serde_json::json!({
                "pid": pid, "engine": engine, "program": "a\"b", "time_ms": 1, "version": "0.1.0",
                "stats": { "connects": 3, "open": 1, "failed_at": { "queue pair": 2 } },
                "connections": [{
                    "id": 7, "state": "established", "provider": "iwarp", "device": "tcp", "local": "l", "peer": "p",
                    "in_flight": 5, "send_room": 59, "receives": 0, "stats": { "bytes_sent": 9 },
                    "rpc": { "credits_in_use": 4, "calls_waiting": 3 }
                }],
            }))
            .unwrap()
        };
        let text = text(&[dump(1, 0), dump(2, 0), dump(2, 1)]);
        let lines: Vec<_> = text.lines().collect();
        let at = lines.iter().position(|line| *line == "# TYPE rcg_connects_total counter").unwrap();
        assert_eq!(lines[at + 1], r#"rcg_connects_total{program="a\"b",pid="1",engine="0"} 3"#);
        assert_eq!(lines[at + 2], r#"rcg_connects_total{program="a\"b",pid="2",engine="0"} 3"#);
        assert_eq!(lines[at + 3], r#"rcg_connects_total{program="a\"b",pid="2",engine="1"} 3"#);
        assert!(
            text.contains(r#"rcg_failed_at_total{program="a\"b",pid="1",engine="0",stage="queue pair"} 2"#)
        );
        assert!(text.contains("# TYPE rcg_open gauge\n"));
        let sent =
            r#"pid="2",engine="1",conn="7",peer="p",provider="iwarp",device="tcp",state="established"} 9"#;
        assert!(text.contains(sent), "{text}");
        let waiting = r#"rcg_conn_rpc_calls_waiting{program="a\"b",pid="1",engine="0",conn="7",peer="p","#;
        assert!(
            text.contains(waiting) && text.contains("# TYPE rcg_conn_rpc_credits_in_use gauge\n"),
            "{text}"
        );
        // Each name has one TYPE.
        let types = lines.iter().filter(|line| line.starts_with("# TYPE")).count();
        assert_eq!(types, 5 + OF_CONNECTIONS.len());
    }
}
