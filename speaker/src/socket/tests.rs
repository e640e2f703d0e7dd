use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::*;
use crate::filter;

/// Runs a test in a network namespace of its own, on a thread of its own: what `ip` makes there is gone with the thread.
/// Returns `None`, and says so, where the process may not make one (it needs root).
pub(crate) fn in_a_network_namespace<T: Send>(test: impl FnOnce() -> T + Send) -> Option<T> {
    let isolated = || {
        // SAFETY: takes no pointer. It concerns the calling thread alone, which runs nothing but the test.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            eprintln!("not run: no network namespace can be made: {}", io::Error::last_os_error());
            return None;
        }
        Some(test())
    };
    thread::scope(|scope| scope.spawn(isolated).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs `ip` in the namespace of the calling thread. Returns whether it succeeds: a kernel may lack a kind of link.
pub(crate) fn ip(words: &str) -> bool {
    Command::new("ip").args(words.split_whitespace()).status().unwrap().success()
}

/// The output of `ip`.
pub(crate) fn ip_output(words: &str) -> String {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

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

/// A NIC, a wire, and a link on the NIC that `ip` makes with these words. `None`: this kernel has no such links, or no
/// namespaces can be made.
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

/// What a frame to a link on a NIC looks like to the sockets of both: the kernel hands it to the NIC's as well.
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

#[test]
fn an_address_names_interface_and_ethertype() {
    let address = link_layer_address(7, 0x0806).unwrap();
    assert_eq!(i32::from(address.family()), libc::AF_PACKET);
    assert_eq!(address.len() as usize, size_of::<sockaddr_ll>());
    // sockaddr_ll: family (2), protocol in network byte order (2), index (4).
    // SAFETY: the address holds at least the 8 bytes read.
    let bytes = unsafe { std::slice::from_raw_parts(address.as_ptr().cast::<u8>(), 8) };
    assert_eq!(bytes[2..4], [0x08, 0x06]);
    assert_eq!(bytes[4..8], 7_i32.to_ne_bytes());
}

#[test]
fn an_impossible_index_is_refused() {
    assert_eq!(link_layer_address(u32::MAX, 0x0806).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}
