//! The steps that inject a fault and those that heal it, as pure functions.

use ipnet::IpNet;

use super::model::{ApiServerFault, Fault, Link};
use crate::cluster::{Plan, Port, Role, plan::bridge_name};
use crate::probe::Mac;

/// A single action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Run `ip` with these arguments in the switch's network namespace.
    SwitchIp(Vec<String>),
    /// Run `ip` with these arguments in a host's network namespace.
    HostIp {
        /// The host.
        host: String,
        /// The arguments.
        args: Vec<String>,
    },
    /// Remove a port of the switch, and with it the host's interface at its other end; do nothing if the port does not
    /// exist.
    Unplug(String),
    /// Run kubectl with these arguments.
    Kubectl(Vec<String>),
    /// Send a signal to the process of a host's service.
    SignalService {
        /// The host.
        host: String,
        /// The service.
        service: &'static str,
        /// Name of the signal for `kill -s`.
        signal: &'static str,
    },
    /// Stop a host's service and keep it stopped.
    HoldService {
        /// The host.
        host: String,
        /// The service.
        service: &'static str,
    },
    /// Let a held service run again.
    ReleaseService {
        /// The host.
        host: String,
        /// The service.
        service: &'static str,
    },
    /// Cut a host's power or restore it.
    Power {
        /// The host.
        host: String,
        /// Whether it has power afterwards.
        on: bool,
    },
    /// Stop all processes of a container, or continue them.
    Freeze {
        /// The runtime's ID of the container.
        container: String,
        /// Whether the processes are stopped afterwards.
        frozen: bool,
    },
}

/// The error for a fault that this laboratory cannot have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Impossible {
    /// The host does not exist.
    #[error("there is no host {name}; there are {known}")]
    NoHost {
        /// The name given.
        name: String,
        /// The existing names.
        known: String,
    },
    /// The host is not on the segment.
    #[error("{host} is not on segment lan{segment}")]
    NotOnSegment {
        /// The host.
        host: String,
        /// Number of the segment.
        segment: u8,
    },
    /// The segment does not exist.
    #[error("there is no segment lan{segment}; the last one is lan{last}")]
    NoSegment {
        /// The number given.
        segment: u8,
        /// The largest existing number.
        last: u8,
    },
    /// The host is not a node of the cluster.
    #[error("{0} is not a node of the cluster")]
    NotANode(String),
    /// A partition needs two sides.
    #[error("a partition needs two groups or more, and no host in two of them")]
    NotAPartition,
}

/// Returns the switch port of an interface that was added to a host.
#[must_use]
pub fn added_port(host: &str, number: u8) -> String {
    format!("{host}-{number}")
}

