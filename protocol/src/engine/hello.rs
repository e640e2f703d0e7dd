//! Hellos: when they go out, what they say, and what follows from those of peers.

use std::time::Duration;

use super::Engine;
use crate::{
    incarnation::PeerIncarnation,
    io::{Event, Output, Sibling},
    mutation::Mutation,
    node::NodeId,
    peer::{Mention, Peer, Presence, Refused},
    timers::{self, JITTER_FROM_PERCENT, TRIGGERED_GAP_DIVISOR},
    wire::{self, Body, Frame, Heard, Hello, Kernel, Question, Sender, State},
};

/// The most Hellos sent at once, when there is more to say about peers than fits into one; a Hello that was brought
/// forward is a single one. So nine go out in an interval at most, and among 1,000 nodes a newcomer has echoed all of
/// them after three intervals.
const BURST: usize = 5;

impl Engine {
    /// Brings the next Hello forward to a random moment within `within`, but no closer to the last one than a quarter
    /// of an interval.
    pub(super) fn hasten_hello(&mut self, now: Duration, within: Duration) {
        let wait = self.local.part_of(within);
        self.transmitter.hasten(now + wait);
    }

    /// Hastens a Hello in a moment in which peers are likely to hasten theirs too.
    pub(super) fn hasten_hello_in_a_crowd(&mut self, now: Duration) {
        self.hasten_hello(now, self.transmitter.interval() / TRIGGERED_GAP_DIVISOR);
    }

    /// Sends a Hello, or several if there is more to say about peers than fits into one.
    pub(super) fn send_hellos(&mut self, now: Duration) {
        let mut known = 0;
        let mut mentions = Vec::new();
        for (id, peer) in self.peers.iter() {
            known += usize::from(peer.speaks() || peer.pending.is_some());
            let wants_claims = self.sync.lacks(id);
            let suspected = self.is_suspected(now, id, peer);
            mentions.extend(peer.mentions(id, wants_claims, suspected));
        }
        mentions.sort_unstable_by_key(|mention| mention.place());
        self.transmitter.set_interval(self.local.timers().interval(known));
        let mut hello = self.empty_hello(now);
        let capacity = wire::heard_capacity(self.transmitter.frame_limit(), &hello).max(1);
        let burst = if self.transmitter.is_regular(now) { BURST } else { 1 };
        let mut said = mentions.chunks(capacity).take(burst).peekable();
        loop {
            let part = said.next().unwrap_or_default();
            hello.heard = part.iter().filter_map(|mention| self.heard_entry(now, *mention)).collect();
            self.send(Body::Hello(hello.clone()));
            self.transmitter.note_hello();
            if said.peek().is_none() {
                break;
            }
        }
        self.report_lacking_claims(now);
        let pause = self.local.percentage_of(self.transmitter.interval(), JITTER_FROM_PERCENT);
        self.transmitter.end_round(now, pause);
    }

    /// Returns what a Hello says of a peer, and notes that it was said.
    fn heard_entry(&mut self, now: Duration, mention: Mention) -> Option<Heard> {
        let (evidence, controls) = (self.hearing.evidence(), self.hearing.last_pong());
        let peer = self.peers.get_for_note(mention.node)?;
        let kernel = peer.rest.kernel.report(now, evidence, controls);
        Some(peer.say(mention, now, kernel))
    }

    /// Returns whether a peer is silent and it matters whether others hear it. It does not if no peer hears it and it
    /// holds nothing: a node that is switched off for a week need not be in every Hello of that week.
    fn is_suspected(&self, now: Duration, id: NodeId, peer: &Peer) -> bool {
        peer.silent_since().is_some()
            && (!peer.is_lost(now, self.interval()) || self.claims.addresses_of(id).next().is_some())
    }

    pub(super) fn empty_hello(&self, now: Duration) -> Hello {
        Hello {
            state: self.participation.stated(),
            highest_version: self.transmitter.keys().versions().newest(),
            deaf: self.is_deaf(now),
            interval: self.transmitter.interval(),
            uptime: self.participation.uptime(now),
            peers: u16::try_from(self.peers.speaking()).unwrap_or(u16::MAX),
            claims: self.claims.digest(self.local.id()),
            name: self.local.name().clone(),
            mac: self.local.mac(),
            address: self.local.address(),
            keys: self.transmitter.keys().ids().to_vec(),
            heard: Vec::new(),
        }
    }

