//! The engine object: one protection domain, its memory, and what its channels share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, MutexGuard};

use super::channel::Channel;
use super::config::{self, Limits, PROVIDER_AUTO, PROVIDER_IWARP, PROVIDER_VERBS, QpConfig};
use super::conn::Conn;
use super::dump::Failures;
use super::fork;
use super::log::{Level, Logger};
use super::monitor::Monitor;
use super::stats::Stats;
use super::{Object, each_object, register, retire};
use crate::error::{Error, Reason, Result};
use crate::iwarp::qp::{QueuePair, StagePool};
use crate::memory::{Access, Arena, ArenaConfig, KeyTable, Owner, Purpose, Region};
use crate::verbs::{self, DeviceLimits, Devices, ForkState};

/// What `rcg_engine_create` takes.
#[derive(Clone, Copy, Default)]
pub struct EngineConfig {
    /// Where messages go.
    pub logger: Logger,
    /// A statistics socket is wanted.
    pub monitor: bool,
}

/// The library, opened once or more by a program.
pub struct Engine {
    handle: AtomicUsize,
    logger: Logger,
    keys: Arc<KeyTable>,
    stages: Arc<StagePool>,
    devices: Arc<Devices>,
    next_id: AtomicU64,
    channels: AtomicUsize,
    closed: AtomicBool,
    /// What channels that have ended had counted.
    past: Mutex<Stats>,
    failures: Mutex<Failures>,
    monitor: OnceLock<Monitor>,
}

impl Engine {
    /// A new engine. No RDMA device is needed, and its absence is not worth a word.
    pub fn create(config: EngineConfig) -> Result<Arc<Self>> {
        let engine = Arc::new(Self {
            handle: AtomicUsize::new(0),
            logger: config.logger,
            keys: KeyTable::new(),
            stages: Arc::default(),
            devices: Arc::default(),
            next_id: AtomicU64::new(1),
            channels: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            past: Mutex::default(),
            failures: Mutex::default(),
            monitor: OnceLock::new(),
        });
        engine.handle.store(register(Object::Engine(Arc::clone(&engine)))?, Ordering::Relaxed);
        if let Some(monitor) = Monitor::start(&engine, config.monitor) {
            let _ = engine.monitor.set(monitor);
        }
        fork::engine_created();
        Ok(engine)
    }

    /// Its handle.
    pub fn handle(&self) -> usize {
        self.handle.load(Ordering::Relaxed)
    }

    /// Ends it; `EBUSY` while it has channels, regions or arenas.
    pub fn destroy(&self) -> Result<()> {
        let live = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        let (channels, regions, arenas) =
            (live(&self.channels), live(&self.keys.regions), live(&self.keys.arenas));
        if channels + regions + arenas > 0 {
            let text =
                format!("the engine still has {channels} channels, {regions} regions and {arenas} arenas");
            return Err(Error::state(libc::EBUSY, text));
        }
        if self.closed.swap(true, Ordering::SeqCst) {
            return Err(Error::state(libc::EBADF, "the engine is destroyed"));
        }
        retire(self.handle());
        if let Some(monitor) = self.monitor.get() {
            monitor.stop();
        }
        fork::engine_destroyed();
        Ok(())
    }

    pub(super) fn log(&self, level: Level, message: std::fmt::Arguments<'_>) {
        self.logger.log(level, message);
    }

