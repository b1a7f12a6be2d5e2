//! Codecs of the wire formats. No I/O, no allocation, no unsafe code, and no input makes them panic.
//!
//! Each file has the same order: the offsets in `mod field` (the only place they appear), the types with `parse`
//! and `emit`, and tests against literal octets. `parse` takes what has arrived so far and says when more is
//! needed; `emit` writes into an array of exactly the size of the header. Everything is big-endian except the CRC of
//! MPA, which is the little-endian octet string of CRC-32/ISCSI.

#![forbid(unsafe_code)]

pub mod cm_private;
pub mod crc;
pub mod ddp;
pub mod mpa;
mod octets;
pub mod rdmap;
pub mod rpcrdma;
pub mod tag;
mod terminate;