    /// Sends a frame, signed with a key and written in a version that every peer reads.
    pub(super) fn send(&mut self, body: Body) {
        if !self.participation.has_carrier() {
            return;
        }
        let is_hello = matches!(body, Body::Hello(_));
        match self.transmitter.seal(self.local.id(), self.local.incarnation(), &mut self.peers, body) {
            Ok(bytes) => {
                self.counters.hellos_sent += u64::from(is_hello);
                self.outbox.push(Output::Send(bytes));
            }
            // No peer would accept this node's name or address: the edge shows the counter.
            Err(_) => self.counters.unsendable += 1,
        }
    }

    /// Takes in a frame that bears this node's own name.
    pub(super) fn own_frame(&mut self, now: Duration, frame: &Frame) {
        if frame.sender.incarnation == self.local.incarnation() {
            self.outbox.report_once_a_minute(now, Event::SegmentLoop);
            return;
        }
        if self.siblings.contains(frame.sender.incarnation) {
            let Sender { incarnation, sequence, .. } = frame.sender;
            if !self.local.breaks(Mutation::SpeakOnBoth) {
                self.siblings.note_heard(Sibling { incarnation, sequence });
            }
            return;
        }
        // An earlier run of this speaker cannot know this one: a frame that does not echo this run is replayed, or was
        // still on its way.
        match &frame.body {
            Body::Hello(hello) if self.is_echoed(hello) => {
                self.outbox.report_once_a_minute(now, Event::DuplicateNode(self.local.id()));
            }
            _ => self.counters.replayed += 1,
        }
    }

    /// Returns whether this Hello shows that its sender hears this run of this node now.
    fn is_echoed(&self, hello: &Hello) -> bool {
        let echo = |heard: &&Heard| heard.node == self.local.id() && heard.incarnation == self.local.incarnation();
        hello.heard.iter().find(echo).is_some_and(|heard| self.transmitter.is_recent(heard.sequence))
    }

    /// Returns whether a peer has heard a frame of this run that this run has not sent yet: this machine was set back
    /// to a snapshot of its memory.
    fn is_yet_to_be_said(&self, heard: &Heard) -> bool {
        heard.node == self.local.id()
            && heard.incarnation == self.local.incarnation()
            && self.transmitter.is_yet_to_come(heard.sequence)
    }

    /// Takes in a peer's Hello.
    pub(super) fn hello_received(&mut self, now: Duration, sender: Sender, hello: &Hello) {
        let id = sender.node;
        let lacking = self.sync.lacks(id);
        if self.peers.hears_again(now, sender, hello) {
            self.count_hello();
            if lacking || !hello.heard.is_empty() {
                self.claims_and_entries_received(now, id, hello);
            }
            return;
        }
        if !lacking && self.says_nothing_new(now, sender, hello) {
            self.count_hello();
            return;
        }
        if !self.peers.add(id, &hello.name) {
            self.counters.replayed += 1;
            return;
        }
        let run = self.peers.get(id).and_then(|peer| peer.run.as_ref());
        let known = run.is_some_and(|run| run.incarnation == sender.incarnation);
        // A new incarnation of a peer has to echo this node before it counts.
        let echoed = !known && (self.is_echoed(hello) || self.local.breaks(Mutation::SkipTwoWayCheck));
        if !known && !echoed {
            // This holds for peers that do not count as well: all the others may have been replaced since the snapshot.
            if hello.heard.iter().any(|heard| self.is_yet_to_be_said(heard)) {
                self.outbox.report_once_a_minute(now, Event::Reverted);
                return;
            }
            if hello.state == State::Restarting {
                // This incarnation ends: nothing is expected of it, and no echo of it is needed.
                self.count_hello();
                self.peers.pending_ends(sender);
                return;
            }
            self.note_pending(now, sender, hello);
            return;
        }
        let Some(peer) = self.peers.get_mut(id) else { return };
        let macs_before = peer.macs();
        let presence = peer.presence();
        let (was_state, was_deaf) = peer.run.as_ref().map_or((None, false), |run| (Some(run.state), run.deaf));
        match peer.run.as_mut().filter(|run| run.incarnation == sender.incarnation) {
            Some(run) if sender.sequence <= run.sequence() => {
                // The frame is a replay, or the peer's machine was set back to a snapshot of its memory, and no Hello
                // mentions the peer, since it is dead.
                peer.attest |= presence != Presence::Speaking;
                self.counters.replayed += 1;
                return;
            }
            Some(run) => {
                let paused = run.paused_for(now, hello);
                run.update(now, sender.sequence, hello);
                // While this node catches up with a stall, frames from before and after it come together.
                if paused > timers::lost_after(self.transmitter.interval())
                    && peer.speaks()
                    && !self.participation.is_stalled()
                {
                    self.stalled(now, paused);
                }
            }
            None => {
                if !self.adopt_run(now, sender, hello) {
                    return;
                }
            }
        }
        self.count_hello();
        self.peers.learn_macs(id, macs_before);
        self.heard_from(now, id);
        self.claims_and_entries_received(now, id, hello);
        if was_state != Some(hello.state) || was_deaf != hello.deaf {
            if was_deaf && !hello.deaf {
                // The peer has not heard which nodes took the addresses that it still claims.
                self.contradict_all(now, id);
            }
            self.reassess(now, id);
            let counted = self.peers.get(id).and_then(|peer| peer.run.as_ref()).is_some_and(|run| run.counts_me);
            if hello.state == State::Listening && was_state.is_some() && counted {
                // The same incarnation listens again, after its link was lost or it stood still.
                self.send_claims_of_silent_peers(id);
            }
            // A peer that can no longer claim brings this node's turns forward, so they are looked at now. A peer that
            // can claim puts them off, which is noticed when they come.
            if hello.deaf || hello.state != State::Active {
                self.evaluate_contended(now);
            }
        }
    }

