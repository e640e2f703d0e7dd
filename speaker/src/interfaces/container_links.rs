//! Links that container engines, pod networks and kube-proxy make on a node.
//!
//! The kind of such a link identifies it where the kind suffices. A name is the last resort, for kinds that do not (a
//! bridge is a bridge): a network card is never judged by its name, nor is an interface that the default route leaves
//! by, or that a person has named ([`link_use`](super::link_use)).

use herald_crds::advertisement::{InterfacePattern, chooses_interface};

use super::Link;

/// Kinds of links that carry pod networks from node to node: Flannel, Calico, Cilium, Antrea and OVN make them.
const OVERLAYS: [&str; 2] = ["vxlan", "geneve"];

/// Names, with the program that makes such links. [`is_docker_bridge`] recognizes Docker's bridges for networks of its
/// users.
const NAMES: [(&str, &str); 27] = [
    ("docker0", "Docker"),
    ("docker_gwbridge", "Docker"),
    ("podman*", "Podman"),
    ("nerdctl*", "nerdctl"),
    ("lxdbr*", "LXD"),
    ("incusbr*", "Incus"),
    ("lxcbr*", "LXC"),
    ("virbr*", "libvirt"),
    ("cni*", "a CNI plugin"),
    ("cbr0", "kubenet"),
    ("flannel*", "Flannel"),
    ("cali*", "Calico"),
    ("tunl*", "Calico"),
    ("vxlan.calico", "Calico"),
    ("cilium_*", "Cilium"),
    ("lxc*", "Cilium"),
    ("antrea-*", "Antrea"),
    ("ovn-k8s-*", "OVN-Kubernetes"),
    ("ovn0", "Kube-OVN"),
    ("weave", "Weave Net"),
    ("kube-bridge", "kube-router"),
    ("kube-dummy-if", "kube-router"),
    ("kube-ipvs0", "kube-proxy"),
    ("kube-lb0", "PureLB"),
    ("nodelocaldns", "NodeLocal DNSCache"),
    ("vmnet*", "VMware"),
    ("vboxnet*", "VirtualBox"),
];

/// Returns why the link, by its kind or by its name, counts as one of these.
pub(super) fn reason(link: &Link) -> Option<String> {
    let kind = link.kind.as_deref()?;
    if OVERLAYS.contains(&kind) {
        return Some(format!("a link of kind {kind} carries a network of pods from node to node"));
    }
    if is_docker_bridge(&link.name) {
        return Some(by_name("Docker"));
    }
    let is_named = |pattern: &str| chooses_interface(&[InterfacePattern(pattern.to_owned())], &link.name);
    NAMES.iter().find(|(pattern, _)| is_named(pattern)).map(|(_, maker)| by_name(maker))
}

fn by_name(maker: &str) -> String {
    format!("its name is one that {maker} gives to its links")
}

/// Returns whether a name is that of the bridge Docker makes for a network: `br-` and the first twelve digits of its id
/// (`getBridgeName`, daemon/libnetwork/drivers/bridge). People give names such as `br-lan` and `br-ex`.
fn is_docker_bridge(name: &str) -> bool {
    let is_digit = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
    name.strip_prefix("br-").is_some_and(|id| id.len() == 12 && id.bytes().all(is_digit))
}
