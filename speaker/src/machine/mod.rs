//! The speaker's core: everything it decides, as one synchronous machine.
//!
//! No sockets, clock, tasks or API client here. Facts go in through [`Machine::handle`] and [`Machine::handle_frame`],
//! time passes by [`Machine::handle_timeout`] (when [`Machine::poll_timeout`] says so), and what is to be done comes
//! out of [`Machine::poll_output`] as values. The convention is that of quinn-proto: the same code runs on a wire and
//! under a test that makes time.
//!
//! **Ownership.** This node announces an address if it is first in the order of [`rank`], on the local
//! interface the order names. It decides nothing before every kind has been listed once and the interfaces are known:
//! until then, absence means nothing.
//!
//! **Status.** Whoever announces writes VirtualIP.status. A node that is outranked falls silent and writes nothing:
//! the new owner overwrites it. A node that may no longer announce, with no other to follow, clears the status. Each
//! write carries the version of the object it was decided from, so a node that lost cannot overwrite a newer owner;
//! the version that refused it comes in by the watch and is decided anew.

mod status;
mod types;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use herald_crds::speaker_status::SpeakerStatusStatus;
use herald_segment::{announce::Announcer, mac::MacAddr};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    arp::{self, Frame},
    cluster::{Collection, Node, ServiceName, Slice, Speaker, Vip},
    interfaces::LocalSegment,
    rank::{self, View},
    socket::PacketType,
};
use status::{Essence, Report, essence};
pub use types::{Config, Event, Input, Interfaces, Now, Output, Silence, SpeakerWrite, VipWrite};

/// What this node does about one address.
#[derive(Debug, Default)]
struct Duty {
    owned: Option<Owned>,
    /// Has it answered for the address since the VirtualIP appeared?
    answered: bool,
    /// The last status emitted, and the version of the object it was decided from: emitted once.
    emitted: Option<(String, Essence)>,
}

/// An address this node answers for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owned {
    segment: u32,
    interface: String,
    mac: MacAddr,
    since: Timestamp,
}

/// What to do about an address.
enum Verdict {
    Announce(LocalSegment),
    Silent(Silence),
    /// Too little is known: stay as it is.
    Wait,
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    config: Config,
    vips: Collection<Vip>,
    nodes: Collection<Node>,
    speakers: Collection<Speaker>,
    slices: Collection<Slice>,
    /// Services whose slices are completely known.
    covered: BTreeSet<ServiceName>,
    /// Services whose slices are asked for.
    wanted: BTreeSet<ServiceName>,
    interfaces: Option<Interfaces>,
    duties: BTreeMap<IpAddr, Duty>,
    /// By segment: made when an address is gained there, gone with the segment.
    announcers: BTreeMap<u32, Announcer>,
    /// Segments whose set of owned addresses has changed.
    relisten: BTreeSet<u32>,
    speaker_emitted: Option<(Option<Speaker>, SpeakerStatusStatus)>,
    outputs: VecDeque<Output>,
}

