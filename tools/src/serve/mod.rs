//! `rcg serve`: the other end of `rcg ping`, `lat`, `bw` and `connect-rate`.

mod client;
mod tcp;

use std::collections::HashMap;
use std::fmt::Write;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use rdmacm_gluster::engine::{
    AcceptConfig, Channel, ChannelConfig, Engine, EngineConfig, Event, ListenConfig, Sink, kind, resolve,
};
use rdmacm_gluster::error::Error;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::output::{Format, complain};
use crate::side::{Provider, Tuning, conn_of, told};
use crate::words::{MAX_WINDOW, Misfit, PORT, Wants};
use client::Client;

/// RCG_REJECT_FULL, RCG_REJECT_VERSION, RCG_REJECT_APP.
const REJECT_FULL: u32 = 2;
const REJECT_VERSION: u32 = 3;
const REJECT_APP: u32 = 5;

#[derive(Args)]
pub(crate) struct Options {
    /// Address to listen on
    #[arg(default_value = "::")]
    address: String,
    /// Port; raw TCP, with which lat and bw compare, has the next one
    #[arg(short, long, default_value_t = PORT)]
    port: u16,
    /// RDMA devices of the kernel, iWARP over TCP sockets, or both
    #[arg(long, value_enum, default_value = "auto")]
    provider: Provider,
    /// Threads to spread connections over
    #[arg(short, long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// Microseconds that a thread looks for work before it sleeps
    #[arg(long, value_name = "US", default_value_t = 50)]
    spin: u32,
    #[command(flatten)]
    tuning: Tuning,
    /// Connections at a time
    #[arg(long, default_value_t = 1024)]
    max_connections: usize,
    /// MiB of memory for one connection
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    max_memory: u64,
    #[command(flatten)]
    format: Format,
}

/// What the threads share.
struct Shared {
    engine: Arc<Engine>,
    max_connections: usize,
    max_octets: u64,
    count: Mutex<Count>,
}

/// What `rcg serve` says when it ends.
#[derive(Clone, Copy, Default, Serialize)]
struct Count {
    /// Connections there are.
    #[serde(skip)]
    open: usize,
    accepted: u64,
    refused: u64,
    messages: u64,
}

impl Shared {
    fn count(&self, change: impl FnOnce(&mut Count)) {
        change(&mut self.count.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A place for one client more, if there is one.
    fn enter(&self) -> bool {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let room = count.open < self.max_connections;
        count.open += usize::from(room);
        room
    }
}

/// Takes the events of one channel.
struct Events {
    shared: Arc<Shared>,
    clients: Mutex<HashMap<usize, Client>>,
}

impl Sink for Events {
    fn deliver(&self, _channel: usize, events: &[Event]) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            match event.kind {
                kind::CONNECT_REQUEST => self.requested(&mut clients, event),
                kind::CLOSED => {
                    if let Some(client) = clients.remove(&event.conn) {
                        self.shared.count(|count| {
                            count.open -= 1;
                            count.messages += client.messages();
                        });
                    }
                }
                _ => {
                    if let Some(client) = clients.get_mut(&event.conn) {
                        client.take(event);
                    }
                }
            }
        }
    }
}

