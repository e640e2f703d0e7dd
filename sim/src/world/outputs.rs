//! The machines' outputs.

use std::{net::IpAddr, time::Duration};

use herald_protocol::{
    Event as Told, Output, Withdrawal,
    api_view::{GivenUp, Packet},
    claim::Reason,
};

use super::{Event, To, World, steps::LONG_DELAY};
use crate::{
    check::{Invariant, Violation},
    fault::{Condition, Forgery},
    names::{self, Family, NodeIx},
    net::{BASE_DELAY, Kind},
};

/// Longest time from a speaker's new claim until it writes status.
pub(super) const STATUS_DELAY: Duration = Duration::from_millis(50);

/// Within [`WAR`], an address changes its owner at most this often: each fault of a history moves it once or twice, and
/// at most nine faults come in half a minute.
const WAR_CHANGES: usize = 12;

/// If answers take as long as this, three unanswered probes find a kernel silent.
const THREE_PROBES: Duration = Duration::from_millis(150);

/// Period to which [`WAR_CHANGES`] applies.
const WAR: Duration = Duration::from_secs(10);

impl World<'_> {
    pub(super) fn output(&mut self, index: NodeIx, output: Output) {
        let source = self.nodes[index].mac;
        if !self.takes_part(index) && !matches!(output, Output::Event(_) | Output::Answers { mac: None, .. }) {
            let seen = format!("interface {index} of a node yields to the other, but has an output: {output:?}");
            self.violate(Violation { invariant: Invariant::Yielding, at: self.now, seen });
            return;
        }
        match output {
            Output::Send(bytes) => self.transmit(index, bytes),
            Output::Probe { address, mac } => {
                let binding = Some((names::host_address(index, Family::of(address)), source));
                let packet = Packet { source, binding, asks: Some(address) };
                self.probe(index, mac, packet);
            }
            Output::Ping { address, mac } => self.ping(index, address, mac),
            Output::Enquire(address) => {
                self.trace(|| format!("node {index}: enquires about {address}"));
                self.send_packet(index, To::All, Packet { source, binding: None, asks: Some(address) });
            }
            Output::EchoAll => self.queue.push(self.now + BASE_DELAY * 2, Event::EchoReplies(index)),
            Output::Announce { address, mac } => {
                if mac == source {
                    self.took_over(index, address);
                }
                // A gratuitous ARP request asks; an unsolicited Neighbour Advertisement does not ask.
                let asks = Some(address).filter(IpAddr::is_ipv4);
                let packet = Packet { source, binding: Some((address, mac)), asks };
                self.send_packet(index, To::All, packet);
            }
            Output::Answers { address, mac } => self.answers_change(index, address, mac),
            Output::Event(told) => self.told(index, told),
        }
    }

    fn answers_change(&mut self, index: NodeIx, address: std::net::IpAddr, mac: Option<herald_protocol::mac::MacAddr>) {
        let Some(vip) = names::vip_index(address) else { return };
        let Some(speaker) = &mut self.nodes[index].speaker else { return };
        let answers = &mut self.judges.answers[vip];
        answers.retain(|(node, _)| *node != index);
        match mac {
            Some(mac) => {
                speaker.answers.insert(vip, mac);
                answers.push((index, mac));
                if mac == self.nodes[index].mac {
                    self.took_over(index, address);
                }
            }
            None => {
                speaker.answers.remove(&vip);
            }
        }
        self.recheck(vip);
    }

    fn told(&mut self, index: NodeIx, told: Told) {
        match &told {
            Told::Owned { claim, .. } => {
                let claim = *claim;
                self.trace(|| format!("node {index}: owns {}", Self::claim_text(&claim)));
                let Some(address) = names::vip_index(claim.address) else { return };
                let mut listens = false;
                if let Some(speaker) = &mut self.nodes[index].speaker {
                    speaker.owns.insert(address);
                    if let Some(GivenUp::HandedOver(_)) = speaker.given_up.remove(&address) {
                        speaker.took_back.insert(address, self.now);
                    }
                    listens = !speaker.machine.segment().is_answering();
                }
                if self.is_rival(index) {
                    // Claims that are right in the other cluster are not judged.
                    self.rival_owns(index, address, true);
                    return;
                }
                let first = self.judge_first_claim(index, address, &claim);
                let mut violation = self.judge_owned(index, address, claim);
                violation = violation.or(first).or(self.judge_pace_of_owners(address));
                let late = self.may_be_claimed_late(address) || self.may_doubt_birth(address, index);
                let late = claim.reason == Reason::Vacant && late;
                // A node that is cut off from the API may have claimed for an object that is gone.
                let behind = claim.reason == Reason::Recreated && self.nodes.iter().any(|node| node.cut > 0);
                let justified = late || behind || matches!(claim.reason, Reason::Class | Reason::CoverExpired);
                if violation.is_none()
                    && !justified
                    && let Some(since) = self.judges.settled
                {
                    violation = Some(Violation {
                        invariant: Invariant::QuietChange,
                        at: self.now,
                        seen: format!(
                            "node {index} claims {}; everything has been settled since {:.3} s",
                            Self::claim_text(&claim),
                            since.as_secs_f64()
                        ),
                    });
                }
                if violation.is_none() && listens {
                    let seen = format!("node {index} claims {}, but it still listens", Self::claim_text(&claim));
                    violation = Some(Violation { invariant: Invariant::Reason, at: self.now, seen });
                }
                if let Some(violation) = violation {
                    self.violate(violation);
                }
                self.detected(index, claim.reason);
                self.queue.push(self.now + STATUS_DELAY, Event::Status { node: self.seconds.node(index), address });
                self.note_where_it_lies(index, address);
            }
            Told::Lost { claim, to } => {
                let (claim, to) = (*claim, self.api.node(*to));
                self.trace(|| format!("node {index}: loses to node {to:?}: {}", Self::claim_text(&claim)));
                self.gives_up(index, claim.address);
                let rival = to.is_some_and(|to| self.is_rival(to));
                if let Some(address) = names::vip_index(claim.address).filter(|_| !rival) {
                    self.judges.owners.lost(self.now, address, index, &claim);
                }
            }
            Told::Withdrawn { address, why } => {
                let (address, why) = (*address, *why);
                self.trace(|| format!("node {index}: withdraws {address}, {why:?}"));
                if let (Withdrawal::Deleted, Some(address)) = (why, names::vip_index(address)) {
                    let hears = |node: &NodeIx| {
                        let safe = self.net.is_uniform() && self.net.loss == 0.0;
                        // The word of a run that does not echo what it is told does not count
                        // (docs/protocol/peers.md#pending).
                        safe && self.nodes[*node].speaks() && self.net.connects(index, *node, Kind::Protocol)
                    };
                    let told = (0..self.nodes.len()).filter(hears).collect();
                    self.judges.owners.deleted(self.now, address, index, told);
                }
                self.gives_up(index, address);
                if let Some(address) = names::vip_index(address) {
                    let me = self.api.id(index);
                    let given_up = match why {
                        Withdrawal::HandedOver(_) => Some(GivenUp::HandedOver(me)),
                        Withdrawal::TakenByUnheard(_) => Some(GivenUp::Yielded(me)),
                        Withdrawal::Deleted | Withdrawal::NoCandidate => None,
                    };
                    if let (Some(given_up), Some(speaker)) = (given_up, &mut self.nodes[index].speaker) {
                        speaker.given_up.insert(address, given_up);
                    }
                    self.queue.push(self.now + STATUS_DELAY, Event::Status { node: self.seconds.node(index), address });
                }
            }
            Told::PeerDead(id) => {
                let dead = self.api.node(*id);
                self.trace(|| format!("node {index}: node {dead:?} is dead"));
                if self.measured.off.is_some_and(|(off, _)| Some(off) == dead) {
                    self.measured.found_dead[index].get_or_insert(self.now);
                }
            }
            Told::Finished => {
                self.trace(|| format!("node {index}: has finished"));
                if self.run_has_finished(index) {
                    self.kill(self.seconds.node(index));
                }
            }
            Told::StateChanged => {
                let node = &mut self.nodes[index];
                if let Some(speaker) = &node.speaker {
                    node.saved = Some((speaker.machine.segment().saved_state(), node.boot));
                }
            }
            Told::PeerSilent(id) | Told::Covering(id) | Told::CoverEnded(id) | Told::CoveringLong(id) => {
                let about = self.api.node(*id);
                let what = match &told {
                    Told::PeerSilent(_) => "does not hear",
                    Told::Covering(_) => "covers",
                    Told::CoveringLong(_) => "has covered for long",
                    _ => "no longer covers",
                };
                self.trace(|| format!("node {index}: {what} node {about:?}"));
            }
            Told::Conflict { address, mac } => {
                self.trace(|| format!("node {index}: {told:?}"));
                let address = names::vip_index(*address);
                if let Some(violation) = address.and_then(|address| self.judge_conflict(index, address, *mac)) {
                    self.violate(violation);
                }
            }
            Told::Reverted => {
                self.trace(|| format!("node {index}: {told:?}"));
                self.joins_anew(index);
            }
            Told::PeerUp(_)
            | Told::PeerUnheard(_)
            | Told::AnsweredByClusterNode { .. }
            | Told::BornOutOfOrder(_)
            | Told::ClaimsLacking(_)
            | Told::CannotBeAsked(_)
            | Told::DuplicateNode(_)
            | Told::SegmentLoop
            | Told::Stalled(_) => self.trace(|| format!("node {index}: {told:?}")),
        }
    }

    /// Returns a violation if an address goes back and forth.
    fn judge_pace_of_owners(&self, address: names::AddrIx) -> Option<Violation> {
        let excused = self.judges.no_pace_until_step.is_some_and(|at| self.now < at + WAR);
        if excused || self.no_pace_is_promised() {
            return None;
        }
        // Candidates that cannot hear each other's claims in time each claim once.
        let at_once = if self.net.longest_delay() >= LONG_DELAY { self.nodes.len() } else { 0 };
        let changes = self.judges.owners.changes_since(address, self.now.saturating_sub(WAR));
        (changes > WAR_CHANGES + at_once).then(|| Violation {
            invariant: Invariant::PingPong,
            at: self.now,
            seen: format!("address {address} was claimed {changes} times within {WAR:?}"),
        })
    }

    /// Returns whether docs/protocol lets the owner of addresses change often now.
    pub(super) fn no_pace_is_promised(&self) -> bool {
        let dropped = self.conditions.iter().any(|condition| matches!(condition, Condition::EtherTypeDropped(_)));
        // docs/protocol/frames.md#attack-held-back: recorded frames that are played back while the network drops the
        // real ones are frames held back and let go one by one. docs/protocol/failure.md#probe-silent: kernels whose
        // answers take longer than three probes are found silent, though they live.
        let played_back = self.conditions.contains(&Condition::Forged(Forgery::Replay));
        let late = self.net.longest_delay() * 2 >= THREE_PROBES;
        // docs/protocol/ownership.md#cloned-cluster: two views that differ for good; tests/clusters.rs judges what is
        // promised for them.
        dropped && (played_back || late) || self.history.is_cloned()
    }

    fn gives_up(&mut self, index: NodeIx, address: std::net::IpAddr) {
        let Some(address) = names::vip_index(address) else { return };
        if let Some(speaker) = &mut self.nodes[index].speaker {
            speaker.owns.remove(&address);
        }
        if self.is_rival(index) {
            self.rival_owns(index, address, false);
        }
        self.judges.owners.gave_up(address, index);
    }

    /// Measures detection.
    fn detected(&mut self, index: NodeIx, reason: Reason) {
        let Some((_, off)) = self.measured.off.filter(|_| reason == Reason::Dead) else { return };
        if let Some(found) = self.measured.found_dead[index].filter(|_| !self.measured.counted[index]) {
            self.measured.counted[index] = true;
            self.outcome.detect.push(found - off);
        }
    }

    /// Measures take-over: a node answers for or announces an address of the dead node with its own MAC.
    fn took_over(&mut self, index: NodeIx, address: std::net::IpAddr) {
        let Some((dead, off)) = self.measured.off.filter(|(dead, _)| *dead != self.seconds.node(index)) else { return };
        let Some(address) = names::vip_index(address).filter(|address| !self.measured.taken[*address]) else { return };
        if self.judges.owners.holders(address).any(|holder| self.seconds.node(holder) == dead) {
            self.measured.taken[address] = true;
            self.outcome.takeover.push(self.now - off);
        }
    }
}
