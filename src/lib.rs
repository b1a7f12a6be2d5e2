//! RDMA for C storage servers: the modules, nothing else.
//!
//! The public interface is the C header `include/rdmacm_gluster.h`; the Rust items are public only for the
//! project's own tests, benches and fuzz targets.

pub mod capi;
pub mod cm;
pub mod engine;
pub mod error;
pub mod iwarp;
pub mod memory;
pub mod rpc;
pub mod tcp;
mod trace;
pub mod verbs;
pub mod wire;
pub mod work;
