//! `make bench-cost`: what an answer and what rest cost, with one address and with many, on a quiet segment and on one that is flooded
//! with ARP requests for other hosts.
//!
//! Each question for an address of Herald's is followed by one for an address of the same node's kernel and by one for an
//! address of a minimal responder on that node: what the machine does meanwhile concerns all three.

mod latency;
mod report;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use herald_crds::VirtualIP;
use herald_lab::cluster::{Host, Spec};
use herald_lab::fault::{Flood, MinimalResponder};
use herald_lab::probe::Mac;
use herald_lab::probe::frame::arp_request;
use herald_lab::progress::Progress;

use super::{processes, services};
use crate::testbed::at_rest::{AtRest, QUIET, come_to_rest};
use crate::testbed::audit_log::AuditLog;
use crate::testbed::{Images, TestNamespace, Testbed};
use latency::measure;
use report::{Program, Row};

/// 12,286 addresses of the nodes' subnet, and 16,384 of IPv6.
const POOL: [&str; 2] = ["10.10.128.1-10.10.175.254", "fd00:10:10::5:0/114"];
/// An address of the nodes' subnet that no host and no pool has.
const FOREIGN: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 10, 99, 99);
/// Addresses of the minimal responders: node1 has the first, and so on.
const FLOOR: [(u16, &str); 2] = [(0, "10.10.98."), (1, "fd00:10:10::98:")];
/// Time for which usage is measured without any question: on a quiet segment each watch of the API restarts three times.
const REST: Duration = Duration::from_secs(60);
/// The same while the segment is flooded.
const REST_FLOODED: Duration = Duration::from_secs(10);
/// Upper bound for all addresses to be announced, for each thousand of them.
const ANNOUNCED_WITHIN: Duration = Duration::from_secs(180);

/// The size of the benchmark.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Numbers of Services, in ascending order; each has an IPv4 and an IPv6 address.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1000, 10_000])]
    addresses: Vec<u16>,
    /// Frames per second of the floods.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 20_000, 100_000])]
    floods: Vec<u32>,
    /// Questions for each figure.
    #[arg(long, default_value_t = 2000)]
    rounds: usize,
}

/// Runs the benchmark on a laboratory of its own, prints a table and writes `target/bench/cost.json`.
///
/// # Errors
/// When a step fails, or an address does not come or is not answered for.
pub fn run(spec: &Spec, options: &Options, progress: &Progress) -> Result<()> {
    ensure!(options.rounds > 0 && options.addresses.is_sorted(), "--rounds above 0, --addresses in ascending order");
    let images = Images::build(progress)?;
    let bed = Testbed::up(spec, &images, progress)?;
    let ns = TestNamespace::named(&bed, "cost", 200)?;
    ns.pool("cost", &POOL.map(str::to_owned))?;
    let mut log = AuditLog::from_now(&bed.lab().audit_log())?;
    let (mut rows, mut present) = (Vec::new(), 0);
    for wanted in options.addresses.iter().copied() {
        progress.step(format!("{wanted} Services"));
        services::create(&ns, present + 1..=wanted, true)?;
        present = wanted;
        let vips = announced(&ns, wanted)?;
        come_to_rest(&bed, &mut log, QUIET, ANNOUNCED_WITHIN)?;
        for flood in options.floods.iter().copied() {
            rows.extend(measured(&bed, &vips, (wanted, flood), options.rounds)?);
        }
    }
    report::print(&rows)?;
    bed.into_lab().down()
}

