//! Two queue pairs without a socket, and one against a hostile peer.

mod failing;
mod faults;
mod hostile;
mod lending;
mod mixes;
mod posting;
mod reads;
mod scenario;
mod support;
mod victim;
