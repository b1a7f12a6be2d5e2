//! RDMA devices, from /sys/class/infiniband.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Host;

const DEVICES: &str = "/sys/class/infiniband";

/// What a device speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    InfiniBand,
    RoCE,
    #[serde(rename = "iwarp")]
    IWarp,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InfiniBand => "InfiniBand",
            Self::RoCE => "RoCE",
            Self::IWarp => "iWARP",
        }
    }
}

/// One device and its first port.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// As the kernel says it: ACTIVE, DOWN
    pub(crate) state: String,
    pub(crate) rate: String,
    pub(crate) firmware: Option<String>,
    /// GID 0, which of an iWARP device begins with the MAC address that its link had when the device was added.
    pub(crate) gid: String,
    /// The network interface below or above it, where one is known.
    pub(crate) interface: Option<String>,
    /// Its node in /dev/infiniband.
    pub(crate) node: Option<String>,
}

/// A line of `rdma -j link`.
#[derive(Deserialize)]
struct Link {
    ifname: String,
    netdev: Option<String>,
}

impl Device {
    fn read(
        host: &Host,
        name: &str,
        links: &BTreeMap<String, String>,
        nodes: &BTreeMap<String, String>,
    ) -> Self {
        let of = |file: &str| host.read(&format!("{DEVICES}/{name}/{file}"));
        let word = |text: String| text.rsplit(": ").next().unwrap_or_default().to_owned();
        let kind = match (of("node_type"), of("ports/1/link_layer")) {
            (Some(node), _) if node.starts_with('4') => Kind::IWarp,
            (_, Some(layer)) if layer == "Ethernet" => Kind::RoCE,
            _ => Kind::InfiniBand,
        };
        let below = || host.list(&format!("{DEVICES}/{name}/device/net")).into_iter().next();
        let interface = links.get(name).cloned().or_else(|| of("ports/1/gid_attrs/ndevs/0")).or_else(below);
        Self {
            name: name.into(),
            kind,
            state: of("ports/1/state").map_or_else(|| "unknown".into(), word),
            rate: of("ports/1/rate").unwrap_or_default(),
            firmware: of("fw_ver").filter(|text| !text.is_empty()),
            gid: of("ports/1/gids/0").unwrap_or_default(),
            interface,
            node: nodes.get(name).cloned(),
        }
    }

    /// Whether its port carries traffic.
    pub(crate) fn is_active(&self) -> bool {
        self.state == "ACTIVE"
    }

    /// The MAC address in its GID 0, where there is one: that of its link when an iWARP device was added.
    pub(crate) fn mac_in_gid(&self) -> Option<String> {
        let digits: String = self.gid.chars().filter(char::is_ascii_hexdigit).collect();
        let octets: Vec<_> = (0..6).filter_map(|at| digits.get(at * 2..at * 2 + 2)).collect();
        (self.kind == Kind::IWarp && octets.len() == 6).then(|| octets.join(":"))
    }
}

impl Host {
    /// The RDMA devices, by name.
    pub(crate) fn devices(&self) -> Vec<Device> {
        // sysfs does not tell the interface of a soft iWARP device; the kernel's netlink does.
        let links = self.ask("rdma", &["-j", "link", "show"]).unwrap_or_default();
        let links: Vec<Link> = serde_json::from_str(&links).unwrap_or_default();
        let links =
            links.into_iter().filter_map(|link| link.netdev.map(|netdev| (link.ifname, netdev))).collect();
        let nodes = "/sys/class/infiniband_verbs";
        let device_of =
            |node: String| self.read(&format!("{nodes}/{node}/ibdev")).map(|device| (device, node));
        let nodes = self.list(nodes).into_iter().filter_map(device_of).collect();
        self.list(DEVICES).iter().map(|name| Device::read(self, name, &links, &nodes)).collect()
    }
}
