//! RPC messages on TCP: record marking of RFC 5531 section 11.

use std::io::{self, ErrorKind, IoSlice, Read, Write};

/// Set in the header of a record's last fragment.
const LAST: u32 = 1 << 31;

/// Reads one record to the beginning of `out`; its octets, or `None` where the stream ends before one.
pub(crate) fn read(stream: &mut impl Read, out: &mut [u8]) -> io::Result<Option<usize>> {
    let (mut filled, most) = (0, out.len());
    loop {
        let mut header = [0; 4];
        match stream.read(&mut header)? {
            0 if filled == 0 => return Ok(None),
            count => stream.read_exact(header.get_mut(count..).unwrap_or_default())?,
        }
        let header = u32::from_be_bytes(header);
        let length = (header & !LAST) as usize;
        let room = out.get_mut(filled..).and_then(|room| room.get_mut(..length));
        let room = room.ok_or_else(|| {
            io::Error::new(ErrorKind::InvalidData, format!("a record is longer than {most} octets"))
        })?;
        stream.read_exact(room)?;
        filled += length;
        if header & LAST != 0 {
            return Ok(Some(filled));
        }
    }
}

/// Writes one record of these pieces.
pub(crate) fn write(stream: &mut impl Write, pieces: &[&[u8]]) -> io::Result<()> {
    let length: usize = pieces.iter().map(|piece| piece.len()).sum();
    let length = u32::try_from(length).ok().filter(|length| length & LAST == 0);
    let length = length.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "a record of 2 GiB"))?;
    let header = (length | LAST).to_be_bytes();
    let mut slices: Vec<IoSlice<'_>> =
        std::iter::once(&header[..]).chain(pieces.iter().copied()).map(IoSlice::new).collect();
    let mut left = &mut slices[..];
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match stream.write_vectored(left) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut left, count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut octets = Vec::new();
        write(&mut octets, &[b"ab", b"", b"cde"]).unwrap();
        write(&mut octets, &[]).unwrap();
        assert_eq!(octets[..4], [0x80, 0, 0, 5]);
        let (mut stream, mut out) = (&octets[..], [0; 8]);
        assert_eq!(read(&mut stream, &mut out).unwrap(), Some(5));
        assert_eq!(&out[..5], b"abcde");
        assert_eq!(read(&mut stream, &mut out).unwrap(), Some(0));
        assert_eq!(read(&mut stream, &mut out).unwrap(), None);
    }

    #[test]
    fn fragments_and_bounds() {
        let octets = [&[0, 0, 0, 2][..], b"ab", &[0x80, 0, 0, 1], b"c"].concat();
        let mut out = [0; 3];
        assert_eq!(read(&mut &octets[..], &mut out).unwrap(), Some(3));
        assert_eq!(&out, b"abc");
        assert!(read(&mut &octets[..], &mut [0; 2]).is_err());
        for end in 1..octets.len() {
            assert!(read(&mut &octets[..end], &mut out).is_err(), "{end}");
        }
    }
}
