//! Two ends joined by a simulated network on a virtual clock: latency, loss, reordered and doubled events, death of
//! a peer, all from a seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

/// xorshift64*: the same seed gives the same run everywhere.
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Self {
        let mut rng = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        rng.below(2);
        rng
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound.max(1)
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// What one address of the server does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Address {
    Listens,
    Refuses,
    Silent,
}

/// What the server's caller does with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Accept,
    Reject,
    Never,
}

/// How the network and its users behave.
#[derive(Clone, Debug)]
struct Plan {
    seed: u64,
    addresses: Vec<Address>,
    answer: Answer,
    /// Longest time of one message or one local step, ms; each gets its own, so events overtake each other.
    jitter: u64,
    /// Percent of the messages lost for good.
    loss: u64,
    /// Percent of the local events that come twice, and of stray events beside them.
    noise: u64,
    /// When the server's machine dies, ms.
    server_dies: Option<u64>,
    /// (who, when, what) the callers wish.
    wishes: Vec<(usize, u64, Request)>,
}

impl Plan {
    fn calm(seed: u64) -> Self {
        Self {
            seed,
            addresses: vec![Address::Listens],
            answer: Answer::Accept,
            jitter: 3,
            loss: 0,
            noise: 0,
            server_dies: None,
            wishes: Vec::new(),
        }
    }

    fn wild(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let kinds = [Address::Listens, Address::Listens, Address::Refuses, Address::Silent];
        let addresses = (0..=rng.below(3)).map(|_| kinds[rng.below(4) as usize]).collect();
        let answer = [Answer::Accept, Answer::Accept, Answer::Accept, Answer::Reject, Answer::Never];
        let wish = [Request::Close, Request::Disconnect];
        let wishes = (0..rng.below(4))
            .map(|_| (rng.below(2) as usize, rng.below(4000), wish[rng.below(2) as usize]))
            .collect();
        Self {
            seed,
            addresses,
            answer: answer[rng.below(5) as usize],
            jitter: 1 + rng.below(400),
            loss: [0, 0, 5, 30][rng.below(4) as usize],
            noise: [0, 0, 5, 40][rng.below(4) as usize],
            server_dies: rng.percent(20).then(|| rng.below(4000)),
            wishes,
        }
    }
}

/// What one end sends the other.
#[derive(Clone, Copy, Debug)]
enum Message {
    Request,
    Reply,
    Ready,
    Reject,
    /// Orderly: FIN or DREQ.
    Bye,
    /// Disorderly: RST, or the objects were destroyed.
    Gone,
}

#[derive(Clone, Debug)]
enum Item {
    Event(usize, usize, Event),
    Message { to: usize, attempt: usize, message: Message },
    Wish(usize, Request),
    ServerDies,
}

/// One end: a rig, and what the simulated provider knows.
struct End {
    rig: Rig,
    /// The candidate whose actions are now performed.
    attempt: usize,
    performed: usize,
    alive: bool,
    said_bye: bool,
    peers: Vec<Option<usize>>,
}

impl End {
    fn new(role: Role, now: Instant, config: Config, peer: Option<usize>) -> Self {
        let mut rig = Rig::new(role, config);
        rig.now = now;
        rig.life = if role == Role::Active { Life::active(config, now) } else { Life::passive(config, now) };
        rig.check = Checker::new(role, config, now);
        let peers = vec![peer; config.candidates.max(1)];
        Self { rig, attempt: 0, performed: 0, alive: true, said_bye: false, peers }
    }
}

/// The world: end 0 is the client, every request that arrives makes one more end.
struct World {
    plan: Plan,
    rng: Rng,
    base: Instant,
    now: Instant,
    ends: Vec<End>,
    queue: BinaryHeap<Reverse<(Instant, usize)>>,
    items: Vec<Option<Item>>,
}

/// The callers' patience: at this time both close.
const PATIENCE: Duration = ms(20_000);