    /// Takes in what the Hello of a peer says of other nodes, and of the peer's claims.
    fn claims_and_entries_received(&mut self, now: Duration, id: NodeId, hello: &Hello) {
        self.entries_received(now, id, &hello.heard);
        self.compare_claims(now, id, hello.state, hello.claims);
        if self.sync.lacks(id) {
            self.hasten_hello_in_a_crowd(now);
        }
    }

    /// Takes in a Hello if nothing follows from it. Returns `false` if something does.
    fn says_nothing_new(&mut self, now: Duration, sender: Sender, hello: &Hello) -> bool {
        let run = self.peers.get_mut(sender.node).and_then(Peer::speaking_run);
        run.is_some_and(|run| run.says_nothing_new(now, sender, hello))
    }

    fn count_hello(&mut self) {
        self.counters.accepted += 1;
        self.counters.hellos_accepted += 1;
    }

    /// Takes in a Hello of an incarnation that has not shown that it hears this node: it does not count yet, but is
    /// echoed.
    fn note_pending(&mut self, now: Duration, sender: Sender, hello: &Hello) {
        if !self.peers.note_pending(now, sender, hello) {
            self.counters.replayed += 1;
            return;
        }
        self.count_hello();
        self.detector.look_by(now + timers::lost_after(hello.interval));
        self.hasten_hello_in_a_crowd(now);
    }

    /// Makes a new incarnation of a peer count from now on. Returns `false` if two machines speak as one node; then the
    /// first stays.
    fn adopt_run(&mut self, now: Duration, sender: Sender, hello: &Hello) -> bool {
        let Some(peer) = self.peers.get_mut(sender.node) else { return false };
        // Once the later incarnation is silent, the earlier one is all there is: two interfaces of the node were on
        // this segment.
        if peer.speaks() && peer.run.as_ref().is_some_and(|run| run.said().before == Some(sender.incarnation)) {
            let ends = hello.state == State::Restarting;
            peer.rest.refused = (!ends).then(|| Box::new(Refused { heard: now, sender, hello: hello.clone() }));
            self.outbox.report_once_a_minute(now, Event::DuplicateNode(sender.node));
            return false;
        }
        peer.change_run(now, sender, hello);
        self.peers.drop_pending(sender.node);
        self.hasten_hello_in_a_crowd(now);
        true
    }

    /// Handles that the incarnation of a peer that counts has fallen silent, or ends. Returns whether the incarnation
    /// before it takes its place: that has shown meanwhile that it hears this node. This happens when one of two
    /// interfaces of a node yields to the other, or when this node is plugged in where the other interface is.
    pub(super) fn earlier_run_goes_on(&mut self, now: Duration, id: NodeId) -> bool {
        let Some(peer) = self.peers.get_mut(id) else { return false };
        let Some(refused) = peer.take_refused(now) else { return false };
        let macs_before = peer.macs();
        peer.change_run(refused.heard, refused.sender, &refused.hello);
        self.peers.learn_macs(id, macs_before);
        self.peers.drop_pending(id);
        self.compare_claims(now, id, refused.hello.state, refused.hello.claims);
        self.hasten_hello_in_a_crowd(now);
        self.reassess(now, id);
        self.detector.look_at(now);
        true
    }