/// Returns the steps that inject the fault. A fault of the wire needs no step of its own: it is part of
/// [`super::wire::ruleset`].
///
/// # Errors
/// If the laboratory of this plan cannot have the fault.
pub fn inject(fault: &Fault, plan: &Plan) -> Result<Vec<Step>, Impossible> {
    Ok(match fault {
        Fault::PoweredOff { host } => {
            known(host, plan)?;
            vec![Step::Power { host: host.clone(), on: false }]
        }
        Fault::Cut(link) => vec![set_port(&port(link, plan)?, "down")],
        Fault::Dropping { link, .. } => {
            port(link, plan)?;
            Vec::new()
        }
        Fault::EtherTypeDropped { segment, .. } => {
            exists(*segment, plan)?;
            Vec::new()
        }
        Fault::Partition { segment, groups } => {
            let mut all: Vec<&String> = groups.iter().flatten().collect();
            for host in &all {
                port(&Link { host: (*host).clone(), segment: *segment }, plan)?;
            }
            let named = all.len();
            all.sort_unstable();
            all.dedup();
            if groups.len() < 2 || named != all.len() || groups.iter().any(|group| group.is_empty()) {
                return Err(Impossible::NotAPartition);
            }
            Vec::new()
        }
        Fault::ApiServer(ApiServerFault::Stopped) => {
            vec![Step::HoldService { host: plan.control().name.clone(), service: API_SERVER }]
        }
        Fault::ApiServer(ApiServerFault::Hung) => vec![signal(&plan.control().name, API_SERVER, "STOP")],
        Fault::KubeletStopped { node } => vec![signal(is_node(node, plan)?, KUBELET, "STOP")],
        Fault::Cordoned { node } => vec![kubectl(&["cordon", is_node(node, plan)?])],
        Fault::Frozen { container, .. } => vec![Step::Freeze { container: container.clone(), frozen: true }],
        Fault::InterfaceAdded { link, number, address } => {
            let mac = added_mac(&link.host, *number, plan)?;
            exists(link.segment, plan)?;
            let (port, interface) = (added_port(&link.host, *number), format!("eth{number}"));
            let netns = plan.netns_name(&link.host);
            let mut steps = vec![
                switch_ip(&[
                    "link", "add", &port, "type", "veth", "peer", "name", &interface, "address", &mac, "netns", &netns,
                ]),
                switch_ip(&["link", "set", &port, "master", &bridge_name(link.segment), "up"]),
                host_ip(&link.host, &["link", "set", &interface, "up"]),
            ];
            if let Some(address) = address {
                steps.push(host_ip(&link.host, &["address", "add", &address.to_string(), "dev", &interface]));
            }
            steps
        }
        Fault::AddressAdded { link, address } => {
            let interface = interface(link, plan)?;
            let mut args = strings(&["address", "add", &address.to_string(), "dev", &interface]);
            // A host that takes an address in use skips duplicate address detection (RFC 4862 section 5.4).
            if matches!(address, IpNet::V6(_)) {
                args.push("nodad".to_owned());
            }
            vec![Step::HostIp { host: link.host.clone(), args }]
        }
        Fault::MacChanged { link, mac } => vec![set_mac(link, &mac.to_string(), plan)?],
        Fault::MtuChanged { link, mtu } => vec![set_mtu(link, *mtu, plan)?],
        Fault::InterfaceDown { host, interface } => {
            known(host, plan)?;
            vec![host_ip(host, &["link", "set", interface, "down"])]
        }
        Fault::AddressRemoved { host, interface, address } => {
            known(host, plan)?;
            vec![host_ip(host, &["address", "delete", &address.to_string(), "dev", interface])]
        }
    })
}

/// Returns the steps that heal the fault.
///
/// # Errors
/// If the laboratory of this plan cannot have the fault.
pub fn heal(fault: &Fault, plan: &Plan) -> Result<Vec<Step>, Impossible> {
    Ok(match fault {
        Fault::PoweredOff { host } => vec![Step::Power { host: host.clone(), on: true }],
        Fault::Cut(link) => vec![set_port(&port(link, plan)?, "up")],
        Fault::Dropping { .. } | Fault::EtherTypeDropped { .. } | Fault::Partition { .. } => Vec::new(),
        Fault::ApiServer(ApiServerFault::Stopped) => {
            vec![Step::ReleaseService { host: plan.control().name.clone(), service: API_SERVER }]
        }
        Fault::ApiServer(ApiServerFault::Hung) => vec![signal(&plan.control().name, API_SERVER, "CONT")],
        Fault::KubeletStopped { node } => vec![signal(is_node(node, plan)?, KUBELET, "CONT")],
        Fault::Cordoned { node } => vec![kubectl(&["uncordon", is_node(node, plan)?])],
        Fault::Frozen { container, .. } => vec![Step::Freeze { container: container.clone(), frozen: false }],
        Fault::InterfaceAdded { link, number, .. } => {
            vec![Step::Unplug(added_port(&link.host, *number))]
        }
        Fault::AddressAdded { link, address } => {
            vec![host_ip(&link.host, &["address", "delete", &address.to_string(), "dev", &interface(link, plan)?])]
        }
        Fault::MacChanged { link, .. } => {
            let mac = plug(link, plan)?.mac.to_string();
            vec![set_mac(link, &mac, plan)?]
        }
        Fault::MtuChanged { link, .. } => vec![set_mtu(link, ORDINARY_MTU, plan)?],
        Fault::InterfaceDown { host, interface } => vec![host_ip(host, &["link", "set", interface, "up"])],
        Fault::AddressRemoved { host, interface, address } => {
            vec![host_ip(host, &["address", "add", &address.to_string(), "dev", interface])]
        }
    })
}

