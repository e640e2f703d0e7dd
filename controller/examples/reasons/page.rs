//! The page `docs/reasons.md`: every reason and every note that a Service can show, each with its sentence, from the
//! types that make them. The lists cannot fall behind: each is a chain over all variants, which the compiler checks.

use std::{
    fmt::Display,
    iter::successors,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use herald_crds::{
    address::IpFamily,
    names::{ANNOTATION_ADDRESSES, LABEL_HEADLESS},
    service::RequestError,
    virtual_ip::ServiceReference,
};

use herald_controller::{
    advisory::Advisory,
    allocator::{Obstacle, Port, Refusal, Reservation, SharingObstacle},
    gateway_view::GatewayKey,
};

const HEAD: &str = "\
# Why a Service waits

<!-- Generated from controller/src by `make reasons`; do not edit. -->

The condition `heraldlb.io/AddressAssigned` of a Service is False while it lacks an address it asks for; its reason is
one of these, its message has a sentence for each address that is lacking, and one Warning Event reports it. If
annotation `heraldlb.io/address-count` asks for several addresses and some are there, the message begins with how many of
how many. If `spec.addresses` of a Gateway asks for the address, the sentence ends with the Gateway and the remedy there.

| reason | sentence, for example |
|---|---|
";

const OBSTACLES: &str = "
`NoPoolAllows` gives for each pool one of these reasons:

";

const SHARING: &str = "
`SharingRefused` and `SharingConflict` give one of these reasons why two Services cannot share an address:

";

const CAVEATS: &str = "
## Notes

Each is a note in the message of the same condition while it holds, whether the Service has its address or waits, and
one Warning event of this reason when it appears.

| reason | sentence, for example |
|---|---|
";

/// The reasons without a type of their own. A test of the index compares this text with the reasons that random
/// histories produce.
const REST: &str = "
## The other reasons of that condition

| reason | status | when |
|---|---|---|
| `Assigned` | True | the Service has what it asks for |
| `OutsidePool` | True | its address is no longer in any pool; the sentence gives the command to get another |
| `AddressConflict` | True | a host outside the cluster answers for its address; the sentence names that host, and why the Service keeps the address |
| `AnsweredByClusterNode` | True | a node of the cluster answers for its address unasked |
| `WriteRefused` | False | the API server refuses its VirtualIP; the sentence is the API server's, and the remedy follows from its answer |

## Events

These Events come besides the Warnings above. Each is posted at most once an hour:

| reason | about | when |
|---|---|---|
| `EnsuredLoadBalancer` | Service | it was given an address |
| `SyncLoadBalancerFailed` | Service | the condition has become False; the note begins with its reason |
| `DeletedLoadBalancer` | Service | every address of it is withdrawn and free again; a Warning if the controller's flags are the cause |
| `AddressOutsidePool` | Service | the condition has become `OutsidePool` |
| `AddressQuarantined` | Service | a host outside the cluster has its address, which was never announced: the Service gets another |
| `AddressConflict`, `AnsweredByClusterNode` | Service | the condition has become this |
| `StatusOverwritten` | Service | another program undoes what Herald writes into its status |
| `UnAvailableLoadBalancer` | Service | no node announces its address |
| `FieldsNotKept` | VirtualIP, AddressPool, L2Advertisement | the CustomResourceDefinitions are of another version than the controller, or a webhook changes what it writes |
| `VirtualIPMisdated` | Service | the clocks of the control plane are apart, so no node announces its address |
| `WithdrawalTimedOut` | VirtualIP | its announcer has not reported that it fell silent, and the controller waits no longer |

## Pools and advertisements

| object | condition | reasons |
|---|---|---|
| AddressPool | `Accepted` True | `Valid`; `HostBits`: a CIDR is read as its network; `Overlaps`: some of its addresses are also elsewhere; `InvalidAnnotation`: the one that releases its quarantine cannot be read |
| AddressPool | `Accepted` False | `InvalidAddresses`: an entry cannot be read; `InvalidSelector`: a selector cannot be read, and the pool gives out no address; `NoAddresses`: no address is left of it; `Deleting`: it waits for a finalizer, and gives out no address |
| AddressPool | `ContainsAssigned` | `Contained`; `Orphaned`: addresses assigned from it are no longer in any pool |
| L2Advertisement | `Accepted` True | `Valid`; `UnknownPool`; `NoNodeSelected`; `ManyBefore`: 64 others come before it by name |
| L2Advertisement | `Accepted` False | `InvalidSelector`: it changes nothing until it is corrected: addresses that it selected keep their rules from it, and all others ignore it |
| AddressPool, L2Advertisement | `Stalled` True | the reason of `Accepted` while that is False; otherwise the condition is absent |
";

/// Returns the page.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for refusal in successors(refusal_after(None), |r| refusal_after(Some(r))) {
        row(&mut page, refusal.reason(), &refusal);
    }
    page.push_str(OBSTACLES);
    for obstacle in successors(obstacle_after(None), |o| obstacle_after(Some(o))) {
        item(&mut page, &obstacle);
    }
    page.push_str(SHARING);
    for obstacle in successors(sharing_after(None), |o| sharing_after(Some(o))) {
        item(&mut page, &obstacle);
    }
    page.push_str(CAVEATS);
    for caveat in successors(caveat_after(None), |c| caveat_after(Some(c))) {
        row(&mut page, caveat.reason(), &caveat);
    }
    page.push_str(REST);
    page
}

