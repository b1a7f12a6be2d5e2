//! Failures in words for people.

use std::fmt::Write;
use std::time::Duration;

use socket2::SockAddr;

use super::config::PROVIDER_VERBS;
use super::event::{ErrorReport, Place};
use super::resolve::format_addr;
use super::route::Candidate;
use crate::cm::Attempt;
use crate::error::{Error, Stage};

/// Names of the stages, as in messages and in `rcg_stage_name`.
pub(super) fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::None => "none",
        Stage::Address => "address",
        Stage::Route => "route",
        Stage::Device => "device",
        Stage::QueuePair => "queue pair",
        Stage::Handshake => "handshake",
        Stage::Ready => "ready",
        Stage::Connected => "connected",
    }
}

/// Names of the providers in messages.
fn provider_name(provider: u32) -> &'static str {
    if provider == PROVIDER_VERBS { "verbs" } else { "iwarp" }
}

/// What is known of the connection a report is about.
pub(super) struct Subject<'a> {
    /// The name or address the caller gave.
    pub(super) name: &'a str,
    pub(super) local: Option<&'a SockAddr>,
    pub(super) peer: Option<&'a SockAddr>,
    pub(super) elapsed: Duration,
    /// `RCG_PROVIDER_*`.
    pub(super) provider: u32,
    pub(super) device: String,
}

impl Subject<'_> {
    fn report(&self, error: &Error, text: &str) -> ErrorReport {
        let local = self.local.map(format_addr).unwrap_or_default();
        let peer = self.peer.map(format_addr).unwrap_or_default();
        let elapsed_ms = u32::try_from(self.elapsed.as_millis()).unwrap_or(u32::MAX);
        let (provider, device) = (self.provider, self.device.as_str());
        let place = Place { provider, local: &local, peer: &peer, device, elapsed_ms };
        ErrorReport::new(error, place, text)
    }

    fn peer_name(&self) -> String {
        let peer = self.peer.map(format_addr).unwrap_or_default();
        match (self.name.is_empty() || self.name == peer, peer.is_empty()) {
            (true, _) => peer,
            (false, true) => self.name.to_string(),
            (false, false) => format!("{} ({peer})", self.name),
        }
    }

    /// A connect, or an accept, that failed.
    pub(super) fn failed(
        &self,
        verb: &str,
        error: &Error,
        tried: &[Attempt],
        peers: &[Candidate],
    ) -> ErrorReport {
        let mut text = format!(
            "{verb} {} failed at stage '{}' after {} ms: {error}",
            self.peer_name(),
            stage_name(error.stage),
            self.elapsed.as_millis(),
        );
        if tried.len() > 1 {
            for (index, attempt) in tried.iter().enumerate() {
                let peer = peers.get(attempt.candidate);
                let addr = peer.map(|peer| format_addr(&peer.addr)).unwrap_or_default();
                let provider = peer.map_or("", |peer| provider_name(peer.provider));
                let sep = if index == 0 { "\n  tried: " } else { ", " };
                // Writing to a String can't fail.
                let _ = write!(
                    text,
                    "{sep}{addr} {provider} ({}: {})",
                    stage_name(attempt.error.stage),
                    attempt.error
                );
            }
        }
        hint(&mut text, error);
        self.report(error, &text)
    }

    /// A connection that ended.
    pub(super) fn ended(&self, error: &Error) -> ErrorReport {
        let seconds = self.elapsed.as_secs_f64();
        let mut text = format!("connection with {} ended after {seconds:.3} s: {error}", self.peer_name());
        hint(&mut text, error);
        self.report(error, &text)
    }
}

fn hint(text: &mut String, error: &Error) {
    if !error.remedy.is_empty() {
        text.push_str("\n  hint: ");
        text.push_str(&error.remedy);
    }
}
