//! One other speaker of the segment: who it is, when it was heard, what its kernel says.

use std::{cmp::Reverse, collections::VecDeque, net::IpAddr, time::Duration};

use crate::{
    host_probe::{HostProbe, Reports, Silence},
    incarnation::{Noted, PeerIncarnation, Pending},
    mac::MacAddr,
    node::{Incarnation, NodeId, NodeName},
    timers,
    wire::{Heard, Hello, Kernel, KeyId, Sender, State},
};

/// How often a run that has just been found to hear this node is echoed: one may be lost. What is lost then costs it the
/// end of its join barrier, no more. A run that has not got that far is echoed in answer to each of its Hellos.
const ECHOES: u8 = 2;

/// Earlier runs of a peer that are remembered: a speaker that restarts in a loop has no more within the minutes that a
/// frame is worth replaying.
const OLD_RUNS: usize = 8;

/// A node on the segment that is not this one.
#[derive(Debug)]
pub(crate) struct Peer {
    /// The run that is heard both ways.
    pub(crate) run: Option<PeerIncarnation>,
    /// A run that has not yet shown that it hears this node.
    pub(crate) pending: Option<Box<Pending>>,
    presence: Presence,
    /// When somebody else last heard it: at a start all echo all, and this is written as often as `run`.
    reported: Option<Duration>,
    /// Hellos in which its run is still to be echoed.
    pub(crate) echoes: u8,
    /// What was last heard of its run is to be said in the next Hello: somebody suspects it, and this node hears it or has
    /// found its kernel silent; or it says again what it said long ago.
    pub(crate) attest: bool,
    /// What a Hello that says nothing new does not touch.
    pub(crate) rest: Box<Rest>,
}

/// What matters while a peer comes, is silent or goes.
#[derive(Debug)]
pub(crate) struct Rest {
    /// Its name, once a Hello or the API has said it.
    pub(crate) name: NodeName,
    /// Where the API says that it is.
    pub(crate) station: Option<(MacAddr, IpAddr)>,
    /// Where the machine was that bore its name before, until the one that bears it now is heard.
    former_mac: Option<MacAddr>,
    /// Since when it has not been heard, however it has stood since; `None`: it is heard, or its run never was.
    pub(crate) absent_since: Option<Duration>,
    /// Since when some run of it has been pending.
    pub(crate) pending_since: Option<Duration>,
    /// A run before the one that counts, which shows that it hears this node and is refused while the later one speaks.
    pub(crate) refused: Option<Box<Refused>>,
    /// Earlier runs of it and the highest sequence of each, the latest last: what is not higher is replayed.
    old_runs: VecDeque<(Incarnation, u64)>,
    /// What its kernel says.
    pub(crate) kernel: HostProbe,
    /// What others say about it.
    pub(crate) reports: Reports,
    /// What its last frame was signed with; noted while there are several keys to choose from.
    pub(crate) signed_with: Option<KeyId>,
}

/// The last Hello of a run that is refused.
#[derive(Debug)]
pub(crate) struct Refused {
    /// When it came.
    pub(crate) heard: Duration,
    /// Of which run it is.
    pub(crate) sender: Sender,
    /// What it says.
    pub(crate) hello: Hello,
}

/// Which run of a peer an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The one that counts, if there is one.
    Counted,
    /// The one that has not shown yet that it hears this node.
    Pending,
}

/// That there is something to say about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mention {
    /// Of which run.
    pub(crate) which: Which,
    /// It is silent; others are to say whether they hear it.
    pub(crate) suspect: bool,
    /// Its claims are not known.
    pub(crate) wants_claims: bool,
    /// Hellos in which it is still to be echoed.
    pub(crate) echoes: u8,
    /// Who.
    pub(crate) node: NodeId,
}

impl Mention {
    /// The order in which they are said: suspicions and requests cannot wait; everybody is echoed once before anybody is
    /// a second time.
    pub(crate) fn place(self) -> (bool, bool, Reverse<u8>, NodeId) {
        (!self.suspect, !self.wants_claims, Reverse(self.echoes), self.node)
    }
}

