//! `rcg rpc-ping`: does an RPC program answer over RDMA, and how fast?

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use rdmacm_gluster::engine::{Conn, ConnectConfig, Event, Target};
use rdmacm_gluster::rpc::{self, Call, Config, Session};

use crate::side::{Side, text_of, told};
use crate::xdr;

#[derive(Args)]
pub(crate) struct Options {
    /// Name or address of the server
    host: String,
    /// Number of the program; 100003 is NFS
    #[arg(default_value_t = 100_003)]
    program: u32,
    /// Version of the program
    #[arg(default_value_t = 4)]
    version: u32,
    /// Port of the server
    #[arg(short, long, default_value = "20049")]
    port: String,
    /// How many calls
    #[arg(short, long, default_value_t = 1)]
    count: u32,
    /// Seconds to wait for the connection, and for each answer
    #[arg(short, long, default_value_t = 10)]
    timeout: u32,
}

struct Client {
    side: Side,
    patience: Duration,
}

impl Client {
    fn call(&mut self, conn: &Arc<Conn>, xid: u32, options: &Options) -> Result<(), String> {
        // xid, CALL, RPC version 2, program, version, procedure 0, no credentials, no verifier.
        let head = xdr::octets(&[xid, 0, 2, options.program, options.version, 0, 0, 0, 0, 0]);
        let call = Call { head, reply_max: 64, ..Call::default() };
        let session = Session::of(conn).map_err(|error| error.to_string())?;
        session.call(conn, call).map_err(|error| error.to_string())?;
        let event = self.side.next(self.patience)?;
        match (event.kind, event.status) {
            (rpc::kind::REPLY, 0) => answer(&event),
            (rpc::kind::REPLY, status) => {
                Err(format!("the call failed: {}", std::io::Error::from_raw_os_error(-status)))
            }
            _ => Err(text_of(&event)),
        }
    }
}

/// What the server's reply says.
fn answer(event: &Event) -> Result<(), String> {
    let octets = rpc::Message::of(event).map(rpc::Message::inline).unwrap_or_default();
    let word = |at| xdr::word(octets, at);
    let verifier = word(16).unwrap_or(0).next_multiple_of(4) as usize;
    match (word(8), word(20 + verifier)) {
        (Some(0), Some(0)) => Ok(()),
        (Some(0), Some(1)) => Err("the server does not have this program".into()),
        (Some(0), Some(2)) => Err(format!(
            "the server has versions {} to {} of this program",
            word(24 + verifier).unwrap_or(0),
            word(28 + verifier).unwrap_or(0)
        )),
        (Some(1), _) => Err("the server denied the call".into()),
        _ => Err("the server's reply makes no sense, or is one of failure".into()),
    }
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let patience = Duration::from_secs(u64::from(options.timeout.max(1)));
    let mut client = Client { side: Side::new()?, patience };
    let timeout_ms = options.timeout.max(1).saturating_mul(1000);
    let mut config = ConnectConfig { timeout_ms, ..ConnectConfig::default() };
    Config::default().connect(&mut config).map_err(told)?;
    let target = Target::Host(options.host.clone(), options.port.clone());
    let (conn, _) = client.side.established(target, config)?;
    for xid in 1..=options.count {
        let began = Instant::now();
        client.call(&conn, xid, options)?;
        println!(
            "program {} version {} ready at {} port {}, {} us",
            options.program,
            options.version,
            options.host,
            options.port,
            began.elapsed().as_micros()
        );
    }
    Ok(())
}
