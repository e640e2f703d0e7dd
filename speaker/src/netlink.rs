//! The interfaces of this node, from the kernel: all of them once at the start, then again whenever the kernel reports
//! a change (rtnetlink(7) multicast groups).
//!
//! A change leads to a new dump rather than being applied: a dump is consistent, and it also heals what an overrun of
//! the notification socket lost. Routes are dumped again only if a default route changed, since a node may hold a whole
//! routing table. (The kernel itself reports a lost carrier once a second at most, if carriers change more often than
//! that: net/core/link_watch.c.)
//!
//! The neighbour table is different: its entries change all the time, and it only serves to choose the hosts that are
//! asked for a sign of life. The table is read when the interfaces change, and every 30 s; so are the settings below
//! /proc/sys, whose changes the kernel does not report.

mod neighbours;
mod read;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, channel::mpsc::UnboundedReceiver};
use herald_protocol::Neighbour;
use netlink_packet_route::{RouteNetlinkMessage, neighbour::NeighbourAttribute};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection, packet_core::NetlinkPayload};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    coordinator::{Input, Interfaces},
    interfaces::{Link, LocalSegment, Selection, Survey, survey},
    warnings::{InterfaceSettings, KernelSettings, warnings},
};
use read::{Addresses, Defaults};

/// Time for which the first change of a bunch waits for the others: one `ip link add` makes several messages, a pod a
/// dozen.
const SETTLE: Duration = Duration::from_millis(20);

/// Time between two readings of the neighbour table while nothing else changes: a host without traffic leaves the table
/// after 60 s (net.ipv4.neigh.default.gc_stale_time).
const NEIGHBOURS_INTERVAL: Duration = Duration::from_secs(30);

/// The kernel's settings of each interface.
const CONF: &str = "/proc/sys/net/ipv4/conf";

/// The reason why the interfaces are unknown.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The notification socket failed.
    #[error("opening a netlink socket: {0}")]
    Open(#[source] std::io::Error),
    /// A dump failed.
    #[error("listing {what} by netlink: {source}")]
    Dump {
        /// The kind of objects.
        what: &'static str,
        /// The cause.
        #[source]
        source: rtnetlink::Error,
    },
    /// The connection task ended.
    #[error("the netlink connection ended")]
    Ended,
    /// The sender of the selection is gone.
    #[error("the speaker's loop ended")]
    Unselected,
}