/// How a peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Never heard both ways, or dead and forgotten.
    Unheard,
    /// Heard.
    Speaking,
    /// Not heard for one and a half intervals, or it said that it restarts.
    Silent {
        /// Since when.
        since: Duration,
        /// Has it been reported that the cover lasts long?
        reported: bool,
    },
    /// Silent, and so is its kernel.
    Dead,
}

impl Rest {
    /// A run counts no more.
    pub(crate) fn remember_run(&mut self, incarnation: Incarnation, sequence: u64) {
        self.old_runs.retain(|(known, _)| *known != incarnation);
        self.old_runs.push_back((incarnation, sequence));
        if self.old_runs.len() > OLD_RUNS {
            self.old_runs.pop_front();
        }
    }
}

impl Peer {
    /// A peer that was never heard.
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

    /// Somebody else heard it.
    pub(crate) fn heard_elsewhere(&mut self, at: Duration) {
        self.reported = self.reported.max(Some(at));
    }

    /// What others said of it counts no more: it is heard here.
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
        // It knows nothing of what the one before knew, and may have claimed what this node has owned for long.
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

    /// Is a run of it heard, though it does not count, so that it is alive? Not for longer than `patience`: it may be an
    /// old run, replayed.
    pub(crate) fn shows_life(&self, now: Duration, patience: Duration) -> bool {
        self.pending.is_some() && self.rest.pending_since.is_some_and(|since| now < since + patience)
    }

    /// Its run, if it is heard.
    pub(crate) fn speaking_run(&mut self) -> Option<&mut PeerIncarnation> {
        if self.speaks() { self.run.as_mut() } else { None }
    }

    /// It stands differently from now on. Only [`Peers`](crate::peers::Peers), which counts, may say so.
    pub(crate) fn stand(&mut self, presence: Presence) {
        self.presence = presence;
    }

    /// When its run that has not shown that it hears this node is no sign of it any more.
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

    /// How it stands.
    pub(crate) fn presence(&self) -> Presence {
        self.presence
    }

    /// Is it heard?
    pub(crate) fn speaks(&self) -> bool {
        self.presence == Presence::Speaking
    }

    /// Is it heard, or heard for the first time and has yet to show that it hears this node?
    pub(crate) fn is_present(&self) -> bool {
        self.speaks() || self.presence == Presence::Unheard && self.pending.is_some()
    }

    /// Since when it is silent.
    pub(crate) fn silent_since(&self) -> Option<Duration> {
        match self.presence {
            Presence::Silent { since, .. } => Some(since),
            _ => None,
        }
    }

    /// Could it claim something now?
    pub(crate) fn takes_part(&self) -> bool {
        self.speaks() && self.takes_part_when_heard()
    }

