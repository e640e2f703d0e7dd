//! Time stamps of a benchmark: the moment an address appears in a Service's status, and the moment of its announcement
//! on the wire. Both come from the monotonic clock of this process.

use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use anyhow::Result;
use futures::{StreamExt, TryStreamExt};
use herald_packet_socket::PacketSocket;
use k8s_openapi::api::core::v1::Service;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};

use crate::testbed::TestNamespace;
use herald_lab::cluster::Host;
use herald_lab::probe::frame::Arp;

/// EtherType of ARP (RFC 826).
const ETHERTYPE_ARP: u16 = 0x0806;

/// A Service whose status shows an address.
pub(crate) struct Ingress {
    pub(crate) at: Instant,
    pub(crate) service: String,
    pub(crate) address: IpAddr,
}

/// A gratuitous ARP frame.
pub(crate) struct Announced {
    pub(crate) at: Instant,
    pub(crate) address: IpAddr,
}

/// Watches the Services of the namespace; each event that shows an address is stamped and sent.
pub(crate) fn watch_ingress(ns: &TestNamespace<'_>) -> Result<Receiver<Ingress>> {
    let (sender, receiver) = channel();
    let services: Api<Service> = Api::namespaced(ns.bed.kube(), &ns.namespace);
    ns.bed.handle().spawn(async move {
        let mut events = watcher(services, watcher::Config::default()).default_backoff().applied_objects().boxed();
        loop {
            let at_event = events.try_next().await;
            let at = Instant::now();
            // The watcher reconnects by itself, so its errors do not concern the benchmark.
            let Ok(Some(service)) = at_event else { continue };
            let name = service.name_any();
            let addresses = service.status.and_then(|s| s.load_balancer).and_then(|lb| lb.ingress).unwrap_or_default();
            let Some(address) = addresses.first().and_then(|i| i.ip.as_deref()?.parse().ok()) else { continue };
            if sender.send(Ingress { at, service: name, address }).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Listens for gratuitous ARP on a client's first interface.
pub(crate) fn listen(client: &Host) -> Result<Receiver<Announced>> {
    let (sender, receiver) = channel();
    let interface = client.interface(0)?.to_owned();
    let socket = client.inside(|| {
        let index = nix::net::if_::if_nametoindex(interface.as_str())?;
        Ok(PacketSocket::open(index, ETHERTYPE_ARP, None)?)
    })?;
    std::thread::spawn(move || stamp_announcements(&socket, &sender));
    Ok(receiver)
}

/// Stamps frames until the socket fails or, at the next announcement, the receiver is gone.
fn stamp_announcements(socket: &PacketSocket, sender: &Sender<Announced>) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;

    let mut frame = [0; 128];
    loop {
        if let Err(error) = poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)
            && error != nix::errno::Errno::EINTR
        {
            return;
        }
        let Ok(received) = socket.recv(&mut frame) else { continue };
        let at = Instant::now();
        let announced = Arp::parse(&frame[..received.len]).filter(|arp| arp.sender_ip == arp.target_ip);
        if let Some(arp) = announced
            && sender.send(Announced { at, address: arp.sender_ip.into() }).is_err()
        {
            return;
        }
    }
}
