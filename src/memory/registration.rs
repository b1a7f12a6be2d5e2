//! Registrations of a region with devices: what the `verbs` provider keeps with it.
//!
//! A region is registered with a device when the device first needs it. This module does not know how: it keeps the keys
//! and ends the registrations with the region.

use std::sync::Arc;

use parking_lot::RwLock;

/// A registration, ended by its owner or with its region, whichever is first.
pub trait Hold: Send + Sync {
    /// Ends it: when this returns nobody begins to reach the memory by its keys. Doing it twice is no error.
    fn release(&self);

    /// Whether the device may still be placing something when it has been released.
    fn lingers(&self) -> bool {
        false
    }

    /// Waits until such devices have placed it.
    fn settle(&self) {}
}

/// What a registration is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Our own work requests.
    Local,
    /// The sink of our RDMA Reads on iWARP devices, which want it writable by the peer (RFC 5040 section 5.2).
    ReadSink,
    /// A peer, by its key.
    Remote,
}

struct Entry {
    device: u64,
    purpose: Purpose,
    key: u32,
    hold: Arc<dyn Hold>,
}

/// The registrations of one region.
#[derive(Default)]
pub(super) struct Registrations {
    list: RwLock<Vec<Entry>>,
}

impl Registrations {
    /// The key for our own use, if the region is registered for that.
    pub(super) fn key(&self, device: u64, purpose: Purpose) -> Option<u32> {
        let list = self.list.read();
        list.iter().find(|entry| entry.device == device && entry.purpose == purpose).map(|entry| entry.key)
    }

    /// Whether a key for peers on this device is still good.
    pub(super) fn has_remote(&self, device: u64, key: u32) -> bool {
        let good = |entry: &Entry| (entry.device, entry.purpose, entry.key) == (device, Purpose::Remote, key);
        self.list.read().iter().any(good)
    }

    /// Adds a registration. Where another thread was first with one for our own use, that one stays: its key is
    /// returned.
    pub(super) fn add(&self, device: u64, purpose: Purpose, key: u32, hold: Arc<dyn Hold>) -> u32 {
        let mut list = self.list.write();
        let own = purpose != Purpose::Remote;
        let first = list.iter().find(|entry| own && entry.device == device && entry.purpose == purpose);
        if let Some(first) = first.map(|entry| entry.key) {
            drop(list);
            hold.release();
            return first;
        }
        list.push(Entry { device, purpose, key, hold });
        key
    }

    /// Ends the registrations that `which` picks by device, purpose and key; returns how many.
    pub(super) fn end(&self, which: impl Fn(u64, Purpose, u32) -> bool) -> usize {
        self.take(which).len()
    }

    /// The same, and waits until nothing is placed any more.
    pub(super) fn end_settled(&self, which: impl Fn(u64, Purpose, u32) -> bool) -> usize {
        let ended = self.take(which);
        // One wait is good for all.
        ended.iter().find(|hold| hold.lingers()).iter().for_each(|hold| hold.settle());
        ended.len()
    }

    fn take(&self, which: impl Fn(u64, Purpose, u32) -> bool) -> Vec<Arc<dyn Hold>> {
        let mut ended = Vec::new();
        self.list.write().retain(|entry| {
            let stays = !which(entry.device, entry.purpose, entry.key);
            if !stays {
                ended.push(Arc::clone(&entry.hold));
            }
            stays
        });
        // Outside the lock: a device may take its time.
        ended.iter().for_each(|hold| hold.release());
        ended
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[derive(Default)]
    struct Counted(AtomicU32);

    impl Hold for Counted {
        fn release(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Of a device that goes on for a while: released, settled.
    #[derive(Default)]
    struct Lingering(AtomicU32, AtomicU32);

    impl Hold for Lingering {
        fn release(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn lingers(&self) -> bool {
            true
        }

        fn settle(&self) {
            assert_eq!(self.0.load(Ordering::Relaxed), 3, "all are released before");
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_wants_its_memory_back_waits_once() {
        let (list, hold) = (Registrations::default(), Arc::new(Lingering::default()));
        for key in 0..4 {
            list.add(1, Purpose::Remote, key, hold.clone());
        }
        assert_eq!(list.end(|_, _, key| key == 0), 1);
        assert_eq!(hold.1.load(Ordering::Relaxed), 0);
        assert_eq!(list.end_settled(|_, _, key| key < 3), 2);
        assert_eq!(hold.1.load(Ordering::Relaxed), 1);
        list.add(1, Purpose::Local, 9, Arc::new(Counted::default()));
        assert_eq!(list.end_settled(|_, purpose, _| purpose == Purpose::Local), 1);
        assert_eq!(hold.1.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn keeps_one_for_our_own_use_and_all_for_peers() {
        let (list, first, second) =
            (Registrations::default(), Arc::new(Counted::default()), Arc::new(Counted::default()));
        assert_eq!(list.add(1, Purpose::Local, 10, first.clone()), 10);
        assert_eq!(list.add(1, Purpose::Local, 11, second.clone()), 10, "the first one stays");
        assert_eq!(second.0.load(Ordering::Relaxed), 1, "and the second is ended");
        assert_eq!(list.add(2, Purpose::Local, 12, second.clone()), 12);
        assert_eq!((list.key(1, Purpose::Local), list.key(1, Purpose::ReadSink)), (Some(10), None));
        list.add(1, Purpose::Remote, 10, second.clone());
        list.add(1, Purpose::Remote, 10, second.clone());
        assert_eq!(list.end(|_, purpose, key| purpose == Purpose::Remote && key == 10), 2);
        assert_eq!(list.end(|device, _, _| device == 1), 1);
        assert_eq!((list.key(1, Purpose::Local), list.key(2, Purpose::Local)), (None, Some(12)));
        assert_eq!((first.0.load(Ordering::Relaxed), second.0.load(Ordering::Relaxed)), (1, 3));
    }
}
