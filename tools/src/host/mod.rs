//! What the kernel's files tell of this machine. Under a root of its own, so that tests can make machines.

mod net;
mod rdma;

pub(crate) use net::Interface;
pub(crate) use rdma::{Device, Kind};

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The files of a machine.
pub(crate) struct Host {
    root: PathBuf,
}

impl Host {
    /// This machine.
    pub(crate) fn this() -> Self {
        Self { root: PathBuf::from("/") }
    }

    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// Where a file of the machine is; `path` begins with a slash.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Whether it is there.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// The text of a file without the white space around it; `None` where it can't be read.
    pub(crate) fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok().map(|text| text.trim().to_owned())
    }

    /// The names in a folder, sorted; none where there is no folder.
    pub(crate) fn list(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The output of a program, where it is installed and succeeds. Only of this machine itself.
    pub(crate) fn ask(&self, program: &str, args: &[&str]) -> Option<String> {
        if self.root != Path::new("/") {
            return None;
        }
        let output = Command::new(program).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
