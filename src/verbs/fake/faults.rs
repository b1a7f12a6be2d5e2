//! Calls that fail, events that come late or never, incidents from outside: each at a position counted from the
//! beginning.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fabric::{Key, Removal};
use super::failed_with;
use crate::error::Result;
use crate::verbs::types::CmKind;

/// How late an event comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delay {
    /// Not before this time has passed.
    For(Duration),
    Never,
}

/// What happens from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Incident {
    /// A device goes.
    Removal(Key, Removal),
    /// Every id that is connected gets an event of this kind and status.
    Event(CmKind, i32),
}

/// What is to go wrong, and what has happened so far. Positions count from 1.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) fail_at: BTreeMap<usize, i32>,
    pub(super) fail_named: Option<(&'static str, i32)>,
    pub(super) delay_at: BTreeMap<usize, Delay>,
    pub(super) incident_at: Option<(usize, Incident)>,
    /// An incident whose position has come; it happens before the next call.
    pub(super) incident_due: Option<Incident>,
    /// Every call that could fail.
    pub(super) calls: Vec<&'static str>,
    /// Every event: of the connection manager, and completions.
    pub(super) events: Vec<String>,
    /// Calls that were made to fail.
    pub(super) failures: usize,
}

impl Faults {
    /// Counts a call; an error where it is to fail.
    pub(super) fn call(&mut self, what: &'static str) -> Result<()> {
        self.calls.push(what);
        let by_place = self.fail_at.get(&self.calls.len()).copied();
        let by_name = self.fail_named.filter(|(name, _)| *name == what);
        match by_place.or_else(|| by_name.map(|(_, errno)| errno)) {
            Some(errno) => {
                self.failures += 1;
                Err(failed_with(what, errno))
            }
            None => Ok(()),
        }
    }

    /// Counts an event; `Some` where it is to come late.
    pub(super) fn event(&mut self, what: String) -> Option<Delay> {
        self.events.push(what);
        let here = self.events.len();
        if let Some((_, incident)) = self.incident_at.filter(|(at, _)| *at == here) {
            self.incident_due = Some(incident);
        }
        self.delay_at.get(&here).copied()
    }
}
