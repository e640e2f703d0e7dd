//! Shutdown: a restart moves no address, a departure hands all of them over first.

use std::time::Duration;

use super::Engine;
use crate::{
    api_view::Shutdown,
    io::Event,
    wire::{Body, State},
};

/// The last Hello goes out this often: two may be lost.
const HELLOS: u32 = 3;

/// The time between two of these Hellos.
const HELLO_EVERY: Duration = Duration::from_millis(10);

/// A node that leaves waits this long for successors: five times the slowest step-in of three candidates at the default
/// interval, and well within the grace period of a pod (30 s).
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// A shutdown under way.
#[derive(Debug)]
pub(super) struct Stopping {
    kind: Shutdown,
    begun: Duration,
    said: u32,
    next: Option<Duration>,
}

impl Stopping {
    pub(super) fn next(&self) -> Option<Duration> {
        self.next
    }
}

impl Engine {
    /// Begins a shutdown.
    pub(super) fn shut_down(&mut self, now: Duration, kind: Shutdown) {
        if self.stopping.is_some() {
            return;
        }
        self.participation.end_as(match kind {
            Shutdown::Restarting => State::Restarting,
            Shutdown::Leaving => State::Leaving,
        });
        self.drop_covers();
        self.contest.clear();
        self.conflict_detection.clear();
        self.stopping = Some(Stopping { kind, begun: now, said: 0, next: Some(now) });
    }

    /// States at once that this run ends, because another run of this node goes on: peers take that one for the node's
    /// the sooner, the sooner they cease to count this one. The last Hello echoes no peer, so that peers which count
    /// the other run already stay with it.
    pub(super) fn send_last_hellos(&mut self, now: Duration) {
        self.participation.end_as(State::Restarting);
        for _ in 0..HELLOS {
            let hello = self.empty_hello(now);
            self.send(Body::Hello(hello));
        }
    }

    /// Takes the next step of a shutdown: sends the last Hellos, and waits for successors if the node leaves.
    pub(super) fn step_shutdown(&mut self, now: Duration) {
        let Some(stopping) = self.stopping.as_mut().filter(|stopping| stopping.next.is_some_and(|next| next <= now))
        else {
            return;
        };
        stopping.said += 1;
        let (said, kind, begun) = (stopping.said, stopping.kind, stopping.begun);
        let handed_over = self.claims.addresses_of(self.local.id()).next().is_none() || now >= begun + LEAVE_WITHIN;
        let finished = said >= HELLOS && (kind == Shutdown::Restarting || handed_over);
        if said <= HELLOS {
            self.send_hellos(now);
        }
        if let Some(stopping) = &mut self.stopping {
            stopping.next = (!finished).then_some(now + HELLO_EVERY);
        }
        if finished {
            self.outbox.report(Event::Finished);
        }
    }
}
