//! A device's context, protection domains, memory regions, completion queues.

use std::ffi::CStr;
use std::mem::{MaybeUninit, zeroed};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{failed, failed_with, nonblocking};
use crate::error::Result;
use crate::verbs::types::{AsyncEvent, DeviceLimits, Rights, Wc};

/// The context of a device, borrowed from the id that led to it: valid as long as librdmacm has an id on the device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceHandle {
    pub(super) raw: NonNull<rdma_sys::ibv_context>,
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl Send for DeviceHandle {}
// SAFETY: as above.
unsafe impl Sync for DeviceHandle {}

impl DeviceHandle {
    /// What the device can do through `port`.
    pub(crate) fn limits(self, port: u8) -> Result<DeviceLimits> {
        // SAFETY: all zeros is a valid value of this C struct.
        let mut attr: rdma_sys::ibv_device_attr = unsafe { zeroed() };
        // SAFETY: the context is alive, and `attr` takes the answer.
        let code = unsafe { rdma_sys::ibv_query_device(self.raw.as_ptr(), &raw mut attr) };
        if code != 0 {
            return Err(failed_with("ibv_query_device", code));
        }
        let size = |value: i32| u32::try_from(value).unwrap_or(0);
        // SAFETY: the device of a context lives as long as it; its name ends with a NUL.
        let (name, transport) = unsafe {
            let device = self.raw.as_ref().device;
            let name = CStr::from_ptr((&raw const (*device).name).cast());
            (name.to_string_lossy().into_owned(), (*device).transport_type)
        };
        Ok(DeviceLimits {
            name,
            iwarp: transport == rdma_sys::ibv_transport_type::IBV_TRANSPORT_IWARP,
            vendor: attr.vendor_id,
            max_wr: size(attr.max_qp_wr),
            max_sge: size(attr.max_sge),
            max_read_sge: size(attr.max_sge_rd),
            max_cqe: size(attr.max_cqe),
            max_ird: size(attr.max_qp_rd_atom),
            max_ord: size(attr.max_qp_init_rd_atom),
            max_message: self.max_message(port),
        })
    }

    /// Longest message of a port; 2^31 where it does not say.
    fn max_message(self, port: u8) -> u64 {
        // SAFETY: all zeros is a valid value of this C struct.
        let mut attr: rdma_sys::ibv_port_attr = unsafe { zeroed() };
        // SAFETY: the context is alive. `ibv_query_port` fills the beginning of the struct, to which the message size
        // belongs, and no more than that.
        let code = unsafe { rdma_sys::ibv_query_port(self.raw.as_ptr(), port, (&raw mut attr).cast()) };
        if code == 0 && attr.max_msg_sz > 0 { attr.max_msg_sz.into() } else { 1 << 31 }
    }

    /// The descriptor of asynchronous events, made non-blocking.
    pub(crate) fn async_fd(self) -> Result<RawFd> {
        // SAFETY: the context is alive.
        let fd = unsafe { self.raw.as_ref().async_fd };
        nonblocking(fd).map(|()| fd)
    }

    /// The next asynchronous event, acknowledged; `None` when none waits.
    pub(crate) fn async_event(self) -> Option<AsyncEvent> {
        let mut raw = MaybeUninit::<rdma_sys::ibv_async_event>::zeroed();
        // SAFETY: the context is alive, and `raw` takes the event.
        if unsafe { rdma_sys::ibv_get_async_event(self.raw.as_ptr(), raw.as_mut_ptr()) } != 0 {
            return None;
        }
        // SAFETY: read as a number: the kernel may send one that rdma-sys's enum does not have.
        let kind = unsafe { (&raw const (*raw.as_ptr()).event_type).cast::<u32>().read() };
        let about_qp = (1..=7).contains(&kind) || kind == 16;
        // SAFETY: events of these kinds name a queue pair, which can't be destroyed before they are acknowledged.
        let qp = about_qp.then(|| unsafe { (*(*raw.as_ptr()).element.qp).qp_context as usize });
        // SAFETY: got above, acknowledged once.
        unsafe { rdma_sys::ibv_ack_async_event(raw.as_mut_ptr()) };
        Some(AsyncEvent { kind, qp })
    }
}

/// The end of a device that has been removed, whose driver may wait until every program has closed it. librdmacm closes a
/// context without ids only when it happens to look at its list of devices, and sees there that the device is gone.
pub(crate) struct Departure {
    /// Compared only: librdmacm may have closed it.
    context: *mut rdma_sys::ibv_context,
    /// Its descriptors, and what they lead to.
    files: [(RawFd, String); 2],
}

// SAFETY: the pointer is never followed.
unsafe impl Send for Departure {}

fn target(fd: RawFd) -> String {
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    link.to_string_lossy().into_owned()
}

