//! One other speaker of the segment: its identity, when it was heard, and the state of its kernel.

use std::{cmp::Reverse, collections::VecDeque, net::IpAddr, time::Duration};

use crate::{
    host_probe::{HostProbe, Reports, Silence},
    incarnation::{Noted, PeerIncarnation, Pending},
    mac::MacAddr,
    node::{Incarnation, NodeId, NodeName},
    timers,
    wire::{Heard, Hello, Kernel, KeyId, Sender, State},
};

/// Number of echoes to a run that has just been found to hear this node: one may be lost. A further loss costs the run
/// only the end of its join barrier. A run that has not got that far is echoed in answer to each of its Hellos.
const ECHOES: u8 = 2;

/// Number of earlier runs of a peer that are remembered: a speaker that restarts in a loop has no more within the
/// minutes for which a frame is worth replaying.
const OLD_RUNS: usize = 8;

/// A node on the segment that is not this one.
#[derive(Debug)]
pub(crate) struct Peer {
    /// The run that is heard both ways.
    pub(crate) run: Option<PeerIncarnation>,
    /// A run that has not yet shown that it hears this node.
    pub(crate) pending: Option<Box<Pending>>,
    presence: Presence,
    /// When another node last heard it: at a start all echo all, and this is written as often as `run`.
    reported: Option<Duration>,
    /// Hellos in which its run is still to be echoed.
    pub(crate) echoes: u8,
    /// Whether the next Hello has to say when its run was last heard: a peer suspects it, and this node hears it or has
    /// found its kernel silent; or it repeats what it said long ago.
    pub(crate) attest: bool,
    /// The part that a Hello without news does not touch.
    pub(crate) rest: Box<Rest>,
}

/// State that matters while a peer comes, is silent or goes.
#[derive(Debug)]
pub(crate) struct Rest {
    /// Its name, once a Hello or the API has given it.
    pub(crate) name: NodeName,
    /// The link-layer and IP address that the API lists for it.
    pub(crate) station: Option<(MacAddr, IpAddr)>,
    /// The link-layer address of the machine that had its name before, until the present machine is heard.
    former_mac: Option<MacAddr>,
    /// Since when it has not been heard, whatever its presence since; `None`: it is heard, or its run never was.
    pub(crate) absent_since: Option<Duration>,
    /// Since when some run of it has been pending.
    pub(crate) pending_since: Option<Duration>,
    /// A run before the one that counts, which shows that it hears this node and is refused while the later one speaks.
    pub(crate) refused: Option<Box<Refused>>,
    /// Earlier runs of it and the highest sequence of each, the latest last: a sequence that is not higher is replayed.
    old_runs: VecDeque<(Incarnation, u64)>,
    /// Probes of its kernel.
    pub(crate) kernel: HostProbe,
    /// The reports of others about it.
    pub(crate) reports: Reports,
    /// The key of its last frame; noted while there are several keys to choose from.
    pub(crate) signed_with: Option<KeyId>,
}

/// The last Hello of a run that is refused.
#[derive(Debug)]
pub(crate) struct Refused {
    /// When it came.
    pub(crate) heard: Duration,
    /// The run that sent it.
    pub(crate) sender: Sender,
    /// Its content.
    pub(crate) hello: Hello,
}

/// The run of a peer that an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The run that counts, if there is one.
    Counted,
    /// The run that has not shown yet that it hears this node.
    Pending,
}

/// An entry about a peer that the next Hello has to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mention {
    /// The run.
    pub(crate) which: Which,
    /// Whether the peer is silent; others are to say whether they hear it.
    pub(crate) suspect: bool,
    /// Whether its claims are not known.
    pub(crate) wants_claims: bool,
    /// Hellos in which it is still to be echoed.
    pub(crate) echoes: u8,
    /// The peer.
    pub(crate) node: NodeId,
}

impl Mention {
    /// Returns the order of entries: suspicions and requests cannot wait, and every peer is echoed once before any is
    /// echoed a second time.
    pub(crate) fn place(self) -> (bool, bool, Reverse<u8>, NodeId) {
        (!self.suspect, !self.wants_claims, Reverse(self.echoes), self.node)
    }
}

