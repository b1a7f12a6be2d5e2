//! The awkward orders met in the field, each with a test of its own.

use super::*;

fn closes(mut rig: Rig) -> Rig {
    rig.event(Event::Flushed);
    assert_eq!(rig.life.state(), State::Closed);
    assert_eq!(rig.reports().last(), Some(&Report::Closed));
    rig
}

#[test]
fn active_connects_and_leaves_gracefully() {
    let mut rig = Rig::active_at(1, Stage::Connected);
    assert!(rig.life.may_post_send());
    rig.request(Request::Disconnect);
    assert!(!rig.life.may_post_send() && rig.life.may_post_recv());
    rig.event(Event::SendsDrained);
    rig.event(Event::Disconnected);
    let rig = closes(rig);
    let expected = [
        Action::ResolveAddress(0),
        Action::ResolveRoute,
        Action::CreateQueuePair,
        Action::Connect,
        Action::Report(Report::Established),
        Action::DrainSends,
        Action::SendDisconnect,
        Action::Report(Report::Disconnected(rig.error())),
        Action::FlushQueuePair,
        Action::Destroy,
        Action::Report(Report::Closed),
    ];
    assert_eq!(rig.done, expected);
    assert_eq!(rig.error().reason, Reason::Cancelled);
}

#[test]
fn passive_accepts_and_the_peer_leaves() {
    let mut rig = Rig::passive_at(State::Established);
    rig.event(Event::Disconnected);
    let rig = closes(rig);
    let expected = [
        Action::CreateQueuePair,
        Action::SendAccept,
        Action::Report(Report::Established),
        Action::Report(Report::Disconnected(rig.error())),
        Action::FlushQueuePair,
        Action::SendDisconnect,
        Action::Destroy,
        Action::Report(Report::Closed),
    ];
    assert_eq!(rig.done, expected);
    assert_eq!((rig.error().reason, rig.error().stage), (Reason::PeerClosed, Stage::Connected));
}

#[test]
fn established_without_a_reply_event() {
    let mut rig = Rig::active_at(1, Stage::Handshake);
    rig.event(Event::Established);
    assert_eq!(rig.life.state(), State::Established);
    rig.event(Event::HandshakeDone);
    assert_eq!((rig.life.stage(), rig.life.ignored()), (Stage::Connected, 1));
}

#[test]
fn disconnected_before_established_is_a_failed_connect() {
    for stage in [Stage::Handshake, Stage::Ready] {
        let mut rig = Rig::active_at(1, stage);
        rig.event(Event::Disconnected);
        rig.event(Event::Established);
        let rig = closes(rig);
        assert_eq!((rig.error().reason, rig.error().stage), (Reason::PeerClosed, stage));
        assert_eq!(rig.reports().len(), 2);
    }
    let mut rig = Rig::passive_at(State::Accepting);
    rig.event(Event::QueuePairReady);
    rig.event(Event::Disconnected);
    rig.event(Event::Established);
    let rig = closes(rig);
    assert_eq!(rig.error().reason, Reason::PeerClosed);
    assert!(!rig.did(&Action::SendReject));
}

#[test]
fn unreachable_on_a_connected_id_is_counted_only() {
    let mut rig = Rig::active_at(1, Stage::Connected);
    rig.event(Event::Unreachable);
    rig.event(Event::Unreachable);
    assert_eq!((rig.life.state(), rig.life.unreachable_while_connected()), (State::Established, 2));
    rig.request(Request::Disconnect);
    rig.event(Event::Unreachable);
    rig.event(Event::SendsDrained);
    rig.event(Event::Unreachable);
    assert_eq!((rig.life.state(), rig.life.unreachable_while_connected()), (State::Disconnecting, 4));
}

#[test]
fn unreachable_before_established_fails_the_connect() {
    let mut rig = Rig::active_at(1, Stage::Handshake);
    rig.event(Event::Unreachable);
    assert_eq!(closes(rig).error().reason, Reason::Unreachable);
}

#[test]
fn address_change_on_a_connected_id_ends_it() {
    let mut rig = Rig::passive_at(State::Established);
    rig.event(Event::AddressChanged);
    rig.event(Event::AddressChanged);
    let rig = closes(rig);
    assert_eq!((rig.error().reason, rig.error().errno), (Reason::Unreachable, libc::ENETRESET));
    assert!(rig.did(&Action::SendDisconnect));
}