    /// Its last failures.
    pub(super) fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock()
    }

    /// The keys of its memory.
    pub fn keys(&self) -> &Arc<KeyTable> {
        &self.keys
    }

    pub(super) fn stages(&self) -> &Arc<StagePool> {
        &self.stages
    }

    pub(super) fn devices(&self) -> &Arc<Devices> {
        &self.devices
    }

    /// A number for a connection, a listener or a socket: its stream, its token and the key of its timer.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn channel_created(&self) {
        self.channels.fetch_add(1, Ordering::SeqCst);
    }

    /// A channel ends: its handle, and its counts, which stay here.
    pub(super) fn channel_destroyed(&self, channel: &Channel) {
        let mut past = self.past.lock();
        past.add(&Stats { open: 0, ..channel.stats() });
        retire(channel.handle());
        drop(past);
        self.channels.fetch_sub(1, Ordering::SeqCst);
    }

    /// Its channels.
    pub(super) fn channels(&self) -> Vec<Arc<Channel>> {
        let mut channels = Vec::new();
        each_object(|object| match object {
            Object::Channel(channel) if std::ptr::eq(&**channel.engine(), self) => {
                channels.push(Arc::clone(channel))
            }
            _ => {}
        });
        channels
    }

    /// What it, its channels and their connections have counted.
    pub fn stats(&self) -> Stats {
        // Held until the end, so that no channel is counted twice or not at all.
        let past = self.past.lock();
        let mut stats = *past;
        self.channels().iter().for_each(|channel| stats.add(&channel.stats()));
        stats.add(&Stats {
            registrations: self.keys.registrations.load(Ordering::Relaxed),
            device_registrations: self.keys.device_registrations.load(Ordering::Relaxed),
            registered_bytes: self.keys.octets.load(Ordering::Relaxed) as u64,
            ..Stats::default()
        });
        stats
    }

    /// The limits of a provider; of `auto` those of what is there.
    pub fn limits(&self, provider: u32) -> Result<Limits> {
        self.provider_status(provider)?;
        let devices = provider == PROVIDER_AUTO && verbs::probe::available().is_ok();
        Ok(if provider == PROVIDER_VERBS || devices {
            config::verbs_limits()
        } else {
            config::iwarp_limits()
        })
    }

    /// Whether a provider can be used, and if not, why.
    pub fn provider_status(&self, provider: u32) -> Result<()> {
        match provider {
            PROVIDER_AUTO | PROVIDER_IWARP => Ok(()),
            PROVIDER_VERBS => verbs::probe::available(),
            other => Err(Error::invalid(format!("no provider has the number {other}"))),
        }
    }

    /// What each RDMA device can do; an error where the verbs provider can't be used.
    pub fn device_limits(&self) -> Result<Vec<DeviceLimits>> {
        verbs::probe::devices()
    }

    /// What becomes of memory registered with devices when this program forks.
    pub fn fork_state(&self) -> ForkState {
        verbs::probe::fork_state()
    }

    /// Registers memory of the caller's.
    ///
    /// # Safety
    /// As for [`Region::new`].
    pub unsafe fn register(
        self: &Arc<Self>,
        addr: *mut u8,
        length: usize,
        access: Access,
    ) -> Result<Arc<Region>> {
        // SAFETY: by this function's own contract.
        let region = unsafe { Region::new(&self.keys, addr, length, access) }?;
        // With the devices in use, so that what can't be registered is an error here and not later. Others follow when
        // they are first used.
        for device in self.devices.all() {
            match device.local_key(&region, Purpose::Local) {
                Err(error) if error.reason != Reason::DeviceGone => return Err(error),
                _ => {}
            }
        }
        region.set_handle(register(Object::Region(Arc::clone(&region)))?);
        self.keys.regions.fetch_add(1, Ordering::SeqCst);
        Ok(region)
    }

    /// An arena of registered buffers.
    pub fn arena(&self, config: ArenaConfig) -> Result<Arc<Arena>> {
        let arena = Arena::new(&self.keys, config)?;
        arena.set_handle(register(Object::Arena(Arc::clone(&arena)))?);
        self.keys.arenas.fetch_add(1, Ordering::SeqCst);
        Ok(arena)
    }

    /// Bytes of memory the library holds for one idle connection made like this.
    pub fn conn_memory(&self, qp: &QpConfig) -> Result<usize> {
        let plan = qp.plan()?;
        let reads = QueuePair::read_memory(plan.ird as usize, plan.ord as usize);
        let iwarp = QueuePair::memory(&plan.caps) + reads;
        let verbs = verbs::Endpoint::memory(&plan.caps);
        Ok(size_of::<Conn>()
            + match plan.provider {
                PROVIDER_IWARP => iwarp,
                PROVIDER_VERBS => verbs,
                _ => iwarp.max(verbs),
            })
    }
}

/// Ends a region that [`Engine::register`] made.
pub fn deregister(region: &Arc<Region>) -> Result<()> {
    if region.is_of_arena() {
        return Err(Error::state(libc::EBUSY, "the region belongs to an arena, which ends it"));
    }
    region.deregister()?;
    retire(region.handle());
    region.domain().regions.fetch_sub(1, Ordering::SeqCst);
    Ok(())
}

/// A key for a range of a region, for one connection or for all of the engine's.
pub fn key(
    region: &Arc<Region>,
    conn: Option<&Conn>,
    offset: usize,
    length: usize,
    access: Access,
) -> Result<u32> {
    match conn {
        None => region.key(Owner::Domain, offset, length, access),
        Some(conn) if conn.is_ended() => Err(Error::state(libc::ENOTCONN, "the connection has ended")),
        Some(conn) if !Arc::ptr_eq(conn.channel().engine().keys(), region.domain()) => {
            Err(Error::invalid("the connection and the region belong to different engines"))
        }
        Some(conn) => conn.grant(region, offset, length, access),
    }
}

/// Lends a buffer of an arena: its address, its length, its region.
pub fn arena_take(arena: &Arena) -> Result<(*mut u8, usize, Arc<Region>)> {
    arena.take(|region| {
        region.set_handle(register(Object::Region(Arc::clone(region)))?);
        Ok(())
    })
}

/// Ends an arena.
pub fn arena_destroy(arena: &Arena) -> Result<()> {
    arena.destroy(|region| retire(region.handle()))?;
    retire(arena.handle());
    arena.domain().arenas.fetch_sub(1, Ordering::SeqCst);
    Ok(())
}
