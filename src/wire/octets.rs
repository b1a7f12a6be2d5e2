//! Big-endian fields of fixed-size headers. The offset is a constant that is checked against the size of the header
//! when the program is compiled, so that no access can fail when it runs.

/// Reading and writing fields of a header held in an array.
pub(super) trait Octets {
    /// One octet.
    fn get8<const AT: usize>(&self) -> u8;
    /// Two octets.
    fn get16<const AT: usize>(&self) -> u16;
    /// Four octets.
    fn get32<const AT: usize>(&self) -> u32;
    /// Eight octets.
    fn get64<const AT: usize>(&self) -> u64;
    /// One octet.
    fn put8<const AT: usize>(&mut self, value: u8);
    /// Two octets.
    fn put16<const AT: usize>(&mut self, value: u16);
    /// Four octets.
    fn put32<const AT: usize>(&mut self, value: u32);
    /// Eight octets.
    fn put64<const AT: usize>(&mut self, value: u64);
}

/// The `LEN` octets at `AT`.
fn read<const AT: usize, const LEN: usize, const N: usize>(from: &[u8; N]) -> [u8; LEN] {
    const { assert!(AT + LEN <= N, "the field lies within the header") };
    let mut value = [0; LEN];
    for (to, octet) in value.iter_mut().zip(from.iter().skip(AT)) {
        *to = *octet;
    }
    value
}

/// Puts `LEN` octets at `AT`.
fn write<const AT: usize, const LEN: usize, const N: usize>(to: &mut [u8; N], value: [u8; LEN]) {
    const { assert!(AT + LEN <= N, "the field lies within the header") };
    for (to, octet) in to.iter_mut().skip(AT).zip(value) {
        *to = octet;
    }
}

impl<const N: usize> Octets for [u8; N] {
    #[inline]
    fn get8<const AT: usize>(&self) -> u8 {
        u8::from_be_bytes(read::<AT, 1, N>(self))
    }

    #[inline]
    fn get16<const AT: usize>(&self) -> u16 {
        u16::from_be_bytes(read::<AT, 2, N>(self))
    }

    #[inline]
    fn get32<const AT: usize>(&self) -> u32 {
        u32::from_be_bytes(read::<AT, 4, N>(self))
    }

    #[inline]
    fn get64<const AT: usize>(&self) -> u64 {
        u64::from_be_bytes(read::<AT, 8, N>(self))
    }

    #[inline]
    fn put8<const AT: usize>(&mut self, value: u8) {
        write::<AT, 1, N>(self, value.to_be_bytes());
    }

    #[inline]
    fn put16<const AT: usize>(&mut self, value: u16) {
        write::<AT, 2, N>(self, value.to_be_bytes());
    }

    #[inline]
    fn put32<const AT: usize>(&mut self, value: u32) {
        write::<AT, 4, N>(self, value.to_be_bytes());
    }

    #[inline]
    fn put64<const AT: usize>(&mut self, value: u64) {
        write::<AT, 8, N>(self, value.to_be_bytes());
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn fields_are_big_endian_and_stay_in_place() {
        let mut header = [0u8; 16];
        header.put8::<0>(0x01);
        header.put16::<1>(0x0203);
        header.put32::<3>(0x0405_0607);
        header.put64::<8>(0x0809_0a0b_0c0d_0e0f);
        assert_eq!(header, [1, 2, 3, 4, 5, 6, 7, 0, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(header.get8::<0>(), 1);
        assert_eq!(header.get16::<1>(), 0x0203);
        assert_eq!(header.get32::<3>(), 0x0405_0607);
        assert_eq!(header.get64::<8>(), 0x0809_0a0b_0c0d_0e0f);
    }
}
