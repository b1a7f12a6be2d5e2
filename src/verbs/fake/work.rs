//! Work requests and completions, with the interface of `sys`.

use std::marker::PhantomData;
use std::sync::Arc;

use super::fabric::{Fabric, Key};
use super::failed_with;
use super::queue::{Ending, RecvWork, SendWork};
use crate::error::{Error, Result};
use crate::verbs::types::{PostFailure, WrKind};

/// Work requests that one doorbell can ring for.
const CHAIN: usize = 32;
/// Elements in all of them.
const CHAIN_SGES: usize = 64;

/// A piece of memory: address, length, local key.
pub(super) type Element = (u64, u32, u32);

/// Work requests being gathered for one doorbell.
pub(crate) struct Chain<W> {
    requests: Vec<W>,
    /// Elements of the request that is added next.
    elements: Vec<Element>,
    used: usize,
}

/// Requests for the send queue.
pub(crate) type SendChain = Chain<SendWork>;
/// Requests for the receive queue.
pub(crate) type RecvChain = Chain<RecvWork>;

impl<W> Default for Chain<W> {
    fn default() -> Self {
        Self { requests: Vec::new(), elements: Vec::new(), used: 0 }
    }
}

impl<W> Chain<W> {
    /// Whether one more request with this many elements fits.
    pub(crate) fn has_room(&self, sges: usize) -> bool {
        self.requests.len() < CHAIN && self.used + sges <= CHAIN_SGES
    }

    /// How many requests there are.
    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Takes an element of the request that is added next.
    pub(crate) fn element(&mut self, addr: u64, length: u32, lkey: u32) {
        assert!(self.used < CHAIN_SGES, "a chain with too many elements");
        self.elements.push((addr, length, lkey));
        self.used += 1;
    }

    fn take_elements(&mut self, sges: usize) -> Vec<Element> {
        assert!(self.requests.len() < CHAIN, "a chain with too many requests");
        assert_eq!(self.elements.len(), sges, "elements added and elements said");
        std::mem::take(&mut self.elements)
    }

    fn take(&mut self) -> Vec<W> {
        self.used = 0;
        std::mem::take(&mut self.requests)
    }
}

impl SendChain {
    /// Adds a request on the last `sges` elements. `remote`: address and key in the peer's memory.
    pub(crate) fn send(&mut self, id: u64, kind: WrKind, flags: u32, sges: usize, remote: (u64, u32)) {
        let elements = self.take_elements(sges);
        self.requests.push(SendWork { id, kind, flags, elements, remote, inline: None, number: 0 });
    }
}

impl RecvChain {
    /// Adds a receive on the last `sges` elements.
    pub(crate) fn recv(&mut self, id: u64, sges: usize) {
        let elements = self.take_elements(sges);
        self.requests.push(RecvWork { id, elements });
    }
}

/// The queue pair of an id, while the id is borrowed.
pub(crate) struct RawQp<'a> {
    fabric: &'a Arc<Fabric>,
    key: Key,
    _id: PhantomData<&'a ()>,
}

impl<'a> RawQp<'a> {
    pub(super) fn new(fabric: &'a Arc<Fabric>, key: Key) -> Self {
        Self { fabric, key, _id: PhantomData }
    }

    /// `ibv_post_send` of the chain, which is empty afterwards.
    ///
    /// # Safety
    /// The memory of all elements stays valid, and its registrations too, until the requests have completed or the queue
    /// pair is destroyed.
    pub(crate) unsafe fn post_send(&self, chain: &mut SendChain) -> std::result::Result<(), PostFailure> {
        let what = "ibv_post_send";
        let mut state = self.fabric.lock();
        let requests = chain.take();
        let failure = state.call(what).err();
        let most = failure.as_ref().map_or(requests.len(), |_| requests.len() / 2);
        let outcome = state.post_sends(self.key, requests.into_iter().take(most));
        finish(what, outcome, most, failure)
    }

    /// `ibv_post_recv` of the chain, which is empty afterwards.
    ///
    /// # Safety
    /// As for [`RawQp::post_send`].
    pub(crate) unsafe fn post_recv(&self, chain: &mut RecvChain) -> std::result::Result<(), PostFailure> {
        let what = "ibv_post_recv";
        let mut state = self.fabric.lock();
        let requests = chain.take();
        let failure = state.call(what).err();
        let most = failure.as_ref().map_or(requests.len(), |_| requests.len() / 2);
        let outcome = state.post_recvs(self.key, requests.into_iter().take(most));
        finish(what, outcome, most, failure)
    }

    /// As `sys`'s: a device that has no such timer says so, and nothing depends on it.
    pub(crate) fn set_rnr_timer(&self, _timer: u8) -> Result<()> {
        self.fabric.lock().call("ibv_modify_qp").map(|_| ())
    }

    /// Moves the queue pair to the error state: everything posted is flushed.
    pub(crate) fn fail(&self) -> Result<()> {
        let mut state = self.fabric.lock();
        state.call("ibv_modify_qp")?;
        state.end_qp(self.key, Ending::Flush);
        Ok(())
    }
}

/// What a doorbell returns: of an injected failure that the first half was posted.
fn finish(
    what: &str,
    outcome: std::result::Result<(), (usize, i32)>,
    most: usize,
    failure: Option<Error>,
) -> std::result::Result<(), PostFailure> {
    match (outcome, failure) {
        (Err((posted, errno)), _) => Err(PostFailure { posted, error: failed_with(what, errno) }),
        (Ok(()), Some(error)) => Err(PostFailure { posted: most, error }),
        (Ok(()), None) => Ok(()),
    }
}
