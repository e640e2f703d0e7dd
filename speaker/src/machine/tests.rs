//! The machine, fact by fact.

use herald_crds::virtual_ip::{AnnouncedReason, VirtualIPStatus};

use std::net::Ipv4Addr;

use super::*;
use crate::{
    cluster::{Change, Endpoint, Exclusion},
    rank::tests::{node, segment, slice, speaker, vip, web},
};

const VIP: &str = "192.0.2.10";
const ETH0: u32 = 2;
/// Of node "a" (see `rank::tests::speaker`).
const MAC_A: MacAddr = MacAddr([2, 0, 0, 0, 0, b'a']);
const STARTED: i64 = 1_800_000_000;

fn at(ms: u64) -> Now {
    let wall = Timestamp::from_millisecond(STARTED * 1000 + i64::try_from(ms).unwrap()).unwrap();
    Now { monotonic: Duration::from_millis(ms), wall }
}

/// The machine of node "a", in a cluster of "a" and "b".
struct Bench {
    machine: Machine,
    now: u64,
}

impl Bench {
    /// Everything listed, no VirtualIP.
    fn new() -> Self {
        Self::with(vec![])
    }

    fn with(vips: Vec<Vip>) -> Self {
        let config = Config { node: "a".to_owned(), version: "0".to_owned(), announce_rate: 500 };
        let mut bench = Self { machine: Machine::new(config), now: 0 };
        for name in ["a", "b"] {
            bench.tell(Input::Node(Change::Applied(node(name))));
            bench.tell(Input::Speaker(Change::Applied(speaker(name))));
        }
        bench.tell(Input::Node(Change::Listed));
        bench.tell(Input::Speaker(Change::Listed));
        bench.tell(Input::Interfaces(interfaces()));
        for vip in vips {
            bench.tell(Input::Vip(Change::Applied(vip)));
        }
        // Its own SpeakerStatus, which is not what these tests look at.
        assert!(bench.outputs().iter().all(|o| matches!(o, Output::WriteSpeaker(_))));
        bench.tell(Input::Vip(Change::Listed));
        bench
    }

    fn tell(&mut self, input: Input) {
        self.machine.handle(at(self.now), input);
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.machine.poll_output()).collect()
    }

    /// Lets a VirtualIP change and gives what came of it.
    fn apply(&mut self, vip: Vip) -> Vec<Output> {
        self.tell(Input::Vip(Change::Applied(vip)));
        self.outputs()
    }

    /// Does it answer a request for the address?
    fn answers(&self, address: &str) -> bool {
        let sender = MacAddr([2, 0, 0, 0, 0, 9]);
        let request = arp::announcement(address.parse().unwrap(), sender);
        let answer = self.machine.handle_frame(ETH0, PacketType::Broadcast, &request);
        assert!(answer.is_none_or(|frame| frame[..6] == sender.0 && frame[6..12] == MAC_A.0));
        answer.is_some()
    }

    /// Time passes, from timeout to timeout.
    fn pass(&mut self, until: u64) -> Vec<(u64, Output)> {
        let mut all = Vec::new();
        while let Some(next) = self.machine.poll_timeout().filter(|t| *t <= Duration::from_millis(until)) {
            self.machine.handle_timeout(next);
            let now = u64::try_from(next.as_millis()).unwrap();
            all.extend(self.outputs().into_iter().map(|o| (now, o)));
        }
        self.now = until;
        all
    }
}

fn interfaces() -> Interfaces {
    let segment = segment("eth0", b'a', "192.0.2.0/24");
    Interfaces { segments: vec![LocalSegment { index: ETH0, segment }], warnings: vec![] }
}

fn home(node: &str) -> Vip {
    let mut vip = vip(VIP);
    vip.home_node = Some(node.to_owned());
    vip
}

/// The object as the API has it once a status has been written.
fn written(mut vip: Vip, write: &VipWrite) -> Vip {
    assert_eq!(write.name, vip.name);
    assert_eq!(write.resource_version, vip.resource_version);
    vip.resource_version = (vip.resource_version.parse::<u64>().unwrap() + 1).to_string();
    vip.status = write.status.clone();
    vip
}

