//! `make demo`: Herald on a real cluster, as a newcomer meets it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::lab::Spec;
use crate::probe::{Probe, ProbeSpec};
use crate::progress::Progress;
use crate::scenario::{Images, Scene, Testbed};

/// Requests that are sure to meet all of three pods: one of them is missed with probability 3 * (2/3)^60 < 1e-9.
const REQUESTS: u32 = 60;

/// Runs the demonstration; with `keep` the cluster stays.
///
/// # Errors
/// When a step fails.
pub fn run(spec: &Spec, keep: bool, progress: &Progress) -> Result<()> {
    let images = Images::build(progress)?;
    // The second client is the one that watches: what the first asks for on the way is not counted among its requests.
    let spec = Spec { clients: spec.clients.max(2), ..spec.clone() };
    let bed = Testbed::up(&spec, &images, progress)?;
    let scene = Scene::named(&bed, "default", 240)?;
    let mut show = Show { out: io::stdout().lock() };

    show.says("A pool of addresses in the nodes' subnet, three pods, and a Service of type LoadBalancer.")?;
    for file in ["pool.yaml", "workload.yaml"] {
        let path = file_of(file);
        show.file(&path)?;
        scene.kubectl(&["apply", "-f", &path.to_string_lossy()])?;
    }
    let begun = Instant::now();
    let address = scene.external_ip("echo")?;
    let assigned = begun.elapsed();
    let node = scene.announcer(address)?;
    scene.kubectl_here(&["rollout", "status", "deployment/echo", "--timeout=90s"])?;
    scene.reachable(address)?;
    show.says(&format!(
        "EXTERNAL-IP {address}, seen {:.1} s after kubectl came back. The nodes, the Service, and who announces its address:",
        assigned.as_secs_f64()
    ))?;
    for args in [&["get", "nodes"][..], &["get", "svc", "echo"], &["get", "vip"], &["get", "pool"], &["get", "speaker"]]
    {
        show.kubectl(&scene, args)?;
    }

    show.says(&format!("A client outside the cluster fetches http://{address}/ {REQUESTS} times:"))?;
    let mut pods: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..REQUESTS {
        let answer = scene.fetch(address)?;
        let from = |field: &str| answer[field].as_str().unwrap_or("?").to_owned();
        *pods.entry(format!("pod {} on {}", from("pod"), from("node"))).or_default() += 1;
    }
    for (pod, requests) in &pods {
        show.line(&format!("  {requests:3} answers from {pod}"))?;
    }

    killed_speaker(&scene, &mut show, address, &node)?;
    let mut lab = bed.into_lab();
    if !keep {
        return lab.down();
    }
    lab.detach()?;
    show.says(
        "The cluster stays up. To look around:\n\n  \
         sudo target/debug/herald-lab kubectl get svc,vip,pool,speaker -A\n  \
         sudo target/debug/herald-lab exec client1 -- ip neighbour\n  \
         sudo target/debug/herald-lab fault --help\n  \
         sudo target/debug/herald-lab probe ADDRESS --for 5s\n  \
         eval \"$(sudo target/debug/herald-lab env)\"   # kubectl for this shell\n\n\
         To take it down: make lab-down",
    )
}

/// Deletes the announcing speaker's pod while a client asks, connects and talks, and shows what it saw.
fn killed_speaker(scene: &Scene<'_>, show: &mut Show<'_>, address: IpAddr, node: &str) -> Result<()> {
    show.says(&format!(
        "The speaker on {node} answers for {address}. Its pod is deleted while the client asks for the address every \
         10 ms, sends datagrams, holds one TCP connection and opens new ones:"
    ))?;
    let clients = scene.bed.lab().clients()?;
    let client = clients.last().context("a client to watch from")?;
    let mut running = Probe::start(scene.bed.lab(), client.name(), &ProbeSpec::all([address]))?;
    running.steady(Duration::from_secs(10))?;
    let selector = "app.kubernetes.io/component=speaker";
    let field = format!("spec.nodeName={node}");
    scene.kubectl(&[
        "delete",
        "pod",
        "-n",
        "herald-system",
        "-l",
        selector,
        "--field-selector",
        &field,
        "--wait=true",
    ])?;
    scene.kubectl(&["rollout", "status", "-n", "herald-system", "daemonset/herald-speaker", "--timeout=60s"])?;
    scene.answered_by(address, &scene.announcer(address)?)?;
    let report = running.stop()?;
    show.line(&report.to_string())?;
    show.says(
        "What this shows: kube-proxy on the node went on forwarding, so traffic to a client that knew the address did \
         not stop; requests for the address (ARP) went unanswered until the pod was back. Nobody covers for a speaker \
         yet: that, and failover in half a second, come with the segment protocol (README, \"What is not there yet\").",
    )
}

fn file_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo").join(name)
}

/// What is printed for the reader; how the work goes on is printed by [`Progress`] on standard error.
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

    fn kubectl(&mut self, scene: &Scene<'_>, args: &[&str]) -> Result<()> {
        let said = scene.kubectl_here(args)?;
        write!(self.out, "\n$ kubectl {}\n{said}", args.join(" ")).context("printing")
    }
}
