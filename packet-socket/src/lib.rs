//! Packet sockets: the one crate with `unsafe`.
//!
//! A [`PacketSocket`] receives and sends whole Ethernet frames of one EtherType on one interface. A process needs the
//! capability NET_RAW for it and nothing else. A classic BPF filter, where one is given, is in place before the first
//! frame can queue: the socket is opened with protocol 0 (which receives nothing, packet(7)), gets the filter, and only
//! then is bound to the interface and the real EtherType.
//!
//! [`AsyncPacketSocket`] is the same under tokio.

#![allow(
    unsafe_code,
    reason = "sockaddr_ll, PACKET_ADD_MEMBERSHIP and tokio's AsyncFd have no safe interface in socket2 and tokio"
)]

use std::{
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use libc::{c_int, c_void, packet_mreq, sockaddr_ll, socklen_t};
pub use socket2::SockFilter;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

/// `SO_PRIORITY` of every frame that Herald sends: a queueing discipline that looks at it sends control traffic ahead
/// of bulk. 6 is the highest priority that a process without NET_ADMIN may set (socket(7)).
const PRIORITY: u32 = 6;

/// Room for the largest frame of a 9,000-byte MTU.
pub const MAX_FRAME: usize = 9216;

/// The addressee of a received frame, as the kernel sees it (`sll_pkttype`, packet(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketType {
    /// The frame was sent to this host.
    Host,
    /// The frame was broadcast.
    Broadcast,
    /// The frame was sent to a multicast group.
    Multicast,
    /// The frame was sent to another host; this host receives it because the interface is promiscuous or a bridge port.
    OtherHost,
    /// This host sent the frame, and the kernel looped it back.
    Outgoing,
    /// A `sll_pkttype` that this list does not know.
    Unknown(u8),
}

impl From<u8> for PacketType {
    fn from(kind: u8) -> Self {
        match kind {
            libc::PACKET_HOST => Self::Host,
            libc::PACKET_BROADCAST => Self::Broadcast,
            libc::PACKET_MULTICAST => Self::Multicast,
            libc::PACKET_OTHERHOST => Self::OtherHost,
            libc::PACKET_OUTGOING => Self::Outgoing,
            other => Self::Unknown(other),
        }
    }
}

/// The description of a received frame, which lies in the first `len` bytes of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Length of the frame in bytes, from its destination address on. A frame longer than the buffer is cut to the
    /// buffer.
    pub len: usize,
    /// The addressee of the frame.
    pub packet_type: PacketType,
}

/// A non-blocking AF_PACKET socket for one EtherType on one interface.
#[derive(Debug)]
pub struct PacketSocket {
    socket: Socket,
    ifindex: u32,
}

impl PacketSocket {
    /// Opens a socket that receives the frames of `ethertype` (host byte order, e.g. 0x0806) on the interface that the
    /// filter lets through; without a filter, it receives all of them.
    ///
    /// # Errors
    /// If the system refuses: EPERM without NET_RAW, ENODEV where the interface is gone, EINVAL for a filter that the
    /// kernel refuses.
    pub fn open(ifindex: u32, ethertype: u16, filter: Option<&[SockFilter]>) -> io::Result<Self> {
        // Protocol 0: nothing is received before `bind`. socket2 adds SOCK_CLOEXEC.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        socket.set_priority(PRIORITY)?;
        if let Some(filter) = filter {
            attach(&socket, filter)?;
        }
        socket.bind(&link_layer_address(ifindex, ethertype)?)?;
        Ok(Self { socket, ifindex })
    }

    /// Replaces the filter in place: the socket has a filter at every moment.
    ///
    /// # Errors
    /// If the kernel refuses the filter (EINVAL); the old filter then stays.
    pub fn set_filter(&self, filter: &[SockFilter]) -> io::Result<()> {
        attach(&self.socket, filter)
    }

