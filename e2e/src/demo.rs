//! `make demo`: Herald on a real cluster, as a newcomer sees it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::drill::{Observation, Policy, Target};
use crate::testbed::{Images, TestNamespace, Testbed, install};
use herald_lab::cluster::{LabId, Spec};
use herald_lab::fault::{Fault, Faults, PodChoice};
use herald_lab::probe::{Probe, ProbeSpec, Probers};
use herald_lab::progress::Progress;

/// Enough requests to reach each of three pods: the probability to miss one is below 3 * (2/3)^60 < 1e-9.
const REQUESTS: u32 = 60;

/// Every step takes seconds; the rest is a margin for a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Time for which the clients continue to watch after a fault is over.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// Runs the demonstration; with `keep` the cluster stays up.
///
/// # Errors
/// When a step fails.
pub fn run(spec: &Spec, keep: bool, progress: &Progress) -> Result<()> {
    let images = Images::build(progress)?;
    progress.step(format!("Herald's image is {}", images.export()?.display()));
    // The second client watches, so that the first client's own ARP requests do not count among the watched ones.
    let spec = Spec { clients: spec.clients.max(2), ..spec.clone() };
    let bed = Testbed::up(&spec, &images, progress)?;
    let ns = TestNamespace::named(&bed, "default", 240)?;
    let mut show = Show { out: io::stdout().lock() };

    show.says("A pool of addresses in the nodes' subnet, three pods, and a Service of type LoadBalancer.")?;
    for file in ["pool.yaml", "workload.yaml"] {
        let path = file_of(file);
        show.file(&path)?;
        ns.kubectl(&["apply", "-f", &path.to_string_lossy()])?;
    }
    let begun = Instant::now();
    let address = ns.external_ip("echo")?;
    let assigned = begun.elapsed();
    ns.announcer(address)?;
    ns.kubectl_here(&["rollout", "status", "deployment/echo", "--timeout=90s"])?;
    ns.reachable(address)?;
    show.says(&format!(
        "EXTERNAL-IP {address}, seen {:.1} s after kubectl came back. The nodes, the Service, and who announces its address:",
        assigned.as_secs_f64()
    ))?;
    for args in [&["get", "nodes"][..], &["get", "svc", "echo"], &["get", "vip"], &["get", "pool"], &["get", "speaker"]]
    {
        show.kubectl(&ns, args)?;
    }

    show.says(&format!("A client outside the cluster fetches http://{address}/ {REQUESTS} times:"))?;
    let mut pods: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..REQUESTS {
        let answer = ns.fetch(address)?;
        let from = |field: &str| answer[field].as_str().unwrap_or("?").to_owned();
        *pods.entry(format!("pod {} on {}", from("pod"), from("node"))).or_default() += 1;
    }
    for (pod, requests) in &pods {
        show.line(&format!("  {requests:3} answers from {pod}"))?;
    }

    let survived = survive(&ns, &mut show)?;
    show.says("What the client noticed:")?;
    show.line(&table(&survived))?;
    if keep {
        ns.bed.progress.step("the node without power gets it back");
        Faults::of(bed.lab()).heal_all()?;
        ns.every_node_ready(LIMIT)?;
        ns.speakers_report_again()?;
    }
    let mut lab = bed.into_lab();
    if !keep {
        return lab.down();
    }
    lab.detach()?;
    show.says(&look_around(lab.id()))
}

/// Returns commands to try on the cluster that stays up.
fn look_around(id: &LabId) -> String {
    let lab = if *id == LabId::default() {
        "sudo target/herald/herald-lab".to_owned()
    } else {
        format!("sudo target/herald/herald-lab --id {id}")
    };
    format!(
        "The cluster stays up, with every node powered on. To look around:\n\n  \
         {lab} kubectl get svc,vip,pool,speaker -A\n  \
         {lab} exec client1 -- ip neighbour\n  \
         {lab} fault power-off node2\n  \
         {lab} fault power-on node2\n  \
         {lab} fault --help\n  \
         {lab} probe ADDRESS --for 5s\n  \
         eval \"$({lab} env)\"   # kubectl for this shell\n\n\
         To take it down: {lab} down"
    )
}

/// One fault and the observations of the two clients.
struct Survived {
    done: &'static str,
    seen: Observation,
    owner: String,
}

