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
    /// Providers by which a connection came about.
    works_by: Vec<&'static str>,
    findings: Vec<Finding>,
}

impl Doctor {
    fn new(host: Host, provider: Provider) -> Self {
        let without_devices = match provider {
            Provider::Verbs => Status::Fail,
            Provider::Auto => Status::Warn,
            Provider::Iwarp => Status::Note,
        };
        Self { host, without_devices, works_by: Vec::new(), findings: Vec::new() }
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
    works_by: Vec<&'static str>,
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
        let _ = writeln!(out, "\n{}", self.verdict());
        out
    }

    /// What one wants to know first, in one line.
    fn verdict(&self) -> String {
        let names = self.works_by.iter().map(|name| match *name {
            "verbs" => "verbs (RDMA devices)",
            _ => "iwarp (TCP sockets, no device)",
        });
        let works = match names.collect::<Vec<_>>().join(" and ") {
            names if names.is_empty() => "RDMA does not work here".to_owned(),
            names => format!("RDMA works here by provider {names}"),
        };
        let of = |status, word: &str| {
            let count = self.findings.iter().filter(|finding| finding.status == status).count();
            format!("{count} {word}{}", if count == 1 { "" } else { "s" })
        };
        format!("{works}; {}, {}", of(Status::Fail, "failure"), of(Status::Warn, "warning"))
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
    let Doctor { works_by, findings, .. } = doctor;
    options.format.show(&Diagnosis { healthy, works_by, findings }, Diagnosis::text)?;
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_verdict_names_what_works() {
        let verdict = |works_by: &[&'static str], statuses: &[Status]| {
            let of =
                |status: &Status| Finding { check: "x", status: *status, text: String::new(), fix: None };
            let findings = statuses.iter().map(of).collect();
            Diagnosis { healthy: true, works_by: works_by.to_vec(), findings }.verdict()
        };
        let both = "RDMA works here by provider iwarp (TCP sockets, no device) and verbs (RDMA devices); 0 failures, 1 warning";
        assert_eq!(verdict(&["iwarp", "verbs"], &[Status::Ok, Status::Warn]), both);
        assert_eq!(verdict(&[], &[Status::Fail; 2]), "RDMA does not work here; 2 failures, 0 warnings");
    }
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
