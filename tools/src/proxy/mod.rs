//! `rcg rpc-proxy`: RPC from RDMA to TCP, or from TCP to RDMA.

mod bridge;
mod buffer;
mod nfs;
mod record;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use clap::Args;
use rdmacm_gluster::engine::{
    AcceptConfig, Channel, ChannelConfig, Conn, ConnectConfig, Engine, EngineConfig, Event, ListenConfig,
    Listener, Object, PROVIDER_AUTO, PROVIDER_IWARP, PROVIDER_VERBS, QpConfig, Sink, Target, kind, object,
};
use rdmacm_gluster::error::Error;
use rdmacm_gluster::rpc::Config;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::output::{complain, say};
use bridge::{Bridge, Record, Totals};
use buffer::Pools;

/// Why a request is refused (RCG_REJECT_FULL, RCG_REJECT_APP).
const REJECT_FULL: u32 = 2;
const REJECT_APP: u32 = 5;
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
const SHUTDOWN: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Rdma,
    Tcp,
}

/// `rdma:HOST:PORT` or `tcp:HOST:PORT`.
#[derive(Clone, Debug)]
struct Place {
    transport: Transport,
    host: String,
    port: String,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text} is not like rdma:HOST:PORT or tcp:[::1]:PORT");
        let (transport, rest) = text.split_once(':').ok_or_else(wrong)?;
        let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
        let transport = match transport {
            "rdma" => Transport::Rdma,
            "tcp" => Transport::Tcp,
            _ => return Err(wrong()),
        };
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = inner.unwrap_or(host).to_owned();
        if host.is_empty() || port.is_empty() || (inner.is_none() && host.contains(':')) {
            return Err(wrong());
        }
        Ok(Self { transport, host, port: port.to_owned() })
    }
}

impl Place {
    fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        let port: u16 = self.port.parse().map_err(|_| format!("{} is no port", self.port))?;
        let found = (self.host.as_str(), port).to_socket_addrs();
        found.map(Iterator::collect).map_err(|error| format!("{}: {error}", self.host))
    }
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Provider {
    Auto,
    Verbs,
    Iwarp,
}

#[derive(Args)]
pub(crate) struct Options {
    /// Where to listen: rdma:ADDRESS:PORT or tcp:ADDRESS:PORT
    #[arg(value_name = "LISTEN")]
    listen: Place,
    /// What to connect to for each connection: tcp:HOST:PORT or rdma:HOST:PORT
    #[arg(value_name = "SERVER")]
    server: Place,
    /// RDMA devices of the kernel, iWARP over TCP sockets, or whichever serves the address
    #[arg(long, value_enum, default_value = "auto")]
    provider: Provider,
    /// Connections at a time
    #[arg(long, default_value_t = 256)]
    max_connections: usize,
    /// Calls outstanding on one connection
    #[arg(long, default_value_t = 64)]
    credits: u32,
    /// Octets of a message without chunks
    #[arg(long, default_value_t = 4096)]
    inline: usize,
    /// Octets of the longest read or write
    #[arg(long, default_value_t = 1 << 20)]
    max_payload: usize,
    /// No RFC 8797 private data, as implementations before it
    #[arg(long)]
    no_private_data: bool,
}

impl Options {
    fn provider(&self) -> u32 {
        match self.provider {
            Provider::Auto => PROVIDER_AUTO,
            Provider::Verbs => PROVIDER_VERBS,
            Provider::Iwarp => PROVIDER_IWARP,
        }
    }

    fn rpc(&self) -> Config {
        Config {
            credits: self.credits,
            inline_send: self.inline,
            inline_recv: self.inline,
            max_payload: self.max_payload,
            silent: self.no_private_data,
            ..Config::default()
        }
    }

    fn qp(&self) -> QpConfig {
        QpConfig { provider: self.provider(), ..QpConfig::default() }
    }
}

/// What all threads share.
struct Proxy {
    server: Place,
    rpc: Config,
    qp: QpConfig,
    max_connections: usize,
    credits: usize,
    pools: Arc<Pools>,
    totals: Arc<Totals>,
    /// By the handle of the connection.
    slots: Mutex<HashMap<usize, Slot>>,
    /// One has been given back.
    removed: Condvar,
    channel: OnceLock<Arc<Channel>>,
}

/// One of the connections that may be there at a time.
struct Slot {
    conn: Arc<Conn>,
    /// None: the server has not been reached yet.
    bridge: Option<Arc<Bridge>>,
    /// Who still has it: the connection until it is closed, and a thread's [`Hold`].
    holders: usize,
}

/// What a thread has of a slot.
struct Hold {
    proxy: Arc<Proxy>,
    conn: Arc<Conn>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.proxy.give_back(self.conn.handle());
    }
}

/// Takes the channel's events.
struct Events(Arc<Proxy>);

