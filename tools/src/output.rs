//! Results for people or for programs.

use std::fmt::Display;
use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

/// How a result is written.
#[derive(Args, Clone, Copy, Default)]
pub(crate) struct Format {
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Format {
    /// Writes a result to standard output, as JSON or as `text` makes it. A reader that has gone is no error.
    pub(crate) fn show<T: Serialize>(
        self,
        result: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), String> {
        self.tell(result, text).map(drop)
    }

    /// The same; returns whether the reader is still there.
    pub(crate) fn tell<T: Serialize>(
        self,
        result: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<bool, String> {
        let words = if self.json {
            serde_json::to_string_pretty(result).map_err(|error| error.to_string())? + "\n"
        } else {
            text(result)
        };
        match io::stdout().write_all(words.as_bytes()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(format!("standard output: {error}")),
        }
    }
}

/// A line on standard output, whether or not anybody reads it.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// What went wrong, on standard error, whether or not anybody reads it.
pub(crate) fn complain(text: impl Display) {
    let _ = writeln!(io::stderr(), "rcg: {text}");
}

/// Octets for people: 64 KiB, 1 GiB, 17 B.
pub(crate) fn octets(count: u64) -> String {
    const UNITS: [(u32, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match UNITS.into_iter().find(|(shift, _)| count >> shift > 0) {
        Some((shift, unit)) if count.trailing_zeros() >= shift => format!("{} {unit}", count >> shift),
        Some((shift, unit)) => format!("{:.1} {unit}", count as f64 / f64::from(1_u32 << shift)),
        None => format!("{count} B"),
    }
}

#[cfg(test)]
mod test {
    use super::octets;

    #[test]
    fn octets_read_well() {
        let texts = [0, 17, 1024, 1536, 64 << 10, 3 << 30].map(octets);
        assert_eq!(texts, ["0 B", "17 B", "1 KiB", "1.5 KiB", "64 KiB", "3 GiB"]);
    }
}
