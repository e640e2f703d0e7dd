//! Keys, and their rotation without a gap.

use herald_protocol::{
    node::NodeId,
    wire::{Body, Frame, Hello, Key, KeyError, KeyId, Keyring, Rejected, SealError, key_of_cluster},
};
use proptest::prelude::*;
use test_case::test_case;

use crate::common::{frame, hello, key, secret};

fn keyring(keys: &[u8]) -> Keyring {
    Keyring::new(keys.iter().map(|from| key(*from)).collect()).unwrap()
}

#[test_case(0, "a key has 0 bytes, but needs at least 32: generate a new one")]
#[test_case(31, "a key has 31 bytes, but needs at least 32: generate a new one")]
fn short_keys_are_refused(length: usize, expected: &str) {
    assert_eq!(Key::new(&vec![1; length]).unwrap_err().to_string(), expected);
}

/// A secret that is copied into another cluster makes another key there, and neither key is the secret.
#[test]
fn key_is_bound_to_the_cluster() {
    let made = |secret: &[u8], cluster| key_of_cluster(secret, cluster).unwrap();
    let copied = secret(1);
    let here = made(&copied, "a");
    assert_eq!(here, made(&copied, "a"));
    for other in [made(&copied, "b"), made(&secret(2), "a"), made(&copied, "")] {
        assert_ne!(here, other);
    }
    assert_ne!(here[..], copied);
}

#[test]
fn short_secrets_are_refused() {
    assert_eq!(key_of_cluster(&[1; 31], "a"), Err(KeyError::TooShort(31)));
    assert!(key_of_cluster(&[1; 100], "a").is_ok());
}

#[test]
fn frame_of_the_copied_secret_is_foreign() {
    let keyring = |cluster| {
        let key = Key::new(&key_of_cluster(&secret(1), cluster).unwrap()).unwrap();
        Keyring::new(vec![key]).unwrap()
    };
    let (here, there) = (keyring("a"), keyring("b"));
    let sealed = there.seal(there.ids()[0], 1, &frame(Body::Hello(hello("n")))).unwrap();
    assert_eq!(here.open(&sealed), Err(Rejected::Foreign(there.ids()[0])));
}

#[test]
fn long_keys_are_taken() {
    assert_ne!(Key::new(&[1; 32]).unwrap().id(), Key::new(&[1; 100]).unwrap().id());
}

#[test_case(&[], KeyError::Count(0))]
#[test_case(&[1, 2, 3, 4, 5], KeyError::Count(5))]
#[test_case(&[1, 2, 1], KeyError::Twice(key(1).id()))]
fn keyrings_are_refused(keys: &[u8], expected: KeyError) {
    assert_eq!(Keyring::new(keys.iter().map(|from| key(*from)).collect()).unwrap_err(), expected);
}

#[test]
fn debug_shows_the_id_and_not_the_key() {
    let shown = format!("{:?}", keyring(&[0x61]));
    assert!(shown.contains(&key(0x61).id().to_string()), "{shown}");
    // The key would show as text, as a list of bytes, or as hex.
    for trace in ["abcd", "97, 98", "61626364"] {
        assert!(!shown.contains(trace), "{shown}");
    }
    assert_eq!(secret(0x61)[..4], *b"abcd");
}

/// The peers' keys by their first byte; the ring is [1, 2], 1 being the older.
#[test_case(&[], 0, 1; "no peer: in turn, first")]
#[test_case(&[], 1, 2; "no peer: in turn, second")]
#[test_case(&[], 2, 1; "no peer: in turn, third")]
#[test_case(&[&[1]], 1, 1; "the newer is not accepted yet")]
#[test_case(&[&[1, 2], &[1]], 1, 1; "not by all")]
#[test_case(&[&[1, 2], &[1, 2]], 0, 2; "by all")]
#[test_case(&[&[2], &[1, 2]], 0, 2; "the older is gone at one")]
#[test_case(&[&[2], &[1]], 0, 2; "nothing in common: the newer of two")]
#[test_case(&[&[2], &[1], &[1]], 0, 1; "nothing in common: the most")]
#[test_case(&[&[2, 3]], 0, 2; "a key that is not here does not matter")]
#[test_case(&[&[2, 1]], 0, 2; "the order of a peer does not matter")]
fn signing_key_is_one_that_the_peers_accept(peers: &[&[u8]], turn: u64, expected: u8) {
    let peers: Vec<Vec<KeyId>> = peers.iter().map(|keys| keys.iter().map(|from| key(*from).id()).collect()).collect();
    assert_eq!(keyring(&[1, 2]).signing_key(peers.iter().map(Vec::as_slice), turn), key(expected).id());
}

#[test]
fn only_keys_of_the_ring_sign_and_open() {
    let said = frame(Body::Hello(hello("n")));
    let refused = keyring(&[1]).seal(key(2).id(), 1, &said).unwrap_err();
    assert_eq!(refused, SealError::UnknownKey(key(2).id()));

    let sealed = keyring(&[1, 2]).seal(key(2).id(), 1, &said).unwrap();
    assert_eq!(keyring(&[1]).open(&sealed), Err(Rejected::Foreign(key(2).id())));
    assert_eq!(keyring(&[2]).open(&sealed), Ok(said));
}

