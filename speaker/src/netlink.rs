//! The interfaces of this node, from the kernel: everything once at the start, then again whenever the kernel tells of
//! a change (rtnetlink(7) multicast groups). Nothing is polled.
//!
//! Changes are answered by a new dump rather than by applying them: a dump is consistent, and it also heals what an
//! overrun of the notification socket lost. Routes are dumped again only if a default route changed, since a node may
//! hold a whole routing table.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, channel::mpsc::UnboundedReceiver};
use herald_segment::mac::MacAddr;
use ipnet::IpNet;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage, AddressScope},
    link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteType},
};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection, packet_core::NetlinkPayload};
use tokio::sync::mpsc;

use crate::{
    interfaces::{self, Link},
    machine::{Input, Interfaces},
    warnings::{InterfaceSettings, KernelSettings, warnings},
};

/// Changes come in bunches: one `ip link add` makes several messages, a pod a dozen. The first of a bunch waits this
/// long for the others.
const SETTLE: Duration = Duration::from_millis(20);

/// Why the interfaces are unknown.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The notification socket.
    #[error("opening a netlink socket: {0}")]
    Open(#[source] std::io::Error),
    /// A dump.
    #[error("listing {what} by netlink: {source}")]
    Dump {
        /// Of what.
        what: &'static str,
        /// The cause.
        #[source]
        source: rtnetlink::Error,
    },
    /// The connection task ended.
    #[error("the netlink connection ended")]
    Ended,
}

/// Tells of the interfaces, now and whenever they change, until nobody listens.
///
/// # Errors
/// The kernel refuses a socket or a dump.
pub async fn run(inputs: mpsc::Sender<Input>) -> Result<(), NetlinkError> {
    // Subscribed before the first dump: what changes in between is told.
    let (connection, handle, mut messages) = new_multicast_connection(&[
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ])
    .map_err(NetlinkError::Open)?;
    let _connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let mut told = None;
    let mut default_routes = default_routes(&handle).await?;
    loop {
        let links = links(&handle, &default_routes).await?;
        let segments = interfaces::usable(&links);
        let kernel = read_settings(Path::new("/proc/sys/net/ipv4/conf"), &links);
        let interfaces = Interfaces { warnings: warnings(&segments, &kernel), segments };
        if told.as_ref() != Some(&interfaces) {
            if inputs.send(Input::Interfaces(interfaces.clone())).await.is_err() {
                return Ok(());
            }
            told = Some(interfaces);
        }
        if next_change(&mut messages).await? == Concerns::Routes {
            default_routes = self::default_routes(&handle).await?;
        }
    }
}

/// What has to be listed anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Concerns {
    Links,
    /// Default routes, and links too.
    Routes,
}

type Message = rtnetlink::packet_core::NetlinkMessage<RouteNetlinkMessage>;

fn concerns(message: &Message) -> Option<Concerns> {
    match &message.payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewLink(_)
            | RouteNetlinkMessage::DelLink(_)
            | RouteNetlinkMessage::NewAddress(_)
            | RouteNetlinkMessage::DelAddress(_),
        ) => Some(Concerns::Links),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route)) => {
            (route.header.destination_prefix_length == 0).then_some(Concerns::Routes)
        }
        // Messages were lost: any may have.
        NetlinkPayload::Overrun(_) => Some(Concerns::Routes),
        _ => None,
    }
}

/// Waits for a change, and for the rest of its bunch.
async fn next_change<A>(messages: &mut UnboundedReceiver<(Message, A)>) -> Result<Concerns, NetlinkError> {
    let mut first = loop {
        let (message, _) = messages.next().await.ok_or(NetlinkError::Ended)?;
        if let Some(concerns) = concerns(&message) {
            break concerns;
        }
    };
    let settled = tokio::time::sleep(SETTLE);
    tokio::pin!(settled);
    loop {
        tokio::select! {
            () = &mut settled => return Ok(first),
            message = messages.next() => {
                let (message, _) = message.ok_or(NetlinkError::Ended)?;
                first = first.max(concerns(&message).unwrap_or(first));
            }
        }
    }
}

