//! The provider over TCP: a complete iWARP (MPA, DDP, RDMAP) in user space.

pub mod handshake;
pub mod qp;