fn vip_writes(outputs: &[Output]) -> Vec<&VipWrite> {
    outputs.iter().filter_map(|o| if let Output::WriteVip(write) = o { Some(write) } else { None }).collect()
}

fn transmits(outputs: &[Output]) -> usize {
    outputs.iter().filter(|o| matches!(o, Output::Transmit { .. })).count()
}

fn reason(status: &VirtualIPStatus) -> &str {
    &status.conditions[0].reason
}

/// An object that node "a" gained at 0 ms, and its status.
fn announced() -> (Bench, Vip) {
    let mut bench = Bench::new();
    bench.outputs();
    let vip = home("a");
    let outputs = bench.apply(vip.clone());
    let vip = written(vip, vip_writes(&outputs)[0]);
    assert_eq!(bench.apply(vip.clone()), [], "what is written is as it should be");
    (bench, vip)
}

#[test]
fn a_gain_is_filtered_announced_told_and_written_in_this_order() {
    let mut bench = Bench::new();
    bench.outputs();
    bench.now = 5000;
    let outputs = bench.apply(home("a"));
    let address = Ipv4Addr::new(192, 0, 2, 10);
    assert_eq!(outputs[0], Output::Listen { segment: ETH0, addresses: vec![address] });
    assert_eq!(outputs[1], Output::Transmit { segment: ETH0, frame: arp::announcement(address, MAC_A) });
    assert!(matches!(outputs[2], Output::Event(Event::Gained { resumed: false, .. })));
    let Output::WriteVip(write) = &outputs[3] else { panic!("{outputs:?}") };
    let status = &write.status;
    assert_eq!(status.node.as_deref(), Some("a"));
    assert_eq!(status.interface.as_deref(), Some("eth0"));
    assert_eq!(status.mac_address, Some(MAC_A.to_string()));
    assert_eq!(status.since, Some(Time(at(5000).wall)));
    assert_eq!(status.transitions, 0);
    assert_eq!((status.conditions[0].status.as_str(), reason(status)), ("True", "Announcing"));
    assert_eq!(outputs.len(), 4);
    assert!(bench.answers(VIP));
    assert!(!bench.answers("192.0.2.11"));
    let rounds: Vec<_> = bench.pass(60_000).into_iter().map(|(t, _)| t - 5000).collect();
    assert_eq!(rounds, [100, 300, 1000, 3000]);
}

#[test]
fn an_answer_stays_on_its_segment() {
    let (bench, _) = announced();
    let request = arp::announcement(VIP.parse().unwrap(), MacAddr([2, 0, 0, 0, 0, 9]));
    assert_eq!(bench.machine.handle_frame(ETH0 + 1, PacketType::Broadcast, &request), None);
}

#[test]
fn nothing_is_decided_before_everything_is_known() {
    let (vips, nodes, speakers) =
        (|| Input::Vip(Change::Listed), || Input::Node(Change::Listed), || Input::Speaker(Change::Listed));
    let interfaces = || Input::Interfaces(interfaces());
    let facts: [&dyn Fn() -> Input; 4] = [&vips, &nodes, &speakers, &interfaces];
    for missing in 0..facts.len() {
        let config = Config { node: "a".into(), version: "0".into(), announce_rate: 500 };
        let mut machine = Machine::new(config);
        machine.handle(at(0), Input::Node(Change::Applied(node("a"))));
        machine.handle(at(0), Input::Speaker(Change::Applied(speaker("a"))));
        machine.handle(at(0), Input::Vip(Change::Applied(home("a"))));
        for (i, fact) in facts.iter().enumerate() {
            if i != missing {
                machine.handle(at(0), fact());
            }
        }
        let silent = |o: Output| matches!(o, Output::WriteSpeaker(_));
        assert!(std::iter::from_fn(|| machine.poll_output()).all(silent), "without fact {missing}");
        machine.handle(at(0), facts[missing]());
        let outputs: Vec<_> = std::iter::from_fn(|| machine.poll_output()).collect();
        assert_eq!(transmits(&outputs), 1, "with fact {missing} at last");
    }
}

#[test]
fn the_home_of_another_is_left_alone() {
    let mut bench = Bench::new();
    bench.outputs();
    assert_eq!(bench.apply(home("b")), []);
    assert!(!bench.answers(VIP));
}

