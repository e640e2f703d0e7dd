//! Links, addresses and routes of the kernel, as values. Pure.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use herald_protocol::{mac::MacAddr, twins::Parent};
use ipnet::IpNet;
use netlink_packet_route::{
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{BondMode, InfoBond, InfoData, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType, RouteVia},
};

use crate::interfaces::Link;

/// The MTU of Ethernet, for a link without an MTU (the kernel always reports one).
const ETHERNET_MTU: u32 = 1500;

/// Returns whether a link is administratively up.
pub(super) fn is_up(message: &LinkMessage) -> bool {
    message.header.flags.contains(LinkFlags::Up)
}

/// Reads a link, without addresses and routes; returns `None` for one without a name.
pub(super) fn link(message: &LinkMessage) -> Option<Link> {
    let flags = message.header.flags;
    let (mut name, mut address, mut parent, mut namespace) = (None, None, None, None);
    let mut link = Link {
        index: message.header.index,
        up: is_up(message),
        // IFF_RUNNING: the link has carrier, and is not dormant as it is before 802.1X has let it in (RFC 2863
        // operational state).
        carrier: flags.contains(LinkFlags::Running),
        noarp: flags.contains(LinkFlags::Noarp),
        mtu: ETHERNET_MTU,
        ..Link::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value.clone()),
            LinkAttribute::Address(bytes) => address = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr),
            LinkAttribute::Controller(master) => link.master = Some(*master).filter(|index| *index != 0),
            LinkAttribute::Link(index) => parent = Some(*index).filter(|index| *index != 0),
            LinkAttribute::LinkNetNsId(id) => namespace = Some(*id),
            LinkAttribute::Mtu(bytes) => link.mtu = *bytes,
            LinkAttribute::LinkInfo(info) => info.iter().for_each(|info| add_info(&mut link, info)),
            _ => {}
        }
    }
    link.name = name?;
    link.parent = parent.map(|index| Parent { index, namespace });
    link.mac = address.filter(|_| message.header.link_layer_type == LinkLayerType::Ether);
    Some(link)
}

fn add_info(link: &mut Link, info: &LinkInfo) {
    match info {
        LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
        LinkInfo::Data(InfoData::Bond(options)) => {
            link.is_balance_alb = options.contains(&InfoBond::Mode(BondMode::BalanceAlb));
        }
        _ => {}
    }
}

/// The addresses of one link.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    /// The on-link prefixes of global scope.
    prefixes: Vec<IpNet>,
    /// The addresses of global scope. The flag marks those that may not last: secondary (in IPv6: temporary, RFC 8981)
    /// or deprecated.
    own: Vec<(bool, IpNet)>,
    /// The temporary addresses among them.
    temporary: BTreeSet<IpAddr>,
    link_local: Option<Ipv6Addr>,
}

impl Addresses {
    /// Takes in an address, if it is of global or link-local scope and the node may use it: not before Duplicate
    /// Address Detection has passed (RFC 4862 section 5.4), nor after it has failed.
    pub(super) fn add(&mut self, message: &AddressMessage) {
        let flags = message.header.flags;
        if flags.intersects(AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed) {
            return;
        }
        let find = |want: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(want);
        let address = find(|a| if let AddressAttribute::Address(a) = a { Some(*a) } else { None });
        let local = find(|a| if let AddressAttribute::Local(a) = a { Some(*a) } else { None });
        // IFA_ADDRESS is the peer's on a point-to-point link, and so is the prefix. IPv6 has IFA_ADDRESS alone where
        // there is no peer.
        let (Some(on_link), Some(own)) = (address.or(local), local.or(address)) else { return };
        match (message.header.scope, own) {
            (AddressScope::Universe, _) => {
                // No neighbour is in the subnet of the node's own address if the link has a peer.
                let length = if own == on_link { message.header.prefix_len } else { IpNet::from(own).prefix_len() };
                let fleeting = AddressHeaderFlags::Secondary | AddressHeaderFlags::Deprecated;
                self.prefixes.extend(IpNet::new(on_link, message.header.prefix_len));
                // The kernel has one flag for both: in IPv6 it means temporary (linux/if_addr.h).
                if own.is_ipv6() && flags.contains(AddressHeaderFlags::Secondary) {
                    self.temporary.insert(own);
                }
                self.own.extend(IpNet::new(own, length).map(|own| (flags.intersects(fleeting), own)));
            }
            (AddressScope::Link, IpAddr::V6(own)) if own.is_unicast_link_local() => {
                self.link_local = self.link_local.or(Some(own));
            }
            _ => {}
        }
    }