async fn links(handle: &Handle, default_routes: &[u32]) -> Result<Vec<Link>, NetlinkError> {
    let dump = |what| move |source| NetlinkError::Dump { what, source };
    let links: Vec<_> = handle.link().get().execute().try_collect().await.map_err(dump("links"))?;
    let addresses: Vec<_> = handle.address().get().execute().try_collect().await.map_err(dump("addresses"))?;
    let mut prefixes: BTreeMap<u32, Vec<IpNet>> = BTreeMap::new();
    for address in &addresses {
        if let Some(prefix) = prefix(address) {
            prefixes.entry(address.header.index).or_default().push(prefix);
        }
    }
    let link = |message: &LinkMessage| {
        let index = message.header.index;
        read_link(message, prefixes.remove(&index).unwrap_or_default(), default_routes.contains(&index))
    };
    Ok(links.iter().filter_map(link).collect())
}

/// Reads a link. One without a name cannot be.
fn read_link(message: &LinkMessage, prefixes: Vec<IpNet>, default_route: bool) -> Option<Link> {
    let (mut name, mut address, mut enslaved) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value.clone()),
            LinkAttribute::Address(bytes) => address = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr),
            LinkAttribute::Controller(master) => enslaved = *master != 0,
            _ => {}
        }
    }
    Some(Link {
        index: message.header.index,
        name: name?,
        mac: address.filter(|_| message.header.link_layer_type == LinkLayerType::Ether),
        // IFF_RUNNING: with carrier, and not dormant as before 802.1X has let it in (RFC 2863 operational state).
        running: message.header.flags.contains(LinkFlags::Up | LinkFlags::Running),
        enslaved,
        prefixes,
        default_route,
    })
}

/// The on-link prefix of an address of global scope. On a point-to-point link IFA_ADDRESS is the peer's, and the
/// prefix is the peer's too.
fn prefix(message: &AddressMessage) -> Option<IpNet> {
    if message.header.scope != AddressScope::Universe {
        return None;
    }
    let find = |want: fn(&AddressAttribute) -> Option<std::net::IpAddr>| message.attributes.iter().find_map(want);
    let address = find(|a| if let AddressAttribute::Address(a) = a { Some(*a) } else { None })
        .or_else(|| find(|a| if let AddressAttribute::Local(a) = a { Some(*a) } else { None }))?;
    IpNet::new(address, message.header.prefix_len).ok()
}

/// The interfaces by which default routes leave: of each family, those of the lowest metric.
async fn default_routes(handle: &Handle) -> Result<Vec<u32>, NetlinkError> {
    let mut found = Vec::new();
    for query in [
        RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ] {
        let routes = handle.route().get(query).execute();
        let mut defaults = Vec::new();
        let mut routes = std::pin::pin!(routes);
        while let Some(route) =
            routes.try_next().await.map_err(|source| NetlinkError::Dump { what: "routes", source })?
        {
            defaults.extend(read_default_route(&route));
        }
        let lowest = defaults.iter().map(|(metric, _)| *metric).min();
        found.extend(defaults.into_iter().filter(|(metric, _)| Some(*metric) == lowest).flat_map(|(_, via)| via));
    }
    Ok(found)
}

/// Metric and interfaces of a route, if it is a default route of the main table.
fn read_default_route(route: &RouteMessage) -> Option<(u32, Vec<u32>)> {
    let header = &route.header;
    let main = header.table == RouteHeader::RT_TABLE_MAIN;
    if header.destination_prefix_length != 0 || !main || header.kind != RouteType::Unicast {
        return None;
    }
    let (mut metric, mut interfaces) = (0, Vec::new());
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::Oif(index) => interfaces.push(*index),
            RouteAttribute::MultiPath(hops) => interfaces.extend(hops.iter().map(|hop| hop.interface_index)),
            _ => {}
        }
    }
    Some((metric, interfaces))
}

