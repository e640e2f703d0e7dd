//! The use of a link: it is a segment, or it is left alone for a reason. Pure.
//!
//! The nature of a link decides: its kind, the link it belongs to, whether it is up and speaks Ethernet and ARP, and
//! whether neighbours are on link. A person who names an interface overrules its name ([`Selection`]), but not its
//! nature: a port of a bridge hands its frames to the bridge, whatever a setting says.

use std::collections::BTreeMap;

use herald_crds::speaker_status::{LinkStatus, LinkUse};
use ipnet::IpNet;

use super::{
    Link, LocalSegment, container_links, segment_of,
    selection::{Selection, Wish},
};

/// Number of links that SpeakerStatus lists at most, and of addresses of each: a node has a handful, and an object has
/// room for 1.5 MB.
pub const MAX_LISTED: usize = 64;

/// The links of a node, each with the use made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The links on which addresses can be announced, by interface name.
    pub segments: Vec<LocalSegment>,
    /// The links that have addresses, segments first, then by name; at most [`MAX_LISTED`].
    pub links: Vec<LinkStatus>,
    /// Number of links that have addresses and are not listed.
    pub links_left_out: usize,
    /// Segments whose ARP a bond rewrites, each with the bond.
    pub rewritten_arp: Vec<(String, String)>,
}

/// The use of a link, and the sentence about why.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    Segment,
    Skipped(String),
    Containers(String),
}

/// Decides about each link.
pub fn survey(links: &[Link], selection: &Selection) -> Survey {
    let by_index: BTreeMap<u32, &Link> = links.iter().map(|link| (link.index, link)).collect();
    let mut survey = Survey::default();
    let mut listed: Vec<LinkStatus> = Vec::new();
    for link in links {
        let decision = decide(link, &by_index, selection);
        if decision == Decision::Segment {
            survey.segments.extend(segment_of(link));
            let bond = rewriting_bond(link, &by_index).map(|bond| (link.name.clone(), bond.name.clone()));
            survey.rewritten_arp.extend(bond);
        }
        if link.global_addresses().next().is_some() && !is_pod_link(link) {
            listed.push(status(link, decision));
        }
    }
    survey.segments.sort_by(|a, b| a.segment.interface.name.cmp(&b.segment.interface.name));
    listed.sort_by(|a, b| (a.link_use, &a.interface).cmp(&(b.link_use, &b.interface)));
    survey.links_left_out = listed.len().saturating_sub(MAX_LISTED);
    listed.truncate(MAX_LISTED);
    survey.links = listed;
    survey
}

fn decide(link: &Link, by_index: &BTreeMap<u32, &Link>, selection: &Selection) -> Decision {
    let wish = selection.wish(&link.name);
    // A name never overrules the default route or a person.
    if let Some(why) = container_links::reason(link)
        && wish != Wish::Named
        && !link.default_route
    {
        return Decision::Containers(format!(
            "{why}; if it is a network of yours, name it in spec.interfaces of an L2Advertisement or in {}",
            selection.setting.place()
        ));
    }
    if let Some(why) = unfit(link, by_index) {
        return Decision::Skipped(why);
    }
    if wish == Wish::Excluded {
        return Decision::Skipped(format!("{} leaves it out", selection.setting.place()));
    }
    Decision::Segment
}

/// Returns whether a link leads to one pod: a veth on which the `ptp` plugin of CNI (kindnet uses it) has put the pods'
/// gateway as a single address. There are as many as pods, and they come and go with them.
fn is_pod_link(link: &Link) -> bool {
    link.kind.as_deref() == Some("veth") && link.on_link_prefixes().is_empty() && !link.default_route
}

/// Returns why nothing can be announced on a link, whatever the settings.
fn unfit(link: &Link, by_index: &BTreeMap<u32, &Link>) -> Option<String> {
    if let Some(why) = link.master.and_then(|master| belongs(by_index.get(&master).copied())) {
        return Some(why);
    }
    if link.kind.as_deref() == Some("ipvlan") {
        // `ipvlan_addr_lookup` (drivers/net/ipvlan/ipvlan_core.c) hands no other packets to it.
        let why = "an ipvlan takes in packets to its own addresses alone, never those to a Service's address: use its \
                   parent link, or a macvlan";
        return Some(why.to_owned());
    }
    if link.mac.is_none_or(|mac| !mac.is_unicast()) {
        return Some("it is not an Ethernet link: no host there asks by ARP or Neighbour Discovery".to_owned());
    }
    if link.noarp {
        return Some(
            "ARP is off on it (NOARP, as on a dummy link or a VRF): no host there asks for addresses".to_owned(),
        );
    }
    if !link.up {
        return Some(format!("it is down: ip link set {} up", link.name));
    }
    if link.on_link_prefixes().is_empty() {
        let why = "none of its addresses has neighbours on link: give it an address with its subnet's prefix length";
        return Some(why.to_owned());
    }
    None
}

/// Returns why nothing can be announced on a link that belongs to another. A member of a VRF keeps its addresses and
/// its frames (Documentation/networking/vrf.rst); every other master takes the frames for itself.
fn belongs(master: Option<&Link>) -> Option<String> {
    let Some(master) = master else {
        return Some("a link outside this network namespace takes its frames".to_owned());
    };
    let (name, kind) = (&master.name, master.kind.as_deref().unwrap_or("link"));
    (kind != "vrf").then(|| {
        format!(
            "the {kind} {name} takes its frames: addresses are announced on {name}, if that has an address with its \
                 subnet's prefix length"
        )
    })
}

/// Returns the bond in mode 6 that sends the frames of a link: the link itself, or the bond that a VLAN stands on. The
/// bond replaces the sender's link-layer address in ARP of these two alone (`rlb_arp_xmit`,
/// drivers/net/bonding/bond_alb.c).
fn rewriting_bond<'a>(link: &'a Link, by_index: &BTreeMap<u32, &'a Link>) -> Option<&'a Link> {
    let is_vlan = link.kind.as_deref() == Some("vlan");
    let parent = || link.parent.filter(|parent| is_vlan && parent.namespace.is_none()).map(|parent| parent.index);
    let is_rewriting = |link: &&Link| link.is_balance_alb;
    let parent = || by_index.get(&parent()?).copied();
    Some(link).filter(is_rewriting).or_else(parent).filter(is_rewriting)
}

fn status(link: &Link, decision: Decision) -> LinkStatus {
    let (link_use, message) = match decision {
        Decision::Segment => (LinkUse::Segment, None),
        Decision::Skipped(why) => (LinkUse::Skipped, Some(why)),
        Decision::Containers(why) => (LinkUse::Containers, Some(why)),
    };
    let addresses: Vec<_> = link.global_addresses().filter(|address| is_listed(link, *address, link_use)).collect();
    let left_out = addresses.len().saturating_sub(MAX_LISTED);
    LinkStatus {
        interface: link.name.clone(),
        kind: link.kind.clone(),
        addresses: addresses.iter().take(MAX_LISTED).map(ToString::to_string).collect(),
        addresses_left_out: i64::try_from(left_out).unwrap_or(i64::MAX),
        link_use,
        message,
    }
}

/// Returns whether an address is listed. Temporary addresses (RFC 8981) are not: they change every day, and no pool can
/// foresee them. Single addresses of container links are not either: kube-ipvs0 has one for each Service.
fn is_listed(link: &Link, address: IpNet, link_use: LinkUse) -> bool {
    let is_single = address.prefix_len() == address.max_prefix_len();
    let is_service = link_use == LinkUse::Containers && is_single;
    !is_service && !link.temporary.contains(&address.addr())
}

#[cfg(test)]
mod tests;
