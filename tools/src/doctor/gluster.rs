//! GlusterFS, where it is installed: its daemon's volume file and its transports.

use super::{Doctor, Status};

const VOLFILE: &str = "/etc/glusterfs/glusterd.vol";
/// Where clients ask glusterd over RDMA; RDMA_PORT of the transport.
const CLIENTS_PORT: &str = "24008";
const LIBRARIES: [&str; 6] = [
    "/usr/lib64",
    "/usr/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/local/lib",
    "/usr/local/lib64",
];

impl Doctor {
    pub(super) fn gluster(&mut self) {
        let transports = self.transports();
        let volfile = self.host.read(VOLFILE);
        if transports.is_empty() && volfile.is_none() {
            return;
        }
        for folder in &transports {
            if self.host.has(&format!("{folder}/rdma.so")) {
                self.find("gluster", Status::Ok, format!("{folder}/rdma.so"));
            } else {
                let text = format!("{folder} has no rdma.so: GlusterFS from release 8 on comes without");
                let fix =
                    "install the package glusterfs-rdma, or `make install-gluster` of librdmacm-gluster";
                self.fix("gluster", Status::Warn, text, fix);
            }
        }
        if let Some(volfile) = volfile {
            self.volfile(&volfile);
        }
    }

    /// The folders of GlusterFS's transports, one for each version that is installed.
    fn transports(&self) -> Vec<String> {
        let versions = LIBRARIES.iter().flat_map(|library| {
            let folder = format!("{library}/glusterfs");
            self.host
                .list(&folder)
                .into_iter()
                .map(move |version| format!("{folder}/{version}/rpc-transport"))
        });
        versions.filter(|folder| self.host.has(&format!("{folder}/socket.so"))).collect()
    }

    fn volfile(&mut self, text: &str) {
        // Of an option that stands there twice GlusterFS takes the last.
        let option = |name: &str| {
            let mut values = text.lines().filter_map(|line| {
                let mut words = line.split_whitespace();
                (words.next() == Some("option") && words.next() == Some(name))
                    .then(|| words.collect::<String>())
            });
            values.next_back()
        };
        let types = option("transport-type").unwrap_or_default();
        let fault = if types.split(',').any(|name| name == "rdma") {
            match option("transport.rdma.listen-port") {
                Some(port) if port == CLIENTS_PORT => None,
                Some(port) => Some(format!(
                    "glusterd listens for RDMA at port {port}, clients connect to {CLIENTS_PORT}"
                )),
                None if option("listen-port").is_some() => Some(format!(
                    "option listen-port is for TCP and RDMA alike, clients connect to 24007 and {CLIENTS_PORT}"
                )),
                None => Some(format!(
                    "no option transport.rdma.listen-port: glusterd listens for RDMA at any free port, clients \
                     connect to {CLIENTS_PORT}"
                )),
            }
        } else {
            Some(format!("glusterd does not listen for RDMA (transport-type {types})"))
        };
        match fault {
            None => {
                let text = format!("{VOLFILE}: transport-type {types}, RDMA at port {CLIENTS_PORT}");
                self.find("gluster", Status::Ok, text);
            }
            Some(fault) => self.fix("gluster", Status::Warn, format!("{VOLFILE}: {fault}"), fix()),
        }
    }
}

/// Both options, for glusterd sets neither itself. The new limits of locked memory want the reload.
fn fix() -> String {
    format!(
        "`option transport-type socket,rdma` and `option transport.rdma.listen-port {CLIENTS_PORT}` in {VOLFILE}; \
         systemctl daemon-reload && systemctl restart glusterd"
    )
}

#[cfg(test)]
mod test {
    use super::super::fake::Machine;
    use super::*;

    const SOCKET: &str = "/usr/lib/x86_64-linux-gnu/glusterfs/10.3/rpc-transport/socket.so";
    const RDMA: &str = "/usr/lib/x86_64-linux-gnu/glusterfs/10.3/rpc-transport/rdma.so";

    #[test]
    fn without_glusterfs_nothing_is_said() {
        assert!(Machine::new(&[]).findings("gluster", Doctor::gluster).is_empty());
    }

    #[test]
    fn stock_glusterfs_lacks_both() {
        let volfile = "volume management\n    option transport-type socket\nend-volume\n";
        let machine = Machine::new(&[(SOCKET, ""), (VOLFILE, volfile)]);
        let found = machine.findings("gluster", Doctor::gluster);
        assert!(found.iter().all(|finding| finding.status == Status::Warn && finding.fix.is_some()));
        assert_eq!(found.len(), 2);
        assert!(found[0].fix.as_deref().is_some_and(|fix| fix.contains("the package glusterfs-rdma")));
    }

    /// What is found in a volume file with these options, of a machine that has the transport.
    fn judged(options: &[&str]) -> (Status, String, Option<String>) {
        let options: String = options.iter().map(|option| format!("    option {option}\n")).collect();
        let volfile = format!("volume management\n    type mgmt/glusterd\n{options}end-volume\n");
        let machine = Machine::new(&[(SOCKET, ""), (RDMA, ""), (VOLFILE, &volfile)]);
        let mut found = machine.findings("gluster", Doctor::gluster);
        assert_eq!((found.len(), found[0].status), (2, Status::Ok));
        let last = found.pop().unwrap();
        (last.status, last.text, last.fix)
    }

    #[test]
    fn with_the_transport_and_its_port_all_is_well() {
        let (status, text, fix) = judged(&["transport-type socket,rdma", "transport.rdma.listen-port 24008"]);
        assert_eq!((status, fix), (Status::Ok, None));
        assert_eq!(text, format!("{VOLFILE}: transport-type socket,rdma, RDMA at port 24008"));
    }

    #[test]
    fn glusterd_has_to_be_where_clients_look_for_it() {
        let cases: [(&[&str], &str); 4] = [
            (&[], "no option transport.rdma.listen-port"),
            (&["transport.rdma.listen-port 24009"], "port 24009"),
            (&["listen-port 24008"], "for TCP and RDMA alike"),
            (&["transport.rdma.listen-port 24008", "transport.rdma.listen-port 24007"], "port 24007"),
        ];
        for (ports, words) in cases {
            let (status, text, fix) = judged(&[&["transport-type socket,rdma"], ports].concat());
            assert!(status == Status::Warn && text.contains(words), "{text}");
            let fix = fix.unwrap();
            for part in
                ["transport-type socket,rdma`", "transport.rdma.listen-port 24008`", "restart glusterd"]
            {
                assert!(fix.contains(part), "{fix}");
            }
        }
    }

    #[test]
    fn what_is_advised_satisfies() {
        let advice = fix();
        let options: Vec<_> = advice.split('`').filter_map(|part| part.strip_prefix("option ")).collect();
        assert_eq!((options.len(), judged(&options).0), (2, Status::Ok));
    }
}
