//! librdmacm and libibverbs as safe objects: the only place that names `rdma_sys`.
//!
//! A child holds its parents, so that they are destroyed in the right order. Only the plain verbs are used: rdma-sys 0.3
//! finds no extended ones on 64 bit. In unit tests a model of a device stands in for this module.

mod cm;
mod device;
mod work;

use std::io;

pub(crate) use cm::{CmEvent, CmId, EventChannel};
pub(crate) use device::{CompChannel, Cq, Departure, DeviceHandle, Mr, Pd};
pub(crate) use work::{RecvChain, SendChain};

use crate::error::{Error, Result};
use crate::verbs::types::{DeviceLimits, ForkState};

/// The error of a call that has failed with `errno`.
fn failed(what: &str) -> Error {
    Error::os(what, &io::Error::last_os_error())
}

/// The error of a call that returns an errno, which some drivers give a sign.
fn failed_with(what: &str, code: i32) -> Error {
    Error::os(what, &io::Error::from_raw_os_error(code.saturating_abs()))
}

/// The result of a call that returns 0, or -1 and sets `errno`.
fn check(what: &str, code: i32) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(failed(what)) }
}

/// Prepares libibverbs for programs that fork, where the kernel does not do so by itself; to be called before anything
/// is registered. An error is what the child of a fork may suffer from: nothing for the parent.
pub(crate) fn prepare_fork() -> Result<()> {
    // SAFETY: no arguments. `IBV_FORK_UNNEEDED`: the kernel copies pinned pages at fork.
    let code = unsafe {
        match rdma_sys::ibv_is_fork_initialized() {
            rdma_sys::IBV_FORK_DISABLED => rdma_sys::ibv_fork_init(),
            _ => 0,
        }
    };
    if code == 0 { Ok(()) } else { Err(failed_with("ibv_fork_init", code)) }
}

/// What [`prepare_fork`] has come to.
pub(crate) fn fork_state() -> ForkState {
    // SAFETY: no arguments.
    match unsafe { rdma_sys::ibv_is_fork_initialized() } {
        rdma_sys::IBV_FORK_UNNEEDED => ForkState::Unneeded,
        rdma_sys::IBV_FORK_ENABLED => ForkState::Enabled,
        _ => ForkState::Disabled,
    }
}

/// What each device can do that librdmacm can open.
pub(crate) fn devices() -> Result<Vec<DeviceLimits>> {
    let mut count = 0;
    // SAFETY: `count` takes the number.
    let list = unsafe { rdma_sys::rdma_get_devices(&raw mut count) };
    if list.is_null() {
        return Err(failed("rdma_get_devices"));
    }
    let contexts = (0..usize::try_from(count).unwrap_or(0)).filter_map(|at| {
        // SAFETY: the list has so many entries, whose contexts are open until it is freed.
        std::ptr::NonNull::new(unsafe { *list.add(at) }).map(|raw| DeviceHandle { raw })
    });
    let limits = contexts.map(|device| device.limits(1)).collect();
    // SAFETY: made above, freed once.
    unsafe { rdma_sys::rdma_free_devices(list) };
    limits
}

/// Destroys an id and its queue pair where that may take long: on a thread of its own, which ends with them. The queue
/// pair is to be in the error state, so that nothing happens on it any more; nor do events come.
pub(crate) fn dispose(id: CmId) {
    let leaving = id.leave();
    // Without a thread they are destroyed here and now, as the closure is dropped.
    let _ = std::thread::Builder::new().name("rcg-dispose".into()).spawn(move || drop(leaving));
}

/// How many devices libibverbs has a driver for.
pub(crate) fn count_devices() -> usize {
    let mut count = 0;
    // SAFETY: `count` takes the number; the list is freed once.
    unsafe {
        let list = rdma_sys::ibv_get_device_list(&raw mut count);
        if list.is_null() {
            return 0;
        }
        rdma_sys::ibv_free_device_list(list);
    }
    usize::try_from(count).unwrap_or(0)
}

/// Waits until every processor has left what it was doing for the network: an expedient of RCU (membarrier(2)), which takes
/// some milliseconds. A kernel without it leaves the caller as he was.
pub(crate) fn await_softirqs() {
    // SAFETY: no pointers.
    unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
}

/// Makes a descriptor non-blocking.
fn nonblocking(fd: i32) -> Result<()> {
    // SAFETY: no pointers; a descriptor of librdmacm or libibverbs that is open.
    let set = unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        flags >= 0 && libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) == 0
    };
    if set { Ok(()) } else { Err(failed("fcntl")) }
}

/// The numbers of `types` are those of libibverbs.
const _: () = {
    use crate::verbs::types::{AsyncEvent, Wc, send_flags};
    use rdma_sys::ibv_event_type::{self as event};
    use rdma_sys::ibv_send_flags as flags;
    use rdma_sys::ibv_wc_status::*;

    assert!(Wc::LOCAL_LENGTH == IBV_WC_LOC_LEN_ERR && Wc::LOCAL_PROTECTION == IBV_WC_LOC_PROT_ERR);
    assert!(Wc::FLUSHED == IBV_WC_WR_FLUSH_ERR && Wc::REMOTE_INVALID == IBV_WC_REM_INV_REQ_ERR);
    assert!(Wc::REMOTE_ACCESS == IBV_WC_REM_ACCESS_ERR && Wc::REMOTE_OPERATION == IBV_WC_REM_OP_ERR);
    assert!(Wc::RETRIES == IBV_WC_RETRY_EXC_ERR && Wc::NO_RECEIVE == IBV_WC_RNR_RETRY_EXC_ERR);
    assert!(
        send_flags::FENCE == flags::IBV_SEND_FENCE.0 && send_flags::SIGNALED == flags::IBV_SEND_SIGNALED.0
    );
    assert!(
        send_flags::SOLICITED == flags::IBV_SEND_SOLICITED.0
            && send_flags::INLINE == flags::IBV_SEND_INLINE.0
    );
    assert!(AsyncEvent::QP_FATAL == event::IBV_EVENT_QP_FATAL as u32);
    assert!(AsyncEvent::QP_REQUEST == event::IBV_EVENT_QP_REQ_ERR as u32);
    assert!(AsyncEvent::QP_ACCESS == event::IBV_EVENT_QP_ACCESS_ERR as u32);
    assert!(AsyncEvent::COMM_EST == event::IBV_EVENT_COMM_EST as u32);
    assert!(AsyncEvent::DEVICE_FATAL == event::IBV_EVENT_DEVICE_FATAL as u32);
};
/// The structs that rdma-sys writes by hand are as large as C's; `scripts/check.sh` compares the same numbers with the headers.
#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<rdma_sys::ibv_send_wr>() == 128 && size_of::<rdma_sys::ibv_wc>() == 48);
    assert!(size_of::<rdma_sys::rdma_cm_event>() == 80 && size_of::<rdma_sys::ibv_async_event>() == 16);
};
