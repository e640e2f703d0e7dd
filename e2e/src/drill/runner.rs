//! The run of one drill under observation.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use herald_crds::VirtualIP;
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};

use super::answerers::{itself, look, only};
use super::observation::{FirstAnnouncement, Observation, bystanders};
use super::{Drill, FaultLength, Owner, Phase, Setup, Target};
use crate::testbed::install;
use herald_lab::cluster::{Bystanders, Host};
use herald_lab::fault::{Fault, Faults, Link, PodFound};
use herald_lab::probe::analysis::MacSeen;
use herald_lab::probe::{Mac, Probe, ProbeSpec, Probers, Report, Running};

/// Upper bound of a step that takes Herald or Kubernetes seconds.
const SOON: Duration = Duration::from_secs(45);

/// Time for which the clients continue to watch after the fault is over: a late answer arrives within this time.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// A run in which an ordinary process of a node was stalled for longer is void. Shorter stalls are tolerable: the start
/// of a pod causes some of 30 to 140 ms on two processors, and a speaker is covered after 150 ms of silence.
const NODE_STALL: Duration = Duration::from_millis(250);

/// The facts a drill needs, collected before it begins: its faults may take the API server away.
pub struct DrillRun<'a> {
    pub(super) setup: &'a Setup<'a>,
    /// The node that has all the addresses and that the fault hits.
    pub(super) victim: String,
    pub(super) targets: Vec<Target>,
    /// The addresses that are not probed.
    pub(super) bystanders: Vec<IpAddr>,
    speakers: BTreeMap<String, PodFound>,
    /// The number of the attempt: 1 the first time.
    pub(super) attempt: u32,
}

/// The reason why the failure of a phase is void: the machine kept its programs from running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooBusy {
    nodes_stalled: Duration,
}

impl std::fmt::Display for TooBusy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VOID, the machine was too busy: nodes stalled {} ms", self.nodes_stalled.as_millis())
    }
}

/// A phase under way.
pub struct ActivePhase<'a> {
    pub(super) run: &'a DrillRun<'a>,
    watch: Running,
    traffic: Running,
    struck_ns: u64,
}

/// The result of a phase.
#[derive(Debug, Clone)]
pub struct PhaseResult {
    /// The phase.
    pub phase: Phase,
    /// The observations of the probed addresses.
    pub seen: Vec<Observation>,
    /// The first announcements of the other addresses.
    pub bystanders: Vec<FirstAnnouncement>,
    /// The longest time in which an ordinary process of a node did not run.
    pub nodes_stalled: Duration,
    /// Whether a client's witness or a node stalled too long, which voids the figures.
    pub void: bool,
    /// The two clients' reports as text.
    pub reports: String,
}

impl std::fmt::Display for PhaseResult {
    /// Writes the worst value of each figure on a line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let worst = |figure: fn(&Observation) -> f64| self.seen.iter().map(figure).fold(0.0, f64::max);
        let sum = |figure: fn(&Observation) -> usize| self.seen.iter().map(figure).sum::<usize>();
        write!(
            f,
            "{}: answers missing {:.0} ms, traffic {:.0} ms; {} lost, {} reset, {} connections failed",
            self.phase.name,
            worst(|seen| seen.answer_gap_ms),
            worst(|seen| seen.data_gap_ms),
            sum(|seen| seen.lost),
            sum(|seen| seen.resets),
            sum(|seen| seen.failed_connections),
        )?;
        if let Some(last) =
            self.bystanders.iter().map(|bystanders| bystanders.announced_after_ms).max_by(f64::total_cmp)
        {
            write!(f, "; {} more addresses announced after {last:.0} ms at most", self.bystanders.len())?;
        }
        write!(f, "; nodes stalled {} ms", self.nodes_stalled.as_millis())?;
        if self.void { f.write_str("; VOID, the machine was too busy") } else { Ok(()) }
    }
}

/// Does a drill from beginning to end, for the first time or again. The cluster is whole before and is restored
/// afterwards, also after a failure.
///
/// # Errors
/// When a step fails, a condition does not come true in time, or the cluster cannot be restored. The error has the
/// context [`TooBusy`] when a phase failed on a machine that stalled.
pub fn perform(setup: &Setup<'_>, drill: &Drill, attempt: u32) -> Result<Vec<PhaseResult>> {
    let played = DrillRun::begin(setup, drill.more_services, attempt).and_then(|run| run.through(drill));
    // Restore after a failure too: the next drill needs a whole cluster.
    let restored = setup.restore();
    match (played, restored) {
        (Ok(performances), Ok(())) => Ok(performances),
        (Err(error), Ok(())) | (Ok(_), Err(error)) => Err(error),
        (Err(error), Err(other)) => Err(error.context(format!("and the setup could not be restored: {other:#}"))),
    }
}

impl<'a> DrillRun<'a> {
    fn begin(setup: &'a Setup<'a>, more: u16, attempt: u32) -> Result<Self> {
        let victim = setup.gather(more)?;
        let targets = setup.targets()?;
        let bystanders = if more == 0 { Vec::new() } else { setup.bystanders()? };
        let speakers = setup.speakers()?.into_iter().map(|pod| (pod.node.clone(), pod)).collect();
        let run = Self { setup, victim, targets, bystanders, speakers, attempt };
        run.setup.calm(&run.addresses())?;
        run.setup.settle();
        Ok(run)
    }