/// Reads what bears on announcing. A file that cannot be read counts as 0, the kernel's default: warnings are not
/// worth failing for.
fn read_settings(conf: &Path, links: &[Link]) -> KernelSettings {
    let read = |name: &str, setting: &str| {
        let path: PathBuf = [conf, Path::new(name), Path::new(setting)].iter().collect();
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
            tracing::debug!(path = %path.display(), %error, "cannot read a kernel setting");
            String::new()
        });
        text.trim().parse().unwrap_or(0)
    };
    let names = links.iter().map(|link| link.name.as_str()).chain(["all"]);
    let settings =
        |name: &str| InterfaceSettings { arp_ignore: read(name, "arp_ignore"), rp_filter: read(name, "rp_filter") };
    KernelSettings {
        kube_ipvs0: links.iter().any(|link| link.name == "kube-ipvs0"),
        interfaces: names.map(|name| (name.to_owned(), settings(name))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteNextHop;
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
    fn a_link_is_read() {
        let attributes = vec![name(), LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]), LinkAttribute::Controller(7)];
        let message = link_message(LinkFlags::Up | LinkFlags::Running, LinkLayerType::Ether, attributes);
        let expected = Link {
            index: 2,
            name: "eth0".to_owned(),
            mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
            running: true,
            enslaved: true,
            prefixes: vec![],
            default_route: true,
        };
        assert_eq!(read_link(&message, vec![], true), Some(expected));
    }

    #[test_case(LinkFlags::Up, false; "no carrier")]
    #[test_case(LinkFlags::Running, false; "down")]
    #[test_case(LinkFlags::Up | LinkFlags::Running, true)]
    fn running(flags: LinkFlags, expected: bool) {
        let link = read_link(&link_message(flags, LinkLayerType::Ether, vec![name()]), vec![], false);
        assert_eq!(link.unwrap().running, expected);
    }

    #[test_case(LinkLayerType::Loopback, vec![0; 6])]
    #[test_case(LinkLayerType::Tunnel, vec![10, 0, 0, 1])]
    #[test_case(LinkLayerType::Ether, vec![])]
    fn no_ethernet_address(kind: LinkLayerType, address: Vec<u8>) {
        let attributes = vec![name(), LinkAttribute::Address(address)];
        assert_eq!(read_link(&link_message(LinkFlags::Up, kind, attributes), vec![], false).unwrap().mac, None);
    }

    fn address_message(scope: AddressScope, attributes: Vec<AddressAttribute>) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.prefix_len = 24;
        message.header.scope = scope;
        message.attributes = attributes;
        message
    }

    #[test_case(AddressScope::Universe, Some("192.0.2.1/24"))]
    #[test_case(AddressScope::Link, None)]
    #[test_case(AddressScope::Host, None)]
    fn addresses_of_global_scope_have_a_prefix(scope: AddressScope, expected: Option<&str>) {
        let message = address_message(scope, vec![AddressAttribute::Local("192.0.2.1".parse().unwrap())]);
        assert_eq!(prefix(&message), expected.map(|p| p.parse().unwrap()));
    }

    #[test]
    fn the_prefix_of_a_point_to_point_link_is_the_peers() {
        let [local, peer] = ["192.0.2.1", "198.51.100.1"].map(|a| a.parse().unwrap());
        let attributes = vec![AddressAttribute::Local(local), AddressAttribute::Address(peer)];
        assert_eq!(prefix(&address_message(AddressScope::Universe, attributes)).unwrap().addr(), peer);
    }

    fn route(length: u8, table: u8, kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.destination_prefix_length = length;
        message.header.table = table;
        message.header.kind = kind;
        message.attributes = attributes;
        message
    }

    #[test]
    fn default_routes_are_read() {
        let hops = [3, 4].map(|index| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = index;
            hop
        });
        let main = RouteHeader::RT_TABLE_MAIN;
        let single = vec![RouteAttribute::Oif(2), RouteAttribute::Priority(100)];
        let several = vec![RouteAttribute::MultiPath(hops.to_vec())];
        let cases = [
            (route(0, main, RouteType::Unicast, single.clone()), Some((100, vec![2]))),
            (route(0, main, RouteType::Unicast, several), Some((0, vec![3, 4]))),
            (route(24, main, RouteType::Unicast, single.clone()), None),
            (route(0, 7, RouteType::Unicast, single.clone()), None),
            (route(0, main, RouteType::BlackHole, single), None),
        ];
        for (message, expected) in cases {
            assert_eq!(read_default_route(&message), expected, "{message:?}");
        }
    }
}
