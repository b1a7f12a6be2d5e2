//! The times of the stages.

use super::*;

#[test]
fn each_stage_gets_its_time() {
    let mut rig = Rig::active(1);
    rig.advance(ms(100));
    rig.request(Request::Start);
    let steps = [
        (10, Event::AddressResolved),
        (20, Event::RouteResolved),
        (5, Event::QueuePairReady),
        (40, Event::HandshakeDone),
        (3, Event::Established),
    ];
    for (took, step) in steps {
        rig.advance(ms(took));
        rig.event(step);
    }
    rig.advance(ms(1000));
    let expected = [0, 10, 20, 0, 5, 40, 3, 1000].map(ms);
    assert_eq!(rig.life.stage_times(rig.now), expected, "what passed before Start is not counted");
    rig.request(Request::Close);
    rig.advance(ms(100));
    assert_eq!(rig.life.stage_times(rig.now), expected, "and the end stops the clock");
    assert_eq!(rig.life.elapsed(rig.now), ms(1078));
}

#[test]
fn failed_candidates_are_booked_apart() {
    let mut rig = Rig::active(2);
    rig.request(Request::Start);
    rig.advance(ms(30));
    rig.event(Event::AddressResolved);
    rig.advance(ms(70));
    rig.event(Event::Failed(refused()));
    rig.advance(ms(9));
    assert_eq!(rig.life.stage_times(rig.now), [100, 9, 0, 0, 0, 0, 0, 0].map(ms));
    assert_eq!(rig.life.elapsed(rig.now), ms(109));
}
