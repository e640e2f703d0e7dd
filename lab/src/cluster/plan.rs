//! Names, addresses and MACs of every host, as a pure function of the [`Spec`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use pnet::util::MacAddr;

use super::spec::{LabId, Spec};

/// The role of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The switch: one bridge per segment, and the recorders. It has no address.
    Switch,
    /// The control plane: etcd, API server, controller manager, scheduler.
    Control,
    /// A worker node, counted from 1.
    Node(u8),
    /// A host outside the cluster, counted from 1.
    Client(u8),
}

/// The connection of a host to a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Number of the segment.
    pub segment: u8,
    /// Name of the interface in the host's namespace.
    pub interface: String,
    /// Name of the cable's other end, in the switch's namespace.
    pub switch_port: String,
    /// MAC of the host's end.
    pub mac: MacAddr,
    /// Address with the prefix length of the link.
    pub ipv4: Ipv4Net,
    /// Address with the prefix length of the link.
    pub ipv6: Ipv6Net,
}

/// A host of the laboratory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPlan {
    /// Its name; for a node, also the name of its Node object.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Its ports, in the order of the segments.
    pub ports: Vec<Port>,
}

/// The layout of a laboratory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    id: LabId,
    /// Number of segments.
    pub segments: u8,
    /// All hosts; the switch first, then the control plane, nodes and clients in order.
    pub hosts: Vec<HostPlan>,
}

/// The service networks; the first IPv4 address belongs to the API server's Service.
pub const SERVICE_NETWORKS: (Ipv4Net, Ipv6Net) = (
    Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16),
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0), 112),
);

/// The networks of the pods of all nodes.
pub const POD_NETWORKS: (Ipv4Net, Ipv6Net) = (
    Ipv4Net::new_assert(Ipv4Addr::new(10, 200, 0, 0), 16),
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x200, 0, 0, 0, 0, 0, 0), 32),
);

/// Returns the networks of the pods of one node.
#[must_use]
pub fn pod_networks(node: u8) -> (Ipv4Net, Ipv6Net) {
    (
        Ipv4Net::new_assert(Ipv4Addr::new(10, 200, node, 0), 24),
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x200, digits_as_hex(node).into(), 0, 0, 0, 0, 0), 64),
    )
}

/// Returns the subnets of the control plane and the nodes on a segment.
#[must_use]
pub fn node_subnets(segment: u8) -> (Ipv4Net, Ipv6Net) {
    subnets(10 + segment)
}

/// Returns the subnets of the clients on a segment: on the same link, but outside the nodes' subnets. (Upstream's
/// source-address test treats a client inside them as part of the cluster.)
#[must_use]
pub fn client_subnets(segment: u8) -> (Ipv4Net, Ipv6Net) {
    subnets(20 + segment)
}

/// Returns the nodes' default gateways: addresses that no host has, so that no packet leaves the laboratory.
#[must_use]
pub fn absent_gateways() -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(10, 10, 0, 1), Ipv6Addr::new(0xfd00, 0x10, 0x10, 0, 0, 0, 0, 1))
}

fn subnets(second: u8) -> (Ipv4Net, Ipv6Net) {
    (
        Ipv4Net::new_assert(Ipv4Addr::new(10, second, 0, 0), 16),
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, digits_as_hex(second).into(), 0, 0, 0, 0, 0), 64),
    )
}

/// Converts 42 to 0x42, so that IPv6 addresses and MACs read like the IPv4 ones. Valid for numbers below 100.
fn digits_as_hex(number: u8) -> u8 {
    ((number / 10) << 4) | (number % 10)
}

impl Plan {
    /// Lays out a valid spec.
    #[must_use]
    pub fn of(spec: &Spec) -> Self {
        let mut hosts =
            vec![HostPlan { name: "switch".to_owned(), role: Role::Switch, ports: Vec::new() }, control_plane()];
        hosts.extend((1..=spec.nodes).map(|n| host(format!("node{n}"), Role::Node(n), spec.segments)));
        hosts.extend((1..=spec.clients).map(|n| host(format!("client{n}"), Role::Client(n), spec.segments)));
        Self { id: spec.id.clone(), segments: spec.segments, hosts }
    }

    /// Returns the host with this name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&HostPlan> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// Returns the control plane's host.
    ///
    /// # Panics
    /// If the plan has no such host; every plan is created with one.
    #[must_use]
    pub fn control(&self) -> &HostPlan {
        &self.hosts[1]
    }

    /// Returns the worker nodes in order.
    pub fn nodes(&self) -> impl Iterator<Item = &HostPlan> {
        self.hosts.iter().filter(|host| matches!(host.role, Role::Node(_)))
    }

    /// Returns the clients in order.
    pub fn clients(&self) -> impl Iterator<Item = &HostPlan> {
        self.hosts.iter().filter(|host| matches!(host.role, Role::Client(_)))
    }

    /// Returns the name of a host's network namespace.
    #[must_use]
    pub fn netns_name(&self, host: &str) -> String {
        format!("{}{host}", netns_prefix(&self.id))
    }

    /// Returns the address of the API server on the wire.
    #[must_use]
    pub fn api_server(&self) -> Ipv4Addr {
        self.control().ports[0].ipv4.addr()
    }
}

