//! The sockets of the segments. Each segment has four packet sockets, each with a kernel filter and a task that carries
//! what the filter lets through: one for the protocol's frames, one for ARP, one for Neighbour Discovery and IPv6
//! pings, one for IPv4 pings. UDP sockets join the solicited-node groups of its addresses (`multicast_groups`).
//!
//! The protocol has a socket of its own, so that no flood of ARP takes the room of Hellos; where the speaker is slow,
//! the tasks take turns in giving it their frames (tokio's channels are fair).

mod multicast_groups;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use herald_packet_socket::{AsyncPacketSocket, MAX_FRAME, PacketSocket, PacketType, SockFilter};
use herald_protocol::{
    mac::MacAddr,
    wire::{ETHERTYPE, GROUP},
};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::filter::{self, Instruction};
use multicast_groups::Groups;

/// ETH_P_IP (linux/if_ether.h).
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// ETH_P_ARP (linux/if_ether.h).
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// ETH_P_IPV6 (linux/if_ether.h).
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Length of destination, source and EtherType, in bytes.
const ETHERNET_HEADER: usize = 14;

/// The receive buffer asked for, in bytes. A cluster sends at most about 1,000 Hellos a second to a segment (one per
/// peer and interval, which grows by 1 ms per peer), of up to 1,414 bytes. The kernel charges about 2.3 KB for each,
/// its own structures included, and doubles the size that a process asks for (socket(7)): there is room for almost two
/// seconds. A process without NET_ADMIN gets at most net.core.rmem_max: by default twice 212,992 bytes, 180 of the
/// longest frames.
const RECEIVE_BUFFER: usize = 2 << 20;

/// A frame that the kernel let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The interface's index.
    pub segment: u32,
    /// The addressee of the frame, as the kernel sees it.
    pub kind: PacketType,
    /// The frame.
    pub body: Body,
}

/// A frame, by the socket that received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A frame of the protocol, without its Ethernet header.
    Hello(Vec<u8>),
    /// ARP: the whole frame.
    Arp(Vec<u8>),
    /// IPv4: the whole frame.
    Ipv4(Vec<u8>),
    /// IPv6: the whole frame.
    Ipv6(Vec<u8>),
}

/// An action that failed on a segment's socket.
#[derive(Debug, thiserror::Error)]
#[error("{action} on interface {segment}: {source}")]
pub struct SegmentError {
    action: &'static str,
    segment: u32,
    #[source]
    source: io::Error,
}

impl SegmentError {
    /// Returns whether the interface that the sockets were opened on is gone. The sockets are then bound to no
    /// interface for good, even if another interface has come in its place under its index (`packet_notifier`,
    /// net/packet/af_packet.c).
    pub fn is_interface_gone(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::ENXIO | libc::ENODEV))
    }
}

/// The open segments.
#[derive(Debug)]
pub struct Segments {
    open: BTreeMap<u32, Open>,
    arrivals: mpsc::Sender<Arrival>,
    /// Whether interfaces also receive frames that are not to them.
    promiscuous: bool,
}

#[derive(Debug)]
struct Open {
    hello: Ear,
    arp: Ear,
    ipv4: Ear,
    ipv6: Ear,
    groups: Groups,
}

/// The kind of frames that a socket receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traffic {
    Hello,
    Arp,
    Ipv4,
    Ipv6,
}

impl Segments {
    /// Returns an empty set of segments, whose received frames go into the channel. If `promiscuous` is set, the
    /// interfaces receive all frames.
    pub fn new(arrivals: mpsc::Sender<Arrival>, promiscuous: bool) -> Self {
        Self { open: BTreeMap::new(), arrivals, promiscuous }
    }

    /// Checks that this process may open packet sockets.
    ///
    /// # Errors
    /// If the process lacks NET_RAW (EPERM).
    pub fn check_permission() -> io::Result<()> {
        // The socket is bound to no interface in particular; its filter lets through only frames for this host, and the
        // socket is closed before anyone reads.
        PacketSocket::open(0, ETHERTYPE_ARP, Some(&program(filter::arp(0, [])))).map(|_| ())
    }

