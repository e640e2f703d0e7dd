//! The wire: one layer-2 segment, whose state follows from the present conditions.

use std::time::Duration;

use herald_protocol::wire::FrameLimit;

use crate::{
    fault::Condition,
    names::{HostIx, NodeIx},
};

/// The kind of a frame, as far as a switch distinguishes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The protocol's EtherType.
    Protocol,
    /// Everything else.
    Other,
}

/// A switch's port and the NIC behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Port {
    no_carrier: bool,
    not_forwarding: bool,
    deaf: bool,
    mute: bool,
    protocol_dropped: bool,
    cut: bool,
    mtu: Option<u32>,
}

/// Delay of one frame on an idle switch.
pub const BASE_DELAY: Duration = Duration::from_micros(150);

/// The MTU of an Ethernet link.
pub const MTU: u32 = 1500;

/// Longest time for which a delayed frame waits.
pub const REORDER_DELAY: Duration = Duration::from_millis(30);

/// The segment.
#[derive(Clone, Debug)]
pub struct Network {
    ports: Vec<Port>,
    one_way: Vec<(HostIx, HostIx)>,
    /// Probability that a frame is lost.
    pub loss: f64,
    /// Added to each frame's delay, plus up to as much again at random.
    pub delay: Duration,
    /// Probability that a frame arrives twice.
    pub duplicate: f64,
    /// Probability that a frame is delayed so that others overtake it.
    pub reorder: f64,
    /// Whether the switch answers ARP for dead hosts.
    pub proxy_arp: bool,
    /// Whether the switch answers probes in the name of the host that is asked.
    pub suppresses: bool,
    protocol_dropped: bool,
    path_mtu: Option<u32>,
}

impl Network {
    /// Returns a sound segment with this number of hosts.
    pub fn new(hosts: usize) -> Self {
        Self {
            ports: vec![Port::default(); hosts],
            one_way: Vec::new(),
            loss: 0.0,
            delay: Duration::ZERO,
            duplicate: 0.0,
            reorder: 0.0,
            proxy_arp: false,
            suppresses: false,
            protocol_dropped: false,
            path_mtu: None,
        }
    }

