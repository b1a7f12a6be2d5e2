//! Posting on a connection: on the caller's thread, under the connection's lock.

use std::sync::Arc;

use super::channel::Source;
use super::conn::{Conn, Inner};
use super::stats::Batch;
use crate::error::{Error, Result};
use crate::iwarp::endpoint::Progress;
use crate::trace;
use crate::work::{Fill, RecvWr, SendWr};

impl Conn {
    /// Posts `n` operations that `fill` makes, all or none: on this thread, with one system call at most.
    pub fn post(self: &Arc<Self>, n: usize, fill: &mut Fill<'_, SendWr>) -> Result<()> {
        let (progress, completed) = self.post_batch(n, fill)?;
        self.after_post(progress, completed);
        Ok(())
    }

    /// The same, but what is done when it returns wakes nobody: its completions come with the connection's next event.
    pub fn post_quietly(self: &Arc<Self>, n: usize, fill: &mut Fill<'_, SendWr>) -> Result<()> {
        let (progress, _) = self.post_batch(n, fill)?;
        self.after_post(progress, false);
        Ok(())
    }

    /// What is left to do, and whether there are completions.
    fn post_batch(&self, n: usize, fill: &mut Fill<'_, SendWr>) -> Result<(Progress, bool)> {
        if n == 0 {
            return Ok((Progress::Waiting, false));
        }
        let mut inner = self.inner.lock();
        if inner.leaving || !inner.life.may_post_send() {
            return Err(Error::state(libc::ENOTCONN, "the connection is not established"));
        }
        let mut batch = Batch::default();
        let posted = inner.endpoint.post(n, &mut |at, wr| {
            fill(at, wr)?;
            let octets = wr.payload.len();
            batch.add(wr.opcode, octets);
            trace::post(self.id(), wr.opcode as u32, octets);
            Ok(())
        });
        let progress = posted.inspect_err(|error| self.refused(&mut inner, error))?;
        inner.tally.posted(&batch);
        Ok((progress, inner.endpoint.has_completion()))
    }

    #[cold]
    fn refused(&self, inner: &mut Inner, error: &Error) {
        inner.tally.refused(error);
        trace::post_refused(self.id(), error.errno);
    }

    /// Posts `n` receives that `fill` makes, all or none.
    pub fn post_recv(self: &Arc<Self>, n: usize, fill: &mut Fill<'_, RecvWr>) -> Result<()> {
        if n == 0 {
            return Ok(());
        }
        let mut inner = self.inner.lock();
        if inner.leaving || !inner.life.may_post_recv() {
            return Err(Error::state(libc::ENOTCONN, "the connection has ended"));
        }
        let posted = inner.endpoint.post_recv(n, fill);
        let progress = posted.inspect_err(|error| self.refused(&mut inner, error))?;
        drop(inner);
        self.after_post(progress, false);
        Ok(())
    }

    /// Takes a lent receive buffer back.
    pub fn release(self: &Arc<Self>, buffer: u64) -> Result<()> {
        let progress = self.inner.lock().endpoint.release(buffer)?;
        self.after_post(progress, false);
        Ok(())
    }

    fn after_post(self: &Arc<Self>, progress: Progress, completed: bool) {
        if completed {
            self.channel().mark_ready(Source::Conn(Arc::clone(self)));
        }
        if progress == Progress::More {
            self.channel().kick(self);
        }
    }
}
