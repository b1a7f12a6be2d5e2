//! A connection of this machine to itself: the shortest answer to whether a provider works on an address.

use std::time::{Duration, Instant};

use rdmacm_gluster::engine::{AcceptConfig, ConnectConfig, ListenConfig, QpConfig, Target, kind, resolve};

use crate::side::{Provider, Side, Stages, Way, conn_of, text_of, told};

const PATIENCE: Duration = Duration::from_secs(10);

/// What a connection to an address of this machine came to.
pub(crate) struct Loop {
    pub(crate) way: Way,
    pub(crate) stages: Stages,
}

/// Listens on a local address, connects to it, and says by which way that went.
pub(crate) fn try_address(address: &str, provider: Provider) -> Result<Loop, String> {
    let mut side = Side::new()?;
    let at = resolve::numeric(address, "0").and_then(|found| found.into_iter().next());
    let at = at.ok_or_else(|| format!("{address} is no address"))?;
    let qp = QpConfig { provider: provider.number(), ..QpConfig::default() };
    let config = ListenConfig { qp: qp.clone(), ..ListenConfig::default() };
    let listener = side.channel.listen(&at, config).map_err(told)?;
    let target = Target::Addresses(vec![listener.info().local]);
    let config = ConnectConfig { qp, timeout_ms: PATIENCE.as_millis() as u32, ..ConnectConfig::default() };
    let client = side.channel.connect(target, config).map_err(told)?;
    let end = Instant::now() + PATIENCE * 2;
    loop {
        let event = side.next_until(end)?.ok_or("nothing has come of the connect")?;
        match event.kind {
            kind::CONNECT_REQUEST => {
                let conn = conn_of(&event).ok_or("the request has gone")?;
                conn.accept(AcceptConfig::default()).map_err(told)?;
            }
            kind::ESTABLISHED if event.conn == client.handle() => {
                let info = client.info();
                return Ok(Loop { way: Way::from(&info), stages: Stages::from(&info.stages) });
            }
            kind::ESTABLISHED => {}
            _ => return Err(text_of(&event)),
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn iwarp_works_everywhere() {
        let found = try_address("127.0.0.1", Provider::Iwarp).unwrap();
        assert_eq!((found.way.provider, &*found.way.device), ("iwarp", "tcp"));
        assert!(found.stages.handshake_us > 0);
    }

    #[test]
    fn an_address_of_another_machine_is_an_error() {
        let text = try_address("192.0.2.1", Provider::Iwarp).err().unwrap();
        assert!(text.contains("not one of this host's"), "{text}");
    }
}