fn row(page: &mut String, reason: &str, sentence: &impl Display) {
    page.push_str(&format!("| `{reason}` | {sentence} |\n"));
}

fn item(page: &mut String, sentence: &impl Display) {
    page.push_str(&format!("- {sentence}\n"));
}

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));

fn lan() -> String {
    "lan".to_owned()
}

fn web() -> ServiceReference {
    ServiceReference { namespace: "shop".to_owned(), name: "web".to_owned(), uid: String::new() }
}

fn front() -> GatewayKey {
    GatewayKey { namespace: "shop".to_owned(), name: "front".to_owned() }
}

fn refusal_after(refusal: Option<&Refusal>) -> Option<Refusal> {
    let (family, address) = (IpFamily::V4, ADDRESS);
    Some(match refusal {
        None => Refusal::NoPool,
        Some(Refusal::NoPool) => Refusal::PoolFull { family, pools: vec![lan()], elsewhere: None },
        Some(Refusal::PoolFull { .. }) => Refusal::NoPoolAllows {
            family,
            pools: vec![(lan(), Obstacle::Draining), ("dmz".to_owned(), Obstacle::NotAutomatic)],
        },
        Some(Refusal::NoPoolAllows { .. }) => Refusal::UnknownPool { pool: "dzm".to_owned() },
        Some(Refusal::UnknownPool { .. }) => Refusal::AddressNotInPool { address, pools: vec![lan()] },
        Some(Refusal::AddressNotInPool { .. }) => Refusal::FamilyNotServed {
            address: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7)),
            family: IpFamily::V6,
        },
        Some(Refusal::FamilyNotServed { .. }) => Refusal::AddressInUse { address, by: Some(web()) },
        Some(Refusal::AddressInUse { .. }) => Refusal::SharingRefused {
            address,
            by: web(),
            why: Box::new(SharingObstacle::Port(Port { protocol: "TCP".to_owned(), port: 443 })),
        },
        Some(Refusal::SharingRefused { .. }) => Refusal::AddressInExternalIps { address, by: web() },
        Some(Refusal::AddressInExternalIps { .. }) => {
            Refusal::AddressReserved { address, by: Reservation::Node("node1".to_owned()) }
        }
        Some(Refusal::AddressReserved { .. }) => {
            Refusal::AddressNotAdopted { address, by: Reservation::Node("node1".to_owned()) }
        }
        Some(Refusal::AddressNotAdopted { .. }) => {
            Refusal::AddressAvoided { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 255)), pool: lan() }
        }
        Some(Refusal::AddressAvoided { .. }) => Refusal::GatewayNotFound { gateway: front() },
        Some(Refusal::GatewayNotFound { .. }) => Refusal::GatewaysUnreadable { gateway: front() },
        Some(Refusal::GatewaysUnreadable { .. }) => Refusal::BadRequest(RequestError::NotAnAddress {
            field: format!("metadata.annotations[{ANNOTATION_ADDRESSES}]"),
            value: "192.0.2.300".to_owned(),
        }),
        Some(Refusal::BadRequest(_)) => Refusal::ForeignIngress { value: "lb.example.com".to_owned() },
        Some(Refusal::ForeignIngress { .. }) => return None,
    })
}

fn obstacle_after(obstacle: Option<&Obstacle>) -> Option<Obstacle> {
    Some(match obstacle {
        None => Obstacle::NotAutomatic,
        Some(Obstacle::NotAutomatic) => Obstacle::Draining,
        Some(Obstacle::Draining) => Obstacle::Deleting,
        Some(Obstacle::Deleting) => Obstacle::NotSelected,
        Some(Obstacle::NotSelected) => Obstacle::NoSuchFamily(IpFamily::V6),
        Some(Obstacle::NoSuchFamily(_)) => Obstacle::Unusable(
            "spec.addresses[0]: \"192.0.2.9-192.0.2.4\" ends before it starts: write 192.0.2.4-192.0.2.9".to_owned(),
        ),
        Some(Obstacle::Unusable(_)) => return None,
    })
}