/// Kills a speaker and cuts a node's power while a client talks.
fn survive(ns: &TestNamespace<'_>, show: &mut Show<'_>) -> Result<Vec<Survived>> {
    let lab = ns.bed.lab();
    let faults = Faults::of(lab);
    // The policy is Local: with Cluster, kube-proxy on another node sends a third of the connections to the dead node's
    // pod until Kubernetes marks the node NotReady.
    let address = ns.external_ip("echo-local")?;
    let node = ns.announcer(address)?;
    ns.reachable(address)?;
    show.says(&format!(
        "The speaker on {node} answers for {address}. It is killed (SIGKILL) while one client sends a datagram and a line \
         each 10 ms and opens a connection each 20 ms, and another asks each 10 ms who has the address:"
    ))?;
    let choice = PodChoice {
        namespace: install::NAMESPACE.to_owned(),
        selector: Some("app.kubernetes.io/component=speaker".to_owned()),
        node: Some(node.clone()),
        ..PodChoice::default()
    };
    let speaker = faults.pods(&choice)?.into_iter().next().with_context(|| format!("a speaker on {node}"))?;
    let (killed, report) = watched(ns, address, || {
        faults.signal(&speaker, Signal::SIGKILL)?;
        let restarted = "--for=jsonpath={.status.containerStatuses[0].restartCount}=1";
        ns.kubectl(&["wait", "pod", "-n", &speaker.namespace, &speaker.name, restarted, "--timeout=60s"])?;
        install::wait_for_rollout(lab)
    })?;
    show.line(&report)?;
    ns.answered_by(address, &node)?;
    let killed = Survived { done: "speaker killed", seen: killed, owner: format!("{node} stays") };

    show.says(&format!("Now {node} itself loses power, while the clients go on:"))?;
    let (died, report) = watched(ns, address, || faults.inject(Fault::PoweredOff { host: node.clone() }))?;
    show.line(&report)?;
    let successor = ns.eventually("another node to announce", || {
        Ok(Some(ns.announcer(address)?).filter(|announcer| *announcer != node))
    })?;
    show.kubectl(ns, &["get", "vip"])?;
    Ok(vec![killed, Survived { done: "node without power", seen: died, owner: format!("{node} -> {successor}") }])
}

/// Returns what two clients observe of an address while `act` runs.
fn watched(ns: &TestNamespace<'_>, address: IpAddr, act: impl FnOnce() -> Result<()>) -> Result<(Observation, String)> {
    let lab = ns.bed.lab();
    let clients = lab.clients()?;
    let [talker, watcher, ..] = clients.as_slice() else { bail!("two clients are needed") };
    let spec = ProbeSpec::all([address]);
    let mut watch = Probe::start(lab, watcher.name(), &spec.clone().with(Probers::NEIGHBOUR))?;
    let talking = Probers { announcements: false, ..Probers::TRAFFIC };
    let mut traffic = Probe::start(lab, talker.name(), &spec.with(talking))?;
    watch.steady(LIMIT)?;
    traffic.steady(LIMIT)?;
    act()?;
    watch.steady_again(LIMIT)?;
    traffic.steady_again(LIMIT)?;
    // A late answer arrives within this time.
    std::thread::sleep(AFTERWARDS);
    let (watch, traffic) = (watch.stop()?, traffic.stop()?);
    let seen = Observation::of(Target { address, policy: Policy::Local }, &watch, &traffic, watch.origin_ns)
        .context("two reports")?;
    Ok((seen, format!("{watch}{traffic}")))
}

fn table(rows: &[Survived]) -> String {
    let mut text = format!(
        "  {:<20} {:>16} {:>16} {:>6} {:>6} {:>19}  {}\n",
        "", "answers missing", "traffic missing", "lost", "reset", "connections failed", "owner"
    );
    for Survived { done, seen, owner } in rows {
        let Observation { answer_gap_ms, data_gap_ms, lost, resets, failed_connections, .. } = seen;
        text += &format!(
            "  {done:<20} {answer_gap_ms:>13.0} ms {data_gap_ms:>13.0} ms {lost:>6} {resets:>6} {failed_connections:>19}  \
             {owner}\n"
        );
    }
    text
}

fn file_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo").join(name)
}

/// The output for the reader; [`Progress`] reports the work on standard error.
struct Show<'a> {
    out: io::StdoutLock<'a>,
}

impl Show<'_> {
    fn says(&mut self, text: &str) -> Result<()> {
        writeln!(self.out, "\n{text}").context("printing")
    }

    fn line(&mut self, text: &str) -> Result<()> {
        writeln!(self.out, "{text}").context("printing")
    }

    fn file(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let name = path.file_name().unwrap_or_default().display();
        write!(self.out, "\n# e2e/demo/{name}\n{text}").context("printing")
    }

    fn kubectl(&mut self, ns: &TestNamespace<'_>, args: &[&str]) -> Result<()> {
        let said = ns.kubectl_here(args)?;
        write!(self.out, "\n$ kubectl {}\n{said}", args.join(" ")).context("printing")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_the_lab_unless_it_is_the_default() {
        assert!(!look_around(&LabId::default()).contains("--id"));
        let other = look_around(&"other".parse().unwrap());
        for line in other.lines().filter(|line| line.contains("herald-lab")) {
            assert!(line.contains("herald-lab --id other "), "{line}");
        }
    }
}
