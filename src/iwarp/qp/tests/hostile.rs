//! Whatever a peer sends: no panic, nothing placed outside of what it may reach, everything completed and let go.

use proptest::prelude::*;

use super::super::fuzzing;
use super::support::*;

/// A ULPDU that is right but for what the generator makes wrong. Keys are 2..=6 (see `fuzzing`), the window begins at
/// 128.
fn ulpdu() -> impl Strategy<Value = Vec<u8>> {
    let payload = || prop::collection::vec(any::<u8>(), 0..70);
    let stag = || prop_oneof![8 => 2..=6u32, 1 => 0..8u32, 1 => any::<u32>()];
    let offset = || prop_oneof![6 => 128..256u64, 3 => 0..300u64, 2 => Just(0u64), 1 => any::<u64>()];
    let msn = || prop_oneof![12 => 1..6u32, 1 => any::<u32>()];
    let mo = || prop_oneof![8 => Just(0u32), 2 => 0..70u32, 1 => any::<u32>()];
    let tagged_control = prop_oneof![Just(0xc140u16), Just(0x8140), Just(0xc142), Just(0x8142)];
    let send_control = prop::sample::select(vec![0x4143u16, 0x0143, 0x4144, 0x4145, 0x4146, 0x0144]);
    let size = prop_oneof![4 => 0..130u32, 1 => any::<u32>()];
    prop_oneof![
        4 => (tagged_control, stag(), offset(), payload()).prop_map(|(c, s, o, p)| tagged(c, s, o, &p)),
        4 => (send_control, stag(), msn(), mo(), payload()).prop_map(|(c, s, m, o, p)| untagged(c, s, [0, m, o], &p)),
        3 => (msn(), stag(), offset(), size, stag(), offset())
            .prop_map(|(m, s, o, n, source, at)| read_request(m, (s, o), n, (source, at))),
        1 => (msn(), any::<[u8; 4]>(), any::<bool>(), any::<bool>()).prop_map(|(m, value, with_send, solicited)| {
            let payload = [&value[..], &u32::from(with_send).to_be_bytes()].concat();
            untagged(if solicited { 0x4149 } else { 0x4148 }, 0, [0, m, 0], &payload)
        }),
        1 => payload().prop_map(|body| untagged(0x4147, 0, [2, 1, 0], &body)),
        1 => payload(),
    ]
}

fn listed(ulpdus: &[Vec<u8>]) -> Vec<u8> {
    ulpdus.iter().flat_map(|one| [&[one.len() as u8][..], one].concat()).collect()
}

/// A stream without a fault for as long as the numbers of its queues are right: gets deep into the parser.
fn in_order(mut ulpdus: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut msn = [1u32; 2];
    let mut offset = 0u32;
    for one in &mut ulpdus {
        if one.len() < 18 || one[0] & 0x80 != 0 || one[1] & 0x0f == 7 {
            continue;
        }
        let queue = usize::from(one[1] & 0x0f == 1);
        one[6..10].copy_from_slice(&(queue as u32).to_be_bytes());
        one[10..14].copy_from_slice(&msn[queue].to_be_bytes());
        one[14..18].copy_from_slice(&(if queue == 0 { offset } else { 0 }).to_be_bytes());
        if one[0] & 0x40 != 0 {
            msn[queue] += 1;
            offset = if queue == 0 { 0 } else { offset };
        } else if queue == 0 {
            offset += one.len() as u32 - 18;
        }
    }
    ulpdus
}

fn header() -> impl Strategy<Value = [u8; 3]> {
    (any::<u8>(), any::<u8>(), prop_oneof![Just(1), Just(255u8), any::<u8>()])
        .prop_map(|(options, rights, chunk)| [options, rights, chunk])
}

/// Runs the fuzz target, which must find nothing.
fn parsed(data: &[u8]) -> u64 {
    fuzzing::stream(data).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_octets(start in header(), stream in prop::collection::vec(any::<u8>(), 0..300)) {
        parsed(&[&start[..], &stream].concat());
    }

    #[test]
    fn random_frames(start in header(), ulpdus in prop::collection::vec(ulpdu(), 0..12), ordered in any::<bool>()) {
        let ulpdus = if ordered { in_order(ulpdus) } else { ulpdus };
        let start = [start[0] | 16, start[1], start[2]];
        parsed(&[&start[..], &listed(&ulpdus)].concat());
    }

    #[test]
    fn frames_with_flipped_bits_and_cut_short(
        start in header(),
        ulpdus in prop::collection::vec(ulpdu(), 1..12),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8u32), 0..4),
        end in any::<prop::sample::Index>(),
    ) {
        let ulpdus = in_order(ulpdus);
        let crc = start[0] & 1 != 0;
        let framed = start[0] & 16 != 0;
        let mut octets = if framed { listed(&ulpdus) } else { ulpdus.iter().flat_map(|one| fpdu(one, crc)).collect() };
        for (at, bit) in &flips {
            let at = at.index(octets.len().max(1));
            if let Some(octet) = octets.get_mut(at) {
                *octet ^= 1 << bit;
            }
        }
        octets.truncate(end.index(octets.len() + 1).max(octets.len() / 2));
        parsed(&[&start[..], &octets].concat());
    }
}

#[test]
fn the_fuzz_target_lets_the_right_things_through() {
    let window = 128;
    let all = [
        tagged(0xc140, 3, window, &[1; 128]),
        tagged(0xc140, 2, window + 9, &[2; 3]),
        untagged(0x0143, 0, [0, 1, 0], &[3; 20]),
        untagged(0x4143, 0, [0, 1, 20], &[3; 20]),
        read_request(1, (6, 0), 100, (3, window + 1)),
        tagged(0xc142, 1, 0, &[]),
        untagged(0x4148, 0, [0, 2, 0], &[0, 0, 0, 1, 0, 0, 0, 1]),
        untagged(0x4144, 5, [0, 3, 0], &[3; 4]),
    ];
    let octets: usize = all.iter().map(|one| fpdu(one, false).len()).sum();
    for options in [0, 1, 8, 64] {
        for chunk in [1, 255] {
            // Our own peer, Reads, frames; the IRD is 3.
            let start = [4 | 16 | 32 | options, 6 | 24, chunk];
            assert_eq!(parsed(&[&start[..], &listed(&all)].concat()), octets as u64);
        }
    }
    let foreign = tagged(0xc140, 4, 256, &[1; 8]);
    assert_eq!(parsed(&[&[16, 6, 9][..], &listed(&[foreign])].concat()), 0);
}
