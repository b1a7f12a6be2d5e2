//! The statistics sockets of programs that run here, and what they say.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::output::complain;

/// How long a program may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whose statistics.
#[derive(Args)]
pub(crate) struct Selection {
    /// Only of the process with this number
    #[arg(long)]
    pid: Option<u32>,
    /// Directory of the sockets, instead of $RCG_STATS_DIR, /run/rcg and $XDG_RUNTIME_DIR/rcg
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What an engine says. What this version does not know is passed on as it is.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Dump {
    pub(crate) pid: u32,
    /// Which engine of the process: the number in its socket's name. Connections' ids are each engine's own.
    #[serde(default)]
    pub(crate) engine: u32,
    pub(crate) program: String,
    pub(crate) time_ms: u64,
    pub(crate) stats: Map<String, Value>,
    pub(crate) connections: Vec<Connection>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// One connection of its.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) state: String,
    pub(crate) provider: String,
    pub(crate) device: String,
    pub(crate) local: String,
    pub(crate) peer: String,
    pub(crate) in_flight: u64,
    /// Operations that can be posted now.
    pub(crate) send_room: u64,
    pub(crate) receives: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    pub(crate) stats: Map<String, Value>,
    /// Of connections for RPC: levels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rpc: Option<Map<String, Value>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// A counter by name; 0 where there is none.
pub(crate) fn number(stats: &Map<String, Value>, name: &str) -> u64 {
    stats.get(name).and_then(Value::as_u64).unwrap_or(0)
}

/// The sum of a table.
pub(crate) fn sum(stats: &Map<String, Value>, name: &str) -> u64 {
    let table = stats.get(name).and_then(Value::as_object);
    table.into_iter().flat_map(Map::values).filter_map(Value::as_u64).sum()
}

impl Selection {
    fn directories(&self) -> Vec<PathBuf> {
        if let Some(dir) = &self.dir {
            return vec![dir.clone()];
        }
        let of = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let all =
            [of("RCG_STATS_DIR"), Some("/run/rcg".into()), of("XDG_RUNTIME_DIR").map(|dir| dir.join("rcg"))];
        all.into_iter().flatten().collect()
    }

    /// All engines that can be asked. Sockets that nobody serves any more are passed over; those that may not be opened, or
    /// say something else, are told on standard error.
    pub(crate) fn dumps(&self) -> Vec<Dump> {
        let mut paths: Vec<_> = self.directories().iter().flat_map(|dir| sockets(dir)).collect();
        paths.sort();
        paths.dedup();
        let wanted =
            |path: &PathBuf| self.pid.is_none_or(|pid| name_of(path).is_some_and(|name| name.0 == pid));
        let ask = |path: &PathBuf| match ask(path) {
            Ok(dump) => dump.map(|dump| Dump { engine: name_of(path).map_or(0, |name| name.1), ..dump }),
            Err(text) => {
                complain(format_args!("{}: {text}", path.display()));
                None
            }
        };
        paths.iter().filter(|path| wanted(path)).filter_map(ask).collect()
    }
}

/// The sockets in a directory, `PID-NUMBER.sock`.
fn sockets(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| name_of(path).is_some()).collect()
}

/// The process and the number of its engine.
fn name_of(path: &Path) -> Option<(u32, u32)> {
    let name = path.file_name()?.to_str()?.strip_suffix(".sock")?;
    let (pid, engine) = name.split_once('-')?;
    Some((pid.parse().ok()?, engine.parse().ok()?))
}

/// What one says; nothing where its program has gone.
fn ask(path: &Path) -> Result<Option<Dump>, String> {
    let mut stream = match UnixStream::connect(path) {
        Err(error) if [ErrorKind::ConnectionRefused, ErrorKind::NotFound].contains(&error.kind()) => {
            return Ok(None);
        }
        result => result.map_err(|error| error.to_string())?,
    };
    stream.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map(Some).map_err(|error| format!("not a dump: {error}"))
}

/// Why there is nothing to show.
pub(crate) const NOBODY: &str = "no program here has a statistics socket that you may open: set RCG_STATS_DIR=/run/rcg in its \
    environment, or RCG_ENGINE_STATS_SOCKET in its attributes, and see that the directory is there";
