//! A clock that costs a few instructions on every machine. The exact one is a system call where the kernel's clock source is not
//! the processor's counter, as in many virtual machines.

use std::time::{Duration, Instant};

/// Time of the kernel's last tick, some milliseconds ago: never later than [`Instant::now`].
pub(super) struct Coarse {
    base: Instant,
    at: Duration,
}

impl Default for Coarse {
    fn default() -> Self {
        let at = read(libc::CLOCK_MONOTONIC);
        // The clock of `Instant`, read later than `at`.
        Self { base: Instant::now(), at }
    }
}

impl Coarse {
    pub(super) fn now(&self) -> Instant {
        self.base + read(libc::CLOCK_MONOTONIC_COARSE).saturating_sub(self.at)
    }
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the call. It can't fail: Linux has both clocks.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_exact_clock_closely() {
        let clock = Coarse::default();
        let start = Instant::now();
        // The two exact readings of the base are not at one time.
        let slack = Duration::from_millis(1);
        while start.elapsed() < Duration::from_millis(30) {
            let (before, coarse, after) = (Instant::now(), clock.now(), Instant::now());
            assert!(coarse <= after + slack, "ahead by {:?}", coarse - after);
            assert!(coarse + Duration::from_millis(100) > before, "behind by {:?}", before - coarse);
        }
        assert!(clock.now() > start, "it stands still");
    }
}