    /// Closes all segments but those for which `segments` returns `true`.
    pub fn retain(&mut self, segments: impl Fn(u32) -> bool) {
        self.open.retain(|segment, _| segments(*segment));
    }

    /// Closes a segment.
    pub fn close(&mut self, segment: u32) {
        self.open.remove(&segment);
    }

    /// Returns whether a segment is open.
    pub fn is_open(&self, segment: u32) -> bool {
        self.open.contains_key(&segment)
    }

    /// Opens a segment, if it is not open. Frames of the protocol arrive from then on, and answers to this host, which
    /// are signs of life; solicitations do not arrive before [`Segments::listen`].
    ///
    /// # Errors
    /// If the interface is gone, or the process lacks NET_RAW.
    pub fn open(&mut self, segment: u32) -> Result<(), SegmentError> {
        if self.open.contains_key(&segment) {
            return Ok(());
        }
        let ear = |traffic| {
            Ear::open(segment, traffic, &self.arrivals).map_err(|source| SegmentError {
                action: "opening a packet socket",
                segment,
                source,
            })
        };
        let open = Open {
            hello: ear(Traffic::Hello)?,
            arp: ear(Traffic::Arp)?,
            ipv4: ear(Traffic::Ipv4)?,
            ipv6: ear(Traffic::Ipv6)?,
            groups: Groups::new(segment),
        };
        if self.promiscuous {
            // One of the four sockets is enough: the kernel counts memberships per interface.
            let listening = open.hello.socket.get_ref().receive_all();
            listening.map_err(|source| SegmentError { action: "receiving all frames", segment, source })?;
        }
        self.open.insert(segment, open);
        Ok(())
    }

    /// Lets solicitations for these addresses through on an open segment, and for no others, together with the claims
    /// that other hosts make to these addresses.
    ///
    /// A new group takes the kernel up to 0.07 ms (measured: 1,000 in 35 to 72 ms), so urgent frames are sent before
    /// this call.
    ///
    /// # Errors
    /// If the segment is not open, the interface is gone, or the kernel refuses a filter or a group. Each family and
    /// each group is attempted; the first error is returned, and the next call retries the parts that failed.
    pub fn listen(&mut self, segment: u32, addresses: &BTreeSet<IpAddr>) -> Result<(), SegmentError> {
        let failed = |action| move |source| SegmentError { action, segment, source };
        let not_open = || failed("listening")(io::ErrorKind::NotConnected.into());
        let open = self.open.get_mut(&segment).ok_or_else(not_open)?;
        let (v4, v6) = by_family(addresses);
        // The filters are set first, so that they let solicitations in as soon as a group is joined.
        let arp = open.arp.set_filter(filter::arp(segment, v4)).map_err(failed("setting the filter for ARP"));
        let ipv6 = open.ipv6.set_filter(filter::ipv6(segment, v6.iter().copied()));
        let ipv6 = ipv6.map_err(failed("setting the filter for IPv6"));
        let groups = open.groups.set(&multicast_groups::of(v6)).map_err(failed("joining a solicited-node group"));
        arp.and(ipv6).and(groups)
    }

    /// Sends an ARP, IPv4 or IPv6 frame, by the socket of its EtherType.
    ///
    /// # Errors
    /// If the interface is down (ENETDOWN), a queue is full or there is no carrier (`WouldBlock` or ENOBUFS), the
    /// segment is not open (`NotConnected`), or the EtherType is another one (`InvalidInput`).
    pub fn transmit(&self, segment: u32, frame: &[u8]) -> Result<(), SegmentError> {
        let failed = |source| SegmentError { action: "sending", segment, source };
        let traffic = traffic_of(frame).ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        self.send(segment, traffic, frame).map_err(failed)
    }

    /// Sends a frame of the protocol to the speakers of the segment. `from` is the interface's link-layer address.
    ///
    /// # Errors
    /// If [`Segments::transmit`] would fail for the same reason.
    pub fn hello(&self, segment: u32, from: MacAddr, bytes: &[u8]) -> Result<(), SegmentError> {
        self.send(segment, Traffic::Hello, &hello_frame(from, bytes)).map_err(|source| SegmentError {
            action: "sending a Hello",
            segment,
            source,
        })
    }

