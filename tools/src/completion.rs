//! `rcg completion`: what a shell needs to complete this command.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use crate::Cli;

#[derive(Args)]
pub(crate) struct Options {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let mut script = Vec::new();
    generate(options.shell, &mut Cli::command(), "rcg", &mut script);
    std::io::stdout().write_all(&script).map_err(|error| format!("standard output: {error}"))
}
