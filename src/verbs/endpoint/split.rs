//! A work request in parts that a device can hold: so many scatter/gather elements, so long a message.

use crate::work::Sge;

/// What one request of a device's can hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) sges: usize,
    pub(super) octets: u64,
}

/// How far the parts of a request have come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Position {
    index: usize,
    offset: usize,
}

/// One part: its elements, as (index of the element, offset in it, length), come one by one from [`Parts::next_piece`].
pub(super) struct Parts<'a> {
    sges: &'a [Sge],
    limits: Limits,
    at: Position,
    /// Of the part that is being read.
    used: usize,
    octets: u64,
}

impl<'a> Parts<'a> {
    /// The part at the beginning of the elements.
    pub(super) fn new(sges: &'a [Sge], limits: Limits) -> Self {
        Self::resume(sges, limits, Position::default())
    }

    /// The part that begins at a position.
    pub(super) fn resume(sges: &'a [Sge], limits: Limits, at: Position) -> Self {
        let limits = Limits { sges: limits.sges.max(1), octets: limits.octets.max(1) };
        Self { sges, limits, at, used: 0, octets: 0 }
    }

    /// Where the next part begins, once this one has been read.
    pub(super) fn position(&self) -> Position {
        self.at
    }

    /// Whether no element is left. An empty request is one empty part.
    pub(super) fn is_over(&self) -> bool {
        self.at.index >= self.sges.len()
    }

    /// Begins the next part.
    pub(super) fn begin(&mut self) {
        self.used = 0;
        self.octets = 0;
    }

    /// The next piece of the part that has begun.
    pub(super) fn next_piece(&mut self) -> Option<(usize, usize, usize)> {
        let room = self.limits.octets.saturating_sub(self.octets);
        let sge = self.sges.get(self.at.index)?;
        let left = sge.len() - self.at.offset;
        if self.used >= self.limits.sges || (room == 0 && left > 0) {
            return None;
        }
        let length = left.min(usize::try_from(room).unwrap_or(usize::MAX));
        let piece = (self.at.index, self.at.offset, length);
        self.used += 1;
        self.octets += length as u64;
        self.at.offset += length;
        if self.at.offset == sge.len() {
            self.at = Position { index: self.at.index + 1, offset: 0 };
        }
        Some(piece)
    }
}

/// How many parts a request with these elements has.
pub(super) fn count(sges: &[Sge], limits: Limits) -> usize {
    let mut parts = Parts::new(sges, limits);
    let mut count = 0;
    loop {
        count += 1;
        parts.begin();
        while parts.next_piece().is_some() {}
        if parts.is_over() {
            return count;
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::memory::{Access, KeyTable, Region};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_octet_is_in_one_part_and_no_part_is_too_large(
            lengths in prop::collection::vec(0_usize..40, 0..8), most in 1_usize..9, octets in 1_u64..50,
        ) {
            let memory = vec![0_u8; 400];
            // SAFETY: the memory outlives the region.
            let region = unsafe { Region::new(&KeyTable::new(), memory.as_ptr().cast_mut(), 400, Access::LOCAL) };
            let region = region.unwrap();
            let sges: Vec<Sge> = lengths.iter().map(|length| region.sge(region.base(), *length).unwrap()).collect();
            let limits = Limits { sges: most, octets };
            let mut parts = Parts::new(&sges, limits);
            let (mut number, mut seen) = (0, vec![0; sges.len()]);
            loop {
                number += 1;
                parts.begin();
                let (mut used, mut total) = (0, 0);
                while let Some((index, offset, length)) = parts.next_piece() {
                    prop_assert_eq!(offset, seen[index]);
                    seen[index] += length;
                    used += 1;
                    total += length as u64;
                }
                prop_assert!(used <= most && total <= octets);
                prop_assert!(used > 0 || sges.is_empty());
                if parts.is_over() { break }
            }
            prop_assert_eq!(number, count(&sges, limits));
            prop_assert_eq!(seen, lengths);
        }
    }
}