/// A segment whose speakers send nothing but Hellos, to see which of them can read which.
struct Speakers(Vec<Speaker>);

struct Speaker {
    name: String,
    keys: Keyring,
    turn: u64,
    /// The keys of each peer whose Hello could be read.
    peers: Vec<(NodeId, Vec<KeyId>)>,
}

impl Speakers {
    fn join(&mut self, keys: &[u8]) {
        let name = format!("node-{}", self.0.len());
        self.0.push(Speaker { name, keys: keyring(keys), turn: 0, peers: Vec::new() });
    }

    /// Lets every speaker send one Hello, and returns the pairs that could not read each other.
    fn round(&mut self) -> Vec<(usize, usize)> {
        let said: Vec<Vec<u8>> = self.0.iter_mut().map(Speaker::say).collect();
        let mut unread = Vec::new();
        for (from, bytes) in said.iter().enumerate() {
            for (to, speaker) in self.0.iter_mut().enumerate().filter(|(to, _)| *to != from) {
                match speaker.keys.open(bytes) {
                    Ok(frame) => speaker.hear(frame),
                    Err(_) => unread.push((from, to)),
                }
            }
        }
        unread
    }

    /// Runs rounds, and asserts that every speaker reads every other.
    fn settle(&mut self, step: usize) {
        for round in 0..3 {
            assert_eq!(self.round(), [], "step {step}, round {round}");
        }
    }
}

impl Speaker {
    fn say(&mut self) -> Vec<u8> {
        let key = self.keys.signing_key(self.peers.iter().map(|(_, keys)| keys.as_slice()), self.turn);
        self.turn += 1;
        let said = Hello { keys: self.keys.ids().to_vec(), ..hello(&self.name) };
        self.keys.seal(key, 1, &frame(Body::Hello(said))).unwrap()
    }

    fn hear(&mut self, frame: Frame) {
        if let Body::Hello(hello) = frame.body {
            self.peers.retain(|(node, _)| *node != frame.sender.node);
            self.peers.push((frame.sender.node, hello.keys));
        }
    }
}

/// Returns the nodes of a segment, in the order in which they learn of a change.
fn order() -> impl Strategy<Value = Vec<usize>> {
    Just((0..5).collect::<Vec<usize>>()).prop_shuffle()
}

proptest! {
    /// The rotation of docs/protocol/frames.md#rotation: a key is added everywhere, then the old one is dropped
    /// everywhere. Whatever the order in which the nodes learn of it, every node reads every other at every step; and a
    /// newcomer is read, and reads, by its third round at the latest.
    #[test]
    fn rotation_has_no_gap(
        adding in order(),
        dropping in order(),
        join_at in 0..10_usize,
        with_both in any::<bool>(),
    ) {
        rotate(&adding, &dropping, join_at, with_both);
    }
}

fn rotate(adding: &[usize], dropping: &[usize], join_at: usize, with_both: bool) {
    let mut speakers = Speakers(Vec::new());
    adding.iter().for_each(|_| speakers.join(&[1]));
    for _ in 0..2 {
        assert_eq!(speakers.round(), []);
    }
    let added = adding.iter().map(|node| (*node, [1, 2].as_slice()));
    let dropped = dropping.iter().map(|node| (*node, [2].as_slice()));
    for (step, (node, keys)) in added.chain(dropped).enumerate() {
        if step == adding.len() && join_at < step {
            // The first drop waits until every node has both keys, the newcomer too.
            speakers.0[adding.len()].keys = keyring(&[1, 2]);
            speakers.settle(step);
        }
        speakers.0[node].keys = keyring(keys);
        if step == join_at {
            // The newcomer's Secret may be as old as the oldest of the others, or as new as the newest.
            let either = if step < adding.len() { [1] } else { [2] };
            speakers.join(if with_both { &[1, 2] } else { &either });
            speakers.round();
            speakers.round();
        }
        speakers.settle(step);
    }
}

#[test]
fn newcomer_with_the_old_key_only_is_heard_and_hears() {
    let mut speakers = Speakers(Vec::new());
    for _ in 0..3 {
        speakers.join(&[1, 2]);
    }
    for _ in 0..3 {
        speakers.round();
    }
    speakers.join(&[1]);
    // The others sign with the new key until they have heard the newcomer, which is heard at once.
    assert_eq!(speakers.round(), [(0, 3), (1, 3), (2, 3)]);
    assert_eq!(speakers.round(), []);
}

#[test]
fn without_peers_the_keys_take_turns() {
    // Each of the two peers has a key in common with the first speaker, which hears no peer to begin with.
    for keys in [[1].as_slice(), &[2]] {
        let mut speakers = Speakers(Vec::new());
        speakers.join(&[1, 2]);
        let first: Vec<bool> = (0..2).map(|_| keyring(keys).open(&speakers.0[0].say()).is_ok()).collect();
        assert_eq!(first.iter().filter(|read| **read).count(), 1, "one of two: {first:?}");
        speakers.join(keys);
        speakers.round();
        assert_eq!(speakers.round(), []);
    }
}
