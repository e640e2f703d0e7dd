//! A history: a cluster and what befalls it. Made from a seed, printed, replayed, shrunk.

use std::{fmt, time::Duration};

use fastrand::Rng;
use herald_segment::{
    mutation::Mutation,
    timers::{CONFLICT_RETRY, Timers},
    view::Shutdown,
};

use crate::{
    fault::{Fault, Forgery, Kind, Stop},
    names::{AddrIx, NodeIx},
};

/// A cluster and what befalls it.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// Everything random comes from it.
    pub seed: u64,
    /// Number of nodes.
    pub nodes: usize,
    /// Number of addresses.
    pub addresses: usize,
    /// Number of clients.
    pub clients: usize,
    /// Flows per client.
    pub flows: usize,
    /// This share of the addresses is `externalTrafficPolicy: Local`.
    pub local_share: f64,
    /// What befalls it.
    pub faults: Vec<Fault>,
    /// When it is over.
    pub end: Duration,
    /// The longest time for which an address may go unanswered during a history of one fault; `None`: only what holds
    /// after the faults is checked.
    pub gap: Option<Duration>,
    /// Timers of all nodes.
    pub timers: Timers,
    /// The rule that is broken.
    pub mutation: Option<Mutation>,
}

/// What the command line fixes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    /// Number of nodes.
    pub nodes: Option<usize>,
    /// Number of addresses.
    pub addresses: Option<usize>,
    /// Only power-offs, for measuring; each frame is lost with this probability.
    pub power_off_at_loss: Option<f64>,
    /// The rule that is broken.
    pub mutation: Option<Mutation>,
}

/// A fault that lasts this long does not end.
pub const FOREVER: Duration = Duration::from_secs(1_000_000);

/// One fault begins when all has settled.
const FIRST: Duration = Duration::from_secs(8);

/// What a history may still need after its last step until all is as it should be.
///
/// In the worst order: a stalled speaker catches up (2 intervals) or a started one ends its join barrier (max(1 s, 10
/// intervals)); then it finds that a peer is dead (3 intervals, 3 probes 50 ms apart after at least 1.5); then three
/// candidates that cannot claim are passed over (3 x 2 intervals); an address is probed for the first time (0.3 s);
/// watches and status writes lag (0.2 s). That is 1.85 s and 21 intervals at most; the rest is air.
pub fn settle(interval: Duration) -> Duration {
    Duration::from_secs(3) + interval * 24
}

/// An address that a stranger held is claimed this long after the stranger has gone, at the latest: the enquiry is
/// repeated after [`CONFLICT_RETRY`], takes 0.3 s, and each candidate asks in its turn.
pub const RETRY: Duration = CONFLICT_RETRY.saturating_add(Duration::from_secs(3));

/// After it has settled, a history goes on this long: clients re-solicit, and nothing may change any more.
const QUIET: Duration = Duration::from_secs(12);

impl History {
    /// The history of a seed.
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
            if rng.u32(0..4) == 0 {
                history.cut_off_while_recreated(&mut rng);
            }
            history.faults.sort_by_key(|fault| fault.at);
        }
        history.end = history.settled_end();
        history
    }

    /// A history in which nothing happens.
    pub fn quiet(seed: u64, nodes: usize, addresses: usize) -> Self {
        let mut history = Self {
            seed,
            nodes,
            addresses,
            clients: 3,
            flows: addresses.min(4),
            local_share: 0.0,
            faults: Vec::new(),
            end: Duration::ZERO,
            gap: None,
            timers: Timers::default(),
            mutation: None,
        };
        history.end = history.settled_end();
        history
    }

    /// This history, with one fault and the bound that holds for it.
    pub fn with_single(mut self, fault: Fault) -> Self {
        self.gap = gap(&fault.kind, self.interval(), self.nodes);
        self.faults = vec![fault];
        self.end = self.settled_end();
        self
    }

    /// This history with other faults.
    pub fn with_faults(mut self, faults: Vec<Fault>) -> Self {
        self.faults = faults;
        self.gap = None;
        self.end = self.settled_end();
        self
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

    /// A node (perhaps the owner) is cut from the API while addresses are deleted and created anew.
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

    /// The interval of its speakers while all are there.
    pub fn interval(&self) -> Duration {
        self.timers.interval(self.nodes.saturating_sub(1))
    }

    /// What it takes to settle.
    pub fn settle(&self) -> Duration {
        settle(self.interval())
    }

    /// When the first fault may come.
    pub fn start(&self) -> Duration {
        FIRST.max(self.settle() + Duration::from_secs(1))
    }

    /// When it may end: all is settled after the last step within reach, and then some time has passed.
    pub fn settled_end(&self) -> Duration {
        let horizon = FOREVER / 2;
        let steps = self.faults.iter().flat_map(|fault| fault.steps(self.nodes, self.addresses));
        // What lasts to the end of the history does not prolong it.
        let last = steps.map(|step| step.at).filter(|at| *at < horizon).max().unwrap_or_default();
        let longest = self.start() + Duration::from_secs(120);
        let last =
            if self.faults.iter().any(|f| f.lasts > Duration::from_secs(500)) { last.min(longest) } else { last };
        // What somebody held is asked for again only when the retry comes.
        let held = |fault: &Fault| matches!(fault.kind, Kind::Stranger(_) | Kind::KernelAnswers(..));
        let retry = if self.faults.iter().any(held) { RETRY } else { Duration::ZERO };
        last.max(self.start()) + self.settle() + retry + QUIET
    }

    /// How often the key is replaced.
    pub fn rotations(&self) -> usize {
        self.faults.iter().filter(|fault| matches!(fault.kind, Kind::KeyRotation { .. })).count()
    }

    /// Is the address Local, and if so, has it an endpoint on each node?
    pub fn endpoints(&self, address: AddrIx) -> Option<Vec<bool>> {
        let mut rng = Rng::with_seed(self.seed.wrapping_mul(31).wrapping_add(address as u64));
        let local = rng.f64() < self.local_share;
        // The first always has one: an address nobody may announce shows nothing.
        local.then(|| (0..self.nodes).map(|node| node == address % self.nodes || rng.u32(0..3) == 0).collect())
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {} nodes, {} addresses ({:.0} % Local), {} clients, until {:.1} s{}",
            self.seed,
            self.nodes,
            self.addresses,
            self.local_share * 100.0,
            self.clients,
            self.end.as_secs_f64(),
            self.mutation.map_or_else(String::new, |mutation| format!(", broken on purpose: {mutation:?}"))
        )?;
        self.faults.iter().try_for_each(|fault| writeln!(f, "  {fault}"))
    }
}

