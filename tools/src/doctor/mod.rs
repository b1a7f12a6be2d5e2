//! `rcg doctor`: what keeps RDMA from working on this machine, and how to mend it.

mod gluster;
mod limits;
mod network;
mod rdma;

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::host::Host;
use crate::output::Format;
use crate::side::Provider;

/// GlusterFS's daemon and its port for RDMA of old; NFS and NFS over RDMA.
const PORTS: [u16; 4] = [24007, 24008, 2049, 20049];

#[derive(Args)]
pub(crate) struct Options {
    /// What this machine has to be able to do: with verbs, a missing device is a failure
    #[arg(long, value_enum, default_value = "auto")]
    provider: Provider,
    /// Say who has these TCP ports
    #[arg(long, value_name = "PORT", value_delimiter = ',', default_values_t = PORTS)]
    ports: Vec<u16>,
    #[command(flatten)]
    format: Format,
}

/// How a check has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// As it should be.
    Ok,
    /// Nothing to mend, but worth knowing.
    Note,
    /// Works, but not well, or not for everybody.
    Warn,
    /// Keeps RDMA from working.
    Fail,
}

/// What one check has found.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    check: &'static str,
    status: Status,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

/// What the checks work on, and what they have found.
struct Doctor {
    host: Host,
    /// How bad it is that devices can't be used.
    without_devices: Status,
    findings: Vec<Finding>,
}

impl Doctor {
    fn new(host: Host, provider: Provider) -> Self {
        let without_devices = match provider {
            Provider::Verbs => Status::Fail,
            Provider::Auto => Status::Warn,
            Provider::Iwarp => Status::Note,
        };
        Self { host, without_devices, findings: Vec::new() }
    }

    fn find(&mut self, check: &'static str, status: Status, text: impl Into<String>) {
        self.findings.push(Finding { check, status, text: text.into(), fix: None });
    }

    fn fix(&mut self, check: &'static str, status: Status, text: impl Into<String>, fix: impl Into<String>) {
        self.findings.push(Finding { check, status, text: text.into(), fix: Some(fix.into()) });
    }
}

#[derive(Serialize)]
struct Diagnosis {
    healthy: bool,
    findings: Vec<Finding>,
}

impl Diagnosis {
    fn text(&self) -> String {
        let mut out = String::new();
        for finding in &self.findings {
            let word = match finding.status {
                Status::Ok => "ok",
                Status::Note => "note",
                Status::Warn => "WARN",
                Status::Fail => "FAIL",
            };
            // Writing to a String can't fail.
            let _ = writeln!(out, "{word:<5} {:<12} {}", finding.check, finding.text);
            if let Some(fix) = &finding.fix {
                let _ = writeln!(out, "{:18} fix: {fix}", "");
            }
        }
        let count = |status| self.findings.iter().filter(|finding| finding.status == status).count();
        let _ = writeln!(out, "\n{} failures, {} warnings", count(Status::Fail), count(Status::Warn));
        out
    }
}

/// All checks.
pub(crate) fn run(options: &Options) -> Result<ExitCode, String> {
    let mut doctor = Doctor::new(Host::this(), options.provider);
    doctor.rdma()?;
    doctor.connections(options.provider);
    doctor.limits();
    doctor.network(&options.ports);
    doctor.gluster();
    let healthy = doctor.findings.iter().all(|finding| finding.status != Status::Fail);
    options.format.show(&Diagnosis { healthy, findings: doctor.findings }, Diagnosis::text)?;
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A machine of files for tests.
#[cfg(test)]
mod fake {
    use super::*;

    pub(super) struct Machine {
        folder: tempfile::TempDir,
    }

    impl Machine {
        pub(super) fn new(files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = folder.path().join(path.trim_start_matches('/'));
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            Self { folder }
        }

        /// What a check finds on it: status, text and fix of all findings named `check`.
        pub(super) fn findings(&self, check: &str, run: impl FnOnce(&mut Doctor)) -> Vec<Finding> {
            let mut doctor = Doctor::new(Host::at(self.folder.path()), Provider::Verbs);
            run(&mut doctor);
            doctor.findings.into_iter().filter(|finding| finding.check == check).collect()
        }
    }
}
