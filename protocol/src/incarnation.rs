//! Runs of a peer's speaker, as far as they are heard.
//!
//! On a segment of 1,000 nodes a speaker takes in 1,000 Hellos a second, nearly all of which repeat the last one. Such
//! a Hello touches only a [`PeerIncarnation`], which is small enough for two cache lines; its [`LastHello`] lies
//! elsewhere.

use std::{net::IpAddr, time::Duration};

use crate::{
    claim::Digest,
    mac::MacAddr,
    node::Incarnation,
    timers,
    wire::{Hello, KeyId, Sender, State},
};

/// A [`Duration`] in half the space: whole nanoseconds, at most 584 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Nanos(u64);

impl From<Duration> for Nanos {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<Nanos> for Duration {
    fn from(nanos: Nanos) -> Self {
        Self::from_nanos(nanos.0)
    }
}

/// The kind of a Hello of a run that has not shown that it hears this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noted {
    /// It is not later than what was heard of the run.
    Replayed,
    /// The run reads the same keys and versions as before.
    ReadsAsBefore,
    /// The run reads other ones, or is new.
    ReadsOther,
}

/// A run of a peer that is heard both ways.
#[derive(Clone, Debug)]
pub(crate) struct PeerIncarnation {
    /// Its incarnation.
    pub(crate) incarnation: Incarnation,
    /// Sequence of its last frame.
    sequence: u64,
    /// When its last frame came.
    heard: Nanos,
    /// When its last Hello came.
    hello_at: Nanos,
    /// Time from its last Hello until the next was due.
    interval: Nanos,
    /// Uptime in its last Hello.
    uptime: Nanos,
    /// Fingerprint of its last Hello.
    gist: HelloFingerprint,
    /// The number of peers that it hears, from its last Hello.
    hears: u16,
    /// The rest of its last Hello.
    said: Box<LastHello>,
    /// State in its last Hello.
    pub(crate) state: State,
    /// Whether its last Hello reported that it hears nothing.
    pub(crate) deaf: bool,
    /// Whether it has reported that this run of this node counts with it.
    pub(crate) counts_me: bool,
}

/// The content of a run's last Hello, which each later Hello repeats.
#[derive(Clone, Debug)]
pub(crate) struct LastHello {
    /// Digest of its claims.
    pub(crate) digest: Digest,
    /// Its link-layer address.
    pub(crate) mac: MacAddr,
    /// Its address.
    pub(crate) address: Option<IpAddr>,
    /// The keys that it accepts.
    pub(crate) keys: Vec<KeyId>,
    /// The highest version that it reads.
    pub(crate) highest_version: u8,
    /// The previous run, until that one can be heard only by replay.
    pub(crate) before: Option<Incarnation>,
}

/// A run that is heard, but has not shown that it hears this node.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    /// Its incarnation.
    pub(crate) incarnation: Incarnation,
    /// Sequence of its last frame.
    pub(crate) sequence: u64,
    /// When it was heard.
    pub(crate) heard: Duration,
    /// Time until its next Hello was due.
    pub(crate) interval: Duration,
    /// The keys that it accepts.
    pub(crate) keys: Vec<KeyId>,
    /// The highest version that it reads.
    pub(crate) highest_version: u8,
    /// Whether it has yet to be told that this Hello was heard.
    pub(crate) to_echo: bool,
}

impl Pending {
    /// Returns a run as its first Hello shows it.
    pub(crate) fn new(now: Duration, sender: Sender, hello: &Hello) -> Self {
        Self {
            incarnation: sender.incarnation,
            sequence: sender.sequence,
            heard: now,
            interval: hello.interval,
            keys: hello.keys.clone(),
            highest_version: hello.highest_version,
            to_echo: true,
        }
    }

    /// Takes in a later Hello of the same run.
    pub(crate) fn update(&mut self, now: Duration, sequence: u64, hello: &Hello) -> Noted {
        self.sequence = sequence;
        self.heard = now;
        self.interval = hello.interval;
        self.to_echo = true;
        if self.highest_version == hello.highest_version && self.keys == hello.keys {
            return Noted::ReadsAsBefore;
        }
        self.keys.clone_from(&hello.keys);
        self.highest_version = hello.highest_version;
        Noted::ReadsOther
    }
}

/// One Hello in this many is compared in full.
const COMPARED_IN_FULL: u64 = 64;

