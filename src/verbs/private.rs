//! Private data as rdma_cm carries it: so many octets and no more, on InfiniBand with zeros behind them, and the tag by
//! which two ends that use this library recognise each other and the true length.

use std::sync::Arc;

use crate::error::{Error, Reason, Result};
use crate::wire::tag::{self, FLAG_DEVICE, OwnTag, Tag};

/// Which message carries the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Connect,
    Accept,
    Reject,
}

impl Carrier {
    /// Most octets: those of the IB CM's messages without the IP addresses of RDMA_PS_TCP, or what siw takes of the
    /// library's 255 beside the word of MPA revision 2.
    pub(crate) const fn capacity(self, iwarp: bool) -> usize {
        match self {
            _ if iwarp => 251,
            Self::Connect => 56,
            Self::Accept => 196,
            Self::Reject => 148,
        }
    }

    /// Most octets of the application's.
    pub(crate) const fn room(self, iwarp: bool, tagged: bool) -> usize {
        self.capacity(iwarp) - if tagged { tag::LEN } else { 0 }
    }
}

/// What goes out: the application's data and, unless they are to be raw, the tag.
pub(super) fn compose(
    user: &[u8],
    carrier: Carrier,
    iwarp: bool,
    tagged: bool,
    reject_reason: u8,
) -> Result<Vec<u8>> {
    let room = carrier.room(iwarp, tagged);
    if user.len() > room {
        let text = format!("{} octets of private data are over the limit of {room}", user.len());
        return Err(Error::new(libc::EMSGSIZE, Reason::Invalid, text));
    }
    let mut out = user.to_vec();
    if tagged {
        // A ULPDU of no particular length: the device cuts frames as it likes.
        let own = OwnTag { max_ulpdu: 0, flags: FLAG_DEVICE };
        let mut octets = [0; tag::LEN];
        Tag::new(own, reject_reason).emit(user, &mut octets);
        out.extend_from_slice(&octets);
    }
    Ok(out)
}

/// What came in: the application's data and the tag, where there is one.
pub(super) fn separate(octets: &[u8]) -> (Option<Arc<[u8]>>, Option<Tag>) {
    let (user, tag) = Tag::split_padded(octets);
    ((!user.is_empty()).then(|| user.into()), tag)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn what_infiniband_pads_comes_out_exactly() {
        let mut octets = compose(b"offer\0", Carrier::Connect, false, true, 0).unwrap();
        octets.resize(56, 0);
        let (user, tag) = separate(&octets);
        assert_eq!(user.as_deref(), Some(&b"offer\0"[..]));
        assert_eq!(tag.unwrap().own.flags, FLAG_DEVICE);
    }

    #[test]
    fn raw_data_pass_as_they_are() {
        let octets = compose(&[7; 56], Carrier::Connect, false, false, 0).unwrap();
        assert_eq!(separate(&octets), (Some([7; 56].as_slice().into()), None));
        assert_eq!(separate(&[]), (None, None));
    }

    #[test]
    fn too_much_is_refused() {
        for (carrier, iwarp, room) in
            [(Carrier::Connect, false, 40), (Carrier::Accept, false, 180), (Carrier::Reject, true, 235)]
        {
            assert!(compose(&vec![1; room], carrier, iwarp, true, 0).is_ok());
            let error = compose(&vec![1; room + 1], carrier, iwarp, true, 0).unwrap_err();
            assert_eq!(error.errno, libc::EMSGSIZE);
        }
    }

    #[test]
    fn the_reason_of_a_reject_is_told() {
        let octets = compose(b"no", Carrier::Reject, false, true, 4).unwrap();
        assert_eq!(separate(&octets).1.unwrap().reject_reason, 4);
    }
}
