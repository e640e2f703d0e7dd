//! Scenarios of what a kernel may have and the usual laboratory's lacks: bonds, VLANs, VRFs, kube-proxy's IPVS mode, cgroup
//! version 2. They run on any laboratory of two nodes or more whose kernel has it (`herald-lab run`), and by
//! `make vm-test` in a user-mode Linux. None judges a time.

mod bond;
mod cgroup;
mod ipvs;
mod links;
mod vlan;
mod vrf;

use std::time::Duration;

use anyhow::Result;

use super::{Cluster, Concurrency, Scenario};
use crate::testbed::TestNamespace;
use herald_lab::cluster::preflight::Feature::{self, Bonding, CgroupV2, Ipvs, Vlan, Vrf};

/// The scenarios, in the order they run. Their budgets are those of a user-mode Linux.
pub(super) fn all() -> Vec<Scenario> {
    let scenario = |name, about, needs, run: fn(&TestNamespace<'_>) -> Result<()>| {
        let needs: &'static [Feature] = needs;
        let budget = Duration::from_secs(150);
        Scenario { name, about, cluster: Cluster::Shared, needs, company: Concurrency::Alone, budget, run }
    };
    vec![
        scenario("cgroup-v2", "hosts and pods are accounted for by version 2 alone", &[CgroupV2], cgroup::run),
        scenario("ipvs", "with strictARP one node answers, without it all do and it is said", &[Ipvs], ipvs::run),
        scenario("vlan", "a VLAN and its network card are two networks", &[Vlan], vlan::run),
        scenario("vrf", "an interface of a VRF is a segment", &[Vlan, Vrf], vrf::run),
        scenario("bond", "a bond whose active port fails, and a VLAN on it", &[Bonding, Vlan], bond::run),
    ]
}
