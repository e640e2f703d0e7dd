use proptest::prelude::*;
use serde_json::{Value, json};
use test_case::test_case;

use super::*;

fn pool(spec: Value) -> AddressPoolSpec {
    serde_json::from_value(spec).unwrap()
}

fn service(name: &str) -> ServiceReference {
    ServiceReference { namespace: "ns".to_owned(), name: name.to_owned(), uid: format!("uid-{name}") }
}

fn allocator(pools: &[(&str, Value)]) -> Allocator {
    let mut allocator = Allocator::default();
    for (name, spec) in pools {
        allocator.set_pool(name, &pool(spec.clone()));
    }
    allocator
}

/// Asks for an IPv4 address for a Service labelled app=web in a namespace labelled team=a.
fn ask(allocator: &mut Allocator, name: &str, address: Option<&str>, pool: Option<&str>) -> Result<String, Refusal> {
    let labels = |k: &str, v: &str| BTreeMap::from([(k.to_owned(), v.to_owned())]);
    let (service_labels, namespace_labels) = (labels("app", "web"), labels("team", "a"));
    let asker = Asker {
        service: &service(name),
        service_labels: &service_labels,
        namespace_labels: &namespace_labels,
        family: IpFamily::V4,
        pools: &pool.map(str::to_owned).into_iter().collect::<Vec<_>>(),
        contested: &BTreeSet::new(),
    };
    allocator.assign(&asker, address.map(|a| a.parse().unwrap())).map(|a| a.to_string())
}

fn lan() -> (&'static str, Value) {
    ("lan", json!({"addresses": ["192.0.2.1-192.0.2.3"]}))
}

#[test]
fn lowest_free_address_comes_first() {
    let mut a = allocator(&[lan()]);
    assert_eq!(ask(&mut a, "x", None, None).unwrap(), "192.0.2.1");
    assert_eq!(ask(&mut a, "y", None, None).unwrap(), "192.0.2.2");
    a.vacate(&service("x"), "192.0.2.1".parse().unwrap());
    assert_eq!(ask(&mut a, "z", None, None).unwrap(), "192.0.2.3", "one that is being withdrawn is not free");
    a.free("192.0.2.1".parse().unwrap());
    assert_eq!(ask(&mut a, "w", None, None).unwrap(), "192.0.2.1");
}

#[test_case(json!({"addresses": ["192.0.2.0/24"], "autoAssign": false}), "NoPoolAllows"; "not automatic")]
#[test_case(json!({"addresses": ["192.0.2.0/24"], "drain": true}), "NoPoolAllows"; "drained")]
#[test_case(json!({"addresses": ["2001:db8::/64"]}), "NoPoolAllows"; "other family")]
#[test_case(json!({"addresses": ["192.0.2.9-192.0.2.1"]}), "NoPoolAllows"; "reversed")]
#[test_case(json!({"addresses": ["192.0.2.0/24"], "exclude": ["192.0.2.9-192.0.2.1"]}), "NoPoolAllows"; "unreadable exclusion")]
#[test_case(json!({"addresses": ["192.0.2.0/24"], "serviceAllocation": {"namespaces": ["other"]}}), "NoPoolAllows"; "other namespace")]
#[test_case(json!({"addresses": ["192.0.2.0/24"], "serviceAllocation": {"serviceSelectors": [{"matchLabels": {"app": "db"}}]}}), "NoPoolAllows"; "other Services")]
#[test_case(json!({"addresses": ["192.0.2.0/24"], "serviceAllocation": {"serviceSelectors": [{"matchExpressions": [{"key": "a", "operator": "Is"}]}]}}), "NoPoolAllows"; "unreadable selector")]
#[test_case(json!({"addresses": ["192.0.2.0"], "avoidBuggyIPs": true}), "NoPoolAllows"; "every address avoided")]
#[test_case(json!({"addresses": ["192.0.2.0/30"], "exclude": ["192.0.2.0/24"]}), "NoPoolAllows"; "every address excluded")]
fn unusable_pool_gives_nothing_and_is_named(spec: Value, reason: &str) {
    let refusal = ask(&mut allocator(&[("lan", spec)]), "x", None, None).unwrap_err();
    assert_eq!(refusal.reason(), reason);
    assert!(refusal.to_string().contains("lan"), "{refusal}");
}

