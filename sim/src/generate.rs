//! Random histories.

use std::time::Duration;

use fastrand::Rng;
use herald_protocol::api_view::Shutdown;

use crate::{
    fault::{Fault, Forgery, Kind, Removal, Stop},
    history::{FOREVER, History, Shape},
    names::NodeIx,
};

impl History {
    /// Returns the history of a seed.
    pub fn generate(seed: u64, shape: Shape) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x4865_7261_6c64);
        let nodes = shape.nodes.unwrap_or_else(|| match rng.u32(0..100) {
            0..3 => 1,
            3..6 => 2,
            6..10 => 20,
            10 => 50,
            _ => rng.usize(3..=12),
        });
        let addresses = shape.addresses.unwrap_or_else(|| rng.usize(1..=50));
        let mut history = Self::quiet(seed, nodes, addresses);
        history.local_share = if rng.bool() { 0.0 } else { 0.3 };
        history.mutation = shape.mutation;
        if let Some(loss) = shape.power_off_at_loss {
            history.power_off(&mut rng, loss);
        } else if rng.bool() {
            let kind = kind(&mut rng, nodes, addresses);
            let lasts = lasts(&mut rng, &kind);
            let at = history.start() + jitter(&mut rng);
            history = history.with_single(Fault { at, lasts, kind });
        } else {
            let count = rng.usize(2..=8);
            let span = Duration::from_secs(30);
            for _ in 0..count {
                let kind = kind(&mut rng, nodes, addresses);
                let lasts = lasts(&mut rng, &kind);
                // An operator replaces one key at a time.
                if matches!(kind, Kind::KeyRotation { .. }) && history.rotations() > 0 {
                    continue;
                }
                let from_start =
                    matches!(kind, Kind::EtherTypeDropped(_) | Kind::Stranger(_) | Kind::KernelAnswers(..))
                        && rng.bool();
                let at = if from_start { Duration::ZERO } else { history.start() + span.mul_f64(rng.f64()) };
                history.faults.push(Fault { at, lasts, kind });
            }
            match rng.u32(0..16) {
                0..4 => history.cut_off_while_recreated(&mut rng),
                4 => history.classes_change_while_unheard(&mut rng),
                5 => history.short_links(&mut rng),
                6 => history.former_runs_of_the_dead(&mut rng),
                7 => {
                    history.rivals = rng.usize(1..=2);
                    // The two clusters start together, or the other one starts while this one is at work.
                    history.rivals_from = if rng.bool() { Duration::ZERO } else { history.start() };
                }
                _ => {}
            }
            history.faults.sort_by_key(|fault| fault.at);
        }
        history.firewalls = match rng.u32(0..4) {
            0 => nodes,
            1 => rng.usize(0..nodes),
            _ => 0,
        };
        let second = shape.second_interfaces.unwrap_or_else(|| match rng.u32(0..16) {
            0 if shape.power_off_at_loss.is_none() && history.rivals == 0 => rng.usize(1..=3),
            _ => 0,
        });
        if second > 0 {
            history.second_interfaces(&mut rng, second.min(nodes));
        }
        history.end = history.settled_end();
        history
    }

    /// Gives nodes second interfaces, and adds faults of these.
    fn second_interfaces(&mut self, rng: &mut Rng, count: usize) {
        self.second_interfaces = count;
        // The model does not say what these faults would mean for a second interface.
        let is_modelled = |fault: &Fault| match fault.kind {
            Kind::Renumbered { node, .. }
            | Kind::Reverted(node)
            | Kind::KernelAnswers(_, node)
            | Kind::KernelTakes(_, node) => node >= count,
            _ => true,
        };
        self.faults.retain(is_modelled);
        let is_single = self.gap.is_some() || self.faults.len() <= 1;
        if is_single && !self.faults.is_empty() && rng.bool() {
            return;
        }
        if is_single {
            let at = self.start() + jitter(rng);
            let (kind, lasts) = of_interfaces(rng, self.nodes, count);
            *self = self.clone().with_single(Fault { at, lasts, kind });
            return;
        }
        for _ in 0..rng.usize(1..=3) {
            let (kind, lasts) = of_interfaces(rng, self.nodes, count);
            let is_plugged_in_later = matches!(kind, Kind::SecondCable { .. }) && rng.bool();
            let (at, lasts) = if is_plugged_in_later {
                (Duration::ZERO, self.start() + lasts)
            } else {
                (self.start() + Duration::from_secs(30).mul_f64(rng.f64()), lasts)
            };
            self.faults.push(Fault { at, lasts, kind });
        }
        self.faults.sort_by_key(|fault| fault.at);
    }

    fn power_off(&mut self, rng: &mut Rng, loss: f64) {
        let node = rng.usize(0..self.nodes);
        let at = self.start() + jitter(rng);
        let kind = Kind::PowerOff { node, boot: Duration::from_secs(1) };
        self.faults.push(Fault { at, lasts: FOREVER, kind });
        if loss > 0.0 {
            self.faults.push(Fault { at: Duration::ZERO, lasts: FOREVER, kind: Kind::Loss(loss) });
        }
        self.local_share = 0.0;
    }

    /// A node (perhaps the owner) is cut off from the API while addresses are deleted and created again.
    fn cut_off_while_recreated(&mut self, rng: &mut Rng) {
        let at = self.start() + Duration::from_secs(20).mul_f64(rng.f64());
        let node = rng.usize(0..self.nodes);
        self.faults.push(Fault { at, lasts: Duration::from_secs(rng.u64(5..60)), kind: Kind::ApiLost(node) });
        for address in 0..self.addresses.min(5) {
            let lasts = Duration::from_millis(rng.u64(1100..8000));
            let at = at + Duration::from_secs(4).mul_f64(rng.f64());
            self.faults.push(Fault { at, lasts, kind: Kind::Recreate(address) });
        }
    }

    /// The switch drops the protocol for a while, and meanwhile nodes become unfit for the addresses that they own.
    fn classes_change_while_unheard(&mut self, rng: &mut Rng) {
        let at = if rng.bool() { Duration::ZERO } else { self.start() };
        self.faults.push(Fault { at, lasts: Duration::from_secs(60), kind: Kind::EtherTypeDropped(None) });
        for _ in 0..rng.usize(1..=3) {
            let node = rng.usize(0..self.nodes);
            let kind = match rng.u32(0..3) {
                0 => Kind::Excluded(node),
                1 => Kind::NotReady(node),
                _ => Kind::NoEndpoint(rng.usize(0..self.addresses), node),
            };
            let at = self.start() + Duration::from_secs(15).mul_f64(rng.f64());
            self.faults.push(Fault { at, lasts: Duration::from_secs(rng.u64(15..30)), kind });
        }
    }

    /// From the start on all links are short, all alike or each different.
    fn short_links(&mut self, rng: &mut Rng) {
        let (alike, all) = (rng.bool(), mtu(rng));
        for node in 0..self.nodes {
            let mtu = if alike { all } else { mtu(rng) };
            self.faults.push(Fault { at: Duration::ZERO, lasts: FOREVER, kind: Kind::Mtu(node, mtu) });
        }
    }

    /// A dead node has had several runs; all other nodes have restarted and never heard it. A forger replays what its
    /// runs sent.
    fn former_runs_of_the_dead(&mut self, rng: &mut Rng) {
        let node = rng.usize(0..self.nodes);
        let (start, short) = (self.start(), Duration::from_millis(500));
        for time in 0..3 {
            let kind = Kind::Speaker(node, Stop::Deleted);
            self.faults.push(Fault { at: Duration::from_secs(2 * time + 2), lasts: short, kind });
        }
        let kind = Kind::PowerOff { node, boot: Duration::from_secs(1) };
        self.faults.push(Fault { at: start, lasts: Duration::from_secs(40), kind });
        for other in (0..self.nodes).filter(|other| *other != node) {
            let kind = Kind::Speaker(other, Stop::Deleted);
            self.faults.push(Fault { at: start + short, lasts: short, kind });
        }
        let kind = Kind::Forged(Forgery::FormerRuns);
        self.faults.push(Fault { at: start + short, lasts: Duration::from_secs(rng.u64(5..30)), kind });
    }
}

