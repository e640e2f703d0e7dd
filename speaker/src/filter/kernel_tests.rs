//! Tests of the filters in the kernel: frames on real interfaces in a network namespace.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use herald_packet_socket::{MAX_FRAME, PacketSocket, SockFilter};

use crate::{
    filter,
    network_namespace::{in_a_network_namespace, ip, ip_output},
};

fn ifindex(name: &str) -> u32 {
    let output = ip_output(&format!("-oneline link show dev {name}"));
    output.split(':').next().unwrap().trim().parse().unwrap()
}

/// The EtherType of the protocol.
const ETHERTYPE: u16 = 0x88b5;

fn socket(name: &str, is_filtered: bool) -> PacketSocket {
    let index = ifindex(name);
    let filter: Vec<SockFilter> = filter::hello(index).into_iter().map(SockFilter::from).collect();
    PacketSocket::open(index, ETHERTYPE, is_filtered.then_some(&filter[..])).unwrap()
}

/// Returns whether a frame is received within a second.
fn hears(socket: &PacketSocket) -> bool {
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        match socket.recv(&mut [0; MAX_FRAME]) {
            Ok(_) => return true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("{error}"),
        }
    }
    false
}

/// Returns whether a frame waits.
fn has_heard(socket: &PacketSocket) -> bool {
    socket.recv(&mut [0; MAX_FRAME]).is_ok()
}

const PARENT: [u8; 6] = [2, 0, 0, 0, 0, 1];
const CHILD: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Makes a NIC, a wire, and a link on the NIC that `ip` makes with these words. Returns `None` if this kernel has no
/// such links, or no namespaces can be made.
fn with_child<T: Send>(child: &str, test: impl FnOnce() -> T + Send) -> Option<T> {
    in_a_network_namespace(|| {
        assert!(ip("link add nic address 02:00:00:00:00:01 type veth peer name wire"));
        assert!(ip("link set nic up") && ip("link set wire up"));
        if !ip(&format!("link add link nic name child {child}")) {
            eprintln!("not run: this kernel has no {child}");
            return None;
        }
        assert!(ip("link set child up"));
        Some(test())
    })
    .flatten()
}

/// Sends a frame to a link on a NIC and checks which sockets receive it: the kernel hands the frame to the NIC's
/// sockets as well.
fn child_frames_stay_with_the_child(frame: &[u8]) {
    let (wire, unfiltered) = (socket("wire", true), socket("nic", false));
    let (nic, child) = (socket("nic", true), socket("child", true));
    wire.send(frame).unwrap();
    // The NIC's sockets have their turn first.
    assert!(hears(&child), "the frame is the child's");
    assert!(has_heard(&unfiltered), "the kernel does hand it to the NIC's socket, which the filter is there for");
    assert!(!has_heard(&nic), "a frame of the child has reached the NIC's segment");
}

#[test]
fn frame_of_a_macvlan_is_not_heard_on_its_parent() {
    with_child("address 02:00:00:00:00:02 type macvlan mode bridge", || {
        let header = [&CHILD[..], &[2, 0, 0, 0, 0, 9], &ETHERTYPE.to_be_bytes()].concat();
        child_frames_stay_with_the_child(&[&header[..], &[0; 46]].concat());
        let (wire, nic) = (socket("wire", true), socket("nic", true));
        let header = [&PARENT[..], &[2, 0, 0, 0, 0, 9], &ETHERTYPE.to_be_bytes()].concat();
        wire.send(&[&header[..], &[0; 46]].concat()).unwrap();
        assert!(hears(&nic), "its own frames are heard");
    });
}

#[test]
fn frame_of_a_vlan_is_not_heard_on_its_parent() {
    with_child("type vlan id 100", || {
        // The VLAN has the NIC's address. TPID 0x8100, VID 100.
        let header = [&PARENT[..], &[2, 0, 0, 0, 0, 9], &[0x81, 0, 0, 100], &ETHERTYPE.to_be_bytes()].concat();
        child_frames_stay_with_the_child(&[&header[..], &[0; 46]].concat());
    });
}
