//! What travels between two ids.

use super::fabric::{Key, Queued, Removal, State};
use super::ids::{Done, Id, Phase};
use super::queue::Ending;
use crate::verbs::types::{AsyncEvent, CmKind, ConnParam};

/// `IB_CM_REJ_TIMEOUT`, which is also what one who leaves before the answer says.
const REJ_TIMEOUT: i32 = 4;
/// `IB_CM_REJ_INVALID_SERVICE_ID`: nobody listens.
const REJ_NO_LISTENER: i32 = 8;
/// `IB_CM_REJ_CONSUMER_DEFINED`: the application says no.
const REJ_CONSUMER: i32 = 28;

/// Octets of private data of a request, a reply and a reject of the application's; events have all of them.
const IB_REQUEST: usize = 56;
const IB_REPLY: usize = 196;
const IB_REJECT: usize = 148;

impl State {
    /// What librdmacm and the kernel check of the parameters.
    fn check(&self, id: Key, param: &ConnParam, limit: usize) -> Done {
        let Some(device) = self.ids[&id].device else { return Err(libc::EINVAL) };
        let limits = &self.config(device).limits;
        let reads = u32::from(param.responder_resources) > limits.max_ird
            || u32::from(param.initiator_depth) > limits.max_ord;
        let long = !limits.iwarp && param.private_data.len() > limit;
        if reads || long || self.ids[&id].qp.is_none() { Err(libc::EINVAL) } else { Ok(()) }
    }

    pub(super) fn connect(&mut self, id: Key, param: &ConnParam) -> Done {
        self.check(id, param, IB_REQUEST)?;
        if self.ids[&id].phase != Phase::RouteResolved {
            return Err(libc::EINVAL);
        }
        let id_ref = self.id(id);
        (id_ref.phase, id_ref.said) = (Phase::Connecting, param.clone());
        let (Some(to), from) = (id_ref.peer, id_ref.local) else { return Err(libc::EINVAL) };
        let device =
            self.owner(to.ip()).filter(|device| self.config(*device).limits.iwarp == self.is_iwarp(id));
        let siw = device.is_some_and(|device| self.config(device).limits.is_siw());
        let listens = |other: &Id| other.phase == Phase::Listening && other.covers(to, siw);
        let listener = self.ids.iter().find(|(_, other)| listens(other));
        let (Some(listener), Some(device)) = (listener.map(|(key, _)| *key), device) else {
            self.refuse(id, REJ_NO_LISTENER, &[]);
            return Ok(());
        };
        let waiting = self
            .ids
            .values()
            .filter(|other| other.listener == Some(listener) && other.phase == Phase::Requested);
        if waiting.count() >= self.ids[&listener].backlog {
            self.refuse(id, REJ_CONSUMER, &[]);
            return Ok(());
        }
        let (key, parent) = (self.key(), &self.ids[&listener]);
        let mut request = Id::new(parent.channel, parent.context);
        (request.phase, request.mute) = (Phase::Requested, true);
        (request.device, request.local, request.peer) = (Some(device), Some(to), from);
        (request.other, request.listener) = (Some(id), Some(listener));
        self.ids.insert(key, request);
        self.id(id).other = Some(key);
        let param = self.as_told(id, param, IB_REQUEST);
        self.send(Queued {
            kind: CmKind::ConnectRequest,
            status: 0,
            id: listener,
            param,
            request: Some(key),
        });
        Ok(())
    }

    /// The parameters of `id`'s as its peer's application gets them.
    fn as_told(&self, id: Key, param: &ConnParam, length: usize) -> ConnParam {
        let mut private_data = param.private_data.clone();
        if !self.is_iwarp(id) {
            private_data.resize(length, 0);
        }
        ConnParam {
            private_data,
            responder_resources: param.initiator_depth,
            initiator_depth: param.responder_resources,
            rnr_retry_count: param.rnr_retry_count,
        }
    }

    /// Tells an active id no.
    fn refuse(&mut self, id: Key, reason: i32, private_data: &[u8]) {
        let iwarp = self.is_iwarp(id);
        let mut private_data = private_data.to_vec();
        if !iwarp && reason == REJ_CONSUMER {
            private_data.resize(IB_REJECT, 0);
        }
        self.id(id).phase = Phase::Over;
        let param = ConnParam { private_data, ..ConnParam::default() };
        self.push(id, CmKind::Rejected, if iwarp { -libc::ECONNREFUSED } else { reason }, param);
    }

