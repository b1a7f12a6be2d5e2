//! Devices, modules, nodes, libraries, and connections of the machine to itself.

use std::fs::OpenOptions;

use rdmacm_gluster::engine::{Engine, EngineConfig, ForkState};

use super::{Doctor, Status};
use crate::host::{Device, Interface, Kind};
use crate::loopback;
use crate::side::{Provider, told};

/// What programs need of the kernel, and the library's own words for it.
const MODULES: [(&str, &str); 3] = [
    ("rdma_cm", "connections"),
    ("rdma_ucm", "connections of programs (/dev/infiniband/rdma_cm)"),
    ("ib_uverbs", "verbs of programs (/dev/infiniband/uverbs*)"),
];
const LIBRARIES: [&str; 2] = ["librdmacm", "libibverbs"];

impl Doctor {
    pub(super) fn rdma(&mut self) -> Result<(), String> {
        let engine = Engine::create(EngineConfig::default()).map_err(told)?;
        match engine.provider_status(Provider::Verbs.number()) {
            Ok(()) => {
                self.find("verbs", Status::Ok, "RDMA devices can be used");
                self.fork(engine.fork_state());
            }
            Err(error) => {
                let text = format!("RDMA devices can't be used: {}", error.text);
                self.fix("verbs", self.without_devices, text, error.remedy.into_owned());
            }
        }
        let _ = engine.destroy();
        self.libraries();
        let devices = self.host.devices();
        if devices.is_empty() {
            return Ok(());
        }
        self.modules();
        self.nodes(&devices);
        let interfaces = self.host.interfaces();
        devices.iter().for_each(|device| self.device(device, &interfaces));
        Ok(())
    }

    fn fork(&mut self, state: ForkState) {
        match state {
            ForkState::Unneeded => {
                self.find("fork", Status::Ok, "the kernel copies registered memory at fork(2)")
            }
            ForkState::Enabled => {
                self.find("fork", Status::Ok, "registered memory is kept from children of fork(2)")
            }
            ForkState::Disabled => self.fix(
                "fork",
                Status::Warn,
                "a fork(2) may part a program from its registered memory",
                "Linux 5.13 or later, which copies it; before, RDMAV_FORK_SAFE=1 in the environment of the daemon",
            ),
        }
    }

    /// Those that this program was linked with, which are the ones that the library uses.
    fn libraries(&mut self) {
        let maps = self.host.read("/proc/self/maps").unwrap_or_default();
        for library in LIBRARIES {
            let path = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
            match path.into_iter().find(|path| path.contains(&format!("/{library}.so"))) {
                Some(path) => self.find("libraries", Status::Ok, path),
                None => self.find(
                    "libraries",
                    Status::Note,
                    format!("{library} is not loaded as a shared library"),
                ),
            }
        }
    }

    fn modules(&mut self) {
        for (module, what) in MODULES {
            if self.host.has(&format!("/sys/module/{module}")) {
                self.find("modules", Status::Ok, module);
            } else {
                let fix = format!("modprobe {module}; echo {module} >/etc/modules-load.d/{module}.conf");
                self.fix("modules", self.without_devices, format!("{module} is not loaded: {what}"), fix);
            }
        }
    }

