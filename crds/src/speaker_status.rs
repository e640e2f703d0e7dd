//! `SpeakerStatus`: the interfaces on which one node can announce, and its problems.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name of the node; the object has the same name and the Node as its owner.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "heraldlb.io",
    version = "v1alpha1",
    kind = "SpeakerStatus",
    plural = "speakerstatuses",
    shortname = "speaker",
    category = "herald",
    status = "SpeakerStatusStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "What the speaker of one node can announce, and what is wrong there. Written by Herald; read it, do not edit it.",
    printcolumn(name = "Interfaces", type_ = "string", json_path = ".status.summary.interfaces"),
    printcolumn(name = "Peers", type_ = "string", json_path = ".status.summary.peers"),
    printcolumn(name = "Prefixes", type_ = "string", json_path = ".status.summary.prefixes"),
    printcolumn(name = "Warnings", type_ = "string", json_path = ".status.summary.warnings"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerStatusSpec {
    /// The node.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is immutable: the object is named after it"))]
    pub node_name: String,
}

/// The speaker's report.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerStatusStatus {
    /// Herald's version.
    pub version: String,
    /// The columns that `kubectl get` shows.
    #[serde(default)]
    pub summary: SpeakerSummary,
    /// The interfaces addresses can be announced on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<SegmentStatus>,
    /// The links of the node that have addresses, each with its use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<LinkStatus>,
    /// The number of links with addresses that are left out of `links`, which names 64 at most.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub links_left_out: i64,
    /// Addresses of VirtualIPs that the node's kernel itself has, on one of these interfaces: the kernel answers for
    /// them, whichever node announces them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_addresses: Vec<String>,
    /// The nodes whose speakers are silent, for which this one answers, by name and in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub covering: Vec<String>,
    /// The problems of this node or its segments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<SpeakerWarning>,
}

/// The lists, each in one text, for `kubectl get`: the API server prints only the first entry of a list. An empty text
/// is written too, so that a merge patch removes the former value.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct SpeakerSummary {
    /// The interfaces of `segments`.
    #[serde(default)]
    pub interfaces: String,
    /// The number of peers heard on each.
    #[serde(default)]
    pub peers: String,
    /// Their prefixes.
    #[serde(default)]
    pub prefixes: String,
    /// The types of `warnings`.
    #[serde(default)]
    pub warnings: String,
}

impl SpeakerSummary {
    /// Returns the summary of these segments and warnings. Each type of warning is named once.
    pub fn of(segments: &[SegmentStatus], warnings: &[SpeakerWarning]) -> Self {
        let mut kinds: Vec<String> = Vec::new();
        for kind in warnings.iter().map(|warning| format!("{:?}", warning.kind)) {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        let of_segments = |text: fn(&SegmentStatus) -> String| segments.iter().map(text).collect::<Vec<_>>().join(",");
        Self {
            interfaces: of_segments(|segment| segment.interface.clone()),
            peers: of_segments(|segment| segment.peers.to_string()),
            prefixes: of_segments(|segment| segment.prefixes.join(",")),
            warnings: kinds.join(","),
        }
    }
}

/// One interface on which addresses can be announced.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SegmentStatus {
    /// Interface name.
    pub interface: String,
    /// Its link-layer address.
    pub mac_address: String,
    /// The other interfaces of the node on the same network, for which it speaks: an L2Advertisement that names them
    /// applies to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub speaks_for: Vec<String>,
    /// An address of the node's own on it, IPv4 where there is one: by this address peers learn whether the node's
    /// kernel lives while its speaker is silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Its on-link prefixes: an address in one of them is announced here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// Whether the default route uses it: addresses in no local prefix are announced on such an interface.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default_route: bool,
    /// The nodes whose speakers are heard on it, both ways.
    #[serde(default)]
    pub peers: i64,
}

/// A link of the node that has addresses.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LinkStatus {
    /// Interface name.
    pub interface: String,
    /// Its kind, as `ip -details link` shows it: `vlan`, `bond`, `bridge`. A network card has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its addresses of global scope, with the length of the prefix that is on link: `10.10.0.11/16`. The list has 64
    /// at most, omits temporary addresses (RFC 8981), and omits single addresses (`/32`, `/128`) of a container
    /// network's link.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// The number of further such addresses.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub addresses_left_out: i64,
    /// The use of the link. `Segment`: addresses can be announced on it. `Skipped`: it is left alone, and its addresses
    /// are the node's. `Containers`: it belongs to a container network or holds the addresses of Services, and its
    /// addresses are not the node's.
    #[serde(rename = "use")]
    pub link_use: LinkUse,
    /// The reason, unless addresses are announced on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// The use of a link.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkUse {
    /// Addresses can be announced on the link.
    Segment,
    /// The link is left alone, though it is the node's own: it is down, or is not Ethernet, or has no on-link prefix,
    /// or settings exclude it. Its addresses are the node's.
    Skipped,
    /// The link belongs to a container network, or holds the addresses of Services: its addresses are not the node's.
    Containers,
    /// A use that a later build writes.
    #[serde(other)]
    #[schemars(skip)]
    Later,
}