/// A fingerprint of a Hello in 64 bits: of its content but for its moment, for the number of peers that its sender
/// hears (and so its interval) and for its reports on them. It need not withstand forgery: frames are authenticated.
///
/// Two different Hellos with one fingerprint would hide the news of the second, and of those that repeat it. So not
/// every Hello is judged by its fingerprint: the news is late by [`COMPARED_IN_FULL`] Hellos or so, not lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HelloFingerprint(u64);

impl HelloFingerprint {
    /// Returns the fingerprint. Two Hellos that differ in one of the words below never agree: each word is mixed in by
    /// a bijection. If they differ in more, they agree with a probability of 2^-64.
    fn of(hello: &Hello) -> Self {
        let Hello { state, highest_version, deaf, claims, mac, address, keys, .. } = hello;
        let [a, b, c, d, e, f] = mac.0;
        let (family, address) = match address {
            None => (0, 0),
            Some(IpAddr::V4(v4)) => (4, u128::from(u32::from(*v4))),
            Some(IpAddr::V6(v6)) => (6, u128::from(*v6)),
        };
        let fixed = [
            u64::from_be_bytes([*state as u8, u8::from(*deaf), *highest_version, family, 0, 0, 0, 0]),
            u64::from_be_bytes([a, b, c, d, e, f, 0, 0]),
            claims.count.into(),
            claims.sum,
            (address >> 64) as u64,
            address as u64,
            keys.len() as u64,
        ];
        let words = fixed.into_iter().chain(keys.iter().map(|key| key.0));
        // One round of FxHash, as in rustc: the factor is odd, so that the multiplication can be undone.
        Self(words.fold(0, |gist: u64, word| (gist.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95)))
    }
}

impl PeerIncarnation {
    /// Returns a run as its first accepted Hello shows it. `before`: the previous run.
    pub(crate) fn new(now: Duration, sender: Sender, hello: &Hello, before: Option<Incarnation>) -> Self {
        let said = LastHello {
            digest: hello.claims,
            mac: hello.mac,
            address: hello.address,
            keys: hello.keys.clone(),
            highest_version: hello.highest_version,
            before,
        };
        Self {
            incarnation: sender.incarnation,
            sequence: sender.sequence,
            heard: now.into(),
            hello_at: now.into(),
            interval: hello.interval.into(),
            uptime: hello.uptime.into(),
            gist: HelloFingerprint::of(hello),
            hears: hello.peers,
            said: Box::new(said),
            state: hello.state,
            deaf: hello.deaf,
            counts_me: false,
        }
    }

    /// Returns the sequence of its last frame.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Returns when its last frame came.
    pub(crate) fn heard(&self) -> Duration {
        self.heard.into()
    }

    /// Returns the time from its last Hello until the next one was due.
    pub(crate) fn interval(&self) -> Duration {
        self.interval.into()
    }

    /// Returns the number of peers that it hears.
    pub(crate) fn hears(&self) -> u16 {
        self.hears
    }

    /// Returns the content of its last Hello.
    pub(crate) fn said(&self) -> &LastHello {
        &self.said
    }

    /// Returns how much more time passed there than here since its last Hello: for so long this machine was paused, and
    /// its clock with it.
    pub(crate) fn paused_for(&self, now: Duration, hello: &Hello) -> Duration {
        let there = hello.uptime.saturating_sub(self.uptime.into());
        there.saturating_sub(now.saturating_sub(self.hello_at.into()))
    }

    /// Returns whether this Hello is the next of this run, with no pause before it.
    fn continues(&self, now: Duration, sender: Sender, hello: &Hello) -> bool {
        self.incarnation == sender.incarnation
            && self.sequence < sender.sequence
            && self.paused_for(now, hello) <= timers::silent_after(self.interval())
    }

    /// Takes in a Hello that repeats the last one, but for its moment and for other peers, as nearly all of them do.
    /// Returns `false` if it does not repeat it.
    pub(crate) fn repeats(&mut self, now: Duration, sender: Sender, hello: &Hello) -> bool {
        let repeats = self.continues(now, sender, hello)
            && !sender.sequence.is_multiple_of(COMPARED_IN_FULL)
            && self.gist == HelloFingerprint::of(hello);
        if repeats {
            self.heard_again(now, sender.sequence, hello);
        }
        repeats
    }

    /// Takes in a Hello that changes nothing. Returns `false` if it changes something.
    pub(crate) fn says_nothing_new(&mut self, now: Duration, sender: Sender, hello: &Hello) -> bool {
        let same = self.continues(now, sender, hello)
            && hello.heard.is_empty()
            && (self.state, self.deaf, self.said.digest, self.said.mac)
                == (hello.state, hello.deaf, hello.claims, hello.mac);
        if same {
            self.update(now, sender.sequence, hello);
        }
        same
    }

