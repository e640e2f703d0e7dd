//! The delivery of frames among the interfaces, and the answers of kernels and of hosts outside the cluster.

use super::*;
use crate::sockets::ETHERTYPE_ARP;

impl Lan {
    /// Sends a frame from a node, whatever its speaker does.
    pub(in super::super) fn frame(&mut self, name: &'static str, frame: &[u8]) {
        self.deliver(name, ETH0, frame);
        self.work();
    }

    /// Lets the kernel of a node answer for an address that none of the interfaces known to its speaker has.
    pub(in super::super) fn answer_for(&mut self, name: &'static str, address: &str) {
        self.held.insert((name, address.parse().unwrap()));
    }

    /// Returns the interfaces that a frame reaches which a node sends by one of its own, among them others of the node.
    pub(super) fn reached(&self, from: &str, sender: u32) -> Vec<(&'static str, u32)> {
        let is_cut_off = |name: &str| self.cut_off.contains(name);
        let mut found = Vec::new();
        for (other, host) in self.hosts.iter().filter(|(other, _)| !is_cut_off(from) && !is_cut_off(other)) {
            for index in host.ports.keys().copied().filter(|index| *other != from || *index != sender) {
                if reaches(&self.hosts[from].ports, sender, &host.ports, index) {
                    found.push((*other, index));
                }
            }
        }
        found
    }

