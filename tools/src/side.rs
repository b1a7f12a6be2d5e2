//! One end of connections: an engine and a channel that this thread drives.

use std::collections::VecDeque;
use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use rdmacm_gluster::engine::{
    Channel, ChannelConfig, Conn, ConnInfo, ConnectConfig, Engine, EngineConfig, Event, Object,
    PROVIDER_AUTO, PROVIDER_IWARP, PROVIDER_VERBS, QpConfig, Target, kind, object,
};
use rdmacm_gluster::error::{Error, STAGE_COUNT};
use serde::Serialize;

/// Which provider is to be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Provider {
    /// Whichever serves the address: devices first
    #[default]
    Auto,
    /// RDMA devices of the kernel
    Verbs,
    /// iWARP over TCP sockets
    Iwarp,
}

impl Provider {
    /// `RCG_PROVIDER_*`.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Auto => PROVIDER_AUTO,
            Self::Verbs => PROVIDER_VERBS,
            Self::Iwarp => PROVIDER_IWARP,
        }
    }
}

/// What `rcg serve` and its clients can set about their connections.
#[derive(Args, Clone, Debug)]
pub(crate) struct Tuning {
    /// Seconds after which a silent peer is dead
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3600))]
    keepalive: u32,
    /// TCP's congestion control, for provider iwarp and raw TCP
    #[arg(long, value_name = "NAME")]
    pub(crate) congestion: Option<String>,
}

impl Tuning {
    pub(crate) fn keepalive(&self) -> Duration {
        Duration::from_secs(self.keepalive.into())
    }

    pub(crate) fn config(&self, provider: Provider, send_depth: u32, recv_depth: u32) -> QpConfig {
        QpConfig {
            provider: provider.number(),
            send_depth,
            recv_depth,
            keepalive_ms: self.keepalive * 1000,
            congestion: self.congestion.as_deref().and_then(|name| CString::new(name).ok()),
            ..QpConfig::default()
        }
    }
}

/// The name of a provider's number.
pub(crate) fn provider_name(number: u32) -> &'static str {
    match number {
        PROVIDER_VERBS => "verbs",
        PROVIDER_IWARP => "iwarp",
        _ => "auto",
    }
}

/// An error of the library in words, with its remedy.
pub(crate) fn told(error: Error) -> String {
    if error.remedy.is_empty() {
        error.text.into_owned()
    } else {
        format!("{}; {}", error.text, error.remedy)
    }
}

/// An operation that the end of its connection has caught up with: why it ended is said by what comes next.
fn is_flushed(event: &Event) -> bool {
    matches!(event.kind, kind::RECV | kind::COMPLETION) && event.status == -libc::ECANCELED
}

/// What an event that is not the expected one says.
pub(crate) fn text_of(event: &Event) -> String {
    match &event.error {
        Some(error) => error.words(),
        None if event.status != 0 => std::io::Error::from_raw_os_error(-event.status).to_string(),
        None => "the connection has ended".into(),
    }
}

/// How long the stages of a connect took, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Stages {
    pub(crate) address_us: u64,
    pub(crate) route_us: u64,
    pub(crate) device_us: u64,
    pub(crate) queue_pair_us: u64,
    pub(crate) handshake_us: u64,
    pub(crate) ready_us: u64,
}

impl From<&[Duration; STAGE_COUNT]> for Stages {
    fn from(stages: &[Duration; STAGE_COUNT]) -> Self {
        let [_, address, route, device, queue_pair, handshake, ready, _] =
            stages.map(|time| time.as_micros() as u64);
        Self {
            address_us: address,
            route_us: route,
            device_us: device,
            queue_pair_us: queue_pair,
            handshake_us: handshake,
            ready_us: ready,
        }
    }
}

impl Stages {
    pub(crate) fn text(&self) -> String {
        format!(
            "address {}, route {}, device {}, queue pair {}, handshake {}, ready {} us",
            self.address_us,
            self.route_us,
            self.device_us,
            self.queue_pair_us,
            self.handshake_us,
            self.ready_us
        )
    }
}

/// The way a connection goes.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Way {
    pub(crate) provider: &'static str,
    pub(crate) device: String,
    pub(crate) local: String,
    pub(crate) peer: String,
}