/// Returns the step that drains a node. The evictions leave nothing to undo; only the cordon stays.
///
/// # Errors
/// If the node does not exist.
pub fn drain(node: &str, plan: &Plan) -> Result<Step, Impossible> {
    is_node(node, plan)?;
    // Bare pods and pods with an emptyDir are evicted too: a laboratory's pods may be moved.
    Ok(kubectl(&["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s"]))
}

/// Returns the rank by which faults are healed, the prerequisites of others first. A kubelet cannot be reached on a
/// host without power, kubectl needs the API server, and an added interface is removed after the faults on it.
#[must_use]
pub fn heal_order(fault: &Fault) -> u8 {
    match fault {
        Fault::ApiServer(_) => 0,
        Fault::PoweredOff { .. } => 1,
        Fault::InterfaceDown { .. } => 2,
        Fault::AddressRemoved { .. } => 3,
        Fault::Cut(_)
        | Fault::Dropping { .. }
        | Fault::EtherTypeDropped { .. }
        | Fault::Partition { .. }
        | Fault::InterfaceAdded { .. }
        | Fault::AddressAdded { .. }
        | Fault::MacChanged { .. }
        | Fault::MtuChanged { .. } => 4,
        Fault::KubeletStopped { .. } | Fault::Frozen { .. } => 5,
        Fault::Cordoned { .. } => 6,
    }
}

const API_SERVER: &str = "kube-apiserver";
const KUBELET: &str = "kubelet";

/// MTU of a cable (IEEE 802.3), which no host of a laboratory changes by itself.
const ORDINARY_MTU: u16 = 1500;

fn strings(args: &[&str]) -> Vec<String> {
    args.iter().map(|&arg| arg.to_owned()).collect()
}

fn switch_ip(args: &[&str]) -> Step {
    Step::SwitchIp(strings(args))
}

fn host_ip(host: &str, args: &[&str]) -> Step {
    Step::HostIp { host: host.to_owned(), args: strings(args) }
}

fn kubectl(args: &[&str]) -> Step {
    Step::Kubectl(strings(args))
}

fn set_port(port: &str, state: &str) -> Step {
    switch_ip(&["link", "set", port, state])
}

fn signal(host: &str, service: &'static str, signal: &'static str) -> Step {
    Step::SignalService { host: host.to_owned(), service, signal }
}

fn known(host: &str, plan: &Plan) -> Result<(), Impossible> {
    if plan.host(host).is_some() {
        return Ok(());
    }
    let names: Vec<&str> = plan.hosts.iter().map(|host| host.name.as_str()).collect();
    Err(Impossible::NoHost { name: host.to_owned(), known: names.join(", ") })
}

/// Returns the MAC of an added interface: that of the host's first one with the fourth byte raised by 2, which no other
/// interface has, and the number in the fifth. It stays the same over a power loss, like that of a network card.
fn added_mac(host: &str, number: u8, plan: &Plan) -> Result<String, Impossible> {
    known(host, plan)?;
    let port = plan.host(host).and_then(|host| host.ports.first());
    let port = port.ok_or_else(|| Impossible::NotOnSegment { host: host.to_owned(), segment: 0 })?;
    let [a, b, c, kind, _, low] = port.mac.octets();
    Ok(Mac([a, b, c, kind + 2, number, low]).to_string())
}

fn exists(segment: u8, plan: &Plan) -> Result<(), Impossible> {
    if segment < plan.segments {
        Ok(())
    } else {
        Err(Impossible::NoSegment { segment, last: plan.segments.saturating_sub(1) })
    }
}

fn plug<'a>(link: &Link, plan: &'a Plan) -> Result<&'a Port, Impossible> {
    let Link { host, segment } = link;
    known(host, plan)?;
    let port = plan.host(host).and_then(|host| host.port(*segment));
    port.ok_or_else(|| Impossible::NotOnSegment { host: host.clone(), segment: *segment })
}

/// Returns the port at the switch.
fn port(link: &Link, plan: &Plan) -> Result<String, Impossible> {
    Ok(plug(link, plan)?.switch_port.clone())
}

