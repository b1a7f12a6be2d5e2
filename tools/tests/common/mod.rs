//! What tests of the command share.

use std::process::{Child, Stdio};

use assert_cmd::Command;
use assert_cmd::cargo::CommandCargoExt;
use serde_json::Value;

pub(crate) fn rcg(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("rcg").unwrap();
    command.args(args).timeout(std::time::Duration::from_secs(60));
    command
}

/// What `rcg` says of the sockets in `dir`.
pub(crate) fn watch(dir: &std::path::Path, args: &[&str]) -> std::process::Output {
    rcg(&[args, &["--dir", dir.to_str().unwrap()]].concat()).output().unwrap()
}

/// A command of this test's own whose engine has a statistics socket in `dir`, until it is dropped.
pub(crate) struct Watched(pub(crate) Child);

impl Watched {
    pub(crate) fn new(dir: &std::path::Path, args: &[&str]) -> Self {
        let mut command = std::process::Command::cargo_bin("rcg").unwrap();
        command.args(args).env("RCG_STATS_DIR", dir).stdout(Stdio::piped()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// What its engine says, once `found` finds something there.
    pub(crate) fn once<T>(&self, dir: &std::path::Path, found: impl Fn(&Value) -> Option<T>) -> T {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let output = watch(dir, &["dump", "--json", "--pid", &self.0.id().to_string()]);
            let dumps: Value = serde_json::from_slice(&output.stdout).unwrap();
            if let Some(found) = found(&dumps[0]) {
                return found;
            }
            assert!(std::time::Instant::now() < end, "{dumps}");
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
