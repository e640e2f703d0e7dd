//! The Kubernetes API of Herald, and the pure rules on it.
//!
//! Four cluster-scoped kinds of the group `heraldlb.io/v1alpha1`:
//!
//! | kind | short name | written by | says |
//! |---|---|---|---|
//! | [`AddressPool`] | `pool` | the administrator | the addresses that may be given to Services |
//! | [`L2Advertisement`] | `l2adv` | the administrator | the nodes and interfaces that announce them (optional) |
//! | [`VirtualIP`] | `vip` | the controller; its status by speakers, and by the controller where no speaker can | one assigned address, its Services and the node that answers for it |
//! | [`SpeakerStatus`] | `speaker` | the speaker of the node it is named after | the interfaces on which that node can announce, and its problems |
//!
//! The CustomResourceDefinitions in `deploy/crds` are generated from these types ([`manifest`]); a test fails when they
//! drift. The pure rules here check what CEL in a definition cannot see: [`address`] (blocks, sets, names of
//! addresses), [`selector`] (label selectors), [`service`] (whether a Service is Herald's, and its request), [`node`]
//! (whether a node may announce at all) and [`placement`] (whether a node may announce an address, and where).

#![allow(
    clippy::duplicated_attributes,
    reason = "one `printcolumn(...)` per column is how kube-derive takes them; the lint compares their inner keys"
)]

pub mod address;
pub mod advertisement;
pub mod condition;
pub mod event;
pub mod manifest;
pub mod names;
pub mod node;
pub mod placement;
pub mod pool;
pub mod selector;
pub mod service;
pub mod speaker_status;
pub mod virtual_ip;

pub use advertisement::{L2Advertisement, L2AdvertisementSpec};
pub use pool::{AddressPool, AddressPoolSpec};
pub use speaker_status::{SpeakerStatus, SpeakerStatusSpec};
pub use virtual_ip::{VirtualIP, VirtualIPSpec};
