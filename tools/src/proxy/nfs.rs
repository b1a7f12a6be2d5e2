//! What may be placed directly, by the bindings of NFS versions 3 and 4 (RFC 8267), and where it is in a message. Looks at
//! messages only as far as it knows them: what follows is carried as it is.

use crate::xdr;

/// Octets of a message, from the front.
struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn word(&mut self) -> Option<u32> {
        let word = xdr::word(self.octets, self.at)?;
        self.at += 4;
        Some(word)
    }

    fn skip(&mut self, octets: usize) -> Option<()> {
        self.at = self.at.checked_add(octets)?;
        (self.at <= self.octets.len()).then_some(())
    }

    /// A counted string of octets and its pad.
    fn opaque(&mut self) -> Option<()> {
        let length = self.word()? as usize;
        self.skip(length.checked_next_multiple_of(4)?)
    }

    /// Counted octets that may be placed elsewhere: where they are, or would be.
    fn payload(&mut self, there: bool) -> Option<Place> {
        let octets = self.word()? as usize;
        let place = Place { at: self.at, octets };
        if there {
            self.skip(octets.checked_next_multiple_of(4)?)?;
        }
        Some(place)
    }
}

/// Where octets are in a message that has them in it, or would be in one that has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) at: usize,
    pub(crate) octets: usize,
}

/// What is to be known of a call when its reply comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    /// NFS 3: READ.
    Read3,
    /// NFS 3: READLINK.
    Readlink3,
    /// NFS 4: COMPOUND.
    Compound,
    /// Nothing of it may be placed directly.
    #[default]
    Other,
}

/// What a call says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) shape: Shape,
    /// Arguments that the server may read directly.
    pub(crate) payload: Option<Place>,
    /// Octets of each result that the server may write directly.
    pub(crate) results: Vec<usize>,
    /// Octets of the longest reply without those, where the call shows it; `usize::MAX`: it may be as long as a result.
    pub(crate) reply: Option<usize>,
}

const NFS: u32 = 100_003;
/// A credential of RPCSEC_GSS (RFC 2203), and in it what is a call of the program, and how one goes that is not wrapped.
const GSS: u32 = 6;
const GSS_DATA: u32 = 0;
const GSS_NONE: u32 = 1;
/// Octets of attributes in NFS 3.
const FATTR3: usize = 84;
/// The longest reply of a procedure of NFS 3 with three sets of attributes and two file handles.
const SHORT3: usize = 760;

/// What a COMPOUND may say besides its directory.
const LONG4: usize = 8192;
/// A reply to a COMPOUND before its first result: its tag repeats the call's, which clients keep short.
const COMPOUND: usize = 128;

mod op {
    pub(crate) const ACCESS: u32 = 3;
    pub(crate) const CLOSE: u32 = 4;
    pub(crate) const COMMIT: u32 = 5;
    pub(crate) const GETATTR: u32 = 9;
    pub(crate) const GETFH: u32 = 10;
    pub(crate) const LOOKUP: u32 = 15;
    pub(crate) const LOOKUPP: u32 = 16;
    pub(crate) const PUTFH: u32 = 22;
    pub(crate) const PUTROOTFH: u32 = 24;
    pub(crate) const READ: u32 = 25;
    pub(crate) const READDIR: u32 = 26;
    pub(crate) const READLINK: u32 = 27;
    pub(crate) const RESTOREFH: u32 = 31;
    pub(crate) const SAVEFH: u32 = 32;
    pub(crate) const WRITE: u32 = 38;
    pub(crate) const SEQUENCE: u32 = 53;
}

/// Looks at a call, which begins with its xid.
pub(crate) fn look_at_call(message: &[u8]) -> Asked {
    call(message).unwrap_or_default()
}

