//! Limits of processes: of this one, of daemons that run, of units that will.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::{Doctor, Status};
use crate::output::octets;

/// Daemons that use RDMA, and their units.
const DAEMONS: [&str; 5] = ["glusterd", "glusterfsd", "glusterfs", "ganesha.nfsd", "rcg"];
const UNITS: [&str; 2] = ["glusterd.service", "nfs-ganesha.service"];
/// Less than this of locked memory does not last for a storage server.
const ENOUGH_MEMLOCK: u64 = 1 << 30;
/// Fewer open files do not last for bricks and their clients.
const ENOUGH_NOFILE: u64 = 65_536;

/// The soft limit of a line in /proc/PID/limits, `None` in the result where it is unlimited.
fn soft_limit(limits: &str, name: &str) -> Option<Option<u64>> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

impl Doctor {
    pub(super) fn limits(&mut self) {
        let own = |resource| match getrlimit(resource) {
            Ok((soft, _)) if soft != RLIM_INFINITY => Some(soft),
            _ => None,
        };
        self.memlock(
            "this shell",
            own(Resource::RLIMIT_MEMLOCK),
            "`ulimit -l unlimited`, or /etc/security/limits.d",
        );
        self.nofile(
            "this shell",
            own(Resource::RLIMIT_NOFILE),
            "`ulimit -n 65536`, or /etc/security/limits.d",
        );
        self.processes();
        self.units();
    }

    fn memlock(&mut self, of: &str, limit: Option<u64>, fix: &str) {
        match limit {
            None => self.find("memlock", Status::Ok, format!("{of}: unlimited")),
            Some(limit) if limit >= ENOUGH_MEMLOCK => {
                self.find("memlock", Status::Ok, format!("{of}: {}", octets(limit)));
            }
            // Only devices need it, and not for root (CAP_IPC_LOCK), which a daemon may cease to be.
            Some(limit) => {
                let devices = !self.host.list("/sys/class/infiniband").is_empty();
                let status = if devices { self.without_devices.min(Status::Warn) } else { Status::Note };
                let text = format!(
                    "{of}: {} of locked memory, which RDMA devices need for all buffers",
                    octets(limit)
                );
                self.fix("memlock", status, text, fix);
            }
        }
    }

    fn nofile(&mut self, of: &str, limit: Option<u64>, fix: &str) {
        match limit {
            Some(limit) if limit < ENOUGH_NOFILE => {
                let text = format!("{of}: {limit} open files; each connection takes one or two");
                let status = if limit < 4096 { Status::Warn } else { Status::Note };
                self.fix("nofile", status, text, fix);
            }
            Some(limit) => self.find("nofile", Status::Ok, format!("{of}: {limit} open files")),
            None => self.find("nofile", Status::Ok, format!("{of}: unlimited")),
        }
    }

    /// Daemons that run now.
    fn processes(&mut self) {
        let numbers = self.host.list("/proc").into_iter().filter(|name| name.parse::<u32>().is_ok());
        for pid in numbers.collect::<Vec<_>>() {
            let comm = self.host.read(&format!("/proc/{pid}/comm")).unwrap_or_default();
            let limits = self.host.read(&format!("/proc/{pid}/limits"));
            let (true, Some(limits)) = (DAEMONS.contains(&&*comm), limits) else { continue };
            if pid == std::process::id().to_string() {
                continue;
            }
            let of = format!("process {pid} ({comm})");
            if let Some(limit) = soft_limit(&limits, "Max locked memory") {
                self.memlock(&of, limit, "LimitMEMLOCK=infinity in its unit, and restart it");
            }
            if let Some(limit) = soft_limit(&limits, "Max open files") {
                self.nofile(&of, limit, "LimitNOFILE=65536 in its unit, and restart it");
            }
        }
    }

    /// Units that systemd knows.
    fn units(&mut self) {
        for unit in UNITS {
            let args = ["show", "-p", "LoadState", "-p", "LimitMEMLOCK", "-p", "LimitNOFILE", unit];
            let Some(shown) = self.host.ask("systemctl", &args) else { return };
            self.unit(unit, &shown);
        }
    }

    fn unit(&mut self, unit: &str, shown: &str) {
        let value = |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        if value("LoadState") != Some("loaded") {
            return;
        }
        // systemd says "infinity" or a number.
        let limit =
            |name| value(name).map(|text| text.parse::<u64>().ok().filter(|limit| *limit != u64::MAX));
        let drop_in = |line: &str| format!("systemctl edit {unit}: [Service] {line}; then restart it");
        if let Some(limit) = limit("LimitMEMLOCK") {
            self.memlock(unit, limit, &drop_in("LimitMEMLOCK=infinity"));
        }
        if let Some(limit) = limit("LimitNOFILE") {
            self.nofile(unit, limit, &drop_in("LimitNOFILE=65536"));
        }
    }
}

#[cfg(test)]
mod test {
    use super::super::fake::Machine;
    use super::*;

    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units\n\
                          Max open files            1024                 524288               files\n\
                          Max locked memory         8388608              8388608              bytes\n\
                          Max address space         unlimited            unlimited            bytes\n";

    #[test]
    fn reads_the_limits_of_a_process() {
        assert_eq!(soft_limit(LIMITS, "Max locked memory"), Some(Some(8 << 20)));
        assert_eq!(soft_limit(LIMITS, "Max address space"), Some(None));
        assert_eq!(soft_limit(LIMITS, "Max nice priority"), None);
    }

    #[test]
    fn a_daemon_with_low_limits_is_named() {
        let files =
            [("/proc/77/comm", "glusterfsd\n"), ("/proc/77/limits", LIMITS), ("/proc/78/comm", "cat\n")];
        let device = [("/sys/class/infiniband/rxe0/fw_ver", "")];
        let machine = Machine::new(&[&files[..], &device].concat());
        let found = machine.findings("memlock", Doctor::processes);
        assert_eq!((found.len(), found[0].status), (1, Status::Warn));
        assert!(found[0].text.starts_with("process 77 (glusterfsd): 8 MiB"), "{}", found[0].text);
        let found = machine.findings("nofile", Doctor::processes);
        assert_eq!((found.len(), found[0].status), (1, Status::Warn));
    }

    #[test]
    fn a_unit_with_low_limits_is_named_and_one_that_is_not_there_is_not() {
        let machine = Machine::new(&[]);
        let shown = "LimitMEMLOCK=8388608\nLimitNOFILE=infinity\nLoadState=loaded\n";
        let found = machine.findings("memlock", |doctor| doctor.unit("glusterd.service", shown));
        assert!(found[0].fix.as_deref().unwrap().contains("LimitMEMLOCK=infinity"));
        let found = machine.findings("nofile", |doctor| doctor.unit("glusterd.service", shown));
        assert_eq!(found[0].status, Status::Ok);
        let absent = shown.replace("loaded", "not-found");
        assert!(machine.findings("memlock", |doctor| doctor.unit("glusterd.service", &absent)).is_empty());
    }
}