    /// Returns the segment under these conditions (conditions that do not concern the network are ignored).
    pub fn under<'a>(hosts: usize, conditions: impl Iterator<Item = &'a Condition>) -> Self {
        let mut net = Self::new(hosts);
        for condition in conditions {
            net.impose(condition);
        }
        net
    }

    fn impose(&mut self, condition: &Condition) {
        match condition {
            // Two losses act one after the other.
            Condition::Loss(p) => self.loss = 1.0 - (1.0 - self.loss) * (1.0 - p),
            Condition::Delay(delay) => self.delay += *delay,
            Condition::Duplicate(p) => self.duplicate = self.duplicate.max(*p),
            Condition::Reorder(p) => self.reorder = self.reorder.max(*p),
            Condition::OneWay(from, to) => self.one_way.push((*from, *to)),
            Condition::Partition(nodes) => nodes.iter().for_each(|node| self.port(*node, |p| p.cut = !p.cut)),
            Condition::NoCarrier(node) => self.port(*node, |p| p.no_carrier = true),
            Condition::PortSilent(node) => self.port(*node, |p| p.not_forwarding = true),
            Condition::Deaf(node) => self.port(*node, |p| p.deaf = true),
            Condition::Mute(node) => self.port(*node, |p| p.mute = true),
            Condition::ProxyArp => self.proxy_arp = true,
            Condition::Suppression => self.suppresses = true,
            Condition::Mtu(node, mtu) => {
                self.port(*node, |p| p.mtu = Some(p.mtu.map_or(*mtu, |other| other.min(*mtu))))
            }
            Condition::PathMtu(mtu) => self.path_mtu = Some(self.path_mtu.map_or(*mtu, |other| other.min(*mtu))),
            Condition::EtherTypeDropped(None) => self.protocol_dropped = true,
            Condition::EtherTypeDropped(Some(node)) => self.port(*node, |p| p.protocol_dropped = true),
            _ => {}
        }
    }

    fn port(&mut self, node: NodeIx, set: impl FnOnce(&mut Port)) {
        if let Some(port) = self.ports.get_mut(node) {
            set(port);
        }
    }

    /// Returns whether frames of this kind can get from one host to another (but for random loss).
    pub fn carries(&self, from: HostIx, to: HostIx, kind: Kind) -> bool {
        let (Some(a), Some(b)) = (self.ports.get(from), self.ports.get(to)) else { return false };
        let passes = |port: &Port| !port.no_carrier && !port.not_forwarding;
        passes(a)
            && passes(b)
            && a.cut == b.cut
            && !a.mute
            && !b.deaf
            && (kind == Kind::Other || !(self.protocol_dropped || a.protocol_dropped || b.protocol_dropped))
            && (self.one_way.is_empty() || !self.one_way.contains(&(from, to)))
    }

    /// Returns the MTU of a host's own link, as the host knows it.
    pub fn mtu(&self, host: HostIx) -> u32 {
        self.ports.get(host).and_then(|port| port.mtu).unwrap_or(MTU)
    }

    /// Returns whether a frame of this length (without its Ethernet header) gets from one host to another.
    pub fn fits(&self, from: HostIx, to: HostIx, length: usize) -> bool {
        let least = self.mtu(from).min(self.mtu(to)).min(self.path_mtu.unwrap_or(u32::MAX));
        u32::try_from(length).is_ok_and(|length| length <= least)
    }

    /// Returns whether every frame gets through, both ways, that either host may send by what it knows of its own link.
    pub fn fits_all(&self, a: HostIx, b: HostIx) -> bool {
        let longest = |host: HostIx| FrameLimit::of_mtu(self.mtu(host)).bytes();
        self.fits(a, b, longest(a)) && self.fits(b, a, longest(b))
    }

    /// Returns whether frames of this kind get through both ways.
    pub fn connects(&self, a: HostIx, b: HostIx, kind: Kind) -> bool {
        self.carries(a, b, kind) && self.carries(b, a, kind)
    }

    /// Returns whether the host's NIC shows a link.
    pub fn carrier(&self, host: HostIx) -> bool {
        self.ports.get(host).is_some_and(|port| !port.no_carrier)
    }

    /// Returns whether frames of this host can get anywhere at all.
    pub fn transmits(&self, host: HostIx) -> bool {
        self.ports.get(host).is_some_and(|p| !p.no_carrier && !p.not_forwarding && !p.mute)
    }

    /// Returns whether frames that the switch itself sends reach this host.
    pub fn delivers(&self, host: HostIx) -> bool {
        self.ports.get(host).is_some_and(|p| !p.no_carrier && !p.not_forwarding && !p.deaf)
    }

    /// Returns whether all receivers of a frame get it at the same moment, once.
    pub fn is_uniform(&self) -> bool {
        self.delay.is_zero() && self.duplicate == 0.0 && self.reorder == 0.0
    }

    /// Returns whether this frame is lost.
    pub fn loses(&self, rng: &mut fastrand::Rng) -> bool {
        self.loss > 0.0 && rng.f64() < self.loss
    }

    /// Returns the delays after which copies of a frame arrive at one receiver.
    pub fn delays(&self, rng: &mut fastrand::Rng) -> [Option<Duration>; 2] {
        let mut one = || {
            let mut delay = BASE_DELAY + self.delay + self.delay.mul_f64(rng.f64());
            if self.reorder > 0.0 && rng.f64() < self.reorder {
                delay += REORDER_DELAY.mul_f64(rng.f64());
            }
            delay
        };
        let first = one();
        let second = one();
        [Some(first), (self.duplicate > 0.0 && rng.f64() < self.duplicate).then_some(second)]
    }

    /// Returns the longest time that a frame can take.
    pub fn longest_delay(&self) -> Duration {
        let reorder = if self.reorder > 0.0 { REORDER_DELAY } else { Duration::ZERO };
        BASE_DELAY + self.delay * 2 + reorder
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    const OTHER: Kind = Kind::Other;
    const HELLO: Kind = Kind::Protocol;

    #[test_case(&[], OTHER => (true, true); "sound")]
    #[test_case(&[Condition::OneWay(0, 1)], OTHER => (false, true); "one way")]
    #[test_case(&[Condition::Partition(vec![0])], OTHER => (false, false); "partition")]
    #[test_case(&[Condition::Partition(vec![0, 1])], OTHER => (true, true); "on one side")]
    #[test_case(&[Condition::NoCarrier(1)], OTHER => (false, false); "cable")]
    #[test_case(&[Condition::PortSilent(0)], OTHER => (false, false); "port silent")]
    #[test_case(&[Condition::Deaf(0)], OTHER => (true, false); "deaf")]
    #[test_case(&[Condition::Mute(0)], OTHER => (false, true); "mute")]
    #[test_case(&[Condition::EtherTypeDropped(None)], HELLO => (false, false); "EtherType dropped")]
    #[test_case(&[Condition::EtherTypeDropped(Some(1))], HELLO => (false, false); "EtherType dropped at a port")]
    #[test_case(&[Condition::EtherTypeDropped(Some(2))], HELLO => (true, true); "EtherType dropped elsewhere")]
    #[test_case(&[Condition::EtherTypeDropped(None)], OTHER => (true, true); "ARP passes")]
    fn carries(conditions: &[Condition], kind: Kind) -> (bool, bool) {
        let net = Network::under(3, conditions.iter());
        (net.carries(0, 1, kind), net.carries(1, 0, kind))
    }

    #[test_case(&[] => (true, true, true); "an Ethernet")]
    #[test_case(&[Condition::Mtu(0, 576)] => (false, true, false); "long frames do not reach a short link")]
    #[test_case(&[Condition::Mtu(0, 576), Condition::Mtu(1, 576)] => (false, true, true); "both nodes know")]
    #[test_case(&[Condition::PathMtu(576)] => (false, true, false); "no node knows")]
    #[test_case(&[Condition::Mtu(0, 9000)] => (true, true, true); "jumbo frames")]
    fn lengths(conditions: &[Condition]) -> (bool, bool, bool) {
        let net = Network::under(2, conditions.iter());
        (net.fits(1, 0, 1400), net.fits(0, 1, 576), net.fits_all(0, 1))
    }

    #[test]
    fn losses_add_up() {
        let conditions = [Condition::Loss(0.5), Condition::Loss(0.5)];
        assert!((Network::under(2, conditions.iter()).loss - 0.75).abs() < 1e-9);
    }

    #[test]
    fn delays_stay_in_bounds() {
        let conditions =
            [Condition::Delay(Duration::from_millis(10)), Condition::Reorder(0.5), Condition::Duplicate(0.5)];
        let net = Network::under(2, conditions.iter());
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut twice, mut reordered) = (0, 0);
        for _ in 0..1000 {
            for delay in net.delays(&mut rng).into_iter().flatten() {
                assert!(delay >= Duration::from_millis(10) && delay <= net.longest_delay());
                reordered += usize::from(delay > Duration::from_millis(21));
                twice += 1;
            }
        }
        assert!((1300..1700).contains(&twice), "{twice}");
        assert!(reordered > 100, "{reordered}");
    }
}
