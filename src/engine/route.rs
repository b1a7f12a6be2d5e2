//! Which provider for which address: what a connect tries, in which order.

use socket2::SockAddr;

use super::config::{PROVIDER_AUTO, PROVIDER_IWARP, PROVIDER_VERBS};

/// One attempt of a connect.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) addr: SockAddr,
    /// `RCG_PROVIDER_*`, not `auto`.
    pub(super) provider: u32,
}

/// The attempts for a peer's addresses. With `auto` a device is tried for every address before TCP is for any, as a path
/// over a device is the better one; `devices`: whether this machine has some.
pub(super) fn candidates(addrs: &[SockAddr], wish: u32, devices: bool) -> Vec<Candidate> {
    let providers: &[u32] = match wish {
        PROVIDER_AUTO if devices => &[PROVIDER_VERBS, PROVIDER_IWARP],
        PROVIDER_AUTO => &[PROVIDER_IWARP],
        _ => &[wish],
    };
    let of = |provider: &u32| {
        let provider = *provider;
        addrs.iter().map(move |addr| Candidate { addr: addr.clone(), provider })
    };
    providers.iter().flat_map(of).collect()
}

#[cfg(test)]
mod test {
    use super::*;

    fn order(wish: u32, devices: bool) -> Vec<(u16, u32)> {
        let addrs =
            ["192.0.2.1:1", "192.0.2.1:2"].map(|text| text.parse::<std::net::SocketAddr>().unwrap().into());
        let port = |candidate: &Candidate| candidate.addr.as_socket().unwrap().port();
        candidates(&addrs, wish, devices).iter().map(|each| (port(each), each.provider)).collect()
    }

    #[test]
    fn devices_come_before_tcp() {
        assert_eq!(order(PROVIDER_AUTO, true), [(1, 1), (2, 1), (1, 2), (2, 2)]);
        assert_eq!(order(PROVIDER_AUTO, false), [(1, 2), (2, 2)]);
        assert_eq!(order(PROVIDER_VERBS, true), [(1, 1), (2, 1)]);
        assert_eq!(order(PROVIDER_IWARP, true), [(1, 2), (2, 2)]);
    }
}