/// A problem, with a sentence that a person can act on.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct SpeakerWarning {
    /// The kind of the problem, in a word that alerts can match.
    #[serde(rename = "type")]
    pub kind: WarningKind,
    /// The place, the cause and the remedy.
    pub message: String,
}

/// Kinds of [`SpeakerWarning`].
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WarningKind {
    /// There is no interface on which an address could be announced.
    NoUsableInterface,
    /// An address fits two interfaces.
    AmbiguousInterface,
    /// kube-ipvs0 exists and arp_ignore is 0: this node's kernel answers ARP for every Service address.
    ArpIgnore,
    /// Strict reverse-path filtering drops traffic whose reply would leave elsewhere.
    RpFilter,
    /// A segment lies on a bond of mode 6 (balance-alb), which rewrites ARP.
    BondMode,
    /// A pattern of the Node's annotation `heraldlb.io/interfaces` cannot be read.
    InterfaceSetting,
    /// A segment's interface has no carrier.
    NoCarrier,
    /// Nodes that the API lists on a segment are not heard there, though their kernels answer: the network may drop
    /// Herald's frames (EtherType 0x88b5), or their speakers do not run.
    PeersUnheard,
    /// A node is heard on a segment, but its claims do not arrive: the path does not carry its longer frames.
    ClaimsLacking,
    /// This node's own frames come back: the segment has a loop.
    SegmentLoop,
    /// Two interfaces of this node are on one segment: one of them is left alone.
    InterfacesOnOneSegment,
    /// Two machines speak as one node.
    DuplicateNode,
    /// The cluster's key is missing or cannot be used, so nothing is announced, or the old key stays in use.
    ClusterKey,
    /// The kernel refuses a socket on a segment, or refuses to pass the frames that are needed there.
    SocketRefused,
    /// A kind that a later build writes. The rest of its SpeakerStatus counts nevertheless.
    #[serde(other)]
    #[schemars(skip)]
    Later,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_names_every_interface_and_each_type_of_warning_once() {
        let segment = |interface: &str, prefixes: &[&str], peers| SegmentStatus {
            interface: interface.to_owned(),
            prefixes: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(),
            peers,
            ..SegmentStatus::default()
        };
        let segments =
            [segment("eth0", &["192.0.2.0/24", "2001:db8::/64"], 2), segment("eth1", &["198.51.100.0/24"], 0)];
        let kinds = [WarningKind::PeersUnheard, WarningKind::RpFilter, WarningKind::PeersUnheard];
        let warnings = kinds.map(|kind| SpeakerWarning { kind, message: "m".to_owned() });
        let summary = SpeakerSummary::of(&segments, &warnings);
        assert_eq!((&*summary.interfaces, &*summary.peers), ("eth0,eth1", "2,0"));
        assert_eq!(summary.prefixes, "192.0.2.0/24,2001:db8::/64,198.51.100.0/24");
        assert_eq!(summary.warnings, "PeersUnheard,RpFilter");
    }

    #[test]
    fn unknown_use_of_a_link_leaves_the_rest_readable() {
        let link = |word: &str| serde_json::json!({"interface": "eth0", "use": word});
        let read: Vec<LinkStatus> = serde_json::from_value(vec![link("Bridged"), link("Segment")].into()).unwrap();
        assert_eq!(read.iter().map(|link| link.link_use).collect::<Vec<_>>(), [LinkUse::Later, LinkUse::Segment]);
    }

    /// During a roll-out, speakers read statuses that the next build writes.
    #[test]
    fn unknown_warning_and_field_leave_the_rest_readable() {
        let written = serde_json::json!({
            "version": "2",
            "segments": [{"interface": "eth0", "macAddress": "02:00:00:00:00:01", "peers": 2, "speed": 1000}],
            "warnings": [{"type": "SomethingNew", "message": "of the next build"}, {"type": "NoCarrier", "message": "m"}],
            "mood": "good",
        });
        let read: SpeakerStatusStatus = serde_json::from_value(written).unwrap();
        assert_eq!(read.segments[0].peers, 2);
        let kinds: Vec<_> = read.warnings.iter().map(|warning| warning.kind).collect();
        assert_eq!(kinds, [WarningKind::Later, WarningKind::NoCarrier]);
    }
}
