//! Network interfaces, their addresses, and who listens.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use serde::Serialize;

use super::Host;

/// A network interface.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) mac: String,
    pub(crate) up: bool,
    pub(crate) mtu: u32,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Interface {
    /// Its addresses as one connects to them: a link-local one needs its scope.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.addresses.iter().map(|address| match address {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => format!("{v6}%{}", self.name),
            other => other.to_string(),
        })
    }
}

/// TCP ports that somebody listens on.
pub(crate) struct Ports(Vec<u16>);

impl Ports {
    pub(crate) fn has(&self, port: u16) -> bool {
        self.0.contains(&port)
    }
}

/// The addresses of each interface; the loopback's as well.
fn addresses() -> BTreeMap<String, Vec<IpAddr>> {
    let mut found: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for entry in getifaddrs().into_iter().flatten() {
        let Some(address) = entry.address else { continue };
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let ip = v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())));
        found.entry(entry.interface_name).or_default().extend(ip);
    }
    found
}

impl Host {
    /// The network interfaces. The addresses are always those of this machine.
    pub(crate) fn interfaces(&self) -> Vec<Interface> {
        let mut addresses = addresses();
        let read = |name: &String| {
            let of = |file: &str| self.read(&format!("/sys/class/net/{name}/{file}")).unwrap_or_default();
            // IFF_UP: what `ip link` shows as UP, whatever the carrier says.
            let flags = u32::from_str_radix(of("flags").trim_start_matches("0x"), 16).unwrap_or(0);
            Interface {
                name: name.clone(),
                mac: of("address"),
                up: flags & 1 != 0,
                mtu: of("mtu").parse().unwrap_or(0),
                addresses: addresses.remove(name).unwrap_or_default(),
            }
        };
        self.list("/sys/class/net").iter().map(read).collect()
    }

    /// The TCP ports that somebody listens on.
    pub(crate) fn listening(&self) -> Ports {
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().filter_map(|table| self.read(table));
        let port = |line: &str| {
            let mut words = line.split_whitespace().skip(1);
            let (local, _, state) = (words.next()?, words.next()?, words.next()?);
            let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
            // TCP_LISTEN of the kernel's net/tcp_states.h.
            (state == "0A").then_some(port)
        };
        Ports(tables.flat_map(|table| table.lines().filter_map(port).collect::<Vec<_>>()).collect())
    }
}
