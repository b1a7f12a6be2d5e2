//! What the application of one connection has seen, and the check of what was promised.

use std::sync::Arc;

use super::{Conn, ErrorReport, Event, kind};

/// What one connection's application has seen and done.
#[derive(Default)]
pub(super) struct Story {
    pub(super) conn: Option<Arc<Conn>>,
    /// There was a connection.
    pub(super) began: bool,
    /// The application has said yes and the library has taken it.
    pub(super) accepted: bool,
    /// The application asked to leave, by `disconnect` or `close`.
    pub(super) left: bool,
    pub(super) kinds: Vec<u32>,
    /// The texts that came with events.
    pub(super) texts: Vec<String>,
    /// Cookies of operations that owe a completion, and of those that make one only if they fail.
    pub(super) posted: Vec<usize>,
    pub(super) quiet: Vec<usize>,
    pub(super) done: Vec<(usize, i32)>,
}

impl Story {
    pub(super) fn count(&self, kind: u32) -> usize {
        self.kinds.iter().filter(|other| **other == kind).count()
    }

    pub(super) fn is_over(&self) -> bool {
        self.conn.is_none() || self.count(kind::CLOSED) > 0
    }

    /// Asserts what `cm` promises.
    pub(super) fn check(&self, active: bool) {
        let context = format!("active {active}: events {:?}, completions {:?}", self.kinds, self.done);
        let (established, failed) = (self.count(kind::ESTABLISHED), self.count(kind::CONNECT_FAILED));
        let requests = self.count(kind::CONNECT_REQUEST);
        if !self.began {
            return assert!(self.kinds.is_empty(), "{context}");
        }
        match active {
            true => assert_eq!((requests, established + failed), (0, 1), "{context}"),
            _ if self.accepted => assert_eq!((requests, established + failed), (1, 1), "{context}"),
            _ => assert!(requests == 1 && established == 0 && failed <= 1, "{context}"),
        }
        assert_eq!(self.count(kind::DISCONNECTED), established, "{context}");
        assert_eq!(self.count(kind::CLOSED), 1, "{context}");
        assert_eq!(self.kinds.last(), Some(&kind::CLOSED), "{context}");
        let at = |wanted| self.kinds.iter().position(|kind| *kind == wanted);
        if let (Some(from), Some(to)) = (at(kind::ESTABLISHED), at(kind::DISCONNECTED)) {
            assert!(from < to, "{context}");
            assert!(!self.kinds[to..].contains(&kind::COMPLETION), "{context}");
        }
        for user in &self.posted {
            assert_eq!(self.times(*user), 1, "completions of operation {user}; {context}");
        }
        for user in &self.quiet {
            assert!(self.times(*user) <= 1, "completions of operation {user}; {context}");
        }
        let known = |user: &usize| self.posted.contains(user) || self.quiet.contains(user);
        assert!(self.done.iter().all(|(user, _)| known(user)), "a stray completion; {context}");
    }

    /// Notes an event.
    pub(super) fn note(&mut self, event: &Event) {
        self.kinds.push(event.kind);
        self.texts.extend(event.error.as_deref().map(ErrorReport::words));
        // Of a lent buffer nobody owes anything.
        if event.kind == kind::COMPLETION || (event.kind == kind::RECV && event.buffer == 0) {
            self.done.push((event.user, event.status));
        }
    }

    fn times(&self, user: usize) -> usize {
        self.done.iter().filter(|(done, _)| *done == user).count()
    }

    pub(super) fn succeeded(&self, users: &[usize]) -> bool {
        users.iter().all(|user| self.done.contains(&(*user, 0)))
    }
}
