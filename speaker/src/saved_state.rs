//! What outlives a restart of the speaker's container: its claims, and the cluster as it knew it. Pure; the files are
//! [`state_dir`](crate::state_dir)'s.

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
    /// VirtualIPs.
    pub vips: Vec<Vip>,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// SpeakerStatuses.
    pub speakers: Vec<Speaker>,
    /// EndpointSlices, of the Services in `covered`.
    pub slices: Vec<Slice>,
    /// The Services whose EndpointSlices are completely known.
    pub covered: BTreeSet<ServiceName>,
    /// The cluster's keys, as they sign.
    pub keys: Option<Keys>,
}