    fn send(&self, segment: u32, traffic: Traffic, frame: &[u8]) -> io::Result<()> {
        let open = self.open.get(&segment).ok_or(io::ErrorKind::NotConnected)?;
        let ear = match traffic {
            Traffic::Hello => &open.hello,
            Traffic::Arp => &open.arp,
            Traffic::Ipv4 => &open.ipv4,
            Traffic::Ipv6 => &open.ipv6,
        };
        ear.socket.get_ref().send(frame)
    }
}

/// A socket, and the task that carries the frames it receives.
#[derive(Debug)]
struct Ear {
    socket: Arc<AsyncPacketSocket>,
    _reader: AbortOnDropHandle<()>,
}

impl Ear {
    fn open(segment: u32, traffic: Traffic, arrivals: &mpsc::Sender<Arrival>) -> io::Result<Self> {
        let (ethertype, filter) = match traffic {
            Traffic::Hello => (ETHERTYPE, filter::hello(segment)),
            Traffic::Arp => (ETHERTYPE_ARP, filter::arp(segment, [])),
            Traffic::Ipv4 => (ETHERTYPE_IPV4, filter::ipv4(segment)),
            Traffic::Ipv6 => (ETHERTYPE_IPV6, filter::ipv6(segment, [])),
        };
        let socket = PacketSocket::open(segment, ethertype, Some(&program(filter)))?;
        socket.set_receive_buffer(RECEIVE_BUFFER)?;
        if traffic == Traffic::Hello {
            socket.join_multicast(GROUP.0)?;
        }
        let socket = Arc::new(AsyncPacketSocket::new(socket)?);
        let reader = tokio::spawn(read(segment, traffic, Arc::clone(&socket), arrivals.clone()));
        Ok(Self { socket, _reader: AbortOnDropHandle::new(reader) })
    }

    fn set_filter(&self, filter: Vec<Instruction>) -> io::Result<()> {
        self.socket.get_ref().set_filter(&program(filter))
    }
}

/// Carries frames until the receiver of the channel is gone.
async fn read(segment: u32, traffic: Traffic, socket: Arc<AsyncPacketSocket>, arrivals: mpsc::Sender<Arrival>) {
    let mut buffer = vec![0; MAX_FRAME];
    loop {
        match socket.recv(&mut buffer).await {
            Ok(received) => {
                let Some(body) = body(traffic, &buffer[..received.len]) else { continue };
                if arrivals.send(Arrival { segment, kind: received.packet_type, body }).await.is_err() {
                    return;
                }
            }
            // The kernel reports the error once when the interface goes down; the socket goes on receiving when the
            // interface is up again. Netlink reports the rest.
            Err(error) => tracing::debug!(segment, %error, "receiving"),
        }
    }
}

/// Returns the frame as a [`Body`], or `None` where it is too short for an Ethernet header.
fn body(traffic: Traffic, frame: &[u8]) -> Option<Body> {
    let (_, payload) = frame.split_at_checked(ETHERNET_HEADER)?;
    Some(match traffic {
        Traffic::Hello => Body::Hello(payload.to_vec()),
        Traffic::Arp => Body::Arp(frame.to_vec()),
        Traffic::Ipv4 => Body::Ipv4(frame.to_vec()),
        Traffic::Ipv6 => Body::Ipv6(frame.to_vec()),
    })
}

/// Returns the socket for a frame that is sent, by its EtherType.
fn traffic_of(frame: &[u8]) -> Option<Traffic> {
    let ethertype = frame.get(ETHERNET_HEADER - 2..ETHERNET_HEADER)?;
    match u16::from_be_bytes(ethertype.try_into().ok()?) {
        ETHERTYPE_ARP => Some(Traffic::Arp),
        ETHERTYPE_IPV4 => Some(Traffic::Ipv4),
        ETHERTYPE_IPV6 => Some(Traffic::Ipv6),
        _ => None,
    }
}

fn hello_frame(from: MacAddr, bytes: &[u8]) -> Vec<u8> {
    [&GROUP.0, &from.0, &ETHERTYPE.to_be_bytes()[..], bytes].concat()
}