    /// Delivers a frame of ARP or a ping to all hosts or to one; kernels answer for their nodes, and strangers for the
    /// addresses that they hold.
    pub(super) fn deliver(&mut self, from: &'static str, segment: u32, frame: &[u8]) {
        if self.cut_off.contains(from) {
            return;
        }
        let now = self.moment();
        let to = MacAddr(frame[..6].try_into().unwrap());
        let all = to == MacAddr::BROADCAST;
        for (other, index) in self.reached(from, segment) {
            if !all && to != mac_of(other, index) {
                continue;
            }
            let kind = if all { PacketType::Broadcast } else { PacketType::Host };
            self.hosts.get_mut(other).unwrap().hear(now, index, kind, frame);
        }
        let powered = |(name, _): &(&'static str, u32)| *name != from && self.hosts[name].powered;
        let reachable: Vec<_> = self.reached(from, segment).into_iter().filter(powered).collect();
        let kernel = |(name, index): &(&'static str, u32)| {
            let [a, b, c] = self.hosts[name].ports[index].net;
            (mac_of(name, *index), IpAddr::from([a, b, c, own_address(name).octets()[3]]))
        };
        let mut kernels: Vec<(MacAddr, IpAddr)> = reachable.iter().map(kernel).collect();
        let suppressed = self.suppressed.iter().filter(|name| !self.cut_off.contains(*name));
        kernels.extend(suppressed.map(|name| (mac(name), own_address(name).into())));
        let is_beside_the_host = self.hosts[from].ports.get(&segment).is_some_and(|port| port.wire == WIRE);
        kernels.extend(is_beside_the_host.then_some((HOST, HOST_ADDRESS.into())));
        let held = self.held.iter().filter(|(name, _)| *name != from && self.hosts[name].powered);
        kernels.extend(held.map(|(name, address)| (mac(name), *address)));
        kernels.extend(self.strangers.iter().map(|address| (HOST, *address)));
        for (own, address) in kernels {
            if (all || to == own)
                && let Some(answer) = ask(frame, own, address, own)
            {
                self.answer(from, segment, &answer);
            }
        }
        let is_up =
            to == HOST && is_beside_the_host || reachable.iter().any(|(name, index)| mac_of(name, *index) == to);
        if let Some(pong) = pong_to(frame).filter(|_| is_up) {
            self.answer(from, segment, &pong);
        }
    }

    pub(super) fn answer(&mut self, to: &str, segment: u32, frame: &[u8]) {
        let now = self.moment();
        if self.hosts[to].ports.get(&segment).is_none_or(|port| !port.carrier || port.mute || port.deaf) {
            return;
        }
        if let Some(host) = self.hosts.get_mut(to) {
            host.hear(now, segment, PacketType::Host, frame);
        }
    }

    /// Asks for an address by broadcast, and returns the link-layer addresses in the answers.
    pub(in super::super) fn who_has(&mut self, address: &str) -> BTreeSet<MacAddr> {
        self.who_has_on(WIRE, address)
    }

    /// Asks for an address by broadcast on a wire, and returns the link-layer addresses in the answers.
    pub(in super::super) fn who_has_on(&mut self, wire: u8, address: &str) -> BTreeSet<MacAddr> {
        let address: IpAddr = address.parse().unwrap();
        let origin = crate::packet::Origin {
            mac: HOST,
            addresses: vec![format!("{HOST_ADDRESS}/24").parse().unwrap()],
            link_local: None,
        };
        let question = crate::packet::probe(address, MacAddr::BROADCAST, &origin).unwrap();
        let now = self.moment();
        let mut told = BTreeSet::new();
        for host in self.hosts.values_mut() {
            let heard = host.ports.iter().filter(|(_, port)| port.carrier && !port.deaf && port.wire == wire);
            for index in heard.map(|(index, _)| *index).collect::<Vec<_>>() {
                host.hear(now, index, PacketType::Broadcast, &question);
            }
            let Some(machine) = &mut host.coordinator else { continue };
            let outputs: Vec<Output> = std::iter::from_fn(|| machine.poll_output()).collect();
            for output in outputs {
                match output {
                    // An answer that is lost on its way does not arrive.
                    Output::Transmit { segment, purpose: Purpose::Answer(_), .. } if host.ports[&segment].mute => {}
                    Output::Transmit { frame, purpose: Purpose::Answer(_), .. } => {
                        let heard = crate::packet::read_arp(&frame, PacketType::Host, HOST);
                        let Some(Heard::Packet { packet, .. }) = heard else { panic!("{heard:?}") };
                        told.insert(packet.binding.unwrap().1);
                    }
                    other => machine.outputs.push_back(other),
                }
            }
        }
        self.work();
        told
    }
}

impl Host {
    /// Takes in a frame of ARP or a ping. The responder answers ARP, as the coordinator would, and hands it on.
    fn hear(&mut self, now: Now, index: u32, kind: PacketType, frame: &[u8]) {
        let Some(coordinator) = &mut self.coordinator else { return };
        let is_arp = frame[12..14] == ETHERTYPE_ARP.to_be_bytes();
        if !is_arp {
            coordinator.handle_frame(now, index, kind, frame, Family::Ipv4, false);
            return;
        }
        let mut stated = BTreeMap::new();
        for (segment, statement) in coordinator.state_answers() {
            let mut table = self.answers.remove(&segment).unwrap_or_default();
            table.take_in(statement);
            stated.insert(segment, table);
        }
        self.answers = stated;
        let Some(table) = self.answers.get_mut(&index) else { return };
        let expected = answer_of(&coordinator.segments[&index], now.monotonic, kind, frame);
        let Response { answer, hand_on } = table.respond(now.monotonic, kind, Family::Ipv4, frame);
        assert_eq!(answer, expected, "the responder answers as the engine does");
        let answered = answer.is_some();
        if let Some((address, frame)) = answer {
            let purpose = Purpose::Answer(address);
            coordinator.outputs.push_front(Output::Transmit { segment: index, frame, purpose });
        }
        if hand_on {
            coordinator.handle_frame(now, index, kind, frame, Family::Ipv4, answered);
        }
    }
}

/// Returns the answer that the engine of a segment gives, unless it is about to find that it was not run in time.
fn answer_of(local: &ActiveSegment, now: Duration, kind: PacketType, frame: &[u8]) -> Option<(IpAddr, Vec<u8>)> {
    let own = local.interface.segment.mac;
    let Some(Heard::Packet { packet, asker: Some(asker) }) = packet::read_arp(frame, kind, own) else { return None };
    let is_late = local.engine.answers_until().is_none_or(|until| until < now);
    if is_late || local.siblings.values().any(|mac| *mac == packet.source) {
        return None;
    }
    let address = packet.question()?;
    Some((address, asker.answer(own, local.engine.answer(address)?)))
}

/// Returns the answer of a host at `own` that holds `address` to a frame: the address is at `at`.
fn ask(frame: &[u8], own: MacAddr, address: IpAddr, at: MacAddr) -> Option<Vec<u8>> {
    let kind = if frame[..6] == own.0 { PacketType::Host } else { PacketType::Broadcast };
    let Some(Heard::Packet { packet, asker: Some(asker) }) = crate::packet::read_arp(frame, kind, own) else {
        return None;
    };
    let asker: Asker = asker;
    (packet.asks == Some(address)).then(|| asker.answer(own, at))
}