    /// Gives a link its addresses.
    pub(super) fn give(mut self, link: &mut Link) {
        // The sort is stable: it keeps the kernel's order otherwise.
        self.own.sort_by_key(|(fleeting, _)| *fleeting);
        link.prefixes = self.prefixes;
        link.addresses = self.own.into_iter().map(|(_, own)| own).collect();
        link.temporary = self.temporary;
        link.link_local = self.link_local;
    }
}

/// The interfaces and next hops of default routes, and the other networks that are on link.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Defaults {
    /// The interfaces by which default routes leave.
    pub(super) interfaces: BTreeSet<u32>,
    /// The next hops, by interface.
    pub(super) gateways: BTreeSet<(u32, IpAddr)>,
    /// The networks that a route puts on link, by interface.
    pub(super) on_link: BTreeSet<(u32, IpNet)>,
}

impl Defaults {
    /// Adds the routes of the lowest metric among the default routes of one family.
    pub(super) fn add_lowest(&mut self, routes: Vec<DefaultRoute>) {
        let lowest = routes.iter().map(|route| route.metric).min();
        for hop in routes.into_iter().filter(|route| Some(route.metric) == lowest).flat_map(|route| route.hops) {
            self.interfaces.insert(hop.interface);
            self.gateways.extend(hop.gateway.map(|gateway| (hop.interface, gateway)));
        }
    }
}

/// A default route.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DefaultRoute {
    metric: u32,
    hops: Vec<Hop>,
}

#[derive(Debug, PartialEq, Eq)]
struct Hop {
    interface: u32,
    gateway: Option<IpAddr>,
}

/// Reads a route, if it is a default route of the main table.
pub(super) fn default_route(message: &RouteMessage) -> Option<DefaultRoute> {
    let header = &message.header;
    let main = header.table == RouteHeader::RT_TABLE_MAIN;
    if header.destination_prefix_length != 0 || !main || header.kind != RouteType::Unicast {
        return None;
    }
    let (mut metric, mut hops) = (0, Vec::new());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::Oif(index) => {
                hops.push(Hop { interface: *index, gateway: gateway(&message.attributes) });
            }
            RouteAttribute::MultiPath(several) => hops.extend(
                several.iter().map(|hop| Hop { interface: hop.interface_index, gateway: gateway(&hop.attributes) }),
            ),
            _ => {}
        }
    }
    Some(DefaultRoute { metric, hops })
}

/// Reads a route that puts a network on link: one of the main table, by one interface, without a next hop. Such a route
/// exists where a host has a single address, and its network by a route (`ip route add 192.0.2.0/24 dev eth0`), or
/// where a router advertises a prefix of which the host takes no address (RFC 4861, section 6.3.4). The routes that the
/// kernel makes of addresses are among them. A single address (of a pod, say) is not a network, and a multicast route
/// (`224.0.0.0/4 dev eth0`) does not lead to neighbours.
pub(super) fn on_link_route(message: &RouteMessage) -> Option<(u32, IpNet)> {
    let header = &message.header;
    let is_wanted = header.table == RouteHeader::RT_TABLE_MAIN && header.kind == RouteType::Unicast;
    if !is_wanted || gateway(&message.attributes).is_some() {
        return None;
    }
    let interface = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })?;
    let network = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })?;
    let network = IpNet::new(network, header.destination_prefix_length).ok()?;
    let is_network = network.prefix_len() < network.max_prefix_len() && !network.addr().is_multicast();
    is_network.then_some((interface, network))
}