    pub(super) fn accept(&mut self, id: Key, param: &ConnParam) -> Done {
        self.check(id, param, IB_REPLY)?;
        let Some(other) = self.ids[&id].other.filter(|_| self.ids[&id].phase == Phase::Requested) else {
            let gone = self.is_iwarp(id) && self.ids[&id].phase == Phase::Over;
            return Err(if gone { libc::ECONNRESET } else { libc::EINVAL });
        };
        let offered = self.ids.get(&other).map_or(u8::MAX, |other| other.said.responder_resources);
        if param.initiator_depth > offered {
            self.violation("an accept takes more RDMA Reads than the request has offered");
        }
        let id_ref = self.id(id);
        (id_ref.said, id_ref.mute) = (param.clone(), false);
        self.ready_qp(id);
        let told = self.as_told(id, param, IB_REPLY);
        if self.ids.get(&other).is_none_or(|other| other.phase != Phase::Connecting) {
            // The peer has gone without a word: the reply is on its way for ever.
            self.id(id).phase = Phase::Accepted;
        } else if self.is_iwarp(id) {
            self.ready_qp(other);
            self.id(id).phase = Phase::Established;
            self.id(other).phase = Phase::Established;
            self.push(id, CmKind::Established, 0, ConnParam::default());
            self.push(other, CmKind::Established, 0, told);
        } else {
            self.id(id).phase = Phase::Accepted;
            self.id(other).phase = Phase::Replied;
            self.push(other, CmKind::ConnectResponse, 0, told);
        }
        Ok(())
    }

    pub(super) fn reject(&mut self, id: Key, private_data: &[u8]) -> Done {
        let Some(other) = self.ids[&id].other.filter(|_| self.ids[&id].phase == Phase::Requested) else {
            return Err(libc::EINVAL);
        };
        if !self.is_iwarp(id) && private_data.len() > IB_REJECT {
            return Err(libc::EINVAL);
        }
        self.id(id).phase = Phase::Over;
        if self.ids.get(&other).is_some_and(|other| other.phase == Phase::Connecting) {
            self.refuse(other, REJ_CONSUMER, private_data);
        }
        Ok(())
    }

    pub(super) fn disconnect(&mut self, id: Key) -> Done {
        if let Some(qp) = self.ids[&id].qp {
            self.end_qp(qp, Ending::Flush);
        }
        match self.ids[&id].phase {
            Phase::Established | Phase::Left => self.leave(id, true),
            Phase::Connecting | Phase::Replied | Phase::Requested | Phase::Accepted => {}
            Phase::Leaving | Phase::Over if !self.is_iwarp(id) => {}
            _ => return Err(libc::EINVAL),
        }
        Ok(())
    }

    /// The id says good-bye, or answers the peer's; `told`: it hears of the end itself.
    fn leave(&mut self, id: Key, told: bool) {
        let other = self.ids[&id].other.filter(|other| self.ids.contains_key(other));
        if self.is_iwarp(id) {
            self.reset_stream(id, told);
            return;
        }
        if self.ids[&id].phase == Phase::Left {
            self.id(id).phase = Phase::Over;
            if told {
                self.push(id, CmKind::TimewaitExit, 0, ConnParam::default());
            }
            if let Some(other) = other.filter(|other| self.ids[other].phase == Phase::Leaving) {
                self.id(other).phase = Phase::Over;
                self.push(other, CmKind::Disconnected, 0, ConnParam::default());
                self.push(other, CmKind::TimewaitExit, 0, ConnParam::default());
            }
            return;
        }
        self.id(id).phase = Phase::Leaving;
        if let Some(other) = other.filter(|other| self.ids[other].is_connected()) {
            self.id(other).phase = Phase::Left;
            self.push(other, CmKind::Disconnected, 0, ConnParam::default());
        }
    }

    /// iWARP: the stream is gone for both sides.
    pub(super) fn reset_stream(&mut self, id: Key, told: bool) {
        for (side, told) in [(Some(id), told), (self.ids[&id].other, true)] {
            let Some(side) = side.filter(|side| self.ids.contains_key(side)) else { continue };
            if !self.ids[&side].is_connected() {
                continue;
            }
            self.id(side).phase = Phase::Over;
            if let Some(qp) = self.ids[&side].qp {
                self.end_qp(qp, Ending::Flush);
            }
            if told {
                self.push(side, CmKind::Disconnected, 0, ConnParam::default());
            }
        }
    }

