//! An API server that fails: nothing is lost, and no request is repeated without end. The outbox stands between, in
//! simulated time.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use test_case::test_case;

use crate::index::{Kind, tests::fake_cluster::World};
use crate::{
    action::Action,
    writer::{Failure, dispatch::Outbox},
};

/// Time of an answer, or of a failure; an unanswered request takes the writer's limit.
const ROUND_TRIP: Duration = Duration::from_millis(5);
const GIVEN_UP: Duration = Duration::from_secs(10);

struct Outage {
    world: World,
    outbox: Outbox,
    requests: usize,
}

impl Outage {
    /// Returns a burst of Services, none of them decided yet.
    fn new(services: usize) -> Self {
        let mut world = World::new();
        world.pool("lan", json!({"addresses": ["192.0.2.1-192.0.2.254"]}));
        for n in 0..services {
            world.create(&format!("s{n}"), json!({}));
        }
        Self { world, outbox: Outbox::default(), requests: 0 }
    }

    /// Runs as many writes at once as are allowed, until nothing is left to do before `end`. `fate` returns the failure
    /// of a write, if it fails.
    fn run(&mut self, end: Duration, mut fate: impl FnMut(Duration, &Action) -> Option<Failure>) {
        while self.world.now < end {
            let begun = self.world.now;
            let mut batch = Vec::new();
            while batch.len() < self.outbox.limit(begun)
                && let Some(action) = self.outbox.next(|| self.world.index.poll_action(begun))
            {
                batch.push(action);
            }
            if batch.is_empty() {
                let timers = [self.outbox.timeout(begun), self.world.index.poll_timeout()];
                let next = timers.into_iter().flatten().filter(|at| *at > begun).min();
                self.world.now = next.unwrap_or(end).min(end);
                continue;
            }
            self.requests += batch.len();
            let fates: Vec<_> = batch.iter().map(|action| fate(begun, action)).collect();
            let slow = fates.contains(&Some(Failure::TimedOut));
            self.world.now += if slow { GIVEN_UP } else { ROUND_TRIP };
            for (action, failure) in batch.iter().zip(fates) {
                let failed = failure.map(|failure| (failure, String::new()));
                self.outbox.ended(self.world.now, begun, action, failed);
                match failure {
                    None => self.world.carry_out(action),
                    Some(failure) => self.world.index.handle_outcome(self.world.now, action, failure.outcome("")),
                }
            }
        }
    }

    fn assigned(&self) -> usize {
        self.world.services.keys().filter(|key| !self.world.ingress(&key.name).is_empty()).count()
    }

