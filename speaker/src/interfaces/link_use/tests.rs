//! Tests of the use of links as `ip -details -json addr` shows them.
//!
//! `seen.json` is its output on Linux 6.18 (iproute2), from a network namespace with the links that engines and people
//! make, without the far ends of the veths. `handmade.json` is written by hand, in the same form, for kinds of links
//! that this kernel lacks: VLANs, bonds, teams, VRFs, ipvlans, dummies, Open vSwitch ports, network cards.

use std::collections::BTreeMap;

use herald_crds::advertisement::InterfacePatterns;
use herald_protocol::twins::Parent;
use serde_json::Value;
use test_case::test_case;

use super::*;
use crate::interfaces::Setting;

const SEEN: &str = include_str!("seen.json");
const HANDMADE: &str = include_str!("handmade.json");

/// Returns the links of such an output. `default_route` is the link by which the default route leaves.
fn links(output: &str, default_route: &str) -> Vec<Link> {
    let output: Vec<Value> = serde_json::from_str(output).unwrap();
    let index = |value: &Value| u32::try_from(value["ifindex"].as_u64().unwrap()).unwrap();
    let indices: BTreeMap<&str, u32> =
        output.iter().map(|link| (link["ifname"].as_str().unwrap(), index(link))).collect();
    let other = |name: &Value| indices.get(name.as_str()?).copied();
    let read = |link: &Value| {
        let has = |flag: &str| link["flags"].as_array().unwrap().iter().any(|known| known == flag);
        let addresses = link["addr_info"].as_array().unwrap().iter().filter(|address| address["scope"] == "global");
        let net = |address: &Value| -> IpNet {
            format!("{}/{}", address["local"].as_str().unwrap(), address["prefixlen"]).parse().unwrap()
        };
        let name = link["ifname"].as_str().unwrap();
        Link {
            index: index(link),
            name: name.to_owned(),
            kind: link["linkinfo"]["info_kind"].as_str().map(str::to_owned),
            master: other(&link["master"]),
            parent: other(&link["link"]).map(|index| Parent { index, namespace: None }),
            is_balance_alb: link["linkinfo"]["info_data"]["mode"] == "balance-alb",
            mac: link["address"].as_str().filter(|_| link["link_type"] == "ether").map(|mac| mac.parse().unwrap()),
            up: has("UP"),
            carrier: has("LOWER_UP"),
            noarp: has("NOARP"),
            mtu: u32::try_from(link["mtu"].as_u64().unwrap()).unwrap(),
            prefixes: addresses.clone().map(net).collect(),
            addresses: addresses.clone().map(net).collect(),
            temporary: addresses.filter(|address| address["temporary"] == true).map(|a| net(a).addr()).collect(),
            link_local: None,
            default_route: name == default_route,
        }
    };
    output.iter().map(read).collect()
}

fn selection(setting: &str, advertised: &str) -> Selection {
    let patterns = |text: &str| text.parse::<InterfacePatterns>().unwrap().0;
    let advertised = if advertised.is_empty() { vec![] } else { vec![patterns(advertised)] };
    Selection { setting: Setting { patterns: patterns(setting), node: None }, advertised, unreadable: vec![] }
}

/// Returns the use of a link, and the reason.
fn use_of(output: &str, default_route: &str, selection: &Selection, name: &str) -> (LinkUse, String) {
    let survey = survey(&links(output, default_route), selection);
    let link = survey.links.iter().find(|link| link.interface == name).unwrap();
    let is_segment = survey.segments.iter().any(|local| local.segment.interface.name == name);
    assert_eq!(is_segment, link.link_use == LinkUse::Segment);
    (link.link_use, link.message.clone().unwrap_or_default())
}

