//! A client's connection to `rcg serve`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use rdmacm_gluster::engine::{Conn, ConnectConfig, Event, Target, kind};
use rdmacm_gluster::work::by_value;

use crate::side::{Provider, Side, Stages, Tuning, Way, text_of, told};
use crate::slots::Slots;
use crate::words::{Offer, PORT, TALLY, Tally, Wants};

/// Whom to connect to, and how.
#[derive(Args, Clone, Debug)]
pub(crate) struct Peer {
    /// Name or address of a machine where `rcg serve` runs
    pub(crate) host: String,
    /// Its port
    #[arg(short, long, default_value_t = PORT)]
    pub(crate) port: u16,
    /// RDMA devices of the kernel, iWARP over TCP sockets, or whichever serves the address
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) provider: Provider,
    /// Seconds to wait for the connection, and for each answer
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) timeout: u32,
    #[command(flatten)]
    pub(crate) tuning: Tuning,
}

impl Peer {
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(self.timeout.into())
    }

    pub(crate) fn target(&self) -> Target {
        Target::Host(self.host.clone(), self.port.to_string())
    }

    /// A connect by one provider, with room for a window of operations.
    pub(crate) fn config(&self, private_data: Vec<u8>, window: u32) -> ConnectConfig {
        // Messages that ask for a tally come on top, and what is done but not seen to be done.
        let depth = (window + 2) * 2;
        ConnectConfig {
            qp: self.tuning.config(self.provider, depth, depth),
            private_data,
            timeout_ms: self.timeout * 1000,
            ..ConnectConfig::default()
        }
    }
}

/// An established connection with its memory.
pub(crate) struct Link {
    pub(crate) conn: Arc<Conn>,
    pub(crate) offer: Offer,
    /// What is sent, and what Writes and Reads use here.
    pub(crate) out: Slots,
    /// What comes in.
    pub(crate) answers: Slots,
    pub(crate) way: Way,
    pub(crate) stages: Stages,
    patience: Duration,
}

impl Link {
    /// Connects; `size` is that of the local pieces, as many as the window of operations has, and one more.
    pub(crate) fn open(
        side: &mut Side,
        peer: &Peer,
        wants: Wants,
        (size, window): (usize, u32),
    ) -> Result<Self, String> {
        let (conn, event) = side.established(peer.target(), peer.config(wants.emit(), window))?;
        let offer = event.private_data.as_deref().and_then(Offer::parse).unwrap_or_default();
        let info = conn.info();
        let answers = wants.window as usize + 1;
        let link = Self {
            out: Slots::new(&side.engine, size.max(1), window as usize + 1).map_err(told)?,
            answers: Slots::new(&side.engine, wants.answer as usize, answers).map_err(told)?,
            way: Way::from(&info),
            stages: Stages::from(&info.stages),
            patience: peer.patience(),
            conn,
            offer,
        };
        link.conn.post_recv(answers, &mut by_value(|slot| link.answers.recv(slot))).map_err(told)?;
        Ok(link)
    }

    /// How long an answer may take.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Posts a receive again.
    pub(crate) fn receive(&self, slot: usize) -> Result<(), String> {
        self.conn.post_recv(1, &mut by_value(|_| self.answers.recv(slot))).map_err(told)
    }

    /// Sends a message of no octets, which is answered at once.
    pub(crate) fn ask(&self) -> Result<(), String> {
        self.conn.post(1, &mut by_value(|_| self.out.send(0, 0))).map_err(told)
    }

    /// The tally in an answer.
    pub(crate) fn tally_of(&self, event: &Event) -> Result<Tally, String> {
        let mut octets = [0; TALLY];
        let length = event.length.min(TALLY);
        self.answers.sge(event.user, length).map_err(told)?.read(0, &mut octets);
        Tally::parse(&octets).ok_or_else(|| "the answer is no tally".into())
    }

    /// Disconnects and waits for the end.
    pub(crate) fn close(self, side: &mut Side) -> Result<(), String> {
        self.conn.disconnect().map_err(told)?;
        let end = Instant::now() + self.patience;
        while let Some(event) = side.next_until(end)? {
            if event.kind == kind::CLOSED && event.conn == self.conn.handle() {
                return Ok(());
            }
        }
        Err("the connection does not end".into())
    }
}

/// An error where an event is not the success of an operation.
pub(crate) fn good(event: &Event) -> Result<(), String> {
    let operation = matches!(event.kind, kind::RECV | kind::COMPLETION);
    if operation && event.status == 0 { Ok(()) } else { Err(text_of(event)) }
}