    fn through(&self, drill: &Drill) -> Result<Vec<PhaseResult>> {
        (drill.prepare)(self).context("preparing")?;
        drill.phases.iter().map(|phase| self.phase(phase).with_context(|| phase.name)).collect()
    }

    fn phase(&self, phase: &Phase) -> Result<PhaseResult> {
        let (lab, addresses) = (self.setup.lab(), self.addresses());
        let before = self.look()?;
        let bystanders = Bystanders::start(lab)?;
        let spec = ProbeSpec::all(addresses);
        let watch = Probe::start(lab, self.setup.watcher(), &spec.clone().with(Probers::NEIGHBOUR))?;
        let talking = Probers { announcements: false, ..Probers::TRAFFIC };
        let traffic = Probe::start(lab, self.setup.talker(), &spec.with(talking))?;
        let mut active = ActivePhase { run: self, watch, traffic, struck_ns: 0 };
        active.steady().context("before the fault")?;

        let acted = (phase.act)(&mut active)
            .and_then(|()| active.recovered())
            .and_then(|()| self.settled(phase, &before))
            .and_then(|()| self.herd_announced(phase))
            .map(|()| std::thread::sleep(AFTERWARDS));
        let ActivePhase { watch, traffic, struck_ns, .. } = active;
        let (watch, traffic) = (watch.stop()?, traffic.stop()?);
        let nodes_stalled = bystanders.end()?;
        let reports = format!("nodes stalled {} ms at most\n{watch}{traffic}", nodes_stalled.as_millis());
        let void = watch.void || traffic.void || nodes_stalled > NODE_STALL;
        let acted = acted.with_context(|| format!("the clients' reports:\n{reports}"));
        acted.map_err(|error| if void { error.context(TooBusy { nodes_stalled }) } else { error })?;

        let seen = self.targets.iter().map(|target| Observation::of(*target, &watch, &traffic, struck_ns));
        let seen = seen.collect::<Option<Vec<_>>>().context("a report for each address")?;
        let bystanders = self.herd_seen(phase, &watch, struck_ns)?;
        let performance = PhaseResult { phase: *phase, seen, bystanders, nodes_stalled, void, reports };
        self.setup.ns.bed.progress.step(format!("  {performance}"));
        Ok(performance)
    }

    /// Waits until one node answers itself for each probed address; where the promise says that the owner moves, it
    /// must be another node than before.
    fn settled(&self, phase: &Phase, before: &BTreeMap<IpAddr, Vec<MacSeen>>) -> Result<()> {
        self.until("each address to be answered for by its owner itself", |now| {
            self.targets.iter().all(|target| {
                let Some(owner) = answerer(now, target.address, itself) else { return false };
                let moves = phase.promise(target.policy).owner == Owner::Moves;
                !moves || answerer(before, target.address, only) != Some(owner)
            })
        })
    }

    fn herd_moves(&self, phase: &Phase) -> bool {
        !self.bystanders.is_empty() && phase.cluster.owner == Owner::Moves
    }

    /// Waits until every bystander address is reported as announced by another node than the victim, if it should move:
    /// an announcement after the clients have stopped listening would not be timed.
    fn herd_announced(&self, phase: &Phase) -> Result<()> {
        if !self.herd_moves(phase) {
            return Ok(());
        }
        self.setup.wait("each of the many addresses to be announced by another node", || {
            let moved = |vip: &VirtualIP| {
                let node = vip.status.as_ref().and_then(|status| status.node.as_ref());
                let announced = vip.announced().is_some_and(|condition| condition.status == "True");
                announced && node.is_some_and(|node| *node != self.victim)
            };
            Ok(self.setup.ns.virtual_ips()?.iter().all(moved).then_some(()))
        })
    }

    /// Returns the times of the bystander addresses, and checks that each of them has moved to a living node.
    fn herd_seen(&self, phase: &Phase, watch: &Report, struck_ns: u64) -> Result<Vec<FirstAnnouncement>> {
        if !self.herd_moves(phase) {
            return Ok(Vec::new());
        }
        let old = self.mac(&self.victim)?;
        self.setup.wait("each of the many addresses to be answered for by one living node", || {
            let now = look(self.setup.lab(), self.setup.watcher(), &self.bystanders)?;
            Ok(now.values().all(|seen| only(seen).is_some_and(|mac| mac != old)).then_some(()))
        })?;
        let seen = bystanders(&self.bystanders, watch, struck_ns, old);
        if seen.len() != self.bystanders.len() {
            bail!("{} of {} addresses were announced by their new owners", seen.len(), self.bystanders.len());
        }
        Ok(seen)
    }