/// More addresses, a name or an end of the drain would not help a Service that the pool does not select.
#[test_case(json!({"addresses": ["2001:db8::/64"]}), "holds no IPv4 address"; "of the other family")]
#[test_case(json!({"addresses": ["192.0.2.0/24"], "drain": true}), "spec.drain"; "drained")]
#[test_case(json!({"addresses": ["192.0.2.0/24"], "autoAssign": false}), "spec.autoAssign"; "not automatic")]
fn selector_of_a_pool_is_its_first_obstacle(mut spec: Value, otherwise: &str) {
    let says = |spec: &Value| ask(&mut allocator(&[("lan", spec.clone())]), "x", None, None).unwrap_err().to_string();
    assert!(says(&spec).contains(otherwise), "{}", says(&spec));
    spec["serviceAllocation"] = json!({"namespaces": ["other"]});
    assert!(says(&spec).contains("spec.serviceAllocation does not select the Service"), "{}", says(&spec));
}

#[test_case(json!({"namespaces": ["ns"]}))]
#[test_case(json!({"namespaceSelectors": [{"matchLabels": {"team": "a"}}]}))]
#[test_case(json!({"namespaces": ["other"], "namespaceSelectors": [{"matchLabels": {"team": "a"}}]}); "named or selected")]
#[test_case(json!({"serviceSelectors": [{"matchLabels": {"app": "web"}}]}))]
fn pool_gives_to_the_services_that_it_selects(allocation: Value) {
    let spec = json!({"addresses": ["192.0.2.1"], "serviceAllocation": allocation});
    assert_eq!(ask(&mut allocator(&[("lan", spec)]), "x", None, None).unwrap(), "192.0.2.1");
}

#[test]
fn cluster_without_pools_refuses() {
    assert_eq!(ask(&mut Allocator::default(), "x", None, None), Err(Refusal::NoPool));
}

#[test]
fn pools_are_tried_by_priority_then_name() {
    let spec =
        |address: &str, priority: Value| json!({"addresses": [address], "serviceAllocation": {"priority": priority}});
    let mut a = allocator(&[
        ("a", json!({"addresses": ["192.0.2.1"]})),
        ("b", spec("192.0.2.2", json!(20))),
        ("c", spec("192.0.2.3", json!(10))),
    ]);
    let got: Vec<_> = ["x", "y", "z"].map(|name| ask(&mut a, name, None, None).unwrap()).into();
    assert_eq!(got, ["192.0.2.3", "192.0.2.2", "192.0.2.1"]);
    assert_eq!(ask(&mut a, "w", None, None).unwrap_err().reason(), "PoolFull");
}

#[test_case(Some("192.0.2.2"), None, "192.0.2.2")]
#[test_case(Some("198.51.100.1"), None, "198.51.100.1"; "a request needs no autoAssign")]
#[test_case(None, Some("dmz"), "198.51.100.1"; "a pool's name needs no autoAssign")]
#[test_case(Some("192.0.2.2"), Some("dmz"), "AddressNotInPool")]
#[test_case(Some("203.0.113.1"), None, "AddressNotInPool")]
#[test_case(Some("192.0.2.1"), None, "AddressInUse")]
#[test_case(None, Some("wan"), "UnknownPool")]
#[test_case(Some("192.0.2.2"), Some("wan"), "UnknownPool"; "even with an address")]
#[test_case(Some("192.0.2.3"), None, "AddressInExternalIPs")]
#[test_case(Some("198.51.100.0"), None, "AddressAvoided")]
fn requested_address_and_pool_are_honoured_or_refused(address: Option<&str>, pool: Option<&str>, expected: &str) {
    let dmz = json!({"addresses": ["198.51.100.0/30"], "autoAssign": false, "avoidBuggyIPs": true});
    let mut a = allocator(&[lan(), ("dmz", dmz)]);
    ask(&mut a, "first", None, None).unwrap();
    a.set_external(&service("other"), &BTreeSet::from(["192.0.2.3".parse().unwrap()]));
    let before = a.occupants().count();
    let got = ask(&mut a, "x", address, pool);
    assert_eq!(a.occupants().count(), before + usize::from(got.is_ok()), "a refusal changes nothing");
    assert_eq!(got.unwrap_or_else(|refusal| refusal.reason().to_owned()), expected);
}