#[test]
fn a_restart_resumes_and_writes_nothing() {
    let (_, vip) = announced();
    let mut bench = Bench::with(vec![vip]);
    let outputs = bench.outputs();
    assert!(
        matches!(outputs[..], [Output::Listen { .. }, Output::Event(Event::Gained { resumed: true, .. })]),
        "{outputs:?}"
    );
    assert!(bench.answers(VIP));
    assert_eq!(bench.pass(60_000).len(), 1, "one announcement that waits its turn");
}

#[test]
fn outranked_it_stops_at_once_and_leaves_the_status_to_the_new_owner() {
    let (mut bench, _) = announced();
    let mut unready = node("a");
    unready.ready = false;
    bench.tell(Input::Node(Change::Applied(unready)));
    let outputs = bench.outputs();
    assert_eq!(outputs[0], Output::Listen { segment: ETH0, addresses: vec![] });
    assert!(matches!(&outputs[1..], [Output::Event(Event::Lost { why: Silence::Outranked(by), .. })] if by == "b"));
    assert!(!bench.answers(VIP));
    assert_eq!(bench.pass(60_000), [], "what was pending is cancelled");
}

#[test]
fn taking_over_counts_a_transition() {
    let (_, mut vip) = announced();
    vip.status.node = Some("b".to_owned());
    let mut bench = Bench::with(vec![vip.clone()]);
    assert_eq!(bench.outputs(), [], "b announces it");
    let mut unready = node("b");
    unready.ready = false;
    bench.now = 9000;
    bench.tell(Input::Node(Change::Applied(unready)));
    let outputs = bench.outputs();
    let write = vip_writes(&outputs)[0];
    assert_eq!(write.status.transitions, 1);
    assert_eq!(write.status.since, Some(Time(at(9000).wall)));
    let condition = &write.status.conditions[0];
    assert_eq!(condition.last_transition_time, vip.status.conditions[0].last_transition_time, "True all the time");
}

#[test]
fn if_nobody_may_the_status_is_cleared_with_the_reason() {
    let (_, vip) = announced();
    let mut bench = Bench::with(vec![vip.clone()]);
    bench.outputs();
    let mut excluded = node("b");
    excluded.excluded = Some(Exclusion::Label);
    bench.tell(Input::Node(Change::Applied(excluded)));
    let mut excluded = node("a");
    excluded.excluded = Some(Exclusion::DrainTaint);
    bench.tell(Input::Node(Change::Applied(excluded)));
    let outputs = bench.outputs();
    let write = vip_writes(&outputs)[0];
    assert_eq!((write.status.node.as_ref(), write.status.since.as_ref()), (None, None));
    let condition = &write.status.conditions[0];
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "Ineligible"));
    assert!(condition.message.contains("taint heraldlb.io/drain"), "{}", condition.message);
    assert!(!bench.answers(VIP));
    assert_eq!(bench.apply(written(vip, write)), []);
}

#[test]
fn deletion_silences_first_and_then_says_so() {
    let (mut bench, mut vip) = announced();
    vip.deleting = true;
    vip.resource_version = "7".to_owned();
    let outputs = bench.apply(vip.clone());
    assert_eq!(outputs[0], Output::Listen { segment: ETH0, addresses: vec![] });
    assert!(matches!(outputs[1], Output::Event(Event::Lost { why: Silence::Deleting, .. })));
    let write = vip_writes(&outputs)[0];
    assert_eq!(reason(&write.status), AnnouncedReason::Withdrawn.as_str());
    assert_eq!(write.status.node, None);
    assert!(!bench.answers(VIP));
    assert_eq!(bench.pass(60_000), []);
    assert_eq!(bench.apply(written(vip, write)), []);
    bench.tell(Input::Vip(Change::Deleted(VIP.parse().unwrap())));
    assert_eq!(bench.outputs(), []);
}

#[test]
fn a_withdrawal_refused_for_its_version_is_written_again() {
    let mut bench = Bench::new();
    bench.outputs();
    let mut vip = home("a");
    bench.apply(vip.clone());
    // Deleted before the first status was written.
    vip.deleting = true;
    for version in ["2", "3"] {
        vip.resource_version = version.to_owned();
        let outputs = bench.apply(vip.clone());
        assert_eq!(vip_writes(&outputs)[0].resource_version, version);
    }
}

