//! `rcg`: what an administrator of RDMA storage asks and runs.

mod ping;
mod proxy;
mod xdr;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "rcg", version, about = "RDMA for storage servers: see, try, carry", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Carry RPC (NFS, above all) between RPC-over-RDMA and TCP
    RpcProxy(proxy::Options),
    /// Make a NULL call to an RPC program over RDMA, as rpcinfo does over TCP
    RpcPing(ping::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::RpcProxy(options) => proxy::run(&options),
        Command::RpcPing(options) => ping::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("rcg: {text}");
            ExitCode::FAILURE
        }
    }
}
