//! How long a channel spins before it sleeps: only while that pays.

use std::time::Duration;

/// Misses in a row after which spinning stops, but for a probe.
const PATIENCE: u32 = 8;
/// One sleep in this many is preceded by a probe.
const PROBE: u32 = 16;

/// Adapts between the full budget and none.
#[derive(Debug)]
pub(super) struct Spin {
    budget: Duration,
    misses: u32,
}

impl Spin {
    /// A policy that never spins longer than `budget`.
    pub(super) fn new(budget: Duration) -> Self {
        Self { budget, misses: 0 }
    }

    /// How long to spin now.
    pub(super) fn budget(&self) -> Duration {
        if self.misses < PATIENCE || self.misses % PROBE == 0 { self.budget } else { Duration::ZERO }
    }

    /// Longest time to spin.
    pub(super) fn most(&self) -> Duration {
        self.budget
    }

    /// Something came while spinning.
    pub(super) fn hit(&mut self) {
        self.misses = 0;
    }

    /// Nothing came within the budget, or nothing was spun.
    pub(super) fn miss(&mut self) {
        self.misses = self.misses.wrapping_add(1).max(1);
    }
}

/// Reads of a hot socket before the others get their turn.
const HOT_READS: u32 = 32;

/// The socket that was readable twice with no other in between: while the channel spins it is read before the selector is
/// asked, which is a system call less on the way of a message.
#[derive(Debug, Default)]
pub(super) struct Hot {
    token: Option<u64>,
    last: u64,
    /// Since the selector was asked.
    reads: u32,
}

impl Hot {
    /// The selector told so of a connection's socket.
    pub(super) fn readable(&mut self, token: u64) {
        self.token = (self.last == token).then_some(token);
        self.last = token;
    }

    /// The selector was asked.
    pub(super) fn looked(&mut self) {
        self.reads = 0;
    }

    /// There is no such socket any more.
    pub(super) fn gone(&mut self) {
        self.token = None;
    }

    pub(super) fn is_some(&self) -> bool {
        self.token.is_some()
    }

    /// Whether there is one, and the others need not be looked at first.
    pub(super) fn may_read(&self) -> bool {
        self.token.is_some() && self.reads < HOT_READS
    }

    /// The one to read now.
    pub(super) fn read(&mut self) -> Option<u64> {
        self.reads = self.reads.saturating_add(1);
        self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hot_is_who_was_readable_twice_alone() {
        let mut hot = Hot::default();
        hot.readable(5);
        assert!(!hot.is_some());
        hot.readable(5);
        for _ in 0..HOT_READS {
            assert!(hot.may_read());
            assert_eq!(hot.read(), Some(5));
        }
        assert!(hot.is_some() && !hot.may_read(), "the others have their turn");
        hot.looked();
        assert!(hot.may_read());
        hot.readable(6);
        assert!(!hot.is_some());
        hot.readable(6);
        hot.gone();
        assert!(!hot.may_read() && hot.read().is_none());
    }

    #[test]
    fn gives_up_probes_and_comes_back() {
        let full = Duration::from_micros(50);
        let mut spin = Spin::new(full);
        let mut spun = 0;
        for _ in 0..16 * 16 {
            spun += u32::from(spin.budget() == full);
            spin.miss();
        }
        assert_eq!(spun, PATIENCE + 15, "the first few, then one in sixteen");
        spin.hit();
        assert_eq!(spin.budget(), full);
        assert_eq!(Spin::new(Duration::ZERO).budget(), Duration::ZERO);
    }
}