fn jitter(rng: &mut Rng) -> Duration {
    Duration::from_secs(1).mul_f64(rng.f64())
}

/// A fault of any kind.
fn kind(rng: &mut Rng, nodes: usize, addresses: usize) -> Kind {
    let node = rng.usize(0..nodes);
    let address = rng.usize(0..addresses);
    let stop = match rng.u32(0..6) {
        0 | 1 => Stop::Killed,
        2 => Stop::Deleted,
        3 | 4 => Stop::Asked(Shutdown::Restarting),
        _ => Stop::Asked(Shutdown::Leaving),
    };
    match rng.u32(0..45) {
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

/// How long a fault of this kind lasts.
fn lasts(rng: &mut Rng, kind: &Kind) -> Duration {
    let ms = |rng: &mut Rng, from: u64, to: u64| {
        // Even over orders of magnitude: short ones meet other timers than long ones.
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
        Kind::Recreate(_) => ms(rng, 1100, 10_000),
        Kind::Stranger(_) | Kind::KernelAnswers(..) => ms(rng, 500, 40_000),
        Kind::NotReady(_) | Kind::Excluded(_) | Kind::NoEndpoint(..) => ms(rng, 500, 30_000),
        Kind::Flapping { .. } => Duration::from_secs(20),
        _ => ms(rng, 100, 20_000),
    }
}

/// How long an address may go unanswered because of one fault of this kind; `None`: it depends on which clients, which
/// paths and which luck.
pub fn gap(kind: &Kind, interval: Duration, nodes: usize) -> Option<Duration> {
    let margin = Duration::from_millis(30);
    // P1: cover begins one and a half intervals after the last Hello; the frame and the timer take the margin.
    let cover = interval * 3 / 2 + margin;
    // P2. Above 100 nodes: three intervals, then at most three probes, then the first candidate steps in.
    let takeover =
        if nodes <= 100 { Duration::from_millis(500) } else { interval * 3 + Duration::from_millis(150) + margin };
    match kind {
        // With nobody to cover or to succeed, an address is answered again when its node is.
        Kind::StallSpeaker(_)
        | Kind::Speaker(..)
        | Kind::RollingUpgrade { .. }
        | Kind::PauseNode { .. }
        | Kind::PowerOff { .. }
        | Kind::Cable { .. }
        | Kind::Mute(_)
        | Kind::Deaf(_)
            if nodes == 1 =>
        {
            None
        }
        Kind::StallSpeaker(_) | Kind::Speaker(_, Stop::Killed | Stop::Deleted) => Some(cover),
        Kind::Speaker(_, Stop::Asked(_)) | Kind::RollingUpgrade { .. } => Some(margin),
        Kind::PauseNode { .. } | Kind::PowerOff { .. } | Kind::Cable { .. } | Kind::Mute(_) => Some(takeover),
        // Three intervals until it knows, one until it says so.
        Kind::Deaf(_) => Some(takeover + interval),
        // Watches, the first-claim probe (0.3 s), and ranks that pass.
        Kind::Recreate(_) => Some(Duration::from_millis(600) + interval * 6),
        Kind::Duplicate(_)
        | Kind::ApiLost(_)
        | Kind::ApiDown
        | Kind::NotReady(_)
        | Kind::Excluded(_)
        | Kind::Flapping { .. }
        | Kind::ProxyArp
        | Kind::Stranger(_)
        | Kind::KernelAnswers(..)
        | Kind::KeyRotation { .. }
        | Kind::Forged(_) => Some(margin),
        // The endpoint is gone at once, and the watch is late.
        Kind::NoEndpoint(..) => None,
        Kind::Loss(_)
        | Kind::Delay(_)
        | Kind::Reorder(_)
        | Kind::OneWay(..)
        | Kind::Partition(_)
        | Kind::SitePowerCycle { .. }
        | Kind::EtherTypeDropped(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_history() {
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
        assert_eq!(kinds.len(), 28);
    }

    #[test]
    fn what_is_begun_is_ended() {
        for seed in 0..200 {
            let history = History::generate(seed, Shape::default());
            for fault in &history.faults {
                let steps = fault.steps(history.nodes, history.addresses);
                assert_eq!(steps.iter().filter(|s| s.begins).count() * 2, steps.len(), "{fault}");
            }
        }
    }
}
