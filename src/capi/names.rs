//! Names of the numbers, for logs. The strings are static; an unknown number is "unknown".

use std::ffi::{CStr, c_char};

use crate::engine::names::{OPS, REASONS, STAGES, UNKNOWN};

const EVENTS: [&CStr; 11] = [
    UNKNOWN,
    c"CONNECT_REQUEST",
    c"ESTABLISHED",
    c"CONNECT_FAILED",
    c"DISCONNECTED",
    c"CLOSED",
    c"COMPLETION",
    c"RECV",
    c"RPC_CALL",
    c"RPC_REPLY",
    c"RPC_ANSWERED",
];

fn name(names: &[&'static CStr], number: u32) -> *const c_char {
    let index = usize::try_from(number).unwrap_or(usize::MAX);
    names.get(index).copied().unwrap_or(UNKNOWN).as_ptr()
}

/// Name of a stage (`RCG_STAGE_*`), like "route"; "unknown" for any other number. The string is static.
///
/// Thread rule: any thread. Can't fail. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn rcg_stage_name(stage: u32) -> *const c_char {
    name(&STAGES, stage)
}

/// Name of an event's type (`RCG_EVENT_*`), like "ESTABLISHED"; "unknown" for any other number. The string is
/// static.
///
/// Thread rule: any thread. Can't fail. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn rcg_event_name(event_type: u32) -> *const c_char {
    name(&EVENTS, event_type)
}

/// Name of an operation (`RCG_SEND` to `RCG_RECV`), like "WRITE_IMM"; "unknown" for any other number. The string is
/// static.
///
/// Thread rule: any thread. Can't fail. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn rcg_op_name(op: u32) -> *const c_char {
    name(&OPS, op)
}

/// Name of a reason (`RCG_REASON_*`), like "peer dead"; "unknown" for any other number. The string is static.
///
/// Thread rule: any thread. Can't fail. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn rcg_reason_name(reason: u32) -> *const c_char {
    name(&REASONS, reason)
}

#[cfg(test)]
mod tests {
    use super::super::{error, event, post};
    use super::*;

    fn read(name: *const c_char) -> &'static str {
        // SAFETY: the functions of this file return static strings.
        unsafe { CStr::from_ptr(name) }.to_str().unwrap()
    }

    #[test]
    fn numbers_and_names_agree() {
        assert_eq!(read(rcg_stage_name(error::RCG_STAGE_QUEUE_PAIR)), "queue pair");
        assert_eq!(read(rcg_stage_name(error::RCG_STAGE_CONNECTED)), "connected");
        assert_eq!(read(rcg_event_name(event::RCG_EVENT_RECV)), "RECV");
        assert_eq!(read(rcg_op_name(post::RCG_READ)), "READ");
        assert_eq!(read(rcg_reason_name(error::RCG_REASON_INTERNAL)), "internal");
        assert_eq!(read(rcg_reason_name(error::RCG_REASON_NONE)), "none");
    }

    #[test]
    fn other_numbers_are_unknown() {
        for number in [20, 1 << 31, u32::MAX] {
            for name in [rcg_stage_name, rcg_event_name, rcg_op_name, rcg_reason_name] {
                assert_eq!(read(name(number)), "unknown");
            }
        }
        assert_eq!(read(rcg_event_name(0)), "unknown");
        assert_eq!(read(rcg_stage_name(error::RCG_STAGE_COUNT)), "unknown");
    }
}
