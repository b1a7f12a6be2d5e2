//! `rcg`: what an administrator of RDMA storage asks and runs.

mod bench;
mod completion;
mod cpu;
mod doctor;
mod dump;
mod host;
mod info;
mod link;
mod loopback;
mod output;
mod ping;
mod plot;
mod probe;
mod prometheus;
mod proxy;
mod raw;
mod rpc_ping;
mod serve;
mod side;
mod slots;
mod sockets;
mod top;
mod words;
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
    /// Show providers, devices, addresses and limits of this machine
    Info(info::Options),
    /// Look for what keeps RDMA from working here, and say how to mend it
    Doctor(doctor::Options),
    /// Try every address of a peer by every provider
    Probe(probe::Options),
    /// Be the other end of ping, lat and bw
    Serve(serve::Options),
    /// Send messages to a peer that serves, and compare what comes back
    Ping(ping::Options),
    /// Measure how long an operation takes, over RDMA and over raw TCP
    Lat(bench::lat::Options),
    /// Measure how many octets pass in a second, over RDMA and over raw TCP
    Bw(bench::bw::Options),
    /// Measure how many connections come about in a second, and where their time goes
    ConnectRate(bench::connects::Options),
    /// Draw results of lat and bw
    Plot(plot::Options),
    /// Show what programs that use the library tell of themselves
    Dump(dump::Options),
    /// Show which connections of these programs move how much
    Top(top::Options),
    /// Carry RPC (NFS, above all) between RPC-over-RDMA and TCP
    RpcProxy(proxy::Options),
    /// Make a NULL call to an RPC program over RDMA, as rpcinfo does over TCP
    RpcPing(rpc_ping::Options),
    /// Write a script that completes this command in a shell
    Completion(completion::Options),
}

/// Of a command that either does its work or fails.
fn done(result: Result<(), String>) -> Result<ExitCode, String> {
    result.map(|()| ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Info(options) => done(info::run(&options)),
        Command::Doctor(options) => doctor::run(&options),
        Command::Probe(options) => probe::run(&options),
        Command::Serve(options) => done(serve::run(&options)),
        Command::Ping(options) => done(ping::run(&options)),
        Command::Lat(options) => done(bench::lat::run(&options)),
        Command::Bw(options) => done(bench::bw::run(&options)),
        Command::ConnectRate(options) => done(bench::connects::run(&options)),
        Command::Plot(options) => done(plot::run(&options)),
        Command::Completion(options) => done(completion::run(&options)),
        Command::Dump(options) => dump::run(&options),
        Command::Top(options) => top::run(&options),
        Command::RpcProxy(options) => done(proxy::run(&options)),
        Command::RpcPing(options) => done(rpc_ping::run(&options)),
    };
    match result {
        Ok(code) => code,
        Err(text) => {
            output::complain(text);
            ExitCode::FAILURE
        }
    }
}
