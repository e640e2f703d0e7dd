//! A speaker's machine and its inputs so far. A virtual machine that is reverted to a snapshot needs the machine as it
//! was then.

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

/// The calls from which a machine can be made again: its state is a function of them.
#[derive(Clone, Debug)]
struct Log {
    born: Duration,
    config: Config,
    keys: Arc<Keyring>,
    restored: Option<(SavedState, bool)>,
    calls: Vec<(Duration, Call)>,
}

/// An input of a machine.
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
    /// Returns a machine that has just been started. If it `may_be_reverted`, it remembers all its inputs.
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

    /// Returns the engine, for questions.
    pub fn segment(&self) -> &Engine {
        &self.segment
    }

    /// Gives the machine a fact.
    pub fn handle(&mut self, now: Duration, input: Input) {
        self.note(now, || Call::Input(input.clone()));
        self.segment.handle(now, input);
    }

    /// Gives the machine a frame of the protocol.
    pub fn hear(&mut self, now: Duration, carried: &Arc<Carried>) {
        self.note(now, || Call::Frame(carried.clone()));
        match &carried.bytes {
            Some(bytes) => self.segment.handle_frame(now, bytes),
            None => self.segment.handle_opened(now, &carried.frame),
        }
    }

    /// Gives the machine bytes that no node of the cluster sent. Returns whether it took them for a frame of the
    /// cluster.
    pub fn hear_forged(&mut self, now: Duration, bytes: &[u8]) -> bool {
        self.note(now, || Call::Forged(bytes.to_vec()));
        let before = self.segment.counters().accepted;
        self.segment.handle_frame(now, bytes);
        self.segment.counters().accepted > before
    }

    /// Gives the machine an ARP or Neighbour Discovery packet. Returns its answer.
    pub fn hear_packet(&mut self, now: Duration, packet: &Packet) -> Option<MacAddr> {
        self.note(now, || Call::Packet(*packet));
        self.segment.handle_packet(now, packet)
    }

    /// Fires the machine's timer.
    pub fn timeout(&mut self, now: Duration) {
        self.note(now, || Call::Timeout);
        self.segment.handle_timeout(now);
    }

    /// Returns the machine's next output.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.segment.poll_output()
    }

    /// Returns, once, the last frame that the machine heard of the other run of its process.
    pub fn take_sibling(&mut self) -> Option<Sibling> {
        self.segment.take_sibling()
    }

    /// Returns, once, the addresses that an earlier run claimed according to peers.
    pub fn take_reminded(&mut self) -> BTreeSet<IpAddr> {
        self.segment.take_reminded()
    }

    /// Returns the deletions that the machine has learned of since the last call.
    pub fn take_deletions(&mut self) -> Vec<Deletion> {
        self.segment.take_deletions()
    }

    /// Returns a snapshot of the present state; `None` if the machine does not remember its inputs.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.log.clone().map(Snapshot)
    }

    /// Returns the machine as it was when the snapshot was taken. Its outputs until then have been carried out already.
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
    fn reverted_machine_goes_on_as_it_did() {
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
