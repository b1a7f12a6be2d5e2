//! Which version this is.

use std::ffi::{CStr, c_char};

/// Major version of this header.
pub const RCG_VERSION_MAJOR: u32 = 0;
/// Minor version of this header.
pub const RCG_VERSION_MINOR: u32 = 1;
/// Patch level of this header.
pub const RCG_VERSION_PATCH: u32 = 0;

const TEXT: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(text) => text,
    Err(_) => c"unknown",
};

/// The version of the library that runs, which may be newer than this header:
/// `(major << 16) | (minor << 8) | patch`.
///
/// Thread rule: any thread. Can't fail. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn rcg_version() -> u32 {
    RCG_VERSION_MAJOR << 16 | RCG_VERSION_MINOR << 8 | RCG_VERSION_PATCH
}

/// The same as text, like "0.1.0". The string is static.
///
/// Thread rule: any thread. Can't fail. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn rcg_version_string() -> *const c_char {
    TEXT.as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_package() {
        let numbers = format!("{RCG_VERSION_MAJOR}.{RCG_VERSION_MINOR}.{RCG_VERSION_PATCH}");
        assert_eq!(numbers, env!("CARGO_PKG_VERSION"));
        assert_eq!(TEXT.to_str(), Ok(numbers.as_str()));
        assert_eq!(rcg_version(), 0x0000_0100);
    }
}
