//! An address that a live Service shows in its status belongs to that Service, whichever program wrote it and in
//! whatever order it is seen.

use serde_json::{Value, json};
use test_case::test_case;

use crate::{
    action::Outcome,
    index::{
        tests::fake_cluster::{World, address, key, merge},
        *,
    },
};

fn shows(addresses: &[&str]) -> Value {
    let ingress: Vec<_> = addresses.iter().map(|a| json!({"ip": a})).collect();
    json!({"status": {"loadBalancer": {"ingress": ingress}}})
}

fn foreign(addresses: &[&str]) -> Value {
    let mut object = json!({"spec": {"loadBalancerClass": "example.com/other"}});
    merge(&mut object, shows(addresses));
    object
}

fn names(world: &World, at: &str) -> Vec<String> {
    let vip = world.vips.get(&address(at));
    vip.into_iter().flat_map(|vip| &vip.spec.services).map(|s| s.name.clone()).collect()
}

fn warnings(world: &World) -> Vec<&'static str> {
    world.events().iter().filter(|event| event.warning).map(|event| event.reason).collect()
}

/// Another provider uses the same range.
#[test_case(json!({"ip": "192.0.2.1"}); "by kube-proxy's rules")]
#[test_case(json!({"ip": "192.0.2.1", "ipMode": "Proxy"}); "behind a proxy")]
fn address_that_another_providers_service_shows_is_not_given_out(entry: Value) {
    let mut world = World::new();
    let mut theirs = foreign(&[]);
    theirs["status"]["loadBalancer"]["ingress"] = json!([entry]);
    world.create("theirs", theirs);
    world.create("web", json!({}));
    world.create("named", json!({"spec": {"loadBalancerIP": "192.0.2.1"}}));
    world.live();
    assert_eq!(
        (world.ingress("web"), world.condition("named")),
        (vec!["192.0.2.2".into()], "False AddressInUse".into())
    );
    assert!(world.service_condition("named").unwrap().message.contains("Service ns/theirs has"));
    let accepted = world.pool_condition("lan", herald_crds::names::CONDITION_ACCEPTED);
    let sentence = "192.0.2.1 is in status.loadBalancer.ingress of Service ns/theirs";
    assert!(accepted.reason == "Overlaps" && accepted.message.contains(sentence), "{}", accepted.message);
    assert_eq!(world.pools["lan"].status.as_ref().unwrap().ipv4.as_ref().unwrap().available, "1");
    world.log.clear();
    world.restart();
    world.pass(60);
    world.wrote_nothing();
    world.delete("theirs");
    world.live();
    assert_eq!(world.ingress("named"), ["192.0.2.1"], "a Service that waits for it is woken");
}

#[test]
fn full_pool_names_the_services_that_keep_addresses_from_it() {
    let mut world = World::new();
    world.create("theirs", foreign(&["192.0.2.1", "192.0.2.2"]));
    world.create(
        "tenant",
        json!({"spec": {"type": "ClusterIP", "loadBalancerClass": null, "externalIPs": ["192.0.2.3"]}}),
    );
    world.create("web", json!({}));
    world.live();
    assert_eq!(world.condition("web"), "False PoolFull");
    let message = world.service_condition("web").unwrap().message;
    assert!(
        message.contains("3 of them only because Services list them") && message.contains("ns/theirs does 192.0.2.1"),
        "{message}"
    );
    assert_eq!(world.pools["lan"].status.as_ref().unwrap().ipv4.as_ref().unwrap().available, "0");
}

/// The cluster comes from another provider: an older Service waits, and the pool is created last.
#[test]
fn late_pool_gives_no_address_that_another_service_shows() {
    let mut world = World::empty();
    world.restart();
    world.create("old", json!({}));
    world.create("web", shows(&["192.0.2.1"]));
    world.live();
    assert_eq!(
        (world.condition("old"), world.condition("web")),
        ("False NoPool".into(), "False ForeignIngress".into())
    );
    world.pool("lan", json!({"addresses": ["192.0.2.1-192.0.2.9"]}));
    world.live();
    assert_eq!((world.ingress("old"), world.ingress("web")), (vec!["192.0.2.2".into()], vec!["192.0.2.1".into()]));
    assert_eq!((world.condition("web"), names(&world, "192.0.2.1")), ("True Assigned".into(), vec!["web".to_owned()]));
}

