use super::*;
use crate::rank::tests::{node, segment, speaker};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn peers(names: &[&str]) -> BTreeMap<NodeId, NodeName> {
    names.iter().map(|name| (NodeName::new(name).id(), NodeName::new(name))).collect()
}

/// Calls `ask` with the node `own`, which has one segment in 192.0.2.0/24 and hears some peers there.
fn with_own<T>(heard: &[&str], ask: impl FnOnce(Own<'_>) -> T) -> T {
    let (eth0, peers) = (segment("eth0", 1, "192.0.2.0/24"), peers(heard));
    ask(Own { node: "own", segments: &[&eth0], wires: &[Wire { segment: &eth0, peers: &peers }] })
}

fn known() -> (Speakers, Collection<Node>) {
    let names = ["own", "a", "b"];
    (
        Speakers::restored(names.iter().map(|name| speaker(name)).collect()),
        Collection::restored(names.iter().map(|name| node(name)).collect()),
    )
}

fn counted(speakers: &Speakers) -> Vec<(&str, usize)> {
    speakers.counted().iter().map(|speaker| (speaker.node.as_str(), speaker.segments.len())).collect()
}

const ALL: [(&str, usize); 3] = [("a", 1), ("b", 1), ("own", 1)];

fn delete(speakers: &mut Speakers, nodes: &Collection<Node>, name: &str) -> Changed {
    with_own(&["b"], |own| speakers.apply(s(0), Change::Deleted(name.to_owned()), own, nodes))
}

fn expire(speakers: &mut Speakers, now: u64, heard: &[&str]) -> usize {
    with_own(heard, |own| speakers.expire(s(now), own)).len()
}

#[test]
fn deleted_status_counts_for_fifteen_seconds_and_longer_while_its_speaker_is_heard() {
    let (mut speakers, nodes) = known();
    assert_eq!(delete(&mut speakers, &nodes, "a"), []);
    assert_eq!(delete(&mut speakers, &nodes, "b"), []);
    assert_eq!((counted(&speakers), speakers.poll_timeout()), (ALL.to_vec(), Some(s(15))));
    assert!(speakers.written("b").is_none(), "the API does not list it");
    assert_eq!(expire(&mut speakers, 14, &["b"]), 0);
    assert_eq!(expire(&mut speakers, 15, &["b"]), 1);
    assert_eq!(counted(&speakers), [("b", 1), ("own", 1)]);
    assert_eq!((expire(&mut speakers, 500, &["b"]), expire(&mut speakers, 501, &[])), (0, 1));
    assert_eq!((counted(&speakers), speakers.poll_timeout()), (vec![("own", 1)], None));
}

/// The speaker has just started, creates its object and is not heard yet: its status is written a moment later.
#[test]
fn deleted_status_counts_until_the_next_one_is_written() {
    let (mut speakers, nodes) = known();
    delete(&mut speakers, &nodes, "a");
    let mut apply = |segments| {
        let again = Speaker { segments, ..speaker("a") };
        with_own(&[], |own| speakers.apply(s(1), Change::Applied(again), own, &nodes)).len()
    };
    assert_eq!(apply(Vec::new()), 0, "it counts as before");
    apply(speaker("a").segments);
    assert_eq!((counted(&speakers), speakers.poll_timeout()), (ALL.to_vec(), None));
}

#[test]
fn node_hears_itself() {
    let (mut speakers, nodes) = known();
    delete(&mut speakers, &nodes, "own");
    assert_eq!(expire(&mut speakers, 60, &[]), 0);
    assert_eq!(counted(&speakers), ALL);
}

#[test]
fn status_that_is_written_again_counts_without_an_end() {
    let (mut speakers, nodes) = known();
    delete(&mut speakers, &nodes, "a");
    with_own(&[], |own| speakers.apply(s(1), Change::Applied(speaker("a")), own, &nodes));
    assert!(speakers.written("a").is_some());
    assert_eq!((expire(&mut speakers, 60, &[]), counted(&speakers)), (0, ALL.to_vec()));
}

/// The CustomResourceDefinition was deleted and made again, and the watch begins again twice.
#[test]
fn empty_listing_takes_nothing_away_and_a_second_one_does_not_delay_the_end() {
    let (mut speakers, nodes) = known();
    for at in [0, 10] {
        for step in [Change::Listing, Change::Listed] {
            assert_eq!(with_own(&[], |own| speakers.apply(s(at), step, own, &nodes)), []);
        }
    }
    assert_eq!(counted(&speakers), ALL);
    assert_eq!((expire(&mut speakers, 15, &[]), counted(&speakers)), (2, vec![("own", 1)]));
}

#[test]
fn status_of_a_node_that_is_gone_goes_with_it_in_either_order() {
    let (mut speakers, mut nodes) = known();
    delete(&mut speakers, &nodes, "b");
    nodes.apply(Change::Deleted("b".to_owned()));
    assert_eq!(speakers.forget("b").len(), 1);
    nodes.apply(Change::Deleted("a".to_owned()));
    assert_eq!(speakers.forget("a"), [], "the API still lists it");
    assert_eq!(delete(&mut speakers, &nodes, "a").len(), 1);
    assert_eq!((counted(&speakers), speakers.poll_timeout()), (vec![("own", 1)], None));
}

fn emptied(name: &str) -> Change<Speaker> {
    Change::Applied(Speaker { segments: vec![], ..speaker(name) })
}

fn set(speakers: &mut Speakers, now: u64, change: Change<Speaker>, heard: &[&str]) {
    let nodes = known().1;
    with_own(heard, |own| speakers.apply(s(now), change, own, &nodes));
}

/// `kubectl patch speaker b --subresource status`, with `segments: []`.
#[test]
fn emptied_status_of_a_speaker_that_is_heard_counts_as_it_was_for_five_seconds() {
    let (mut speakers, _) = known();
    set(&mut speakers, 0, emptied("b"), &["b"]);
    assert_eq!(counted(&speakers), ALL);
    assert_eq!(expire(&mut speakers, 4, &["b"]), 0);
    set(&mut speakers, 4, emptied("b"), &["b"]);
    assert_eq!(
        expire(&mut speakers, 5, &["b"]),
        1,
        "what is written again and is as empty puts the end off by nothing"
    );
    assert_eq!(counted(&speakers), [("a", 1), ("b", 0), ("own", 1)]);
}

#[test]
fn emptied_status_that_its_speaker_corrects_counts_without_an_end() {
    let (mut speakers, _) = known();
    set(&mut speakers, 0, emptied("b"), &["b"]);
    set(&mut speakers, 1, Change::Applied(speaker("b")), &["b"]);
    assert_eq!((counted(&speakers), speakers.poll_timeout()), (ALL.to_vec(), None));
}

/// The speaker's interface is gone, so the speaker is not heard.
#[test]
fn speaker_that_is_not_heard_and_lists_no_segment_has_none() {
    let (mut speakers, _) = known();
    set(&mut speakers, 0, emptied("a"), &["b"]);
    assert_eq!(counted(&speakers), [("a", 0), ("b", 1), ("own", 1)]);
    set(&mut speakers, 0, emptied("b"), &["b"]);
    assert_eq!(expire(&mut speakers, 1, &[]), 1, "it has fallen silent since");
    assert_eq!(counted(&speakers), [("a", 0), ("b", 0), ("own", 1)]);
}

/// Two interfaces on one wire, of which the other one speaks from now on.
#[test]
fn segment_that_another_replaces_on_the_same_wire_is_gone_at_once() {
    let (mut speakers, _) = known();
    let other = Speaker { segments: vec![segment("eth1", 9, "192.0.2.0/24")], ..speaker("b") };
    set(&mut speakers, 0, Change::Applied(other), &["b"]);
    assert_eq!(speakers.counted().get(&"b".to_owned()).unwrap().segments[0].interface.name, "eth1");
    assert_eq!(counted(&speakers), ALL);
}

fn count_heard(speakers: &mut Speakers, now: u64, heard: &[&str]) -> usize {
    let nodes = known().1;
    with_own(heard, |own| speakers.count_heard(s(now), own, &nodes)).len()
}

/// The pod is new, and the SpeakerStatus of `b` was deleted before it started. `ghost` has no Node.
#[test]
fn peer_without_a_status_counts_where_it_is_heard_until_it_is_silent() {
    let nodes = known().1;
    let mut speakers = Speakers::default();
    for step in [Change::Listing, Change::Applied(speaker("a")), Change::Listed] {
        assert_eq!(count_heard(&mut speakers, 0, &["b"]), 0, "absence means nothing before the list is complete");
        with_own(&["b"], |own| speakers.apply(s(0), step, own, &nodes));
    }
    assert_eq!(count_heard(&mut speakers, 1, &["b", "ghost"]), 1);
    assert_eq!(count_heard(&mut speakers, 2, &["b"]), 0, "it counts already");
    assert_eq!(counted(&speakers), [("a", 1), ("b", 1)]);
    assert!(speakers.written("b").is_none(), "the API does not list it");
    assert_eq!(speakers.counted().get(&"b".to_owned()).unwrap().segments[0].address, None);
    assert_eq!((expire(&mut speakers, 60, &["b"]), expire(&mut speakers, 61, &[])), (0, 1));
    assert_eq!(counted(&speakers), [("a", 1)]);
}

#[test]
fn status_takes_the_place_of_what_was_heard() {
    let nodes = known().1;
    let mut speakers = Speakers::restored(vec![speaker("own")]);
    assert_eq!(count_heard(&mut speakers, 0, &["b"]), 1);
    with_own(&["b"], |own| speakers.apply(s(1), Change::Applied(speaker("b")), own, &nodes));
    assert_eq!(speakers.written("b"), Some(&speaker("b")));
    assert_eq!(speakers.poll_timeout(), None);
}