/// Waits until all addresses are announced. Returns each with its node.
fn announced(ns: &TestNamespace<'_>, services: u16) -> Result<Vec<(IpAddr, String)>> {
    let limit = ANNOUNCED_WITHIN * (u32::from(services) / 1000 + 1);
    ns.bed.wait_for(&format!("{services} Services to be announced in both families"), limit, || {
        let all = ns.list_cluster::<VirtualIP>()?;
        let of = |vip: &VirtualIP| {
            let announced = vip.announced().is_some_and(|condition| condition.status == "True");
            let node = vip.status.as_ref()?.node.clone().filter(|_| announced)?;
            Some((vip.spec.address.to_string().parse().ok()?, node))
        };
        let known: Vec<(IpAddr, String)> = all.iter().filter_map(of).collect();
        Ok((known.len() == 2 * usize::from(services)).then_some(known))
    })
}

/// Measures one number of addresses under one flood, both families.
fn measured(
    bed: &Testbed,
    vips: &[(IpAddr, String)],
    (addresses, flood): (u16, u32),
    rounds: usize,
) -> Result<Vec<Row>> {
    bed.progress.step(format!("  {addresses} addresses, a flood of {flood} frames a second"));
    let lab = bed.lab();
    let clients = lab.clients()?;
    let [asker, flooder, ..] = &clients[..] else {
        bail!("a client that asks and one that floods are needed: --clients 2")
    };
    let running = if flood == 0 { None } else { Some(start_flood(flooder, flood)?) };
    let rest = if flood == 0 { REST } else { REST_FLOODED };
    let (before, begun) = (processes::usage(lab)?, Instant::now());
    let at_rest = AtRest::watched(bed, rest)?;
    let (after, lasted) = (processes::usage(lab)?, begun.elapsed().as_secs_f64());
    let program = |name: &str, processes: usize, requests: f64| -> Result<Program> {
        let [before, after] = [&before, &after].map(|usage| usage.get(name).copied());
        let (before, after) = before.zip(after).with_context(|| format!("no process of {name} runs"))?;
        let cpu_percent = (after.cpu_s - before.cpu_s) / lasted / processes as f64 * 100.0;
        Ok(Program { cpu_percent, rss_mb: after.rss_mib, api_requests_per_s: requests })
    };
    let speaker = program("speakers", lab.nodes()?.len(), at_rest.busiest_speaker_per_s)?;
    let controller = program("controller", 1, at_rest.controllers_per_s)?;

    let mut found = Vec::new();
    for (family, (v6, floor)) in ["IPv4", "IPv6"].into_iter().zip(FLOOR) {
        let (mut ours, mut kernels, mut floors, mut responders) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (number, node) in lab.nodes()?.iter().enumerate() {
            let address = format!("{floor}{}", number + 1).parse()?;
            responders.push(MinimalResponder::start(node, node.interface(0)?, address, Mac::from(node.mac(0)?))?);
        }
        for (address, owner) in vips.iter().filter(|(address, _)| address.is_ipv6() == (v6 == 1)) {
            let node: Host = lab.host(owner)?;
            let number = lab.nodes()?.iter().position(|other| other.name() == owner).context("the owner")?;
            ours.push(*address);
            kernels.push(node.addresses(0).into_iter().find(|own| own.is_ipv4() == address.is_ipv4()).context("own")?);
            floors.push(format!("{floor}{}", number + 1).parse()?);
        }
        let [vip_us, kernel_us, floor_us] = measure(asker, rounds, [&ours, &kernels, &floors])?;
        responders.into_iter().try_for_each(MinimalResponder::end)?;
        found.push(Row { addresses, family, flood_pps: 0.0, vip_us, kernel_us, floor_us, speaker, controller });
    }
    let flood_pps = running.map(Flood::end).transpose()?.map_or(0.0, |sent| sent.rate());
    found.iter_mut().for_each(|row| row.flood_pps = flood_pps);
    Ok(found)
}

fn start_flood(host: &Host, rate: u32) -> Result<Flood> {
    let own = host.addresses(0).into_iter().find_map(|own| if let IpAddr::V4(own) = own { Some(own) } else { None });
    let frames = [arp_request(Mac::from(host.mac(0)?), own.context("the flooder's address")?, FOREIGN)];
    Flood::start(host, host.interface(0)?, &frames, rate)
}
