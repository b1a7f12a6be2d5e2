//! fork(2): the child has the library's memory but none of its threads, and of the kernel's RDMA objects a shadow. If an
//! engine lived, every call in the child is refused.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::{Error, Result};

static ENGINES: AtomicUsize = AtomicUsize::new(0);
static CHILD: AtomicBool = AtomicBool::new(false);

/// Notes an engine.
pub(super) fn engine_created() {
    static WATCH: Once = Once::new();
    // SAFETY: the handler is a function of this library, and only stores to an atomic. Without it, for want of memory, a
    // child is not warned.
    WATCH.call_once(|| unsafe {
        libc::pthread_atfork(None, None, Some(in_child));
    });
    ENGINES.fetch_add(1, Ordering::SeqCst);
}

/// Notes the end of an engine.
pub(super) fn engine_destroyed() {
    ENGINES.fetch_sub(1, Ordering::SeqCst);
}

extern "C" fn in_child() {
    if ENGINES.load(Ordering::SeqCst) > 0 {
        CHILD.store(true, Ordering::SeqCst);
    }
}

/// An error in the child of a process that used the library.
pub fn check_process() -> Result<()> {
    if CHILD.load(Ordering::Relaxed) {
        let text = "this process was forked from one that uses the library";
        return Err(Error::state(libc::EPERM, text)
            .with_remedy("use the library in the parent, or open it only after the fork"));
    }
    Ok(())
}
