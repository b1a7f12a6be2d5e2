//! Telling a dead peer from one that is only slow, while data is on its way to it.
//!
//! Keepalive probes are not sent while data is outstanding, and `TCP_USER_TIMEOUT` is no substitute: it also ends
//! a connection whose peer is alive and answers every probe, but has closed its window for that long (tcp(7);
//! measured on Linux 6.18: 2000 ms set, `ETIMEDOUT` after 3 s against a peer that merely did not read). A closed
//! window is how back-pressure works here. So the channel looks at `TCP_INFO` now and then, and this decides.

use std::time::{Duration, Instant};

use super::Liveness;

/// Unanswered window probes without which a peer with a closed window is not called dead: one may get lost.
const PROBES_MIN: u32 = 2;

/// What a look at a connection says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is on its way; keepalive is in charge.
    Idle,
    /// The peer acknowledged something since the last look, or this is the first.
    Progress,
    /// It acknowledged nothing since the last look, but is alive or has not been silent for long.
    Stalled,
    /// It answered nothing that was sent to it, for the whole time.
    Dead,
}

/// Watches one connection.
///
/// Silence alone proves nothing: while the window stays closed the kernel doubles the time between its probes,
/// up to two minutes, and a peer that is not asked does not answer. So a peer is dead when it has been silent
/// for the whole time *and* something sent to it in that time went unanswered: data for the whole time, or
/// several window probes. `socket::Options` has the kernel probe often enough, where it can (Linux 6.15); on
/// older kernels a peer that dies after a long stall is found later, after the second probe that fails.
#[derive(Clone, Copy, Debug)]
pub struct StallWatch {
    dead_peer: Duration,
    acked: Option<u64>,
    silent_since: Option<Instant>,
}

impl StallWatch {
    /// For a peer that counts as dead after `dead_peer` without an answer.
    pub const fn new(dead_peer: Duration) -> Self {
        Self { dead_peer, acked: None, silent_since: None }
    }

    /// How often to look while data is outstanding, for a verdict within 1.25 x `dead_peer`.
    pub fn interval(&self) -> Duration {
        (self.dead_peer / 8).max(Duration::from_millis(50))
    }

    /// Judges a look taken at `now`. Looks are needed while something is outstanding only.
    pub fn observe(&mut self, now: Instant, seen: Liveness) -> Verdict {
        let moved = self.acked.replace(seen.acked) != Some(seen.acked);
        if seen.unacked == 0 && seen.unsent == 0 {
            self.silent_since = None;
            return Verdict::Idle;
        }
        let data_unanswered = seen.unacked > 0 && seen.last_sent < seen.last_ack;
        if !data_unanswered && seen.probes == 0 {
            self.silent_since = None;
        } else {
            self.note_silence(now, &seen, moved, data_unanswered);
        }
        match self.silent_since {
            Some(since) if self.is_dead(now.saturating_duration_since(since), &seen) => Verdict::Dead,
            _ if moved => Verdict::Progress,
            _ => Verdict::Stalled,
        }
    }

    /// Something is unanswered: keeps the time since which, or starts anew if the peer was heard since then.
    fn note_silence(&mut self, now: Instant, seen: &Liveness, moved: bool, data_unanswered: bool) {
        let heard = now.checked_sub(seen.last_ack);
        let same = !moved && self.silent_since.is_some_and(|since| heard.is_none_or(|heard| heard <= since));
        if !same {
            let ago = if data_unanswered { seen.last_sent } else { Duration::ZERO };
            self.silent_since = Some(now.checked_sub(ago).unwrap_or(now));
        }
    }