#[test]
fn who_never_answered_withdraws_nothing() {
    let mut bench = Bench::new();
    bench.outputs();
    let mut vip = home("b");
    vip.deleting = true;
    assert_eq!(bench.apply(vip), []);
}

#[test]
fn a_restart_during_deletion_still_withdraws() {
    let (_, mut vip) = announced();
    vip.deleting = true;
    let mut bench = Bench::with(vec![vip]);
    let outputs = bench.outputs();
    assert_eq!(reason(&vip_writes(&outputs)[0].status), "Withdrawn");
    assert_eq!(transmits(&outputs), 0);
}

#[test]
fn a_write_is_emitted_once_per_version() {
    let mut bench = Bench::new();
    bench.outputs();
    let mut vip = home("a");
    assert_eq!(vip_writes(&bench.apply(vip.clone())).len(), 1);
    bench.tell(Input::Interfaces(interfaces()));
    assert_eq!(bench.outputs(), [], "the same version again");
    vip.resource_version = "2".to_owned();
    assert_eq!(vip_writes(&bench.apply(vip)).len(), 1, "a new version without our status");
}

#[test]
fn a_new_mac_is_announced_and_written() {
    let (mut bench, _) = announced();
    let mut changed = interfaces();
    changed.segments[0].segment.mac = MacAddr([2, 0, 0, 0, 0, 0x77]);
    bench.tell(Input::Interfaces(changed));
    let outputs = bench.outputs();
    assert_eq!(transmits(&outputs), 1);
    let write = vip_writes(&outputs)[0];
    assert_eq!(write.status.mac_address.as_deref(), Some("02:00:00:00:00:77"));
    assert_eq!(write.status.transitions, 0);
    assert_eq!(write.status.since, Some(Time(at(0).wall)));
}

#[test]
fn a_lost_node_that_still_answers_does_not_contradict_the_controller_until_it_is_ready() {
    let (mut bench, mut vip) = announced();
    for name in ["a", "b"] {
        let mut unready = node(name);
        unready.ready = false;
        bench.tell(Input::Node(Change::Applied(unready)));
    }
    bench.outputs();
    vip.status.conditions[0].reason = AnnouncedReason::NodeLost.as_str().to_owned();
    vip.resource_version = "9".to_owned();
    assert_eq!(vip_writes(&bench.apply(vip)), [] as [&VipWrite; 0]);
    assert!(bench.answers(VIP), "if none is Ready nothing moves");
    bench.tell(Input::Node(Change::Applied(node("a"))));
    assert_eq!(reason(&vip_writes(&bench.outputs())[0].status), "Announcing");
}

#[test]
fn without_its_interface_it_is_silent() {
    let (mut bench, _) = announced();
    bench.tell(Input::Interfaces(Interfaces::default()));
    let outputs = bench.outputs();
    assert!(outputs.iter().any(|o| matches!(o, Output::Event(Event::Lost { why: Silence::InterfaceGone(_), .. }))));
    assert!(outputs.iter().any(|o| matches!(o, Output::WriteSpeaker(w) if w.status.segments.is_empty())));
    assert!(!bench.answers(VIP));
    assert_eq!(bench.pass(60_000), []);
}

#[test]
fn a_local_address_waits_for_its_endpoints() {
    let mut bench = Bench::new();
    bench.outputs();
    let mut vip = home("a");
    vip.local_to = Some(vec![web()]);
    assert_eq!(bench.apply(vip.clone()), [Output::WatchSlices(BTreeSet::from([web()]))]);
    bench.tell(Input::Slice(Change::Applied(slice(&[("a", Endpoint::Ready)]))));
    bench.tell(Input::Slice(Change::Listed));
    assert_eq!(bench.outputs(), []);
    bench.tell(Input::SlicesCover(BTreeSet::from([web()])));
    assert!(bench.answers(VIP));
    bench.outputs();
    bench.tell(Input::Slice(Change::Applied(slice(&[("b", Endpoint::Ready)]))));
    assert!(!bench.answers(VIP), "the endpoint moved to b");
    bench.outputs();
    vip.local_to = None;
    assert_eq!(bench.apply(vip)[0], Output::Listen { segment: ETH0, addresses: vec![VIP.parse().unwrap()] });
}

