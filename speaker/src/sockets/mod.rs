//! The sockets of the segments. Each segment has four packet sockets, each with a kernel filter and a task that carries
//! what the filter lets through: one for the protocol's frames, one for ARP, one for Neighbour Discovery and IPv6
//! pings, one for IPv4 pings. UDP sockets join the solicited-node groups of its addresses (`multicast_groups`).
//!
//! ARP and Neighbour Discovery are read by a thread of their own, which answers them (`responder`). The protocol has a
//! socket of its own, so that no flood of ARP takes the room of Hellos.

mod multicast_groups;
mod responder;

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

use crate::{
    answer_table::Statement,
    filter::{self, Instruction},
    packet::Family,
};
use multicast_groups::Groups;
use responder::Answers;
pub use responder::Responder;

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
    /// A frame of ARP, IPv4 or IPv6.
    Packet {
        /// The family of its addresses.
        family: Family,
        /// The whole frame.
        frame: Vec<u8>,
        /// Whether it asks for an address and was answered.
        answered: bool,
    },
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
    /// What the coordinator has stated about each segment; it may state that before the sockets are open.
    answers: BTreeMap<u32, Answers>,
    responder: Responder,
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
    pub fn new(arrivals: mpsc::Sender<Arrival>, responder: Responder, promiscuous: bool) -> Self {
        Self { open: BTreeMap::new(), answers: BTreeMap::new(), responder, arrivals, promiscuous }
    }

    /// Lets the responder answer by these statements.
    pub fn state_answers(&mut self, statements: impl IntoIterator<Item = (u32, Statement)>) {
        for (segment, statement) in statements {
            self.answers.entry(segment).or_default().state(statement);
        }
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
        let gone = |segment: &u32, _: &mut Answers| !segments(*segment);
        self.answers.extract_if(.., gone).for_each(|(_, answers)| answers.silence());
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
        let answers = self.answers.entry(segment).or_default().clone();
        let ear =
            |traffic| {
                Ear::open(segment, traffic, &self.arrivals, (&self.responder, &answers))
                    .map_err(|source| SegmentError { action: "opening a packet socket", segment, source })
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

    /// Returns frames of the protocol that lie in the sockets, `most` of them at most. Their readers have not been run since
    /// these came.
    pub fn waiting(&self, most: usize) -> Vec<Arrival> {
        self.open.iter().flat_map(|(segment, open)| open.hello.waiting(*segment)).take(most).collect()
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
    fn open(
        segment: u32,
        traffic: Traffic,
        arrivals: &mpsc::Sender<Arrival>,
        (responder, answers): (&Responder, &Answers),
    ) -> io::Result<Self> {
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
        let (socket, reader) = match traffic {
            Traffic::Arp => responder.read((segment, Family::Ipv4), socket, answers.clone(), arrivals.clone())?,
            Traffic::Ipv6 => responder.read((segment, Family::Ipv6), socket, answers.clone(), arrivals.clone())?,
            Traffic::Hello => read_here(segment, socket, hello_in, arrivals.clone())?,
            Traffic::Ipv4 => read_here(segment, socket, whole_ipv4, arrivals.clone())?,
        };
        Ok(Self { socket, _reader: reader })
    }

    fn waiting(&self, segment: u32) -> impl Iterator<Item = Arrival> {
        let mut buffer = [0; MAX_FRAME];
        std::iter::from_fn(move || {
            // Netlink reports an interface that went down.
            let received = self.socket.get_ref().recv(&mut buffer).ok()?;
            let body = hello_in(&buffer[..received.len])?;
            Some(Arrival { segment, kind: received.packet_type, body })
        })
    }

    fn set_filter(&self, filter: Vec<Instruction>) -> io::Result<()> {
        self.socket.get_ref().set_filter(&program(filter))
    }
}

/// Reads a socket in the event loop's own thread, until the returned task is dropped.
fn read_here(
    segment: u32,
    socket: PacketSocket,
    body: fn(&[u8]) -> Option<Body>,
    arrivals: mpsc::Sender<Arrival>,
) -> io::Result<(Arc<AsyncPacketSocket>, AbortOnDropHandle<()>)> {
    let socket = Arc::new(AsyncPacketSocket::new(socket)?);
    let reader = tokio::spawn(read(segment, Arc::clone(&socket), body, arrivals));
    Ok((socket, AbortOnDropHandle::new(reader)))
}

/// Carries frames until the receiver of the channel is gone.
async fn read(
    segment: u32,
    socket: Arc<AsyncPacketSocket>,
    body: fn(&[u8]) -> Option<Body>,
    arrivals: mpsc::Sender<Arrival>,
) {
    let mut buffer = vec![0; MAX_FRAME];
    loop {
        match socket.recv(&mut buffer).await {
            Ok(received) => {
                let Some(body) = body(&buffer[..received.len]) else { continue };
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

/// Returns the content of a frame of the protocol, or `None` where it is too short for an Ethernet header.
fn hello_in(frame: &[u8]) -> Option<Body> {
    frame.get(ETHERNET_HEADER..).map(|bytes| Body::Hello(bytes.to_vec()))
}

/// Returns an IPv4 packet with its Ethernet header, or `None` where it is too short for that.
fn whole_ipv4(frame: &[u8]) -> Option<Body> {
    let whole = || Body::Packet { family: Family::Ipv4, frame: frame.to_vec(), answered: false };
    (frame.len() >= ETHERNET_HEADER).then(whole)
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
    use std::time::Instant;

    use test_case::test_case;

    use super::*;
    use crate::{
        metrics::Metrics,
        network_namespace::{in_a_network_namespace, ip},
    };

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn responder() -> Responder {
        Responder::start(Instant::now(), Metrics::new("1").answered()).unwrap()
    }

    #[test]
    fn hello_goes_to_the_group_and_arrives_without_its_header() {
        let frame = hello_frame(MAC, b"hello");
        assert_eq!(frame[..6], GROUP.0);
        assert_eq!(frame[6..12], MAC.0);
        assert_eq!(frame[12..14], [0x88, 0xb5]);
        assert_eq!(hello_in(&frame), Some(Body::Hello(b"hello".to_vec())));
    }

    #[test]
    fn ipv4_packet_arrives_whole() {
        let whole = Body::Packet { family: Family::Ipv4, frame: vec![7; 60], answered: false };
        assert_eq!(whole_ipv4(&[7; 60]), Some(whole));
    }

    #[test]
    fn frame_without_a_header_does_not_arrive() {
        assert_eq!((hello_in(&[0; 13]), whole_ipv4(&[0; 13])), (None, None));
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
            let mut segments = Segments::new(arrivals, responder(), false);
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

    /// No reader is run before the frames are asked for: this process was kept from running.
    #[test]
    fn frames_that_lie_in_the_sockets_can_be_had_at_once() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let test = async {
            assert!(ip("link add eth0 index 77 type veth peer name wire index 78"));
            assert!(ip("link set eth0 up") && ip("link set wire up"));
            let mut segments = [77, 78].map(|index| {
                let (arrivals, heard) = mpsc::channel(16);
                let mut segments = Segments::new(arrivals, responder(), false);
                segments.open(index).unwrap();
                (segments, heard)
            });
            let [(sender, _), (receiver, heard)] = &mut segments;
            assert_eq!(receiver.waiting(9), []);
            sender.hello(77, MAC, b"first").unwrap();
            sender.hello(77, MAC, b"second").unwrap();
            let bodies: Vec<Body> = receiver.waiting(9).into_iter().map(|arrival| arrival.body).collect();
            assert_eq!(bodies, [Body::Hello(b"first".to_vec()), Body::Hello(b"second".to_vec())]);
            sender.hello(77, MAC, b"one").unwrap();
            sender.hello(77, MAC, b"more").unwrap();
            assert_eq!([receiver.waiting(1).len(), receiver.waiting(9).len()], [1, 1], "no more than is asked for");
            assert_eq!(receiver.waiting(9), []);
            sender.hello(77, MAC, b"third").unwrap();
            assert_eq!(heard.recv().await.unwrap().body, Body::Hello(b"third".to_vec()), "the reader reads the rest");
        };
        in_a_network_namespace(|| runtime().block_on(test));
    }

    #[test]
    fn sending_on_a_closed_segment_is_an_error() {
        let (arrivals, _) = mpsc::channel(1);
        let mut segments = Segments::new(arrivals, responder(), false);
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
