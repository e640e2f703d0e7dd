//! A speaker's machine, and what it was given so far: a virtual machine that is reverted to a snapshot needs it as it was.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use herald_protocol::{
    Config, Deletion, Engine, Input, Output, SavedState, Sibling, api_view::Packet, mac::MacAddr, wire::Keyring,
};

use crate::carried::Carried;

/// A machine.
#[derive(Debug)]
pub struct Machine {
    segment: Engine,
    log: Option<Log>,
}

/// From what a machine can be made again, call by call: it is a function of these.
#[derive(Clone, Debug)]
struct Log {
    born: Duration,
    config: Config,
    keys: Arc<Keyring>,
    restored: Option<(SavedState, bool)>,
    calls: Vec<(Duration, Call)>,
}

/// What a machine was given.
#[derive(Clone, Debug)]
enum Call {
    Input(Input),
    Frame(Arc<Carried>),
    Forged(Vec<u8>),
    Packet(Packet),
    Timeout,
}

/// A machine as it was at some time.
#[derive(Clone, Debug)]
pub struct Snapshot(Log);

impl Machine {
    /// A machine that has just been started; if it `may_be_reverted`, it remembers all it is given.
    pub fn new(
        now: Duration,
        config: Config,
        keys: Arc<Keyring>,
        restored: Option<(SavedState, bool)>,
        may_be_reverted: bool,
    ) -> Self {
        let log = may_be_reverted.then(|| Log {
            born: now,
            config: config.clone(),
            keys: keys.clone(),
            restored: restored.clone(),
            calls: Vec::new(),
        });
        Self { segment: Engine::new(now, config, keys, restored), log }
    }

    /// The machine itself, to be asked.
    pub fn segment(&self) -> &Engine {
        &self.segment
    }

    /// Gives it a fact.
    pub fn handle(&mut self, now: Duration, input: Input) {
        self.note(now, || Call::Input(input.clone()));
        self.segment.handle(now, input);
    }

    /// Gives it a frame of the protocol.
    pub fn hear(&mut self, now: Duration, carried: &Arc<Carried>) {
        self.note(now, || Call::Frame(carried.clone()));
        match &carried.bytes {
            Some(bytes) => self.segment.handle_frame(now, bytes),
            None => self.segment.handle_opened(now, &carried.frame),
        }
    }

    /// Gives it bytes that nobody of the cluster sent. Returns whether it took them for a frame of the cluster.
    pub fn hear_forged(&mut self, now: Duration, bytes: &[u8]) -> bool {
        self.note(now, || Call::Forged(bytes.to_vec()));
        let before = self.segment.counters().accepted;
        self.segment.handle_frame(now, bytes);
        self.segment.counters().accepted > before
    }

    /// Gives it an ARP or Neighbour Discovery packet. Returns its answer.
    pub fn hear_packet(&mut self, now: Duration, packet: &Packet) -> Option<MacAddr> {
        self.note(now, || Call::Packet(*packet));
        self.segment.handle_packet(now, packet)
    }

    /// Its timer is due.
    pub fn timeout(&mut self, now: Duration) {
        self.note(now, || Call::Timeout);
        self.segment.handle_timeout(now);
    }

    /// The next thing that it wants done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.segment.poll_output()
    }

    /// The frame of the other run of its process that it heard last, once.
    pub fn take_sibling(&mut self) -> Option<Sibling> {
        self.segment.take_sibling()
    }

    /// The addresses of which others have said that an earlier run claimed them, once.
    pub fn take_reminded(&mut self) -> BTreeSet<IpAddr> {
        self.segment.take_reminded()
    }

    /// The deletions that it has learned of since this was last asked.
    pub fn take_deletions(&mut self) -> Vec<Deletion> {
        self.segment.take_deletions()
    }

    /// The machine as it is now; `None` if it does not remember what it was given.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.log.clone().map(Snapshot)
    }

    /// A machine as it was when the snapshot was taken. What it wanted done by then was done.
    pub fn revert(Snapshot(log): Snapshot) -> Self {
        let mut machine = Self::new(log.born, log.config, log.keys, log.restored, true);
        for (at, call) in log.calls {
            match call {
                Call::Input(input) => machine.handle(at, input),
                Call::Frame(carried) => machine.hear(at, &carried),
                Call::Forged(bytes) => {
                    machine.hear_forged(at, &bytes);
                }
                Call::Packet(packet) => {
                    machine.hear_packet(at, &packet);
                }
                Call::Timeout => machine.timeout(at),
            }
            while machine.poll_output().is_some() {}
        }
        machine
    }

    fn note(&mut self, now: Duration, call: impl FnOnce() -> Call) {
        if let Some(log) = &mut self.log {
            log.calls.push((now, call()));
        }
    }
}

#[cfg(test)]
mod tests {
    use herald_protocol::{
        mac::MacAddr,
        node::{Incarnation, NodeName},
    };

    use super::*;
    use crate::world::keyring;

    #[test]
    fn a_reverted_machine_goes_on_as_it_did() {
        let config = Config::new(NodeName::new("node-a"), Incarnation(7), MacAddr([2, 0, 0, 0, 0, 1]));
        let start = Duration::from_secs(100);
        let mut machine = Machine::new(start, config, Arc::new(keyring(0..=0)), None, true);
        let run = |machine: &mut Machine, until: Duration| {
            let mut sent = Vec::new();
            while let Some(at) = machine.segment().poll_timeout().filter(|at| *at < until) {
                machine.timeout(at);
                sent.extend(std::iter::from_fn(|| machine.poll_output()));
            }
            sent
        };
        run(&mut machine, start + Duration::from_secs(3));
        let snapshot = machine.snapshot().unwrap();
        let until = start + Duration::from_secs(6);
        let went_on = run(&mut machine, until);
        assert!(!went_on.is_empty());
        assert_eq!(run(&mut Machine::revert(snapshot), until), went_on);
    }
}