    fn is_dead(&self, unanswered: Duration, seen: &Liveness) -> bool {
        if seen.last_ack < self.dead_peer {
            return false;
        }
        if seen.unacked > 0 {
            unanswered >= self.dead_peer
        } else {
            seen.probes >= PROBES_MIN && unanswered >= self.dead_peer / 4
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAD: Duration = Duration::from_secs(20);

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// A look: seconds since heard and sent.
    fn data(acked: u64, last_ack: u64, last_sent: u64) -> Liveness {
        let (last_ack, last_sent) = (secs(last_ack), secs(last_sent));
        Liveness { unacked: 3, unsent: 100, last_ack, last_sent, acked, probes: 0 }
    }

    /// A look at a closed window.
    fn closed(last_ack: u64, probes: u32) -> Liveness {
        Liveness {
            unsent: 100,
            last_ack: secs(last_ack),
            last_sent: secs(900),
            probes,
            ..Liveness::default()
        }
    }

    #[test]
    fn nothing_outstanding_is_idle() {
        let mut watch = StallWatch::new(DEAD);
        let seen = Liveness { last_ack: secs(100_000), ..Liveness::default() };
        assert_eq!(watch.observe(Instant::now(), seen), Verdict::Idle);
    }

    #[test]
    fn acknowledged_bytes_are_progress() {
        let (mut watch, now) = (StallWatch::new(DEAD), Instant::now() + secs(1000));
        for n in 0..100 {
            assert_eq!(watch.observe(now + secs(n), data(n, 0, 0)), Verdict::Progress);
        }
        assert_eq!(watch.observe(now + secs(100), data(99, 0, 0)), Verdict::Stalled);
    }

    #[test]
    fn unanswered_data_is_death_after_the_time() {
        let (mut watch, now) = (StallWatch::new(DEAD), Instant::now() + secs(1000));
        // Heard at 0, sent at 1 and, in vain, again later.
        assert_eq!(watch.observe(now + secs(1), data(5, 1, 0)), Verdict::Progress);
        for n in 2..21 {
            assert_eq!(watch.observe(now + secs(n), data(5, n, (n - 1) % 7)), Verdict::Stalled, "{n}");
        }
        assert_eq!(watch.observe(now + secs(21), data(5, 21, 3)), Verdict::Dead);
    }

    #[test]
    fn data_after_a_long_silence_gets_its_time() {
        let (mut watch, now) = (StallWatch::new(DEAD), Instant::now() + secs(10_000));
        assert_eq!(watch.observe(now, data(5, 3600, 0)), Verdict::Progress);
        assert_eq!(watch.observe(now + secs(19), data(5, 3619, 6)), Verdict::Stalled);
        assert_eq!(watch.observe(now + secs(20), data(5, 3620, 7)), Verdict::Dead);
    }

    #[test]
    fn an_old_silence_is_not_held_against_new_data() {
        // Seen in flight once, answered at once, then never looked at for an hour.
        let (mut watch, now) = (StallWatch::new(DEAD), Instant::now() + secs(10_000));
        watch.observe(now, data(5, 1, 0));
        assert_eq!(watch.observe(now + secs(3600), data(6, 3600, 0)), Verdict::Progress);
        assert_eq!(watch.observe(now + secs(3610), data(6, 3610, 3)), Verdict::Stalled);
        assert_eq!(watch.observe(now + secs(3620), data(6, 3620, 3)), Verdict::Dead);
    }

    #[test]
    fn any_answer_starts_the_time_anew() {
        let (mut watch, now) = (StallWatch::new(DEAD), Instant::now() + secs(1000));
        watch.observe(now, data(5, 1, 0));
        watch.observe(now + secs(15), data(5, 16, 2));
        // At 16 a duplicate acknowledgement; at 17 the next attempt.
        for n in 18..37 {
            let seen = data(5, n - 16, 1.min(n - 17));
            assert_eq!(watch.observe(now + secs(n), seen), Verdict::Stalled, "{n}");
        }
        assert_eq!(watch.observe(now + secs(37), data(5, 21, 1)), Verdict::Dead);
    }

    #[test]
    fn a_closed_window_is_not_death() {
        let (mut watch, now) = (StallWatch::new(DEAD), Instant::now() + secs(1000));
        watch.observe(now, closed(0, 0));
        // Probes every 102 s, each answered within the second.
        for n in 1..2000 {
            let seen = closed(n % 102, u32::from(n % 102 == 101));
            assert_eq!(watch.observe(now + secs(n), seen), Verdict::Stalled, "{n}");
        }
    }

    #[test]
    fn answered_resends_into_a_closed_window_are_not_death() {
        let (mut watch, now) = (StallWatch::new(DEAD), Instant::now() + secs(1000));
        watch.observe(now, data(5, 0, 0));
        for n in 1..2000 {
            let seen = data(5, n % 100, n % 100);
            assert_eq!(watch.observe(now + secs(n), seen), Verdict::Stalled, "{n}");
        }
    }

    #[test]
    fn unanswered_probes_are_death_after_the_time() {
        let (mut watch, now) = (StallWatch::new(DEAD), Instant::now() + secs(1000));
        watch.observe(now, closed(0, 0));
        for n in 1..20 {
            let probes = u32::try_from(n / 5).unwrap();
            assert_eq!(watch.observe(now + secs(n), closed(n, probes)), Verdict::Stalled, "{n}");
        }
        assert_eq!(watch.observe(now + secs(20), closed(20, 4)), Verdict::Dead);
    }

    #[test]
    fn one_lost_probe_is_not_death() {
        let (mut watch, now) = (StallWatch::new(DEAD), Instant::now() + secs(1000));
        for n in 0..100 {
            let seen = closed(60 + n, 1);
            assert_ne!(watch.observe(now + secs(n), seen), Verdict::Dead, "{n}");
        }
        assert_eq!(watch.observe(now + secs(100), closed(160, 2)), Verdict::Dead);
    }

    #[test]
    fn looks_are_frequent_enough() {
        assert_eq!(StallWatch::new(DEAD).interval(), Duration::from_millis(2500));
        assert_eq!(StallWatch::new(Duration::ZERO).interval(), Duration::from_millis(50));
    }
}