/// Returns the next hop; RTA_VIA has it where it is of another family than the route (RFC 5549).
fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) | RouteAttribute::Via(RouteVia::Inet(address)) => {
            Some(IpAddr::V4(*address))
        }
        RouteAttribute::Gateway(RouteAddress::Inet6(address)) | RouteAttribute::Via(RouteVia::Inet6(address)) => {
            Some(IpAddr::V6(*address))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::{link::InfoKind, route::RouteNextHop};
    use test_case::test_case;

    use super::*;

    fn link_message(flags: LinkFlags, kind: LinkLayerType, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 2;
        message.header.flags = flags;
        message.header.link_layer_type = kind;
        message.attributes = attributes;
        message
    }

    fn name() -> LinkAttribute {
        LinkAttribute::IfName("eth0".to_owned())
    }

    #[test]
    fn link_is_read() {
        let attributes = vec![
            name(),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
            LinkAttribute::Controller(7),
            LinkAttribute::Link(5),
            LinkAttribute::Mtu(1300),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan)]),
        ];
        let message =
            link_message(LinkFlags::Up | LinkFlags::Running | LinkFlags::Noarp, LinkLayerType::Ether, attributes);
        let expected = Link {
            index: 2,
            name: "eth0".to_owned(),
            mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
            up: true,
            carrier: true,
            noarp: true,
            kind: Some("vlan".to_owned()),
            master: Some(7),
            parent: Some(Parent { index: 5, namespace: None }),
            mtu: 1300,
            ..Link::default()
        };
        assert_eq!(link(&message), Some(expected));
    }

    #[test]
    fn parent_in_another_network_namespace_is_read() {
        let attributes = vec![name(), LinkAttribute::Link(2), LinkAttribute::LinkNetNsId(4)];
        let link = link(&link_message(LinkFlags::Up, LinkLayerType::Ether, attributes)).unwrap();
        assert_eq!(link.parent, Some(Parent { index: 2, namespace: Some(4) }));
    }

    #[test_case(BondMode::BalanceAlb => true)]
    #[test_case(BondMode::ActiveBackup => false)]
    #[test_case(BondMode::Ieee8023Ad => false)]
    fn mode_of_a_bond_is_read(mode: BondMode) -> bool {
        let data = LinkInfo::Data(InfoData::Bond(vec![InfoBond::MiiMon(100), InfoBond::Mode(mode)]));
        let info = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bond), data]);
        link(&link_message(LinkFlags::Up, LinkLayerType::Ether, vec![name(), info])).unwrap().is_balance_alb
    }

    #[test]
    fn temporary_addresses_are_those_of_ipv6_with_the_flag() {
        let secondary = AddressHeaderFlags::Secondary;
        let ipv6 = vec![AddressAttribute::Address("2001:db8::1".parse().unwrap())];
        let link = of(&[
            address(AddressScope::Universe, secondary, ipv6),
            address(AddressScope::Universe, secondary, local("192.0.2.1")),
        ]);
        assert_eq!(link.temporary, BTreeSet::from(["2001:db8::1".parse().unwrap()]));
    }

    #[test_case(LinkFlags::Up => (true, false); "no carrier")]
    #[test_case(LinkFlags::Up | LinkFlags::LowerUp => (true, false); "carrier, but dormant")]
    #[test_case(LinkFlags::empty() => (false, false); "down")]
    #[test_case(LinkFlags::Up | LinkFlags::Running => (true, true); "up with carrier")]
    fn flags_decide_about_up_and_carrier(flags: LinkFlags) -> (bool, bool) {
        let link = link(&link_message(flags, LinkLayerType::Ether, vec![name()])).unwrap();
        (link.up, link.carrier)
    }

    #[test_case(LinkLayerType::Loopback, vec![0; 6])]
    #[test_case(LinkLayerType::Tunnel, vec![10, 0, 0, 1])]
    #[test_case(LinkLayerType::Ether, vec![])]
    fn link_without_an_ethernet_address_has_no_mac(kind: LinkLayerType, address: Vec<u8>) {
        let attributes = vec![name(), LinkAttribute::Address(address)];
        assert_eq!(link(&link_message(LinkFlags::Up, kind, attributes)).unwrap().mac, None);
    }

    fn address(scope: AddressScope, flags: AddressHeaderFlags, attributes: Vec<AddressAttribute>) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.prefix_len = 24;
        message.header.scope = scope;
        message.header.flags = flags;
        message.attributes = attributes;
        message
    }

    fn of(messages: &[AddressMessage]) -> Link {
        let mut addresses = Addresses::default();
        for message in messages {
            addresses.add(message);
        }
        let mut link = link(&link_message(LinkFlags::Up, LinkLayerType::Ether, vec![name()])).unwrap();
        addresses.give(&mut link);
        link
    }

    fn nets(nets: &[IpNet]) -> Vec<String> {
        nets.iter().map(ToString::to_string).collect()
    }

    fn local(address: &str) -> Vec<AddressAttribute> {
        vec![AddressAttribute::Local(address.parse().unwrap())]
    }

    #[test_case(AddressScope::Universe, &["192.0.2.1/24"])]
    #[test_case(AddressScope::Link, &[])]
    #[test_case(AddressScope::Host, &[])]
    fn addresses_of_global_scope_count(scope: AddressScope, expected: &[&str]) {
        let link = of(&[address(scope, AddressHeaderFlags::Permanent, local("192.0.2.1"))]);
        assert_eq!(nets(&link.prefixes), expected);
        assert_eq!(nets(&link.addresses), expected);
    }

    #[test_case(AddressHeaderFlags::Tentative)]
    #[test_case(AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed)]
    #[test_case(AddressHeaderFlags::Permanent | AddressHeaderFlags::Dadfailed)]
    fn address_that_may_be_a_duplicate_does_not_count(flags: AddressHeaderFlags) {
        let ipv6 = |a: &str| vec![AddressAttribute::Address(a.parse().unwrap())];
        let link = of(&[
            address(AddressScope::Universe, flags, ipv6("2001:db8::1")),
            address(AddressScope::Link, flags, ipv6("fe80::1")),
        ]);
        assert_eq!((link.prefixes, link.addresses, link.link_local), (vec![], vec![], None));
    }

    #[test]
    fn lasting_addresses_go_first() {
        let flags = [AddressHeaderFlags::Secondary, AddressHeaderFlags::Deprecated, AddressHeaderFlags::Permanent];
        let messages: Vec<_> = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
            .into_iter()
            .zip(flags)
            .map(|(a, flags)| address(AddressScope::Universe, flags, local(a)))
            .collect();
        assert_eq!(nets(&of(&messages).addresses), ["192.0.2.3/24", "192.0.2.1/24", "192.0.2.2/24"]);
    }

    #[test]
    fn link_local_address_is_kept_apart() {
        let ipv6 = vec![AddressAttribute::Address("fe80::1".parse().unwrap())];
        let link = of(&[
            address(AddressScope::Link, AddressHeaderFlags::Permanent, ipv6),
            address(AddressScope::Link, AddressHeaderFlags::Permanent, local("169.254.1.1")),
        ]);
        assert_eq!(link.link_local, Some("fe80::1".parse().unwrap()));
        assert_eq!(link.addresses, []);
    }

    #[test]
    fn prefix_of_a_point_to_point_link_is_the_peers() {
        let mut attributes = local("192.0.2.1");
        attributes.push(AddressAttribute::Address("198.51.100.1".parse().unwrap()));
        let link = of(&[address(AddressScope::Universe, AddressHeaderFlags::Permanent, attributes)]);
        assert_eq!(nets(&link.prefixes), ["198.51.100.1/24"]);
        assert_eq!(nets(&link.addresses), ["192.0.2.1/32"]);
    }

    fn route(length: u8, table: u8, kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.destination_prefix_length = length;
        message.header.table = table;
        message.header.kind = kind;
        message.attributes = attributes;
        message
    }

    fn via(address: &str) -> RouteAttribute {
        RouteAttribute::Gateway(address.parse::<IpAddr>().unwrap().into())
    }

    fn hop(interface: u32, gateway: Option<&str>) -> Hop {
        Hop { interface, gateway: gateway.map(|g| g.parse().unwrap()) }
    }

    #[test]
    fn default_routes_are_read() {
        let hops = [3, 4].map(|index| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = index;
            hop.attributes = vec![via("2001:db8::1")];
            hop
        });
        let main = RouteHeader::RT_TABLE_MAIN;
        let direct = vec![RouteAttribute::Oif(2), RouteAttribute::Priority(100)];
        let single = [vec![via("192.0.2.254")], direct.clone()].concat();
        let foreign = vec![RouteAttribute::Oif(2), RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().unwrap()))];
        let several = vec![RouteAttribute::MultiPath(hops.to_vec())];
        let cases = [
            (route(0, main, RouteType::Unicast, direct.clone()), Some((100, vec![hop(2, None)]))),
            (route(0, main, RouteType::Unicast, single), Some((100, vec![hop(2, Some("192.0.2.254"))]))),
            (route(0, main, RouteType::Unicast, foreign), Some((0, vec![hop(2, Some("fe80::1"))]))),
            (
                route(0, main, RouteType::Unicast, several),
                Some((0, vec![hop(3, Some("2001:db8::1")), hop(4, Some("2001:db8::1"))])),
            ),
            (route(24, main, RouteType::Unicast, direct.clone()), None),
            (route(0, 7, RouteType::Unicast, direct.clone()), None),
            (route(0, main, RouteType::BlackHole, direct), None),
        ];
        for (message, expected) in cases {
            let expected = expected.map(|(metric, hops)| DefaultRoute { metric, hops });
            assert_eq!(default_route(&message), expected, "{message:?}");
        }
    }

    #[test_case(24, RouteHeader::RT_TABLE_MAIN, RouteType::Unicast, "192.0.2.0", None => Some((2, "192.0.2.0/24".to_owned())))]
    #[test_case(64, RouteHeader::RT_TABLE_MAIN, RouteType::Unicast, "2001:db8::", None => Some((2, "2001:db8::/64".to_owned())))]
    #[test_case(24, RouteHeader::RT_TABLE_MAIN, RouteType::Unicast, "192.0.2.0", Some("198.51.100.1") => None; "by a router")]
    #[test_case(24, 7, RouteType::Unicast, "192.0.2.0", None => None; "of another table")]
    #[test_case(24, RouteHeader::RT_TABLE_MAIN, RouteType::BlackHole, "192.0.2.0", None => None; "to nowhere")]
    #[test_case(4, RouteHeader::RT_TABLE_MAIN, RouteType::Unicast, "224.0.0.0", None => None; "multicast")]
    #[test_case(32, RouteHeader::RT_TABLE_MAIN, RouteType::Unicast, "192.0.2.7", None => None; "a pod")]
    fn networks_on_link_are_read(
        length: u8,
        table: u8,
        kind: RouteType,
        to: &str,
        by: Option<&str>,
    ) -> Option<(u32, String)> {
        let address = |text: &str| match text.parse().unwrap() {
            IpAddr::V4(address) => RouteAddress::Inet(address),
            IpAddr::V6(address) => RouteAddress::Inet6(address),
        };
        let mut attributes = vec![RouteAttribute::Destination(address(to)), RouteAttribute::Oif(2)];
        attributes.extend(by.map(|by| RouteAttribute::Gateway(address(by))));
        on_link_route(&route(length, table, kind, attributes))
            .map(|(interface, network)| (interface, network.to_string()))
    }

    #[test]
    fn lowest_metric_counts() {
        let route = |metric, interface, gateway| DefaultRoute { metric, hops: vec![hop(interface, Some(gateway))] };
        let mut defaults = Defaults::default();
        defaults.add_lowest(vec![route(100, 2, "192.0.2.1"), route(200, 3, "198.51.100.1"), route(100, 4, "10.0.0.1")]);
        defaults.add_lowest(vec![route(1024, 3, "fe80::1")]);
        defaults.add_lowest(vec![]);
        assert_eq!(defaults.interfaces, BTreeSet::from([2, 3, 4]));
        let gateways = [(2, "192.0.2.1"), (3, "fe80::1"), (4, "10.0.0.1")];
        assert_eq!(defaults.gateways, BTreeSet::from(gateways.map(|(i, g)| (i, g.parse().unwrap()))));
    }
}
