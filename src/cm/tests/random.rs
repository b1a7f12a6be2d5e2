//! Any input in any order: random sequences, and every reachable situation once.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// What a provider without faults would answer next.
    Likely,
    /// An event, for a candidate some way from the present one.
    Event(usize, usize),
    Request(usize),
    /// Time passes, timeouts on the dot.
    Advance(u64),
    /// Time passes, the timeout is served late.
    Late(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Likely),
        4 => (0..16usize, 0..3usize).prop_map(|(event, off)| Step::Event(event, off)),
        2 => (0..5usize).prop_map(Step::Request),
        2 => (0..1500u64).prop_map(Step::Advance),
        1 => (0..1500u64).prop_map(Step::Late),
    ]
}

fn any_config() -> impl Strategy<Value = Config> {
    (0..5usize, 0..6000u64, 0..3000u64, 0..1000u64).prop_map(|(candidates, deadline, linger, grace)| Config {
        candidates,
        deadline: ms(deadline),
        linger: ms(linger),
        flush_grace: ms(grace),
    })
}

/// Runs the steps under the checker's eyes.
fn run(rig: &mut Rig, steps: &[Step]) {
    let mut performed = 0;
    let mut likely = std::collections::VecDeque::new();
    let role = rig.life.role();
    if role == Role::Passive {
        likely.push_back((0, Event::Requested));
    }
    for step in steps {
        match *step {
            Step::Likely => match (likely.pop_front(), rig.life.state()) {
                (Some((attempt, event)), _) => rig.event_for(attempt, event),
                (None, State::Idle) => rig.request(Request::Start),
                (None, State::Requested) => rig.request(Request::Accept),
                (None, _) => rig.advance(ms(1)),
            },
            Step::Event(event, off) => {
                let attempt = (rig.life.attempt() + off.saturating_sub(1)).saturating_sub(off / 2);
                rig.event_for(attempt, all_events().swap_remove(event));
            }
            Step::Request(request) => rig.request(REQUESTS[request]),
            Step::Advance(by) => rig.advance(ms(by)),
            Step::Late(by) => {
                rig.check.late = true;
                rig.now += ms(by);
                rig.timeout();
            }
        }
        for action in &rig.done[performed..] {
            likely.extend(answers(role, action).into_iter().map(|event| (rig.life.attempt(), event)));
        }
        performed = rig.done.len();
    }
}

/// From here, `Close` and at most `flush_grace` lead to `Closed`.
fn close_suffices(mut rig: Rig, grace: Duration) {
    rig.request(Request::Close);
    rig.advance(grace);
    assert!(rig.check.seen().closed);
}

/// From here, with nothing but time, all ends that does not wait for the caller.
fn time_suffices(mut rig: Rig, config: Config) {
    rig.advance(config.deadline + config.linger + config.flush_grace + ms(1));
    let waits_for_caller = match rig.life.state() {
        State::Idle => rig.life.role() == Role::Active,
        State::Requested | State::Established | State::Closed => true,
        _ => false,
    };
    assert!(waits_for_caller, "stuck in {:?}", rig.life.state());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold_for_any_input(
        passive in any::<bool>(),
        config in any_config(),
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let mut rig = Rig::new(if passive { Role::Passive } else { Role::Active }, config);
        run(&mut rig, &steps);
        close_suffices(rig.clone(), config.flush_grace);
        time_suffices(rig, config);
    }
}

/// Every situation the machine can be in, told apart by all but times, with every input there: nothing is left to
/// chance. Time is abstract: a timeout comes when it is due.
#[test]
fn promises_hold_in_every_situation() {
    for role in [Role::Active, Role::Passive] {
        let config = config(if role == Role::Active { 3 } else { 1 });
        let mut known = HashSet::new();
        let mut open = vec![Rig::new(role, config)];
        while let Some(rig) = open.pop() {
            if !known.insert((
                rig.life.state(),
                rig.life.stage() as u32,
                rig.life.attempt(),
                rig.check.seen(),
            )) {
                continue;
            }
            close_suffices(rig.clone(), config.flush_grace);
            time_suffices(rig.clone(), config);
            let mut fork = |input: &dyn Fn(&mut Rig)| {
                let mut next = rig.clone();
                input(&mut next);
                open.push(next);
            };
            fork(&Rig::fire);
            for request in REQUESTS {
                fork(&|next| next.request(request));
            }
            for event in all_events() {
                for attempt in 0..3 {
                    fork(&|next| next.event_for(attempt, event.clone()));
                }
            }
        }
        let reached: HashSet<State> = known.iter().map(|situation| situation.0).collect();
        let missing = match role {
            Role::Active => [State::Requested, State::Accepting].as_slice(),
            Role::Passive => [State::Connecting].as_slice(),
        };
        assert_eq!(reached.len() + missing.len(), 9, "every state but {missing:?} is reached");
        assert!(known.len() < 250, "{} situations: the machine has grown", known.len());
    }
}
