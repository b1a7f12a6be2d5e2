//! The part of a channel's loop that serves listeners over TCP: sockets that are accepted, and their requests.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockAddr;

use super::channel::{Channel, Command};
use super::conn::Conn;
use super::driver::{Driver, Entry};
use super::listener::{Accepted, Listener, Slot};
use super::log::Level;
use super::perform::Happening;
use crate::iwarp::handshake::Responder;
use crate::iwarp::socket::{Socket, is_shortage};

/// How long a listener rests when descriptors have run out.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// Connections accepted before others get their turn.
const ACCEPT_BURST: usize = 16;
/// Most of a request that is read at a time.
const REQUEST_READ: usize = 1024;

/// A socket whose request has not come yet.
pub(super) struct Pending {
    socket: Socket,
    peer: SockAddr,
    responder: Responder,
    slot: Slot,
}

impl Driver {
    pub(super) fn listen(&mut self, channel: &Channel, listener: &Arc<Listener>) {
        let added = listener.with_fd(|fd| self.selector.add_level(fd, listener.id()));
        if let Some(Err(error)) = added {
            channel.engine().log(Level::Error, format_args!("listener: {error}"));
        }
        self.entries.insert(listener.id(), Entry::Listener(Arc::clone(listener)));
    }

    pub(super) fn unlisten(&mut self, listener: &Arc<Listener>) {
        if self.entries.remove(&listener.id()).is_some() {
            listener.with_fd(|fd| self.selector.remove(fd));
            self.timers.update(listener.id(), None);
            listener.shut();
            listener.report_closed();
        }
    }

    pub(super) fn accept(&mut self, channel: &Arc<Channel>, listener: &Arc<Listener>) {
        for _ in 0..ACCEPT_BURST {
            match listener.accept() {
                Ok(Accepted::None) => return,
                Ok(Accepted::TooMany) => {}
                Ok(Accepted::One(slot, socket, peer)) => {
                    let target = listener.next_channel();
                    if Arc::ptr_eq(channel, &target) {
                        self.pend(channel, slot, socket, peer);
                    } else {
                        target.send(Command::Accepted(slot, socket, peer));
                    }
                }
                Err(error) if is_shortage(&error) => {
                    // Nothing can be accepted for now, and a listener that stays readable would make the loop spin.
                    listener.with_fd(|fd| self.selector.remove(fd));
                    self.timers.set(listener.id(), Instant::now() + ACCEPT_REST);
                    return;
                }
                Err(_) => return,
            }
        }
    }

    /// Waits for the request on an accepted socket, where it is not there already.
    pub(super) fn pend(&mut self, channel: &Arc<Channel>, slot: Slot, socket: Socket, peer: SockAddr) {
        let token = channel.engine().next_id();
        let refused = slot.listener.is_closing() || self.finished;
        if refused || self.selector.add(socket.as_raw_fd(), token).is_err() {
            return;
        }
        self.timers.set(token, Instant::now() + slot.listener.handshake_timeout);
        let responder = slot.listener.responder(&peer, socket.local().as_ref());
        self.entries.insert(token, Entry::Pending(Box::new(Pending { socket, peer, responder, slot })));
        self.read_request(channel, token);
    }

    pub(super) fn drop_pending(&mut self, token: u64) {
        self.timers.update(token, None);
        self.entries.remove(&token);
    }

    pub(super) fn read_request(&mut self, channel: &Arc<Channel>, token: u64) {
        loop {
            let Some(Entry::Pending(pending)) = self.entries.get_mut(&token) else { return };
            let buffer = self.buffer.get_mut(..REQUEST_READ).unwrap_or_default();
            let count = match pending.socket.recv(buffer) {
                Ok(0) => return self.drop_pending(token),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => return self.drop_pending(token),
            };
            match pending.responder.input(buffer.get(..count).unwrap_or_default()) {
                Ok((_, None)) => {}
                Ok((_, Some(request))) => {
                    self.timers.update(token, None);
                    if let Some(Entry::Pending(pending)) = self.entries.remove(&token) {
                        self.request(channel, token, *pending, &request.private_data);
                    }
                    return;
                }
                Err(refusal) => {
                    let engine = channel.engine();
                    engine
                        .log(Level::Info, format_args!("listener: a request was refused: {}", refusal.error));
                    self.refuse(token, refusal.reply);
                    return;
                }
            }
        }
    }

    /// Answers a request that can't be understood, where there is an answer, and lets the peer read it.
    fn refuse(&mut self, token: u64, reply: Option<Vec<u8>>) {
        let Some(Entry::Pending(pending)) = self.entries.remove(&token) else { return };
        self.timers.update(token, None);
        if let Some(reply) = reply {
            // A new socket takes a few hundred octets, or is gone.
            let _ = pending.socket.send(&reply);
            self.selector.remove(pending.socket.as_raw_fd());
            self.linger(token, pending.socket, Instant::now());
        }
    }

    /// Makes a connection of a socket whose request has come.
    fn request(&mut self, channel: &Arc<Channel>, token: u64, pending: Pending, private_data: &[u8]) {
        let Pending { socket, peer, responder, slot } = pending;
        match Conn::request(channel, &slot.listener, token, (socket, peer), responder, private_data) {
            Ok(conn) => {
                slot.complete();
                self.entries.insert(token, Entry::Conn(Arc::clone(&conn)));
                self.drive(&conn, Happening::Requested, Instant::now());
            }
            Err(error) => {
                let engine = channel.engine();
                engine.log(Level::Warn, format_args!("listener: no connection for a request: {error}"));
            }
        }
    }
}