    fn nodes(&mut self, devices: &[Device]) {
        let nodes = devices.iter().filter_map(|device| device.node.as_deref());
        for node in nodes.chain(["rdma_cm"]) {
            let path = format!("/dev/infiniband/{node}");
            match OpenOptions::new().read(true).write(true).open(self.host.path(&path)) {
                Ok(_) => self.find("nodes", Status::Ok, path),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    let module = if node == "rdma_cm" { "rdma_ucm" } else { "ib_uverbs" };
                    self.fix("nodes", self.without_devices, format!("{path} is missing"), format!("modprobe {module}"));
                }
                Err(error) => self.fix(
                    "nodes",
                    self.without_devices,
                    format!("{path}: {error}"),
                    "add the user to the group that owns it (`rdma`); in a unit: DeviceAllow=char-infiniband*, \
                     PrivateDevices=no",
                ),
            }
        }
    }

    fn device(&mut self, device: &Device, interfaces: &[Interface]) {
        let name = &device.name;
        if !device.is_active() {
            let fix = match &device.interface {
                Some(interface) => format!("ip link set {interface} up, and see the cable"),
                None => "see the cable and, on InfiniBand, the subnet manager".into(),
            };
            self.fix("device", self.without_devices, format!("{name}: port 1 is {}", device.state), fix);
        }
        let Some(interface) =
            interfaces.iter().find(|interface| Some(&interface.name) == device.interface.as_ref())
        else {
            let fix = match device.kind {
                Kind::InfiniBand => {
                    "modprobe ib_ipoib, and give its interface an address: rdma_cm finds devices by IP"
                }
                _ => "install iproute2 (`rdma link` names the interface)",
            };
            return self.fix("device", Status::Warn, format!("{name}: no network interface is known"), fix);
        };
        self.gid(device, interface);
        let kind = device.kind.name();
        if interface.addresses.is_empty() {
            let text =
                format!("{name} ({kind}): {} has no IP address, by which rdma_cm finds it", interface.name);
            self.fix(
                "device",
                self.without_devices,
                text,
                format!("ip addr add ADDRESS/LENGTH dev {}", interface.name),
            );
        } else {
            let addresses: Vec<_> = interface.names().collect();
            let text = format!("{name} ({kind}) on {}: {}", interface.name, addresses.join(", "));
            self.find("device", Status::Ok, text);
        }
    }

    /// A soft iWARP device keeps the MAC address that its link had when it was added, and rdma_cm looks for it by the one
    /// that the link has now.
    fn gid(&mut self, device: &Device, interface: &Interface) {
        let Some(mac) = device.mac_in_gid().filter(|mac| !mac.eq_ignore_ascii_case(&interface.mac)) else {
            return;
        };
        let (name, link) = (&device.name, &interface.name);
        let text = format!(
            "{name} was added when the MAC address of {link} was {mac}; now it is {}, and rdma_bind_addr says ENODEV",
            interface.mac
        );
        let fix = format!("rdma link delete {name}; rdma link add {name} type siw netdev {link}");
        self.fix("device", Status::Fail, text, fix);
    }

    /// Connects this machine to itself, which no file can stand for.
    pub(super) fn connections(&mut self, provider: Provider) {
        let interfaces = self.host.interfaces();
        if provider != Provider::Verbs {
            self.connection("127.0.0.1", Provider::Iwarp, Status::Fail);
        }
        let devices = self.host.devices();
        for device in devices.iter().filter(|_| provider != Provider::Iwarp) {
            let own = interfaces.iter().find(|interface| Some(&interface.name) == device.interface.as_ref());
            for address in own.into_iter().flat_map(Interface::names) {
                self.connection(&address, Provider::Verbs, self.without_devices);
            }
        }
    }

    fn connection(&mut self, address: &str, provider: Provider, otherwise: Status) {
        match loopback::try_address(address, provider) {
            Ok(found) => {
                let name = crate::side::provider_name(provider.number());
                if !self.works_by.contains(&name) {
                    self.works_by.push(name);
                }
                self.find("connection", Status::Ok, found.way.text());
            }
            Err(reason) => self.find("connection", otherwise, format!("{address}: {reason}")),
        }
    }
}

#[cfg(test)]
mod test {
    use super::super::fake::Machine;
    use super::*;

    fn device(gid: &str) -> Machine {
        let folder = "/sys/class/infiniband/siw0";
        let file = |name: &str| format!("{folder}/{name}");
        Machine::new(&[
            (&file("node_type"), "4: RNIC\n"),
            (&file("ports/1/state"), "4: ACTIVE\n"),
            (&file("ports/1/gids/0"), gid),
            (&file("device/net/nic7/mtu"), "1500\n"),
            ("/sys/class/net/nic7/address", "02:09:00:00:00:01\n"),
            ("/sys/class/net/nic7/flags", "0x1003\n"),
        ])
    }

    fn look(doctor: &mut Doctor) {
        let interfaces = doctor.host.interfaces();
        let devices = doctor.host.devices();
        assert_eq!(devices.len(), 1);
        doctor.device(&devices[0], &interfaces);
    }

    #[test]
    fn a_link_that_has_got_another_mac_address() {
        let found = device("0209:0000:0002:0000:0000:0000:0000:0000\n").findings("device", look);
        assert_eq!(found[0].status, Status::Fail);
        assert!(
            found[0].text.contains("02:09:00:00:00:02; now it is 02:09:00:00:00:01"),
            "{}",
            found[0].text
        );
        let fix = found[0].fix.as_deref();
        assert_eq!(fix, Some("rdma link delete siw0; rdma link add siw0 type siw netdev nic7"));
    }

    #[test]
    fn the_same_mac_address_and_no_ip_address() {
        let found = device("0209:0000:0001:0000:0000:0000:0000:0000\n").findings("device", look);
        assert_eq!(found.len(), 1);
        assert!(found[0].text.contains("nic7 has no IP address"), "{}", found[0].text);
    }

    #[test]
    fn modules_and_nodes_that_are_missing() {
        let machine = device("");
        let found = machine.findings("modules", Doctor::modules);
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|finding| finding.status == Status::Fail));
        assert!(found[1].fix.as_deref().unwrap().starts_with("modprobe rdma_ucm;"));
        let found = machine.findings("nodes", |doctor| doctor.nodes(&[]));
        assert_eq!(found[0].fix.as_deref(), Some("modprobe rdma_ucm"));
    }
}
