//! `make bench`: the figures of `docs/benchmarks.md`.
//!
//! All times come from the monotonic clock of this process: a request is stamped before it is sent, an object when its
//! watch event arrives, a frame when a socket in a client's network namespace receives it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use herald_crds::SpeakerStatus;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use serde::Serialize;

use crate::bench::stamps::{Announced, Ingress, listen, watch_ingress};
use crate::testbed::manifests::Manifest;
use crate::testbed::{Images, TestNamespace, Testbed, install};
use herald_lab::cluster::{Lab, Spec};
use herald_lab::progress::Progress;

/// Services created one after another for the medians.
const SERVICES: usize = 20;
/// Installations for their median. Each removes Herald again, which takes about 20 s.
const INSTALLS: usize = 5;
/// Upper bound of a single step, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// The results; in milliseconds unless a name says otherwise.
#[derive(Debug, Serialize)]
struct Figures {
    create_to_ingress_ms: Spread,
    create_to_announcement_ms: Spread,
    ingress_to_announcement_ms: Spread,
    apply_to_external_ip_ms: Spread,
    apply_attempts: Spread,
    rss_mib: BTreeMap<String, Spread>,
}

/// Minimum, median and maximum of some samples.
#[derive(Debug, Serialize)]
struct Spread {
    n: usize,
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Result<Self> {
        values.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (values.first(), values.last()) else { bail!("nothing was measured") };
        // The lower middle one of an even number of samples: a value that was really measured.
        Ok(Self { n: values.len(), min: *min, median: values[(values.len() - 1) / 2], max: *max })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { n, min, median, max } = self;
        write!(f, "| {min:.1} | {median:.1} | {max:.1} | {n} |")
    }
}

/// Runs the benchmark on a laboratory of its own, prints a table and writes `target/bench/first-light.json`.
///
/// # Errors
/// When a step fails or exceeds its time limit.
pub fn run(spec: &Spec, progress: &Progress) -> Result<()> {
    let images = Images::build(progress)?;
    let bed = Testbed::up(spec, &images, progress)?;
    let ns = TestNamespace::named(&bed, "bench", 200)?;
    ns.pool("bench", &[ns.range(1, 100)])?;
    // The first objects of a new kind take the API server 2 s; the speakers must report before the Services below are
    // created.
    ns.eventually("every speaker to have reported", || {
        let speakers = ns.list_cluster::<SpeakerStatus>()?;
        Ok((speakers.iter().filter(|s| s.status.is_some()).count() == bed.lab().nodes()?.len()).then_some(()))
    })?;
    let (ingress, announcements) = (watch_ingress(&ns)?, listen(&ns.client()?)?);

    progress.step(format!("creating {SERVICES} Services, one after another"));
    let (mut to_ingress, mut to_announcement, mut between) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=SERVICES {
        let begun = Instant::now();
        let name = format!("web{number}");
        create(&ns, &name)?;
        let (assigned, address) =
            next(&ingress, "an address", |seen: &Ingress| seen.service == name).map(|seen| (seen.at, seen.address))?;
        let announced = next(&announcements, "an announcement", |seen: &Announced| seen.address == address)?.at;
        to_ingress.push(milliseconds(begun, assigned));
        to_announcement.push(milliseconds(begun, announced));
        between.push(milliseconds(assigned, announced));
    }
    let rss_mib = resident(&ns)?.into_iter().map(|(name, mib)| Ok((name, Spread::of(mib)?))).collect::<Result<_>>()?;

    let (mut applied, mut attempts) = (Vec::new(), Vec::new());
    for round in 1..=INSTALLS {
        progress.step(format!("installing, {round} of {INSTALLS}"));
        let (time, tries) = install_once(&ns, &ingress)?;
        applied.push(time);
        attempts.push(tries);
    }
    let figures = Figures {
        create_to_ingress_ms: Spread::of(to_ingress)?,
        create_to_announcement_ms: Spread::of(to_announcement)?,
        ingress_to_announcement_ms: Spread::of(between)?,
        apply_to_external_ip_ms: Spread::of(applied)?,
        apply_attempts: Spread::of(attempts)?,
        rss_mib,
    };
    report(&figures)?;
    bed.into_lab().down()
}

fn report(figures: &Figures) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "| what | min | median | max | n |\n|---|---|---|---|---|")?;
    for (what, spread) in [
        ("create -> ingress, ms", &figures.create_to_ingress_ms),
        ("create -> first announcement, ms", &figures.create_to_announcement_ms),
        ("ingress -> first announcement, ms", &figures.ingress_to_announcement_ms),
        ("kubectl apply -> first EXTERNAL-IP, ms", &figures.apply_to_external_ip_ms),
        ("... applies until kubectl succeeded", &figures.apply_attempts),
    ] {
        writeln!(out, "| {what} {spread}")?;
    }
    for (program, spread) in &figures.rss_mib {
        writeln!(out, "| RSS of {program}, MiB {spread}")?;
    }
    let directory = herald_lab::binaries::workspace()?.join("target/bench");
    std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let file = directory.join("first-light.json");
    std::fs::write(&file, serde_json::to_vec_pretty(figures)?).with_context(|| file.display().to_string())?;
    writeln!(out, "\nwritten to {}", file.display()).context("printing")
}

