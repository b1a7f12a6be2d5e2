//! The C ABI: one file per object of the C API. The comments on public items become those of
//! `include/rdmacm_gluster.h`, so they speak C.
//!
//! Every function here checks its arguments, makes one call into the engine, and tells its result: see `ffi` for
//! the rules that all of them share.

// The names are those of the C API, and what C has to keep to is said in the words of C.
#![allow(non_camel_case_types, clippy::missing_safety_doc)]

#[cfg(test)]
mod api_test;
pub mod channel;
pub mod conn;
pub mod connect;
pub mod engine;
pub mod error;
pub mod event;
mod ffi;
#[cfg(test)]
mod ffi_test;
pub mod listener;
pub mod memory;
pub mod names;
pub mod post;
pub mod rpc;
pub mod stats;
pub mod version;