fn call(message: &[u8]) -> Option<Asked> {
    let mut reader = Reader { octets: message, at: 8 };
    let [_, program, version, procedure] = [reader.word()?, reader.word()?, reader.word()?, reader.word()?];
    let none = Asked::default();
    if !has_plain_arguments(&mut reader)? {
        // Within others, or encrypted: nothing may be placed, and data come in the reply.
        return Some(Asked { reply: Some(usize::MAX), ..none });
    }
    Some(match (program, version, procedure) {
        (_, _, 0) => Asked { reply: Some(64), ..none },
        (NFS, 3, 5) => Asked { shape: Shape::Readlink3, ..none },
        (NFS, 3, 6) => {
            reader.opaque()?;
            reader.skip(8)?;
            let count = reader.word()? as usize;
            Asked { shape: Shape::Read3, results: vec![count], reply: Some(SHORT3), ..none }
        }
        (NFS, 3, 7) => {
            reader.opaque()?;
            reader.skip(16)?;
            Asked { payload: Some(reader.payload(true)?), reply: Some(SHORT3), ..none }
        }
        (NFS, 3, procedure @ 16..=17) => {
            reader.opaque()?;
            // Cookie and verifier, and in READDIRPLUS how much of the answer may be names.
            reader.skip(if procedure == 16 { 16 } else { 20 })?;
            Asked { reply: Some(reader.word()? as usize + SHORT3), ..none }
        }
        (NFS, 3, _) => Asked { reply: Some(SHORT3), ..none },
        (NFS, 4, 1) => {
            let mut asked = Asked { shape: Shape::Compound, ..none };
            reader.opaque()?;
            reader.skip(4)?;
            let count = reader.word()?;
            let mut bound = COMPOUND;
            // What is not known ends the look, and takes nothing back.
            let looked = (0..count).try_for_each(|_| {
                bound += argument(&mut reader, &mut asked)?;
                Some(())
            });
            if looked.is_some() {
                asked.reply = Some(bound);
            }
            asked
        }
        _ => none,
    })
}

/// Skips credential and verifier: whether what follows is as the program has it; `None`: it is for a context of GSS.
fn has_plain_arguments(reader: &mut Reader<'_>) -> Option<bool> {
    let (flavour, credential) = (reader.word()?, reader.at);
    reader.opaque()?;
    // Behind the length and the version: what it is, its number, the service.
    let word = |index: usize| xdr::word(reader.octets, credential + 4 * index);
    let (what, service) = (word(2), word(4));
    reader.skip(4)?;
    reader.opaque()?;
    match flavour {
        GSS => (what? == GSS_DATA).then_some(service? == GSS_NONE),
        _ => Some(true),
    }
}

/// One operation of a COMPOUND's arguments: octets of its results at most, less what may be placed directly; `None` = no
/// further, as it is not known, or as there is no telling.
fn argument(reader: &mut Reader<'_>, asked: &mut Asked) -> Option<usize> {
    /// In the first word of attributes that are asked for.
    const ACL: u32 = 1 << 12;
    const ATTRIBUTES: usize = 1600;
    const HANDLE: usize = 132;
    let operation = reader.word()?;
    let more = match operation {
        op::SEQUENCE => {
            reader.skip(32)?;
            36
        }
        op::PUTFH | op::LOOKUP => {
            reader.opaque()?;
            0
        }
        op::PUTROOTFH | op::SAVEFH | op::RESTOREFH | op::LOOKUPP => 0,
        op::GETFH => HANDLE,
        op::ACCESS => {
            reader.skip(4)?;
            8
        }
        op::GETATTR => {
            let words = reader.word()? as usize;
            let first = if words > 0 { reader.word()? } else { 0 };
            reader.skip(words.saturating_sub(1).checked_mul(4)?)?;
            if first & ACL != 0 {
                return None;
            }
            ATTRIBUTES
        }
        op::COMMIT => {
            reader.skip(12)?;
            8
        }
        op::CLOSE => {
            reader.skip(20)?;
            16
        }
        op::READDIR => {
            reader.skip(20)?;
            asked.reply = Some(reader.word()? as usize + LONG4);
            return None;
        }
        op::READ => {
            reader.skip(24)?;
            asked.results.push(reader.word()? as usize);
            8
        }
        // One chunk for each call: kernel servers of Linux 6.1 spoil a call that has two.
        op::WRITE if asked.payload.is_none() => {
            reader.skip(28)?;
            asked.payload = Some(reader.payload(true)?);
            16
        }
        _ => return None,
    };
    // Operation and status.
    Some(8 + more)
}