#[test_case(SEEN, "lo", LinkUse::Skipped, "not an Ethernet link")]
#[test_case(SEEN, "eth0", LinkUse::Segment, ""; "a veth with an on-link prefix is a network card, as in kind")]
#[test_case(SEEN, "eth1", LinkUse::Skipped, "the bridge br-lan takes its frames")]
#[test_case(SEEN, "br-lan", LinkUse::Segment, ""; "a bridge of a person")]
#[test_case(SEEN, "br-0123456789AB", LinkUse::Segment, ""; "Docker writes lower-case digits")]
#[test_case(SEEN, "eth2", LinkUse::Skipped, "it is down: ip link set eth2 up")]
#[test_case(SEEN, "eth4", LinkUse::Skipped, "ARP is off")]
#[test_case(SEEN, "shim", LinkUse::Segment, ""; "a macvlan")]
#[test_case(SEEN, "tap0", LinkUse::Segment, ""; "a tap")]
#[test_case(SEEN, "tun0", LinkUse::Skipped, "not an Ethernet link"; "a tun")]
#[test_case(SEEN, "docker0", LinkUse::Containers, "that Docker gives")]
#[test_case(SEEN, "docker_gwbridge", LinkUse::Containers, "that Docker gives"; "of a swarm")]
#[test_case(SEEN, "br-0123456789ab", LinkUse::Containers, "that Docker gives"; "of a network of Docker")]
#[test_case(SEEN, "podman0", LinkUse::Containers, "Podman")]
#[test_case(SEEN, "nerdctl0", LinkUse::Containers, "nerdctl")]
#[test_case(SEEN, "lxdbr0", LinkUse::Containers, "LXD")]
#[test_case(SEEN, "incusbr0", LinkUse::Containers, "Incus")]
#[test_case(SEEN, "lxcbr0", LinkUse::Containers, "LXC")]
#[test_case(SEEN, "virbr0", LinkUse::Containers, "libvirt")]
#[test_case(SEEN, "cni0", LinkUse::Containers, "a CNI plugin")]
#[test_case(SEEN, "cbr0", LinkUse::Containers, "kubenet")]
#[test_case(SEEN, "kube-bridge", LinkUse::Containers, "kube-router")]
#[test_case(SEEN, "weave", LinkUse::Containers, "Weave Net")]
#[test_case(SEEN, "cilium_host", LinkUse::Containers, "Cilium")]
#[test_case(SEEN, "flannel.1", LinkUse::Containers, "a network of pods"; "by its kind")]
#[test_case(SEEN, "stretch", LinkUse::Containers, "a network of pods"; "a vxlan of any name")]
#[test_case(HANDMADE, "eno1", LinkUse::Segment, ""; "a network card")]
#[test_case(HANDMADE, "eno1.100", LinkUse::Segment, ""; "a VLAN on it")]
#[test_case(HANDMADE, "bond0", LinkUse::Segment, ""; "a bond")]
#[test_case(HANDMADE, "eno3", LinkUse::Skipped, "the bond bond1 takes its frames")]
#[test_case(HANDMADE, "red", LinkUse::Skipped, "ARP is off"; "a VRF")]
#[test_case(HANDMADE, "eno4", LinkUse::Segment, ""; "a member of a VRF")]
#[test_case(HANDMADE, "team0", LinkUse::Segment, ""; "a team")]
#[test_case(HANDMADE, "eno5", LinkUse::Skipped, "the team team0 takes its frames")]
#[test_case(HANDMADE, "kube-ipvs0", LinkUse::Containers, "kube-proxy")]
#[test_case(HANDMADE, "nodelocaldns", LinkUse::Containers, "NodeLocal DNSCache")]
#[test_case(HANDMADE, "dummy0", LinkUse::Skipped, "ARP is off"; "a dummy")]
#[test_case(HANDMADE, "ipvl0", LinkUse::Skipped, "an ipvlan takes in packets to its own addresses alone")]
#[test_case(HANDMADE, "macvtap0", LinkUse::Segment, ""; "a macvtap")]
#[test_case(HANDMADE, "br-ex", LinkUse::Segment, ""; "an Open vSwitch bridge with the node's address")]
#[test_case(HANDMADE, "ovn-k8s-mp0", LinkUse::Containers, "OVN-Kubernetes")]
#[test_case(HANDMADE, "antrea-gw0", LinkUse::Containers, "Antrea")]
#[test_case(HANDMADE, "tunl0", LinkUse::Containers, "Calico")]
#[test_case(HANDMADE, "wg0", LinkUse::Skipped, "not an Ethernet link"; "WireGuard")]
#[test_case(HANDMADE, "genev_sys_6081", LinkUse::Containers, "a network of pods"; "geneve")]
#[test_case(HANDMADE, "cni0", LinkUse::Segment, ""; "a network card is not judged by its name")]
#[test_case(HANDMADE, "eno7", LinkUse::Skipped, "none of its addresses has neighbours on link"; "a single address")]
#[test_case(HANDMADE, "virbr7", LinkUse::Containers, "libvirt"; "any number")]
fn nature_of_a_link_decides_its_use(output: &str, name: &str, expected: LinkUse, reason: &str) {
    let (link_use, message) = use_of(output, "", &Selection::default(), name);
    assert_eq!(link_use, expected, "{message}");
    assert!(message.contains(reason), "{message}");
    assert_eq!(message.is_empty(), link_use == LinkUse::Segment);
}

