//! A model of RDMA devices and their connection manager in place of `sys`, for unit tests.
//!
//! It has the interface of `sys` and no need of hardware or a kernel module. A test makes a [`Fabric`], gives it devices
//! with addresses, and runs the code under test on it; the descriptors are real, so an event loop works unchanged. The
//! model follows what the kernel's rdma_cm and librdmacm do, the odd parts included: who gets which event, that only the
//! active side's look at its reply lets the passive side be established, that a queue pair's slots come free when
//! completions are polled. Where hardware may do one thing or another the model does the stricter.
//!
//! - `fabric`: the objects, the test's controls, the ledger of what is alive and of what was done wrong
//! - `faults`: calls that fail and events that come late or never
//! - `cm`: ids and event channels; `ids`, `exchange`, `events`: what the kernel has behind them
//! - `device`: devices, memory, completion queues; `work`: work requests; `queue`, `execute`: what becomes of them

mod cm;
mod device;
mod events;
mod exchange;
mod execute;
mod fabric;
mod faults;
mod ids;
mod queue;
mod signal;
#[cfg(test)]
mod tests;
mod work;

use std::io;

pub(crate) use cm::{CmEvent, CmId, EventChannel};
pub(crate) use device::{CompChannel, Cq, Departure, DeviceHandle, Mr, Pd};
pub(crate) use fabric::{DeviceConfig, Entered, Fabric, Removal};
pub(crate) use faults::{Delay, Incident};
pub(crate) use work::{RecvChain, SendChain};

use crate::error::{Error, Result};
use crate::verbs::types::{DeviceLimits, ForkState};

/// The error of a call that has failed with `errno`.
fn failed_with(what: &str, errno: i32) -> Error {
    Error::os(what, &io::Error::from_raw_os_error(errno))
}

/// As `sys::prepare_fork`; no call that is counted, as it is made once in a process.
pub(crate) fn prepare_fork() -> Result<()> {
    Ok(())
}

/// As `sys::fork_state`.
pub(crate) fn fork_state() -> ForkState {
    ForkState::Unneeded
}

/// As `sys::devices`.
pub(crate) fn devices() -> Result<Vec<DeviceLimits>> {
    let fabric = Fabric::current().ok_or_else(|| failed_with("rdma_get_devices", libc::ENODEV))?;
    let state = fabric.lock();
    let present = state.devices.values().filter(|device| !device.removed);
    Ok(present.map(|device| device.config.limits.clone()).collect())
}

/// As `sys::await_softirqs`: the model places while it is locked.
pub(crate) fn await_softirqs() {}

/// As `sys::dispose`, but at once: a test counts what is left when it ends.
pub(crate) fn dispose(id: CmId) {
    drop(id);
}

/// As `sys::count_devices`; none where no fabric is entered.
pub(crate) fn count_devices() -> usize {
    Fabric::current()
        .map_or(0, |fabric| fabric.lock().devices.values().filter(|device| !device.removed).count())
}