impl DeviceHandle {
    /// To be asked for while there is still an id on the device.
    pub(crate) fn depart(self) -> Departure {
        // SAFETY: the context is alive.
        let fds = unsafe { [self.raw.as_ref().cmd_fd, self.raw.as_ref().async_fd] };
        Departure { context: self.raw.as_ptr(), files: fds.map(|fd| (fd, target(fd))) }
    }
}

impl Departure {
    /// Has librdmacm look. False = the device is still listed, as its removal has just begun: try again in a while.
    pub(crate) fn proceed(&self) -> bool {
        let mut count = 0;
        // SAFETY: `count` takes the number, and the list has so many entries; it is freed once.
        unsafe {
            let list = rdma_sys::rdma_get_devices(&raw mut count);
            if !list.is_null() {
                let listed = (0..usize::try_from(count).unwrap_or(0)).any(|at| *list.add(at) == self.context);
                rdma_sys::rdma_free_devices(list);
                return !listed;
            }
        }
        // With the files replaced, what another channel or engine still has there could not be destroyed, nor its own file
        // closed. The last one to leave replaces them.
        let users = USERS.lock();
        if !users.contains(&(self.context as usize)) {
            self.replace_files();
        }
        true
    }

    /// Where no device is left at all librdmacm does not look (until 2026 at least). The kernel counts open files: another
    /// one takes the place of each, which librdmacm may close as its own some day.
    fn replace_files(&self) {
        let Ok(nothing) = std::fs::File::open("/dev/null") else { return };
        for (fd, path) in &self.files {
            // Still the device's, whose node may be deleted meanwhile.
            if path.contains("infiniband") && target(*fd).starts_with(path) {
                // SAFETY: no pointers; the descriptor is open, and dup3(2) replaces it at once.
                unsafe { libc::dup3(nothing.as_raw_fd(), *fd, libc::O_CLOEXEC) };
            }
        }
    }
}

/// `struct ibv_pd`. Whoever makes one sees to it that librdmacm keeps the device's context.
pub(crate) struct Pd {
    raw: NonNull<rdma_sys::ibv_pd>,
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl Send for Pd {}
// SAFETY: as above.
unsafe impl Sync for Pd {}

impl Drop for Pd {
    fn drop(&mut self) {
        // SAFETY: made in `new`; what was made in it holds it.
        unsafe { rdma_sys::ibv_dealloc_pd(self.raw.as_ptr()) };
    }
}

impl Pd {
    /// `ibv_alloc_pd`.
    pub(crate) fn new(device: DeviceHandle) -> Result<Arc<Self>> {
        // SAFETY: the context is alive.
        let raw = NonNull::new(unsafe { rdma_sys::ibv_alloc_pd(device.raw.as_ptr()) });
        Ok(Arc::new(Self { raw: raw.ok_or_else(|| failed("ibv_alloc_pd"))? }))
    }

    pub(super) fn raw(&self) -> *mut rdma_sys::ibv_pd {
        self.raw.as_ptr()
    }
}

/// `struct ibv_mr`.
pub(crate) struct Mr {
    raw: NonNull<rdma_sys::ibv_mr>,
    _pd: Arc<Pd>,
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl Send for Mr {}
// SAFETY: as above.
unsafe impl Sync for Mr {}

impl Drop for Mr {
    fn drop(&mut self) {
        // SAFETY: made in `new`, ended once.
        unsafe { rdma_sys::ibv_dereg_mr(self.raw.as_ptr()) };
    }
}

impl Mr {
    /// `ibv_reg_mr`.
    ///
    /// # Safety
    /// The memory stays mapped as long as the region lives.
    pub(crate) unsafe fn new(pd: &Arc<Pd>, addr: *mut u8, length: usize, rights: Rights) -> Result<Self> {
        let bit = |set: bool, flag: rdma_sys::ibv_access_flags| if set { flag.0 } else { 0 };
        let access = bit(rights.local_write, rdma_sys::ibv_access_flags::IBV_ACCESS_LOCAL_WRITE)
            | bit(rights.remote_read, rdma_sys::ibv_access_flags::IBV_ACCESS_REMOTE_READ)
            | bit(rights.remote_write, rdma_sys::ibv_access_flags::IBV_ACCESS_REMOTE_WRITE);
        // SAFETY: the protection domain is alive; the memory by this function's contract.
        let raw = NonNull::new(unsafe { rdma_sys::ibv_reg_mr(pd.raw(), addr.cast(), length, access as i32) });
        Ok(Self { raw: raw.ok_or_else(|| failed("ibv_reg_mr"))?, _pd: Arc::clone(pd) })
    }

    /// The key for our own work requests.
    pub(crate) fn local_key(&self) -> u32 {
        // SAFETY: the region is alive.
        unsafe { self.raw.as_ref().lkey }
    }