    /// Asks for room for `bytes` of received frames. The kernel first limits the value to net.core.rmem_max, which is
    /// not an error, and then doubles it for its own structures (socket(7)).
    ///
    /// # Errors
    /// If the system refuses the option.
    pub fn set_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        self.socket.set_recv_buffer_size(bytes)
    }

    /// Receives one frame.
    ///
    /// # Errors
    /// If no frame waits (`WouldBlock`), or once after the interface went down (ENETDOWN; the socket lives on).
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut from = MaybeUninit::<sockaddr_ll>::zeroed();
        let mut from_len = size_of::<sockaddr_ll>() as socklen_t;
        // SAFETY: the descriptor is open for as long as `self.socket` lives; `buffer` is valid for writes of
        // `buffer.len()` bytes and `from` for `from_len` bytes; the kernel writes no more than these lengths.
        let len = unsafe {
            libc::recvfrom(
                self.socket.as_raw_fd(),
                buffer.as_mut_ptr().cast::<c_void>(),
                buffer.len(),
                0,
                from.as_mut_ptr().cast(),
                &raw mut from_len,
            )
        };
        let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: all-zero bytes are a valid `sockaddr_ll`, which holds integers only, and the kernel has written
        // over some or all of them.
        let from = unsafe { from.assume_init() };
        Ok(Received { len, packet_type: from.sll_pkttype.into() })
    }

    /// Sends one whole frame, Ethernet header included.
    ///
    /// # Errors
    /// If the queue is full (`WouldBlock` or ENOBUFS), the interface is down (ENETDOWN), or the frame exceeds the
    /// interface's MTU (EMSGSIZE).
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // A packet socket sends a frame whole or not at all.
        match self.socket.send(frame) {
            // The kernel keeps ENETDOWN as a pending error of the socket and reports it with the next call, even if the
            // interface is up again (`packet_notifier`, net/packet/af_packet.c). The kernel reports the error once, so
            // a second call reports the present state.
            Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => self.socket.send(frame),
            sent => sent,
        }
        .map(|_| ())
    }

    /// Receives frames sent to a group too, until the socket is closed.
    ///
    /// # Errors
    /// If the system refuses, e.g. with ENODEV where the interface is gone.
    pub fn join_multicast(&self, group: [u8; 6]) -> io::Result<()> {
        let mut address = [0; 8];
        address[..6].copy_from_slice(&group);
        self.add_membership(libc::PACKET_MR_MULTICAST, 6, address)
    }

    /// Lets the interface receive all frames, including those to other hosts, until the socket is closed. The kernel
    /// counts the requests for promiscuous mode, so another program's request stays in force (packet(7)).
    ///
    /// # Errors
    /// If the system refuses, e.g. with ENODEV where the interface is gone.
    pub fn receive_all(&self) -> io::Result<()> {
        self.add_membership(libc::PACKET_MR_PROMISC, 0, [0; 8])
    }

    fn add_membership(&self, kind: c_int, length: u16, address: [u8; 8]) -> io::Result<()> {
        let request = packet_mreq {
            mr_ifindex: index(self.ifindex)?,
            mr_type: kind as u16,
            mr_alen: length,
            mr_address: address,
        };
        // SAFETY: the descriptor is open; `request` is a live `packet_mreq`, the type this option takes, and the
        // length given is its size.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_ADD_MEMBERSHIP,
                (&raw const request).cast::<c_void>(),
                size_of::<packet_mreq>() as socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A [`PacketSocket`] registered with the current tokio runtime.
#[derive(Debug)]
pub struct AsyncPacketSocket(AsyncFd<PacketSocket>);

impl AsyncPacketSocket {
    /// Registers the socket for reading.
    ///
    /// # Errors
    /// If epoll refuses the descriptor.
    ///
    /// # Panics
    /// If no tokio runtime with an enabled IO driver is current.
    pub fn new(socket: PacketSocket) -> io::Result<Self> {
        // SAFETY: `PacketSocket` owns its descriptor, always returns the same one, has no method that closes or
        // replaces it, and nothing here calls `AsyncFd::get_mut`.
        let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        registered.map(Self).map_err(Into::into)
    }

    /// Waits for one frame. The call is cancel safe: it receives a frame in its last step or not at all.
    ///
    /// # Errors
    /// If [`PacketSocket::recv`] fails with an error other than `WouldBlock`.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.0.async_io(Interest::READABLE, |socket| socket.recv(buffer)).await
    }

    /// Returns the socket, to send and to set the filter: both return at once.
    pub fn get_ref(&self) -> &PacketSocket {
        self.0.get_ref()
    }
}

fn attach(socket: &Socket, filter: &[SockFilter]) -> io::Result<()> {
    // socket2 casts the length to u16; the kernel takes at most BPF_MAXINSNS = 4096.
    if filter.is_empty() || filter.len() > 4096 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a classic BPF filter has 1 to 4096 instructions, not {}", filter.len()),
        ));
    }
    socket.attach_filter(filter)
}

fn index(ifindex: u32) -> io::Result<c_int> {
    c_int::try_from(ifindex)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{ifindex} is not an interface index")))
}

fn link_layer_address(ifindex: u32, ethertype: u16) -> io::Result<SockAddr> {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the system's socket address types, so `sockaddr_storage` has room for it and is
    // aligned for it; all-zero bytes are a valid value.
    let address = unsafe { storage.view_as::<sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = index(ifindex)?;
    // SAFETY: the first `size_of::<sockaddr_ll>()` bytes were initialised above with a family and its address.
    Ok(unsafe { SockAddr::new(storage, size_of::<sockaddr_ll>() as socklen_t) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_names_interface_and_ethertype() {
        let address = link_layer_address(7, 0x0806).unwrap();
        assert_eq!(i32::from(address.family()), libc::AF_PACKET);
        assert_eq!(address.len() as usize, size_of::<sockaddr_ll>());
        // The layout of sockaddr_ll: family (2 bytes), protocol in network byte order (2), index (4). SAFETY: the
        // address holds at least the 8 bytes read.
        let bytes = unsafe { std::slice::from_raw_parts(address.as_ptr().cast::<u8>(), 8) };
        assert_eq!(bytes[2..4], [0x08, 0x06]);
        assert_eq!(bytes[4..8], 7_i32.to_ne_bytes());
    }

    #[test]
    fn index_beyond_the_kernels_range_is_refused() {
        assert_eq!(link_layer_address(u32::MAX, 0x0806).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
