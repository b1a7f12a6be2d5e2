//! A queue pair for a peer that breaks the protocol, and what has to become of it.

use std::sync::Arc;

use super::super::{Capabilities, Parameters, QueuePair, Stop};
use super::support::*;
use crate::memory::{Access, KeyTable, Owner};
use crate::work::{Opcode, Payload};

pub(super) const CANARY: u8 = 0xa5;
pub(super) const WINDOW: usize = 256;
pub(super) const SEND: u16 = 0x4143;
pub(super) const WRITE: u16 = 0xc140;
pub(super) const RESPONSE: u16 = 0xc142;

/// One stream with a hostile peer, and one beside it in the same domain.
pub(super) struct Victim {
    pub(super) qp: QueuePair,
    pub(super) bystander: QueuePair,
    pub(super) window: Memory,
    pub(super) sink: Memory,
    pub(super) keys: Arc<KeyTable>,
    pub(super) stream_key: u32,
    pub(super) domain_key: u32,
    pub(super) foreign_key: u32,
    pub(super) crc: bool,
    pub(super) chunk: usize,
}

/// What a Terminate quotes.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Quote {
    Nothing,
    Header,
    ReadRequest,
}
pub(super) use Quote::{Header, Nothing, ReadRequest};

impl Victim {
    pub(super) fn new(crc: bool, chunk: usize, caps: Capabilities, params: Parameters) -> Self {
        let keys = KeyTable::new();
        let window = Memory::filled(&keys, WINDOW, CANARY, 6);
        let key = |owner| window.region.key(owner, 64, 64, Access::from_bits(6).unwrap()).unwrap();
        let mut victim = Self {
            qp: active(1, &keys, caps.clone(), params),
            bystander: active(2, &keys, caps, params),
            stream_key: key(Owner::Stream(1)),
            domain_key: key(Owner::Domain),
            foreign_key: key(Owner::Stream(2)),
            sink: Memory::filled(&keys, WINDOW, CANARY, 1),
            window,
            keys,
            crc,
            chunk,
        };
        let sges = victim.sink.sges(&[(16, 32)]).unwrap();
        post_recv(&mut victim.qp, sges, 77);
        victim
    }

    /// First address the keys lead to; they lead to 64 octets.
    pub(super) fn base(&self) -> u64 {
        self.window.address(64)
    }

    /// The whole table of keys must be untouched by what is refused, the stream's own excepted.
    pub(super) fn refuses(mut self, bad: &[u8], word: u16, quote: Quote) {
        let stop = feed(&mut self.qp, &fpdu(bad, self.crc), self.chunk);
        assert_eq!(stop, Stop::Fault, "{word:04x}");
        self.ends(bad, word, quote);
    }

    pub(super) fn ends(mut self, bad: &[u8], word: u16, quote: Quote) {
        let mut terminate = word.to_be_bytes().to_vec();
        let header = if bad.first().is_some_and(|octet| octet & 0x80 != 0) { 14 } else { 18 };
        match quote {
            Nothing => terminate.extend([0, 0]),
            Header => terminate.extend([0xc0, 0]),
            ReadRequest => terminate.extend([0xe0, 0]),
        }
        if quote != Nothing {
            terminate.extend((bad.len() as u16).to_be_bytes());
            terminate.extend(&bad[..if quote == ReadRequest { 46 } else { header }]);
        }
        let expected = fpdu(&untagged(0x4147, 0, [2, 1, 0], &terminate), self.crc);
        assert_eq!(drain(&mut self.qp), expected, "{word:04x}");
        assert_eq!(i32::from(word), self.qp.fault().unwrap().error.provider_code);
        assert!(!self.qp.has_output() && !self.qp.fill());
        assert_eq!(self.qp.input(&[0; 64]).consumed, 0, "deaf from now on");
        assert!(self.window.all().iter().all(|octet| *octet == CANARY), "{word:04x} has placed something");
        assert!(!self.keys.is_live(self.stream_key));
        let too_long = word == 0x1205 && bad[1] & 0x0f == 3;
        let errno = if too_long { libc::EMSGSIZE } else { libc::ECANCELED };
        let flushed = completions(&mut self.qp);
        let receives: Vec<_> = flushed.iter().filter(|one| one.opcode == Opcode::Recv).collect();
        assert!(
            receives.len() == 1 && receives[0].status == -errno && receives[0].user == 77,
            "{receives:?}"
        );
        self.bystander_lives();
        drop(self.qp);
        self.window.close();
        self.sink.close();
    }

    pub(super) fn bystander_lives(&mut self) {
        for key in [self.foreign_key, self.domain_key] {
            let write = tagged(WRITE, key, self.window.address(64), &[1, 2, 3]);
            assert_eq!(feed(&mut self.bystander, &fpdu(&write, self.crc), 5), Stop::More);
            assert_eq!(self.window.get(63, 5), [CANARY, 1, 2, 3, CANARY]);
            self.window.overwrite(CANARY);
        }
    }

    /// What comes before, and is in order.
    pub(super) fn takes(&mut self, good: &[u8]) {
        let stop = feed(&mut self.qp, &fpdu(good, self.crc), self.chunk);
        assert_eq!(stop, Stop::More, "{:?}", self.qp.fault());
    }

    pub(super) fn posts_read(&mut self, len: usize) -> Vec<u8> {
        let sges = self.sink.sges(&[(100, len)]).unwrap();
        post(&mut self.qp, wr(Opcode::Read, Payload::Sges(sges)));
        ulpdus(&drain(&mut self.qp), self.crc).remove(0)
    }
}

/// Runs a test with and without CRC, octet by octet and all at once.
pub(super) fn each(test: impl Fn(Victim)) {
    for crc in [false, true] {
        for chunk in [1, 7, usize::MAX] {
            test(Victim::new(crc, chunk, caps(4), params(crc)));
        }
    }
}