    /// Takes in that a peer was heard.
    pub(super) fn heard_from(&mut self, now: Duration, id: NodeId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let restarting = peer.run.as_ref().is_some_and(|run| run.state == State::Restarting);
        let before = peer.presence();
        if restarting {
            // The peer announces its restart before it stops: it need not be missed first.
            if before != Presence::Speaking || !self.earlier_run_goes_on(now, id) {
                self.peer_falls_silent(now, id);
            }
            return;
        }
        if before == Presence::Speaking {
            return;
        }
        peer.rest.kernel.stop();
        peer.forget_reports();
        let name = peer.rest.name.clone();
        let due = peer.silent_at().unwrap_or(now);
        let has_been_at_work = peer.takes_part_when_heard();
        let absent_since = peer.rest.absent_since.take();
        let said = peer.run.as_ref().map(|run| (run.state, run.said().digest));
        let presumed = if self.participation.is_active() { self.presumed_of(id) } else { Vec::new() };
        self.peers.set_presence(id, Presence::Speaking);
        self.ping_soon(now);
        self.detector.look_by(due);
        self.hearing.peer_speaks();
        self.outbox.report(Event::PeerUp(name));
        // Its digest comes before every conclusion: an address is not vacant because this node does not know the peer's
        // claim on it.
        if let Some((state, claimed)) = said {
            self.compare_claims(now, id, state, claimed);
        }
        if self.peers.speaking() == 1 && self.goes_by_saved_view() {
            // Until now no peer was there that could know better than the saved view.
            self.evaluate_all(now);
        }
        if has_been_at_work {
            self.announce_after_separation(now, absent_since.unwrap_or_default());
        }
        for address in presumed {
            self.overhearing.forget_announcer(address);
            self.evaluate(now, address);
        }
        // The peer may have told other nodes of its claims, though this node took those addresses over in the meantime.
        self.contradict_all(now, id);
        self.reassess(now, id);
    }

    /// Takes in what a peer says about other nodes, and about this one.
    fn entries_received(&mut self, now: Duration, from: NodeId, entries: &[Heard]) {
        let caught_up = self.participation.caught_up_since(self.interval());
        // At a start no peer has been missed yet, and all peers echo each other.
        let misses_nobody = self.peers.all_present()
            || self.participation.joining_since().is_some() && self.peers.silent().next().is_none();
        for heard in entries {
            if heard.node == self.local.id() {
                self.own_entry_received(now, from, heard);
                continue;
            }
            // Echoes of other nodes matter only while one of the peers is not heard here.
            if misses_nobody && !heard.suspect {
                continue;
            }
            let Some(peer) = self.peers.get_for_note(heard.node) else { continue };
            let speaks = peer.speaks();
            if let Some(kernel) = heard.kernel {
                peer.rest.reports.note(now, kernel);
                if kernel == Kernel::Silent(Question::Ping) {
                    self.detector.look_by(now);
                }
            }
            if heard.suspect && peer.rest.kernel.has_missed_pings() {
                peer.attest = true;
                continue;
            }
            if heard.suspect && self.covers.contains(heard.node) {
                self.repeat_to_peer_that_misses(from, heard.node);
            }
            let Some(peer) = self.peers.get_for_note(heard.node) else { continue };
            let at = now.saturating_sub(heard.age);
            // After a stall this node does not know yet which peers still speak.
            let heard_here = peer.run.as_ref().map(PeerIncarnation::heard).filter(|at| speaks && *at >= caught_up);
            if heard.suspect && heard_here.is_some_and(|here| at < here || heard.sequence == 0) {
                peer.attest = true;
                self.hasten_hello(now, Duration::ZERO);
            } else if !heard.wants_echo && heard.sequence > 0 {
                // Whichever incarnation was heard there: the peer speaks to a node.
                peer.heard_elsewhere(at);
            }
        }
    }

    /// Takes in what a peer says of this node.
    fn own_entry_received(&mut self, now: Duration, from: NodeId, heard: &Heard) {
        if heard.incarnation != self.local.incarnation() {
            return;
        }
        if self.is_yet_to_be_said(heard) {
            self.outbox.report_once_a_minute(now, Event::Reverted);
            return;
        }
        if self.transmitter.is_recent(heard.sequence) {
            self.hearing.replied(now);
        }
        let Some(peer) = self.peers.get_for_note(from) else { return };
        let listens = peer.listens();
        if heard.wants_echo {
            peer.echo();
            self.hasten_hello_in_a_crowd(now);
        } else if let Some(run) = peer.run.as_mut().filter(|run| !run.counts_me) {
            run.counts_me = true;
            if listens {
                self.send_claims_of_silent_peers(from);
            }
        }
        if !heard.wants_echo {
            self.repeat_to_peer_that_counts(from);
        }
        if heard.wants_claims {
            self.list_asked_for(now, from);
        }
        if heard.suspect {
            self.hasten_hello(now, Duration::ZERO);
        }
    }
}
