//! The way from a spec to a cluster whose nodes are Ready.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node;
use kube::Api;

use super::cgroup::Hierarchies;
use super::init::{InitSpec, Service};
use super::paths::Paths;
use super::pki::Authority;
use super::plan::{HostPlan, Plan, Role, bridge_name};
use super::preflight;
use super::process::ProcessId;
use super::record::{Lock, Phase, Record};
use super::spec::Spec;
use super::warden::Leash;
use super::{Lab, boot, control_plane, netns, network, node_agents, teardown};
use crate::progress::Progress;
use crate::{binaries, images, wait_factor};

/// etcd and the API server need about 5 s on two idle cores.
const API_WITHIN: Duration = Duration::from_secs(120);
/// tcpdump writes its file header as soon as it listens.
const RECORDER_WITHIN: Duration = Duration::from_secs(30);
/// Timeout of one request; the API server is one bridge away.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// containerd answers within a second of its start.
const CONTAINERD_WITHIN: Duration = Duration::from_secs(60);
/// Nodes are Ready about 5 s after the API server.
const READY_WITHIN: Duration = Duration::from_secs(120);

pub(super) fn up(spec: &Spec, progress: &Progress) -> Result<Lab> {
    spec.validate()?;
    preflight::check(spec)?;
    for id in teardown::clear_abandoned()? {
        progress.step(format!("cleared what a crashed run left of lab {id}"));
    }
    let bin_dir = binaries::provide(spec.bin_dir.as_deref(), progress)?;
    let pause = images::pause(progress)?;

    let paths = Paths::of(&spec.id);
    let lock = Lock::acquire(&paths)?;
    if paths.run().exists() || paths.data().exists() {
        bail!("lab {0} is already up; `herald-lab down --id {0}` takes it down, `--id` names another", spec.id);
    }
    fs::create_dir_all(paths.run()).with_context(|| paths.run().display().to_string())?;
    let mut record = Record {
        spec: spec.clone(),
        phase: Phase::Starting,
        owner: ProcessId::own()?,
        warden: None,
        visible: visible(&paths, &bin_dir)?,
        bin_dir,
        cgroups: Hierarchies::discover()?,
        hosts: BTreeMap::new(),
    };
    record.write(&paths)?;
    let mut lab = Lab::of(&record);
    lab.making = Some(lock);
    let leash = Leash::new(&spec.id)?;
    record.warden = leash.warden();
    record.write(&paths)?;
    lab.leash = Some(leash);
    match make(&lab, record, &pause, progress) {
        Ok(()) => {
            lab.making = None;
            Ok(lab)
        }
        Err(error) => {
            progress.step(format!("taking lab {} down again: {error:#}", spec.id));
            let kept = keep_logs(&lab);
            lab.down().context("and it could not be taken down either")?;
            Err(match kept {
                Ok(logs) => error.context(format!("lab {} did not come up (logs: {})", spec.id, logs.display())),
                Err(lost) => {
                    error.context(format!("lab {} did not come up (and its logs are lost: {lost:#})", spec.id))
                }
            })
        }
    }
}

/// Moves the logs of a laboratory that did not come up to a place outside its directories, which its teardown removes.
fn keep_logs(lab: &Lab) -> Result<PathBuf> {
    let kept = binaries::cache_dir()?.join("failed").join(lab.id().as_str());
    if kept.exists() {
        fs::remove_dir_all(&kept).with_context(|| kept.display().to_string())?;
    }
    fs::create_dir_all(&kept).with_context(|| kept.display().to_string())?;
    netns::run(std::process::Command::new("cp").arg("-r").arg(lab.logs_dir()).arg(&kept))?;
    Ok(kept)
}

/// Returns the directories that every host must see at their path on the machine.
fn visible(paths: &Paths, bin_dir: &Path) -> Result<Vec<PathBuf>> {
    let own = boot::own_directory()?;
    Ok(vec![paths.run().to_owned(), bin_dir.to_owned(), own])
}

fn make(lab: &Lab, mut record: Record, pause: &Path, progress: &Progress) -> Result<()> {
    let (paths, plan) = (&lab.paths, &lab.plan);
    let ca = Authority::create(&paths.pki())?;
    progress.step(format!("lab {}: wiring {} hosts", lab.id(), plan.hosts.len()));
    network::create_switch(plan)?;
    for host in plan.hosts.iter().filter(|host| host.role != Role::Switch) {
        progress.check()?;
        network::create_host(plan, host)?;
    }
    for host in &plan.hosts {
        let directory = paths.host_conf(&host.name);
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        let services = services(&record, plan, host, &ca)?;
        boot::prepare(paths, &init_spec(&record, plan, host, services))?;
    }
    progress.step("starting the hosts");
    // The switch starts first: its recorders must not miss the first frames of the other hosts.
    let (switch, others): (Vec<_>, Vec<_>) = plan.hosts.iter().partition(|host| host.role == Role::Switch);
    start(paths, &mut record, &switch, progress)?;
    for segment in 0..plan.segments {
        let file = paths.capture(segment);
        progress.wait_for(&format!("the recorder of {}", bridge_name(segment)), RECORDER_WITHIN, || {
            Ok(fs::metadata(&file).is_ok_and(|written| written.len() > 0).then_some(()))
        })?;
    }
    start(paths, &mut record, &others, progress)?;
    let nodes = lab.nodes()?;
    for node in &nodes {
        progress.wait_for(&format!("containerd on {}", node.name()), CONTAINERD_WITHIN, || {
            Ok(node_agents::containerd_answers(node, &lab.bin_dir)?.then_some(()))
        })?;
    }
    progress.step("containerd runs; importing the sandbox image");
    lab.load_image(pause)?;
    await_cluster(lab, progress)?;
    record.phase = Phase::Owned;
    record.write(paths)?;
    progress.step(format!("{} nodes are Ready", nodes.len()));
    Ok(())
}

