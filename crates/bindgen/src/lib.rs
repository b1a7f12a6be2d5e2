//! rdma-sys 0.3 asks for bindgen 0.59, which panics with libclang 16 and later. Its build script uses nothing that has
//! changed since, so it gets a current bindgen under the old name.

pub use real::*;
