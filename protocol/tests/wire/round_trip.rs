//! A frame that is written and read again is unchanged.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use herald_protocol::{
    claim::{Birth, Claim, ClaimKey, Digest, Epoch, Reason},
    mac::MacAddr,
    node::{Incarnation, NodeId, NodeName},
    wire::{
        Body, Change, Claims, Frame, FrameLimit, Heard, Hello, Kernel, KeyId, MAX_FRAME, Question, SealError, Sender,
        State, changes_per_frame, heard_capacity,
    },
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use test_case::test_case;

use crate::common::{address, claim, frame, heard, hello, key, key_id, ring, seal};

fn millis(range: impl Strategy<Value = u16>) -> impl Strategy<Value = Duration> {
    range.prop_map(|millis| Duration::from_millis(millis.into()))
}

fn addresses() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
        any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
        // Close together, so that several fall into a range.
        any::<u8>().prop_map(|last| Ipv4Addr::new(192, 0, 2, last).into()),
    ]
}

fn heards() -> impl Strategy<Value = Heard> {
    let questions = || select(vec![Question::Address, Question::Ping]);
    let answered = (questions(), millis(0..=65_534_u16)).prop_map(|(question, age)| Kernel::Answered(question, age));
    let kernel = prop_oneof![questions().prop_map(Kernel::Silent), answered];
    (any::<(u64, u64, u64)>(), millis(any::<u16>()), option::of(kernel), any::<(bool, bool, bool)>()).prop_map(
        |((node, incarnation, sequence), age, kernel, (wants_echo, wants_claims, suspect))| Heard {
            node: NodeId(node),
            incarnation: Incarnation(incarnation),
            sequence,
            age,
            kernel,
            wants_echo,
            wants_claims,
            suspect,
        },
    )
}

fn hellos() -> impl Strategy<Value = Body> {
    let states = select(vec![State::Listening, State::Active, State::Restarting, State::Leaving]);
    let mac = any::<[u8; 6]>().prop_map(|mut mac| {
        mac[0] = mac[0] & !1 | 2;
        MacAddr(mac)
    });
    (
        (states, 1..=u8::MAX, any::<bool>(), millis(1..=u16::MAX), any::<u64>(), any::<u16>()),
        (any::<(u32, u64)>(), "[a-z0-9.-]{1,253}", mac, option::of(addresses())),
        (vec(any::<u64>(), 1..=4), vec(heards(), 0..=34)),
    )
        .prop_map(
            |((state, highest_version, deaf, interval, uptime, peers), (digest, name, mac, address), lists)| {
                Body::Hello(Hello {
                    state,
                    highest_version,
                    deaf,
                    interval,
                    uptime: Duration::from_millis(uptime),
                    peers,
                    claims: Digest { count: digest.0, sum: digest.1 },
                    name: NodeName::new(&name),
                    mac,
                    address,
                    keys: lists.0.into_iter().map(KeyId).collect(),
                    heard: lists.1,
                })
            },
        )
}

fn changes() -> impl Strategy<Value = Change> {
    let claimed = (addresses(), any::<(u64, u32, u64, bool)>(), any::<u8>().prop_map(Reason::of_code)).prop_map(
        |(address, (birth, epoch, key, cover), reason)| {
            Change::Claimed(Claim {
                address,
                birth: Birth(birth),
                epoch: Epoch(epoch),
                key: ClaimKey(key),
                reason,
                cover,
            })
        },
    );
    let withdrawn = (addresses(), any::<u64>(), any::<bool>())
        .prop_map(|(address, birth, deleted)| Change::Withdrawn { address, birth: Birth(birth), deleted });
    prop_oneof![claimed, withdrawn]
}

fn claims() -> impl Strategy<Value = Body> {
    (any::<u64>(), vec(changes(), 0..=changes_per_frame(FrameLimit::LARGEST)), any::<bool>()).prop_map(
        |(subject, changes, exhaustive)| {
            let by_address: BTreeMap<IpAddr, Change> =
                changes.into_iter().map(|change| (change.address(), change)).collect();
            let ends = by_address.keys().next().copied().zip(by_address.keys().next_back().copied());
            Body::Claims(Claims {
                subject: NodeId(subject),
                range: ends.filter(|_| exhaustive),
                changes: by_address.into_values().collect(),
            })
        },
    )
}

/// Returns any frame that a speaker may send.
pub fn frames() -> impl Strategy<Value = Frame> {
    (prop_oneof![hellos(), claims()], any::<u64>(), 1..=u64::MAX).prop_map(|(body, incarnation, sequence)| {
        let mut frame = frame(body);
        frame.sender = Sender { incarnation: Incarnation(incarnation), sequence, ..frame.sender };
        frame
    })
}