/// Returns the prefix of the names of all network namespaces of a laboratory.
#[must_use]
pub fn netns_prefix(id: &LabId) -> String {
    format!("hl-{id}-")
}

/// Returns the name of a segment's bridge in the switch's namespace.
#[must_use]
pub fn bridge_name(segment: u8) -> String {
    format!("lan{segment}")
}

impl HostPlan {
    /// Returns its port in a segment.
    #[must_use]
    pub fn port(&self, segment: u8) -> Option<&Port> {
        self.ports.iter().find(|port| port.segment == segment)
    }

    /// Returns its addresses on a segment.
    #[must_use]
    pub fn addresses(&self, segment: u8) -> Vec<IpAddr> {
        self.port(segment).map(|port| vec![port.ipv4.addr().into(), port.ipv6.addr().into()]).unwrap_or_default()
    }
}

impl Port {
    /// Returns the other subnets on the same link, which are reachable without a gateway.
    #[must_use]
    pub fn neighbour_subnets(&self) -> Vec<IpNet> {
        let own = IpAddr::from(self.ipv4.addr());
        [node_subnets(self.segment), client_subnets(self.segment)]
            .into_iter()
            .filter(|(v4, _)| !IpNet::from(*v4).contains(&own))
            .flat_map(|(v4, v6)| [v4.into(), v6.into()])
            .collect()
    }
}

fn control_plane() -> HostPlan {
    // The control plane is on the first segment only: the others belong to nodes and clients.
    host("control".to_owned(), Role::Control, 1)
}

fn host(name: String, role: Role, segments: u8) -> HostPlan {
    let (number, in_client_subnet) = match role {
        Role::Switch | Role::Control => (10, false),
        Role::Node(n) => (10 + n, false),
        Role::Client(n) => (10 + n, true),
    };
    let ports = (0..segments)
        .map(|segment| {
            let (v4, v6) = if in_client_subnet { client_subnets(segment) } else { node_subnets(segment) };
            let low = digits_as_hex(number);
            let mut octets = v4.addr().octets();
            octets[3] = number;
            let mut groups = v6.addr().segments();
            groups[7] = low.into();
            Port {
                segment,
                interface: format!("eth{segment}"),
                switch_port: format!("{name}-{segment}"),
                // 02: locally administered, unicast.
                mac: MacAddr::new(2, 0, 0, u8::from(in_client_subnet), segment, low),
                ipv4: Ipv4Net::new_assert(octets.into(), v4.prefix_len()),
                ipv6: Ipv6Net::new_assert(groups.into(), v6.prefix_len()),
            }
        })
        .collect();
    HostPlan { name, role, ports }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn plan(nodes: u8, clients: u8, segments: u8) -> Plan {
        Plan::of(&Spec { nodes, clients, segments, bin_dir: None, ..Spec::default() })
    }

    #[test]
    fn addresses_contain_the_hosts_number() {
        let plan = plan(12, 1, 2);
        let node = plan.host("node12").unwrap();
        assert_eq!(node.ports[1].ipv4.to_string(), "10.11.0.22/16");
        assert_eq!(node.ports[1].ipv6.to_string(), "fd00:10:11::22/64");
        assert_eq!(node.ports[1].mac.to_string(), "02:00:00:00:01:22");
        assert_eq!(node.ports[1].switch_port, "node12-1");
        let client = plan.host("client1").unwrap();
        assert_eq!(client.ports[0].ipv4.to_string(), "10.20.0.11/16");
        assert_eq!(client.ports[0].ipv6.to_string(), "fd00:10:20::11/64");
        assert_eq!(plan.api_server(), Ipv4Addr::new(10, 10, 0, 10));
        assert_eq!(pod_networks(12).1.to_string(), "fd00:200:12::/64");
        assert_eq!(plan.netns_name("node12"), "hl-herald-node12");
    }

    #[test]
    fn each_side_of_a_link_reaches_the_other_without_a_gateway() {
        let plan = plan(1, 1, 1);
        let neighbours = |host: &str| {
            plan.host(host).unwrap().ports[0].neighbour_subnets().iter().map(ToString::to_string).collect()
        };
        let of_node: Vec<String> = neighbours("node1");
        let of_client: Vec<String> = neighbours("client1");
        assert_eq!(of_node, ["10.20.0.0/16", "fd00:10:20::/64"]);
        assert_eq!(of_client, ["10.10.0.0/16", "fd00:10:10::/64"]);
    }

    #[test]
    fn addresses_are_unique_in_the_largest_plan() {
        let plan = plan(80, 80, 8);
        let ports: Vec<&Port> = plan.hosts.iter().flat_map(|host| &host.ports).collect();
        let macs: BTreeSet<_> = ports.iter().map(|p| p.mac).collect();
        let addresses: BTreeSet<_> =
            ports.iter().flat_map(|p| [IpAddr::from(p.ipv4.addr()), p.ipv6.addr().into()]).collect();
        let names: BTreeSet<_> = ports.iter().map(|p| &p.switch_port).collect();
        assert_eq!((macs.len(), addresses.len(), names.len()), (ports.len(), 2 * ports.len(), ports.len()));
        assert!(names.iter().all(|name| name.len() <= 15), "IFNAMSIZ leaves 15 characters");
    }
}