#[test]
fn timewait_exit_is_neither_needed_nor_noticed() {
    for (name, mut rig) in Rig::everywhere() {
        let (state, done) = (rig.life.state(), rig.done.len());
        rig.event(Event::TimewaitExit);
        assert_eq!((rig.life.state(), rig.done.len()), (state, done), "{name}");
    }
}

#[test]
fn close_at_every_state_twice() {
    for (name, mut rig) in Rig::everywhere() {
        let began = rig.now;
        rig.request(Request::Close);
        rig.request(Request::Close);
        assert!(matches!(rig.life.state(), State::Flushing | State::Closed), "{name}");
        rig.advance(ms(500));
        assert_eq!(rig.life.state(), State::Closed, "{name}");
        assert!(rig.now - began <= ms(500));
        rig.request(Request::Close);
        for event in all_events() {
            rig.event(event);
        }
        assert_eq!(rig.life.poll_timeout(), None, "{name}");
    }
}

#[test]
fn device_removal_at_every_state() {
    for (name, mut rig) in Rig::everywhere() {
        let (state, told) = (rig.life.state(), rig.check.seen());
        let attempts = rig.life.attempt();
        rig.event(Event::DeviceRemoved);
        match state {
            State::Idle if rig.life.role() == Role::Active => {
                assert_eq!(rig.life.state(), State::Idle, "{name}")
            }
            State::Connecting if rig.life.attempt() > attempts => {
                assert!(rig.did(&Action::Abandon), "{name}")
            }
            State::Flushing | State::Closed => assert_eq!(rig.life.state(), state, "{name}"),
            State::Idle => assert_eq!(rig.life.state(), State::Flushing, "{name}"),
            _ => {
                assert_eq!(
                    (rig.life.state(), rig.error().reason),
                    (State::Flushing, Reason::DeviceGone),
                    "{name}"
                );
                assert!(!rig.did(&Action::SendReject), "nothing can be sent: {name}");
                let said = state == State::Disconnecting;
                assert_eq!(rig.did(&Action::SendDisconnect), said, "nothing can be sent: {name}");
                assert!(!told.failed && !told.disconnected);
            }
        }
    }
}

#[test]
fn second_terminal_event_changes_nothing() {
    let terminal: Vec<Event> = all_events()
        .into_iter()
        .filter(|event| {
            matches!(
                event,
                Event::Failed(_)
                    | Event::Rejected(_)
                    | Event::Disconnected
                    | Event::AddressChanged
                    | Event::DeviceRemoved
                    | Event::StreamError(_)
            )
        })
        .collect();
    for (name, start) in Rig::everywhere() {
        for first in &terminal {
            let mut rig = start.clone();
            while rig.life.state() != State::Flushing && rig.life.state() != State::Closed {
                let before = rig.life.attempt();
                rig.event(first.clone());
                if rig.life.state() == State::Idle {
                    rig.request(Request::Start);
                } else if rig.life.state() != State::Flushing {
                    assert!(rig.life.attempt() > before, "{name}: {first:?} led nowhere");
                }
            }
            let done = rig.done.len();
            for second in &terminal {
                rig.event(second.clone());
            }
            assert_eq!(rig.done.len(), done, "{name}: after {first:?}");
        }
    }
}

#[test]
fn rejected_after_the_timeout_is_stale() {
    let mut rig = Rig::active_at(1, Stage::Handshake);
    rig.advance(ms(5000));
    assert_eq!((rig.error().reason, rig.error().errno), (Reason::Timeout, libc::ETIMEDOUT));
    assert_eq!(rig.error().text, "no answer at stage 'handshake'");
    let done = rig.done.len();
    rig.event(Event::Rejected(said_no()));
    assert_eq!(rig.done.len(), done);

    let mut rig = Rig::active_at(2, Stage::Handshake);
    rig.advance(ms(2500));
    assert_eq!(rig.life.attempt(), 1);
    rig.event_for(0, Event::Rejected(said_no()));
    rig.event_for(0, Event::Established);
    assert_eq!((rig.life.state(), rig.life.stage()), (State::Connecting, Stage::Address));
}

#[test]
fn rejected_ends_all_candidates() {
    let mut rig = Rig::active_at(3, Stage::Handshake);
    rig.event(Event::Rejected(said_no()));
    let rig = closes(rig);
    assert_eq!(rig.error(), said_no().at(Stage::Handshake));
    assert!(!rig.did(&Action::Abandon) && rig.life.attempts().len() == 1);
}

