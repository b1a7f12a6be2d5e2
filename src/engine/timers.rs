//! Timers of one channel, one for each key.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::tokens::TokenMap;

/// A queue of deadlines. Replaced and cancelled ones stay in the heap until they come up or outnumber the live ones.
#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, u64)>>,
    live: TokenMap<Instant>,
    /// Whether the first of the heap may be one that is not live.
    stale: bool,
}

impl Timers {
    /// Sets the timer of `key`, in place of an earlier one.
    pub(super) fn set(&mut self, key: u64, at: Instant) {
        let before = self.live.insert(key, at);
        if before != Some(at) {
            self.stale |= before.is_some();
            self.heap.push(Reverse((at, key)));
            self.sweep();
        }
    }

    /// Sets or, for `None`, cancels the timer of `key`.
    pub(super) fn update(&mut self, key: u64, at: Option<Instant>) {
        match at {
            Some(at) => self.set(key, at),
            None => self.stale |= self.live.remove(&key).is_some(),
        }
    }

    /// When the next timer is due.
    pub(super) fn next(&mut self) -> Option<Instant> {
        if self.stale {
            self.drop_stale();
        }
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    fn drop_stale(&mut self) {
        self.stale = false;
        while let Some(Reverse((at, key))) = self.heap.peek() {
            if self.live.get(key) == Some(at) {
                return;
            }
            self.heap.pop();
        }
    }

    /// Takes a timer that is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<u64> {
        if self.next()? > now {
            return None;
        }
        let Reverse((_, key)) = self.heap.pop()?;
        self.live.remove(&key);
        self.stale = true;
        Some(key)
    }

    fn sweep(&mut self) {
        if self.heap.len() > 64 + 2 * self.live.len() {
            let live = &self.live;
            self.heap.retain(|Reverse((at, key))| live.get(key) == Some(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    proptest! {
        #[test]
        fn behaves_as_a_sorted_map(steps in proptest::collection::vec((0_u8..3, 0_u64..8, 0_u64..50), 0..400)) {
            let base = Instant::now();
            let mut timers = Timers::default();
            let mut model = BTreeMap::new();
            for (step, key, time) in steps {
                let at = base + Duration::from_millis(time);
                match step {
                    0 => {
                        timers.set(key, at);
                        model.insert(key, at);
                    }
                    1 => {
                        timers.update(key, None);
                        model.remove(&key);
                    }
                    _ => {
                        prop_assert_eq!(timers.next(), model.values().min().copied());
                        while let Some(due) = timers.pop(at) {
                            prop_assert!(model.remove(&due).unwrap() <= at);
                        }
                        prop_assert!(model.values().all(|due| *due > at));
                    }
                }
                prop_assert!(timers.heap.len() <= 65 + 2 * model.len().max(8));
            }
        }
    }
}