    /// Takes in a later Hello of the same run.
    pub(crate) fn update(&mut self, now: Duration, sequence: u64, hello: &Hello) {
        self.heard_again(now, sequence, hello);
        self.gist = HelloFingerprint::of(hello);
        self.state = hello.state;
        self.deaf = hello.deaf;
        let said = &mut *self.said;
        said.digest = hello.claims;
        said.mac = hello.mac;
        said.address = hello.address;
        said.highest_version = hello.highest_version;
        if said.keys != hello.keys {
            said.keys.clone_from(&hello.keys);
        }
    }

    fn heard_again(&mut self, now: Duration, sequence: u64, hello: &Hello) {
        self.frame_heard(now, sequence);
        self.hello_at = now.into();
        self.uptime = hello.uptime.into();
        self.interval = hello.interval.into();
        self.hears = hello.peers;
    }

    /// A later frame of the same run has come.
    pub(crate) fn frame_heard(&mut self, now: Duration, sequence: u64) {
        self.sequence = sequence;
        self.heard = now.into();
    }

    /// This node could not hear for a while: no silence of the run has begun yet. (The rest of its interval from before
    /// does not show when it speaks next.)
    pub(crate) fn postpone(&mut self, now: Duration) {
        self.heard = now.into();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::node::NodeName;

    fn hello() -> Hello {
        Hello {
            state: State::Active,
            highest_version: 1,
            deaf: false,
            interval: Duration::from_millis(100),
            uptime: Duration::from_secs(10),
            peers: 2,
            claims: Digest { count: 1, sum: 7 },
            name: NodeName::new("a"),
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            address: Some(IpAddr::from([192, 0, 2, 1])),
            keys: vec![KeyId(1)],
            heard: Vec::new(),
        }
    }

    /// Returns changes that each make a Hello differ in one thing.
    fn news() -> impl Iterator<Item = fn(&mut Hello)> {
        let news: [fn(&mut Hello); 11] = [
            |h| h.state = State::Leaving,
            |h| h.highest_version = 2,
            |h| h.deaf = true,
            |h| h.claims.count = 2,
            |h| h.claims.sum = 8,
            |h| h.mac = MacAddr([2, 0, 0, 0, 0, 2]),
            |h| h.address = None,
            |h| h.address = Some(IpAddr::from([192, 0, 2, 2])),
            |h| h.address = Some(IpAddr::from([0, 0, 0, 0, 0, 0, 0xc000, 0x201])),
            |h| h.keys.push(KeyId(2)),
            |h| h.keys = vec![KeyId(2)],
        ];
        news.into_iter()
    }

    /// Returns changes that are no news: the number of peers that a run hears, and with it its interval.
    fn changes() -> impl Iterator<Item = fn(&mut Hello)> {
        let others: [fn(&mut Hello); 2] = [|h| h.interval = Duration::from_millis(101), |h| h.peers = 3];
        news().chain(others)
    }

    #[test]
    fn fingerprint_covers_all_news() {
        for (index, change) in news().enumerate() {
            let mut changed = hello();
            change(&mut changed);
            assert_ne!(HelloFingerprint::of(&changed), HelloFingerprint::of(&hello()), "change {index}");
        }
    }

    proptest! {
        /// A run that does not take in a repeated Hello in full is in the same state as one that does.
        #[test]
        fn repeated_hello_changes_nothing(steps in prop::collection::vec(0..20_usize, 0..20)) {
            let sender = |sequence| Sender { node: NodeName::new("a").id(), incarnation: Incarnation(1), sequence };
            let mut said = hello();
            let mut run = PeerIncarnation::new(Duration::ZERO, sender(1), &said, None);
            let mut model = run.clone();
            for (sequence, step) in (2..).zip(steps) {
                let now = Duration::from_millis(100) * u32::try_from(sequence).unwrap();
                said.uptime += Duration::from_millis(100);
                let change = changes().nth(step);
                change.into_iter().for_each(|change| change(&mut said));
                if !run.repeats(now, sender(sequence), &said) {
                    run.update(now, sequence, &said);
                }
                model.update(now, sequence, &said);
                prop_assert_eq!(format!("{run:?}"), format!("{model:?}"));
            }
        }
    }
}