/// The presence of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Never heard both ways, or dead and forgotten.
    Unheard,
    /// Heard.
    Speaking,
    /// It has not been heard for one and a half intervals, or it announced that it restarts.
    Silent {
        /// Since when.
        since: Duration,
        /// Whether it has been reported that the cover lasts long.
        reported: bool,
    },
    /// It is silent, and so is its kernel.
    Dead,
}

impl Rest {
    /// A run ceases to count.
    pub(crate) fn remember_run(&mut self, incarnation: Incarnation, sequence: u64) {
        self.old_runs.retain(|(known, _)| *known != incarnation);
        self.old_runs.push_back((incarnation, sequence));
        if self.old_runs.len() > OLD_RUNS {
            self.old_runs.pop_front();
        }
    }
}

impl Peer {
    /// Returns a peer that was never heard.
    pub(crate) fn new(name: NodeName) -> Self {
        let rest = Rest {
            name,
            station: None,
            former_mac: None,
            absent_since: None,
            pending_since: None,
            refused: None,
            old_runs: VecDeque::new(),
            kernel: HostProbe::default(),
            reports: Reports::default(),
            signed_with: None,
        };
        Self {
            run: None,
            pending: None,
            presence: Presence::Unheard,
            reported: None,
            echoes: 0,
            attest: false,
            rest: Box::new(rest),
        }
    }

    /// Another node heard it.
    pub(crate) fn heard_elsewhere(&mut self, at: Duration) {
        self.reported = self.reported.max(Some(at));
    }

    /// The reports of others cease to count: it is heard here.
    pub(crate) fn forget_reports(&mut self) {
        self.reported = None;
        self.rest.reports = Reports::default();
    }

    /// The machine of its last run is gone for good.
    pub(crate) fn forget_run(&mut self) {
        if let Some(run) = self.run.take() {
            self.rest.former_mac = Some(run.said().mac);
            self.rest.remember_run(run.incarnation, run.sequence());
        }
        self.rest.absent_since = None;
        self.rest.kernel.stop();
        self.forget_reports();
    }

    /// Takes the last Hello of a run that was refused, if that run is not missed yet.
    pub(crate) fn take_refused(&mut self, now: Duration) -> Option<Box<Refused>> {
        self.rest.refused.take().filter(|it| now < it.heard + timers::silent_after(it.hello.interval))
    }

    /// From now on another run counts, which was last heard at `heard`.
    pub(crate) fn change_run(&mut self, heard: Duration, sender: Sender, hello: &Hello) {
        let before = self.run.as_ref().map(|run| (run.incarnation, run.sequence()));
        self.run = Some(PeerIncarnation::new(heard, sender, hello, before.map(|(incarnation, _)| incarnation)));
        if let Some((incarnation, sequence)) = before {
            self.rest.remember_run(incarnation, sequence);
        }
        self.rest.refused = None;
        self.rest.name = hello.name.clone();
        // The new run does not know what the old one knew, and may have claimed an address that this node has owned for
        // long.
        self.rest.absent_since = None;
        self.echo_well();
    }

    /// Takes in a Hello of a run that has not shown that it hears this node: it is to be told that it is heard.
    pub(crate) fn note_pending(&mut self, now: Duration, sender: Sender, hello: &Hello) -> Noted {
        let earlier = self.run.as_ref().and_then(|run| run.said().before);
        if self.speaks() && earlier == Some(sender.incarnation) {
            return Noted::Replayed;
        }
        let is_old = |(incarnation, sequence): &(Incarnation, u64)| {
            *incarnation == sender.incarnation && sender.sequence <= *sequence
        };
        if self.rest.old_runs.iter().any(is_old) {
            return Noted::Replayed;
        }
        let noted = match &mut self.pending {
            Some(pending) if pending.incarnation == sender.incarnation => {
                if sender.sequence <= pending.sequence {
                    return Noted::Replayed;
                }
                pending.update(now, sender.sequence, hello)
            }
            pending => {
                if let Some(before) = pending.replace(Box::new(Pending::new(now, sender, hello))) {
                    self.rest.remember_run(before.incarnation, before.sequence);
                }
                Noted::ReadsOther
            }
        };
        self.rest.pending_since.get_or_insert(now);
        noted
    }

    /// Returns whether a run of it is heard that does not count, so that it is alive. Such a sign counts for no longer
    /// than `patience`: the run may be an old one, replayed.
    pub(crate) fn shows_life(&self, now: Duration, patience: Duration) -> bool {
        self.pending.is_some() && self.rest.pending_since.is_some_and(|since| now < since + patience)
    }

