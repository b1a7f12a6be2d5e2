//! Ids as the kernel keeps them, up to the moment they meet.

use std::net::{IpAddr, SocketAddr};

use socket2::SockAddr;

use super::fabric::{Key, State};
use crate::verbs::types::{CmKind, ConnParam};

/// An errno where a call fails.
pub(super) type Done = Result<(), i32>;

/// Where an id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    Bound,
    AddrResolved,
    RouteResolved,
    Listening,
    /// Active: the request is sent.
    Connecting,
    /// Active: the reply has come and the application has not seen it.
    Replied,
    /// Passive: asked.
    Requested,
    /// Passive: the reply is sent.
    Accepted,
    Established,
    /// We have said good-bye.
    Leaving,
    /// The peer has said good-bye.
    Left,
    /// Rejected, disconnected.
    Over,
}

pub(super) struct Id {
    pub(super) channel: Key,
    pub(super) context: usize,
    pub(super) phase: Phase,
    pub(super) device: Option<Key>,
    pub(super) local: Option<SocketAddr>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) qp: Option<Key>,
    /// The id at the other end.
    pub(super) other: Option<Key>,
    /// The application has not accepted it: until then the kernel tells nothing of it.
    pub(super) mute: bool,
    reuse: bool,
    v6only: bool,
    pub(super) backlog: usize,
    pub(super) listener: Option<Key>,
    /// What it said in its request or reply.
    pub(super) said: ConnParam,
    /// librdmacm has reported CONNECT_ERROR, and reports no more ends.
    pub(super) connect_error: bool,
}

impl Id {
    pub(super) fn new(channel: Key, context: usize) -> Self {
        Self {
            channel,
            context,
            phase: Phase::Idle,
            device: None,
            local: None,
            peer: None,
            qp: None,
            other: None,
            mute: false,
            reuse: false,
            v6only: false,
            backlog: 0,
            listener: None,
            said: ConnParam::default(),
            connect_error: false,
        }
    }

    /// Whether both sides know that it is connected, or one of them does.
    pub(super) fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Replied | Phase::Accepted | Phase::Established)
    }

    /// Whether it listens on this address; siw does not take IPv4 for an id of both families.
    pub(super) fn covers(&self, to: SocketAddr, siw: bool) -> bool {
        let Some(local) = self.local else { return false };
        let any = local.ip().is_unspecified()
            && (local.is_ipv4() == to.is_ipv4() || (local.is_ipv6() && !self.v6only && !siw));
        local.port() == to.port() && (any || local.ip() == to.ip())
    }
}

impl State {
    /// An id that is alive, as those that `CmId`s name are.
    pub(super) fn id(&mut self, id: Key) -> &mut Id {
        self.ids.get_mut(&id).expect("an id lives as long as its handle")
    }

    pub(super) fn is_iwarp(&self, id: Key) -> bool {
        self.ids[&id].device.is_some_and(|device| self.config(device).limits.iwarp)
    }

    /// The device with this address.
    pub(super) fn owner(&self, addr: IpAddr) -> Option<Key> {
        let has = |key: &Key| !self.devices[key].removed && self.config(*key).addrs.contains(&addr);
        self.devices.keys().copied().find(has)
    }

    /// A device that has an address in the same network as this one.
    fn way(&self, to: IpAddr) -> Option<Key> {
        let near = |own: &IpAddr| match (own, to) {
            (IpAddr::V4(own), IpAddr::V4(to)) => own.octets()[..3] == to.octets()[..3],
            (IpAddr::V6(own), IpAddr::V6(to)) => own.octets()[..8] == to.octets()[..8],
            _ => false,
        };
        let has = |key: &Key| !self.devices[key].removed && self.config(*key).addrs.iter().any(near);
        self.devices.keys().copied().find(has)
    }

    pub(super) fn set_v6only(&mut self, id: Key, only: bool) -> Done {
        let id = self.id(id);
        if !matches!(id.phase, Phase::Idle | Phase::Bound) {
            return Err(libc::EINVAL);
        }
        id.v6only = only;
        Ok(())
    }

    pub(super) fn set_reuse(&mut self, id: Key) -> Done {
        let id = self.id(id);
        if id.phase == Phase::Listening {
            return Err(libc::EINVAL);
        }
        id.reuse = true;
        Ok(())
    }