/// Starts hosts concurrently and records their processes.
fn start(paths: &Paths, record: &mut Record, hosts: &[&HostPlan], progress: &Progress) -> Result<()> {
    let launchers = hosts
        .iter()
        .map(|host| Ok((host.name.clone(), boot::launch(record, &host.name)?)))
        .collect::<Result<Vec<_>>>()?;
    for (host, launcher) in launchers {
        let processes = boot::await_init(paths, &host, launcher, progress)?;
        record.hosts.insert(host, processes);
        record.write(paths)?;
    }
    Ok(())
}

fn services(record: &Record, plan: &Plan, host: &HostPlan, ca: &Authority) -> Result<Vec<Service>> {
    let paths = Paths::of(&record.spec.id);
    match host.role {
        Role::Switch => Ok((0..plan.segments).map(|segment| recorder(&paths, segment)).collect()),
        Role::Control => control_plane::prepare(plan, &paths, &record.bin_dir, ca),
        Role::Node(_) => node_agents::prepare(plan, host, record.spec.proxy, &paths, &record.bin_dir, ca),
        Role::Client(_) => Ok(Vec::new()),
    }
}

/// Returns the service that records a segment's ARP, ICMPv6 and Herald frames for the folder of a failure.
fn recorder(paths: &Paths, segment: u8) -> Service {
    let bridge = bridge_name(segment);
    let file = paths.capture(segment).display().to_string();
    // 0x88b5: Herald's frames. -U: every frame is written to the file at once. -Z: tcpdump keeps the user who may write
    // there.
    let arguments = [
        "tcpdump",
        "-i",
        &bridge,
        "-n",
        "-U",
        "--immediate-mode",
        "-Z",
        "root",
        "-w",
        &file,
        "arp or icmp6 or ether proto 0x88b5",
    ];
    Service {
        name: format!("recorder-{bridge}"),
        command: arguments.map(ToOwned::to_owned).to_vec(),
        env: BTreeMap::new(),
        after: None,
    }
}

fn init_spec(record: &Record, plan: &Plan, host: &HostPlan, services: Vec<Service>) -> InitSpec {
    let paths = Paths::of(&record.spec.id);
    let mut etc = node_agents::etc(host);
    etc.insert("hostname".into(), format!("{}\n", host.name));
    etc.insert("hosts".into(), hosts_file(plan));
    // No name server exists here, and a lookup must fail at once rather than leave the laboratory.
    etc.insert("resolv.conf".into(), "# no name server\n".to_owned());
    etc.insert("machine-id".into(), machine_id(&host.role));
    InitSpec {
        hostname: host.name.clone(),
        data: paths.host_data(&host.name),
        visible: record.visible.clone(),
        etc,
        cgroups: record.cgroups.clone(),
        services_dir: paths.host_conf(&host.name).join("services"),
        logs_dir: paths.host_logs(&host.name),
        services,
    }
}

fn hosts_file(plan: &Plan) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost\n");
    for host in &plan.hosts {
        for address in host.addresses(0) {
            text += &format!("{address} {}\n", host.name);
        }
    }
    text
}

/// Returns a machine ID of 32 hexadecimal digits, the same at every boot of a host (machine-id(5)).
fn machine_id(role: &Role) -> String {
    let (kind, number) = match role {
        Role::Switch => (1, 0),
        Role::Control => (2, 0),
        Role::Node(number) => (3, *number),
        Role::Client(number) => (4, *number),
    };
    format!("4e1a1d{kind:02x}{number:024x}\n")
}

/// Waits until the API server answers and all nodes are Ready.
fn await_cluster(lab: &Lab, progress: &Progress) -> Result<()> {
    let runtime = lab.runtime()?;
    let control = lab.control()?;
    let api = control_plane::api_answers(&lab.plan);
    progress.wait_for("the API server to listen", API_WITHIN, || control.inside(|| Ok(api.answers().then_some(()))))?;
    let client = progress.wait_for("the API server to answer", API_WITHIN, || Ok(runtime.block_on(greet(lab)).ok()))?;
    progress.step("the API server answers");
    let nodes: Api<Node> = Api::all(client);
    let wanted: Vec<&str> = lab.plan.nodes().map(|node| node.name.as_str()).collect();
    progress.wait_for(&format!("{} to be Ready", wanted.join(", ")), READY_WITHIN, || {
        let everything = kube::api::ListParams::default();
        let listed = runtime.block_on(async { answered(nodes.list(&everything)).await })?;
        let ready =
            |name: &&str| listed.iter().any(|node| node.metadata.name.as_deref() == Some(*name) && accepts_pods(node));
        Ok(wanted.iter().all(ready).then_some(()))
    })
}

async fn greet(lab: &Lab) -> Result<kube::Client> {
    let client = lab.client().await?;
    answered(client.apiserver_version()).await?;
    Ok(client)
}

/// Returns the answer to a request, or an error when it does not arrive in time.
async fn answered<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T> {
    tokio::time::timeout(wait_factor::scaled(ANSWER_WITHIN)?, request)
        .await
        .context("the API server does not answer")?
        .context("the API server refuses")
}

/// Returns whether a node is Ready and has lost the taint that keeps pods off a node which is not.
fn accepts_pods(node: &Node) -> bool {
    let ready = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let tainted = node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten())
        .any(|taint| taint.key == "node.kubernetes.io/not-ready");
    ready && !tainted
}