#[test]
fn external_addresses_are_passed_over_until_they_are_given_up() {
    let mut a = allocator(&[lan()]);
    a.set_external(&service("other"), &BTreeSet::from(["192.0.2.1".parse().unwrap()]));
    assert_eq!(ask(&mut a, "x", None, None).unwrap(), "192.0.2.2");
    a.set_external(&service("other"), &BTreeSet::new());
    assert_eq!(ask(&mut a, "y", None, None).unwrap(), "192.0.2.1");
}

#[test]
fn overlapping_pools_give_an_address_once() {
    let mut a = allocator(&[lan(), ("more", json!({"addresses": ["192.0.2.3-192.0.2.4"]}))]);
    let got: BTreeSet<_> = (0..4).map(|i| ask(&mut a, &format!("s{i}"), None, None).unwrap()).collect();
    assert_eq!(got.len(), 4);
    assert_eq!(ask(&mut a, "late", None, None).unwrap_err().reason(), "PoolFull");
    let overlaps = a.overlaps("lan");
    assert_eq!(overlaps.len(), 1);
    assert!(overlaps[0].1.contains("192.0.2.3".parse().unwrap()));
}

#[test]
fn shrunk_pool_keeps_assigned_addresses() {
    let mut a = allocator(&[lan()]);
    ask(&mut a, "x", None, None).unwrap();
    a.set_pool("lan", &pool(json!({"addresses": ["192.0.2.3"]})));
    assert_eq!(a.held(&service("x")), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(a.orphans("lan"), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    let usage = a.usage("lan", IpFamily::V4).unwrap();
    assert_eq!((&*usage.capacity, &*usage.assigned, &*usage.available), ("1", "1", "1"));
}

#[test]
fn virtual_ip_displaces_a_plan() {
    let mut a = allocator(&[lan()]);
    ask(&mut a, "x", None, None).unwrap();
    let displaced = a.seize("192.0.2.1".parse().unwrap(), "lan", &[service("y")]);
    assert_eq!(displaced, [service("x")]);
    assert!(a.held(&service("x")).is_empty() && a.leaving(&service("x")).is_empty());
    assert_eq!(a.held(&service("y")).len(), 1);
}

#[test]
fn slash_64_counts_in_full() {
    let a = allocator(&[("six", json!({"addresses": ["2001:db8::/64"]}))]);
    assert_eq!(a.usage("six", IpFamily::V6).unwrap().capacity, "18446744073709551616");
    assert_eq!(a.usage("six", IpFamily::V4), None);
}

/// Services of two namespaces share an address only where its pool allows it.
#[test_case(json!({"addresses": ["192.0.2.1-192.0.2.3"]}), "192.0.2.2"; "an address of its own")]
#[test_case(json!({"addresses": ["192.0.2.1-192.0.2.3"], "shareAcrossNamespaces": true}), "192.0.2.1"; "the pool allows it")]
fn address_is_shared_across_namespaces_only_where_the_pool_allows_it(spec: Value, expected: &str) {
    let mut a = allocator(&[("lan", spec)]);
    let elsewhere = ServiceReference { namespace: "other".to_owned(), ..service("y") };
    for (service, port) in [(service("x"), 80), (elsewhere.clone(), 81)] {
        let ports = vec![Port { protocol: "TCP".to_owned(), port }];
        a.set_sharing(&service, Some(&Sharing { key: "k".to_owned(), ports, ..Sharing::default() }));
    }
    ask(&mut a, "x", None, None).unwrap();
    let none = BTreeMap::new();
    let family = IpFamily::V4;
    let contested = &BTreeSet::new();
    let asker =
        Asker { service: &elsewhere, service_labels: &none, namespace_labels: &none, family, pools: &[], contested };
    assert_eq!(a.assign(&asker, None).unwrap().to_string(), expected);
}

/// A reserved address is not given out, whenever the reservation becomes known, and is given out once it ends.
#[test]
fn reserved_addresses_are_passed_over_until_they_are_given_up() {
    let block = |a: &str| vec![a.parse::<AddressBlock>().unwrap()];
    let node = |name: &str| Reservation::Node(name.to_owned());
    let mut a = Allocator::default();
    a.set_reserved(node("before"), block("192.0.2.1"));
    a.set_pool("lan", &pool(lan().1));
    ask(&mut a, "x", None, None).unwrap();
    assert_eq!(a.set_reserved(node("after"), block("192.0.2.2-192.0.2.3")), block("192.0.2.2-192.0.2.3"));
    assert_eq!(a.held(&service("x")), ["192.0.2.2".parse::<IpAddr>().unwrap()], "assigned address stays");
    assert_eq!(ask(&mut a, "y", None, None).unwrap_err().reason(), "PoolFull");
    assert_eq!(ask(&mut a, "y", Some("192.0.2.3"), None).unwrap_err().reason(), "AddressReserved");
    a.vacate(&service("x"), "192.0.2.2".parse().unwrap());
    a.free("192.0.2.2".parse().unwrap());
    assert_eq!(ask(&mut a, "y", None, None).unwrap_err().reason(), "PoolFull", "freed, and reserved still");
    assert!(a.set_reserved(node("after"), block("192.0.2.2-192.0.2.3")).is_empty(), "nothing new");
    assert_eq!(a.set_reserved(node("after"), Vec::new()), block("192.0.2.2-192.0.2.3"));
    assert_eq!(ask(&mut a, "y", None, None).unwrap(), "192.0.2.2");
    assert_eq!(a.usage("lan", IpFamily::V4).unwrap().available, "1");
}

proptest! {
    /// Reservations come, change and go, over one another and over assigned addresses: an address is free if it is
    /// neither reserved nor assigned.
    #[test]
    fn free_addresses_are_neither_assigned_nor_reserved(
        steps in prop::collection::vec((0u8..4, prop::collection::vec((0u8..12, 0u8..5), 0..3), any::<bool>()), 0..30),
    ) {
        let address = |n: u8| -> IpAddr { format!("192.0.2.{n}").parse().unwrap() };
        let mut a = allocator(&[("lan", json!({"addresses": ["192.0.2.2-192.0.2.9"]}))]);
        let mut causes: BTreeMap<u8, Vec<(u8, u8)>> = BTreeMap::new();
        for (at, (cause, ranges, assigns)) in steps.into_iter().enumerate() {
            let block = |(first, n): &(u8, u8)| format!("{}-{}", address(*first), address(first + n)).parse().unwrap();
            a.set_reserved(Reservation::Node(cause.to_string()), ranges.iter().map(block).collect());
            causes.insert(cause, ranges);
            let is_reserved = |n: u8| causes.values().flatten().any(|(first, more)| (*first..=first + more).contains(&n));
            let free = |a: &Allocator| -> Vec<u8> {
                (2..=9).filter(|n| !is_reserved(*n) && a.occupant(address(*n)).is_none()).collect()
            };
            let before = free(&a);
            prop_assert_eq!(a.usage("lan", IpFamily::V4).unwrap().available, before.len().to_string());
            for n in 0..16 {
                prop_assert_eq!(a.reservation(address(n)).is_some(), is_reserved(n), "{}", n);
            }
            if assigns {
                let got = ask(&mut a, &format!("s{at}"), None, None).ok();
                prop_assert_eq!(got, before.first().map(|n| address(*n).to_string()));
            } else {
                let held = a.occupants().next().map(|(held, _)| held);
                held.into_iter().for_each(|held| a.free(held));
                prop_assert_eq!(a.usage("lan", IpFamily::V4).unwrap().available, free(&a).len().to_string());
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Assign(u8, Option<u8>),
    Vacate(u8),
    Free(u8),
    Resize(bool, u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..12, prop::option::weighted(0.3, 0u8..16)).prop_map(|(s, a)| Step::Assign(s, a)),
        2 => (0u8..12).prop_map(Step::Vacate),
        2 => (0u8..16).prop_map(Step::Free),
        1 => (any::<bool>(), 0u8..12, 0u8..8).prop_map(|(p, first, n)| Step::Resize(p, first, n)),
    ]
}

/// Returns the sharing of Service `s` of the model: every third shares nothing, the others share one key, on one of two
/// ports.
fn model_sharing(s: u8) -> Option<Sharing> {
    let port = Port { protocol: "TCP".to_owned(), port: i32::from(s % 2) };
    (!s.is_multiple_of(3)).then(|| Sharing { key: "k".to_owned(), ports: vec![port], ..Sharing::default() })
}

/// Returns whether two Services of the model may share.
fn model_shares(s: u8, other: u8) -> bool {
    !s.is_multiple_of(3) && !other.is_multiple_of(3) && s % 2 != other % 2
}

proptest! {
    /// The allocator equals a naive model: a map of addresses to Services (the holders and the leaving ones), and two
    /// overlapping pools as sets of numbers.
    #[test]
    fn behaves_like_a_naive_model(steps in prop::collection::vec(step(), 0..60)) {
        let address = |n: u8| -> IpAddr { format!("192.0.2.{n}").parse().unwrap() };
        let spec = |first: u8, n: u8| pool(json!({"addresses": [format!("{}-{}", address(first), address(first + n))]}));
        let mut a = Allocator::default();
        let mut pools = BTreeMap::from([("a", 0u8..=5u8), ("b", 4..=9)]);
        for (name, range) in &pools {
            a.set_pool(name, &spec(*range.start(), range.end() - range.start()));
        }
        for s in 0..12 {
            a.set_sharing(&service(&format!("s{s}")), model_sharing(s).as_ref());
        }
        let mut model: BTreeMap<u8, BTreeMap<u8, bool>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Assign(s, wanted) => {
                    let usable = |n: &u8| pools.values().any(|p| p.contains(n));
                    let may_join = |n: &u8| model.get(n).is_none_or(|by| {
                        by.get(&s) == Some(&true)
                            || (by.values().any(|held| *held) && model_sharing(s).is_some()
                                && by.keys().all(|other| *other == s || model_shares(s, *other)))
                    });
                    let expected = match wanted {
                        Some(n) => (usable(&n) && may_join(&n)).then_some(n),
                        None => {
                            let shared = |n: &u8| {
                                let others = model.get(n).into_iter().flatten().any(|(o, held)| *held && *o != s && !o.is_multiple_of(3));
                                let has = model.get(n).is_some_and(|by| by.get(&s) == Some(&true));
                                model_sharing(s).is_some() && others && !has && may_join(n)
                            };
                            let by_pool = |wanted: &dyn Fn(&u8) -> bool| pools.values().find_map(|p| p.clone().find(wanted));
                            by_pool(&shared).or_else(|| by_pool(&|n| !model.contains_key(n)))
                        }
                    };
                    let wanted = wanted.map(|n| address(n).to_string());
                    let got = ask(&mut a, &format!("s{s}"), wanted.as_deref(), None).ok();
                    prop_assert_eq!(&got, &expected.map(|n| address(n).to_string()));
                    if let Some(n) = expected { model.entry(n).or_default().insert(s, true); }
                }
                Step::Vacate(s) => {
                    let reference = service(&format!("s{s}"));
                    for held in a.held(&reference) { a.vacate(&reference, held); }
                    for by in model.values_mut() { if let Some(held) = by.get_mut(&s) { *held = false; } }
                }
                Step::Free(n) => {
                    // The model frees as the index does: it frees an address that no Service has; where others keep the
                    // address, only the leaving Services part from it.
                    let kept = model.get(&n).is_some_and(|by| by.values().any(|held| *held));
                    if kept {
                        let leavers: Vec<u8> = model[&n].iter().filter(|(_, held)| !**held).map(|(s, _)| *s).collect();
                        for s in leavers { a.forget_leaving(&service(&format!("s{s}")), address(n)); }
                        model.entry(n).and_modify(|by| by.retain(|_, held| *held));
                    } else {
                        a.free(address(n));
                        model.remove(&n);
                    }
                }
                Step::Resize(second, first, n) => {
                    let name = if second { "b" } else { "a" };
                    pools.insert(name, first..=first + n);
                    a.set_pool(name, &spec(first, n));
                }
            }
            let occupied: Vec<_> = a.occupants().map(|(a, o)| (a, !o.services.is_empty())).collect();
            let expected: Vec<_> = model.iter().map(|(n, by)| (address(*n), by.values().any(|held| *held))).collect();
            prop_assert_eq!(occupied, expected);
            for (name, range) in &pools {
                let free = range.clone().filter(|n| !model.contains_key(n)).count();
                let usage = a.usage(name, IpFamily::V4).unwrap();
                prop_assert_eq!(usage.available, free.to_string());
            }
            for s in 0..12 {
                let reference = service(&format!("s{s}"));
                let of = |state: bool| model.iter().filter(move |(_, by)| by.get(&s) == Some(&state)).map(|(n, _)| address(*n));
                prop_assert_eq!(a.held(&reference), of(true).collect::<Vec<_>>());
                prop_assert_eq!(a.leaving(&reference), of(false).collect::<Vec<_>>());
                prop_assert!(of(true).all(|n| a.clash(&reference, n).is_none()), "no Service joined one it may not join");
            }
        }
    }
}
