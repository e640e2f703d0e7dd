//! The Kubernetes API of Herald, and the pure rules on it.
//!
//! Four cluster-scoped kinds of the group `heraldlb.io/v1alpha1`:
//!
//! | kind | short name | written by | says |
//! |---|---|---|---|
//! | [`AddressPool`] | `pool` | the administrator | which addresses may be given to Services |
//! | [`L2Advertisement`] | `l2adv` | the administrator | which nodes and interfaces announce them (optional) |
//! | [`VirtualIP`] | `vip` | the controller; its status by the announcing speaker | one assigned address, its Services and who answers for it |
//! | [`SpeakerStatus`] | `speaker` | the speaker of the node it is named after | what that node can announce, and what is wrong there |
//!
//! The CustomResourceDefinitions in `deploy/crds` are generated from these types ([`manifest`]); a test fails when
//! they drift. What CEL in a definition cannot see is checked by the pure rules here: [`address`] (blocks, sets, names
//! of addresses), [`selector`] (label selectors), [`service`] (whose Service is it, what does it ask for), [`node`] (may it
//! announce anything) and [`placement`] (may it announce this address, and where).

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
