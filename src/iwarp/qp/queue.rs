//! A queue of bounded length that begins small: it grows when so many are in it for the first time, and keeps its places.

use std::collections::VecDeque;

/// Places at the first use.
const FIRST: usize = 4;

/// Makes room for `more`, of `depth` that there can be.
pub(super) fn make_room<T>(queue: &mut VecDeque<T>, more: usize, depth: usize) {
    if queue.capacity() - queue.len() < more {
        grow(queue, more, depth);
    }
}

#[cold]
fn grow<T>(queue: &mut VecDeque<T>, more: usize, depth: usize) {
    let have = queue.len();
    queue.reserve_exact(have.max(FIRST).max(more).min(depth.saturating_sub(have)));
}
