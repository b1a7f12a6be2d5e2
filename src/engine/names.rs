//! Names of numbers, as people and programs read them.

use std::ffi::CStr;

/// For a number that has none.
pub const UNKNOWN: &CStr = c"unknown";

/// Of `RCG_STAGE_*`.
pub const STAGES: [&CStr; 8] =
    [c"none", c"address", c"route", c"device", c"queue pair", c"handshake", c"ready", c"connected"];

/// Of `RCG_SEND` to `RCG_RECV`.
pub const OPS: [&CStr; 8] =
    [UNKNOWN, c"SEND", c"SEND_IMM", c"SEND_INV", c"WRITE", c"WRITE_IMM", c"READ", c"RECV"];

/// Of `RCG_REASON_*`.
pub const REASONS: [&CStr; 20] = [
    c"none",
    c"resolve",
    c"refused",
    c"unreachable",
    c"timeout",
    c"rejected",
    c"protocol",
    c"resources",
    c"permission",
    c"peer closed",
    c"peer reset",
    c"peer dead",
    c"terminated",
    c"remote access",
    c"device gone",
    c"cancelled",
    c"no provider",
    c"invalid",
    c"state",
    c"internal",
];

/// Of `RCG_STATE_*`.
pub const STATES: [&CStr; 7] =
    [UNKNOWN, c"connecting", c"requested", c"accepting", c"established", c"disconnecting", c"closed"];

/// The name of a number.
pub(super) fn of(names: &[&'static CStr], number: usize) -> &'static str {
    names.get(number).copied().unwrap_or(UNKNOWN).to_str().unwrap_or_default()
}