/// The cases are a Service that waits for the only address, and none.
#[test_case(true)]
#[test_case(false)]
fn virtual_ip_deleted_by_hand_before_a_new_leader_is_made_again_for_the_service_that_shows_it(waiter: bool) {
    let mut world = World::empty();
    world.pool("lan", json!({"addresses": ["192.0.2.1"]}));
    world.restart();
    if waiter {
        world.create("old", json!({"metadata": {"annotations": {"heraldlb.io/address-pool": "none"}}}));
    }
    world.create("web", json!({}));
    world.live();
    if waiter {
        world.change("old", json!({"metadata": {"annotations": {"heraldlb.io/address-pool": null}}}));
        world.live();
        assert_eq!(world.condition("old"), "False PoolFull");
    }
    world.index.set_leading(false);
    world.delete_vip("192.0.2.1");
    world.log.clear();
    world.restart();
    world.live();
    world.pass(60);
    assert_eq!((world.ingress("web"), world.condition("web")), (vec!["192.0.2.1".into()], "True Assigned".into()));
    assert_eq!(names(&world, "192.0.2.1"), ["web"]);
    assert!(world.vips[&address("192.0.2.1")].metadata.deletion_timestamp.is_none());
    assert_eq!(warnings(&world), Vec::<&str>::new());
}

/// The VirtualIP exists, and the new leader's watch of Services has not delivered its Service, or its last version.
#[test_case(None; "not seen")]
#[test_case(Some("ClusterIP"); "seen as it was before")]
fn new_leader_whose_watch_is_behind_takes_nothing_away(seen_as: Option<&str>) {
    let mut world = World::new();
    world.create("old", json!({"metadata": {"annotations": {"heraldlb.io/address-pool": "none"}}}));
    world.create("web", json!({}));
    world.live();
    let before = world.vips.clone();
    world.log.clear();
    let now = world.services.clone();
    match seen_as {
        None => drop(world.services.remove(&key("web"))),
        Some(_) => {
            let web = world.services.get_mut(&key("web")).unwrap();
            web.spec.as_mut().unwrap().type_ = seen_as.map(str::to_owned);
            web.spec.as_mut().unwrap().load_balancer_class = None;
            web.status = None;
            web.metadata.resource_version = Some("1".to_owned());
        }
    }
    world.restart();
    world.services = now;
    world.pass(120);
    assert_eq!((world.vips.clone(), world.writes()), (before, vec![]));
    world.relist(Kind::Service);
    world.live();
    assert_eq!((world.ingress("web"), world.writes()), (vec!["192.0.2.1".into()], vec![]));
}

/// The Service was deleted by force while no controller ran.
#[test]
fn virtual_ip_of_a_missing_service_is_deleted_once_the_api_server_confirms() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    world.services.clear();
    world.restart();
    let question = world.index.poll_action(world.now).unwrap();
    assert!(matches!(&question, Action::LookUpService { service, .. } if service.name == "web"), "{question:?}");
    world.index.handle_outcome(world.now, &question, Outcome::Unavailable);
    world.settle();
    assert!(world.vips.is_empty() || world.vips.values().all(|vip| vip.metadata.deletion_timestamp.is_some()));
    world.live();
    assert!(world.vips.is_empty());
}

fn sharer(port: i32, more: Value) -> Value {
    let mut object = json!({"metadata": {"annotations": {"metallb.io/allow-shared-ip": "k"}},
        "spec": {"selector": {"app": "dns"}, "ports": [{"port": port}]}});
    merge(&mut object, more);
    object
}

/// Services that shared an address under another provider.
#[test_case(true; "seen at the start")]
#[test_case(false; "the pool comes later")]
fn services_that_show_one_address_and_may_share_it_are_adopted_together(pool_first: bool) {
    let mut world = World::empty();
    world.restart();
    let pool = json!({"addresses": ["192.0.2.1-192.0.2.3"]});
    if pool_first {
        world.pool("lan", pool.clone());
    }
    world.create("tcp", sharer(53, shows(&["192.0.2.1"])));
    world.create("udp", sharer(54, shows(&["192.0.2.1"])));
    world.restart();
    world.live();
    if !pool_first {
        world.pool("lan", pool);
        world.live();
    }
    assert_eq!(names(&world, "192.0.2.1"), ["tcp", "udp"]);
    assert_eq!((world.condition("tcp"), world.condition("udp")), ("True Assigned".into(), "True Assigned".into()));
}