impl World {
    fn run(plan: Plan) -> Self {
        let base = Instant::now();
        let config = Config { candidates: plan.addresses.len(), ..config(1) };
        let client = End::new(Role::Active, base, config, None);
        let rng = Rng::new(plan.seed ^ 0xABCD);
        let mut world = Self {
            plan,
            rng,
            base,
            now: base,
            ends: vec![client],
            queue: BinaryHeap::new(),
            items: Vec::new(),
        };
        world.at(ms(0), Item::Wish(0, Request::Start));
        world.at(PATIENCE, Item::Wish(0, Request::Close));
        for (who, when, request) in world.plan.wishes.clone() {
            world.at(ms(when), Item::Wish(who, request));
        }
        if let Some(when) = world.plan.server_dies {
            world.at(ms(when), Item::ServerDies);
        }
        while world.step() {}
        world
    }

    /// `item` happens `after` the beginning.
    fn at(&mut self, after: Duration, item: Item) {
        self.queue.push(Reverse((self.base + after, self.items.len())));
        self.items.push(Some(item));
    }

    fn soon(&mut self, item: Item) {
        let delay = ms(1 + self.rng.below(self.plan.jitter));
        self.at(self.now - self.base + delay, item);
    }

    /// The next thing that happens, a timeout or an item; false when nothing is left.
    fn step(&mut self) -> bool {
        let timer = (0..self.ends.len())
            .filter(|end| self.ends[*end].alive)
            .filter_map(|end| Some((self.ends[end].rig.life.poll_timeout()?, end)))
            .min();
        let item = self.queue.peek().map(|Reverse(next)| *next);
        match (timer, item) {
            (Some((due, end)), next) if next.is_none_or(|(when, _)| due <= when) => {
                self.now = due;
                self.ends[end].rig.now = due;
                self.ends[end].rig.timeout();
                self.perform(end);
            }
            (_, Some((when, id))) => {
                self.queue.pop();
                self.now = when;
                if let Some(item) = self.items[id].take() {
                    self.happen(item);
                }
            }
            (_, None) => return false,
        }
        true
    }

    fn happen(&mut self, item: Item) {
        match item {
            Item::Event(end, attempt, event) => self.hear(end, attempt, event),
            Item::Message { to, attempt, message } => self.arrive(to, attempt, message),
            Item::Wish(0, request) => self.wish(0, request),
            Item::Wish(_, request) => (1..self.ends.len()).for_each(|end| self.wish(end, request)),
            Item::ServerDies => {
                self.plan.addresses.fill(Address::Silent);
                for end in 1..self.ends.len() {
                    self.ends[end].alive = false;
                }
                // The client's keepalive finds out.
                let dead = Error::new(libc::ETIMEDOUT, Reason::PeerDead, "the peer is dead");
                let attempt = self.ends[0].attempt;
                if self.ends[0].rig.life.state() == State::Established {
                    self.at(
                        self.now - self.base + ms(3000),
                        Item::Event(0, attempt, Event::StreamError(dead)),
                    );
                }
            }
        }
    }

    fn hear(&mut self, end: usize, attempt: usize, event: Event) {
        if self.ends[end].alive {
            self.ends[end].rig.now = self.now;
            self.ends[end].rig.event_for(attempt, event);
            self.perform(end);
        }
    }

    fn wish(&mut self, end: usize, request: Request) {
        if self.ends[end].alive {
            self.ends[end].rig.now = self.now;
            self.ends[end].rig.request(request);
            self.perform(end);
        }
    }

    /// A local event, some time later, perhaps twice, perhaps with a stray one.
    fn answer(&mut self, end: usize, event: Event) {
        let attempt = self.ends[end].attempt;
        if self.rng.percent(self.plan.noise) {
            self.soon(Item::Event(end, attempt, event.clone()));
        }
        if self.rng.percent(self.plan.noise / 4) {
            let stray = all_events().swap_remove(self.rng.below(16) as usize);
            // A flush that is not over must not be called over: that promise is the provider's.
            if stray != Event::Flushed {
                self.soon(Item::Event(end, attempt, stray));
            }
        }
        self.soon(Item::Event(end, attempt, event));
    }

