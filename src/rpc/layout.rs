//! What goes where: pads, places of chunks in a message, octets over segments. Numbers only.

use crate::wire::rpcrdma::Segment;

/// XDR counts in words.
const WORD: usize = 4;

/// Octets with the pad behind them (RFC 4506 section 3).
pub(super) fn padded(octets: usize) -> usize {
    octets.next_multiple_of(WORD)
}

/// What octets of a payload take in a message, and messages themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pads {
    /// Whole words: XDR.
    #[default]
    Words,
    /// What they are.
    None,
}

impl Pads {
    /// Octets that a payload takes.
    pub(super) fn of(self, octets: usize) -> usize {
        if self == Self::Words { padded(octets) } else { octets }
    }

    /// Whether a message may have so many octets.
    pub(super) fn allow(self, octets: usize) -> bool {
        self.of(octets) == octets
    }
}

/// Where chunks belong in what is left of a message without them: `chunks` are positions in the whole message and
/// octets, in order of position. `None`: they overlap, or lie outside.
///
/// A chunk may or may not have its pad; what follows it stands on a word in any case (RFC 8166 section 3.4.5.2).
pub(super) fn places(chunks: &[(u32, u64)], left: usize) -> Option<Vec<usize>> {
    let mut inserted = 0_u64;
    let mut last = 0;
    chunks
        .iter()
        .map(|(position, octets)| {
            let at = u64::from(*position).checked_sub(inserted)?;
            inserted = inserted.checked_add(octets.checked_next_multiple_of(WORD as u64)?)?;
            let at = usize::try_from(at).ok().filter(|at| (last..=left).contains(at))?;
            last = at;
            Some(at)
        })
        .collect()
}

/// Fills segments in their order with `octets`: how many go to each. `None`: there is no room.
pub(super) fn fill(segments: &[Segment], octets: usize) -> Option<Vec<u32>> {
    let mut left = octets as u64;
    let filled = segments
        .iter()
        .map(|segment| {
            let here = left.min(segment.length.into());
            left -= here;
            here as u32
        })
        .collect();
    (left == 0).then_some(filled)
}

#[cfg(test)]
mod test {
    use super::*;
    use proptest::prelude::*;

    fn segments(lengths: &[u32]) -> Vec<Segment> {
        lengths.iter().map(|length| Segment { length: *length, ..Segment::default() }).collect()
    }

    #[test]
    fn pads() {
        assert_eq!([0, 1, 2, 3, 4, 5].map(padded), [0, 4, 4, 4, 4, 8]);
    }

    #[test]
    fn places_of_the_kernels_calls() {
        // NFSv4.1 WRITE: GETATTR follows the chunk, which has no pad.
        assert_eq!(places(&[(184, 12_345)], 200), Some(vec![184]));
        assert_eq!(places(&[(184, 12_348)], 184), Some(vec![184]));
        assert_eq!(places(&[], 40), Some(vec![]));
        // Two WRITEs.
        assert_eq!(places(&[(100, 5), (208, 8)], 300), Some(vec![100, 200]));
    }

    #[test]
    fn places_that_are_none() {
        assert_eq!(places(&[(188, 4)], 184), None, "behind the end");
        assert_eq!(places(&[(100, 8), (104, 8)], 300), None, "within another");
        assert_eq!(places(&[(100, 8), (100, 8)], 300), None, "at one place");
        assert_eq!(places(&[(0, u64::MAX), (4, 1)], 300), None);
    }

    #[test]
    fn segments_are_filled_in_order() {
        assert_eq!(fill(&segments(&[8, 0, 8]), 12), Some(vec![8, 0, 4]));
        assert_eq!(fill(&segments(&[8, 8]), 16), Some(vec![8, 8]));
        assert_eq!(fill(&segments(&[8, 8]), 17), None);
        assert_eq!(fill(&segments(&[]), 0), Some(vec![]));
        assert_eq!(fill(&segments(&[u32::MAX, u32::MAX]), 1 << 32), Some(vec![u32::MAX, 1]));
    }

    proptest! {
        /// A message cut at random places and put together again.
        #[test]
        fn what_is_taken_out_fits_in_again(pieces in prop::collection::vec((0usize..64, 0usize..64), 0..8)) {
            let (mut whole, mut left) = (0, 0);
            let (mut chunks, mut wanted) = (Vec::new(), Vec::new());
            for (before, octets) in pieces {
                (whole, left) = (whole + before * WORD, left + before * WORD);
                chunks.push((whole as u32, octets as u64));
                wanted.push(left);
                whole += padded(octets);
            }
            prop_assert_eq!(places(&chunks, left), Some(wanted));
        }

        #[test]
        fn filling_loses_nothing(lengths in prop::collection::vec(0u32..100, 0..8), octets in 0usize..500) {
            let segments = segments(&lengths);
            let room: u64 = segments.iter().map(|segment| u64::from(segment.length)).sum();
            match fill(&segments, octets) {
                None => prop_assert!(octets as u64 > room),
                Some(filled) => {
                    prop_assert_eq!(filled.iter().map(|count| u64::from(*count)).sum::<u64>(), octets as u64);
                    prop_assert!(filled.iter().zip(&lengths).all(|(count, length)| count <= length));
                    let first_short = filled.iter().zip(&lengths).position(|(count, length)| count < length);
                    let tail = first_short.map_or(&[][..], |at| &filled[at + 1..]);
                    prop_assert!(tail.iter().all(|count| *count == 0));
                }
            }
        }
    }
}