/// Neither Service loses the address that it shows, both report the conflict, and the second gets the address once the
/// first is gone.
#[test]
fn services_that_show_one_address_and_may_not_share_it_report_it() {
    let mut world = World::empty();
    world.pool("lan", json!({"addresses": ["192.0.2.1-192.0.2.3"]}));
    world.create("first", sharer(53, shows(&["192.0.2.1"])));
    world.create("second", sharer(53, shows(&["192.0.2.1"])));
    world.restart();
    world.live();
    assert_eq!((world.ingress("first"), world.ingress("second")), (vec!["192.0.2.1".into()], vec!["192.0.2.1".into()]));
    assert_eq!(
        (world.condition("first"), world.condition("second")),
        ("True Assigned".into(), "False SharingRefused".into())
    );
    assert!(world.service_condition("first").unwrap().message.contains("of Service ns/second as well"));
    let mut told = warnings(&world);
    told.sort_unstable();
    assert_eq!(told, ["AddressShownTwice", "SyncLoadBalancerFailed"]);
    world.log.clear();
    world.restart();
    world.pass(60);
    world.wrote_nothing();
    world.delete("first");
    world.live();
    assert_eq!(
        (world.condition("second"), names(&world, "192.0.2.1")),
        ("True Assigned".into(), vec!["second".to_owned()])
    );
}

#[test]
fn external_ips_of_a_service_do_not_keep_it_from_them() {
    let mut world = World::new();
    world.create("web", json!({"spec": {"externalIPs": ["192.0.2.2"], "loadBalancerIP": "192.0.2.2"}}));
    world.live();
    assert_eq!((world.ingress("web"), world.condition("web")), (vec!["192.0.2.2".into()], "True Assigned".into()));
    assert_eq!(warnings(&world), Vec::<&str>::new());
}

/// `kubectl apply` creates a namespace and a Service in it: the namespace's labels decide which pools give the Service
/// an address.
#[test]
fn unseen_namespace_is_awaited() {
    let mut world = World::empty();
    world.namespaces.clear();
    world.pool("general", json!({"addresses": ["192.0.2.1-192.0.2.3"]}));
    let dmz = json!({"namespaceSelectors": [{"matchLabels": {"zone": "dmz"}}], "priority": 1});
    world.pool("dmz", json!({"addresses": ["192.0.2.100"], "serviceAllocation": dmz}));
    world.restart();
    world.create("web", json!({}));
    world.pass(60);
    assert_eq!((world.ingress("web").len(), world.vips.len(), world.condition("web")), (0, 0, "none".into()));
    let labels = BTreeMap::from([("zone".to_owned(), "dmz".to_owned())]);
    world.index.apply(Object::Namespace("ns".to_owned(), labels));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.100"]);
}

/// The address is planned, and its VirtualIP made, when the status of another provider's Service comes to show it.
#[test]
fn address_that_another_comes_to_show_before_it_is_published_is_left_to_it() {
    let mut world = World::new();
    world.create("theirs", foreign(&[]));
    world.create("web", json!({}));
    let create = world.index.poll_action(world.now).unwrap();
    world.carry_out(&create);
    world.change("theirs", shows(&["192.0.2.1"]));
    world.live();
    assert_eq!((world.ingress("web"), world.vips.len()), (vec!["192.0.2.2".into()], 1));
}

/// The address is planned, and its VirtualIP made, when another provider writes into the status of the same Service.
#[test]
fn address_that_cannot_be_published_is_given_up() {
    let mut world = World::new();
    world.create("web", json!({}));
    let create = world.index.poll_action(world.now).unwrap();
    world.carry_out(&create);
    world.change("web", shows(&["203.0.113.9"]));
    world.live();
    assert_eq!(
        (world.ingress("web"), world.condition("web")),
        (vec!["203.0.113.9".into()], "False ForeignIngress".into())
    );
    assert!(world.vips.is_empty(), "every announced address has a Service that is told of it");
}

#[test]
fn published_address_is_kept_while_another_provider_overwrites_it() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    let before = world.vips[&address("192.0.2.1")].metadata.uid.clone();
    world.change("web", json!({"status": {"loadBalancer": {"ingress": [{"hostname": "lb.example.com"}]}}}));
    world.live();
    assert_eq!(world.condition("web"), "False ForeignIngress");
    world.change("web", json!({"status": {"loadBalancer": {"ingress": null}}}));
    world.live();
    assert_eq!((world.ingress("web"), world.condition("web")), (vec!["192.0.2.1".into()], "True Assigned".into()));
    assert_eq!(world.vips[&address("192.0.2.1")].metadata.uid, before);
}
