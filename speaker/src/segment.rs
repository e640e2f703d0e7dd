//! The sockets of the segments: one per interface on which addresses are owned, with its kernel filter, and a task
//! that carries the requests it lets through.

use std::{collections::BTreeMap, io, net::Ipv4Addr, sync::Arc};

use socket2::SockFilter;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    arp::{FRAME_LEN, Frame},
    filter,
    socket::{AsyncPacketSocket, PacketSocket, PacketType},
};

/// ETH_P_ARP (linux/if_ether.h).
pub const ETHERTYPE_ARP: u16 = 0x0806;

/// A frame the kernel let through.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Interface index.
    pub segment: u32,
    /// To whom it was sent.
    pub packet_type: PacketType,
    /// The frame without its padding.
    pub frame: Frame,
}

/// What a segment's socket could not do.
#[derive(Debug, thiserror::Error)]
#[error("{action} on interface {segment}: {source}")]
pub struct SegmentError {
    action: &'static str,
    segment: u32,
    #[source]
    source: io::Error,
}

/// The open segments.
#[derive(Debug)]
pub struct Segments {
    open: BTreeMap<u32, Open>,
    arrivals: mpsc::Sender<Arrival>,
}

#[derive(Debug)]
struct Open {
    socket: Arc<AsyncPacketSocket>,
    _reader: AbortOnDropHandle<()>,
}

impl Segments {
    /// No segment; what arrives goes into the channel.
    pub fn new(arrivals: mpsc::Sender<Arrival>) -> Self {
        Self { open: BTreeMap::new(), arrivals }
    }

    /// May this process open packet sockets?
    ///
    /// # Errors
    /// EPERM without NET_RAW.
    pub fn check_permission() -> io::Result<()> {
        // Bound to no interface in particular, and deaf.
        PacketSocket::open(0, ETHERTYPE_ARP, Some(&program([]))).map(|_| ())
    }

    /// Closes all but these.
    pub fn retain(&mut self, segments: impl Fn(u32) -> bool) {
        self.open.retain(|segment, _| segments(*segment));
    }

    /// Lets requests for these addresses through on a segment, and no others.
    ///
    /// # Errors
    /// The interface is gone, or the kernel refuses the filter.
    pub fn listen(&mut self, segment: u32, addresses: &[Ipv4Addr]) -> Result<(), SegmentError> {
        let failed = |action| move |source| SegmentError { action, segment, source };
        let program = program(addresses.iter().copied());
        if let Some(open) = self.open.get(&segment) {
            return open.socket.get_ref().set_filter(&program).map_err(failed("setting the filter"));
        }
        let socket = PacketSocket::open(segment, ETHERTYPE_ARP, Some(&program))
            .and_then(AsyncPacketSocket::new)
            .map_err(failed("opening a packet socket"))?;
        let socket = Arc::new(socket);
        let reader = tokio::spawn(read(segment, Arc::clone(&socket), self.arrivals.clone()));
        self.open.insert(segment, Open { socket, _reader: AbortOnDropHandle::new(reader) });
        Ok(())
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The interface is down, or its queue full.
    pub fn transmit(&self, segment: u32, frame: &Frame) -> Result<(), SegmentError> {
        let failed = |source| SegmentError { action: "sending", segment, source };
        let open = self.open.get(&segment).ok_or_else(|| failed(io::ErrorKind::NotConnected.into()))?;
        open.socket.get_ref().send(frame).map_err(failed)
    }
}

fn program(addresses: impl IntoIterator<Item = Ipv4Addr>) -> Vec<SockFilter> {
    filter::arp_requests_for(addresses).into_iter().map(SockFilter::from).collect()
}

/// Carries requests until nobody listens.
async fn read(segment: u32, socket: Arc<AsyncPacketSocket>, arrivals: mpsc::Sender<Arrival>) {
    let mut frame = [0; FRAME_LEN];
    loop {
        match socket.recv(&mut frame).await {
            // Shorter ones are no ARP; what lies beyond is padding.
            Ok(received) if received.len < FRAME_LEN => {}
            Ok(received) => {
                let arrival = Arrival { segment, packet_type: received.packet_type, frame };
                if arrivals.send(arrival).await.is_err() {
                    return;
                }
            }
            // Told once when the interface goes down; it goes on when it is up again. Netlink tells the rest.
            Err(error) => tracing::debug!(segment, %error, "receiving"),
        }
    }
}