#[test_case("docker0", "", "docker0", "" => LinkUse::Segment; "a setting names it")]
#[test_case("stretch", "", "", "stretch" => LinkUse::Segment; "an advertisement names it")]
#[test_case("docker0", "", "", "*" => LinkUse::Containers; "a wildcard names nothing")]
#[test_case("docker0", "docker0", "", "" => LinkUse::Segment; "the default route leaves by it")]
#[test_case("docker0", "docker0", "!docker0", "" => LinkUse::Skipped; "a setting excludes even that")]
#[test_case("br-lan", "", "!br-lan", "br-lan" => LinkUse::Skipped; "a setting stands above an advertisement")]
#[test_case("eth0", "", "br-lan", "" => LinkUse::Skipped; "a setting names others")]
#[test_case("docker0", "", "br-lan", "" => LinkUse::Containers; "a link that no setting names keeps its use")]
#[test_case("eth1", "", "eth1", "eth1" => LinkUse::Skipped; "no wish makes a bridge port a segment")]
#[test_case("tun0", "tun0", "tun0", "tun0" => LinkUse::Skipped; "no wish makes a tun a segment")]
fn settings_decide_the_use_of_a_link(name: &str, default_route: &str, setting: &str, advertised: &str) -> LinkUse {
    use_of(SEEN, default_route, &selection(setting, advertised), name).0
}

#[test]
fn reason_of_an_excluded_link_names_the_setting() {
    let (_, by_flag) = use_of(SEEN, "", &selection("!eth0", ""), "eth0");
    assert_eq!(by_flag, "the speakers' flag --interfaces (HERALD_INTERFACES) leaves it out");
    let mut selection = selection("!eth0", "");
    selection.setting.node = Some("node1".to_owned());
    let (_, by_node) = use_of(SEEN, "", &selection, "eth0");
    assert_eq!(by_node, "the annotation heraldlb.io/interfaces of Node node1 leaves it out");
}

#[test]
fn arp_of_a_bond_in_mode_6_is_rewritten_on_it_and_on_its_vlans() {
    let found = survey(&links(HANDMADE, ""), &Selection::default()).rewritten_arp;
    let expected = [("bond1", "bond1"), ("bond1.7", "bond1")].map(|(on, bond)| (on.to_owned(), bond.to_owned()));
    assert_eq!(found, expected);
}

#[test]
fn links_without_an_address_of_global_scope_are_not_listed() {
    let survey = survey(&links(SEEN, ""), &Selection::default());
    let is_listed = |name: &str| survey.links.iter().any(|link| link.interface == name);
    assert!(!is_listed("cali1234"), "a pod's link");
    assert!(!is_listed("eth3"), "a pod's link with the pods' gateway as a single address");
}

#[test]
fn temporary_addresses_and_those_of_services_are_not_listed() {
    let survey = survey(&links(HANDMADE, ""), &Selection::default());
    let addresses = |name: &str| &survey.links.iter().find(|link| link.interface == name).unwrap().addresses;
    assert_eq!(*addresses("eno1"), ["192.0.2.11/24", "2001:db8::11/64"]);
    assert_eq!(*addresses("kube-ipvs0"), Vec::<String>::new());
    assert_eq!(*addresses("dummy0"), ["198.51.100.7/32"], "an address of the node's own");
    assert_eq!(*addresses("virbr7"), ["10.12.0.11/24"]);
}

#[test]
fn lists_are_bounded_and_count_the_rest() {
    let nic = links(HANDMADE, "").remove(0);
    let many = (0..200).map(|i| Link { index: 100 + i, name: format!("pod{i}"), master: Some(9999), ..nic.clone() });
    let mut all: Vec<Link> = many.collect();
    let addresses = (0..200).map(|i| IpNet::new([10, 0, 0, i].into(), 24).unwrap()).collect();
    all.push(Link { addresses, ..nic });
    let survey = survey(&all, &Selection::default());
    assert_eq!((survey.links.len(), survey.links_left_out), (MAX_LISTED, 201 - MAX_LISTED));
    let first = &survey.links[0];
    assert_eq!((first.interface.as_str(), first.link_use), ("eno1", LinkUse::Segment), "segments are listed first");
    assert_eq!((first.addresses.len(), first.addresses_left_out), (MAX_LISTED, 200 - 64));
}
