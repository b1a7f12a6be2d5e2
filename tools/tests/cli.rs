//! What an administrator types, and what programs read of it.

mod common;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::{Arc, mpsc};

use assert_cmd::Command;
use assert_cmd::cargo::CommandCargoExt;
use rdmacm_gluster::engine::{
    Channel, ChannelConfig, ConnectConfig, Engine, EngineConfig, PROVIDER_IWARP, QpConfig, Target,
};
use serde_json::Value;

use common::{Watched, rcg, watch};

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
    assert_eq!((&report["healthy"], &report["works_by"][0]), (&true.into(), &"iwarp".into()));
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
    stdout: Option<ChildStdout>,
    port: String,
    tcp_port: String,
}

impl Server {
    fn new(args: &[&str]) -> Self {
        Self::spawn(std::process::Command::cargo_bin("rcg").unwrap(), args)
    }

    /// One that has a statistics socket in `dir`.
    fn watched(dir: &std::path::Path) -> Self {
        let mut command = std::process::Command::cargo_bin("rcg").unwrap();
        command.env("RCG_STATS_DIR", dir);
        Self::spawn(command, &[])
    }

    fn spawn(mut command: std::process::Command, args: &[&str]) -> Self {
        command.args(["serve", "127.0.0.1", "--port", "0", "--provider", "iwarp", "--json"]).args(args);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let ready: Value =
            serde_json::Deserializer::from_reader(&mut stdout).into_iter().next().unwrap().unwrap();
        let port = ready["address"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
        let tcp_port = ready["tcp_port"].to_string();
        Self { child, stdout: Some(stdout), port, tcp_port }
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
        self.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success());
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for Server {
    /// A test that has failed leaves none.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
    let text = rcg(&["probe", "127.0.0.1", "--port", &server.port, "--provider", "iwarp"]).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.lines().any(|line| line.starts_with("    from 127.0.0.1:")), "{text}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let report = json(&["probe", "127.0.0.1", "--provider", "iwarp", "--port", &nobody, "--json"], 1);
    let attempt = &report["attempts"][0];
    assert_eq!((&attempt["outcome"], &attempt["stage"]), (&"refused".into(), &"route".into()));
    assert!(attempt["reason"].as_str().unwrap().contains("hint: is the server running"), "{attempt}");
    assert!(report["chosen"].is_null());
    let end = server.end();
    assert_eq!((end["accepted"].as_u64(), end["messages"].as_u64()), (Some(5), Some(9)));
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

#[test]
fn a_raw_tcp_port_that_says_nothing_is_an_error() {
    let server = Server::new(&[]);
    // The kernel accepts for it.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    for command in [&["lat", "-n", "10"][..], &["bw", "--seconds", "0.1"], &["connect-rate", "-n", "2"]] {
        let ends = ["127.0.0.1", "-p", &server.port, "--tcp-port", &port, "--timeout", "1"];
        let output = rcg(&[command, &ends].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("raw TCP: no answer within 1 s"), "{text}");
    }
    server.end();
}

#[test]
fn serve_lets_a_raw_tcp_client_go_that_says_nothing() {
    let server = Server::new(&["--keepalive", "1"]);
    let mut silent = std::net::TcpStream::connect(format!("127.0.0.1:{}", server.tcp_port)).unwrap();
    silent.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    // The shortest keepalive serves those who speak.
    server.compared(&["lat", "-n", "10"]);
    server.end();
}

#[test]
fn dump_and_top_show_live_connections() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::watched(dir.path());
    let socket = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap();
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    // A client that moves octets until it is stopped.
    let mut command = std::process::Command::cargo_bin("rcg").unwrap();
    command.args(["bw", "127.0.0.1", "--port", &server.port, "--no-tcp", "--seconds", "60", "-o", "write"]);
    let mut client = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let conn = loop {
        let dumps: Value = serde_json::from_slice(&watch(dir.path(), &["dump", "--json"]).stdout).unwrap();
        let conn = &dumps[0]["connections"][0];
        if conn["stats"]["bytes_received"].as_u64() > Some(1 << 20) {
            assert_eq!((&dumps[0]["program"], &dumps[0]["stats"]["requests"]), (&"rcg".into(), &1.into()));
            break conn.clone();
        }
    };
    let of = |name: &str| conn[name].as_str().unwrap().to_owned();
    assert_eq!(
        (of("state"), of("provider"), of("device")),
        ("established".into(), "iwarp".into(), "tcp".into())
    );
    assert!(
        of("local").ends_with(&server.port) && conn["error"].is_null() && conn["in_flight"].is_u64(),
        "{conn}"
    );

    let lines: Value =
        serde_json::from_slice(&watch(dir.path(), &["top", "-n", "1", "-i", "0.2", "--json"]).stdout)
            .unwrap();
    assert!(lines[0]["received_per_second"].as_f64().unwrap() > 0.0, "{lines}");
    let text = String::from_utf8(watch(dir.path(), &["dump", "--format", "prometheus"]).stdout).unwrap();
    for line in text.lines() {
        // A comment, or NAME{LABELS} VALUE.
        let sample = line
            .rsplit_once(' ')
            .is_some_and(|(name, value)| name.ends_with('}') && value.parse::<u64>().is_ok());
        assert!(line.starts_with("# TYPE rcg_") || (line.starts_with("rcg_") && sample), "{line}");
    }
    assert!(text.contains("rcg_conn_bytes_received_total{program=\"rcg\""), "{text}");

    client.kill().unwrap();
    client.wait().unwrap();
    server.end();
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "the socket is left");
    let output = watch(dir.path(), &["dump", "--json"]);
    assert_eq!((output.status.code(), output.stdout.trim_ascii()), (Some(1), &b"[]"[..]));
}