impl From<&ConnInfo> for Way {
    fn from(info: &ConnInfo) -> Self {
        let text = |address: &Option<_>| {
            address.as_ref().map_or_else(String::new, rdmacm_gluster::engine::resolve::format_addr)
        };
        Self {
            provider: provider_name(info.provider),
            device: info.device.clone(),
            local: text(&info.local),
            peer: text(&info.peer),
        }
    }
}

impl Way {
    pub(crate) fn text(&self) -> String {
        format!("{} -> {}, provider {}, device {}", self.local, self.peer, self.provider, self.device)
    }
}

/// An engine with a channel.
pub(crate) struct Side {
    pub(crate) engine: Arc<Engine>,
    pub(crate) channel: Arc<Channel>,
    waiting: VecDeque<Event>,
}

impl Drop for Side {
    fn drop(&mut self) {
        let _ = self.channel.destroy();
        // Memory that is still registered goes with the process.
        let _ = self.engine.destroy();
    }
}

impl Side {
    pub(crate) fn new() -> Result<Self, String> {
        Self::of(&Engine::create(EngineConfig::default()).map_err(told)?, None)
    }

    /// One channel more of an engine, which looks so many microseconds for work before it sleeps.
    pub(crate) fn of(engine: &Arc<Engine>, spin_us: Option<u32>) -> Result<Self, String> {
        let config = ChannelConfig { manual: true, spin_us, ..ChannelConfig::default() };
        let channel = Channel::create(engine, config).map_err(told)?;
        Ok(Self { engine: Arc::clone(engine), channel, waiting: VecDeque::new() })
    }

    /// The next event; `None` once `end` has come.
    pub(crate) fn next_until(&mut self, end: Instant) -> Result<Option<Event>, String> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Some(event));
            }
            self.fetch()?;
            if self.waiting.is_empty() {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(None);
                }
                self.channel.run(Some(left)).map_err(told)?;
            }
        }
    }

    fn fetch(&mut self) -> Result<(), String> {
        let waiting = &mut self.waiting;
        let mut keep = |event: &Event| {
            if !is_flushed(event) {
                waiting.push_back(event.clone())
            }
        };
        self.channel.next(64, &mut keep).map(drop).map_err(told)
    }

    /// Passes the events there are to `take`, after waiting for the first for at most `patience`.
    pub(crate) fn batch(
        &self,
        patience: Duration,
        mut take: impl FnMut(&Event) -> Result<(), String>,
    ) -> Result<(), String> {
        let end = Instant::now() + patience;
        loop {
            let mut result = Ok(());
            let count = self.channel.next(64, &mut |event| {
                if result.is_ok() && !is_flushed(event) {
                    result = take(event);
                }
            });
            if count.map_err(told)? > 0 {
                return result;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("no answer within {} s", patience.as_secs()));
            }
            self.channel.run(Some(left)).map_err(told)?;
        }
    }

    /// The next event; an error when none comes within `patience`.
    pub(crate) fn next(&mut self, patience: Duration) -> Result<Event, String> {
        let event = self.next_until(Instant::now() + patience)?;
        event.ok_or_else(|| format!("no answer within {} s", patience.as_secs()))
    }

    /// Connects and waits for what comes of it: the connection, or the event that says why not.
    pub(crate) fn connect(
        &mut self,
        target: Target,
        config: ConnectConfig,
    ) -> Result<(Arc<Conn>, Event), String> {
        // The library bounds the connect itself.
        let patience = Duration::from_millis(u64::from(config.timeout_ms)) + Duration::from_secs(10);
        let conn = self.channel.connect(target, config).map_err(told)?;
        let event = self.next(patience)?;
        Ok((conn, event))
    }

    /// Connects; an error where that fails.
    pub(crate) fn established(
        &mut self,
        target: Target,
        config: ConnectConfig,
    ) -> Result<(Arc<Conn>, Event), String> {
        let (conn, event) = self.connect(target, config)?;
        if event.kind == kind::ESTABLISHED { Ok((conn, event)) } else { Err(text_of(&event)) }
    }
}

/// The connection of an event.
pub(crate) fn conn_of(event: &Event) -> Option<Arc<Conn>> {
    match object(event.conn) {
        Some(Object::Conn(conn)) => Some(conn),
        _ => None,
    }
}