impl Machine {
    /// A machine that knows nothing yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            vips: Collection::default(),
            nodes: Collection::default(),
            speakers: Collection::default(),
            slices: Collection::default(),
            covered: BTreeSet::new(),
            wanted: BTreeSet::new(),
            interfaces: None,
            duties: BTreeMap::new(),
            announcers: BTreeMap::new(),
            relisten: BTreeSet::new(),
            speaker_emitted: None,
            outputs: VecDeque::new(),
        }
    }

    /// Takes in a fact and decides what follows from it.
    pub fn handle(&mut self, now: Now, input: Input) {
        let was_ready = self.is_ready();
        let concerned = self.take_in(input);
        if self.is_ready() {
            let concerned = if was_ready { concerned } else { Concerned::All };
            let addresses: Vec<IpAddr> = match concerned {
                Concerned::All => {
                    // Also what is owned but no longer known.
                    let known = self.vips.iter().map(|vip| vip.address);
                    known.chain(self.duties.keys().copied()).collect::<BTreeSet<_>>().into_iter().collect()
                }
                Concerned::Only(addresses) => addresses,
            };
            for address in addresses {
                self.evaluate(now, address);
            }
        }
        self.report_speaker();
        self.listen();
    }

    /// The answer to a frame received on a segment, if it asks for an address owned there.
    pub fn handle_frame(&self, segment: u32, packet_type: PacketType, frame: &[u8]) -> Option<Frame> {
        let interfaces = self.interfaces.as_ref()?;
        let own = interfaces.segments.iter().find(|s| s.index == segment)?.segment.mac;
        let request = arp::read_request(frame, packet_type, own)?;
        let owned = self.duties.get(&request.target.into())?.owned.as_ref()?;
        (owned.segment == segment).then(|| arp::answer(&request, owned.mac))
    }

    /// Sends what is due.
    pub fn handle_timeout(&mut self, now: Duration) {
        for (segment, announcer) in &mut self.announcers {
            while let Some(address) = announcer.poll(now) {
                // What is no longer owned was cancelled, so there is a MAC for all that comes out.
                let owned = self.duties.get(&address).and_then(|duty| duty.owned.as_ref());
                if let (IpAddr::V4(v4), Some(owned)) = (address, owned) {
                    let frame = arp::announcement(v4, owned.mac);
                    self.outputs.push_back(Output::Transmit { segment: *segment, frame });
                }
            }
        }
    }

    /// When [`Machine::handle_timeout`] has something to do; `None`: not before something else happens.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.announcers.values().filter_map(Announcer::poll_timeout).min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn is_ready(&self) -> bool {
        self.vips.is_listed() && self.nodes.is_listed() && self.speakers.is_listed() && self.interfaces.is_some()
    }

    /// Stores a fact, and says which addresses it concerns.
    fn take_in(&mut self, input: Input) -> Concerned {
        match input {
            Input::Vip(change) => {
                let changed = self.vips.apply(change);
                self.want_slices();
                Concerned::Only(changed.into_iter().map(|(address, _)| address).collect())
            }
            Input::Node(change) => Concerned::all_if(!self.nodes.apply(change).is_empty()),
            Input::Speaker(change) => {
                let changed = self.speakers.apply(change);
                let moved = |(node, before): (String, Option<Speaker>)| {
                    self.speakers.get(&node).map(|s| &s.segments) != before.as_ref().map(|s| &s.segments)
                };
                Concerned::all_if(changed.into_iter().any(moved))
            }
            Input::Slice(change) => {
                let services: BTreeSet<_> = self.slices.apply(change).into_iter().map(|((s, _), _)| s).collect();
                self.served_by(&services)
            }
            Input::SlicesCover(services) => {
                let new = services.difference(&self.covered).cloned().collect();
                self.covered = services;
                self.served_by(&new)
            }
            Input::Interfaces(interfaces) => {
                let indices: BTreeSet<u32> = interfaces.segments.iter().map(|s| s.index).collect();
                self.announcers.retain(|segment, _| indices.contains(segment));
                self.interfaces = Some(interfaces);
                Concerned::All
            }
        }
    }

    /// The addresses whose owner depends on endpoints of these Services.
    fn served_by(&self, services: &BTreeSet<ServiceName>) -> Concerned {
        if services.is_empty() {
            return Concerned::Only(Vec::new());
        }
        let depends = |vip: &&Vip| vip.local_to.iter().flatten().any(|service| services.contains(service));
        Concerned::Only(self.vips.iter().filter(depends).map(|vip| vip.address).collect())
    }

    /// Asks for the EndpointSlices that decide about an address, and for no others.
    fn want_slices(&mut self) {
        if !self.vips.is_listed() {
            return;
        }
        let alive = self.vips.iter().filter(|vip| !vip.deleting);
        let wanted: BTreeSet<_> = alive.flat_map(|vip| vip.local_to.iter().flatten().cloned()).collect();
        if wanted != self.wanted {
            // What is no longer watched is no longer known.
            self.covered.retain(|service| wanted.contains(service));
            self.wanted = wanted.clone();
            self.outputs.push_back(Output::WatchSlices(wanted));
        }
    }

    fn judge(&self, address: IpAddr) -> Verdict {
        let Some(vip) = self.vips.get(&address) else { return Verdict::Silent(Silence::Gone) };
        if vip.deleting {
            return Verdict::Silent(Silence::Deleting);
        }
        if !address.is_ipv4() {
            return Verdict::Silent(Silence::NotIpv4);
        }
        if vip.local_to.iter().flatten().any(|service| !self.covered.contains(service)) {
            return Verdict::Wait;
        }
        let view = View { nodes: &self.nodes, speakers: &self.speakers, slices: &self.slices };
        let ranking = rank::rank(vip, view);
        match ranking.order.first() {
            None => Verdict::Silent(Silence::Ineligible(ranking.refusal(&self.config.node))),
            Some(first) if first.node != self.config.node => Verdict::Silent(Silence::Outranked(first.node.to_owned())),
            Some(first) => {
                let mut local = self.interfaces.iter().flat_map(|i| &i.segments);
                match local.find(|s| s.segment.interface == first.interface) {
                    Some(segment) => Verdict::Announce(segment.clone()),
                    None => Verdict::Silent(Silence::InterfaceGone(first.interface.to_owned())),
                }
            }
        }
    }

    fn evaluate(&mut self, now: Now, address: IpAddr) {
        let report = match self.judge(address) {
            Verdict::Wait => return,
            Verdict::Announce(segment) => {
                self.announce(now, address, &segment);
                Report::Announcing
            }
            Verdict::Silent(why) => {
                self.fall_silent(address, &why);
                match why {
                    Silence::Gone => {
                        self.duties.remove(&address);
                        return;
                    }
                    Silence::Deleting => Report::Withdrawn,
                    Silence::Ineligible(refusal) => Report::Ineligible(refusal),
                    Silence::Outranked(_) | Silence::InterfaceGone(_) | Silence::NotIpv4 => return,
                }
            }
        };
        self.report_vip(now, address, &report);
    }

    fn announce(&mut self, now: Now, address: IpAddr, local: &LocalSegment) {
        let IpAddr::V4(v4) = address else { return };
        let (segment, mac) = (local.index, local.segment.mac);
        let interface = local.segment.interface.clone();
        let duty = self.duties.entry(address).or_default();
        let before = duty.owned.take();
        if let Some(owned) = &before
            && (owned.segment, owned.mac, &owned.interface) == (segment, mac, &interface)
        {
            duty.owned = before;
            return;
        }
        let status = self.vips.get(&address).map(|vip| &vip.status);
        let resumed =
            before.is_none() && status.is_some_and(|s| status::announces(s, &self.config.node, &interface, mac));
        let written = status.filter(|_| resumed).and_then(|s| s.since.clone()).map(|Time(since)| since);
        let since = before.as_ref().map(|owned| owned.since).or(written).unwrap_or(now.wall);
        if let Some(before) = &before {
            self.cancel_announcements(before.segment, address);
            self.relisten.insert(before.segment);
        }
        self.relisten.insert(segment);
        let duty = self.duties.entry(address).or_default();
        duty.owned = Some(Owned { segment, interface: interface.clone(), mac, since });
        duty.answered = true;
        let rate = self.config.announce_rate;
        let announcer = self.announcers.entry(segment).or_insert_with(|| Announcer::new(rate));
        if resumed {
            announcer.resumed(now.monotonic, address);
        } else {
            self.outputs.push_back(Output::Transmit { segment, frame: arp::announcement(v4, mac) });
            announcer.gained(now.monotonic, address);
        }
        self.outputs.push_back(Output::Event(Event::Gained { address, interface, resumed }));
    }

    fn fall_silent(&mut self, address: IpAddr, why: &Silence) {
        let Some(owned) = self.duties.get_mut(&address).and_then(|duty| duty.owned.take()) else { return };
        self.cancel_announcements(owned.segment, address);
        self.relisten.insert(owned.segment);
        self.outputs.push_back(Output::Event(Event::Lost { address, why: why.clone() }));
    }

    fn cancel_announcements(&mut self, segment: u32, address: IpAddr) {
        if let Some(announcer) = self.announcers.get_mut(&segment) {
            announcer.cancel(address);
        }
    }

    /// Emits the filters of the segments on which something was gained or lost, before all else: whom an announcement
    /// reaches may ask at once.
    fn listen(&mut self) {
        let Some(interfaces) = &self.interfaces else { return };
        for segment in std::mem::take(&mut self.relisten) {
            // A segment that is gone took its filter along.
            if !interfaces.segments.iter().any(|s| s.index == segment) {
                continue;
            }
            let owned = |(address, duty): (&IpAddr, &Duty)| match (address, &duty.owned) {
                (IpAddr::V4(v4), Some(owned)) if owned.segment == segment => Some(*v4),
                _ => None,
            };
            let addresses = self.duties.iter().filter_map(owned).collect();
            self.outputs.push_front(Output::Listen { segment, addresses });
        }
    }

    fn report_vip(&mut self, now: Now, address: IpAddr, report: &Report) {
        let Some(vip) = self.vips.get(&address) else { return };
        let duty = self.duties.entry(address).or_default();
        let ready = self.nodes.get(&self.config.node).is_some_and(|node| node.ready);
        if !ready && status::is_node_lost(&vip.status) {
            // The controller has said what the API knows of this node. Two truths must not overwrite each other for
            // ever: this node says so again when it is Ready.
            return;
        }
        let Some(status) = status::desired(vip, &self.config.node, duty, report, now.wall) else { return };
        let emitted = (vip.resource_version.clone(), essence(&status));
        if emitted.1 == essence(&vip.status) || duty.emitted.as_ref() == Some(&emitted) {
            return;
        }
        duty.emitted = Some(emitted);
        self.outputs.push_back(Output::WriteVip(VipWrite {
            name: vip.name.clone(),
            resource_version: vip.resource_version.clone(),
            status,
        }));
    }

    /// Emits this node's SpeakerStatus where the API has another or none.
    fn report_speaker(&mut self) {
        let (Some(interfaces), true) = (&self.interfaces, self.speakers.is_listed()) else { return };
        // The Node owns the object, so it must be known.
        let Some(node) = self.nodes.get(&self.config.node) else { return };
        let status = SpeakerStatusStatus {
            version: self.config.version.clone(),
            segments: interfaces.segments.iter().map(|s| s.segment.to_status()).collect(),
            warnings: interfaces.warnings.clone(),
        };
        let written = self.speakers.get(&self.config.node).cloned();
        if written.as_ref().and_then(|s| s.own.as_ref()) == Some(&status) {
            // Arrived: should it get lost, it is emitted again.
            self.speaker_emitted = None;
            return;
        }
        let emitted = (written, status);
        if self.speaker_emitted.as_ref() == Some(&emitted) {
            return;
        }
        let write = SpeakerWrite { node: node.name.clone(), node_uid: node.uid.clone(), status: emitted.1.clone() };
        self.speaker_emitted = Some(emitted);
        self.outputs.push_back(Output::WriteSpeaker(write));
    }
}

/// The addresses a fact bears on.
enum Concerned {
    All,
    Only(Vec<IpAddr>),
}

impl Concerned {
    fn all_if(all: bool) -> Self {
        if all { Self::All } else { Self::Only(Vec::new()) }
    }
}

#[cfg(test)]
mod tests;
