//! What `rcg serve` and its clients say to each other.
//!
//! A client asks, in its private data, how its messages are to be treated; the server offers, in its own, memory for Writes
//! and Reads. A message shorter than asked for is answered at once, whatever the rest: by it a client begins and ends.

use crate::xdr;

/// Where `rcg serve` listens; raw TCP, for comparison, is one port higher.
pub(crate) const PORT: u16 = 18520;
/// "rcgt", and the version of what is said here.
const MAGIC: u32 = 0x7263_6774;
const VERSION: u32 = 1;
/// Octets of a [`Tally`].
pub(crate) const TALLY: usize = 16;
/// Most messages that may be on their way.
pub(crate) const MAX_WINDOW: u32 = 256;

/// How a client wants to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wants {
    /// Octets of a message; a shorter one is answered at once.
    pub(crate) message: u32,
    /// Messages that may be on their way.
    pub(crate) window: u32,
    /// Octets of an answer.
    pub(crate) answer: u32,
    /// One answer to so many messages.
    pub(crate) every: u32,
    /// Octets of memory for Writes and Reads.
    pub(crate) memory: u32,
    /// Answers begin with the octets of the message; else with a tally, where it fits.
    pub(crate) echo: bool,
}

/// Why a request is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// Not from this program.
    Stranger,
    /// From another version of it.
    Version,
    /// Numbers that make no sense.
    Senseless,
}

impl Wants {
    /// In octets.
    pub(crate) fn emit(&self) -> Vec<u8> {
        let echo = u32::from(self.echo);
        xdr::octets(&[MAGIC, VERSION, self.message, self.window, self.answer, self.every, self.memory, echo])
    }

    /// From octets; longer private data than was sent end with zeros.
    pub(crate) fn parse(octets: &[u8]) -> Result<Self, Misfit> {
        let word = |at: usize| xdr::word(octets, at * 4).ok_or(Misfit::Stranger);
        if word(0)? != MAGIC {
            return Err(Misfit::Stranger);
        }
        if word(1)? != VERSION {
            return Err(Misfit::Version);
        }
        let wants = Self {
            message: word(2)?,
            window: word(3)?,
            answer: word(4)?,
            every: word(5)?,
            memory: word(6)?,
            echo: word(7)? == 1,
        };
        wants.is_sensible().then_some(wants).ok_or(Misfit::Senseless)
    }

    fn is_sensible(&self) -> bool {
        (1..=MAX_WINDOW).contains(&self.window)
            && self.message > 0
            && (1..=self.window).contains(&self.every)
            && self.answer > 0
    }

    /// Octets that a server needs for it.
    pub(crate) fn octets(&self) -> u64 {
        let each = u64::from(self.message) + u64::from(self.answer);
        each * u64::from(self.window + 1) + u64::from(self.memory)
    }
}

/// The memory that a server offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) addr: u64,
    pub(crate) key: u32,
}

impl Offer {
    pub(crate) fn emit(&self) -> Vec<u8> {
        xdr::octets(&[(self.addr >> 32) as u32, self.addr as u32, self.key])
    }

    pub(crate) fn parse(octets: &[u8]) -> Option<Self> {
        let word = |at: usize| xdr::word(octets, at * 4);
        Some(Self { addr: u64::from(word(0)?) << 32 | u64::from(word(1)?), key: word(2)? })
    }
}

/// How a client of raw TCP wants to be served, in its first octets. The server begins with a [`Tally`], and sends another
/// when the client has sent its FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpWants {
    /// Octets of a message.
    pub(crate) message: u32,
    /// Octets of the answer to each; 0 = none.
    pub(crate) answer: u32,
}

impl TcpWants {
    /// Octets of it.
    pub(crate) const LEN: usize = 16;

    pub(crate) fn emit(&self) -> Vec<u8> {
        xdr::octets(&[MAGIC, VERSION, self.message, self.answer])
    }

    pub(crate) fn parse(octets: &[u8]) -> Option<Self> {
        let word = |at: usize| xdr::word(octets, at * 4);
        let wants = Self { message: word(2)?, answer: word(3)? };
        (word(0)? == MAGIC && word(1)? == VERSION && wants.message > 0).then_some(wants)
    }
}

/// What a server has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Messages received on this connection.
    pub(crate) messages: u64,
    /// Microseconds of processor time of the whole server; told to a message that is shorter than asked for.
    pub(crate) cpu_us: u64,
}

impl Tally {
    pub(crate) fn emit(&self) -> [u8; TALLY] {
        let mut octets = [0; TALLY];
        let (messages, cpu_us) = octets.split_at_mut(8);
        messages.copy_from_slice(&self.messages.to_be_bytes());
        cpu_us.copy_from_slice(&self.cpu_us.to_be_bytes());
        octets
    }

    pub(crate) fn parse(octets: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_be_bytes(octets.get(at..at + 8)?.try_into().ok()?));
        Some(Self { messages: number(0)?, cpu_us: number(8)? })
    }
}

#[cfg(test)]
mod test {
    use super::*;

    const WANTS: Wants =
        Wants { message: 64, window: 16, answer: 16, every: 8, memory: 1 << 20, echo: false };

    #[test]
    fn what_is_said_is_understood() {
        let mut octets = WANTS.emit();
        assert_eq!(octets.len(), 32);
        octets.extend([0; 24]);
        assert_eq!(Wants::parse(&octets), Ok(WANTS));
        assert_eq!(WANTS.octets(), (64 + 16) * 17 + (1 << 20));
        let offer = Offer { addr: 0x7f12_3456_789a_bcde, key: 0xdead_beef };
        assert_eq!(Offer::parse(&offer.emit()), Some(offer));
        let wants = TcpWants { message: 1 << 20, answer: 0 };
        assert_eq!((wants.emit().len(), TcpWants::parse(&wants.emit())), (TcpWants::LEN, Some(wants)));
        let tally = Tally { messages: 1 << 40, cpu_us: 7 };
        assert_eq!(Tally::parse(&tally.emit()), Some(tally));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(Wants::parse(b"hello"), Err(Misfit::Stranger));
        let mut later = WANTS.emit();
        later[7] = 2;
        assert_eq!(Wants::parse(&later), Err(Misfit::Version));
        let bad = [
            Wants { message: 0, ..WANTS },
            Wants { window: 0, ..WANTS },
            Wants { window: MAX_WINDOW + 1, ..WANTS },
            Wants { every: 0, ..WANTS },
            Wants { every: 17, ..WANTS },
            Wants { answer: 0, ..WANTS },
        ];
        for wants in bad {
            assert_eq!(Wants::parse(&wants.emit()), Err(Misfit::Senseless), "{wants:?}");
        }
    }
}