impl Sink for Events {
    fn deliver(&self, _channel: usize, events: &[Event]) {
        for event in events {
            if event.kind == kind::CONNECT_REQUEST {
                Proxy::requested(&self.0, event);
                continue;
            }
            let bridge = self.0.slots().get(&event.conn).and_then(|slot| slot.bridge.clone());
            bridge.iter().for_each(|bridge| bridge.take(event));
            if event.kind == kind::CLOSED {
                self.0.give_back(event.conn);
            }
        }
    }
}

impl Proxy {
    fn slots(&self) -> MutexGuard<'_, HashMap<usize, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a slot for a connection and for whoever calls.
    fn hold(
        proxy: &Arc<Self>,
        slots: &mut HashMap<usize, Slot>,
        conn: Arc<Conn>,
        bridge: Option<Arc<Bridge>>,
    ) -> Hold {
        slots.insert(conn.handle(), Slot { conn: Arc::clone(&conn), bridge, holders: 2 });
        Hold { proxy: Arc::clone(proxy), conn }
    }

    /// One of a slot's holders leaves.
    fn give_back(&self, handle: usize) {
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(&handle) else { return };
        slot.holders -= 1;
        if slot.holders == 0 {
            // What it held goes once the lock is free.
            let _slot = slots.remove(&handle);
            drop(slots);
            self.removed.notify_all();
        }
    }

    /// An RDMA client has come.
    fn requested(proxy: &Arc<Self>, event: &Event) {
        let Some(Object::Conn(conn)) = object(event.conn) else { return };
        let mut slots = proxy.slots();
        let free = slots.len() < proxy.max_connections;
        let hold = free.then(|| Self::hold(proxy, &mut slots, Arc::clone(&conn), None));
        drop(slots);
        let thread = hold.map(|hold| {
            let accept = move || {
                if let Err(text) = hold.proxy.accept(&hold.conn) {
                    complain(text);
                    let _ = hold.conn.reject(REJECT_APP, &[]);
                }
            };
            std::thread::Builder::new().name("rcg-bridge".into()).spawn(accept)
        });
        if !matches!(thread, Some(Ok(_))) {
            let _ = conn.reject(REJECT_FULL, &[]);
        }
    }

    fn accept(&self, conn: &Arc<Conn>) -> Result<(), String> {
        let tcp = self.connect_tcp()?;
        let (bridge, records) = self.bridge(Arc::clone(conn), tcp, false)?;
        if let Some(slot) = self.slots().get_mut(&conn.handle()) {
            slot.bridge = Some(Arc::clone(&bridge));
        }
        // Fails where the client has left meanwhile.
        conn.accept(AcceptConfig::default()).map_err(|error| error.to_string())?;
        carry(&bridge, records);
        Ok(())
    }

    fn connect_tcp(&self) -> Result<TcpStream, String> {
        let mut failure = format!("{} has no address", self.server.host);
        for address in self.server.addresses()? {
            match TcpStream::connect_timeout(&address, TCP_TIMEOUT) {
                Ok(tcp) => return Ok(tcp),
                Err(error) => failure = format!("connect to {address}: {error}"),
            }
        }
        Err(failure)
    }

    fn bridge(
        &self,
        conn: Arc<Conn>,
        tcp: TcpStream,
        active: bool,
    ) -> Result<(Arc<Bridge>, std::sync::mpsc::Receiver<Record>), String> {
        let shared = (Arc::clone(&self.pools), Arc::clone(&self.totals));
        Bridge::new(conn, tcp, shared, active, self.credits).map_err(|error| error.to_string())
    }

    /// A TCP client has come.
    fn connect(proxy: &Arc<Self>, tcp: TcpStream) -> Result<(), String> {
        let told = |error: Error| error.to_string();
        let channel = proxy.channel.get().ok_or("no channel")?;
        let mut config = ConnectConfig { qp: proxy.qp.clone(), ..ConnectConfig::default() };
        proxy.rpc.connect(&mut config).map_err(told)?;
        let target = Target::Host(proxy.server.host.clone(), proxy.server.port.clone());
        // Under the lock: its events find the bridge.
        let mut slots = proxy.slots();
        if slots.len() >= proxy.max_connections {
            return Err(format!("a client more than {}", proxy.max_connections));
        }
        let conn = channel.connect(target, config).map_err(told)?;
        let made = proxy.bridge(Arc::clone(&conn), tcp, true);
        let (bridge, records) = made.inspect_err(|_| drop(conn.close()))?;
        let _hold = Self::hold(proxy, &mut slots, conn, Some(Arc::clone(&bridge)));
        drop(slots);
        carry(&bridge, records);
        Ok(())
    }

