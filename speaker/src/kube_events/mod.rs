//! Kubernetes Events, for people who describe a Node or a Service. Pure; [`event_writer`](crate::event_writer) posts
//! them.
//!
//! One Event is posted per take-over on the Node that lost its addresses, with their number; one per conflict on each
//! Service of the address; one on a Node whose speaker has been silent for a minute. A fact is reported once: this
//! module remembers the facts that it reported, and a fact that several speakers see has the same object name, so that
//! the API server refuses the second.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use herald_crds::virtual_ip::ServiceReference;
use herald_protocol::{Event, claim::Reason, mac::MacAddr, node::NodeId};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

/// Time within which the take-overs of addresses of one node become one Event.
const COALESCE: Duration = Duration::from_secs(1);

/// Time for which a reported fact is not reported again while it is seen: as long as upstream's recorder counts an
/// Event up rather than repeats it (client-go, tools/events, finishTime).
const TOLD_FOR: Duration = Duration::from_secs(360);

/// Number of facts remembered at most. Any host on the segment can invent conflicts, each with a new link-layer
/// address.
const FACTS: usize = 256;

/// A Node object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeReference {
    /// The name.
    pub name: String,
    /// The UID.
    pub uid: String,
}

/// The object that an Event is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Regarding {
    /// A Node.
    Node(NodeReference),
    /// A Service.
    Service(ServiceReference),
}

impl Regarding {
    fn name_and_uid(&self) -> (&str, &str) {
        match self {
            Self::Node(node) => (&node.name, &node.uid),
            Self::Service(service) => (&service.name, &service.uid),
        }
    }
}

/// An Event to post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventValue {
    /// The object's name: the same for the same fact, whichever speaker reports it.
    pub name: String,
    /// The object that the Event is about.
    pub regarding: Regarding,
    /// Whether the type is Warning instead of Normal.
    pub warning: bool,
    /// The reason, a word in CamelCase.
    pub reason: &'static str,
    /// The action that was taken or attempted.
    pub action: &'static str,
    /// The note, a sentence.
    pub note: String,
    /// The time of the fact.
    pub at: Timestamp,
}

/// The API's view, as far as Events need it.
pub trait Directory {
    /// Returns the Node with this id; `None` if the API has none.
    fn node(&self, id: NodeId) -> Option<NodeReference>;
    /// Returns the Services of an address.
    fn services(&self, address: IpAddr) -> Vec<ServiceReference>;
}

/// A fact that is reported once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fact {
    Conflict(IpAddr, MacAddr),
    Answered(IpAddr, NodeId),
    Unannounced(IpAddr),
    Silent(NodeId),
}

/// Addresses taken over from one node for one reason.
#[derive(Debug)]
struct TakeOver {
    /// The time at which the take-over is reported.
    due: Duration,
    from: NodeReference,
    addresses: BTreeSet<IpAddr>,
    /// The longest time from the last sign of the former owner's speaker to a claim.
    silent_for: Option<Duration>,
}

/// Makes Kubernetes Events of the events on all segments of a node.
#[derive(Debug)]
pub struct Coalescer {
    /// This node's name.
    node: String,
    take_overs: BTreeMap<(NodeId, Reason), TakeOver>,
    /// The facts that were reported, and when each was last seen.
    told: BTreeMap<Fact, Duration>,
    ready: VecDeque<EventValue>,
}

impl Coalescer {
    /// Returns a coalescer without facts. `node` is the name of this node.
    pub fn new(node: &str) -> Self {
        Self { node: node.to_owned(), take_overs: BTreeMap::new(), told: BTreeMap::new(), ready: VecDeque::new() }
    }

    /// Takes in an event on a segment. `at` is the same moment as `now`, by the wall clock.
    pub fn event(&mut self, now: Duration, at: Timestamp, interface: &str, event: &Event, api: &impl Directory) {
        match *event {
            Event::Owned { claim, from: Some(from), silent_for } if cause(claim.reason).is_some() => {
                self.taken_over(now, claim.reason, claim.address, from, silent_for, api);
            }
            Event::Conflict { address, mac } if self.is_news(now, Fact::Conflict(address, mac)) => {
                for service in api.services(address) {
                    let value = conflict(&self.node, at, interface, address, mac, service);
                    self.ready.push_back(value);
                }
            }
            Event::AnsweredByClusterNode { address, node } if self.is_news(now, Fact::Answered(address, node)) => {
                let Some(holder) = api.node(node) else { return };
                for service in api.services(address) {
                    self.ready.push_back(answered(&self.node, at, address, &holder.name, service));
                }
            }
            Event::CoveringLong(id) if self.is_news(now, Fact::Silent(id)) => {
                let value = api.node(id).map(|silent| covering_long(&self.node, at, silent));
                self.ready.extend(value);
            }
            _ => {}
        }
    }

    /// Reports that this node no longer announces an address, and no other node does. `why` is the sentence of its
    /// status.
    pub fn unannounced(&mut self, now: Duration, at: Timestamp, address: IpAddr, why: &str, api: &impl Directory) {
        if !self.is_news(now, Fact::Unannounced(address)) {
            return;
        }
        for service in api.services(address) {
            let note = format!("no node announces {address}: {why}");
            let regarding = Regarding::Service(service);
            let name =
                name(&regarding, &["AddressNotAnnounced", &address.to_string(), &at.as_nanosecond().to_string()]);
            let (reason, action) = ("AddressNotAnnounced", "Announce");
            self.ready.push_back(EventValue { name, regarding, warning: true, reason, action, note, at });
        }
    }