proptest! {
    #[test]
    fn frame_is_read_as_it_was_written(frame in frames()) {
        let bytes = seal(&frame);
        prop_assert!(bytes.len() <= MAX_FRAME);
        prop_assert_eq!(ring().open(&bytes), Ok(frame));
    }

    #[test]
    fn bytes_after_the_length_are_ignored(frame in frames(), padding in vec(any::<u8>(), 0..200)) {
        let mut bytes = seal(&frame);
        bytes.extend(padding);
        prop_assert_eq!(ring().open(&bytes), Ok(frame));
    }
}

/// Returns a Hello as it is read after it was changed in this way and written.
fn through(change: impl Fn(&mut Hello)) -> Hello {
    let mut hello = hello("n");
    change(&mut hello);
    match ring().open(&seal(&frame(Body::Hello(hello)))).unwrap().body {
        Body::Hello(hello) => hello,
        other => panic!("a Hello was written, and {other:?} was read"),
    }
}

#[test_case(Duration::from_micros(1_400), Duration::from_millis(1))]
#[test_case(Duration::from_millis(65_535), Duration::from_millis(65_535))]
#[test_case(Duration::from_secs(3600), Duration::from_millis(65_535))]
fn ages_are_cut_and_saturate(age: Duration, expected: Duration) {
    assert_eq!(through(|hello| hello.heard[0].age = age).heard[0].age, expected);
}

#[test_case(Duration::from_millis(65_534), Duration::from_millis(65_534))]
#[test_case(Duration::from_millis(65_535), Duration::from_millis(65_534); "never read as silence")]
#[test_case(Duration::MAX, Duration::from_millis(65_534))]
fn old_answer_of_a_kernel_stays_an_answer(age: Duration, expected: Duration) {
    let hello = through(|hello| hello.heard[0].kernel = Some(Kernel::Answered(Question::Address, age)));
    assert_eq!(hello.heard[0].kernel, Some(Kernel::Answered(Question::Address, expected)));
}

#[test_case(Duration::from_nanos(1), Duration::from_millis(1))]
#[test_case(Duration::from_micros(100_001), Duration::from_millis(101))]
#[test_case(Duration::from_secs(70), Duration::from_millis(65_535))]
fn intervals_are_never_promised_shorter(interval: Duration, expected: Duration) {
    assert_eq!(through(|hello| hello.interval = interval).interval, expected);
}

#[test]
fn longest_hello_fits() {
    let mut longest = hello(&"n".repeat(NodeName::MAX_LEN));
    longest.address = Some(address("2001:db8::1"));
    longest.keys = (0..4).map(|from| key(from).id()).collect();
    longest.heard = (0..heard_capacity(FrameLimit::LARGEST, &longest) as u64).map(heard).collect();
    assert_eq!(longest.heard.len(), 34);
    let bytes = seal(&frame(Body::Hello(longest.clone())));
    assert!((MAX_FRAME - 28..=MAX_FRAME).contains(&bytes.len()), "{} bytes", bytes.len());

    longest.heard.push(heard(99));
    let refused = ring().seal(key_id(), 1, &frame(Body::Hello(longest))).unwrap_err();
    assert_eq!(refused, SealError::TooLong(bytes.len() + 29));
}

#[test]
fn shortest_hello_has_room_for_most_reports() {
    let mut shortest = Hello { address: None, ..hello("n") };
    shortest.heard = (0..heard_capacity(FrameLimit::LARGEST, &shortest) as u64).map(heard).collect();
    assert_eq!(shortest.heard.len(), 44);
    assert!(seal(&frame(Body::Hello(shortest))).len() <= MAX_FRAME);
}

#[test]
fn longest_changes_fit() {
    let longest = |n: usize| Change::Claimed(claim(address(&format!("2001:db8::{n:x}"))));
    let body = |n| {
        let changes: Vec<Change> = (0..n).map(longest).collect();
        let range = Some((changes[0].address(), changes[n - 1].address()));
        Body::Claims(Claims { subject: NodeId(1), range, changes })
    };
    let most = changes_per_frame(FrameLimit::LARGEST);
    assert_eq!(most, 31);
    assert!(seal(&frame(body(most))).len() <= MAX_FRAME);
    let refused = ring().seal(key_id(), 1, &frame(body(most + 1)));
    assert!(matches!(refused, Err(SealError::TooLong(_))), "{refused:?}");
}