/// Waits for the next event that fits.
pub(super) fn next<T>(events: &Receiver<T>, what: &str, fits: impl Fn(&T) -> bool) -> Result<T> {
    let end = Instant::now() + LIMIT;
    loop {
        match events.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(event) if fits(&event) => return Ok(event),
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => bail!("gave up waiting for {what} after {} s", LIMIT.as_secs()),
            Err(RecvTimeoutError::Disconnected) => bail!("the task that looks for {what} ended"),
        }
    }
}

/// Returns the time from one moment to another, negative if the other came first.
pub(super) fn milliseconds(from: Instant, to: Instant) -> f64 {
    match to.checked_duration_since(from) {
        Some(later) => later.as_secs_f64() * 1000.0,
        None => -(from.duration_since(to).as_secs_f64() * 1000.0),
    }
}

/// Creates a Service by one POST; kubectl's own start would take most of the measured time.
fn create(ns: &TestNamespace<'_>, name: &str) -> Result<()> {
    let service: Service = serde_json::from_value(serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"type": "LoadBalancer", "loadBalancerClass": herald_crds::names::CLASS,
                 "selector": {"app": "echo"}, "ports": [{"port": 80}]},
    }))?;
    let services: Api<Service> = Api::namespaced(ns.bed.kube(), &ns.namespace);
    ns.bed.block_on(async move {
        services.create(&kube::api::PostParams::default(), &service).await?;
        Ok(())
    })
}

/// Returns the resident memory of Herald's programs on all nodes, by program, in MiB.
fn resident(ns: &TestNamespace<'_>) -> Result<BTreeMap<String, Vec<f64>>> {
    let mut found: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let look = "for d in /proc/[0-9]*; do echo \"$(cat $d/comm) $(grep VmRSS $d/status)\"; done 2>/dev/null";
    for node in ns.bed.lab().nodes()? {
        let output = node.command("sh")?.args(["-c", look]).output().context("reading /proc of a node")?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            // Example: `herald-speaker VmRSS: 8192 kB`. The kernel cuts a name to 15 characters.
            let [name, "VmRSS:", kib, "kB"] = words.as_slice() else { continue };
            if let Some(program) =
                ["herald-controller", "herald-speaker"].iter().find(|p| p[..15.min(p.len())] == **name)
            {
                found.entry((*program).to_owned()).or_default().push(kib.parse::<f64>()? / 1024.0);
            }
        }
    }
    Ok(found)
}

/// Uninstalls Herald and installs it again, from one file with its definitions and a pool, while a Service waits.
/// Returns the time from the start of the first `kubectl apply` to the Service's address, and the number of applies.
fn install_once(ns: &TestNamespace<'_>, ingress: &Receiver<Ingress>) -> Result<(f64, f64)> {
    install::uninstall(ns.bed.lab())?;
    ns.eventually("the namespace to go", || Ok((!ns.namespace_exists(install::NAMESPACE)?).then_some(())))?;
    // Discard the events from before and during the uninstallation.
    while ingress.try_recv().is_ok() {}
    let manifests = std::fs::read_to_string(Manifest::CLASS.file()).context("the manifest")?;
    let file = ns.bed.lab().paths().run().join("herald.yaml");
    let pool = ns.pool_yaml("bench", &[ns.range(1, 100)]);
    std::fs::write(&file, format!("{manifests}\n---\n{pool}\n")).with_context(|| file.display().to_string())?;

    // An empty cache is the state of a machine that never saw Herald's kinds.
    let cache = tempfile::tempdir().context("making a directory for kubectl's cache")?;
    let begun = Instant::now();
    let mut attempts = 1.0;
    while apply(ns.bed.lab(), &file, cache.path())?.is_none() {
        anyhow::ensure!(
            begun.elapsed() < LIMIT,
            "{} could not be applied within {} s",
            file.display(),
            LIMIT.as_secs()
        );
        attempts += 1.0;
    }
    let assigned = next(ingress, "an address after the installation", |_| true)?.at;
    install::wait_for_rollout(ns.bed.lab())?;
    Ok((milliseconds(begun, assigned), attempts))
}

/// Returns `None` if kubectl refused a part of the file.
fn apply(lab: &Lab, file: &Path, cache: &Path) -> Result<Option<()>> {
    let mut kubectl = lab.kubectl(["apply", "-f"]);
    kubectl.arg(file).arg("--cache-dir").arg(cache);
    let status = kubectl.output().context("starting kubectl")?.status;
    Ok(status.success().then_some(()))
}
