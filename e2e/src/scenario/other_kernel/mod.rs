//! Scenarios of kernel features that the usual laboratory lacks: bonds, VLANs, VRFs, kube-proxy's IPVS mode, cgroup
//! version 2. They run on any laboratory of two or more nodes whose kernel has these features (`herald-lab run`), and
//! with `make vm-test` in a user-mode Linux. None of them judges a time.

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

/// Returns the scenarios in the order in which they run. Their budgets apply to a user-mode Linux.
pub(super) fn all() -> Vec<Scenario> {
    let scenario = |name, about, needs, run: fn(&TestNamespace<'_>) -> Result<()>| {
        let needs: &'static [Feature] = needs;
        let budget = Duration::from_secs(150);
        Scenario { name, about, cluster: Cluster::Shared, needs, company: Concurrency::Alone, budget, run }
    };
    vec![
        scenario("cgroup-v2", "hosts and pods are accounted for by version 2 alone", &[CgroupV2], cgroup::run),
        scenario("ipvs", "with strictARP one node answers, else all do with a warning", &[Ipvs], ipvs::run),
        scenario("vlan", "a VLAN and its network card are two networks", &[Vlan], vlan::run),
        scenario("vrf", "an interface of a VRF is a segment", &[Vlan, Vrf], vrf::run),
        scenario("bond", "a bond whose active port fails, and a VLAN on it", &[Bonding, Vlan], bond::run),
    ]
}