#[test]
fn candidates_share_the_deadline_and_the_furthest_failure_is_told() {
    let mut rig = Rig::active(4);
    rig.request(Request::Start);
    rig.event(Event::AddressResolved);
    rig.event(Event::RouteResolved);
    rig.event(Event::QueuePairReady);
    rig.advance(ms(1250));
    assert_eq!(rig.life.attempt(), 1, "a fair share each");
    rig.event(Event::Failed(refused()));
    assert_eq!(rig.life.attempt(), 2, "a failure goes on at once");
    rig.advance(ms(1875));
    assert_eq!(rig.life.attempt(), 3, "what is left is shared anew");
    rig.event(Event::AddressResolved);
    rig.advance(ms(1875));
    assert_eq!(rig.life.state(), State::Flushing);
    assert_eq!((rig.error().stage, rig.error().reason), (Stage::Handshake, Reason::Timeout));
    let tried: Vec<_> =
        rig.life.attempts().iter().map(|tried| (tried.candidate, tried.error.stage)).collect();
    assert_eq!(tried, [(0, Stage::Handshake), (1, Stage::Address), (2, Stage::Address), (3, Stage::Route)]);
    assert_eq!(rig.life.attempts()[0].elapsed, ms(1250));
    assert_eq!(rig.life.attempts()[3].elapsed, ms(1875));
    assert_eq!(rig.life.elapsed(rig.now), ms(5000));
}

#[test]
fn of_equal_failures_the_last_is_told() {
    let mut rig = Rig::active(2);
    rig.request(Request::Start);
    rig.event(Event::Failed(refused()));
    rig.event(Event::Failed(reset()));
    assert_eq!(rig.error(), reset().at(Stage::Address));
}

#[test]
fn a_provider_may_name_the_stage() {
    let mut rig = Rig::active_at(1, Stage::Route);
    rig.event(Event::Failed(Error::new(libc::EMFILE, Reason::Resources, "no socket").at(Stage::Device)));
    assert_eq!(rig.error().stage, Stage::Device);
}

#[test]
fn many_candidates_and_little_time() {
    let mut rig = Rig::new(Role::Active, Config { deadline: ms(600), ..config(10) });
    rig.request(Request::Start);
    rig.advance(ms(600));
    assert_eq!(rig.life.attempts().len(), 3, "250, 250 and the remaining 100 ms");
    assert_eq!(rig.life.state(), State::Flushing);
}

#[test]
fn graceful_disconnect_is_bounded_once() {
    let mut rig = Rig::active_at(1, Stage::Connected);
    rig.request(Request::Disconnect);
    rig.advance(ms(1500));
    rig.event(Event::SendsDrained);
    rig.request(Request::Disconnect);
    rig.advance(ms(500));
    assert_eq!(rig.life.state(), State::Flushing, "linger bounds draining and waiting together");
    rig.advance(ms(500));
    assert_eq!(rig.life.state(), State::Closed, "flush_grace bounds the flush");

    let mut rig = Rig::active_at(1, Stage::Connected);
    rig.request(Request::Disconnect);
    rig.advance(ms(2000));
    assert_eq!(rig.life.state(), State::Flushing);
    assert!(rig.did(&Action::SendDisconnect), "the peer is told though the sends never drained");
}

#[test]
fn error_during_a_graceful_disconnect_is_told() {
    for drained in [false, true] {
        let mut rig = Rig::active_at(1, Stage::Connected);
        rig.request(Request::Disconnect);
        if drained {
            rig.event(Event::SendsDrained);
        }
        rig.event(Event::StreamError(reset()));
        assert_eq!(rig.error(), reset().at(Stage::Connected));
    }
}

#[test]
fn peer_leaving_while_sends_drain_is_told() {
    let mut rig = Rig::active_at(1, Stage::Connected);
    rig.request(Request::Disconnect);
    rig.event(Event::Disconnected);
    assert_eq!(closes(rig).error().reason, Reason::PeerClosed);
}

#[test]
fn rejecting_reports_closed_only() {
    for request in [Request::Reject, Request::Close, Request::Disconnect] {
        let mut rig = Rig::passive_at(State::Requested);
        rig.advance(ms(3_600_000));
        rig.request(request);
        rig.event(Event::Disconnected);
        let rig = closes(rig);
        assert_eq!(rig.reports(), [Report::Closed]);
        assert!(rig.did(&Action::SendReject));
    }
}

