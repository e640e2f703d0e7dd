//! Speakers as processes: started, stopped, woken.

use std::time::Duration;

use herald_protocol::{Config, Input, Neighbour, api_view::Shutdown, node::Incarnation, timers::lost_after};

use super::{Event, To, World, members::REGISTER_DELAY};
use crate::{
    api::WATCH_DELAYS,
    fault::Stop,
    machine::Machine,
    names::{self, NodeIx},
    net::MTU,
    node::{Received, Speaker},
};

/// Time after SIGTERM at which a speaker that still runs is killed (terminationGracePeriodSeconds of the manifests).
const GRACE: Duration = Duration::from_secs(5);

impl World<'_> {
    /// A node's speaker starts.
    pub(super) fn start(&mut self, index: NodeIx) {
        let node = &self.nodes[index];
        if node.off > 0 || node.down > 0 || node.without_prefix > 0 || node.speaker.is_some() {
            return;
        }
        if node.paused > 0 {
            self.queue.push(self.now + Duration::from_millis(100), Event::Start(index));
            return;
        }
        self.begin_interfaces(index);
        for interface in self.interfaces(index) {
            self.join(interface);
        }
        self.update_interfaces(index);
        let delay = WATCH_DELAYS[self.nodes[index].watch];
        self.queue.push(self.now + delay, Event::Listed(index));
        self.queue.push(self.now + REGISTER_DELAY, Event::Registers(index));
    }

    /// A speaker's run on one interface begins.
    pub(super) fn join(&mut self, index: NodeIx) {
        let may_resume = self.begin_run(index);
        let node = &self.nodes[index];
        let now = node.local(self.now);
        let saved = node.saved.clone().filter(|_| may_resume);
        let restored = saved.map(|(state, boot)| (state, boot == node.boot));
        let is_virtual = node.is_virtual;
        let incarnation = Incarnation(self.rng.u64(1..));
        let config = Config {
            node: node.name.clone(),
            incarnation,
            mac: node.mac,
            address: node.address,
            timers: self.history.timers,
            pace: herald_protocol::announce::Pace::default(),
            first_claim_probe: true,
            seed: self.rng.u64(..),
            mutation: self.history.mutation,
        };
        let resumes = restored.as_ref().is_some_and(|(_, same_boot)| *same_boot);
        self.trace(|| {
            format!("node {index}: speaker starts, {}", if resumes { "with its state" } else { "without state" })
        });
        let mut machine = Machine::new(now, config, self.keys_of(index), restored, is_virtual);
        if !self.takes_part(index) {
            // Also in a process that is stopped: it sends its first output when it goes on.
            machine.handle(now, Input::Carrier(false));
        }
        self.nodes[index].speaker = Some(Speaker::new(self.now, incarnation, machine));
        self.nodes[index].starts += 1;
        self.nodes[index].stopped_at = None;
        if !resumes {
            // The node knows nothing of what it owned: only its peers can tell it.
            for address in 0..self.history.addresses {
                self.judges.owners.gave_up(address, index);
            }
        }
        self.speaker_handles(index, Input::Carrier(self.net.carrier(index) && self.takes_part(index)));
        if self.net.mtu(index) != MTU {
            self.tell_mtu(index);
        }
        let gateway = self.nodes.len();
        if self.history.clients > 0 {
            let gateway = Neighbour { address: names::known_address(gateway), mac: names::mac(gateway) };
            self.speaker_handles(index, Input::Neighbours([gateway].into()));
        }
    }

    /// Gives a fact to a node's speaker, if the speaker runs.
    pub(super) fn speaker_handles(&mut self, index: NodeIx, input: Input) {
        let node = &mut self.nodes[index];
        if !node.speaks() {
            return;
        }
        let now = node.local(self.now);
        if let Some(speaker) = &mut node.speaker {
            speaker.machine.handle(now, input);
        }
        self.after(index);
    }

    /// A node's timer fires.
    pub(super) fn wake(&mut self, index: NodeIx) {
        let node = &mut self.nodes[index];
        let Some(speaker) = node.speaker.as_mut().filter(|speaker| speaker.wake == Some(self.now)) else { return };
        speaker.wake = None;
        if !node.speaks() {
            return;
        }
        self.timeout(index);
    }

    fn timeout(&mut self, index: NodeIx) {
        let node = &mut self.nodes[index];
        let now = node.local(self.now);
        let Some(speaker) = &mut node.speaker else { return };
        if speaker.machine.segment().poll_timeout().is_some_and(|due| due <= now) {
            speaker.machine.timeout(now);
            if let Some(violation) = self.judges.load.wake(self.now, index, self.judges.limits) {
                self.violate(violation);
                return;
            }
        }
        self.after(index);
    }

    /// Carries out a machine's outputs and sets its timer, after each input.
    pub(super) fn after(&mut self, index: NodeIx) {
        self.note_sibling(index);
        while let Some(output) = self.nodes[index].speaker.as_mut().and_then(|s| s.machine.poll_output()) {
            if let Some(violation) = self.judges.pace.output() {
                self.violate(violation);
                return;
            }
            self.output(index, output);
        }
        let now = self.now;
        let node = &mut self.nodes[index];
        let clock = node.clock;
        let Some(speaker) = &mut node.speaker else { return };
        if let Some(due) = speaker.machine.segment().poll_timeout() {
            let due = due.saturating_sub(clock).max(now);
            if speaker.wake.is_none_or(|wake| due < wake) {
                speaker.wake = Some(due);
                self.queue.push(due, Event::Wake(index));
            }
        }
        let answering = speaker.machine.segment().is_answering();
        if answering != speaker.answering {
            speaker.answering = answering;
            self.trace(|| format!("node {index}: {}", if answering { "answers" } else { "answers nothing" }));
            self.recheck_node(index);
        }
    }

    /// A node's process that was stopped runs again.
    pub(super) fn resume(&mut self, index: NodeIx) {
        if self.nodes[index].without_prefix > 0 {
            self.leaves_segment(index);
            return;
        }
        for interface in self.interfaces(index) {
            self.resume_run(interface);
        }
        if !self.nodes[index].speaks() {
            return;
        }
        self.update_interfaces(index);
        for interface in self.interfaces(index) {
            self.timeout(interface);
        }
        let delay = WATCH_DELAYS[self.nodes[index].watch];
        self.queue.push(self.now + delay, Event::Listed(index));
        for interface in self.interfaces(index) {
            self.recheck_node(interface);
        }
    }

    fn resume_run(&mut self, index: NodeIx) {
        let node = &mut self.nodes[index];
        if !node.speaks() {
            return;
        }
        let Some(speaker) = &mut node.speaker else { return };
        let inbox = std::mem::take(&mut speaker.inbox);
        speaker.waited = node.stopped_at.take().map(|at| (at, self.now));
        let stopped = speaker.waited.map_or(Duration::ZERO, |(from, until)| until - from);
        // A timer may just have been set when the process stopped, so one interval is added to the length of a stall.
        if stopped > lost_after(node.interval) + node.interval && inbox.is_empty() {
            speaker.listens_since = Some(self.now);
            self.ask_for_all();
        }
        // Chance decides which of its sources an event loop sees first.
        if self.rng.bool() {
            self.timeout(index);
        }
        for received in inbox {
            match received {
                Received::Frame(carried) => self.hear(index, &carried),
                Received::Packet(from, packet) => self.hear_packet(index, from, &packet),
                Received::Pong(address, mac) => self.speaker_handles(index, Input::Pong { address, mac }),
                Received::Evidence => self.speaker_handles(index, Input::Evidence),
            }
        }
        if self.history.rotations() > 0 {
            self.tell_keys(index);
        }
    }

    /// A client asks for every address, at the worst moment.
    fn ask_for_all(&mut self) {
        let (client, nodes) = (0, self.nodes.len());
        if client < self.clients.len() {
            for address in 0..self.history.addresses {
                self.solicit(nodes + client, To::All, address);
            }
        }
    }

    /// A node that has lost its last prefix on the segment leaves it without a word as soon as its speaker runs. It
    /// keeps its claims for the run with which it comes back.
    pub(super) fn leaves_segment(&mut self, index: NodeIx) {
        let node = &mut self.nodes[index];
        if node.speaks()
            && let Some(speaker) = &node.speaker
        {
            node.saved = Some((speaker.machine.segment().saved_state(), node.boot));
            self.kill(index);
        }
    }

    /// A machine that was set back to a snapshot takes part again as another run, with its claims.
    pub(super) fn joins_anew(&mut self, index: NodeIx) {
        let node = &mut self.nodes[index];
        let Some(speaker) = &node.speaker else { return };
        node.saved = Some((speaker.machine.segment().saved_state(), node.boot));
        if self.seconds.of(self.seconds.node(index)).is_some() {
            return self.rejoin(index);
        }
        self.kill(index);
        self.queue.push(self.now, Event::Start(index));
    }

    /// Stops a speaker.
    pub(super) fn stop(&mut self, index: NodeIx, stop: Stop) {
        match stop {
            Stop::Killed => self.kill(index),
            Stop::Deleted => {
                self.kill(index);
                for interface in self.interfaces(index) {
                    self.nodes[interface].saved = None;
                }
            }
            Stop::Asked(how) => {
                if how == Shutdown::Leaving {
                    self.trouble.told_to_leave[index] = Some(self.now);
                }
                self.shut_down(index, how);
                let started = self.nodes[index].starts;
                self.queue.push(self.now + GRACE, Event::Kill { node: index, started });
            }
        }
    }

    pub(super) fn kill_if_still(&mut self, index: NodeIx, started: u64) {
        let node = &self.nodes[index];
        if node.down > 0 && node.starts == started {
            self.kill(index);
        }
    }

    /// A node's process ends.
    pub(super) fn kill(&mut self, index: NodeIx) {
        for interface in self.interfaces(index) {
            self.end_run(interface);
        }
    }

    /// The run on an interface ends without a word.
    pub(super) fn end_run(&mut self, index: NodeIx) {
        let node = &mut self.nodes[index];
        let Some(speaker) = node.speaker.take() else { return };
        if speaker.leaving {
            // The node gave its addresses away, or no other node wanted them.
            self.trouble.told_to_leave[self.seconds.node(index)] = Some(self.now);
        }
        self.trace(|| format!("node {index}: speaker has ended"));
        let answered: Vec<_> = speaker.answers.keys().copied().collect();
        for address in answered {
            self.judges.answers[address].retain(|(node, _)| *node != index);
            self.recheck(address);
        }
    }
}
