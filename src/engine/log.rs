//! The log hook. Without one the library is silent.

use std::ffi::{CString, c_char, c_void};
use std::fmt;

/// How grave a message is; the numbers are those of `RCG_LOG_*`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u32)]
pub enum Level {
    /// Something failed that the caller may not see otherwise.
    Error = 1,
    /// Something the administrator should know.
    Warn = 2,
    /// Life cycle.
    Info = 3,
    /// Everything.
    Debug = 4,
}

/// The function of the caller's that takes messages.
pub type Hook = unsafe extern "C" fn(*mut c_void, u32, *const c_char);

/// Where messages go.
#[derive(Clone, Copy)]
pub struct Logger {
    hook: Option<Hook>,
    arg: *mut c_void,
    level: u32,
}

// SAFETY: the argument is the caller's cookie, never looked at here; the C API says that the hook is called from
// any thread.
unsafe impl Send for Logger {}
// SAFETY: as above.
unsafe impl Sync for Logger {}

impl Default for Logger {
    fn default() -> Self {
        Self { hook: None, arg: std::ptr::null_mut(), level: 0 }
    }
}

impl Logger {
    /// Calls `hook` with `arg` for messages up to `level`.
    pub fn new(hook: Option<Hook>, arg: *mut c_void, level: u32) -> Self {
        Self { hook, arg, level }
    }

    /// Logs a message; it is formatted only where somebody wants it.
    pub fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        let Some(hook) = self.hook.filter(|_| level as u32 <= self.level) else { return };
        let text = message.to_string().replace('\0', "\u{fffd}");
        if let Ok(text) = CString::new(text) {
            // SAFETY: the caller has given a function of this type and its argument; the text lives for the call.
            unsafe { hook(self.arg, level as u32, text.as_ptr()) };
        }
    }
}
