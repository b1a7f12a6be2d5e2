//! TCP, which the iwarp provider runs over, and ports.

use super::{Doctor, Status};
use crate::host::Kind;

/// Room that a socket of soft iWARP should begin with.
const SIW_SOCKET: u64 = 4 << 20;

impl Doctor {
    pub(super) fn network(&mut self, ports: &[u16]) {
        self.congestion();
        self.siw_sockets();
        let listening = self.host.listening();
        for port in ports {
            let text = if listening.has(*port) { "somebody listens" } else { "free" };
            let whose = match port {
                24007 => " (glusterd)",
                24008 => " (glusterd, RDMA)",
                2049 => " (NFS)",
                20049 => " (NFS over RDMA)",
                _ => "",
            };
            self.find("ports", Status::Note, format!("TCP {port}{whose}: {text}"));
        }
        let kernel = self.host.read("/proc/fs/nfsd/portlist").unwrap_or_default();
        if let Some(line) = kernel.lines().find(|line| line.starts_with("rdma")) {
            self.find("ports", Status::Note, format!("the kernel's NFS server has {line}"));
        }
    }

    /// A program that posts to soft iWARP sends on its own thread. Where that finds the socket full, siw's thread goes on as soon
    /// as there is room, maybe while the program's is still at it, and both send the same request (`siw_qp_sq_process`,
    /// Linux 6.1). A socket begins with the middle one of these figures.
    fn siw_sockets(&mut self) {
        let soft = self.host.read("/sys/module/siw/initstate").is_some();
        if !soft || !self.host.devices().iter().any(|device| device.kind == Kind::IWarp) {
            return;
        }
        let figures = self.host.read("/proc/sys/net/ipv4/tcp_wmem").unwrap_or_default();
        let Some(begin) = figures.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok()) else {
            return;
        };
        if begin < SIW_SOCKET {
            let text = format!(
                "soft iWARP may garble what is posted while a socket is full (a race in siw), and its sockets \
                 begin with {begin} octets"
            );
            let fix = "sysctl net.ipv4.tcp_wmem=\"4096 8388608 16777216\", and in /etc/sysctl.d";
            self.fix("sockets", Status::Warn, text, fix);
        } else {
            self.find("sockets", Status::Ok, format!("those of soft iWARP begin with {begin} octets"));
        }
    }

    fn congestion(&mut self) {
        let of = |name: &str| self.host.read(&format!("/proc/sys/net/ipv4/{name}"));
        let Some(current) = of("tcp_congestion_control") else { return };
        let available = of("tcp_available_congestion_control").unwrap_or_default();
        if current == "bbr" {
            let other = ["cubic", "reno", "dctcp"].into_iter().find(|name| available.contains(name));
            let fix = format!(
                "sysctl net.ipv4.tcp_congestion_control={}; or the attribute `congestion` of a connection",
                other.unwrap_or("cubic")
            );
            let text =
                "bbr paces what the iwarp provider sends, which makes it slower on loopback and in a LAN";
            self.fix("congestion", Status::Warn, text, fix);
        } else {
            self.find("congestion", Status::Ok, format!("{current} (there are {available})"));
        }
    }
}

#[cfg(test)]
mod test {
    use super::super::fake::Machine;
    use super::*;

    #[test]
    fn bbr_is_warned_of() {
        let folder = "/proc/sys/net/ipv4";
        let files = |current| {
            [
                (format!("{folder}/tcp_congestion_control"), current),
                (format!("{folder}/tcp_available_congestion_control"), "reno bbr\n"),
            ]
        };
        let found = |current| {
            let files = files(current);
            let machine = Machine::new(&files.each_ref().map(|(path, text)| (path.as_str(), *text)));
            machine.findings("congestion", Doctor::congestion)
        };
        let bbr = found("bbr\n");
        assert_eq!(bbr[0].status, Status::Warn);
        assert!(bbr[0].fix.as_deref().unwrap().contains("tcp_congestion_control=reno"));
        assert_eq!(found("reno\n")[0].status, Status::Ok);
    }

    #[test]
    fn small_sockets_of_soft_iwarp_are_warned_of() {
        let found = |wmem, node_type| {
            let machine = Machine::new(&[
                ("/sys/module/siw/initstate", "live\n"),
                ("/sys/class/infiniband/siw0/node_type", node_type),
                ("/proc/sys/net/ipv4/tcp_wmem", wmem),
            ]);
            machine.findings("sockets", Doctor::siw_sockets)
        };
        let small = found("4096\t16384\t4194304\n", "4: RNIC\n");
        assert_eq!(small[0].status, Status::Warn);
        assert!(small[0].fix.as_deref().unwrap().contains("tcp_wmem"));
        assert_eq!(found("4096\t8388608\t16777216\n", "4: RNIC\n")[0].status, Status::Ok);
        assert!(found("4096\t16384\t4194304\n", "1: CA\n").is_empty());
    }

    #[test]
    fn ports_that_somebody_has() {
        let table = "  sl  local_address rem_address   st\n   0: 00000000:5DC7 00000000:0000 0A 0\n   \
                     1: 0100007F:4E51 0100007F:1234 01 0\n";
        let machine =
            Machine::new(&[("/proc/net/tcp", table), ("/proc/fs/nfsd/portlist", "tcp 2049\nrdma 20049\n")]);
        let found = machine.findings("ports", |doctor| doctor.network(&[24007, 7]));
        let texts: Vec<_> = found.iter().map(|finding| &*finding.text).collect();
        // The second line is a connection, not a listener.
        let nfs = "the kernel's NFS server has rdma 20049";
        assert_eq!(texts, ["TCP 24007 (glusterd): somebody listens", "TCP 7: free", nfs]);
    }
}