impl Events {
    fn requested(&self, clients: &mut HashMap<usize, Client>, event: &Event) {
        let Some(conn) = conn_of(event) else { return };
        let wants = Wants::parse(event.private_data.as_deref().unwrap_or_default());
        let refuse = |reason| {
            self.shared.count(|count| count.refused += 1);
            // A peer that has gone meanwhile need not be told.
            let _ = conn.reject(reason, &[]);
        };
        let wants = match wants {
            Ok(wants) if wants.octets() <= self.shared.max_octets => wants,
            Ok(_) => return refuse(REJECT_FULL),
            Err(Misfit::Version) => return refuse(REJECT_VERSION),
            Err(Misfit::Stranger | Misfit::Senseless) => return refuse(REJECT_APP),
        };
        if !self.shared.enter() {
            return refuse(REJECT_FULL);
        }
        let accepted = Client::new(&self.shared.engine, &conn, wants).and_then(|client| {
            let private_data = client.offer()?;
            clients.insert(event.conn, client);
            conn.accept(AcceptConfig { private_data, ..AcceptConfig::default() })
        });
        match accepted {
            Ok(()) => self.shared.count(|count| count.accepted += 1),
            Err(error) => {
                complain(format_args!("a client was refused: {error}"));
                if clients.get(&event.conn).is_none() {
                    self.shared.count(|count| count.open -= 1);
                }
                refuse(REJECT_FULL);
            }
        }
    }
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    address: String,
    tcp_port: u16,
}

fn channels(shared: &Arc<Shared>, options: &Options) -> Result<Vec<Arc<Channel>>, Error> {
    let channel = |_| {
        let sink: Box<dyn Sink> = Box::new(Events { shared: Arc::clone(shared), clients: Mutex::default() });
        let config =
            ChannelConfig { sink: Some(sink), spin_us: Some(options.spin), ..ChannelConfig::default() };
        Channel::create(&shared.engine, config)
    };
    (0..options.threads).map(channel).collect()
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|error| error.to_string())?;
    let shared = Arc::new(Shared {
        engine: Engine::create(EngineConfig::default()).map_err(told)?,
        max_connections: options.max_connections,
        max_octets: options.max_memory << 20,
        count: Mutex::default(),
    });
    let channels = channels(&shared, options).map_err(told)?;
    let at = resolve::numeric(&options.address, &options.port.to_string())
        .and_then(|found| found.into_iter().next());
    let at = at.ok_or_else(|| format!("{} is no address", options.address))?;
    let qp = options.tuning.config(options.provider, MAX_WINDOW, MAX_WINDOW + 1);
    let config = ListenConfig { qp, channels: channels.clone(), ..ListenConfig::default() };
    let first = channels.first().ok_or("no threads")?;
    let listener = first.listen(&at, config).map_err(told)?;
    let local = listener.info().local;
    let tcp = raw_tcp(&local, options)?;
    let ready = Ready { ready: true, address: resolve::format_addr(&local), tcp_port: tcp };
    options
        .format
        .show(&ready, |ready| format!("ready at {}, raw TCP at port {}\n", ready.address, ready.tcp_port))?;
    signals.forever().next();
    let _ = listener.close();
    channels.iter().try_for_each(Channel::destroy).map_err(told)?;
    shared.engine.destroy().map_err(told)?;
    let count = *shared.count.lock().unwrap_or_else(PoisonError::into_inner);
    options.format.show(&count, Count::text)
}

/// Serves raw TCP at the next port, or at any where that is taken by another listener of port 0.
fn raw_tcp(local: &socket2::SockAddr, options: &Options) -> Result<u16, String> {
    let mut address = local.as_socket().ok_or("not an IP address")?;
    address.set_port(if options.port == 0 { 0 } else { options.port + 1 });
    let listener = TcpListener::bind(address).map_err(|error| format!("listen on {address}: {error}"))?;
    let port = listener.local_addr().map_err(|error| error.to_string())?.port();
    let terms = tcp::Terms {
        spin: Duration::from_micros(options.spin.into()),
        keepalive: options.tuning.keepalive(),
        max_octets: options.max_memory << 20,
        congestion: options.tuning.congestion.clone(),
    };
    let serve = move || tcp::serve(&listener, &terms);
    std::thread::Builder::new().name("rcg-tcp".into()).spawn(serve).map_err(|error| error.to_string())?;
    Ok(port)
}

impl Count {
    fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String can't fail.
        let _ = writeln!(
            out,
            "{} connections, {} refused, {} messages",
            self.accepted, self.refused, self.messages
        );
        out
    }
}