fn by_family(addresses: &BTreeSet<IpAddr>) -> (Vec<Ipv4Addr>, Vec<Ipv6Addr>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for address in addresses {
        match address {
            IpAddr::V4(address) => v4.push(*address),
            IpAddr::V6(address) => v6.push(*address),
        }
    }
    (v4, v6)
}

fn program(filter: Vec<Instruction>) -> Vec<SockFilter> {
    filter.into_iter().map(SockFilter::from).collect()
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;
    use crate::network_namespace::{in_a_network_namespace, ip};

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    #[test]
    fn hello_goes_to_the_group_and_arrives_without_its_header() {
        let frame = hello_frame(MAC, b"hello");
        assert_eq!(frame[..6], GROUP.0);
        assert_eq!(frame[6..12], MAC.0);
        assert_eq!(frame[12..14], [0x88, 0xb5]);
        assert_eq!(body(Traffic::Hello, &frame), Some(Body::Hello(b"hello".to_vec())));
    }

    #[test_case(Traffic::Arp => Some(Body::Arp(vec![7; 60])))]
    #[test_case(Traffic::Ipv4 => Some(Body::Ipv4(vec![7; 60])))]
    #[test_case(Traffic::Ipv6 => Some(Body::Ipv6(vec![7; 60])))]
    fn frames_of_other_protocols_arrive_whole(traffic: Traffic) -> Option<Body> {
        body(traffic, &[7; 60])
    }

    #[test]
    fn frame_without_a_header_does_not_arrive() {
        for traffic in [Traffic::Hello, Traffic::Arp, Traffic::Ipv4, Traffic::Ipv6] {
            assert_eq!(body(traffic, &[0; 13]), None);
        }
    }

    #[test_case(&[0x08, 0x06] => Some(Traffic::Arp))]
    #[test_case(&[0x86, 0xdd] => Some(Traffic::Ipv6))]
    #[test_case(&[0x88, 0xb5] => None; "the protocol has a function of its own")]
    #[test_case(&[0x08, 0x00] => Some(Traffic::Ipv4))]
    #[test_case(&[0x81, 0x00] => None; "tagged")]
    #[test_case(&[0x08] => None; "cut")]
    fn frame_is_sent_by_the_socket_of_its_ethertype(ethertype: &[u8]) -> Option<Traffic> {
        traffic_of(&[&[0; 12], ethertype].concat())
    }

    /// The interface is deleted and made again under its index, faster than netlink's messages are read: to the speaker
    /// nothing has changed.
    #[test]
    fn sending_shows_that_an_interface_was_replaced_under_its_index() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let replace = async {
            let make = || ip("link add eth0 index 77 type veth peer name wire") && ip("link set eth0 up");
            assert!(make() && ip("link set wire up"));
            let (arrivals, _heard) = mpsc::channel(16);
            let mut segments = Segments::new(arrivals, false);
            segments.open(77).unwrap();
            segments.hello(77, MAC, b"hello").unwrap();
            assert!(ip("link delete eth0") && make() && ip("link set wire up"));
            let errors: Vec<_> = (0..2).filter_map(|_| segments.hello(77, MAC, b"hello").err()).collect();
            assert!(errors.iter().any(SegmentError::is_interface_gone), "{errors:?}");
            segments.close(77);
            segments.open(77).unwrap();
            segments.hello(77, MAC, b"hello").unwrap();
        };
        in_a_network_namespace(|| runtime().block_on(replace));
    }

    #[test]
    fn sending_on_a_closed_segment_is_an_error() {
        let (arrivals, _) = mpsc::channel(1);
        let mut segments = Segments::new(arrivals, false);
        let arp = [&[0; 12], &[8, 6][..], &[0; 28]].concat();
        for result in [
            segments.transmit(7, &arp),
            segments.hello(7, MAC, b"hello"),
            segments.listen(7, &BTreeSet::from(["192.0.2.1".parse().unwrap()])),
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.source.kind(), io::ErrorKind::NotConnected);
            assert!(error.to_string().contains("on interface 7"), "{error}");
        }
    }
}