    pub(super) fn bind(&mut self, id: Key, addr: &SockAddr) -> Done {
        if self.ids[&id].phase != Phase::Idle {
            return Err(libc::EINVAL);
        }
        let mut addr = addr.as_socket().ok_or(libc::EAFNOSUPPORT)?;
        let device = match self.owner(addr.ip()) {
            Some(device) => Some(device),
            None if addr.ip().is_unspecified() => None,
            None if addr.ip().is_loopback() => return Err(libc::ENODEV),
            None => return Err(libc::EADDRNOTAVAIL),
        };
        if addr.port() == 0 {
            addr.set_port(self.port());
        }
        let reuse = self.ids[&id].reuse;
        if self.in_use(id, addr, |other| other.phase == Phase::Listening || !(reuse && other.reuse)) {
            return Err(libc::EADDRINUSE);
        }
        let id = self.id(id);
        (id.device, id.local, id.phase) = (device, Some(addr), Phase::Bound);
        Ok(())
    }

    /// Whether another id has the port, on this address or on all.
    fn in_use(&self, id: Key, addr: SocketAddr, counts: impl Fn(&Id) -> bool) -> bool {
        let v6only = self.ids[&id].v6only;
        let overlaps = |id: &Id, other: SocketAddr| {
            let any = other.ip().is_unspecified() || addr.ip().is_unspecified();
            let apart = other.is_ipv4() != addr.is_ipv4() && (v6only || id.v6only);
            other.port() == addr.port() && (any || other.ip() == addr.ip()) && !apart
        };
        self.ids.iter().any(|(key, other)| {
            let overlaps = other.local.is_some_and(|local| overlaps(other, local));
            *key != id && other.listener.is_none() && overlaps && counts(other)
        })
    }

    pub(super) fn listen(&mut self, id: Key, backlog: i32) -> Done {
        if self.ids[&id].phase != Phase::Bound {
            return Err(libc::EINVAL);
        }
        let addr = self.ids[&id].local.ok_or(libc::EINVAL)?;
        if self.in_use(id, addr, |other| other.phase == Phase::Listening) {
            return Err(libc::EADDRINUSE);
        }
        let id = self.id(id);
        (id.backlog, id.phase) = (usize::try_from(backlog).unwrap_or(0).max(1), Phase::Listening);
        Ok(())
    }

    pub(super) fn resolve_addr(&mut self, id: Key, from: Option<&SockAddr>, to: &SockAddr) -> Done {
        let to = to.as_socket().ok_or(libc::EAFNOSUPPORT)?;
        if self.ids[&id].phase == Phase::Idle {
            let any = SockAddr::from(SocketAddr::new(unspecified(to), 0));
            self.bind(id, from.unwrap_or(&any))?;
        }
        if self.ids[&id].phase != Phase::Bound {
            return Err(libc::EINVAL);
        }
        let device = self.ids[&id].device.or_else(|| self.way(to.ip()));
        self.id(id).peer = Some(to);
        let (Some(device), Some(_)) = (device, self.way(to.ip())) else {
            self.push(id, CmKind::AddrError, -libc::ENODEV, ConnParam::default());
            return Ok(());
        };
        if self.owner(to.ip()).is_none() {
            self.push(id, CmKind::AddrError, -libc::ETIMEDOUT, ConnParam::default());
            return Ok(());
        }
        let own = self.config(device).addrs.iter().find(|own| own.is_ipv4() == to.is_ipv4()).copied();
        let id_ref = self.id(id);
        (id_ref.device, id_ref.phase) = (Some(device), Phase::AddrResolved);
        if let (Some(local), Some(own)) = (&mut id_ref.local, own) {
            local.set_ip(own);
        }
        self.push(id, CmKind::AddrResolved, 0, ConnParam::default());
        Ok(())
    }

    pub(super) fn resolve_route(&mut self, id: Key) -> Done {
        if self.ids[&id].phase != Phase::AddrResolved {
            return Err(libc::EINVAL);
        }
        let there = self.ids[&id].peer.and_then(|peer| self.owner(peer.ip()));
        if there.is_none() {
            self.push(id, CmKind::RouteError, -libc::ETIMEDOUT, ConnParam::default());
            return Ok(());
        }
        self.id(id).phase = Phase::RouteResolved;
        self.push(id, CmKind::RouteResolved, 0, ConnParam::default());
        Ok(())
    }
}

fn unspecified(like: SocketAddr) -> IpAddr {
    if like.is_ipv4() {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    }
}
