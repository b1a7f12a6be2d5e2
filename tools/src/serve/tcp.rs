//! Raw TCP's end: what is measured for comparison.

use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::time::Duration;

use crate::cpu;
use crate::raw::Raw;
use crate::words::{Tally, TcpWants};

/// How clients are served.
pub(super) struct Terms {
    pub(super) spin: Duration,
    /// After which a silent client is dead.
    pub(super) keepalive: Duration,
    pub(super) max_octets: u64,
    pub(super) congestion: Option<String>,
}

/// Accepts clients for ever, each with a thread.
pub(super) fn serve(listener: &TcpListener, terms: &Terms) {
    let Terms { spin, keepalive, max_octets, .. } = *terms;
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Short of descriptors: they come back.
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        let Ok(raw) = Raw::new(stream, spin, keepalive, terms.congestion.as_deref()) else { continue };
        // A client that fails, fails by itself.
        let client = move || drop(client(raw, keepalive, max_octets));
        let _ = std::thread::Builder::new().name("rcg-tcp-client".into()).spawn(client);
    }
}

fn client(mut raw: Raw, keepalive: Duration, max_octets: u64) -> io::Result<()> {
    let mut head = [0; TcpWants::LEN];
    raw.read_exact(&mut head)?;
    // Now and then it is RDMA's turn.
    raw.wait_while_alive(keepalive)?;
    let wants = TcpWants::parse(&head).ok_or(ErrorKind::InvalidData)?;
    if u64::from(wants.message) + u64::from(wants.answer) > max_octets {
        return Err(ErrorKind::InvalidData.into());
    }
    let (mut message, answer) = (vec![0; wants.message as usize], vec![0; wants.answer as usize]);
    let mut tally = Tally { messages: 0, cpu_us: cpu::used_us() };
    raw.write_all(&tally.emit())?;
    while raw.read_full(&mut message)? {
        tally.messages += 1;
        raw.write_all(&answer)?;
    }
    tally.cpu_us = cpu::used_us();
    raw.write_all(&tally.emit())
}
