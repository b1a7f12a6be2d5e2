//! Registered memory: regions, arenas of registered buffers, and the keys by which peers reach them.
//!
//! Remote-writable memory is never a Rust slice here: it is reached by raw pointers only, and every copy from or
//! to it happens in this module or in [`crate::work`].

mod arena;
mod block;
mod keys;
mod receive_pool;
mod region;
mod registration;

pub use arena::{Arena, ArenaConfig};
pub use block::Block;
pub use keys::{Key, KeyFault, KeyTable, Owner};
pub use receive_pool::ReceivePool;
pub(crate) use region::WriteGrant;
pub use region::{Access, Region};
pub use registration::{Hold, Purpose};
