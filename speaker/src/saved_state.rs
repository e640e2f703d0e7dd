//! The state that outlives a restart of the speaker's container: the speaker's claims, and the cluster as the speaker
//! knew it. Pure; [`state_dir`](crate::state_dir) owns the files.

use std::collections::{BTreeMap, BTreeSet};

use herald_protocol::SavedState;
use serde::{Deserialize, Serialize};

use crate::{
    api_objects::{Node, ServiceName, Slice, Speaker, Vip},
    keys::Keys,
};

/// The claims, by interface name.
pub type Claims = BTreeMap<String, SavedState>;

/// The cluster as a speaker knew it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// The VirtualIPs.
    pub vips: Vec<Vip>,
    /// The Nodes.
    pub nodes: Vec<Node>,
    /// The SpeakerStatuses.
    pub speakers: Vec<Speaker>,
    /// The EndpointSlices of the Services in `covered`.
    pub slices: Vec<Slice>,
    /// The Services whose EndpointSlices are completely known.
    pub covered: BTreeSet<ServiceName>,
    /// The cluster's keys, with which the speaker signs.
    pub keys: Option<Keys>,
}