    /// Could it claim something when it was last heard?
    pub(crate) fn takes_part_when_heard(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.state == State::Active && !run.deaf)
    }

    /// Has its speaker restarted, and not yet got to the point where it answers?
    pub(crate) fn listens(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.state == State::Listening)
    }

    /// Returns why its kernel counts as silent, if it does. What this node finds out itself counts before what it is told.
    /// `controls`: when somebody else last answered a ping of this node.
    pub(crate) fn kernel_silence(&self, now: Duration, controls: Option<Duration>) -> Option<Silence> {
        let Rest { kernel, reports, .. } = &*self.rest;
        let pings_itself = kernel.is_watched() && kernel.answers_pings();
        let told = if pings_itself { None } else { reports.silence() };
        kernel.silence(now, reports, controls).or(told)
    }

    /// Was it never heard both ways, but the API lists it, or it is heard one way? Not if its kernel is silent.
    pub(crate) fn may_be_there(&self) -> bool {
        self.presence == Presence::Unheard && (self.rest.station.is_some() || self.pending.is_some())
    }

    /// Was it never heard, and is its kernel asked for a sign of life?
    pub(crate) fn is_asked_for(&self) -> bool {
        self.presence == Presence::Unheard && self.rest.kernel.is_watched()
    }

    /// Was it not heard for so long that it need not be remembered?
    pub(crate) fn is_forgettable(&self, now: Duration, after: Duration) -> bool {
        self.rest.station.is_none() && self.pending.is_none() && self.last_sign().is_none_or(|sign| now >= sign + after)
    }

    /// Time during which this node could not hear is no silence of the peer.
    pub(crate) fn postpone(&mut self, now: Duration) {
        if let Some(run) = self.speaking_run() {
            run.postpone(now);
        }
        self.rest.kernel.recount(now);
    }

    /// Its link-layer address, by its own account or else the API's.
    pub(crate) fn mac(&self) -> Option<MacAddr> {
        self.run.as_ref().map(|run| run.said().mac).or(self.rest.station.map(|(mac, _)| mac))
    }

    /// Its link-layer addresses by its own account and by the API's. They differ while a machine that has taken its name
    /// was not heard yet.
    pub(crate) fn macs(&self) -> [Option<MacAddr>; 2] {
        let said = self.run.as_ref().map(|run| run.said().mac).or(self.rest.former_mac);
        [said, self.rest.station.map(|(mac, _)| mac)]
    }

    /// The keys it accepts, if it is heard at all.
    pub(crate) fn accepted_keys(&self) -> Option<&[KeyId]> {
        let pending = self.pending.as_ref().map(|pending| pending.keys.as_slice());
        pending.or_else(|| self.run.as_ref().filter(|_| self.speaks()).map(|run| run.said().keys.as_slice()))
    }

    /// The highest protocol version it reads, if it is heard at all.
    pub(crate) fn reads_version(&self) -> Option<u8> {
        let pending = self.pending.as_ref().map(|pending| pending.highest_version);
        pending.or_else(|| self.run.as_ref().filter(|_| self.speaks()).map(|run| run.said().highest_version))
    }

    /// Where its kernel can be asked for a sign of life.
    pub(crate) fn probe_target(&self) -> Option<(IpAddr, MacAddr)> {
        let said = self.run.as_ref().and_then(|run| Some((run.said().address?, run.said().mac)));
        said.or(self.rest.station.map(|(mac, address)| (address, mac)))
    }

    /// The last sign of its speaker: heard here, or by somebody who is heard here.
    pub(crate) fn last_sign(&self) -> Option<Duration> {
        self.run.as_ref().map(PeerIncarnation::heard).max(self.reported)
    }

    /// Has it not kept the promise of its last Hello?
    pub(crate) fn is_overdue(&self, now: Duration) -> bool {
        self.run.as_ref().is_some_and(|run| now > run.heard() + run.interval())
    }

    /// When it becomes silent unless it is heard.
    pub(crate) fn silent_at(&self) -> Option<Duration> {
        self.run.as_ref().map(|run| run.heard() + timers::silent_after(run.interval()))
    }

    /// Has nobody heard it for three intervals? `interval`: this node's, if the peer's is not known.
    pub(crate) fn is_lost(&self, now: Duration, interval: Duration) -> bool {
        self.lost_at(interval).is_none_or(|at| at <= now)
    }

    /// When it counts as lost unless somebody hears it; `None` if nobody ever did.
    pub(crate) fn lost_at(&self, interval: Duration) -> Option<Duration> {
        let interval = self.run.as_ref().map_or(interval, PeerIncarnation::interval);
        let known = self.last_sign().max(self.silent_since().filter(|_| self.run.is_none()));
        Some(known? + timers::lost_after(interval))
    }

    /// What to speak about in a Hello: of two of its runs each may ask for an echo, and one of them may be replayed by
    /// somebody who wants the other not to get one. `suspected`: it is silent, and others are to say whether they hear it.
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

    /// What to say about it in a Hello at `now`, once. `kernel`: about its kernel.
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
                // Never heard: others may know its runs.
                run.as_ref().map_or((Incarnation(0), 0, Duration::ZERO), |r| (r.incarnation, r.sequence(), r.heard()))
            }
        };
        let age = now.saturating_sub(heard);
        Heard { node, incarnation, sequence, age, kernel, wants_echo, wants_claims, suspect }
    }
}
