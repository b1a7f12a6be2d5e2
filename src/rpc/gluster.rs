//! What GlusterFS 3.4 to 7 does otherwise than RFC 8166, besides the word in its header. Its programs' payloads stand at the
//! end of a call, and are no XDR.

use super::layout::padded;
use crate::wire::rpcrdma::ReadSegment;

/// Octets of a message, in both directions.
pub(super) const THRESHOLD: usize = 2048;
/// Octets of the receives that it counts on.
pub(super) const RECEIVE: usize = 4096;
/// Octets that it allows for a header, whatever that has.
const HEADER: usize = 228;
/// Octets of an RDMA_ERROR of its own.
pub(super) const ERROR_LEN: usize = 36;
/// Where a payload is said to be, so that all segments of it are one chunk.
pub(super) const PAYLOAD: u32 = !3;

/// Whether a call goes in the message with its payload.
pub(super) fn is_inline(head: usize, payload: usize) -> bool {
    let octets = HEADER + head + payload;
    octets < THRESHOLD || payload == 0 && octets == THRESHOLD
}

/// Whether it goes in the message without it.
pub(super) fn is_reduced(head: usize, payload: usize) -> bool {
    payload > 0 && HEADER + head <= THRESHOLD
}

/// Octets of a call's own header: to behind the verifier (RFC 5531 section 9). GlusterFS says that this is where a payload is.
pub(super) fn call_header(head: &[u8]) -> usize {
    let opaque = |at: usize| {
        let length = head.get(at + 4..)?.first_chunk().map(|octets| u32::from_be_bytes(*octets))?;
        at.checked_add(8)?.checked_add(padded(length as usize))
    };
    opaque(24).and_then(opaque).filter(|end| *end <= head.len()).unwrap_or(head.len())
}

/// A whole call goes in as many segments as it has parts, at positions one behind the other.
pub(super) fn parts(head: &[u8], payload: usize) -> Vec<usize> {
    let own = call_header(head);
    [own, head.len() - own, payload].into_iter().filter(|octets| *octets > 0).collect()
}

/// Has the segments of a call be what they are, as their positions are not to be believed: the whole of it, or the payload.
pub(super) fn mend(list: &mut [ReadSegment], long: bool) {
    list.iter_mut().for_each(|read| read.position = if long { 0 } else { PAYLOAD });
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn forms_are_those_of_the_old_code() {
        assert!(is_inline(1820, 0) && !is_inline(1821, 0));
        assert!(is_inline(132, 1687) && !is_inline(132, 1688) && is_reduced(132, 1688));
        assert!(is_reduced(1820, 1) && !is_reduced(1821, 1) && !is_reduced(1000, 0));
    }

    #[test]
    fn headers_end_behind_the_verifier() {
        let mut head = vec![0; 24];
        head.extend([0, 5, 0, 7, 0, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0]); // credentials of 5 octets
        head.extend([0; 8]); // no verifier
        let own = head.len();
        head.extend([9; 52]);
        assert_eq!(call_header(&head), own);
        assert_eq!(parts(&head, 7), vec![own, 52, 7]);
        assert_eq!(parts(&head[..own], 0), vec![own]);
        // Of what is no call all is header.
        assert_eq!(call_header(&head[..40]), 40);
        head[28..32].fill(0xff);
        assert_eq!(call_header(&head), head.len());
    }
}
