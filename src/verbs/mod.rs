//! The provider over rdma_cm and verbs: InfiniBand, RoCE and iWARP devices of the kernel.
//!
//! `sys` is the only place that names `rdma_sys`; in unit tests a model of devices stands in for it. [`Hub`] is what a
//! channel has of it all: rdma_cm's events and the completion queues; [`endpoint`] is one connection; [`device`] keeps what is registered.

mod cq;
pub(crate) mod device;
pub(crate) mod endpoint;
mod hub;
mod listen;
mod private;
pub(crate) mod probe;
#[cfg(not(test))]
mod sys;
#[cfg(test)]
#[path = "fake/mod.rs"]
pub(crate) mod sys;
mod types;

pub(crate) use device::Devices;
pub(crate) use endpoint::Endpoint;
pub(crate) use hub::{Events, Hub, Watch};
pub(crate) use listen::{Listening, Request};
pub(crate) use private::Carrier;
pub(crate) use sys::CmEvent;
pub(crate) use types::{AsyncEvent, CmKind, Wc};
pub use types::{DeviceLimits, ForkState};