    fn told(&self) -> usize {
        self.world.events().iter().filter(|event| event.reason == "EnsuredLoadBalancer").count()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test_case(Failure::Unreachable; "connection refused")]
#[test_case(Failure::Unavailable { retry_after: None }; "503 while it starts")]
#[test_case(Failure::Throttled { retry_after: Some(SECOND) }; "429")]
#[test_case(Failure::TimedOut; "no answer")]
fn burst_survives_a_restart_of_the_api_server(failure: Failure) {
    let mut outage = Outage::new(200);
    let (gone, back) = (Duration::from_millis(20), 20 * SECOND);
    let mut failed = 0;
    outage.run(back, |now, _| {
        let fails = (now >= gone).then_some(failure);
        failed += usize::from(fails.is_some());
        fails
    });
    let done = outage.assigned();
    assert!((1..200).contains(&done), "in the middle: {done}");
    // 32 writes were under way, then one at a time follows, at last every 2 s.
    assert!((33..32 + 25).contains(&failed), "{failed} failed requests");
    let before = outage.requests;
    outage.run(back + 5 * SECOND, |_, _| None);
    assert_eq!(outage.assigned(), 200, "5 s after it is back");
    // The API server may have accepted the events that timed out: a second event would report twice.
    let lost = if failure == Failure::TimedOut { 32 } else { 0 };
    assert!(outage.told() + lost >= 200 && outage.told() <= 200, "{} events", outage.told());
    assert!(outage.requests - before < 3 * 200 + 10, "{} requests", outage.requests - before);
}

/// The cause is a webhook that refuses one namespace, or an object that the API server cannot store.
#[test]
fn failure_at_one_object_does_not_delay_others() {
    let mut outage = Outage::new(100);
    let of_first =
        |action: &Action| matches!(action, Action::PatchServiceStatus { service, .. } if service.name == "s0");
    outage.run(60 * SECOND, |_, action| of_first(action).then_some(Failure::Server));
    assert_eq!(outage.assigned(), 99);
    // The pause of 50 ms doubles up to 30 s: some eleven attempts in a minute.
    assert!(outage.requests < 3 * 100 + 20, "{} requests", outage.requests);
    outage.run(120 * SECOND, |_, _| None);
    assert_eq!(outage.assigned(), 100);
}

fn fate() -> impl Strategy<Value = Option<Failure>> {
    prop_oneof![
        6 => Just(None),
        1 => Just(Some(Failure::Conflict)),
        1 => Just(Some(Failure::Server)),
        1 => Just(Some(Failure::Throttled { retry_after: Some(SECOND) })),
        1 => Just(Some(Failure::Unavailable { retry_after: None })),
        1 => Just(Some(Failure::Unreachable)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_failure_loses_a_service(fates in prop::collection::vec(fate(), 1..400)) {
        let mut outage = Outage::new(60);
        let mut fates = fates.into_iter();
        outage.run(600 * SECOND, |_, _| fates.next().flatten());
        prop_assert_eq!(outage.assigned(), 60);
        prop_assert!(outage.requests < 3 * 60 + 400 + 20, "{} requests", outage.requests);
    }
}

/// etcd is restored from a backup: versions go down, and the list of the API server is true nevertheless.
#[test]
fn list_counts_although_its_versions_have_gone_back() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    let mut restored = world.services[&super::fake_cluster::key("web")].clone();
    restored.metadata.resource_version = Some("1".to_owned());
    restored.status = None;
    world.services.insert(super::fake_cluster::key("web"), restored);
    world.relist(Kind::Service);
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
}

/// A standby sees every Service come and go for months.
#[test]
fn standby_forgets_deleted_objects() {
    let mut world = World::new();
    world.index.set_leading(false);
    for n in 0..100 {
        world.create(&format!("s{n}"), json!({}));
        world.delete(&format!("s{n}"));
    }
    assert_eq!((world.index.services.len(), world.index.queue.depth()), (0, 0));
}

/// The cause is a Role without `create`, or a policy engine that denies.
#[test]
fn service_learns_why_its_virtual_ip_is_refused() {
    let mut world = World::new();
    world.create("web", json!({}));
    let sentence = "virtualips.heraldlb.io is forbidden: denied by policy";
    let mut refused = 0;
    while world.condition("web") == "none" {
        assert!(refused < 10, "no Event is posted");
        match world.index.poll_action(world.now) {
            Some(action @ Action::CreateVirtualIp { .. }) => {
                refused += 1;
                let outcome = Failure::Refused { code: 403 }.outcome(sentence);
                world.index.handle_outcome(world.now, &action, outcome);
            }
            Some(action) => world.carry_out(&action),
            None => world.now = world.index.poll_timeout().expect("nothing is tried again"),
        }
    }
    assert_eq!(world.condition("web"), "False WriteRefused");
    let message = world.service_condition("web").unwrap().message;
    assert!(message.contains("VirtualIP 192.0.2.1") && message.contains(sentence), "{message}");
    assert!(message.contains("admission policy") && !message.contains("ClusterRole"), "{message}");
    world.settle();
    let warnings: Vec<_> = world.events().into_iter().filter(|event| event.warning).map(|event| event.reason).collect();
    assert_eq!(warnings, ["SyncLoadBalancerFailed"]);
    world.pass(60);
    assert_eq!((world.ingress("web"), world.condition("web")), (vec!["192.0.2.1".into()], "True Assigned".into()));
}

/// The CustomResourceDefinition was deleted and is back: the list shows it.
#[test]
fn refused_virtual_ip_is_written_as_soon_as_its_kind_can_be_listed() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.create("other", json!({}));
    let end = Duration::from_secs(300);
    while world.now < end {
        match world.index.poll_action(world.now) {
            Some(action @ Action::CreateVirtualIp { .. }) => {
                let outcome = Failure::Refused { code: 404 }.outcome("404 page not found");
                world.index.handle_outcome(world.now, &action, outcome);
            }
            Some(action) => world.carry_out(&action),
            None => world.now = world.index.poll_timeout().expect("nothing is tried again").max(world.now),
        }
    }
    let message = world.service_condition("web").unwrap().message;
    assert!(message.contains("deploy/crds"), "{message}");
    world.relist(Kind::VirtualIp);
    world.settle();
    let served = ["web", "other"].map(|name| (world.ingress(name).len(), world.condition(name)));
    assert_eq!(served, [(1, "True Assigned".to_owned()), (1, "True Assigned".to_owned())]);
}
