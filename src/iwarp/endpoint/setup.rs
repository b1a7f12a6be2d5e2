//! From a socket to a stream: TCP's handshake, then MPA's, in both roles.

use std::io;
use std::time::Instant;

use super::super::handshake::{Agreed, Failure, Rtr};
use super::super::qp::{FirstFrame, Parameters};
use super::super::socket::Socket;
use super::{Endpoint, HOLD_STEP, NUDGES, OWN_MAX_ULPDU, Phase, Progress, Readiness};
use crate::cm::Event;
use crate::error::{Error, Reason, Result, Stage};
use crate::wire::ddp::{self, Untagged};
use crate::wire::mpa;
use crate::wire::rdmap::{Opcode, TermCode, Terminate};
use crate::wire::tag::FLAG_DEVICE;
use crate::work::reject_text;

impl Endpoint {
    pub(super) fn flush_handshake(&mut self) -> Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        while !self.out.is_empty() {
            match socket.send(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(Error::os("send", &error).at(Stage::Handshake)),
            }
        }
        Ok(())
    }

    pub(super) fn connected(&mut self, ready: Readiness, events: &mut Vec<Event>) -> Result<Progress> {
        let Some(socket) = &self.socket else { return Ok(Progress::Waiting) };
        if !ready.writable && !ready.closed {
            return Ok(Progress::Waiting);
        }
        socket.take_error().map_err(|error| error.at(Stage::Route))?;
        if socket.is_self_connected() {
            let error = io::Error::from_raw_os_error(libc::ECONNREFUSED);
            return Err(Error::os("connect", &error).at(Stage::Route));
        }
        self.phase = Phase::Connected;
        events.push(Event::RouteResolved);
        Ok(Progress::Waiting)
    }

    pub(super) fn await_reply(&mut self, buffer: &mut [u8], events: &mut Vec<Event>) -> Result<Progress> {
        self.flush_handshake()?;
        let count = match self.read(buffer)? {
            None => return Ok(Progress::Waiting),
            Some(0) => {
                let text = "the peer closed the connection instead of answering the MPA request";
                let remedy = "does an RDMA program listen there, and does it speak iWARP?";
                return Err(Error::new(libc::ECONNRESET, Reason::PeerClosed, text)
                    .at(Stage::Handshake)
                    .with_remedy(remedy));
            }
            Some(count) => count,
        };
        let data = buffer.get(..count).unwrap_or_default();
        let Phase::Requesting(initiator) = &mut self.phase else { return Ok(Progress::Waiting) };
        match initiator.input(data) {
            Ok((_, None)) => Ok(Progress::More),
            Ok((consumed, Some(agreed))) => {
                self.stash = data.get(consumed..).unwrap_or_default().to_vec();
                self.peer_private = Some(agreed.private_data.as_slice().into());
                let first =
                    if agreed.rtr == Rtr::Read { FirstFrame::SendRead } else { FirstFrame::SendWrite };
                self.start_stream(agreed, first);
                events.push(Event::HandshakeDone);
                // The peer has accepted: what comes now is the connection's, and no other address's.
                self.send_once();
                events.push(Event::Established);
                Ok(Progress::More)
            }
            Err(failure) => {
                events.push(self.refused(failure));
                Ok(Progress::Waiting)
            }
        }
    }

    fn refused(&mut self, failure: Failure) -> Event {
        match failure {
            Failure::Rejected { reason, private_data } => {
                self.peer_private = Some(private_data.into());
                let error = Error::new(libc::ECONNREFUSED, Reason::Rejected, reject_text(reason));
                Event::Rejected(error.at(Stage::Handshake).with_code(reason as i32))
            }
            Failure::Protocol { error, terminate } => {
                if let (Some(code), Some(socket)) = (terminate, &self.socket) {
                    // Best effort: the connection ends either way.
                    let _ = socket.send(&terminate_fpdu(code));
                }
                Event::Failed(error.at(Stage::Handshake))
            }
            Failure::Downgrade(error) => Event::Failed(error.at(Stage::Handshake)),
        }
    }

    /// While the caller has not answered: an end of file means that the peer has gone; octets break the protocol.
    pub(super) fn watch_requester(&mut self, buffer: &mut [u8], events: &mut Vec<Event>) -> Result<Progress> {
        match self.read(buffer)? {
            None => {}
            Some(0) => events.push(Event::Disconnected),
            Some(_) => {
                let text = "the peer sent FPDUs before its request was answered";
                return Err(Error::new(libc::EPROTO, Reason::Protocol, text).at(Stage::Handshake));
            }
        }
        Ok(Progress::Waiting)
    }

    /// Once the accept is out the stream begins.
    pub(super) fn after_accept(&mut self, events: &mut Vec<Event>) {
        if !self.out.is_empty() || !matches!(self.phase, Phase::Accepting(_)) {
            return;
        }
        let Phase::Accepting(agreed) = std::mem::replace(&mut self.phase, Phase::Streaming) else { return };
        // Without a ready-to-receive frame to wait for, the connection is established with the reply.
        self.ready_told = agreed.rtr == Rtr::None;
        self.start_stream(agreed, FirstFrame::Await);
        events.push(Event::HandshakeDone);
        if self.ready_told {
            self.hold_until = Some(Instant::now() + HOLD_STEP);
            events.push(Event::Established);
        }
    }

    fn start_stream(&mut self, agreed: Agreed, first_frame: FirstFrame) {
        // This library behind a device is a peer like any other on the wire.
        let own = agreed.peer_tag.as_ref().filter(|tag| tag.flags & FLAG_DEVICE == 0);
        let limit = own.map_or_else(|| self.segment_ulpdu(), |tag| OWN_MAX_ULPDU.min(tag.max_ulpdu as usize));
        let max_ulpdu = self.policy.max_ulpdu.unwrap_or(limit).max(64);
        self.qp.activate(Parameters {
            crc: agreed.crc,
            max_ulpdu: own.map_or(max_ulpdu, |tag| max_ulpdu.min(tag.max_ulpdu as usize)),
            own_peer: own.is_some(),
            ird: agreed.ird as usize,
            ord: agreed.ord as usize,
            first_frame,
        });
        let unsure = own.is_none() && first_frame != FirstFrame::Await;
        self.nudge_at = NUDGES.first().filter(|_| unsure).map(|after| Instant::now() + *after);
        self.ready_told |= first_frame != FirstFrame::Await;
        self.agreed = Some(agreed);
        self.next_watch = Some(Instant::now() + self.watch.interval());
        self.phase = Phase::Streaming;
    }

    /// The longest ULPDU of one TCP segment: hardware refuses longer FPDUs.
    fn segment_ulpdu(&self) -> usize {
        let segment = self.socket.as_ref().map_or(536, Socket::mss);
        mpa::max_ulpdu_within(segment.clamp(128, mpa::MAX_ULPDU))
    }
}

/// A Terminate on a stream that never began: without CRC, as nothing has been agreed on.
fn terminate_fpdu(code: TermCode) -> Vec<u8> {
    let mut body = [0; Terminate::MAX_LEN];
    let length = Terminate::new(code).emit(&mut body);
    let control = Opcode::Terminate.control(true);
    let untagged =
        Untagged { control, invalidate_stag: 0, queue: ddp::QN_TERMINATE, msn: ddp::FIRST_MSN, offset: 0 };
    let mut header = [0; ddp::UNTAGGED_LEN];
    untagged.emit(&mut header);
    let ulpdu = header.len() + length;
    let mut frame = (ulpdu as u16).to_be_bytes().to_vec();
    frame.extend_from_slice(&header);
    frame.extend_from_slice(body.get(..length).unwrap_or_default());
    frame.extend_from_slice(&mpa::trailer(ulpdu, 0));
    frame
}