    // The following functions are used by the actions of drills.

    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.targets.iter().map(|target| target.address).collect()
    }

    pub(super) fn faults(&self) -> Faults<'a> {
        self.setup.faults()
    }

    pub(super) fn host(&self, node: &str) -> Result<Host> {
        self.setup.lab().host(node)
    }

    pub(super) fn mac(&self, node: &str) -> Result<Mac> {
        Ok(self.host(node)?.mac(self.setup.segment)?.into())
    }

    /// Returns the victim's link in the segment.
    pub(super) fn link(&self) -> Link {
        Link { host: self.victim.clone(), segment: self.setup.segment }
    }

    pub(super) fn power_off(&self) -> Result<()> {
        self.faults().inject(Fault::PoweredOff { host: self.victim.clone() })
    }

    /// Returns the speaker on a node as it was when the drill began.
    pub(super) fn speaker(&self, node: &str) -> Result<&PodFound> {
        self.speakers.get(node).with_context(|| format!("a speaker on {node}"))
    }

    /// Sends a signal to the speaker on the victim.
    pub(super) fn signal_speaker(&self, signal: Signal) -> Result<()> {
        self.faults().signal(self.speaker(&self.victim)?, signal)
    }

    /// Returns all speakers as they were when the drill began.
    pub(super) fn speakers(&self) -> impl Iterator<Item = &PodFound> {
        self.speakers.values()
    }

    /// Replaces the speaker's pod on a node by another one and waits until that is ready.
    pub(super) fn replace_speaker(&self, node: &str) -> Result<()> {
        let before = self.speaker(node)?;
        self.faults().delete_pod(before, None)?;
        self.setup.wait(&format!("another speaker on {node} to be ready"), || {
            Ok(self.setup.has_other_speaker(node, &before.uid)?.then_some(()))
        })?;
        install::wait_for_rollout(self.setup.lab())
    }

    /// Replaces the speakers of all nodes, one after the other.
    pub(super) fn replace_speakers(&self) -> Result<()> {
        self.setup.nodes().iter().try_for_each(|node| self.replace_speaker(node))
    }

    /// Waits until the container of the victim's speaker, which has ended, runs again and is ready.
    pub(super) fn speaker_runs_again(&self) -> Result<()> {
        let PodFound { namespace, name, .. } = self.speaker(&self.victim)?;
        let state = "-o=jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}";
        self.setup.wait(&format!("{name} to be ready again"), || {
            let said = self.setup.ns.kubectl(&["get", "pod", "-n", namespace, name, state])?;
            Ok((!said.starts_with("0 ") && said.ends_with(" true")).then_some(()))
        })
    }

    pub(super) fn look(&self) -> Result<BTreeMap<IpAddr, Vec<MacSeen>>> {
        look(self.setup.lab(), self.setup.watcher(), &self.addresses())
    }

    /// Looks at the answering MACs until `holds` returns true.
    pub(super) fn until(
        &self,
        what: &str,
        mut holds: impl FnMut(&BTreeMap<IpAddr, Vec<MacSeen>>) -> bool,
    ) -> Result<()> {
        let mut last = BTreeMap::new();
        let waited = self.setup.ns.bed.wait_for(what, SOON, || {
            last = self.look()?;
            Ok(holds(&last).then_some(()))
        });
        waited.with_context(|| format!("last answers: {last:?}"))
    }

    /// Waits until other nodes themselves answer for all addresses of the victim.
    pub(super) fn until_succeeded(&self) -> Result<()> {
        let old = self.mac(&self.victim)?;
        self.until(&format!("other nodes to answer for the addresses of {}", self.victim), |now| {
            now.values().all(|seen| itself(seen).is_some_and(|mac| mac != old))
        })
    }
}

impl ActivePhase<'_> {
    /// Marks the moment of the fault and injects it.
    pub(super) fn strike(&mut self, fault: impl FnOnce(&DrillRun<'_>) -> Result<()>) -> Result<()> {
        self.mark()?;
        fault(self.run)
    }

    /// Marks the present moment as that of the fault, when the effect of the action has become known.
    pub(super) fn mark(&mut self) -> Result<()> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("reading the clock")?;
        self.struck_ns = u64::try_from(Duration::from(now).as_nanos()).context("the monotonic clock")?;
        Ok(())
    }

    /// Waits until every solicitation and all traffic are answered again.
    pub(super) fn recovered(&mut self) -> Result<()> {
        self.watch.steady_again(SOON).context("no node answers for an address")?;
        self.traffic.steady_again(SOON).context("traffic does not flow")
    }

    /// Waits for the length of a fault that has one.
    pub(super) fn lasts(&self, short: Duration, full: Duration) {
        // The pause is the fault itself, not a wait for a condition.
        std::thread::sleep(match self.run.setup.pace {
            FaultLength::Short => short,
            FaultLength::Full => full,
        });
    }

    fn steady(&mut self) -> Result<()> {
        self.watch.steady(SOON)?;
        self.traffic.steady(SOON)
    }
}

fn answerer(
    seen: &BTreeMap<IpAddr, Vec<MacSeen>>,
    address: IpAddr,
    who: impl Fn(&[MacSeen]) -> Option<Mac>,
) -> Option<Mac> {
    who(seen.get(&address)?)
}