/// Reports the interfaces and the neighbours on them, now and whenever they or the selection change, until the receiver
/// of `inputs` is gone. The function reports nothing before there is a selection: an interface that people exclude
/// would get sockets for a moment.
///
/// # Errors
/// If the kernel refuses a socket or a dump, or the selection ends.
pub async fn run(
    inputs: mpsc::Sender<Input>,
    mut selections: watch::Receiver<Option<Selection>>,
) -> Result<(), NetlinkError> {
    let wanted = selections.wait_for(Option::is_some).await.map(|selection| selection.clone());
    let mut selection = wanted.map_err(|_| NetlinkError::Unselected)?.unwrap_or_default();
    // The subscription precedes the first dump, so changes in between are reported.
    let (connection, handle, mut messages) = new_multicast_connection(&[
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ])
    .map_err(NetlinkError::Open)?;
    let _connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let mut told: Option<Interfaces> = None;
    let mut settings = BTreeMap::new();
    let mut told_neighbours = BTreeMap::new();
    let mut defaults = defaults(&handle).await?;
    let mut concerns = Concerns::Routes;
    let mut next_neighbours = Instant::now();
    loop {
        if concerns >= Concerns::Links {
            let links = links(&handle, &defaults).await?;
            let survey = survey(&links, &selection);
            settings = read_settings(Path::new(CONF), &survey.segments);
            let interfaces = interfaces(&links, survey, settings.clone(), &selection);
            if told.as_ref() != Some(&interfaces) {
                if inputs.send(Input::Interfaces(interfaces.clone())).await.is_err() {
                    return Ok(());
                }
                told = Some(interfaces);
                next_neighbours = Instant::now();
            }
        }
        if Instant::now() >= next_neighbours {
            let segments = told.as_ref().map_or(&[][..], |interfaces| &interfaces.segments);
            told_neighbours.retain(|index, _| segments.iter().any(|segment| segment.index == *index));
            for segment in segments {
                let neighbours = neighbours(&handle, segment, &defaults).await?;
                // A segment without a report counts as one without neighbours.
                if told_neighbours.get(&segment.index).map_or(&[][..], |told: &Arc<[_]>| told) == &*neighbours {
                    continue;
                }
                told_neighbours.insert(segment.index, Arc::clone(&neighbours));
                if inputs.send(Input::Neighbours(segment.index, neighbours)).await.is_err() {
                    return Ok(());
                }
            }
            next_neighbours = Instant::now() + NEIGHBOURS_INTERVAL;
        }
        concerns = tokio::select! {
            changed = selections.changed() => {
                changed.map_err(|_| NetlinkError::Unselected)?;
                selection = selections.borrow_and_update().clone().unwrap_or_default();
                // The other future may have taken in messages of any kind.
                Concerns::Routes
            }
            change = next_change(&mut messages, next_neighbours) => change?,
        };
        // The kernel does not report changes of settings.
        let segments = told.as_ref().map_or(&[][..], |interfaces| &interfaces.segments);
        if read_settings(Path::new(CONF), segments) != settings {
            concerns = concerns.max(Concerns::Links);
        }
        if concerns == Concerns::Routes {
            defaults = self::defaults(&handle).await?;
        }
    }
}

/// The lists that have to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Concerns {
    /// Neighbours, by the clock.
    Neighbours,
    /// Links, addresses and settings.
    Links,
    /// Routes, and links too.
    Routes,
}

type Message = rtnetlink::packet_core::NetlinkMessage<RouteNetlinkMessage>;

fn concerns(message: &Message) -> Option<Concerns> {
    match &message.payload {
        // The routes of a link that goes down go with it, and the kernel does not report each of them
        // (`fib_disable_ip`, net/ipv4/fib_frontend.c).
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) if !read::is_up(link) => {
            Some(Concerns::Routes)
        }
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewLink(_)
            | RouteNetlinkMessage::DelLink(_)
            | RouteNetlinkMessage::NewAddress(_)
            | RouteNetlinkMessage::DelAddress(_),
        ) => Some(Concerns::Links),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route)) => {
            let is_default = route.header.destination_prefix_length == 0;
            (is_default || read::on_link_route(route).is_some()).then_some(Concerns::Routes)
        }
        // Messages of any kind may have been lost.
        NetlinkPayload::Overrun(_) => Some(Concerns::Routes),
        _ => None,
    }
}