/// Returns the interface at the host.
fn interface(link: &Link, plan: &Plan) -> Result<String, Impossible> {
    Ok(plug(link, plan)?.interface.clone())
}

fn set_mac(link: &Link, mac: &str, plan: &Plan) -> Result<Step, Impossible> {
    Ok(host_ip(&link.host, &["link", "set", &interface(link, plan)?, "address", mac]))
}

fn set_mtu(link: &Link, mtu: u16, plan: &Plan) -> Result<Step, Impossible> {
    Ok(host_ip(&link.host, &["link", "set", &interface(link, plan)?, "mtu", &mtu.to_string()]))
}

fn is_node<'a>(name: &'a str, plan: &Plan) -> Result<&'a str, Impossible> {
    known(name, plan)?;
    match plan.host(name).map(|host| host.role) {
        Some(Role::Node(_)) => Ok(name),
        _ => Err(Impossible::NotANode(name.to_owned())),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cluster::Spec;
    use test_case::test_case;

    pub(in crate::fault) fn plan() -> Plan {
        Plan::of(&Spec { nodes: 2, clients: 1, segments: 1, ..Spec::default() })
    }

    fn link(host: &str) -> Link {
        Link { host: host.into(), segment: 0 }
    }

    fn node(name: &str) -> Fault {
        Fault::KubeletStopped { node: name.into() }
    }

    #[test_case(Fault::PoweredOff { host: "node1".into() },
        &[Step::Power { host: "node1".into(), on: false }], &[Step::Power { host: "node1".into(), on: true }]; "power")]
    #[test_case(Fault::Cut(link("node1")),
        &[switch_ip(&["link", "set", "node1-0", "down"])], &[switch_ip(&["link", "set", "node1-0", "up"])]; "cable")]
    #[test_case(Fault::EtherTypeDropped { segment: 0, ethertype: 0x88b5 }, &[], &[]; "rules only")]
    #[test_case(Fault::ApiServer(ApiServerFault::Stopped),
        &[Step::HoldService { host: "control".into(), service: "kube-apiserver" }],
        &[Step::ReleaseService { host: "control".into(), service: "kube-apiserver" }]; "API server stopped")]
    #[test_case(Fault::ApiServer(ApiServerFault::Hung),
        &[signal("control", "kube-apiserver", "STOP")], &[signal("control", "kube-apiserver", "CONT")]; "API server hung")]
    #[test_case(node("node2"), &[signal("node2", "kubelet", "STOP")], &[signal("node2", "kubelet", "CONT")]; "kubelet")]
    #[test_case(Fault::Cordoned { node: "node1".into() },
        &[kubectl(&["cordon", "node1"])], &[kubectl(&["uncordon", "node1"])]; "cordon")]
    #[test_case(Fault::Frozen { node: "node1".into(), pod: "shop/web".into(), container: "c0ffee".into() },
        &[Step::Freeze { container: "c0ffee".into(), frozen: true }],
        &[Step::Freeze { container: "c0ffee".into(), frozen: false }]; "container")]
    #[test_case(
        Fault::InterfaceAdded { link: link("node1"), number: 1, address: Some("10.30.0.1/16".parse().unwrap()) },
        &[
            switch_ip(&[
                "link", "add", "node1-1", "type", "veth", "peer", "name", "eth1", "address", "02:00:00:02:01:11", "netns",
                "hl-herald-node1",
            ]),
            switch_ip(&["link", "set", "node1-1", "master", "lan0", "up"]),
            host_ip("node1", &["link", "set", "eth1", "up"]),
            host_ip("node1", &["address", "add", "10.30.0.1/16", "dev", "eth1"]),
        ],
        &[Step::Unplug("node1-1".into())]; "interface")]
    #[test_case(Fault::AddressAdded { link: link("client1"), address: "10.10.100.1/32".parse().unwrap() },
        &[host_ip("client1", &["address", "add", "10.10.100.1/32", "dev", "eth0"])],
        &[host_ip("client1", &["address", "delete", "10.10.100.1/32", "dev", "eth0"])]; "a stranger")]
    #[test_case(Fault::AddressAdded { link: link("client1"), address: "fd00::1/128".parse().unwrap() },
        &[host_ip("client1", &["address", "add", "fd00::1/128", "dev", "eth0", "nodad"])],
        &[host_ip("client1", &["address", "delete", "fd00::1/128", "dev", "eth0"])]; "a stranger's IPv6 address")]
    #[test_case(Fault::MacChanged { link: link("node1"), mac: Mac([2, 0, 0, 7, 0, 0x11]) },
        &[host_ip("node1", &["link", "set", "eth0", "address", "02:00:00:07:00:11"])],
        &[host_ip("node1", &["link", "set", "eth0", "address", "02:00:00:00:00:11"])]; "another MAC")]
    #[test_case(Fault::MtuChanged { link: link("node1"), mtu: 1300 },
        &[host_ip("node1", &["link", "set", "eth0", "mtu", "1300"])],
        &[host_ip("node1", &["link", "set", "eth0", "mtu", "1500"])]; "a small MTU")]
    #[test_case(Fault::InterfaceDown { host: "node1".into(), interface: "eth1".into() },
        &[host_ip("node1", &["link", "set", "eth1", "down"])],
        &[host_ip("node1", &["link", "set", "eth1", "up"])]; "an interface set down")]
    #[test_case(
        Fault::AddressRemoved {
            host: "node1".into(), interface: "eth1".into(), address: "10.30.0.1/16".parse().unwrap(),
        },
        &[host_ip("node1", &["address", "delete", "10.30.0.1/16", "dev", "eth1"])],
        &[host_ip("node1", &["address", "add", "10.30.0.1/16", "dev", "eth1"])]; "a lost address")]
    fn fault_has_steps_to_inject_and_to_heal(fault: Fault, there: &[Step], back: &[Step]) {
        assert_eq!((inject(&fault, &plan()).as_deref(), heal(&fault, &plan()).as_deref()), (Ok(there), Ok(back)));
    }

    #[test]
    fn added_interface_is_healed_after_faults_on_it() {
        let (host, interface) = ("node1".to_owned(), "eth1".to_owned());
        let address: IpNet = "10.30.0.1/16".parse().unwrap();
        let mut faults = [
            Fault::InterfaceAdded { link: link("node1"), number: 1, address: Some(address) },
            Fault::AddressRemoved { host: host.clone(), interface: interface.clone(), address },
            Fault::InterfaceDown { host, interface },
        ];
        faults.sort_by_key(heal_order);
        let texts = faults.map(|fault| fault.to_string());
        assert_eq!(texts[0], "eth1 of node1 is down");
        assert_eq!(texts[1], "eth1 of node1 lacks its address 10.30.0.1/16");
        assert_eq!(texts[2], "node1 on lan0 has an added interface eth1 with 10.30.0.1/16");
    }

    fn partition(groups: &[&[&str]]) -> Fault {
        let groups = groups.iter().map(|group| group.iter().map(|&host| host.to_owned()).collect()).collect();
        Fault::Partition { segment: 0, groups }
    }

    #[test_case(node("node9"), "there is no host node9; there are switch, control, node1, node2, client1"; "unknown host")]
    #[test_case(node("client1"), "client1 is not a node of the cluster"; "a client has no kubelet")]
    #[test_case(Fault::Cut(Link { host: "node1".into(), segment: 3 }), "node1 is not on segment lan3"; "not plugged in")]
    #[test_case(Fault::EtherTypeDropped { segment: 3, ethertype: 1 }, "there is no segment lan3; the last one is lan0"; "no such segment")]
    #[test_case(partition(&[&["node1"]]), "a partition needs two groups or more, and no host in two of them"; "one group")]
    #[test_case(partition(&[&["node1"], &["node1", "node2"]]), "a partition needs two groups or more, and no host in two of them"; "in two groups")]
    #[test_case(partition(&[&["node1"], &[]]), "a partition needs two groups or more, and no host in two of them"; "an empty group")]
    fn impossible_fault_is_refused(fault: Fault, why: &str) {
        assert_eq!(inject(&fault, &plan()).unwrap_err().to_string(), why);
    }
}