    /// The kernel learns by other means that the peer has taken the reply.
    pub(super) fn notify_established(&mut self, id: Key) -> Done {
        if self.ids[&id].other.is_none() {
            return Err(libc::EINVAL);
        }
        if self.ids[&id].phase == Phase::Accepted {
            self.id(id).phase = Phase::Established;
            self.push(id, CmKind::Established, 0, ConnParam::default());
        }
        Ok(())
    }

    pub(super) fn migrate(&mut self, id: Key, to: Key) {
        let from = std::mem::replace(&mut self.id(id).channel, to);
        let queue = &mut self.channels.get_mut(&from).expect("a channel outlives its ids").events;
        let (moving, staying): (Vec<_>, Vec<_>) =
            std::mem::take(queue).into_iter().partition(|event| event.id == id);
        queue.extend(staying);
        self.channels.get_mut(&to).expect("the channel is borrowed").events.extend(moving);
        self.signal_channel(from);
        self.signal_channel(to);
    }

    pub(super) fn destroy_id(&mut self, id: Key) {
        if self.ids[&id].qp.is_some() {
            self.violation("an id was destroyed that has a queue pair");
        }
        self.say_farewell(id);
        self.forget_events(id);
        self.ids.remove(&id);
        let children = self.ids.values_mut().filter(|child| child.listener == Some(id));
        children
            .for_each(|child| child.listener = child.listener.filter(|_| child.phase != Phase::Requested));
    }

    /// What the peer hears when the kernel's id is destroyed.
    fn say_farewell(&mut self, id: Key) {
        let Some(other) = self.ids[&id].other.filter(|other| self.ids.contains_key(other)) else { return };
        match self.ids[&id].phase {
            Phase::Requested | Phase::Replied | Phase::Accepted => self.refuse(other, REJ_CONSUMER, &[]),
            Phase::Connecting => {
                self.id(other).phase = Phase::Over;
                // Of no effect for a request that is not accepted; accepting it will fail.
                self.push(other, CmKind::Rejected, REJ_TIMEOUT, ConnParam::default());
            }
            Phase::Established | Phase::Left => self.leave(id, false),
            _ => {}
        }
    }

    /// Events that nobody will look at, with the requests in them.
    fn forget_events(&mut self, id: Key) {
        let mut requests = Vec::new();
        let mut keep = |event: &Queued| {
            if event.id == id {
                requests.extend(event.request);
            }
            event.id != id
        };
        self.late.retain(|(_, event)| keep(event));
        self.channels.values_mut().for_each(|channel| channel.events.retain(&mut keep));
        let channels: Vec<_> = self.channels.keys().copied().collect();
        channels.into_iter().for_each(|channel| self.signal_channel(channel));
        requests.into_iter().for_each(|request| self.destroy_id(request));
    }

    /// Tells one id of a removal that has begun.
    pub(super) fn begin_removal(&mut self, device: Key) {
        self.devices.get_mut(&device).expect("the test names a device it has made").leaving = true;
        let told = self.ids.iter().find(|(_, id)| id.device == Some(device) && id.is_connected());
        let told = told.map(|(key, _)| *key);
        told.into_iter().for_each(|id| self.push(id, CmKind::DeviceRemoval, 0, ConnParam::default()));
    }

    pub(super) fn remove_device(&mut self, device: Key, removal: Removal) {
        let there = self.devices.get_mut(&device).expect("the test names a device it has made");
        if std::mem::replace(&mut there.removed, true) {
            return;
        }
        let flush = there.config.flush_on_removal;
        /// `IBV_EVENT_DEVICE_FATAL`
        const FATAL: u32 = 8;
        self.push_async(device, AsyncEvent { kind: FATAL, qp: None }, 0);
        let qps: Vec<_> =
            self.qps.iter().filter(|(_, qp)| qp.device == device).map(|(key, _)| *key).collect();
        for qp in qps {
            self.end_qp(qp, if flush { Ending::Flush } else { Ending::Silence });
        }
        let ids: Vec<_> =
            self.ids.iter().filter(|(_, id)| id.device == Some(device)).map(|(key, _)| *key).collect();
        for id in ids {
            if removal == Removal::Orderly {
                self.say_farewell(id);
            }
            self.id(id).phase = Phase::Over;
            self.push(id, CmKind::DeviceRemoval, 0, ConnParam::default());
        }
    }
}
