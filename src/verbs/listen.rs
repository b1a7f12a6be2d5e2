//! Listening ids, and the requests that come to them.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::SockAddr;

use super::hub::Events;
use super::sys::{CmEvent, CmId};
use crate::error::{Error, Reason, Result};
use crate::verbs::types::ConnParam;

/// An id that listens; on all addresses of both families it takes two.
pub(crate) struct Listening {
    id: CmId,
    _v4: Option<CmId>,
}

impl Listening {
    /// Binds and listens; events carry `handle`. With port 0 the kernel chooses one.
    pub(crate) fn new(
        events: &Events,
        addr: &SockAddr,
        backlog: u32,
        v6only: bool,
        handle: usize,
    ) -> Result<Self> {
        // rdma_cm rejects who comes to one for both by IPv4 if the device is soft iWARP (Linux 6.1: siw names the peer by
        // its mapped address, and no device has one).
        let both = !v6only && addr.as_socket_ipv6().is_some_and(|addr| addr.ip().is_unspecified());
        let id = listen(events, addr, backlog, v6only || both, handle)?;
        let port = id.local().and_then(|local| local.as_socket()).map_or(0, |local| local.port());
        let any = SockAddr::from(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
        let v4 = both.then(|| listen(events, &any, backlog, false, handle)).transpose()?;
        Ok(Self { id, _v4: v4 })
    }

    /// Where it listens.
    pub(crate) fn local(&self) -> Option<SockAddr> {
        self.id.local()
    }

    /// Whether its device does iWARP: then the port is one of TCP's. `None`: it listens on all devices.
    pub(crate) fn is_iwarp(&self) -> Option<bool> {
        let device = self.id.device()?;
        device.limits(self.id.port()).ok().map(|limits| limits.iwarp)
    }
}

fn listen(events: &Events, addr: &SockAddr, backlog: u32, v6only: bool, handle: usize) -> Result<CmId> {
    let id = CmId::new(events.channel(), handle)?;
    if addr.is_ipv6() {
        id.set_v6only(v6only)?;
    }
    // As for TCP: connections that end do not keep the port from being listened on.
    id.set_reuse()?;
    id.bind(addr).map_err(explain)?;
    id.listen(i32::try_from(backlog).unwrap_or(i32::MAX)).map_err(explain)?;
    Ok(id)
}

/// A request of a peer's.
pub(crate) struct Request {
    pub(super) id: CmId,
    pub(super) param: ConnParam,
}

impl Request {
    /// The request in an event, if it is one.
    pub(crate) fn from_event(event: CmEvent) -> Option<Self> {
        let CmEvent { request, param, .. } = event;
        request.map(|id| Self { id, param })
    }

    /// Who asks.
    pub(crate) fn peer(&self) -> Option<SockAddr> {
        self.id.peer()
    }

    /// Where it was asked.
    pub(crate) fn local(&self) -> Option<SockAddr> {
        self.id.local()
    }
}

/// rdma_cm names its errors as TCP does, but for the reason.
fn explain(error: Error) -> Error {
    if error.errno == libc::ENODEV || error.errno == libc::EADDRNOTAVAIL {
        let text = format!("no RDMA device of this machine serves the address: {}", error.text);
        return Error { reason: Reason::NoProvider, text: text.into(), ..error };
    }
    error
}