    /// The key for peers.
    pub(crate) fn remote_key(&self) -> u32 {
        // SAFETY: as above.
        unsafe { self.raw.as_ref().rkey }
    }
}

/// The contexts of all completion channels of the process: librdmacm has one context per device, whatever the engine.
static USERS: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// `struct ibv_comp_channel`.
pub(crate) struct CompChannel {
    raw: NonNull<rdma_sys::ibv_comp_channel>,
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl Send for CompChannel {}
// SAFETY: as above.
unsafe impl Sync for CompChannel {}

impl AsRawFd for CompChannel {
    fn as_raw_fd(&self) -> RawFd {
        // SAFETY: the channel is alive.
        unsafe { self.raw.as_ref().fd }
    }
}

impl Drop for CompChannel {
    fn drop(&mut self) {
        let mut users = USERS.lock();
        // SAFETY: made in `new`, its completion queues hold it, and its context is alive.
        let context = unsafe {
            let context = self.raw.as_ref().context;
            rdma_sys::ibv_destroy_comp_channel(self.raw.as_ptr());
            context as usize
        };
        if let Some(at) = users.iter().position(|user| *user == context) {
            users.swap_remove(at);
        }
    }
}

impl CompChannel {
    /// `ibv_create_comp_channel`, whose descriptor does not block.
    pub(crate) fn new(device: DeviceHandle) -> Result<Arc<Self>> {
        // SAFETY: the context is alive.
        let raw = NonNull::new(unsafe { rdma_sys::ibv_create_comp_channel(device.raw.as_ptr()) });
        let channel = Self { raw: raw.ok_or_else(|| failed("ibv_create_comp_channel"))? };
        USERS.lock().push(device.raw.as_ptr() as usize);
        nonblocking(channel.as_raw_fd())?;
        Ok(Arc::new(channel))
    }

    /// Takes and acknowledges all events that wait; `fired` gets the context of each event's completion queue.
    pub(crate) fn drain(&self, mut fired: impl FnMut(usize)) {
        let (mut cq, mut context) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the channel is alive; the event's completion queue is, until the event is acknowledged.
        while unsafe { rdma_sys::ibv_get_cq_event(self.raw.as_ptr(), &raw mut cq, &raw mut context) } == 0 {
            // SAFETY: as above; acknowledged once.
            unsafe { rdma_sys::ibv_ack_cq_events(cq, 1) };
            fired(context as usize);
        }
    }
}

/// `struct ibv_cq`.
pub(crate) struct Cq {
    raw: NonNull<rdma_sys::ibv_cq>,
    _channel: Arc<CompChannel>,
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl Send for Cq {}
// SAFETY: as above.
unsafe impl Sync for Cq {}

impl Drop for Cq {
    fn drop(&mut self) {
        // SAFETY: made in `new`; its queue pairs hold it, and every event got has been acknowledged.
        unsafe { rdma_sys::ibv_destroy_cq(self.raw.as_ptr()) };
    }
}

impl Cq {
    /// `ibv_create_cq` for at least `entries` completions; its events carry `context`.
    pub(crate) fn new(
        device: DeviceHandle,
        channel: &Arc<CompChannel>,
        entries: u32,
        context: usize,
    ) -> Result<Arc<Self>> {
        let entries = i32::try_from(entries).unwrap_or(i32::MAX);
        // SAFETY: the context and the channel are alive.
        let raw = NonNull::new(unsafe {
            rdma_sys::ibv_create_cq(device.raw.as_ptr(), entries, context as *mut _, channel.raw.as_ptr(), 0)
        });
        let raw = raw.ok_or_else(|| failed("ibv_create_cq"))?;
        Ok(Arc::new(Self { raw, _channel: Arc::clone(channel) }))
    }

    pub(super) fn raw(&self) -> *mut rdma_sys::ibv_cq {
        self.raw.as_ptr()
    }

    /// `ibv_poll_cq`: moves completions to `out`, at most as many as it has room for in one call of the driver.
    pub(crate) fn poll(&self, out: &mut Vec<Wc>) -> Result<usize> {
        const BATCH: usize = 32;
        let mut raw = [const { MaybeUninit::<rdma_sys::ibv_wc>::uninit() }; BATCH];
        // SAFETY: the queue is alive; the driver fills as many entries as it returns.
        let count = unsafe { rdma_sys::ibv_poll_cq(self.raw(), BATCH as i32, raw.as_mut_ptr().cast()) };
        let Ok(count) = usize::try_from(count) else { return Err(failed_with("ibv_poll_cq", libc::EIO)) };
        // SAFETY: as above.
        out.extend(raw.iter().take(count).map(|wc| Wc::from_raw(unsafe { wc.assume_init_ref() })));
        Ok(count)
    }

    /// `ibv_req_notify_cq`: the next completion makes an event.
    pub(crate) fn arm(&self) -> Result<()> {
        // SAFETY: the queue is alive.
        let code = unsafe { rdma_sys::ibv_req_notify_cq(self.raw(), 0) };
        if code == 0 { Ok(()) } else { Err(failed_with("ibv_req_notify_cq", code)) }
    }
}
