//! Any number of claims, in frames of bounded size.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use herald_protocol::{
    claim::Birth,
    node::NodeId,
    wire::{Body, Change, Claims, FrameLimit, MAX_FRAME, changes_per_frame, delta, full_list},
};
use proptest::{collection::vec, prelude::*};
use test_case::test_case;

use crate::common::{address, claim, frame, seal};

const SUBJECT: NodeId = NodeId(7);
const LOWEST: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const HIGHEST: IpAddr = IpAddr::V6(Ipv6Addr::from_bits(u128::MAX));

fn v4(n: u32) -> Change {
    Change::Claimed(claim(Ipv4Addr::from_bits(0x0a00_0000 + n).into()))
}

fn v6(n: u32) -> Change {
    Change::Claimed(claim(Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(n)).into()))
}

fn withdrawn(text: &str) -> Change {
    Change::Withdrawn { address: address(text), birth: Birth(1), deleted: true }
}

fn is_bounded(claims: &[Claims]) -> bool {
    claims.iter().all(|claims| seal(&frame(Body::Claims(claims.clone()))).len() <= MAX_FRAME)
}

fn all(claims: &[Claims]) -> Vec<Change> {
    claims.iter().flat_map(|claims| claims.changes.clone()).collect()
}

#[test_case(v4, 0, 1)]
#[test_case(v4, 44, 1; "44 IPv4")]
#[test_case(v4, 45, 2; "45 IPv4")]
#[test_case(v6, 31, 1; "31 IPv6")]
#[test_case(v6, 32, 2; "32 IPv6")]
#[test_case(v4, 1_000, 23; "1_000 IPv4")]
#[test_case(v6, 1_000, 33; "1_000 IPv6")]
#[test_case(v4, 10_000, 228; "10_000 IPv4")]
#[test_case(v6, 10_000, 323; "10_000 IPv6")]
fn full_list_has_every_change_in_bounded_frames(change: fn(u32) -> Change, count: u32, expected: usize) {
    let changes: Vec<Change> = (0..count).map(change).collect();
    let frames = full_list(FrameLimit::LARGEST, SUBJECT, changes.clone());
    assert_eq!(frames.len(), expected);
    assert_eq!(all(&frames), changes);
    assert!(is_bounded(&frames));
}

#[test]
fn no_changes_make_no_frame() {
    assert_eq!(delta(FrameLimit::LARGEST, SUBJECT, Vec::new()), []);
}

#[test]
fn no_claims_still_make_a_list() {
    let nothing = Claims { subject: SUBJECT, range: Some((LOWEST, HIGHEST)), changes: Vec::new() };
    assert_eq!(full_list(FrameLimit::LARGEST, SUBJECT, Vec::new()), [nothing]);
}

#[test]
fn last_of_several_changes_of_an_address_counts() {
    let changes = vec![withdrawn("192.0.2.9"), withdrawn("10.0.0.1"), v4(1), withdrawn("192.0.2.1")];
    let expected = vec![v4(1), withdrawn("192.0.2.1"), withdrawn("192.0.2.9")];
    assert_eq!(
        delta(FrameLimit::LARGEST, SUBJECT, changes),
        [Claims { subject: SUBJECT, range: None, changes: expected }]
    );
}

/// The boundary between the families lies within a list.
#[test]
fn ranges_meet_across_the_families() {
    let changes: Vec<Change> = (0..40).map(v4).chain((0..31).map(v6)).collect();
    let frames = full_list(FrameLimit::LARGEST, SUBJECT, changes);
    let ranges: Vec<_> = frames.iter().filter_map(|claims| claims.range).collect();
    assert_eq!(ranges.len(), 2);
    assert!(meet(ranges[0].1, ranges[1].0), "{ranges:?}");
    let at_the_boundary = full_list(FrameLimit::LARGEST, SUBJECT, (0..44).map(v4).chain([withdrawn("::")]).collect());
    assert_eq!(at_the_boundary[0].range, Some((LOWEST, address("255.255.255.255"))));
    assert_eq!(at_the_boundary[1].range, Some((address("::"), HIGHEST)));
}

/// Returns whether there is no address between these two.
fn meet(end: IpAddr, next: IpAddr) -> bool {
    match (end, next) {
        (IpAddr::V4(end), IpAddr::V4(next)) => end.to_bits().checked_add(1) == Some(next.to_bits()),
        (IpAddr::V6(end), IpAddr::V6(next)) => end.to_bits().checked_add(1) == Some(next.to_bits()),
        (IpAddr::V4(end), IpAddr::V6(next)) => end == Ipv4Addr::BROADCAST && next.is_unspecified(),
        (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

fn anything() -> impl Strategy<Value = Change> {
    (0..3_u8, 0..500_u32).prop_map(|(kind, n)| match kind {
        0 => v4(n),
        1 => v6(n),
        _ => withdrawn(&format!("fd00::{n:x}")),
    })
}

proptest! {
    #[test]
    fn ranges_hold_every_address_once(changes in vec(anything(), 0..300)) {
        let addresses: BTreeSet<IpAddr> = changes.iter().map(Change::address).collect();
        let frames = full_list(FrameLimit::LARGEST, SUBJECT, changes.clone());
        prop_assert!(is_bounded(&frames));
        prop_assert!(frames.iter().all(|claims| claims.subject == SUBJECT));
        prop_assert!(all(&frames).iter().map(Change::address).eq(addresses.iter().copied()));
        let ranges: Vec<(IpAddr, IpAddr)> = frames.iter().map(|claims| claims.range.unwrap()).collect();
        prop_assert_eq!(ranges[0].0, LOWEST);
        prop_assert_eq!(ranges[ranges.len() - 1].1, HIGHEST);
        for pair in ranges.windows(2) {
            prop_assert!(meet(pair[0].1, pair[1].0), "{:?}", pair);
        }

        let deltas = delta(FrameLimit::LARGEST, SUBJECT, changes);
        prop_assert!(is_bounded(&deltas));
        prop_assert_eq!(all(&deltas), all(&frames));
        // Every frame but the last is as full as it can be.
        for claims in deltas.iter().rev().skip(1) {
            prop_assert!(claims.changes.len() >= changes_per_frame(FrameLimit::LARGEST));
        }
    }
}

#[test_case(576, 16; "the shortest")]
#[test_case(1300, 41)]
#[test_case(1400, 44; "the longest frame")]
#[test_case(9000, 44; "a jumbo frame is not used")]
#[test_case(68, 16; "shorter than any that is used")]
fn claims_fit_the_link(mtu: u32, per_frame: usize) {
    let limit = FrameLimit::of_mtu(mtu);
    let frames = full_list(limit, SUBJECT, (0..200).map(v4).collect());
    assert_eq!(frames[0].changes.len(), per_frame);
    for claims in frames {
        assert!(seal(&frame(Body::Claims(claims))).len() <= limit.bytes());
    }
}