#[test]
fn no_slices_are_watched_without_a_local_address() {
    let mut bench = Bench::new();
    let mut outputs = bench.outputs();
    outputs.extend(bench.apply(home("a")));
    assert!(!outputs.iter().any(|o| matches!(o, Output::WatchSlices(_))));
}

#[test]
fn the_speaker_status_is_written_once_and_again_when_it_is_lost() {
    let config = Config { node: "a".into(), version: "0".into(), announce_rate: 500 };
    let mut machine = Machine::new(config);
    let mut tell = |input| {
        machine.handle(at(0), input);
        std::iter::from_fn(|| machine.poll_output())
            .filter_map(|o| if let Output::WriteSpeaker(write) = o { Some(write) } else { None })
            .collect::<Vec<_>>()
    };
    assert_eq!(tell(Input::Interfaces(interfaces())), []);
    assert_eq!(tell(Input::Speaker(Change::Listed)), []);
    let writes = tell(Input::Node(Change::Applied(node("a"))));
    assert_eq!(writes.len(), 1, "now that the Node that owns it is known");
    assert_eq!(writes[0].node_uid, "uid-a");
    assert_eq!(tell(Input::Node(Change::Listed)), []);
    let own = Speaker { own: Some(writes[0].status.clone()), ..speaker("a") };
    assert_eq!(tell(Input::Speaker(Change::Applied(own))), []);
    assert_eq!(tell(Input::Speaker(Change::Deleted("a".into()))).len(), 1);
}

#[test]
fn a_thousand_addresses_make_one_filter() {
    let vips = (0..1000u32).map(|i| {
        let mut vip = vip(&Ipv4Addr::from_bits(0xc000_0200 + i).to_string());
        vip.home_node = Some("a".to_owned());
        vip.rules[0].interfaces = vec![herald_crds::advertisement::InterfacePattern("eth0".to_owned())];
        vip
    });
    let mut bench = Bench::with(vips.collect());
    let outputs = bench.outputs();
    let filters = outputs.iter().filter(|o| matches!(o, Output::Listen { .. })).count();
    assert_eq!((filters, transmits(&outputs), vip_writes(&outputs).len()), (1, 1000, 1000));
}

#[test]
fn segments_do_not_wait_for_each_other() {
    let config = Config { node: "a".into(), version: "0".into(), announce_rate: 1 };
    let mut bench = Bench { machine: Machine::new(config), now: 0 };
    let segments = [segment("eth0", b'a', "192.0.2.0/24"), segment("eth1", b'a', "198.51.100.0/24")];
    bench.tell(Input::Node(Change::Applied(node("a"))));
    bench.tell(Input::Node(Change::Listed));
    bench.tell(Input::Speaker(Change::Applied(Speaker { segments: segments.to_vec(), ..speaker("a") })));
    bench.tell(Input::Speaker(Change::Listed));
    let local = segments.into_iter().zip(ETH0..).map(|(segment, index)| LocalSegment { index, segment });
    bench.tell(Input::Interfaces(Interfaces { segments: local.collect(), warnings: vec![] }));
    for address in [VIP, "198.51.100.10"] {
        bench.tell(Input::Vip(Change::Applied(vip(address))));
    }
    bench.tell(Input::Vip(Change::Listed));
    bench.outputs();
    let sent = bench.pass(100).into_iter().map(|(at, output)| match output {
        Output::Transmit { segment, .. } => (at, segment),
        other => panic!("{other:?}"),
    });
    assert_eq!(sent.collect::<Vec<_>>(), [(100, ETH0), (100, ETH0 + 1)]);
}

#[test]
fn ipv6_is_left_alone() {
    let mut vip = vip("2001:db8::10");
    vip.home_node = Some("a".to_owned());
    vip.rules[0].interfaces = vec![herald_crds::advertisement::InterfacePattern("eth0".to_owned())];
    assert_eq!(Bench::with(vec![vip]).outputs(), []);
}
