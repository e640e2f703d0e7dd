//! The wire: one layer-2 segment, whose state follows from the conditions that hold.

use std::time::Duration;

use herald_protocol::wire::FrameLimit;

use crate::{
    fault::Condition,
    names::{HostIx, NodeIx},
};

/// What a frame is, as far as a switch cares.
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

/// One frame takes this long on an idle switch.
pub const BASE_DELAY: Duration = Duration::from_micros(150);

/// The MTU of an Ethernet.
pub const MTU: u32 = 1500;

/// A frame that is held back waits at most this long.
pub const REORDER_DELAY: Duration = Duration::from_millis(30);

/// The segment.
#[derive(Clone, Debug)]
pub struct Network {
    ports: Vec<Port>,
    one_way: Vec<(HostIx, HostIx)>,
    /// Probability that a frame is lost.
    pub loss: f64,
    /// Added to each frame's delay, and up to as much again at random.
    pub delay: Duration,
    /// Probability that a frame arrives twice.
    pub duplicate: f64,
    /// Probability that a frame is held back.
    pub reorder: f64,
    /// Does the switch answer ARP for the dead?
    pub proxy_arp: bool,
    /// Does it answer probes in the name of who is asked?
    pub suppresses: bool,
    protocol_dropped: bool,
    path_mtu: Option<u32>,
}

impl Network {
    /// A sound segment of so many hosts.
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

    /// The segment under these conditions (those that are not about the network are ignored).
    pub fn under<'a>(hosts: usize, conditions: impl Iterator<Item = &'a Condition>) -> Self {
        let mut net = Self::new(hosts);
        for condition in conditions {
            net.impose(condition);
        }
        net
    }

    fn impose(&mut self, condition: &Condition) {
        match condition {
            // Two losses one after the other.
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

    /// Can frames of this kind get from one host to another (but for random loss)?
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

    /// The MTU of a host's own link, as the host knows it.
    pub fn mtu(&self, host: HostIx) -> u32 {
        self.ports.get(host).and_then(|port| port.mtu).unwrap_or(MTU)
    }

    /// Does a frame of this length (without its Ethernet header) get from one host to another?
    pub fn fits(&self, from: HostIx, to: HostIx, length: usize) -> bool {
        let least = self.mtu(from).min(self.mtu(to)).min(self.path_mtu.unwrap_or(u32::MAX));
        u32::try_from(length).is_ok_and(|length| length <= least)
    }

    /// Does every frame get through, both ways, that either may send by what it knows of its own link?
    pub fn fits_all(&self, a: HostIx, b: HostIx) -> bool {
        let longest = |host: HostIx| FrameLimit::of_mtu(self.mtu(host)).bytes();
        self.fits(a, b, longest(a)) && self.fits(b, a, longest(b))
    }

    /// Both ways?
    pub fn connects(&self, a: HostIx, b: HostIx, kind: Kind) -> bool {
        self.carries(a, b, kind) && self.carries(b, a, kind)
    }

    /// Does the host's NIC show a link?
    pub fn carrier(&self, host: HostIx) -> bool {
        self.ports.get(host).is_some_and(|port| !port.no_carrier)
    }

    /// Can frames of this host get anywhere at all?
    pub fn transmits(&self, host: HostIx) -> bool {
        self.ports.get(host).is_some_and(|p| !p.no_carrier && !p.not_forwarding && !p.mute)
    }

    /// Does what the switch itself sends get to this host?
    pub fn delivers(&self, host: HostIx) -> bool {
        self.ports.get(host).is_some_and(|p| !p.no_carrier && !p.not_forwarding && !p.deaf)
    }

    /// Do all receivers of a frame get it at the same moment, once?
    pub fn is_uniform(&self) -> bool {
        self.delay.is_zero() && self.duplicate == 0.0 && self.reorder == 0.0
    }

    /// Is this frame lost?
    pub fn loses(&self, rng: &mut fastrand::Rng) -> bool {
        self.loss > 0.0 && rng.f64() < self.loss
    }

    /// The delays after which copies of a frame arrive at one receiver.
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

    /// The longest time a frame can take.
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
    #[test_case(&[Condition::Mtu(0, 576)] => (false, true, false); "what is long does not reach a short link")]
    #[test_case(&[Condition::Mtu(0, 576), Condition::Mtu(1, 576)] => (false, true, true); "both know")]
    #[test_case(&[Condition::PathMtu(576)] => (false, true, false); "nobody knows")]
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
