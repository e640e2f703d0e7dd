//! Two replicas that believe they lead: a leader that was paused past its lease, or cut off, and goes on writing from
//! its old knowledge.
//!
//! Only the content of its writes stops them: the name of the address, the version, the UID.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use crate::action::Action;
use crate::index::{
    Index, Kind,
    tests::fake_cluster::World,
    tests::histories::{Event, assigned_twice, event, happen, published},
};

#[derive(Clone, Debug)]
enum Step {
    /// An event happens; the new leader sees it at once, the old one does not.
    Happens(Event),
    /// The leader is paused, and another takes over.
    TakeOver,
    /// The old leader decides, and its requests do not arrive yet.
    Decides(u8),
    /// This number of its requests arrives, the last decided first or last.
    Arrive(u8, bool),
    /// The old leader decides and writes at once.
    Writes(u8),
    /// One of its watches is up to date again.
    Sees(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => event().prop_map(Step::Happens),
        2 => Just(Step::TakeOver),
        3 => (1u8..8).prop_map(Step::Decides),
        3 => (1u8..8, any::<bool>()).prop_map(|(n, last)| Step::Arrive(n, last)),
        3 => (1u8..4).prop_map(Step::Writes),
        2 => (0..Kind::ALL.len()).prop_map(Step::Sees),
    ]
}

/// A world with its leader and its former leader.
struct Split {
    world: World,
    old: Index,
    under_way: VecDeque<Action>,
    /// The clock of the old leader, which goes on, so that its pauses end.
    now: Duration,
}

impl Split {
    fn new() -> Self {
        let old = Index::new(Timestamp::UNIX_EPOCH);
        Self { world: World::new(), old, under_way: VecDeque::new(), now: Duration::ZERO }
    }

    fn run(&mut self, step: &Step) {
        self.now = self.now.max(self.world.now) + Duration::from_secs(1);
        match step {
            Step::Happens(event) => happen(&mut self.world, event),
            Step::TakeOver => {
                self.under_way.clear();
                self.old = std::mem::take(&mut self.world.index);
                self.world.restart();
            }
            Step::Decides(n) => {
                let decided = std::iter::from_fn(|| self.old.poll_action(self.now)).take((*n).into());
                self.under_way.extend(decided);
            }
            Step::Arrive(n, last) => {
                for _ in 0..*n {
                    let next = if *last { self.under_way.pop_back() } else { self.under_way.pop_front() };
                    let Some(action) = next else { return };
                    self.arrive(&action);
                }
            }
            Step::Writes(n) => {
                for _ in 0..*n {
                    let Some(action) = self.old.poll_action(self.now) else { return };
                    self.arrive(&action);
                }
            }
            Step::Sees(kind) => {
                std::mem::swap(&mut self.world.index, &mut self.old);
                self.world.relist(Kind::ALL[*kind]);
                std::mem::swap(&mut self.world.index, &mut self.old);
            }
        }
    }

    fn arrive(&mut self, action: &Action) {
        let outcome = self.world.request(action);
        self.old.handle_outcome(self.now, action, outcome);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn writes_of_an_old_leader_never_give_an_address_to_two_services(steps in prop::collection::vec(step(), 1..80)) {
        let mut split = Split::new();
        for step in &steps {
            split.run(step);
            let all = published(&split.world);
            prop_assert!(assigned_twice(&split.world, &all).is_empty(), "an address twice: {all:?}");
        }
        // The old leader has noticed its loss: the new one mends the remaining damage.
        split.world.index.set_leading(true);
        for _ in 0..4 { split.world.live(); }
        split.world.pass(60);
        for (key, service) in &split.world.services {
            prop_assert!(service.metadata.deletion_timestamp.is_none(), "{key} is stuck");
            let balancer = service.spec.as_ref().unwrap().type_.as_deref() == Some("LoadBalancer");
            let has = !split.world.ingress(&key.name).is_empty();
            prop_assert_eq!(balancer, has || split.world.condition(&key.name).starts_with("False"), "{}", key);
        }
        // An address that no pool holds cannot be adopted once an old leader has deleted its VirtualIP: it stays on the
        // Service, as another provider's would.
        let pools_shrank = steps.iter().any(|step| matches!(step, Step::Happens(Event::Pool(..))));
        let addresses: BTreeSet<String> = published(&split.world).into_values().flatten().collect();
        let vips: BTreeSet<String> = split.world.vips.keys().map(ToString::to_string).collect();
        prop_assert!(vips.is_subset(&addresses), "{vips:?} for {addresses:?}");
        prop_assert!(pools_shrank || addresses == vips, "{vips:?} for {addresses:?}");
    }
}

/// The burst of the contract: the leader is paused with writes under way, past its lease, and resumed.
#[test]
fn leader_paused_in_a_burst_and_resumed_takes_no_address_away() {
    let mut split = Split::new();
    split.world.pool("lan", json!({"addresses": ["192.0.2.1-192.0.2.60"]}));
    for n in 0..50 {
        split.world.create(&format!("s{n}"), json!({}));
    }
    let under_way: VecDeque<_> =
        std::iter::from_fn(|| split.world.index.poll_action(Duration::ZERO)).take(32).collect();
    split.run(&Step::TakeOver);
    split.under_way = under_way;
    for n in 0..50 {
        split.world.settle();
        split.run(&Step::Arrive(1, n % 2 == 0));
        split.run(&Step::Writes(2));
    }
    split.world.live();
    let all = published(&split.world);
    let distinct: BTreeSet<_> = all.values().flatten().collect();
    assert_eq!((all.values().flatten().count(), distinct.len(), split.world.vips.len()), (50, 50, 50));
}
