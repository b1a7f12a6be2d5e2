//! The engine: channels and their threads, connections and listeners, and what the C API sees of all of it.

mod alarm;
#[cfg(test)]
mod brief_test;
#[cfg(test)]
mod candidates_test;
mod channel;
#[cfg(test)]
mod chaos_test;
mod clock;
mod config;
mod conn;
#[cfg(test)]
mod dead_peer_test;
mod driver;
mod driver_listen;
mod driver_verbs;
mod dump;
mod endpoint;
mod event;
mod fork;
mod handles;
mod info;
mod instance;
mod json;
mod listener;
pub mod log;
mod monitor;
pub mod names;
mod perform;
mod post;
#[cfg(test)]
mod removal_test;
mod report;
#[cfg(test)]
mod reset_test;
pub mod resolve;
mod route;
#[cfg(test)]
mod scenario_test;
mod selector;
#[cfg(test)]
mod silent_test;
mod spin;
mod stats;
#[cfg(test)]
mod story_test;
#[cfg(test)]
mod threads_test;
mod timers;
mod tokens;
#[cfg(test)]
mod traffic_test;
#[cfg(test)]
mod turns_test;
mod upper;
#[cfg(test)]
mod verbs_test;
mod waker;
#[cfg(test)]
mod warm_test;
#[cfg(test)]
mod wildcard_test;

use std::sync::{Arc, OnceLock};

pub use channel::{Channel, ChannelConfig, Sink};
pub use config::{
    AcceptConfig, ConnectConfig, FLAG_RAW_PRIVATE_DATA, FLAG_STRICT_RECV, Limits, ListenConfig,
    MAX_ADDRESSES, PROVIDER_AUTO, PROVIDER_IWARP, PROVIDER_VERBS, QpConfig, Target,
};
pub use conn::Conn;
pub use event::{ErrorReport, Event, Place, event_flags, kind};
pub use fork::check_process;
pub use info::ConnInfo;
pub use instance::{Engine, EngineConfig, arena_destroy, arena_take, deregister, key};
pub use listener::{Listener, ListenerInfo};
pub use stats::Stats;
pub use upper::{Protocol, Upper};
#[cfg(test)]
pub(crate) use {traffic_test::Random, verbs_test::sweep};

pub use crate::verbs::{DeviceLimits, ForkState};

use crate::error::Result;
use crate::memory::{Arena, Region};
use handles::Handles;

/// Whatever a handle of the C API can name.
#[derive(Clone)]
pub enum Object {
    /// `rcg_engine`
    Engine(Arc<Engine>),
    /// `rcg_channel`
    Channel(Arc<Channel>),
    /// `rcg_listener`
    Listener(Arc<Listener>),
    /// `rcg_conn`
    Conn(Arc<Conn>),
    /// `rcg_mr`
    Region(Arc<Region>),
    /// `rcg_arena`
    Arena(Arc<Arena>),
}

fn table() -> &'static Handles<Object> {
    static TABLE: OnceLock<Handles<Object>> = OnceLock::new();
    TABLE.get_or_init(Handles::default)
}

/// What a handle names; `None` for a stale one or garbage.
pub fn object(handle: usize) -> Option<Object> {
    table().get(handle)
}

/// All that handles name now.
fn each_object(visit: impl FnMut(&Object)) {
    table().for_each(visit);
}

fn register(object: Object) -> Result<usize> {
    table().insert(object)
}

fn retire(handle: usize) {
    table().remove(handle);
}