fn jitter(rng: &mut Rng) -> Duration {
    Duration::from_secs(1).mul_f64(rng.f64())
}

/// Returns the MTU of a link: the shortest that the protocol knows, IPv6's least, one in a tunnel, one below and one
/// above the longest frame, and jumbo frames.
fn mtu(rng: &mut Rng) -> u32 {
    [576, 1280, 1390, 1450, 9000][rng.usize(0..5)]
}

/// Returns a fault of nodes, the first `with_two` of which have two interfaces, and how long it lasts.
fn of_interfaces(rng: &mut Rng, nodes: usize, with_two: usize) -> (Kind, Duration) {
    let node = rng.usize(0..with_two);
    let silent = Duration::from_secs(if rng.bool() { 30 } else { 0 });
    let kind = match rng.u32(0..10) {
        0..3 => Kind::SecondCable { node, silent },
        3 => Kind::SecondFlapping { node, period: Duration::from_millis(rng.u64(100..5000)) },
        4 => Kind::SecondUnheard(node),
        5 => Kind::SwitchesParted(part(rng, nodes)),
        6 => Kind::EtherTypeDropped(Some(node)),
        7 => Kind::Cable { node, silent },
        8 => [Kind::Deaf(node), Kind::Mute(node)][rng.usize(0..2)].clone(),
        _ => Kind::Speaker(node, Stop::Killed),
    };
    let lasts = lasts(rng, &kind);
    (kind, lasts)
}

