//! `rcg dump`: what programs that use the library tell of themselves.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::output::{Format, complain};
use crate::prometheus;
use crate::sockets::{Dump, NOBODY, Selection, number, sum};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum As {
    /// A few lines for each connection
    Text,
    /// An array of all there is
    Json,
    /// Text exposition format of Prometheus, as for node_exporter's textfile collector
    Prometheus,
}

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    selection: Selection,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    format: As,
    /// The same as --format json
    #[arg(long)]
    json: bool,
}

fn text(dumps: &[Dump]) -> String {
    let mut out = String::new();
    for dump in dumps {
        let of = |name| number(&dump.stats, name);
        out += &format!(
            "{} ({}, engine {}): {} connects, {} requests, {} established, {} failed, {} open\n",
            dump.program,
            dump.pid,
            dump.engine,
            of("connects"),
            of("requests"),
            of("established"),
            sum(&dump.stats, "failed_at"),
            of("open")
        );
        for conn in &dump.connections {
            let of = |name| number(&conn.stats, name);
            out += &format!(
                "  {} {} -> {}, {} ({}), {} operations, {} in flight, room for {}, {} receives, {} B out, {} B in, stalls {} \
                 / {}\n",
                conn.state,
                conn.local,
                conn.peer,
                conn.provider,
                conn.device,
                sum(&conn.stats, "ops"),
                conn.in_flight,
                conn.send_room,
                conn.receives,
                of("bytes_sent"),
                of("bytes_received"),
                of("send_stalls") + of("queue_full"),
                of("recv_stalls")
            );
            if let Some(rpc) = &conn.rpc {
                let of = |name| number(rpc, name);
                out += &format!(
                    "    rpc: {} of {} credits in use, {} calls wait for one; the peer uses {} of {}\n",
                    of("credits_in_use"),
                    of("credits_granted"),
                    of("calls_waiting"),
                    of("peer_credits_in_use"),
                    of("peer_credits_granted")
                );
            }
            if let Some(error) = &conn.error {
                out += &format!("    {}\n", error.replace('\n', "\n    "));
            }
        }
    }
    out
}

pub(crate) fn run(options: &Options) -> Result<ExitCode, String> {
    let dumps = options.selection.dumps();
    let style = if options.json { As::Json } else { options.format };
    let plain = Format { json: style == As::Json };
    plain
        .show(&dumps, |dumps| if style == As::Prometheus { prometheus::text(dumps) } else { text(dumps) })?;
    if dumps.is_empty() {
        complain(NOBODY);
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