    /// Returns its run, if it is heard.
    pub(crate) fn speaking_run(&mut self) -> Option<&mut PeerIncarnation> {
        if self.speaks() { self.run.as_mut() } else { None }
    }

    /// Sets the presence. Call through [`Peers`](crate::peers::Peers), which keeps the counters.
    pub(crate) fn stand(&mut self, presence: Presence) {
        self.presence = presence;
    }

    /// Returns when the pending run ceases to be a sign of it.
    pub(crate) fn pending_until(&self) -> Option<Duration> {
        self.pending.as_ref().map(|pending| pending.heard + timers::lost_after(pending.interval))
    }

    /// Its run is to be told that it is heard.
    pub(crate) fn echo(&mut self) {
        self.echoes = self.echoes.max(1);
    }

    /// Its run is to be told that it counts.
    pub(crate) fn echo_well(&mut self) {
        self.echoes = ECHOES;
    }

    /// Returns its presence.
    pub(crate) fn presence(&self) -> Presence {
        self.presence
    }

    /// Returns whether it is heard.
    pub(crate) fn speaks(&self) -> bool {
        self.presence == Presence::Speaking
    }

    /// Returns whether it is heard, or heard for the first time and has yet to show that it hears this node.
    pub(crate) fn is_present(&self) -> bool {
        self.speaks() || self.presence == Presence::Unheard && self.pending.is_some()
    }

    /// Returns since when it is silent.
    pub(crate) fn silent_since(&self) -> Option<Duration> {
        match self.presence {
            Presence::Silent { since, .. } => Some(since),
            _ => None,
        }
    }

    /// Returns whether it could claim an address now.
    pub(crate) fn takes_part(&self) -> bool {
        self.speaks() && self.takes_part_when_heard()
    }

