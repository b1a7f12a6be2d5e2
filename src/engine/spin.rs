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

#[cfg(test)]
mod tests {
    use super::*;

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