#[test]
fn dump_and_top_show_rpc_credits() {
    let dir = tempfile::tempdir().unwrap();
    // A server that takes a call and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("tcp:{}", silent.local_addr().unwrap());
    let args = ["rpc-proxy", "--provider", "iwarp", "--credits", "5", "rdma:127.0.0.1:0", &server];
    let proxy = Watched::new(dir.path(), &args);
    let port = proxy.once(dir.path(), |dump| {
        dump["listeners"][0]["local"].as_str()?.rsplit(':').next().map(str::to_owned)
    });
    let ping = Watched::new(dir.path(), &["rpc-ping", "127.0.0.1", "--port", &port, "--timeout", "60"]);

    let rpc = |of: &Watched, credit: &str| {
        of.once(dir.path(), |dump| {
            let rpc = &dump["connections"][0]["rpc"];
            (rpc[credit] == 1).then(|| rpc.clone())
        })
    };
    let levels = |[granted, used, peer_granted, peer_used]: [u32; 4]| {
        serde_json::json!({
            "credits_granted": granted, "credits_in_use": used, "calls_waiting": 0,
            "peer_credits_granted": peer_granted, "peer_credits_in_use": peer_used,
        })
    };
    // One credit until the first reply; 16 for the backchannel.
    assert_eq!(rpc(&ping, "credits_in_use"), levels([1, 1, 16, 0]));
    assert_eq!(rpc(&proxy, "peer_credits_in_use"), levels([1, 0, 5, 1]));

    let said = |args: &[&str]| String::from_utf8(watch(dir.path(), args).stdout).unwrap();
    let text = said(&["dump"]);
    for words in
        ["1 of 1 credits in use, 0 calls wait for one; the peer uses 0 of 16", "the peer uses 1 of 5"]
    {
        assert!(text.contains(words), "{text}");
    }
    let text = said(&["dump", "--format", "prometheus"]);
    let samples = text.lines().filter(|line| line.starts_with("rcg_conn_rpc_peer_credits_granted{"));
    let mut granted: Vec<_> = samples.map(|line| line.rsplit_once(' ').unwrap().1).collect();
    granted.sort_unstable();
    assert_eq!(granted, ["16", "5"]);
    let text = said(&["top", "-n", "1", "-i", "0.1"]);
    assert!(text.contains("CREDITS") && text.contains("1/5"), "{text}");
}

