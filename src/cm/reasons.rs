//! The errors this machine itself finds; those of the providers pass through.

use crate::error::{Error, Reason, Stage};

/// Nothing came in time.
pub(super) fn timed_out(stage: Stage) -> Error {
    let (text, remedy) = match stage {
        Stage::None => ("no request came", ""),
        Stage::Address => {
            ("no answer at stage 'address'", "is the name service reachable, and is the address right?")
        }
        Stage::Route => ("no answer at stage 'route'", "is the peer up, and its port open in the firewall?"),
        Stage::Device => ("no answer at stage 'device'", ""),
        Stage::QueuePair => ("no answer at stage 'queue pair'", ""),
        Stage::Handshake => (
            "no answer at stage 'handshake'",
            "does a service for RDMA listen on this port, and is it alive?",
        ),
        Stage::Ready => ("no answer at stage 'ready'", ""),
        Stage::Connected => ("no answer at stage 'connected'", ""),
    };
    Error::new(libc::ETIMEDOUT, Reason::Timeout, text).at(stage).with_remedy(remedy)
}

/// The peer left before the connection was established.
pub(super) fn peer_left() -> Error {
    Error::new(libc::ECONNRESET, Reason::PeerClosed, "the peer closed before the connection was established")
}

/// The peer ended an established connection in good order.
pub(super) fn peer_closed() -> Error {
    Error::new(libc::ESHUTDOWN, Reason::PeerClosed, "the peer closed the connection")
}

/// `RDMA_CM_EVENT_UNREACHABLE` while connecting.
pub(super) fn unreachable() -> Error {
    Error::new(libc::EHOSTUNREACH, Reason::Unreachable, "the peer is unreachable")
        .with_remedy("no route to the peer: see `ip route get ADDRESS`")
}

/// `RDMA_CM_EVENT_ADDR_CHANGE`.
pub(super) fn address_changed() -> Error {
    Error::new(
        libc::ENETRESET,
        Reason::Unreachable,
        "the local address moved to another port of this machine",
    )
    .with_remedy("connect again: the new connection uses the new port")
}

/// `RDMA_CM_EVENT_DEVICE_REMOVAL`.
pub(super) fn device_gone() -> Error {
    Error::new(libc::ENODEV, Reason::DeviceGone, "the device was removed")
}

/// The caller closed or disconnected.
pub(super) fn cancelled() -> Error {
    Error::new(libc::ECANCELED, Reason::Cancelled, "closed by the caller")
}