/// Where results are in a reply that may be placed directly. `there(n)`: the n-th has its octets in the message.
pub(crate) fn look_at_reply(shape: Shape, message: &[u8], there: impl Fn(usize) -> bool) -> Vec<Place> {
    let mut places = Vec::new();
    let _ = reply(shape, message, there, &mut places);
    places
}

fn reply(shape: Shape, message: &[u8], there: impl Fn(usize) -> bool, places: &mut Vec<Place>) -> Option<()> {
    let mut reader = Reader { octets: message, at: 8 };
    // MSG_ACCEPTED, a verifier, SUCCESS.
    if shape == Shape::Other || reader.word()? != 0 {
        return None;
    }
    reader.skip(4)?;
    reader.opaque()?;
    if reader.word()? != 0 || reader.word()? != 0 {
        return None;
    }
    match shape {
        Shape::Read3 | Shape::Readlink3 => {
            if reader.word()? != 0 {
                reader.skip(FATTR3)?;
            }
            if shape == Shape::Read3 {
                reader.skip(8)?;
            }
            places.push(reader.payload(there(0))?);
            Some(())
        }
        _ => {
            reader.opaque()?;
            let count = reader.word()?;
            (0..count).try_for_each(|_| result(&mut reader, &there, places))
        }
    }
}

