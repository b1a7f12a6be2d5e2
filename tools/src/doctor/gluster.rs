//! GlusterFS, where it is installed: its daemon's volume file and its transports.

use super::{Doctor, Status};

const VOLFILE: &str = "/etc/glusterfs/glusterd.vol";
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
        let option = |name: &str| {
            text.lines().find_map(|line| {
                let mut words = line.split_whitespace();
                (words.next() == Some("option") && words.next() == Some(name))
                    .then(|| words.collect::<String>())
            })
        };
        let types = option("transport-type").unwrap_or_default();
        if types.split(',').any(|name| name == "rdma") {
            self.find("gluster", Status::Ok, format!("{VOLFILE}: transport-type {types}"));
        } else {
            let text = format!("{VOLFILE}: glusterd does not listen for RDMA (transport-type {types})");
            let fix = format!("`option transport-type socket,rdma` in {VOLFILE}; systemctl restart glusterd");
            self.fix("gluster", Status::Warn, text, fix);
        }
    }
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

    #[test]
    fn with_the_transport_all_is_well() {
        let volfile = "volume management\n    option transport-type socket, rdma\nend-volume\n";
        let machine = Machine::new(&[(SOCKET, ""), (RDMA, ""), (VOLFILE, volfile)]);
        let found = machine.findings("gluster", Doctor::gluster);
        assert!(found.iter().all(|finding| finding.status == Status::Ok));
        assert_eq!(found.len(), 2);
    }
}
