//! A protocol on top of a connection, between its events and its caller.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use super::conn::Conn;
use super::event::Event;

/// Takes a connection's events, and makes those that the caller sees. Neither call comes from two threads at a time.
pub trait Upper: Any + Send + Sync {
    /// The connection's next event. May post.
    fn take(&self, conn: &Arc<Conn>, event: Event);

    /// The next event for the caller.
    fn next(&self) -> Option<Event>;

    /// Whether [`Upper::next`] has something.
    fn has_next(&self) -> bool;

    /// The private data of an accept.
    fn accept_data(&self) -> Vec<u8>;

    /// For a dump: its name, and its numbers by theirs.
    fn figures(&self) -> (&'static str, Vec<(&'static str, u64)>);

    /// For whoever knows which protocol it is.
    fn as_any(&self) -> &dyn Any;
}

/// Makes the protocol of each connection.
#[derive(Clone)]
pub struct Protocol(Arc<dyn Fn() -> Arc<dyn Upper> + Send + Sync>);

impl Protocol {
    /// By this function.
    pub fn new(make: impl Fn() -> Arc<dyn Upper> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    pub(super) fn make(&self) -> Arc<dyn Upper> {
        (self.0)()
    }
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protocol")
    }
}
