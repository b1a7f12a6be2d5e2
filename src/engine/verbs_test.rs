//! The engine on the model of devices: a scenario in which each call fails in turn, each event comes late or never, the
//! device goes at each position. Every run has to end in the promised events and leave nothing behind.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::scenario_test::{Outcome, Stage, play};
use super::{PROVIDER_IWARP, PROVIDER_VERBS, kind};
use crate::verbs::CmKind;
use crate::verbs::sys::{Delay, DeviceConfig, Entered, Fabric, Incident, Removal};

/// Bound on a connect, and on a graceful disconnect, where something is to fail.
const TIMEOUT_MS: u32 = 40;
/// The same where nothing is, however slow the machine.
const PATIENT_MS: u32 = 3000;
/// Runs at a time: they mostly wait.
const WORKERS: usize = 8;

fn addr(text: &str) -> socket2::SockAddr {
    text.parse::<SocketAddr>().unwrap().into()
}

/// A variation of the scenario.
#[derive(Clone, Copy, Debug)]
struct Variant {
    iwarp: bool,
    /// Both ends on one device.
    shared: bool,
    /// The listener belongs to another channel than the connections it accepts.
    spread: bool,
    v6: bool,
    rejects: bool,
    leaves: Option<(usize, usize, bool)>,
    /// Work requests run between turns, not when they are posted.
    deferred: bool,
    clean_cq: bool,
    flush_on_removal: bool,
}

const IB: Variant = Variant {
    iwarp: false,
    shared: false,
    spread: false,
    v6: false,
    rejects: false,
    leaves: None,
    deferred: false,
    clean_cq: false,
    flush_on_removal: true,
};
const IWARP: Variant = Variant { iwarp: true, ..IB };
const VARIANTS: [Variant; 4] = [
    IB,
    IWARP,
    Variant { spread: true, deferred: true, clean_cq: true, ..IB },
    Variant { shared: true, deferred: true, flush_on_removal: false, ..IWARP },
];

impl Variant {
    fn device(self, addr: &str) -> DeviceConfig {
        let config = if self.iwarp { DeviceConfig::iwarp(addr) } else { DeviceConfig::ib(addr) };
        DeviceConfig { clean_cq: self.clean_cq, flush_on_removal: self.flush_on_removal, ..config }
    }

    /// Plays the scenario with what `prepare` has go wrong, and checks that nothing is left over.
    fn play(self, prepare: impl FnOnce(&Fabric, [u64; 2])) -> (Outcome, Rc<Entered>) {
        self.play_within(TIMEOUT_MS, prepare)
    }

    fn play_within(self, timeout_ms: u32, prepare: impl FnOnce(&Fabric, [u64; 2])) -> (Outcome, Rc<Entered>) {
        let fabric = Rc::new(Fabric::enter());
        let (ours, theirs) = if self.v6 { ("fd00::1", "fd00::2") } else { ("10.77.0.1", "10.77.0.2") };
        let first = fabric.add_device(self.device(theirs));
        let second = if self.shared { first } else { fabric.add_device(self.device(ours)) };
        prepare(&fabric, [second, first]);
        fabric.defer_work(self.deferred);
        let tick = Rc::clone(&fabric);
        let stage = Stage {
            addr: SocketAddr::new(theirs.parse().unwrap(), 4791).into(),
            provider: PROVIDER_VERBS,
            timeout_ms,
            spread: self.spread,
            rejects: self.rejects,
            leaves: self.leaves,
            tick: Box::new(move || {
                tick.tick();
                if self.deferred {
                    tick.step();
                }
            }),
        };
        let outcome = play(&stage);
        fabric.assert_clean();
        (outcome, fabric)
    }
}

/// Runs `body` for each case, and tells of all that failed.
pub(crate) fn sweep<T: Sync + std::fmt::Debug>(cases: &[T], body: impl Fn(&T) + Sync) {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(case))) {
                        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                        failed.lock().unwrap().push(format!("{case:?}: {text}"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), cases.len(), failed.join("\n"));
    assert!(!cases.is_empty());
    eprintln!("{} cases", cases.len());
}

/// How many calls and events there are where nothing fails, and the calls' names.
fn extent(variant: Variant) -> (usize, usize, Vec<&'static str>) {
    let (outcome, fabric) = variant.play_within(PATIENT_MS, |_, _| {});
    assert!(outcome.complete, "{variant:?}");
    let calls = fabric.calls();
    (calls.len(), fabric.events().len(), calls)
}

#[test]
fn goes_well() {
    let stage = Stage {
        addr: addr("127.0.0.1:0"),
        provider: PROVIDER_IWARP,
        timeout_ms: 1000,
        spread: true,
        rejects: false,
        leaves: None,
        tick: Box::new(|| {}),
    };
    assert!(play(&stage).complete, "over TCP");
    for variant in VARIANTS.into_iter().chain([Variant { v6: true, ..IB }]) {
        let (outcome, _) = variant.play_within(PATIENT_MS, |_, _| {});
        let context = format!("{variant:?}: {:?}", outcome.stories.each_ref().map(|story| &story.kinds));
        assert!(outcome.complete, "{context}");
        assert_eq!(outcome.stories.map(|story| story.count(kind::DISCONNECTED)), [1, 1], "{context}");
    }
}