fn sharing_after(obstacle: Option<&SharingObstacle>) -> Option<SharingObstacle> {
    Some(match obstacle {
        None => SharingObstacle::NoKey,
        Some(SharingObstacle::NoKey) => SharingObstacle::OtherKey { mine: "dns".to_owned(), theirs: "mail".to_owned() },
        Some(SharingObstacle::OtherKey { .. }) => SharingObstacle::Port(Port { protocol: "TCP".to_owned(), port: 443 }),
        Some(SharingObstacle::Port(_)) => SharingObstacle::Selectors,
        Some(SharingObstacle::Selectors) => SharingObstacle::Namespaces { pool: lan() },
        Some(SharingObstacle::Namespaces { .. }) => SharingObstacle::Full,
        Some(SharingObstacle::Full) => return None,
    })
}

fn caveat_after(caveat: Option<&Advisory>) -> Option<Advisory> {
    Some(match caveat {
        None => Advisory::LoadBalancerIpOverruled { ip: "192.0.2.11".to_owned() },
        Some(Advisory::LoadBalancerIpOverruled { .. }) => {
            Advisory::GatewayAddressesOverruled { gateway: front(), addresses: "192.0.2.11".to_owned() }
        }
        Some(Advisory::GatewayAddressesOverruled { .. }) => {
            Advisory::SourceRangesNotEnforced { ranges: "10.0.0.0/8".to_owned() }
        }
        Some(Advisory::SourceRangesNotEnforced { .. }) => Advisory::LocalWithoutSelector,
        Some(Advisory::LocalWithoutSelector) => Advisory::SkippedByKubeProxy { label: LABEL_HEADLESS },
        Some(Advisory::SkippedByKubeProxy { .. }) => {
            Advisory::AnotherProvider { manager: "cloud-controller-manager".to_owned() }
        }
        Some(Advisory::AnotherProvider { .. }) => Advisory::ForeignAnnotation {
            foreign: "kube-vip.io/loadbalancerIPs",
            value: "192.0.2.11".to_owned(),
            ours: ANNOTATION_ADDRESSES,
        },
        Some(Advisory::ForeignAnnotation { .. }) => Advisory::SharingConflict {
            address: ADDRESS,
            other: "shop/web".to_owned(),
            why: SharingObstacle::Port(Port { protocol: "TCP".to_owned(), port: 443 }),
        },
        Some(Advisory::SharingConflict { .. }) => Advisory::ShownTwice { address: ADDRESS, other: web() },
        Some(Advisory::ShownTwice { .. }) => {
            Advisory::ReservedAddress { address: ADDRESS, by: Reservation::Node("node1".to_owned()) }
        }
        Some(Advisory::ReservedAddress { .. }) => {
            Advisory::VirtualIpHeld { address: ADDRESS, finalizers: "example.com/inventory".to_owned() }
        }
        Some(Advisory::VirtualIpHeld { .. }) => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn page_matches_the_types() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reasons.md");
        let written = fs::read_to_string(path).unwrap();
        assert!(
            written == page(),
            "docs/reasons.md differs from the types: run `make reasons` and read the difference"
        );
    }

    /// Each reason is one distinct word, as `kubectl wait` and alerts need it, and each sentence names a remedy.
    #[test]
    fn reasons_are_distinct_words_and_sentences_name_a_remedy() {
        let refusals: Vec<_> = successors(refusal_after(None), |r| refusal_after(Some(r))).collect();
        let caveats: Vec<_> = successors(caveat_after(None), |c| caveat_after(Some(c))).collect();
        let reasons: Vec<_> =
            refusals.iter().map(Refusal::reason).chain(caveats.iter().map(Advisory::reason)).collect();
        assert_eq!(reasons.iter().collect::<BTreeSet<_>>().len(), reasons.len());
        assert!(reasons.iter().all(|r| r.chars().all(char::is_alphanumeric)));
        let remedies =
            ["create", "delete", "add", "ask", "take", "write", "give", "let", "set", "use", "change", "label", "name"];
        for sentence in refusals.iter().map(ToString::to_string).chain(caveats.iter().map(ToString::to_string)) {
            let words: BTreeSet<_> = sentence.split(|c: char| !c.is_alphanumeric()).collect();
            assert!(remedies.iter().any(|remedy| words.contains(remedy)), "{sentence}");
        }
    }
}