    fn send(&mut self, from: usize, message: Message) {
        let attempt = self.ends[from].attempt;
        let lost = self.rng.percent(self.plan.loss);
        if let (Some(to), false) = (self.ends[from].peers[attempt], lost) {
            // The server's ends know their client's attempt by their own number.
            let attempt = if to == 0 { self.client_attempt(from) } else { 0 };
            self.soon(Item::Message { to, attempt, message });
        }
    }

    fn client_attempt(&self, server: usize) -> usize {
        self.ends[0].peers.iter().position(|peer| *peer == Some(server)).unwrap_or(usize::MAX)
    }

    fn arrive(&mut self, to: usize, attempt: usize, message: Message) {
        let connected = self.ends[to].rig.check.seen().established;
        match message {
            Message::Request => self.hear(to, 0, Event::Requested),
            Message::Reply => {
                if self.ends[to].alive && attempt == self.ends[to].attempt {
                    self.send(to, Message::Ready);
                }
                self.soon(Item::Event(to, attempt, Event::HandshakeDone));
                self.soon(Item::Event(to, attempt, Event::Established));
            }
            Message::Ready => self.hear(to, 0, Event::Established),
            Message::Reject => self.hear(to, attempt, Event::Rejected(said_no())),
            Message::Gone if connected => self.hear(to, attempt, Event::StreamError(reset())),
            Message::Bye | Message::Gone => self.hear(to, attempt, Event::Disconnected),
        }
        let fresh = self.ends[to].rig.life.state() == State::Requested && matches!(message, Message::Request);
        if fresh {
            match self.plan.answer {
                Answer::Accept => self.soon(Item::Wish(to, Request::Accept)),
                Answer::Reject => self.soon(Item::Wish(to, Request::Reject)),
                Answer::Never => {}
            }
            self.at((self.now - self.base).max(PATIENCE), Item::Wish(to, Request::Close));
        }
    }

    /// Performs what the life asked for.
    fn perform(&mut self, end: usize) {
        while let Some(action) = self.ends[end].rig.done.get(self.ends[end].performed).cloned() {
            self.ends[end].performed += 1;
            match action {
                Action::ResolveAddress(candidate) => {
                    self.ends[end].attempt = candidate;
                    self.answer(end, Event::AddressResolved);
                }
                Action::ResolveRoute => match self.plan.addresses[self.ends[end].attempt] {
                    Address::Listens => self.answer(end, Event::RouteResolved),
                    Address::Refuses => self.answer(end, Event::Failed(refused())),
                    Address::Silent => {}
                },
                Action::CreateQueuePair => self.answer(end, Event::QueuePairReady),
                Action::Connect => self.connect(end),
                Action::SendAccept => {
                    self.answer(end, Event::HandshakeDone);
                    self.send(end, Message::Reply);
                }
                Action::SendReject => {
                    // Nothing follows a reject: not a message of its own, and TCP keeps its FIN behind it.
                    self.ends[end].said_bye = true;
                    self.send(end, Message::Reject);
                }
                Action::DrainSends => self.answer(end, Event::SendsDrained),
                Action::SendDisconnect => {
                    self.ends[end].said_bye = true;
                    self.send(end, Message::Bye);
                }
                Action::FlushQueuePair => {
                    if !self.rng.percent(self.plan.noise / 2) {
                        self.answer(end, Event::Flushed);
                    }
                }
                Action::Abandon => self.send(end, Message::Gone),
                Action::Destroy => {
                    if !self.ends[end].said_bye {
                        self.send(end, Message::Gone);
                    }
                }
                Action::Report(_) => {}
            }
        }
    }

