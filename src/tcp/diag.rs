//! Asks the kernel about a TCP connection whose socket is not ours, by its addresses (sock_diag(7)).

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Liveness, octets_at};

/// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h, the request and its answer.
const BY_FAMILY: u16 = 20;
/// `INET_DIAG_INFO` of linux/inet_diag.h: the attribute that holds a `struct tcp_info`.
const INFO: u16 = 2;
/// `struct nlmsghdr`, `struct inet_diag_req_v2`, `struct inet_diag_msg`.
const HEADER_LEN: usize = 16;
const REQUEST_LEN: usize = 56;
const ANSWER_LEN: usize = 72;

/// What TCP knows about the peer of the connection between these addresses, in this thread's network namespace.
pub(crate) fn liveness_between(local: SocketAddr, peer: SocketAddr) -> io::Result<Liveness> {
    let mut netlink = Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::RAW,
        Some(Protocol::from(libc::NETLINK_INET_DIAG)),
    )?;
    netlink.write_all(&request(local, peer))?;
    // The kernel has answered when the request is written.
    netlink.set_nonblocking(true)?;
    let mut answer = [0; 4096];
    let length = netlink.read(&mut answer)?;
    parse(answer.get(..length).unwrap_or_default())
}

/// One connection, not a list.
fn request(local: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN + REQUEST_LEN);
    out.extend(((HEADER_LEN + REQUEST_LEN) as u32).to_ne_bytes());
    out.extend(BY_FAMILY.to_ne_bytes());
    out.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    out.extend([0; 8]);
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    out.extend([family as u8, libc::IPPROTO_TCP as u8, 1 << (INFO - 1), 0]);
    // In any state.
    out.extend(u32::MAX.to_ne_bytes());
    for addr in [local, peer] {
        out.extend(addr.port().to_be_bytes());
    }
    for addr in [local, peer] {
        match addr.ip() {
            IpAddr::V4(ip) => {
                out.extend(ip.octets());
                out.extend([0; 12]);
            }
            IpAddr::V6(ip) => out.extend(ip.octets()),
        }
    }
    let scope = if let SocketAddr::V6(local) = local { local.scope_id() } else { 0 };
    out.extend(scope.to_ne_bytes());
    // Whatever its cookie.
    out.extend([0xff; 8]);
    out
}

fn parse(answer: &[u8]) -> io::Result<Liveness> {
    let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let half = |at: usize| octets_at(answer, at).map(u16::from_ne_bytes);
    if half(4).ok_or_else(short)? != BY_FAMILY {
        let errno = octets_at(answer, HEADER_LEN).map(i32::from_ne_bytes).ok_or_else(short)?;
        return Err(io::Error::from_raw_os_error(-errno));
    }
    let mut at = HEADER_LEN + ANSWER_LEN;
    loop {
        let length = usize::from(half(at).ok_or_else(short)?);
        if half(at + 2) == Some(INFO) {
            return answer.get(at + 4..at + length).map(Liveness::of).ok_or_else(short);
        }
        // An attribute is no shorter than its header, and ends at a multiple of 4.
        at += length.max(4).next_multiple_of(4);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn sees_what_was_acknowledged() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(any).unwrap();
            let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let mut far = listener.accept().unwrap().0;
            near.write_all(&[1; 1000]).unwrap();
            far.read_exact(&mut [0; 1000]).unwrap();
            let (local, peer) = (near.local_addr().unwrap(), near.peer_addr().unwrap());
            let seen = liveness_between(local, peer).unwrap();
            // The SYN counts as one octet.
            assert!((1000..=1001).contains(&seen.acked) && seen.unsent == 0, "{seen:?}");
            assert!(liveness_between(peer, local).unwrap().acked <= 1);
        }
    }

    #[test]
    fn no_such_connection() {
        let nobody = "127.0.0.1:1".parse().unwrap();
        let error = liveness_between(nobody, nobody).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn answers_that_are_cut_or_odd_are_errors() {
        let mut answer = vec![0; HEADER_LEN + ANSWER_LEN];
        answer[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        assert!(parse(&answer).is_err());
        // An attribute without a length, then one that is longer than the answer.
        answer.extend([0, 0, 0, 0]);
        answer.extend([200, 0, INFO as u8, 0, 1, 2, 3]);
        for length in 0..=answer.len() {
            assert!(parse(&answer[..length]).is_err(), "{length}");
        }
    }
}
