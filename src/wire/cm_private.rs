//! What an end of RPC-over-RDMA says of itself in the private data of the connection: RFC 8797.

use super::octets::Octets;

/// Octets of it.
pub const LEN: usize = 8;
/// What an inline threshold is without it, in both directions (RFC 8166 section 3.3.2).
pub const DEFAULT_THRESHOLD: usize = 1024;

const MAGIC: u32 = 0xf6ab_0e18;
const VERSION: u8 = 1;
const FLAG_INVALIDATE: u8 = 1;
/// Sizes count in units of so many octets, less one unit.
const UNIT: usize = 1024;

mod field {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 4;
    pub(super) const FLAGS: usize = 5;
    pub(super) const SEND_SIZE: usize = 6;
    pub(super) const RECV_SIZE: usize = 7;
}

/// What one end says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CmPrivate {
    /// Its memory allows remote invalidation.
    pub invalidate: bool,
    /// The longest message that it sends: a multiple of 1024, to 256 KiB.
    pub send_size: usize,
    /// The longest message that it has receives for, likewise.
    pub recv_size: usize,
}

impl CmPrivate {
    /// Reads private data; zeros behind it, as InfiniBand's connection manager puts there, and whatever a later version may
    /// add don't matter. `None`: it is something else.
    #[must_use]
    pub fn parse(private_data: &[u8]) -> Option<Self> {
        let octets = private_data.first_chunk::<LEN>()?;
        let known =
            (octets.get32::<{ field::MAGIC }>(), octets.get8::<{ field::VERSION }>()) == (MAGIC, VERSION);
        let size = |units: u8| (usize::from(units) + 1) * UNIT;
        known.then(|| Self {
            invalidate: octets.get8::<{ field::FLAGS }>() & FLAG_INVALIDATE != 0,
            send_size: size(octets.get8::<{ field::SEND_SIZE }>()),
            recv_size: size(octets.get8::<{ field::RECV_SIZE }>()),
        })
    }

    /// Writes it. Sizes are rounded down to whole units, so that nothing is promised that is not there; below one unit they
    /// are one, which everybody has.
    pub fn emit(&self, out: &mut [u8; LEN]) {
        let units = |size: usize| u8::try_from((size / UNIT).saturating_sub(1)).unwrap_or(u8::MAX);
        out.put32::<{ field::MAGIC }>(MAGIC);
        out.put8::<{ field::VERSION }>(VERSION);
        out.put8::<{ field::FLAGS }>(if self.invalidate { FLAG_INVALIDATE } else { 0 });
        out.put8::<{ field::SEND_SIZE }>(units(self.send_size));
        out.put8::<{ field::RECV_SIZE }>(units(self.recv_size));
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use proptest::prelude::*;

    /// What the kernel's client and server of Linux 6.1 send.
    const CLIENT: [u8; LEN] = [0xf6, 0xab, 0x0e, 0x18, 1, 1, 3, 3];
    const SERVER: [u8; LEN] = [0xf6, 0xab, 0x0e, 0x18, 1, 0, 3, 3];

    #[test]
    fn of_the_kernel() {
        for (octets, invalidate) in [(CLIENT, true), (SERVER, false)] {
            let said = CmPrivate { invalidate, send_size: 4096, recv_size: 4096 };
            assert_eq!(CmPrivate::parse(&octets), Some(said));
            assert_eq!(CmPrivate::parse(&[&octets[..], &[0; 48]].concat()), Some(said));
            let mut out = [0xaa; LEN];
            said.emit(&mut out);
            assert_eq!(out, octets);
        }
    }

    #[test]
    fn anything_else_is_not_it() {
        assert_eq!(CmPrivate::parse(&CLIENT[..7]), None);
        for at in 0..5 {
            let mut octets = CLIENT;
            octets[at] ^= 2;
            assert_eq!(CmPrivate::parse(&octets), None, "{at}");
        }
    }

    #[test]
    fn sizes_at_their_limits() {
        let sent = |size| {
            let mut out = [0; LEN];
            CmPrivate { invalidate: false, send_size: size, recv_size: 1024 }.emit(&mut out);
            CmPrivate::parse(&out).unwrap().send_size
        };
        let sizes = [0, 1, 1023, 1024, 2047, 2048, 4096, 65_536, 262_144, 262_145, usize::MAX].map(sent);
        assert_eq!(sizes, [1024, 1024, 1024, 1024, 1024, 2048, 4096, 65_536, 262_144, 262_144, 262_144]);
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_heard(invalidate: bool, send in 1usize..=256, recv in 1usize..=256) {
            let said = CmPrivate { invalidate, send_size: send * UNIT, recv_size: recv * UNIT };
            let mut out = [0; LEN];
            said.emit(&mut out);
            prop_assert_eq!(CmPrivate::parse(&out), Some(said));
        }
    }
}