    fn report(&self) {
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        // The lock is free while somebody may be slow to read.
        let (totals, now) = (&self.totals, self.slots().len());
        say(format_args!(
            "connections {} (now {}), calls to TCP {}, calls to RDMA {}, backchannel {}, refused {}",
            get(&totals.bridges),
            now,
            get(&totals.to_tcp),
            get(&totals.to_rdma),
            get(&totals.backchannel),
            get(&totals.refused)
        ));
        say(format_args!(
            "of ended connections: read chunks {}, write chunks {}, reply chunks {}, bad messages {}",
            get(&totals.reads),
            get(&totals.writes),
            get(&totals.replies),
            get(&totals.bad)
        ));
    }
}

/// Carries messages until either side ends.
fn carry(bridge: &Arc<Bridge>, records: std::sync::mpsc::Receiver<Record>) {
    let writer = Arc::clone(bridge);
    let thread = std::thread::Builder::new().name("rcg-writer".into()).spawn(move || writer.write(&records));
    match thread {
        Ok(_) => bridge.read(),
        Err(_) => bridge.written(),
    }
    bridge.leave_tcp();
}

/// Accepts TCP clients for ever.
fn serve_tcp(proxy: &Arc<Proxy>, listener: &TcpListener) {
    for tcp in listener.incoming() {
        let proxy = Arc::clone(proxy);
        let Ok(tcp) = tcp else {
            // Short of descriptors: they come back.
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        let serve = move || {
            if let Err(text) = Proxy::connect(&proxy, tcp) {
                complain(text);
            }
        };
        let _ = std::thread::Builder::new().name("rcg-bridge".into()).spawn(serve);
    }
}

fn listen(proxy: &Arc<Proxy>, options: &Options) -> Result<Option<Arc<Listener>>, String> {
    let address = options.listen.addresses()?.into_iter().next().ok_or("no address to listen on")?;
    if options.listen.transport == Transport::Tcp {
        let listener = TcpListener::bind(address).map_err(|error| format!("listen on {address}: {error}"))?;
        let proxy = Arc::clone(proxy);
        let serve = move || serve_tcp(&proxy, &listener);
        std::thread::Builder::new().spawn(serve).map_err(|error| error.to_string())?;
        return Ok(None);
    }
    let told = |error: Error| error.to_string();
    let mut config = ListenConfig { qp: options.qp(), ..ListenConfig::default() };
    options.rpc().listen(&mut config).map_err(told)?;
    let channel = proxy.channel.get().ok_or("no channel")?;
    channel.listen(&address.into(), config).map(Some).map_err(told)
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    if options.listen.transport == options.server.transport {
        return Err("one of LISTEN and SERVER is rdma, the other is tcp".into());
    }
    let told = |error: Error| error.to_string();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1]).map_err(|error| error.to_string())?;
    let engine = Engine::create(EngineConfig::default()).map_err(told)?;
    let buffers = options.max_connections.saturating_mul(options.credits.max(1) as usize).clamp(64, 1 << 20);
    let proxy = Arc::new(Proxy {
        server: options.server.clone(),
        rpc: options.rpc(),
        qp: options.qp(),
        max_connections: options.max_connections,
        credits: options.credits.max(1) as usize,
        pools: Arc::new(Pools::new(&engine, options.max_payload, buffers).map_err(told)?),
        totals: Arc::default(),
        slots: Mutex::default(),
        removed: Condvar::new(),
        channel: OnceLock::new(),
    });
    let sink: Box<dyn Sink> = Box::new(Events(Arc::clone(&proxy)));
    let config = ChannelConfig { sink: Some(sink), ..ChannelConfig::default() };
    let channel = Channel::create(&engine, config).map_err(told)?;
    let _ = proxy.channel.set(Arc::clone(&channel));
    let listener = listen(&proxy, options)?;
    say("ready");
    for signal in signals.forever() {
        proxy.report();
        if signal != SIGUSR1 {
            break;
        }
    }
    listener.iter().for_each(|listener| drop(listener.close()));
    shut_down(&proxy);
    channel.destroy().map_err(told)?;
    proxy.report();
    // What a thread still holds goes with the process.
    let _ = proxy.pools.destroy();
    Ok(())
}

/// Ends all connections in good order.
fn shut_down(proxy: &Proxy) {
    let all: Vec<_> =
        proxy.slots().values().map(|slot| (Arc::clone(&slot.conn), slot.bridge.clone())).collect();
    for (conn, bridge) in all {
        match bridge {
            Some(bridge) => bridge.end(),
            None => drop(conn.reject(REJECT_APP, &[])),
        }
    }
    // A thread that still connects by TCP carries nothing.
    let carried = |slots: &mut HashMap<usize, Slot>| slots.values().any(|slot| slot.bridge.is_some());
    drop(proxy.removed.wait_timeout_while(proxy.slots(), SHUTDOWN, carried));
}