    fn connect(&mut self, end: usize) {
        let attempt = self.ends[end].attempt;
        if self.plan.addresses[attempt] == Address::Listens {
            let server = self.ends.len();
            self.ends.push(End::new(Role::Passive, self.now, config(1), Some(end)));
            self.ends[end].peers[attempt] = Some(server);
            self.send(end, Message::Request);
        }
    }

    /// What must hold when nothing more happens.
    fn ended_well(&self) {
        for (number, end) in self.ends.iter().enumerate().filter(|(_, end)| end.alive) {
            assert_eq!(end.rig.life.state(), State::Closed, "end {number}, {:?}", self.plan);
            assert_eq!(end.rig.reports().last(), Some(&Report::Closed));
        }
        assert!(self.now <= self.base + PATIENCE + ms(7000), "{:?}", self.plan);
    }

    fn reasons(&self, end: usize) -> (bool, Reason) {
        (self.ends[end].rig.check.seen().established, self.ends[end].rig.error().reason)
    }
}

#[test]
fn calm_network_either_side_leaves() {
    for seed in 0..50 {
        for who in [0, 1] {
            let world =
                World::run(Plan { wishes: vec![(who, 1000, Request::Disconnect)], ..Plan::calm(seed) });
            world.ended_well();
            assert_eq!(world.reasons(who), (true, Reason::Cancelled));
            assert_eq!(world.reasons(1 - who), (true, Reason::PeerClosed));
            let ended = world.ends[who].rig.life.elapsed(world.now);
            assert!(ended < ms(1100), "the peer's answer ends it, not the linger: {ended:?}");
        }
    }
}

#[test]
fn both_leave_at_once() {
    for seed in 0..50 {
        let wishes = vec![(0, 1000, Request::Disconnect), (1, 1000, Request::Disconnect)];
        let world = World::run(Plan { wishes, ..Plan::calm(seed) });
        world.ended_well();
        assert!(world.reasons(0).0 && world.reasons(1).0);
    }
}

#[test]
fn server_says_no() {
    for seed in 0..20 {
        let addresses = vec![Address::Refuses, Address::Listens, Address::Listens];
        let world = World::run(Plan { answer: Answer::Reject, addresses, ..Plan::calm(seed) });
        world.ended_well();
        assert_eq!(world.reasons(0), (false, Reason::Rejected));
        assert_eq!(world.ends.len(), 2, "the third address was not tried");
        assert_eq!(world.ends[1].rig.reports(), [Report::Closed]);
    }
}

#[test]
fn second_address_answers() {
    for first in [Address::Refuses, Address::Silent] {
        let plan = Plan { addresses: vec![first, Address::Listens], ..Plan::calm(7) };
        let world = World::run(plan);
        world.ended_well();
        assert!(world.reasons(0).0 && world.ends[0].rig.life.attempts().len() == 1);
    }
}

#[test]
fn server_that_never_answers() {
    let world = World::run(Plan { answer: Answer::Never, ..Plan::calm(1) });
    world.ended_well();
    assert_eq!(world.reasons(0), (false, Reason::Timeout));
    assert_eq!(world.ends[0].rig.error().stage, Stage::Handshake);
    assert_eq!(world.reasons(1), (false, Reason::PeerClosed), "the client gave up before the answer");
}

#[test]
fn server_dies() {
    for seed in 0..50 {
        let world = World::run(Plan { server_dies: Some(500), ..Plan::calm(seed) });
        world.ended_well();
        assert_eq!(world.reasons(0), (true, Reason::PeerDead));
    }
}

#[test]
fn wild_networks() {
    let (mut established, mut failed, mut lingered) = (0, 0, 0);
    for seed in 0..4000 {
        let world = World::run(Plan::wild(seed));
        world.ended_well();
        let seen = world.ends[0].rig.check.seen();
        established += u32::from(seen.established);
        failed += u32::from(seen.failed);
        lingered += u32::from(world.ends.iter().skip(1).any(|end| end.rig.check.seen().established));
    }
    assert!(established > 500 && failed > 500 && lingered > 500, "{established} {failed} {lingered}");
}
