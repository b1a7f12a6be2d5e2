use proptest::prelude::*;

use super::*;
use crate::memory::{Access, KeyTable};

proptest! {
    /// Whatever the cut and the chunks, what is scattered is what is gathered, and nothing else is touched.
    #[test]
    fn scattering_fills_the_elements_in_order(
        lens in prop::collection::vec(0..20usize, 0..=MAX_SGE),
        source in prop::collection::vec(1..255u8, 0..200),
        chunk in 1..50usize,
    ) {
        let mut octets = vec![0u8; lens.iter().map(|len| len + 3).sum::<usize>() + 1];
        // SAFETY: the memory outlives the region, or is never touched.
        let region = unsafe { Region::new(&KeyTable::new(), octets.as_mut_ptr(), octets.len(), Access::LOCAL) }.unwrap();
        let mut at = 0;
        let starts: Vec<usize> = lens.iter().map(|len| { at += len + 3; at - len - 3 }).collect();
        let sges: SgeList = starts
            .iter()
            .zip(&lens)
            .map(|(start, len)| region.sge(region.base().wrapping_add(*start), *len).unwrap())
            .collect();
        for (index, part) in source.chunks(chunk).enumerate() {
            scatter(&sges, index * chunk, part);
        }
        let mut expected = vec![0u8; octets.len()];
        let places = starts.iter().zip(&lens).flat_map(|(start, len)| *start..start + len);
        for (place, octet) in places.zip(&source) {
            expected[place] = *octet;
        }
        let mut back = vec![0; 30];
        let taken: Vec<u8> = sges.iter().flat_map(|sge| { let count = sge.read(0, &mut back); back[..count].to_vec() }).collect();
        prop_assert_eq!(&taken[..source.len().min(taken.len())], &source[..source.len().min(taken.len())]);
        drop(sges);
        region.deregister().unwrap();
        prop_assert_eq!(octets, expected);
    }
}

#[test]
fn copies_stay_within_the_element() {
    let mut octets = [0u8; 8];
    // SAFETY: the memory outlives the region, or is never touched.
    let region = unsafe { Region::new(&KeyTable::new(), octets.as_mut_ptr(), 8, Access::LOCAL) }.unwrap();
    let sge = region.sge(region.base().wrapping_add(2), 4).unwrap();
    assert_eq!(sge.fill(3, &[1, 2, 3]), 1);
    assert_eq!(sge.fill(4, &[1]), 0);
    assert_eq!(sge.fill(usize::MAX, &[1]), 0);
    assert_eq!(sge.read(2, &mut [0; 8]), 2);
    assert_eq!(sge.read(usize::MAX, &mut [0; 8]), 0);
    drop(sge);
    drop(region);
    assert_eq!(octets, [0, 0, 0, 0, 0, 1, 0, 0]);
}

#[test]
fn opcodes_keep_their_numbers() {
    for value in 0..20 {
        assert_eq!(
            Opcode::from_u32(value).map(|opcode| opcode as u32),
            (1..=7).contains(&value).then_some(value)
        );
    }
}