    /// Returns the time at which [`Coalescer::poll`] has an Event; `None`: not before the next input.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let due = self.take_overs.values().map(|take_over| take_over.due).min();
        if self.ready.is_empty() { due } else { Some(Duration::ZERO) }
    }

    /// Returns the next Event to post. `at` is the same moment as `now`, by the wall clock.
    pub fn poll(&mut self, now: Duration, at: Timestamp) -> Option<EventValue> {
        if let Some(value) = self.ready.pop_front() {
            return Some(value);
        }
        let key = *self.take_overs.iter().find(|(_, take_over)| take_over.due <= now)?.0;
        let take_over = self.take_overs.remove(&key)?;
        took_over(&self.node, at, key.1, take_over)
    }

    fn taken_over(
        &mut self,
        now: Duration,
        reason: Reason,
        address: IpAddr,
        from: NodeId,
        silent_for: Option<Duration>,
        api: &impl Directory,
    ) {
        let take_over = match self.take_overs.entry((from, reason)) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                // No object exists that an Event could be about if the Node is gone.
                let Some(from) = api.node(from) else { return };
                entry.insert(TakeOver { due: now + COALESCE, from, addresses: BTreeSet::new(), silent_for: None })
            }
        };
        take_over.addresses.insert(address);
        take_over.silent_for = take_over.silent_for.max(silent_for);
    }

    fn is_news(&mut self, now: Duration, fact: Fact) -> bool {
        self.told.retain(|_, seen| now < *seen + TOLD_FOR);
        if let Some(seen) = self.told.get_mut(&fact) {
            *seen = now;
            return false;
        }
        let room = self.told.len() < FACTS;
        if room {
            self.told.insert(fact, now);
        }
        room
    }
}

/// Returns why addresses went to another node, and whether that deserves a Warning; `None` for a reason that is not a
/// take-over.
fn cause(reason: Reason) -> Option<(&'static str, bool)> {
    match reason {
        // This build never claims for a reason of a later build, and it reports only its own claims.
        Reason::Vacant | Reason::Resumed | Reason::Recreated | Reason::Later(_) => None,
        Reason::Dead => Some(("its node is dead", true)),
        Reason::Deaf => Some(("it hears nothing on the segment", true)),
        Reason::CoverExpired => Some(("its speaker has been silent for too long", true)),
        Reason::Leaving => Some(("it leaves", false)),
        Reason::Class => Some(("it is less fit to announce them", false)),
    }
}

fn took_over(node: &str, at: Timestamp, reason: Reason, take_over: TakeOver) -> Option<EventValue> {
    let (cause, warning) = cause(reason)?;
    let TakeOver { from, addresses, silent_for, .. } = take_over;
    let number = match (addresses.len(), addresses.first()) {
        (1, Some(only)) => format!("the address {only}"),
        (number, _) => format!("{number} addresses"),
    };
    let after = silent_for.map(|silent| format!(" {} ms after it was last heard", silent.as_millis()));
    let note = format!("{node} took over {number} from {} ({cause}){}", from.name, after.unwrap_or_default());
    let regarding = Regarding::Node(from);
    // Each take-over is a fact of its own.
    let name = name(&regarding, &["AddressesTakenOver", node, &at.as_nanosecond().to_string(), cause]);
    Some(EventValue { name, regarding, warning, reason: "AddressesTakenOver", action: "TakeOver", note, at })
}

fn conflict(
    node: &str,
    at: Timestamp,
    interface: &str,
    address: IpAddr,
    mac: MacAddr,
    service: ServiceReference,
) -> EventValue {
    let note = format!(
        "{mac}, a host outside the cluster, answers for {address} on the segment of {node}'s {interface}: an address \
         that was never announced stays unannounced, and one that was is defended; find the host, or take the address \
         out of its pool"
    );
    let regarding = Regarding::Service(service);
    let name = name(&regarding, &["AddressConflict", &address.to_string(), &mac.to_string()]);
    EventValue { name, regarding, warning: true, reason: "AddressConflict", action: "Announce", note, at }
}

fn answered(node: &str, at: Timestamp, address: IpAddr, holder: &str, service: ServiceReference) -> EventValue {
    let note = format!(
        "the kernel of node {holder} has {address} itself and answers for it, while {node} announces it: some clients \
         reach the wrong node; remove the address from that node's interface, and stop what put it there"
    );
    let regarding = Regarding::Service(service);
    let name = name(&regarding, &["AnsweredByClusterNode", &address.to_string(), holder]);
    EventValue { name, regarding, warning: true, reason: "AnsweredByClusterNode", action: "Announce", note, at }
}

fn covering_long(node: &str, at: Timestamp, silent: NodeReference) -> EventValue {
    let note = format!(
        "the speaker of {} has been silent for a minute though its kernel answers; {node} answers for its addresses, \
         which move if this lasts for 10 minutes",
        silent.name
    );
    let regarding = Regarding::Node(silent);
    let name = name(&regarding, &["SpeakerSilent"]);
    EventValue { name, regarding, warning: true, reason: "SpeakerSilent", action: "Cover", note, at }
}

/// Returns the name of the Event about a fact: the name of the object that it is about, and a digest of the fact. The
/// name has at most 253 bytes and is a DNS subdomain (RFC 1123), as the API server demands.
fn name(regarding: &Regarding, fact: &[&str]) -> String {
    let (object, uid) = regarding.name_and_uid();
    let mut hash = Sha256::new();
    for part in [&[uid], fact].concat() {
        hash.update(part);
        hash.update([0]);
    }
    let digest: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let mut end = object.len().min(253 - 1 - digest.len());
    while !object.is_char_boundary(end) {
        end -= 1;
    }
    // Each part of the name has to end with a letter or a digit.
    format!("{}.{digest}", object[..end].trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests;