#[test]
fn every_call_fails_in_turn() {
    let mut cases = Vec::new();
    for variant in VARIANTS {
        let (calls, ..) = extent(variant);
        for errno in [libc::ENOMEM, libc::EINVAL, libc::EIO, libc::ENODEV] {
            cases.extend((1..=calls).map(|position| (variant, position, errno)));
        }
    }
    sweep(&cases, |(variant, position, errno)| {
        variant.play(|fabric, _| fabric.fail_at(*position, *errno));
    });
}

#[test]
fn a_reject_is_told_or_something_has_failed() {
    let mut cases = Vec::new();
    for variant in [IB, IWARP].map(|variant| Variant { rejects: true, ..variant }) {
        let (outcome, fabric) = variant.play_within(PATIENT_MS, |_, _| {});
        let texts = outcome.stories[0].texts.join("");
        assert!(texts.contains("not authorised"), "{texts}");
        cases.extend((1..=fabric.calls().len()).map(|position| (variant, position, true)));
        cases.extend((1..=fabric.events().len()).map(|position| (variant, position, false)));
    }
    sweep(&cases, |(variant, position, call)| {
        variant.play(|fabric, _| match call {
            true => fabric.fail_at(*position, libc::ENOMEM),
            false => fabric.delay_event(*position, Delay::Never),
        });
    });
}

#[test]
fn somebody_leaves_at_every_turn() {
    let mut cases = Vec::new();
    for variant in VARIANTS {
        for side in [0, 1] {
            for gracefully in [false, true] {
                cases.extend(
                    (1..=24).map(|turn| Variant { leaves: Some((turn, side, gracefully)), ..variant }),
                );
            }
        }
    }
    sweep(&cases, |variant| {
        variant.play(|_, _| {});
    });
}

/// What rdma_cm believes to be a free port may be taken, in TCP.
#[test]
fn another_port_is_tried_when_one_is_taken() {
    let variant = VARIANTS.into_iter().find(|variant| variant.iwarp).expect("a variant of iWARP");
    let position = 1 + extent(variant).2.iter().position(|name| *name == "rdma_connect").unwrap();
    let taken = |fabric: &Fabric, _| fabric.fail_at(position, libc::EADDRINUSE);
    assert!(variant.play_within(PATIENT_MS, taken).0.complete);
    let always = |fabric: &Fabric, _| fabric.fail_named(Some(("rdma_connect", libc::EADDRINUSE)));
    let (outcome, fabric) = variant.play_within(PATIENT_MS, always);
    assert!(!outcome.complete);
    assert_eq!(fabric.calls().iter().filter(|name| **name == "rdma_connect").count(), 4);
}

#[test]
fn every_function_fails_always() {
    let mut cases = Vec::new();
    for variant in VARIANTS {
        let names: BTreeSet<_> = extent(variant).2.into_iter().collect();
        cases.extend(
            names
                .into_iter()
                .flat_map(|name| [libc::ENOMEM, libc::EINVAL].map(|errno| (variant, name, errno))),
        );
    }
    sweep(&cases, |(variant, name, errno)| {
        variant.play(|fabric, _| fabric.fail_named(Some((name, *errno))));
    });
}

#[test]
fn every_event_comes_late_or_never() {
    let late = Delay::For(Duration::from_millis(2 * u64::from(TIMEOUT_MS)));
    let soon = Delay::For(Duration::from_millis(u64::from(TIMEOUT_MS) / 4));
    let mut cases = Vec::new();
    for variant in VARIANTS {
        let (_, events, _) = extent(variant);
        for delay in [soon, late, Delay::Never] {
            cases.extend((1..=events).map(|position| (variant, position, delay)));
        }
    }
    sweep(&cases, |(variant, position, delay)| {
        variant.play(|fabric, _| fabric.delay_event(*position, *delay));
    });
}

#[test]
fn a_device_goes_at_every_event() {
    let mut cases = Vec::new();
    for variant in VARIANTS {
        let (_, events, _) = extent(variant);
        for removal in [Removal::Orderly, Removal::Surprise] {
            for side in [0, 1] {
                cases.extend((1..=events).map(|position| (variant, position, side, removal)));
            }
        }
    }
    sweep(&cases, |(variant, position, side, removal)| {
        let side = *side as usize;
        variant.play(|fabric, devices| {
            fabric.happen_at(*position, Incident::Removal(devices[side], *removal));
        });
    });
}

#[test]
fn rdma_cm_tells_odd_things_at_every_event() {
    let mut cases = Vec::new();
    for variant in VARIANTS {
        let (_, events, _) = extent(variant);
        for kind in [CmKind::Unreachable, CmKind::AddrChange, CmKind::TimewaitExit, CmKind::Other(99)] {
            cases.extend((1..=events).map(|position| (variant, position, kind)));
        }
    }
    sweep(&cases, |(variant, position, kind)| {
        let incident = Incident::Event(*kind, -libc::ETIMEDOUT);
        let (outcome, fabric) =
            variant.play_within(PATIENT_MS, |fabric, _| fabric.happen_at(*position, incident));
        let events = fabric.events();
        let before =
            events[..events.len().min(*position)].iter().filter(|event| event.starts_with("Established"));
        if *kind != CmKind::AddrChange && before.count() == 1 + usize::from(variant.iwarp) {
            let texts = outcome.stories.map(|story| story.texts);
            assert!(outcome.complete, "nothing of that ends a connection: {texts:?}");
        }
    });
}