/// Returns a fault of any kind.
fn kind(rng: &mut Rng, nodes: usize, addresses: usize) -> Kind {
    let node = rng.usize(0..nodes);
    let address = rng.usize(0..addresses);
    let stop = match rng.u32(0..6) {
        0 | 1 => Stop::Killed,
        2 => Stop::Deleted,
        3 | 4 => Stop::Asked(Shutdown::Restarting),
        _ => Stop::Asked(Shutdown::Leaving),
    };
    match rng.u32(0..57) {
        0 => Kind::Loss([0.01, 0.03, 0.1, 0.3][rng.usize(0..4)]),
        1 => Kind::Delay(Duration::from_millis([1, 5, 20, 80][rng.usize(0..4)])),
        2 => Kind::Duplicate(0.3),
        3 => Kind::Reorder(0.3),
        4 | 5 if nodes > 1 => Kind::OneWay(node, (node + rng.usize(1..nodes)) % nodes),
        4 | 5 => Kind::Mute(node),
        6..9 => Kind::Partition(part(rng, nodes)),
        9..12 => Kind::StallSpeaker(node),
        12 | 13 => Kind::PauseNode { node, clock: rng.bool() },
        14..18 => Kind::Speaker(node, stop),
        18 => Kind::RollingUpgrade { down: Duration::from_millis(800), step: Duration::from_millis(3000) },
        19..22 => Kind::PowerOff { node, boot: Duration::from_millis(rng.u64(200..3000)) },
        22 => Kind::SitePowerCycle { step: Duration::from_millis(rng.u64(0..1500)) },
        23 | 24 => Kind::Cable { node, silent: Duration::from_secs(if rng.bool() { 30 } else { 0 }) },
        25 => Kind::Deaf(node),
        26 => Kind::Mute(node),
        27 | 28 => Kind::ApiLost(node),
        29 => Kind::ApiDown,
        30 => Kind::Recreate(address),
        31 | 32 => Kind::NotReady(node),
        33 => Kind::Excluded(node),
        34 => Kind::Flapping { node, period: Duration::from_millis(rng.u64(500..5000)) },
        35 => Kind::NoEndpoint(address, node),
        36 => Kind::ProxyArp,
        40 | 41 => Kind::Stranger(address),
        42 => Kind::KernelAnswers(address, node),
        43 | 44 => Kind::KeyRotation { step: Duration::from_millis(rng.u64(0..500)) },
        37 => Kind::EtherTypeDropped(rng.bool().then_some(node)),
        45..48 => {
            let all = [Removal::MachineStays, Removal::SpeakerStops, Removal::MachineReplaced];
            Kind::NodeDeleted(node, all[rng.usize(0..3)])
        }
        48 | 49 => Kind::Renumbered { node, none_left: rng.bool() },
        50 => Kind::Mtu(node, mtu(rng)),
        51 => Kind::PathMtu(mtu(rng)),
        52 => Kind::KernelTakes(address, node),
        53 => Kind::Reverted(node),
        54 => Kind::RecreateOlder(address),
        55 => Kind::Forged(Forgery::FormerRuns),
        56 => Kind::Suppression,
        _ => Kind::Forged([Forgery::Noise, Forgery::Foreign, Forgery::Flipped, Forgery::Replay][rng.usize(0..4)]),
    }
}

