//! Three origins, pushes that rely on one old blob, collections at each origin, in any order of steps and messages, some of them
//! lost, late or twice: no push that was acknowledged has lost its link or its blob.

use proptest::prelude::*;

use super::*;

const ORIGINS: usize = 3;
const MAJORITY: usize = 2;
/// In seconds, as all times here.
const MIN_AGE: u64 = 20;
/// What a look is good for, far less than half of that.
const SECURE_FOR: u64 = 3;

/// What may be wrong with the protocol, to see that the simulation finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Right,
    /// Old links that are relied on are not put anew.
    NoRenewal,
    /// Blobs are not touched by a put of a link.
    NoTouch,
    /// A collection does not ask the others what is linked.
    NoCatchUp,
}

#[derive(Clone, Copy, Debug)]
struct Origin {
    layer: Option<LinkState>,
    manifest: Option<LinkState>,
    /// When its copy of the blob was touched last.
    blob: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Message {
    PutLayer(LinkVersion),
    PutManifest(LinkVersion),
    DeleteLayer(LinkVersion),
}

#[derive(Clone, Copy, Debug)]
enum Push {
    /// Looks at the link; with an upload the blob came just before.
    Begun {
        upload: bool,
        manifest: bool,
    },
    PuttingLayer {
        began: u64,
        version: LinkVersion,
        done: [bool; ORIGINS],
        held: bool,
        manifest: bool,
    },
    PuttingManifest {
        began: u64,
        version: LinkVersion,
        done: [bool; ORIGINS],
    },
    Acknowledged,
    Failed,
}

#[derive(Clone, Copy, Debug)]
enum Collection {
    Begun,
    CatchingUp { cutoff: u64, read: [bool; ORIGINS] },
    Deleting { cutoff: u64, version: LinkVersion, done: [bool; ORIGINS] },
    Sweeping { cutoff: u64, linked: bool },
}

struct World {
    protocol: Protocol,
    now: u64,
    origins: [Origin; ORIGINS],
    pushes: Vec<Push>,
    collections: [Collection; ORIGINS],
    /// The copy of the last origin is one too many: what it saw of the others, and when it looked.
    surplus: (u64, usize),
    sent: Vec<Message>,
}

fn at(seconds: u64) -> LinkVersion {
    LinkVersion { stamp: seconds * 1_000_000, by: None }
}

fn since(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn target() -> Digest {
    Digest::sha256(b"layer")
}

impl World {
    fn new(protocol: Protocol, pushes: Vec<bool>) -> Self {
        let old = Some(LinkState { target: Some(target()), version: at(1) });
        Self {
            protocol,
            now: 100,
            origins: [Origin { layer: old, manifest: None, blob: Some(1) }; ORIGINS],
            pushes: pushes.into_iter().map(|upload| Push::Begun { upload, manifest: true }).collect(),
            collections: [Collection::Begun; ORIGINS],
            surplus: (0, 0),
            sent: Vec::new(),
        }
    }

    /// A message arrives; says whether the change is so then, and whether the blob is held for it.
    fn deliver(&mut self, place: usize, message: Message) -> (Change, bool) {
        let (now, touches) = (self.now, self.protocol != Protocol::NoTouch);
        let origin = &mut self.origins[place];
        let (put_at, known) = match message {
            Message::PutLayer(version) => (Some(version), &mut origin.layer),
            Message::PutManifest(version) => (Some(version), &mut origin.manifest),
            Message::DeleteLayer(_) => (None, &mut origin.layer),
        };
        let (change, state) = match (put_at, message) {
            (Some(version), _) => {
                (put(known.as_ref(), target(), version, 0), LinkState { target: Some(target()), version })
            }
            (None, Message::DeleteLayer(version)) => {
                (delete(known.as_ref(), version), LinkState { target: None, version })
            }
            (None, _) => unreachable!("every other is a put"),
        };
        if change == Change::Write {
            *known = Some(state);
        }
        let holds = origin.blob.is_some() && !matches!(message, Message::PutManifest(_));
        if holds && touches {
            origin.blob = Some(now);
        }
        (change, holds)
    }

    /// What the origins of a majority know of the layer's link, and whether they agree.
    fn look(&self, first: usize) -> (Option<LinkState>, bool) {
        let states = [self.origins[first % ORIGINS].layer, self.origins[(first + 1) % ORIGINS].layer];
        (newest(&states), states[0] == states[1])
    }

    fn push(&mut self, number: usize, place: usize) {
        self.pushes[number] = match self.pushes[number] {
            Push::Begun { upload: true, manifest } => {
                for place in [place, (place + 1) % ORIGINS] {
                    self.origins[place].blob = Some(self.now);
                }
                let known = self.look(place).0.map_or(0, |state| state.version.stamp / 1_000_000 + 1);
                self.put_layer(self.now.max(known), manifest)
            }
            Push::Begun { upload: false, manifest } => match self.look(place) {
                (Some(LinkState { target: Some(_), version }), is_agreed) => {
                    let is_young = age(version, self.now * 1_000_000) < Duration::from_secs(MIN_AGE / 2);
                    if is_agreed && (is_young || self.protocol == Protocol::NoRenewal) {
                        self.secured(self.now, manifest)
                    } else {
                        self.put_layer(self.now.max(version.stamp / 1_000_000 + 1), manifest)
                    }
                }
                _ => Push::Failed,
            },
            Push::PuttingLayer { began, version, mut done, mut held, manifest } => {
                let (change, holds) = self.deliver(place, Message::PutLayer(version));
                match change {
                    Change::Refused(newer) => {
                        self.put_layer(self.now.max(newer.stamp / 1_000_000 + 1), manifest)
                    }
                    _ => {
                        done[place] = true;
                        held |= holds;
                        match done.iter().filter(|&&done| done).count() {
                            MAJORITY.. if held => self.secured(began, manifest),
                            ORIGINS => Push::Failed,
                            _ => Push::PuttingLayer { began, version, done, held, manifest },
                        }
                    }
                }
            }
            Push::PuttingManifest { began, version, mut done } => {
                done[place] =
                    !matches!(self.deliver(place, Message::PutManifest(version)).0, Change::Refused(_));
                match done.iter().filter(|&&done| done).count() {
                    MAJORITY.. if self.now - began <= SECURE_FOR => Push::Acknowledged,
                    // It took long: it looks again, now that others see its manifest.
                    MAJORITY.. => Push::Begun { upload: false, manifest: false },
                    _ => Push::PuttingManifest { began, version, done },
                }
            }
            ended => ended,
        };
    }

    fn put_layer(&mut self, stamp: u64, manifest: bool) -> Push {
        self.sent.push(Message::PutLayer(at(stamp)));
        let (began, done) = (self.now, [false; ORIGINS]);
        Push::PuttingLayer { began, version: at(stamp), done, held: false, manifest }
    }

    fn secured(&mut self, began: u64, manifest: bool) -> Push {
        if !manifest {
            return Push::Acknowledged;
        }
        // A version of its own, whatever is known of the manifest.
        let version = at(self.now * 1000 + self.sent.len() as u64);
        self.sent.push(Message::PutManifest(version));
        Push::PuttingManifest { began, version, done: [false; ORIGINS] }
    }

    fn collect(&mut self, own: usize, place: usize) {
        self.collections[own] = match self.collections[own] {
            Collection::Begun => {
                let mut read = [self.protocol == Protocol::NoCatchUp; ORIGINS];
                read[own] = true;
                Collection::CatchingUp { cutoff: self.now - MIN_AGE, read }
            }
            Collection::CatchingUp { cutoff, mut read }
                if read.iter().filter(|&&read| read).count() < MAJORITY =>
            {
                let other = self.origins[place];
                for (known, other) in [(0, other.layer), (1, other.manifest)] {
                    let own = &mut self.origins[own];
                    let known = if known == 0 { &mut own.layer } else { &mut own.manifest };
                    *known = newest(&[*known, other]);
                }
                read[place] = true;
                Collection::CatchingUp { cutoff, read }
            }
            Collection::CatchingUp { cutoff, .. } => self.judge(own, cutoff, place),
            Collection::Deleting { cutoff, version, mut done } => {
                let (change, _) = self.deliver(place, Message::DeleteLayer(version));
                done[place] = true;
                let enough = done.iter().filter(|&&done| done).count() >= MAJORITY;
                if enough || matches!(change, Change::Refused(_)) {
                    self.mark(own, cutoff)
                } else {
                    Collection::Deleting { cutoff, version, done }
                }
            }
            Collection::Sweeping { cutoff, linked } => {
                if !linked && self.origins[own].blob.is_some_and(|touched| touched <= cutoff) {
                    self.origins[own].blob = None;
                }
                Collection::Begun
            }
        };
    }

    /// Whether anything needs the layer, by what this origin knows; and whether its link is as old as it was.
    fn judge(&mut self, own: usize, cutoff: u64, place: usize) -> Collection {
        let is_needed = self.origins[own].manifest.is_some();
        match self.look(place).0 {
            Some(LinkState { target: Some(_), version })
                if !is_needed && is_unchanged(version, since(cutoff)) =>
            {
                self.sent.push(Message::DeleteLayer(version));
                Collection::Deleting { cutoff, version, done: [false; ORIGINS] }
            }
            _ => self.mark(own, cutoff),
        }
    }

    fn mark(&self, own: usize, cutoff: u64) -> Collection {
        let linked = self.origins[own].layer.is_some_and(|state| state.target.is_some());
        Collection::Sweeping { cutoff, linked }
    }

    /// The last origin looks whether the others have the blob, one after the other, and drops its own.
    fn drop_surplus(&mut self) {
        self.surplus = match self.surplus {
            (_, 0) if self.origins[0].blob.is_some() => (self.now, 1),
            (looked, 1) if self.origins[1].blob.is_some() => (looked, 2),
            (looked, 2) => {
                let own = &mut self.origins[2].blob;
                *own = own.filter(|&touched| touched + MIN_AGE / 4 > looked);
                (0, 0)
            }
            _ => (0, 0),
        };
    }

    fn step(&mut self, (actor, place, random, pause): (u8, usize, prop::sample::Index, u64)) {
        self.now += pause;
        match actor {
            0..=4 if !self.pushes.is_empty() => self.push(random.index(self.pushes.len()), place),
            5..=9 => self.collect(random.index(ORIGINS), place),
            10 => self.drop_surplus(),
            11 if !self.sent.is_empty() => {
                let message = self.sent[random.index(self.sent.len())];
                self.deliver(place, message);
            }
            _ => {}
        }
    }

    /// Whether what was acknowledged is whole.
    fn is_whole(&self) -> bool {
        let is_acknowledged = self.pushes.iter().any(|push| matches!(push, Push::Acknowledged));
        let layers = self.origins.map(|origin| origin.layer);
        let is_linked = newest(&layers).is_some_and(|state| state.target.is_some());
        !is_acknowledged || (is_linked && self.origins.iter().any(|origin| origin.blob.is_some()))
    }
}

type Step = (u8, usize, prop::sample::Index, u64);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pause = prop_oneof![6 => Just(0u64), 3 => 1u64..3, 1 => 5u64..25];
    prop::collection::vec((0u8..12, 0..ORIGINS, any::<prop::sample::Index>(), pause), 0..120)
}

fn breaks(protocol: Protocol, pushes: &[bool], steps: &[Step]) -> bool {
    let mut world = World::new(protocol, pushes.to_vec());
    steps.iter().any(|&step| {
        world.step(step);
        !world.is_whole()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    #[test]
    fn what_was_acknowledged_is_never_garbage(pushes in prop::collection::vec(any::<bool>(), 1..3), steps in steps()) {
        prop_assert!(!breaks(Protocol::Right, &pushes, &steps));
    }
}

#[test]
fn without_any_of_its_parts_the_protocol_loses_images() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;

    for wrong in [Protocol::NoRenewal, Protocol::NoTouch, Protocol::NoCatchUp] {
        let mut runner = TestRunner::deterministic();
        let pushes = prop::collection::vec(any::<bool>(), 1..3);
        let found = (0..40_000).any(|_| {
            let (pushes, steps) = (&pushes, steps()).new_tree(&mut runner).unwrap().current();
            breaks(wrong, &pushes, &steps)
        });
        assert!(found, "{wrong:?} does no harm in this model");
    }
}