    /// Returns whether it could claim an address when it was last heard.
    pub(crate) fn takes_part_when_heard(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.state == State::Active && !run.deaf)
    }

    /// Returns whether its speaker has restarted and does not answer yet.
    pub(crate) fn listens(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.state == State::Listening)
    }

    /// Returns why its kernel counts as silent, if it does. The findings of this node go before the reports of others.
    /// `controls`: when another host last answered a ping of this node.
    pub(crate) fn kernel_silence(&self, now: Duration, controls: Option<Duration>) -> Option<Silence> {
        let Rest { kernel, reports, .. } = &*self.rest;
        let pings_itself = kernel.is_watched() && kernel.answers_pings();
        let told = if pings_itself { None } else { reports.silence() };
        kernel.silence(now, reports, controls).or(told)
    }

    /// Returns whether it was never heard both ways, but the API lists it or it is heard one way, and its kernel is not
    /// silent.
    pub(crate) fn may_be_there(&self) -> bool {
        self.presence == Presence::Unheard && (self.rest.station.is_some() || self.pending.is_some())
    }

    /// Returns whether it was never heard and its kernel is asked for a sign of life.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.presence == Presence::Unheard && self.rest.kernel.is_watched()
    }

    /// Returns whether it has not been heard for so long that it need not be remembered.
    pub(crate) fn is_forgettable(&self, now: Duration, after: Duration) -> bool {
        self.rest.station.is_none() && self.pending.is_none() && self.last_sign().is_none_or(|sign| now >= sign + after)
    }

    /// Time during which this node could not hear does not count as silence of the peer.
    pub(crate) fn postpone(&mut self, now: Duration) {
        if let Some(run) = self.speaking_run() {
            run.postpone(now);
        }
        self.rest.kernel.recount(now);
    }

    /// Returns its link-layer address, by its own account or else the API's.
    pub(crate) fn mac(&self) -> Option<MacAddr> {
        self.run.as_ref().map(|run| run.said().mac).or(self.rest.station.map(|(mac, _)| mac))
    }

    /// Returns its link-layer addresses by its own account and by the API's. They differ while a machine that has taken
    /// its name has not been heard yet.
    pub(crate) fn macs(&self) -> [Option<MacAddr>; 2] {
        let said = self.run.as_ref().map(|run| run.said().mac).or(self.rest.former_mac);
        [said, self.rest.station.map(|(mac, _)| mac)]
    }

    /// Returns the keys that it accepts, if it is heard at all.
    pub(crate) fn accepted_keys(&self) -> Option<&[KeyId]> {
        let pending = self.pending.as_ref().map(|pending| pending.keys.as_slice());
        pending.or_else(|| self.run.as_ref().filter(|_| self.speaks()).map(|run| run.said().keys.as_slice()))
    }

    /// Returns the highest protocol version that it reads, if it is heard at all.
    pub(crate) fn reads_version(&self) -> Option<u8> {
        let pending = self.pending.as_ref().map(|pending| pending.highest_version);
        pending.or_else(|| self.run.as_ref().filter(|_| self.speaks()).map(|run| run.said().highest_version))
    }

    /// Returns the address at which its kernel can be asked for a sign of life.
    pub(crate) fn probe_target(&self) -> Option<(IpAddr, MacAddr)> {
        let said = self.run.as_ref().and_then(|run| Some((run.said().address?, run.said().mac)));
        said.or(self.rest.station.map(|(mac, address)| (address, mac)))
    }

    /// Returns the last sign of its speaker: heard here, or by a peer that is heard here.
    pub(crate) fn last_sign(&self) -> Option<Duration> {
        self.run.as_ref().map(PeerIncarnation::heard).max(self.reported)
    }

    /// Returns whether it has broken the promise of its last Hello.
    pub(crate) fn is_overdue(&self, now: Duration) -> bool {
        self.run.as_ref().is_some_and(|run| now > run.heard() + run.interval())
    }

    /// Returns when it becomes silent unless it is heard.
    pub(crate) fn silent_at(&self) -> Option<Duration> {
        self.run.as_ref().map(|run| run.heard() + timers::silent_after(run.interval()))
    }

    /// Returns whether no node has heard it for three intervals. `interval`: this node's, if the peer's is not known.
    pub(crate) fn is_lost(&self, now: Duration, interval: Duration) -> bool {
        self.lost_at(interval).is_none_or(|at| at <= now)
    }

    /// Returns when it counts as lost unless a node hears it; `None` if none ever did.
    pub(crate) fn lost_at(&self, interval: Duration) -> Option<Duration> {
        let interval = self.run.as_ref().map_or(interval, PeerIncarnation::interval);
        let known = self.last_sign().max(self.silent_since().filter(|_| self.run.is_none()));
        Some(known? + timers::lost_after(interval))
    }

    /// Returns the entries about it for a Hello: each of two runs of it may ask for an echo, and one of them may be
    /// replayed by an attacker who wants to keep the echo from the other. `suspected`: it is silent, and others are to
    /// say whether they hear it.
    pub(crate) fn mentions(
        &self,
        id: NodeId,
        wants_claims: bool,
        suspected: bool,
    ) -> impl Iterator<Item = Mention> + use<> {
        let newcomer = self.pending.as_ref().is_some_and(|pending| pending.to_echo);
        let suspect = !newcomer && (suspected && !self.listens() || self.is_asked_for());
        let of = |which, suspect, echoes| Mention { which, suspect, wants_claims, echoes, node: id };
        // A request for claims goes to the run that counts in any case: the newcomer may be an old run, replayed.
        let said = self.echoes > 0 || self.attest || suspect || wants_claims;
        let counted = said.then(|| of(Which::Counted, suspect, self.echoes));
        let pending = newcomer.then(|| of(Which::Pending, false, 1));
        counted.into_iter().chain(pending)
    }

    /// Returns the entry about it in a Hello at `now`, once. `kernel`: the report about its kernel.
    pub(crate) fn say(&mut self, mention: Mention, now: Duration, kernel: Option<Kernel>) -> Heard {
        let Mention { which, node, suspect, wants_claims, .. } = mention;
        let pending = self.pending.as_mut().filter(|_| which == Which::Pending);
        let wants_echo = pending.is_some();
        let (incarnation, sequence, heard) = match (pending, &self.run) {
            (Some(pending), _) => {
                pending.to_echo = false;
                (pending.incarnation, pending.sequence, pending.heard)
            }
            (None, run) => {
                self.echoes = self.echoes.saturating_sub(1);
                self.attest = false;
                // It was never heard; others may know its runs.
                run.as_ref().map_or((Incarnation(0), 0, Duration::ZERO), |r| (r.incarnation, r.sequence(), r.heard()))
            }
        };
        let age = now.saturating_sub(heard);
        Heard { node, incarnation, sequence, age, kernel, wants_echo, wants_claims, suspect }
    }
}
