//! What an administrator types, and what programs read of it.

use assert_cmd::Command;
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