/// Waits for a change, and for the rest of its bunch; or until it is time for the neighbours.
async fn next_change<A>(
    messages: &mut UnboundedReceiver<(Message, A)>,
    neighbours: Instant,
) -> Result<Concerns, NetlinkError> {
    let mut first = loop {
        let message = tokio::select! {
            message = messages.next() => message,
            () = tokio::time::sleep_until(neighbours) => return Ok(Concerns::Neighbours),
        };
        let (message, _) = message.ok_or(NetlinkError::Ended)?;
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

fn interfaces(
    links: &[Link],
    survey: Survey,
    settings: BTreeMap<String, InterfaceSettings>,
    selection: &Selection,
) -> Interfaces {
    let kube_ipvs0 = links.iter().any(|link| link.name == "kube-ipvs0");
    let mut warnings = warnings(&survey, &KernelSettings { kube_ipvs0, interfaces: settings });
    warnings.extend(selection.warning());
    Interfaces { warnings, segments: survey.segments, links: survey.links, links_left_out: survey.links_left_out }
}

async fn links(handle: &Handle, defaults: &Defaults) -> Result<Vec<Link>, NetlinkError> {
    let dump = |what| move |source| NetlinkError::Dump { what, source };
    let links: Vec<_> = handle.link().get().execute().try_collect().await.map_err(dump("links"))?;
    let addresses: Vec<_> = handle.address().get().execute().try_collect().await.map_err(dump("addresses"))?;
    let mut by_link: BTreeMap<u32, Addresses> = BTreeMap::new();
    for address in &addresses {
        by_link.entry(address.header.index).or_default().add(address);
    }
    let link = |message| {
        let mut link = read::link(message)?;
        by_link.remove(&link.index).unwrap_or_default().give(&mut link);
        link.prefixes.extend(defaults.on_link.iter().filter(|(index, _)| *index == link.index).map(|(_, net)| *net));
        link.default_route = defaults.interfaces.contains(&link.index);
        Some(link)
    };
    Ok(links.iter().filter_map(link).collect())
}

/// Returns the default routes: of each family, those of the lowest metric. The result also has the other networks that
/// routes put on link.
async fn defaults(handle: &Handle) -> Result<Defaults, NetlinkError> {
    let mut found = Defaults::default();
    for query in [
        RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ] {
        let routes = handle.route().get(query).execute();
        let mut routes = std::pin::pin!(routes);
        let mut defaults = Vec::new();
        while let Some(route) =
            routes.try_next().await.map_err(|source| NetlinkError::Dump { what: "routes", source })?
        {
            defaults.extend(read::default_route(&route));
            found.on_link.extend(read::on_link_route(&route));
        }
        found.add_lowest(defaults);
    }
    Ok(found)
}

/// Returns the neighbours on a segment.
async fn neighbours(
    handle: &Handle,
    segment: &LocalSegment,
    defaults: &Defaults,
) -> Result<Arc<[Neighbour]>, NetlinkError> {
    let mut query = handle.neighbours().get();
    // The kernel sends the entries of this interface only: there may be thousands on those of pods.
    query.message_mut().attributes.push(NeighbourAttribute::IfIndex(segment.index));
    let entries: Vec<_> =
        query.execute().try_collect().await.map_err(|source| NetlinkError::Dump { what: "neighbours", source })?;
    let entries = entries.iter().filter(|entry| entry.header.ifindex == segment.index);
    let is_gateway = |address| defaults.gateways.contains(&(segment.index, address));
    Ok(neighbours::choose(entries.filter_map(neighbours::read), segment.segment.mac, is_gateway).into())
}

/// Reads the settings that bear on announcing, of the segments and of "all": each pod has a link as well, and links
/// change with the pods. A file that cannot be read counts as 0, the kernel's default: a missing warning is better than
/// a failure.
fn read_settings(conf: &Path, segments: &[LocalSegment]) -> BTreeMap<String, InterfaceSettings> {
    let read = |name: &str, setting: &str| {
        let path: PathBuf = [conf, Path::new(name), Path::new(setting)].iter().collect();
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
            tracing::debug!(path = %path.display(), %error, "cannot read a kernel setting");
            String::new()
        });
        text.trim().parse().unwrap_or(0)
    };
    let names = segments.iter().map(|local| local.segment.interface.name.as_str()).chain(["all"]);
    let settings =
        |name: &str| InterfaceSettings { arp_ignore: read(name, "arp_ignore"), rp_filter: read(name, "rp_filter") };
    names.map(|name| (name.to_owned(), settings(name))).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use herald_protocol::twins::Parent;

    use super::*;
    use crate::{
        interfaces::{Setting, tests::local},
        network_namespace::{in_a_network_namespace, ip},
        rank::tests::segment,
    };

    /// Runs a future in a network namespace of its own; returns `None` where none can be made.
    fn in_namespace<T: Send>(test: impl Future<Output = T> + Send) -> Option<T> {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        in_a_network_namespace(|| runtime().block_on(test))
    }

    #[test]
    fn links_are_read_from_the_kernel() {
        in_namespace(async {
            assert!(ip("link add eth0 type veth peer name eth1") && ip("link set eth1 arp off"));
            assert!(ip("link add br-lan type bridge") && ip("link set eth1 master br-lan"));
            assert!(ip("link add link eth0 name shim type macvlan mode bridge") && ip("link set br-lan up"));
            assert!(ip("addr add 192.0.2.1/24 dev br-lan"));
            // The test looks at links that a kernel may lack only where they exist.
            let vlan = ip("link add link eth0 name eth0.7 type vlan id 7");
            let bond = ip("link add bond0 type bond mode balance-alb");
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            let links = links(&handle, &Defaults::default()).await.unwrap();
            let link = |name: &str| links.iter().find(|link| link.name == name).unwrap();
            let index = |name: &str| Some(link(name).index);
            let parent = |name: &str| Some(Parent { index: link(name).index, namespace: None });
            assert_eq!((link("eth0").kind.as_deref(), link("eth0").noarp), (Some("veth"), false));
            assert_eq!((link("eth1").master, link("eth1").noarp), (index("br-lan"), true));
            assert_eq!((link("br-lan").kind.as_deref(), link("br-lan").up), (Some("bridge"), true));
            assert_eq!(link("br-lan").prefixes, ["192.0.2.1/24".parse().unwrap()]);
            assert_eq!((link("shim").kind.as_deref(), link("shim").parent), (Some("macvlan"), parent("eth0")));
            assert!(!vlan || (link("eth0.7").kind.as_deref(), link("eth0.7").parent) == (Some("vlan"), parent("eth0")));
            assert!(!bond || link("bond0").is_balance_alb);
        });
    }

    #[test]
    fn network_of_a_route_is_on_link() {
        in_namespace(async {
            assert!(ip("link add eth0 type veth peer name wire") && ip("link set eth0 up") && ip("link set wire up"));
            assert!(ip("addr add 192.0.2.1/32 dev eth0") && ip("route add 192.0.2.0/24 dev eth0"));
            assert!(ip("route add 198.51.100.0/24 via 192.0.2.254"));
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            let defaults = defaults(&handle).await.unwrap();
            let links = links(&handle, &defaults).await.unwrap();
            let eth0 = links.iter().find(|link| link.name == "eth0").unwrap();
            assert_eq!(eth0.on_link_prefixes(), ["192.0.2.0/24".parse().unwrap()]);
        });
    }

    #[test]
    fn network_goes_with_its_address_route_or_link() {
        in_namespace(async {
            assert!(ip("link add eth0 type veth peer name wire") && ip("link set eth0 up") && ip("link set wire up"));
            let (inputs, mut told) = mpsc::channel(16);
            let (_select, selected) = watch::channel(Some(Selection::default()));
            let _running = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(run(inputs, selected)));
            let mut until = async |expected: &[&str]| loop {
                let input = tokio::time::timeout(Duration::from_secs(5), told.recv()).await.unwrap().unwrap();
                let Input::Interfaces(interfaces) = input else { continue };
                let prefixes = interfaces.segments.iter().flat_map(|segment| &segment.segment.interface.prefixes);
                if prefixes.map(ToString::to_string).collect::<Vec<_>>() == expected {
                    break;
                }
            };
            until(&[]).await;
            assert!(ip("addr add 192.0.2.1/24 dev eth0"));
            until(&["192.0.2.0/24"]).await;
            assert!(ip("addr del 192.0.2.1/24 dev eth0"));
            until(&[]).await;
            for end in ["route del 198.51.100.0/24 dev eth0", "link set eth0 down"] {
                assert!(ip("route add 198.51.100.0/24 dev eth0"));
                until(&["198.51.100.0/24"]).await;
                assert!(ip(end));
                until(&[]).await;
            }
            // The kernel removed the route when the link went down.
            assert!(ip("link set eth0 up") && ip("addr add 203.0.113.1/24 dev eth0"));
            until(&["203.0.113.0/24"]).await;
        });
    }

    /// A write into /proc/sys is not reported by netlink.
    #[test]
    fn changed_setting_is_warned_of_until_it_is_corrected() {
        in_namespace(async {
            assert!(ip("link add eth0 type veth peer name wire") && ip("link set eth0 up") && ip("link set wire up"));
            assert!(ip("addr add 192.0.2.1/24 dev eth0"));
            let set =
                |value: &str| ["all", "eth0"].map(|name| fs::write(format!("{CONF}/{name}/rp_filter"), value).is_ok());
            if set("0") != [true, true] {
                return eprintln!("not run: settings cannot be written");
            }
            let (inputs, mut told) = mpsc::channel(16);
            let (_select, selected) = watch::channel(Some(Selection::default()));
            let _running = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(run(inputs, selected)));
            tokio::time::pause();
            let mut until = async |warned: bool| loop {
                let input = tokio::time::timeout(NEIGHBOURS_INTERVAL * 3, told.recv()).await.unwrap().unwrap();
                let Input::Interfaces(interfaces) = input else { continue };
                if interfaces
                    .warnings
                    .iter()
                    .any(|warning| warning.kind == herald_crds::speaker_status::WarningKind::RpFilter)
                    == warned
                {
                    break;
                }
            };
            until(false).await;
            set("1");
            until(true).await;
            set("0");
            until(false).await;
        });
    }

    #[test]
    fn interfaces_are_reported_after_each_selection() {
        in_namespace(async {
            assert!(ip("link add eth0 type veth peer name wire") && ip("link set eth0 up") && ip("link set wire up"));
            assert!(ip("addr add 192.0.2.1/24 dev eth0"));
            let (inputs, mut told) = mpsc::channel(16);
            let (select, selected) = watch::channel(None);
            let running = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(run(inputs, selected)));
            let mut segments = async || loop {
                let input = tokio::time::timeout(Duration::from_secs(5), told.recv()).await.unwrap().unwrap();
                let Input::Interfaces(interfaces) = input else { continue };
                let names = interfaces.segments.iter().map(|local| local.segment.interface.name.clone());
                return (names.collect::<Vec<_>>(), interfaces.links);
            };
            let before = tokio::time::timeout(Duration::from_millis(200), segments()).await;
            assert!(before.is_err(), "reported before any setting could exclude an interface: {before:?}");
            select.send_replace(Some(Selection::default()));
            assert_eq!(segments().await.0, ["eth0"]);
            let patterns = vec![herald_crds::advertisement::InterfacePattern("!eth0".to_owned())];
            let setting = Setting { patterns, node: Some("a".to_owned()) };
            select.send_replace(Some(Selection { setting, ..Selection::default() }));
            let (names, links) = segments().await;
            assert_eq!(names, Vec::<String>::new());
            assert!(links[0].message.as_ref().unwrap().contains("of Node a leaves it out"), "{links:?}");
            select.send_replace(Some(Selection::default()));
            assert_eq!(segments().await.0, ["eth0"]);
            drop(running);
        });
    }

    #[test]
    fn settings_of_pod_links_are_not_read() {
        let conf = tempfile::tempdir().unwrap();
        for (name, value) in [("all", "0\n"), ("eth0", "1\n"), ("veth7", "2\n")] {
            fs::create_dir(conf.path().join(name)).unwrap();
            fs::write(conf.path().join(name).join("arp_ignore"), value).unwrap();
        }
        let settings = read_settings(conf.path(), &[local(2, segment("eth0", 1, "192.0.2.0/24"))]);
        let read: Vec<_> = settings.iter().map(|(name, settings)| (name.as_str(), settings.arp_ignore)).collect();
        assert_eq!(read, [("all", 0), ("eth0", 1)]);
        assert_eq!(settings["eth0"].rp_filter, 0, "a file that is not there");
    }
}