/// One operation of a COMPOUND's results; `None` = no further.
fn result(reader: &mut Reader<'_>, there: &impl Fn(usize) -> bool, places: &mut Vec<Place>) -> Option<()> {
    let operation = reader.word()?;
    if reader.word()? != 0 {
        return None;
    }
    match operation {
        op::SEQUENCE => reader.skip(36),
        op::PUTFH | op::PUTROOTFH | op::LOOKUP | op::LOOKUPP | op::SAVEFH | op::RESTOREFH => Some(()),
        op::GETFH => reader.opaque(),
        op::ACCESS | op::COMMIT => reader.skip(8),
        op::CLOSE => reader.skip(16),
        op::GETATTR => {
            let words = reader.word()? as usize;
            reader.skip(words.checked_mul(4)?)?;
            reader.opaque()
        }
        op::WRITE => reader.skip(16),
        op::READ => {
            reader.skip(4)?;
            places.push(reader.payload(there(places.len()))?);
            Some(())
        }
        op::READLINK => {
            places.push(reader.payload(there(places.len()))?);
            Some(())
        }
        _ => None,
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn call_of(version: u32, procedure: u32, arguments: &[u32]) -> Vec<u8> {
        xdr::octets(&[&[7, 0, 2, NFS, version, procedure, 1, 8, 0, 0, 0, 0][..], arguments].concat())
    }

    /// One with RPCSEC_GSS: a handle of 4 octets, and a verifier of 28.
    fn secured(version: u32, procedure: u32, [what, service]: [u32; 2], arguments: &[u32]) -> Vec<u8> {
        let head = [7, 0, 2, NFS, version, procedure, GSS, 24, 1, what, 99, service, 4, 0x1234, GSS, 28];
        xdr::octets(&[&head, &[0x0404_04ff; 7][..], arguments].concat())
    }

    fn reply_of(results: &[u32]) -> Vec<u8> {
        xdr::octets(&[&[7, 1, 0, 0, 0, 0][..], results].concat())
    }

    #[test]
    fn version_3() {
        let read = look_at_call(&call_of(3, 6, &[8, 1, 2, 0, 0, 4096]));
        assert_eq!((read.shape, read.results, read.payload), (Shape::Read3, vec![4096], None));
        let write = look_at_call(&call_of(3, 7, &[4, 1, 0, 0, 5, 2, 5, 0x6162_6364, 0x6500_0000]));
        assert_eq!(write.payload, Some(Place { at: 48 + 28, octets: 5 }));
        assert_eq!(look_at_call(&call_of(3, 17, &[4, 1, 0, 0, 0, 0, 512, 4096])).reply, Some(4096 + SHORT3));
        assert_eq!(look_at_call(&call_of(3, 16, &[4, 1, 0, 0, 0, 0, 2048])).reply, Some(2048 + SHORT3));
        assert_eq!(look_at_call(&call_of(3, 1, &[])).reply, Some(SHORT3));
        assert_eq!(look_at_call(b"short"), Asked::default());
        let mut results = vec![0, 1];
        results.extend([0; FATTR3 / 4]);
        results.extend([6, 1, 6, 0x6162_6364, 0x6566_0000]);
        let place = Place { at: 24 + 4 + 4 + FATTR3 + 12, octets: 6 };
        assert_eq!(look_at_reply(Shape::Read3, &reply_of(&results), |_| true), [place]);
        results.truncate(results.len() - 2);
        assert_eq!(look_at_reply(Shape::Read3, &reply_of(&results), |_| false), [place]);
        assert_eq!(look_at_reply(Shape::Read3, &reply_of(&results), |_| true), []);
        assert_eq!(look_at_reply(Shape::Read3, &reply_of(&[2, 0]), |_| true), [], "NFS3ERR_NOENT");
    }

    #[test]
    fn kerberos() {
        let read = [8, 1, 2, 0, 0, 4096];
        let plain = look_at_call(&secured(3, 6, [GSS_DATA, GSS_NONE], &read));
        assert_eq!((plain.shape, plain.results, plain.reply), (Shape::Read3, vec![4096], Some(SHORT3)));
        let write = [4, 1, 0, 0, 5, 2, 5, 0x6162_6364, 0x6500_0000];
        let plain = look_at_call(&secured(3, 7, [GSS_DATA, GSS_NONE], &write));
        assert_eq!(plain.payload, Some(Place { at: 23 * 4 + 28, octets: 5 }));
        // Of integrity: a number and the arguments, and what they are signed with.
        let signed = [&[28, 99][..], &read, &[28], &[0x0404_04ff; 7]].concat();
        let unknown = Asked { reply: Some(usize::MAX), ..Asked::default() };
        for service in [2, 3, 4] {
            for (version, procedure) in [(3, 6), (3, 7), (3, 16), (3, 1), (4, 1), (4, 0)] {
                let asked = look_at_call(&secured(version, procedure, [GSS_DATA, service], &signed));
                assert_eq!(asked, unknown, "service {service}, version {version}, procedure {procedure}");
            }
        }
        // A context's beginning is a NULL call whose reply has a token.
        assert_eq!(look_at_call(&secured(4, 0, [1, GSS_NONE], &[4, 1])), Asked::default());
        let whole = secured(3, 6, [GSS_DATA, 2], &[]);
        for end in 0..whole.len() {
            assert_eq!(look_at_call(&whole[..end]), Asked::default(), "{end}");
        }
    }

    #[test]
    fn version_4() {
        let sequence = [op::SEQUENCE, 1, 2, 3, 4, 1, 0, 0, 0];
        let read = [&[0, 1, 3][..], &sequence, &[op::PUTFH, 4, 9, op::READ, 1, 2, 3, 4, 0, 0, 8192]].concat();
        let asked = look_at_call(&call_of(4, 1, &read));
        assert_eq!((asked.shape, asked.results, asked.payload), (Shape::Compound, vec![8192], None));
        assert_eq!(asked.reply, Some(COMPOUND + 44 + 8 + 16));
        let write = [
            &[0, 1, 4][..],
            &sequence,
            &[op::PUTFH, 4, 9, op::WRITE, 1, 2, 3, 4, 0, 0, 2, 4, 77, op::GETATTR, 1, 2],
        ]
        .concat();
        let at = 48 + 12 + 36 + 12 + 4 + 28 + 4;
        assert_eq!(look_at_call(&call_of(4, 1, &write)).payload, Some(Place { at, octets: 4 }));
        // An operation that is not known: nothing is said of what follows.
        let odd = [&[0, 1, 2][..], &[99, op::READ, 1, 2, 3, 4, 0, 0, 8192]].concat();
        assert_eq!(look_at_call(&call_of(4, 1, &odd)).results, [0; 0]);
        let results = [
            &[0, 0, 3, op::SEQUENCE, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, op::PUTFH, 0, op::READ, 0, 1, 3][..],
            &[0x6162_6300],
        ]
        .concat();
        let place = Place { at: 24 + 20 * 4, octets: 3 };
        assert_eq!(look_at_reply(Shape::Compound, &reply_of(&results), |_| true), [place]);
        assert_eq!(look_at_reply(Shape::Other, &reply_of(&results), |_| true), []);
    }
}
