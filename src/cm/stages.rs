//! How long each stage took.

use std::time::{Duration, Instant};

use crate::error::{STAGE_COUNT, Stage};

/// The present stage and the time spent in each. The sum of all slots is the time since the start.
#[derive(Clone, Debug)]
pub(super) struct StageClock {
    stage: Stage,
    since: Instant,
    started: Instant,
    stopped: Option<Instant>,
    spent: [Duration; STAGE_COUNT],
}

impl StageClock {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            stage: Stage::None,
            since: now,
            started: now,
            stopped: None,
            spent: [Duration::ZERO; STAGE_COUNT],
        }
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// Forgets all before `now` and enters `stage`.
    pub(super) fn start(&mut self, now: Instant, stage: Stage) {
        *self = Self::new(now);
        self.stage = stage;
    }

    /// Leaves the present stage for the next one.
    pub(super) fn enter(&mut self, now: Instant, stage: Stage) {
        self.spent = self.times(now);
        self.since = now;
        self.stage = stage;
    }

    /// Books all the time so far on [`Stage::None`], for a fresh attempt that begins at `stage`.
    pub(super) fn restart(&mut self, now: Instant, stage: Stage) {
        let lost = self.elapsed(now);
        self.spent = [Duration::ZERO; STAGE_COUNT];
        if let Some(slot) = self.spent.first_mut() {
            *slot = lost;
        }
        self.since = now;
        self.stage = stage;
    }

    /// Stops the clock; the stage stays.
    pub(super) fn stop(&mut self, now: Instant) {
        self.stopped.get_or_insert(now);
    }

    pub(super) fn elapsed(&self, now: Instant) -> Duration {
        self.stopped.unwrap_or(now).saturating_duration_since(self.started)
    }

    pub(super) fn times(&self, now: Instant) -> [Duration; STAGE_COUNT] {
        let mut times = self.spent;
        let running = self.stopped.unwrap_or(now).saturating_duration_since(self.since);
        if let Some(slot) = times.get_mut(self.stage as usize) {
            *slot = slot.saturating_add(running);
        }
        times
    }
}
