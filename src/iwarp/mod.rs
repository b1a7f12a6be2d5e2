//! The provider over TCP: a complete iWARP (MPA, DDP, RDMAP) in user space.

pub mod endpoint;
pub mod handshake;
pub mod qp;
pub mod socket;