/// Serves what an engine says, as the library does, until the process ends.
fn serve_dumps(path: &std::path::Path, engine: &Arc<Engine>) {
    let (listener, engine) = (std::os::unix::net::UnixListener::bind(path).unwrap(), Arc::clone(engine));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A reader that has gone is no matter.
            let _ = stream.and_then(|mut stream| stream.write_all(engine.dump().as_bytes()));
        }
    });
}

#[test]
fn two_engines_of_one_process_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    // One that takes connections and never answers: they stay.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let pid = std::process::id();
    let channels = [0, 1].map(|number| {
        let engine = Engine::create(EngineConfig::default()).unwrap();
        let channel = Channel::create(&engine, ChannelConfig { manual: true, ..ChannelConfig::default() });
        let channel = channel.unwrap();
        let qp = QpConfig { provider: PROVIDER_IWARP, ..QpConfig::default() };
        let target = Target::Addresses(vec![silent.local_addr().unwrap().into()]);
        let config = ConnectConfig { qp, timeout_ms: 600_000, ..ConnectConfig::default() };
        channel.connect(target, config).unwrap();
        serve_dumps(&dir.path().join(format!("{pid}-{number}.sock")), &engine);
        channel
    });

    let dumps: Value = serde_json::from_slice(&watch(dir.path(), &["dump", "--json"]).stdout).unwrap();
    let named =
        |dump: &Value| [&dump["pid"], &dump["engine"], &dump["connections"][0]["id"]].map(Value::as_u64);
    let mine = |engine| [Some(pid.into()), Some(engine), Some(1)];
    assert_eq!(array(&dumps).iter().map(named).collect::<Vec<_>>(), [mine(0), mine(1)]);
    let text = String::from_utf8(watch(dir.path(), &["dump", "--format", "prometheus"]).stdout).unwrap();
    let series: Vec<_> = text.lines().filter_map(|line| Some(line.rsplit_once("} ")?.0)).collect();
    let unique: HashSet<_> = series.iter().collect();
    assert!(series.len() > 20 && unique.len() == series.len(), "{text}");
    let top = watch(dir.path(), &["top", "-n", "1", "-i", "0.01", "--json"]);
    let lines: Value = serde_json::from_slice(&top.stdout).unwrap();
    let mut engines: Vec<_> = array(&lines).iter().map(|line| line["engine"].as_u64().unwrap()).collect();
    engines.sort_unstable();
    assert_eq!(engines, [0, 1]);
    for channel in channels {
        channel.destroy().unwrap();
    }
}

/// A socket in `dir` of a program without connections; says when it is asked.
fn idle_program(dir: &std::path::Path) -> mpsc::Receiver<()> {
    let listener = std::os::unix::net::UnixListener::bind(dir.join("1-0.sock")).unwrap();
    let (asked, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let dump = r#"{"pid": 1, "program": "idle", "time_ms": 1, "stats": {}, "connections": []}"#;
        for stream in listener.incoming() {
            stream.unwrap().write_all(dump.as_bytes()).unwrap();
            // The test may have ended.
            let _ = asked.send(());
        }
    });
    receiver
}

/// The exit code of a command that is about to end.
fn code_of(mut child: Child) -> Option<i32> {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if std::time::Instant::now() >= end {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it goes on");
        }
        std::thread::yield_now();
    }
}

fn top(dir: &std::path::Path, interval: &str) -> Child {
    let mut command = std::process::Command::cargo_bin("rcg").unwrap();
    command.args(["top", "--interval", interval, "--dir"]).arg(dir).stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn top_ends_with_its_reader() {
    let dir = tempfile::tempdir().unwrap();
    let _asked = idle_program(dir.path());
    let mut child = top(dir.path(), "0.01");
    let mut head = [0; 7];
    child.stdout.take().unwrap().read_exact(&mut head).unwrap();
    assert_eq!((&head, code_of(child)), (b"PROGRAM", Some(0)));
}

#[test]
fn top_ends_at_a_signal_whatever_the_interval() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let dir = tempfile::tempdir().unwrap();
        let asked = idle_program(dir.path());
        let child = top(dir.path(), "3600");
        // It knows what to do about signals before it asks.
        asked.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
        // SAFETY: no pointers; the child has not been waited for.
        unsafe { libc::kill(child.id() as i32, signal) };
        assert_eq!(code_of(child), Some(0));
    }
}