fn part(rng: &mut Rng, nodes: usize) -> Vec<NodeIx> {
    let mut cut: Vec<_> = (0..nodes).collect();
    rng.shuffle(&mut cut);
    cut.truncate(rng.usize(1..=nodes.div_ceil(2)));
    cut.sort_unstable();
    cut
}

/// Returns how long a fault of this kind lasts.
fn lasts(rng: &mut Rng, kind: &Kind) -> Duration {
    let ms = |rng: &mut Rng, from: u64, to: u64| {
        // Evenly distributed over orders of magnitude: short faults meet other timers than long ones.
        let (from, to) = (from as f64, to as f64);
        Duration::from_secs_f64(from * (to / from).powf(rng.f64()) / 1000.0)
    };
    match kind {
        Kind::StallSpeaker(_) | Kind::PauseNode { .. } => ms(rng, 50, 20_000),
        Kind::Speaker(..) => ms(rng, 200, 20_000),
        Kind::RollingUpgrade { .. } => Duration::ZERO,
        Kind::PowerOff { .. } | Kind::SitePowerCycle { .. } => ms(rng, 500, 30_000),
        Kind::ApiLost(_) | Kind::ApiDown => ms(rng, 1000, 60_000),
        // Every speaker has to hear that every other accepts the key, at a loss of 30 % too.
        Kind::KeyRotation { .. } => ms(rng, 3000, 20_000),
        Kind::Recreate(_) | Kind::RecreateOlder(_) => ms(rng, 1100, 10_000),
        Kind::Stranger(_) | Kind::KernelAnswers(..) | Kind::KernelTakes(..) => ms(rng, 500, 40_000),
        Kind::NodeDeleted(..) | Kind::Renumbered { .. } | Kind::Reverted(_) => ms(rng, 500, 30_000),
        Kind::NotReady(_) | Kind::Excluded(_) | Kind::NoEndpoint(..) => ms(rng, 500, 30_000),
        Kind::Flapping { .. } | Kind::SecondFlapping { .. } => Duration::from_secs(20),
        _ => ms(rng, 100, 20_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_gives_one_history() {
        for seed in 0..200 {
            let history = History::generate(seed, Shape::default());
            assert_eq!(history, History::generate(seed, Shape::default()));
            assert!(!history.faults.is_empty() && history.end < Duration::from_secs(200), "{history}");
        }
    }

    #[test]
    fn every_kind_comes_up() {
        let mut kinds: Vec<_> = (0..2000)
            .flat_map(|seed| History::generate(seed, Shape::default()).faults)
            .map(|fault| std::mem::discriminant(&fault.kind))
            .collect();
        kinds.sort_by_key(|kind| format!("{kind:?}"));
        kinds.dedup();
        assert_eq!(kinds.len(), 40);
    }

    #[test]
    fn condition_that_begins_ends() {
        for seed in 0..200 {
            let history = History::generate(seed, Shape::default());
            for fault in &history.faults {
                let steps = fault.steps(history.nodes, history.addresses, history.seconds());
                assert_eq!(steps.iter().filter(|s| s.begins).count() * 2, steps.len(), "{fault}");
            }
        }
    }
}
