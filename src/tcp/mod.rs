//! What the kernel's TCP knows about a peer's host: of sockets of ours, and of those behind soft iWARP.

pub(crate) mod diag;
pub mod stall;

use std::time::Duration;

/// What TCP knows about the other end (`TCP_INFO`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Liveness {
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Bytes in the send queue that were never sent.
    pub unsent: u32,
    /// Time since anything was heard from the peer: an acknowledgement of any kind, or data.
    pub last_ack: Duration,
    /// Time since data was last sent or resent.
    pub last_sent: Duration,
    /// Window probes sent since the peer was last heard.
    pub probes: u32,
    /// Bytes acknowledged since the connection began.
    pub acked: u64,
}

/// Octets of the kernel's `struct tcp_info` (linux/tcp.h) up to the last one that is looked at; libc's ends before.
pub(crate) const TCP_INFO_LEN: usize = 148;

impl Liveness {
    /// From a `struct tcp_info`; an older kernel's is shorter, and what it does not have is 0.
    pub(crate) fn of(info: &[u8]) -> Self {
        let number = |at: usize| octets_at(info, at).map_or(0, u32::from_ne_bytes);
        let ms = |at: usize| Duration::from_millis(number(at).into());
        Self {
            probes: info.get(3).copied().unwrap_or(0).into(),
            unacked: number(24),
            last_sent: ms(44),
            // The kernel's fast path takes data (at 52) without noting the acknowledgement (at 56) it carries.
            last_ack: ms(52).min(ms(56)),
            acked: octets_at(info, 120).map_or(0, u64::from_ne_bytes),
            unsent: number(144),
        }
    }
}

/// The next octets from `at` on, where there are as many.
fn octets_at<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk().copied()
}
