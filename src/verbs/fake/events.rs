//! Events of the connection manager, on their way to the application.

use super::fabric::{Key, Queued, State, due};
use super::ids::Phase;
use super::queue::Ending;
use crate::verbs::types::{CmKind, ConnParam};

impl State {
    pub(super) fn push(&mut self, id: Key, kind: CmKind, status: i32, param: ConnParam) {
        self.send(Queued { kind, status, id, param, request: None });
    }

    /// An event from outside for every id that is connected.
    pub(super) fn tell_connected(&mut self, kind: CmKind, status: i32) {
        let connected: Vec<_> =
            self.ids.iter().filter(|(_, id)| id.is_connected()).map(|(key, _)| *key).collect();
        connected.into_iter().for_each(|id| self.push(id, kind, status, ConnParam::default()));
    }

    pub(super) fn send(&mut self, event: Queued) {
        if self.ids[&event.id].mute {
            return;
        }
        match self.faults.event(format!("{:?} of id {}", event.kind, event.id)) {
            None => self.enqueue(event),
            Some(delay) => self.late.push((due(delay), event)),
        }
    }

    /// Hands an event to the channel of its id.
    pub(super) fn enqueue(&mut self, event: Queued) {
        let Some(channel) = self.ids.get(&event.id).map(|id| id.channel) else { return };
        self.channels.get_mut(&channel).expect("a channel outlives its ids").events.push_back(event);
        self.signal_channel(channel);
    }

    pub(super) fn dequeue(&mut self, channel: Key) -> Option<Queued> {
        let event = self.channels.get_mut(&channel)?.events.pop_front();
        self.signal_channel(channel);
        event
    }

    pub(super) fn signal_channel(&mut self, channel: Key) {
        if let Some(channel) = self.channels.get_mut(&channel) {
            channel.signal.set(!channel.events.is_empty());
        }
    }

    /// What librdmacm does with an event before the application sees it; `None` = it does not.
    pub(super) fn process(&mut self, mut event: Queued) -> Option<Queued> {
        let id = event.id;
        match event.kind {
            CmKind::ConnectResponse if self.ids[&id].qp.is_some() => {
                if self.ids[&id].phase == Phase::Replied && self.call("ucma_process_conn_resp").is_ok() {
                    self.take_reply(id);
                    event.kind = CmKind::Established;
                } else {
                    self.id(id).connect_error = true;
                    (event.kind, event.status) = (CmKind::ConnectError, -1);
                    self.fail_qp_of(id);
                }
            }
            CmKind::Rejected | CmKind::Disconnected if self.ids[&id].connect_error => return None,
            CmKind::Rejected => self.fail_qp_of(id),
            _ => {}
        }
        Some(event)
    }

    fn fail_qp_of(&mut self, id: Key) {
        if let Some(qp) = self.ids[&id].qp {
            self.end_qp(qp, Ending::Flush);
        }
    }

    /// The active side takes the reply, and the passive side hears of it.
    fn take_reply(&mut self, id: Key) {
        self.ready_qp(id);
        self.id(id).phase = Phase::Established;
        let other = self.ids[&id].other.filter(|other| self.ids.contains_key(other));
        if let Some(other) = other.filter(|other| self.ids[other].phase == Phase::Accepted) {
            self.id(other).phase = Phase::Established;
            self.push(other, CmKind::Established, 0, ConnParam::default());
        }
    }
}
