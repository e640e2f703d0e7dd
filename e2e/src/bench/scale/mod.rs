//! `make bench-scale`: many Services at once.
//!
//! Times come from the monotonic clock of this process, as in [`crate::bench`]; writes are counted in the API server's
//! audit log; CPU and memory are read from /proc.

mod ledger;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use herald_crds::SpeakerStatus;

use crate::bench::stamps::{listen, watch_ingress};
use crate::bench::{processes, services};
use crate::testbed::at_rest::{AtRest, QUIET, come_to_rest};
use crate::testbed::audit_log::{AuditLog, CONTROLLER, SPEAKER};
use crate::testbed::controllers;
use crate::testbed::{Images, TestNamespace, Testbed};
use herald_lab::cluster::Spec;
use herald_lab::progress::Progress;
use ledger::RunReport;
use report::{Figures, PerProgram};

/// When no new address appears for this long, the missing ones will not come.
const STALLED: Duration = Duration::from_secs(60);
/// Upper bound for Herald to have nothing left to write.
const QUIET_WITHIN: Duration = Duration::from_secs(180);
/// Time for which Herald's requests at rest are counted, before the burst and after it: each watch restarts three
/// times.
const AT_REST: Duration = Duration::from_secs(60);
/// 8,190 addresses of the nodes' subnet, and 8,192 of IPv6.
const POOL: [&str; 2] = ["10.10.160.1-10.10.191.254", "fd00:10:10::5:0/115"];

/// The size of the benchmark.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Load {
    /// Services created at once.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=8000))]
    services: u16,
    /// Give each Service an IPv4 and an IPv6 address.
    #[arg(long)]
    dual_stack: bool,
}

/// Runs the benchmark on a laboratory of its own, prints a table and writes `target/bench/scale.json`.
///
/// # Errors
/// When a step fails, an address is missing, Herald does not come to rest, or it sends more requests at rest than it
/// should.
pub fn run(spec: &Spec, load: Load, progress: &Progress) -> Result<()> {
    let images = Images::build(progress)?;
    let bed = Testbed::up(spec, &images, progress)?;
    let ns = TestNamespace::named(&bed, "scale", 200)?;
    ns.pool("scale", &POOL.map(str::to_owned))?;
    ns.eventually("every speaker to have reported", || {
        let speakers = ns.list_cluster::<SpeakerStatus>()?;
        Ok((speakers.iter().filter(|s| s.status.is_some()).count() == bed.lab().nodes()?.len()).then_some(()))
    })?;
    let mut log = AuditLog::from_now(&bed.lab().audit_log())?;
    come_to_rest(&bed, &mut log, QUIET, QUIET_WITHIN)?;
    progress.step(format!("counting requests at rest for {} s", AT_REST.as_secs()));
    let at_rest_before = AtRest::watched(&bed, AT_REST)?;
    log.read()?;

    let before = processes::usage(bed.lab())?;
    let times = burst(&ns, load, progress)?;
    progress.step("waiting until Herald writes nothing more");
    let writes = RunReport::of(come_to_rest(&bed, &mut log, QUIET, QUIET_WITHIN)?);
    let after = processes::usage(bed.lab())?;
    let of = |usage: &BTreeMap<&str, processes::Usage>, program: &str| -> Result<processes::Usage> {
        usage.get(program).copied().with_context(|| format!("no process of {program} runs"))
    };
    let spent = |program: &str| -> Result<f64> { Ok(of(&after, program)?.cpu_s - of(&before, program)?.cpu_s) };
    let resident = |program: &str| -> Result<f64> { Ok(of(&after, program)?.rss_mib) };

    progress.step(format!("counting requests at rest for {} s, all Services in place", AT_REST.as_secs()));
    let at_rest = AtRest::watched(&bed, AT_REST)?;

    log.read()?;
    progress.step("killing both controllers, all Services in place");
    let restart_s = controllers::restart(&ns)?.as_secs_f64();
    let restart_writes = RunReport::of(come_to_rest(&bed, &mut log, QUIET, QUIET_WITHIN)?);

    let figures = Figures {
        services: load.services,
        dual_stack: load.dual_stack,
        create_s: times.created.as_secs_f64(),
        last_ingress_s: times.last_ingress.as_secs_f64(),
        tail_s: seconds_after(times.last_ingress, times.created),
        first_frame_tail_s: seconds_after(times.last_frame, times.created),
        writes: PerProgram { controller: writes.by(CONTROLLER), speakers: writes.by(SPEAKER) },
        cpu_s: report::Cpu {
            controller: spent("controller")?,
            speakers: spent("speakers")?,
            apiserver: spent("apiserver")?,
        },
        rss_mb: PerProgram { controller: resident("controller")?, speakers: resident("speakers")? },
        restart_s,
        restart_writes: restart_writes.total(),
        at_rest_before,
        at_rest,
    };
    report::print(&figures, &writes, &restart_writes)?;
    bed.into_lab().down()?;
    let broken = figures.at_rest.violations_after(&figures.at_rest_before);
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}

fn seconds_after(later: Duration, earlier: Duration) -> f64 {
    later.as_secs_f64() - earlier.as_secs_f64()
}

/// Durations from before the first request.
struct Times {
    /// Until the last create returned.
    created: Duration,
    /// Until a watch showed the last Service's address.
    last_ingress: Duration,
    /// Until the first announcement of the last IPv4 address on the wire.
    last_frame: Duration,
}

/// Creates the Services and waits until each has all its addresses and each IPv4 address has been announced.
fn burst(ns: &TestNamespace<'_>, load: Load, progress: &Progress) -> Result<Times> {
    let (ingress, announcements) = (watch_ingress(ns)?, listen(&ns.client()?)?);
    progress.step(format!("creating {} Services", load.services));
    let begun = Instant::now();
    services::create(ns, 1..=load.services, load.dual_stack)?;
    let created = begun.elapsed();

    // Both channels are unbounded and each event carries its own time, so they can be read one after the other.
    let wanted = usize::from(load.services);
    let mut addresses: BTreeMap<String, (IpAddr, Duration)> = BTreeMap::new();
    let mut told = 0;
    while addresses.len() < wanted {
        let seen = ingress.recv_timeout(STALLED);
        let seen = seen.with_context(|| format!("{} of {wanted} Services have an address", addresses.len()))?;
        addresses.entry(seen.service).or_insert((seen.address, seen.at.saturating_duration_since(begun)));
        if addresses.len() * 10 / wanted > told {
            told = addresses.len() * 10 / wanted;
            progress.step(format!("{} of {wanted} have an address", addresses.len()));
        }
    }
    let distinct: BTreeSet<_> = addresses.values().map(|(address, _)| *address).collect();
    ensure!(distinct.len() == wanted, "{wanted} Services have {} addresses", distinct.len());
    progress.step("waiting for each address's first announcement on the wire");
    let mut first: BTreeMap<IpAddr, Duration> = BTreeMap::new();
    while !distinct.iter().filter(|address| address.is_ipv4()).all(|address| first.contains_key(address)) {
        let seen = announcements.recv_timeout(STALLED);
        let seen = seen.with_context(|| format!("{} of {wanted} addresses were announced", first.len()))?;
        if distinct.contains(&seen.address) {
            first.entry(seen.address).or_insert(seen.at.saturating_duration_since(begun));
        }
    }
    Ok(Times {
        created,
        last_ingress: addresses.values().map(|(_, at)| *at).max().unwrap_or_default(),
        last_frame: first.values().copied().max().unwrap_or_default(),
    })
}
