//! What an administrator types, and what programs read of it.

use std::io::Read;
use std::process::{Child, ChildStdout, Stdio};

use assert_cmd::Command;
use assert_cmd::cargo::CommandCargoExt;
use serde_json::Value;

fn rcg(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("rcg").unwrap();
    command.args(args).timeout(std::time::Duration::from_secs(60));
    command
}

/// The output of a command that ends with `code`, as JSON.
fn json(args: &[&str], code: i32) -> Value {
    let output = rcg(args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn array(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

#[test]
fn info_names_providers_and_addresses() {
    let info = json(&["info", "--json"], 0);
    let iwarp = array(&info["providers"]).iter().find(|provider| provider["name"] == "iwarp").unwrap();
    assert_eq!(iwarp["available"], true);
    assert!(iwarp["limits"]["max_sge"].as_u64().unwrap() > 0);
    let verbs = array(&info["providers"]).iter().find(|provider| provider["name"] == "verbs").unwrap();
    // What can't be used says why.
    assert_eq!(verbs["available"] == true, verbs["reason"].is_null());
    let lo = array(&info["addresses"]).iter().find(|address| address["address"] == "127.0.0.1").unwrap();
    assert!(lo["provider"].is_string() && lo["interface"] == "lo", "{lo}");
    let text = rcg(&["info"]).assert().success();
    assert!(String::from_utf8_lossy(&text.get_output().stdout).contains("127.0.0.1"));
}

#[test]
fn doctor_connects_by_iwarp_and_says_what_is_missing() {
    let report = json(&["doctor", "--json", "--provider", "iwarp"], 0);
    assert_eq!(report["healthy"], true);
    let connection =
        array(&report["findings"]).iter().find(|finding| finding["check"] == "connection").unwrap();
    assert_eq!(connection["status"], "ok");
}

#[test]
fn doctor_fails_where_devices_are_wanted_and_none_is_there() {
    if std::path::Path::new("/sys/class/infiniband").exists() {
        // A machine with devices is the test bed's business.
        return;
    }
    let report = json(&["doctor", "--json", "--provider", "verbs"], 1);
    let verbs = array(&report["findings"]).iter().find(|finding| finding["check"] == "verbs").unwrap();
    assert_eq!(verbs["status"], "fail");
    assert!(verbs["fix"].as_str().unwrap().contains("rdma link add"));
}

#[test]
fn bad_usage_is_2() {
    for args in [&["doctor", "--provider", "tcp"][..], &["nonsense"], &[]] {
        rcg(args).assert().code(2);
    }
}

/// A server of this test's own, on ports that the kernel has chosen.
struct Server {
    child: Child,
    stdout: ChildStdout,
    port: String,
    tcp_port: String,
}

impl Server {
    fn new(args: &[&str]) -> Self {
        let mut command = std::process::Command::cargo_bin("rcg").unwrap();
        command.args(["serve", "127.0.0.1", "--port", "0", "--provider", "iwarp", "--json"]).args(args);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let ready: Value =
            serde_json::Deserializer::from_reader(&mut stdout).into_iter().next().unwrap().unwrap();
        let port = ready["address"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
        let tcp_port = ready["tcp_port"].to_string();
        Self { child, stdout, port, tcp_port }
    }

    /// The output of a client that ends with `code`.
    fn asked(&self, args: &[&str], code: i32) -> Value {
        json(&[args, &["127.0.0.1", "--port", &self.port, "--json"]].concat(), code)
    }

    /// The same of one that compares with raw TCP.
    fn compared(&self, args: &[&str]) -> Value {
        self.asked(&[args, &["--tcp-port", &self.tcp_port]].concat(), 0)
    }

    /// Ends it as an administrator does; what it says at the end.
    fn end(mut self) -> Value {
        let mut text = String::new();
        // SAFETY: no pointers; the child has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        self.stdout.read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success());
        serde_json::from_str(&text).unwrap()
    }
}

#[test]
fn ping_and_probe() {
    let server = Server::new(&[]);
    for size in ["1", "64", "200000"] {
        let report = server.asked(&["ping", "--size", size, "--count", "3"], 0);
        assert_eq!((&report["provider"], &report["device"]), (&"iwarp".into(), &"tcp".into()));
        assert_eq!(array(&report["round_trips_us"]).len(), 3);
        assert!(report["stages"]["handshake_us"].as_u64().unwrap() > 0);
    }
    let report = server.asked(&["probe"], 0);
    assert_eq!(report["chosen"]["provider"], "iwarp");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let report = json(&["probe", "127.0.0.1", "--provider", "iwarp", "--port", &nobody, "--json"], 1);
    let attempt = &report["attempts"][0];
    assert_eq!((&attempt["outcome"], &attempt["stage"]), (&"refused".into(), &"route".into()));
    assert!(attempt["reason"].as_str().unwrap().contains("hint: is the server running"), "{attempt}");
    assert!(report["chosen"].is_null());
    let end = server.end();
    assert_eq!((end["accepted"].as_u64(), end["messages"].as_u64()), (Some(4), Some(9)));
}

#[test]
fn lat_measures_each_operation_and_tcp() {
    let server = Server::new(&[]);
    for op in ["send", "write", "read"] {
        for (size, connections) in [("1", 1), ("4096", 2)] {
            let number = connections.to_string();
            let report =
                server.compared(&["lat", "--op", op, "-s", size, "-n", "20", "--rounds", "2", "-c", &number]);
            for kind in ["rdma", "tcp"] {
                let times = &report[kind];
                assert_eq!(times["count"].as_u64(), Some(20 * connections), "{report}");
                let of = |name: &str| times[name].as_f64().unwrap();
                let ordered = [of("min_us"), of("p50_us"), of("p90_us"), of("p99_us"), of("max_us")];
                assert!(ordered[0] > 0.0 && ordered.is_sorted(), "{times}");
            }
            assert!(report["ratio"].as_f64().unwrap() > 0.0);
        }
    }
    server.end();
}

#[test]
fn bw_moves_octets_by_each_operation_one_way_and_both() {
    let server = Server::new(&[]);
    let quick = ["--seconds", "0.1", "--rounds", "2"];
    for op in ["send", "write", "read"] {
        for more in [
            &["-w", "1", "-s", "17"][..],
            &["-c", "3", "-t", "2"],
            &["-b"],
            &["-b", "-s", "100000", "-w", "2"],
        ] {
            let report = server.compared(&[&["bw", "--op", op], &quick[..], more].concat());
            for kind in ["rdma", "tcp"] {
                let rounds = array(&report[kind]["rounds"]);
                assert_eq!(rounds.len(), 2);
                let size = report["size"].as_u64().unwrap();
                for round in rounds {
                    let octets = round["octets"].as_u64().unwrap();
                    assert!(octets > 0 && octets % size == 0, "{op} {more:?}: {round}");
                }
                assert!(report[kind]["bytes_per_second"].as_f64().unwrap() > 0.0);
            }
        }
    }
    server.end();
}

#[test]
fn serve_refuses_what_it_can_not_hold() {
    let server = Server::new(&["--max-memory", "1"]);
    let output =
        rcg(&["bw", "127.0.0.1", "-p", &server.port, "-o", "write", "-s", "1000000"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("rejected the connection: full"), "{output:?}");
    assert_eq!(server.end()["refused"], 1);
}

#[test]
fn a_server_that_is_not_there_is_an_error() {
    for command in ["ping", "lat", "bw"] {
        let output = rcg(&[command, "127.0.0.1", "-p", "1"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("Connection refused"), "{output:?}");
    }
}