#[test]
fn without_the_directory_there_is_no_socket_and_no_word() {
    let server = Server::watched(std::path::Path::new("/nonexistent/rcg"));
    server.asked(&["ping"], 0);
    server.end();
    let dir = tempfile::tempdir().unwrap();
    // What a program that was killed has left.
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("1-0.sock")).unwrap());
    let output = watch(dir.path(), &["dump", "--json"]);
    assert_eq!((output.status.code(), output.stdout.trim_ascii()), (Some(1), &b"[]"[..]));
}

#[test]
fn connect_rate_times_connects() {
    let server = Server::new(&[]);
    for concurrent in ["1", "4"] {
        let report = server.compared(&["connect-rate", "-n", "20", "-c", concurrent]);
        assert_eq!(
            (report["rdma"]["times"]["count"].as_u64(), report["failed"].as_u64()),
            (Some(20), Some(0))
        );
        assert_eq!(report["tcp"]["times"]["count"], 20);
        assert!(report["rdma"]["connections_per_second"].as_f64().unwrap() > 0.0);
        assert!(report["stages"]["handshake_us"].as_u64().unwrap() > 0, "{report}");
    }
    assert_eq!(server.end()["accepted"], 40);
}

#[test]
fn plot_draws_a_line_for_each_kind() {
    let server = Server::new(&[]);
    let dir = tempfile::tempdir().unwrap();
    let results = dir.path().join("results.json");
    let mut text = String::new();
    for size in ["64", "4096"] {
        text += &server.compared(&["lat", "-n", "10", "--rounds", "1", "-s", size]).to_string();
        text += &server
            .compared(&["bw", "--seconds", "0.05", "--rounds", "1", "-o", "write", "-s", size])
            .to_string();
    }
    server.end();
    std::fs::write(&results, text).unwrap();
    let drawing = dir.path().join("out.svg");
    rcg(&["plot", results.to_str().unwrap(), "-o", drawing.to_str().unwrap()]).assert().success();
    let svg = std::fs::read_to_string(&drawing).unwrap();
    assert!(svg.trim_end().ends_with("</svg>"));
    for name in [
        "Round trip, median",
        "Throughput",
        "send, iwarp (tcp)",
        "write, iwarp (tcp)",
        "write, raw TCP",
        "4 KiB",
    ] {
        assert!(svg.contains(name), "{name} is missing");
    }
    std::fs::write(&results, "{\"test\": 1}").unwrap();
    let output = rcg(&["plot", results.to_str().unwrap(), "-o", "/nonexistent/x.svg"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not a result of lat or bw"));
}

#[test]
fn completion_is_a_script_that_bash_can_read() {
    let output = rcg(&["completion", "bash"]).output().unwrap();
    assert!(output.status.success());
    let script = String::from_utf8(output.stdout).unwrap();
    for command in ["doctor", "connect-rate", "rpc-proxy", "--bidirectional"] {
        assert!(script.contains(command), "{command} is missing");
    }
    Command::new("bash").args(["-n", "/dev/stdin"]).write_stdin(script).assert().success();
    for shell in ["zsh", "fish"] {
        rcg(&["completion", shell]).assert().success();
    }
}

#[test]
fn each_command_has_help_and_a_manual_page() {
    let help = String::from_utf8(rcg(&["--help"]).output().unwrap().stdout).unwrap();
    let listed =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<_> =
        listed.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect();
    assert!(commands.len() > 10, "{help}");
    for command in commands {
        rcg(&[command, "--help"]).assert().success();
        let page = format!("{}/../man/rcg-{command}.8", env!("CARGO_MANIFEST_DIR"));
        assert!(std::path::Path::new(&page).exists(), "no {page}");
    }
}
