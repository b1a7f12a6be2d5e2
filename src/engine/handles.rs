//! Handles of the C API: numbers that look like pointers and are never dereferenced.
//!
//! A handle names a slot and the generation of its content. A stale, foreign or doubly closed handle finds another
//! generation, or none, and is an error instead of a crash. Slots live in chunks that are never freed, so a look-up
//! takes no lock but its slot's own.

use std::collections::VecDeque;
use std::sync::OnceLock;

use parking_lot::{Mutex, RwLock};

use crate::error::{Error, Reason, Result};

const CHUNK: usize = 1024;
const CHUNKS: usize = 1024;
#[cfg(target_pointer_width = "64")]
const INDEX_BITS: u32 = 32;
#[cfg(not(target_pointer_width = "64"))]
const INDEX_BITS: u32 = 20;
/// Freed slots rest until this many others have been freed, so that stale handles stay recognisable.
const REST: usize = 64;

struct Slot<T> {
    generation: usize,
    content: Option<T>,
}

type Chunk<T> = Box<[RwLock<Slot<T>>]>;

#[derive(Default)]
struct Free {
    slots: VecDeque<usize>,
    next: usize,
}

/// A table of handles.
pub(super) struct Handles<T> {
    chunks: Box<[OnceLock<Chunk<T>>]>,
    free: Mutex<Free>,
}

impl<T: Clone> Default for Handles<T> {
    fn default() -> Self {
        Self { chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect(), free: Mutex::default() }
    }
}

fn split(handle: usize) -> (usize, usize) {
    let index = handle & ((1_usize << INDEX_BITS) - 1);
    (index, handle >> INDEX_BITS)
}

impl<T: Clone> Handles<T> {
    fn slot(&self, index: usize) -> Option<&RwLock<Slot<T>>> {
        self.chunks.get(index / CHUNK)?.get()?.get(index % CHUNK)
    }

    /// Gives `content` a handle, never 0.
    pub(super) fn insert(&self, content: T) -> Result<usize> {
        let index = self.take_index()?;
        let chunk = self.chunks.get(index / CHUNK).ok_or_else(full)?;
        chunk
            .get_or_init(|| (0..CHUNK).map(|_| RwLock::new(Slot { generation: 1, content: None })).collect());
        let mut slot = self.slot(index).ok_or_else(full)?.write();
        slot.content = Some(content);
        Ok(slot.generation << INDEX_BITS | index)
    }

    fn take_index(&self) -> Result<usize> {
        let mut free = self.free.lock();
        let rested = if free.slots.len() > REST { free.slots.pop_front() } else { None };
        if let Some(index) = rested {
            return Ok(index);
        }
        if free.next < CHUNK * CHUNKS {
            free.next += 1;
            return Ok(free.next - 1);
        }
        free.slots.pop_front().ok_or_else(full)
    }

    /// What the handle names.
    pub(super) fn get(&self, handle: usize) -> Option<T> {
        let (index, generation) = split(handle);
        let slot = self.slot(index)?.read();
        if slot.generation == generation { slot.content.clone() } else { None }
    }

    /// Shows all that is named now. What comes or goes meanwhile may be shown or not. Nothing is cloned, so that nobody who
    /// only looks is the last to have somebody else's object; `visit` takes no lock, as the slot's is held.
    pub(super) fn for_each(&self, mut visit: impl FnMut(&T)) {
        let used = self.free.lock().next;
        for slot in (0..used).filter_map(|index| self.slot(index)) {
            slot.read().content.iter().for_each(&mut visit);
        }
    }

    /// Ends a handle and returns what it named.
    pub(super) fn remove(&self, handle: usize) -> Option<T> {
        let (index, generation) = split(handle);
        let mut slot = self.slot(index)?.write();
        if slot.generation != generation || slot.content.is_none() {
            return None;
        }
        let content = slot.content.take();
        slot.generation = next_generation(generation);
        drop(slot);
        self.free.lock().slots.push_back(index);
        content
    }
}

/// The next generation: never 0, so that no handle is NULL.
fn next_generation(generation: usize) -> usize {
    let most = usize::MAX >> INDEX_BITS;
    if generation >= most { 1 } else { generation + 1 }
}

fn full() -> Error {
    Error::new(libc::ENFILE, Reason::Resources, "a million objects are open")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn finds_what_is_open_and_nothing_else(steps in proptest::collection::vec((0_u8..3, any::<usize>()), 0..600)) {
            let handles = Handles::default();
            let mut open: HashMap<usize, usize> = HashMap::new();
            let mut closed = Vec::new();
            for (step, value) in steps {
                match step {
                    0 => {
                        let handle = handles.insert(value).unwrap();
                        prop_assert!(handle != 0 && !closed.contains(&handle));
                        prop_assert!(open.insert(handle, value).is_none());
                    }
                    1 => {
                        let Some(handle) = open.keys().min().copied() else { continue };
                        prop_assert_eq!(handles.remove(handle), open.remove(&handle));
                        prop_assert_eq!(handles.remove(handle), None);
                        closed.push(handle);
                    }
                    _ => prop_assert_eq!(handles.get(value), open.get(&value).copied()),
                }
            }
            prop_assert!(open.iter().all(|(handle, value)| handles.get(*handle) == Some(*value)));
            prop_assert!(closed.iter().all(|handle| handles.get(*handle).is_none()));
        }
    }

    #[test]
    fn threads_do_not_meet_each_others_objects() {
        let handles = std::sync::Arc::new(Handles::default());
        let threads: Vec<_> = (0..4_usize)
            .map(|thread| {
                let handles = std::sync::Arc::clone(&handles);
                std::thread::spawn(move || {
                    for round in 0..5_000 {
                        let value = thread << 32 | round;
                        let handle = handles.insert(value).unwrap();
                        assert_eq!(handles.get(handle), Some(value));
                        assert_eq!(handles.remove(handle), Some(value));
                        assert_eq!(handles.get(handle), None);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