#[test]
fn peer_vanishing_before_the_answer() {
    for event in
        [Event::Disconnected, Event::StreamError(reset()), Event::Failed(refused()), Event::Unreachable]
    {
        let mut rig = Rig::passive_at(State::Requested);
        rig.event(event);
        assert_eq!(rig.try_request(Request::Accept), Err(libc::ENOTCONN));
        let rig = closes(rig);
        assert_eq!((rig.reports().len(), rig.error().stage), (2, Stage::Handshake));
        assert!(!rig.did(&Action::SendReject));
    }
}

#[test]
fn failing_to_accept_tells_the_peer() {
    let mut rig = Rig::passive_at(State::Accepting);
    rig.event(Event::Failed(Error::new(libc::ENOMEM, Reason::Resources, "no queue pair")));
    assert!(rig.did(&Action::SendReject));
    assert_eq!(closes(rig).error().stage, Stage::QueuePair);

    let mut rig = Rig::passive_at(State::Accepting);
    rig.event(Event::QueuePairReady);
    rig.request(Request::Close);
    assert!(!rig.did(&Action::SendReject), "an accept is not taken back");
    assert_eq!(closes(rig).error().reason, Reason::Cancelled);
}

#[test]
fn silent_peer_is_bounded_on_the_passive_side() {
    let mut rig = Rig::passive();
    rig.advance(ms(5000));
    assert_eq!(closes(rig).reports(), [Report::Closed], "nobody knew of it");

    let mut rig = Rig::passive_at(State::Accepting);
    rig.event(Event::QueuePairReady);
    rig.event(Event::HandshakeDone);
    rig.advance(ms(5000));
    let rig = closes(rig);
    assert_eq!((rig.error().reason, rig.error().stage), (Reason::Timeout, Stage::Ready));
}

#[test]
fn the_callers_own_time_is_not_counted() {
    let mut rig = Rig::active(1);
    rig.advance(ms(60_000));
    rig.request(Request::Start);
    rig.advance(ms(4999));
    assert_eq!(rig.life.state(), State::Connecting);

    let mut rig = Rig::passive_at(State::Requested);
    rig.advance(ms(60_000));
    rig.request(Request::Accept);
    rig.advance(ms(4999));
    assert_eq!(rig.life.state(), State::Accepting);
}

#[test]
fn requests_out_of_place_say_why() {
    let mut active = Rig::active(1);
    assert_eq!(active.try_request(Request::Accept), Err(libc::EINVAL));
    assert_eq!(active.try_request(Request::Start), Ok(()));
    assert_eq!(active.try_request(Request::Start), Err(libc::EISCONN));
    let mut passive = Rig::passive();
    assert_eq!(passive.try_request(Request::Start), Err(libc::EINVAL));
    assert_eq!(passive.try_request(Request::Reject), Err(libc::ENOTCONN));
    passive.event(Event::Requested);
    assert_eq!(passive.try_request(Request::Accept), Ok(()));
    assert_eq!(passive.try_request(Request::Accept), Err(libc::EISCONN));
    assert_eq!(passive.try_request(Request::Reject), Err(libc::EISCONN));
    passive.request(Request::Close);
    assert_eq!(passive.try_request(Request::Reject), Err(libc::ENOTCONN));
}

#[test]
fn flushed_is_heard_only_after_the_flush_was_asked_for() {
    let mut rig = Rig::active_at(1, Stage::Connected);
    rig.event(Event::Flushed);
    assert_eq!(rig.life.state(), State::Established);
    rig.request(Request::Close);
    rig.event_for(7, Event::Flushed);
    assert_eq!(rig.life.state(), State::Flushing);
    closes(rig);
}

#[test]
fn bounds_without_end_do_not_overflow() {
    let endless =
        Config { candidates: 0, deadline: Duration::MAX, linger: Duration::MAX, flush_grace: Duration::MAX };
    let now = Instant::now();
    let mut life = Life::active(endless, now);
    assert_eq!(life.handle_request(now, Request::Start), Ok(()));
    assert!(life.poll_timeout().is_some_and(|due| due > now + ms(1_000_000)));
    assert_eq!(life.handle_request(now, Request::Close), Ok(()));
    assert!(life.poll_timeout().is_some());
}
