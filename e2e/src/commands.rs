//! The command line of `herald-lab`.

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use herald_e2e::bench::{self, cost, failover, first_light, scale};
use herald_e2e::testbed::{self, chart, manifests};
use herald_e2e::{demo, drill, kernel_test, scenario, vm_test};
use herald_lab::cluster::{self, Lab, LabId, Leftovers, Paths, Phase, ProxyMode, Record, Role, Spec};
use herald_lab::progress::Progress;
use herald_lab::{binaries, fault, probe, vm};
use tokio::signal::unix::{SignalKind, signal};

/// The version, with the commit that `e2e/programs.sh` names.
const VERSION: &str = match option_env!("HERALD_VERSION") {
    Some(version) => version,
    None => concat!(env!("CARGO_PKG_VERSION"), " (commit unknown: not built by e2e/programs.sh)"),
};

/// The environment that no option has.
const ENVIRONMENT: &str = "Environment:
  HERALD_LAB_CACHE        directory of what is built once; by default herald-lab in $XDG_CACHE_HOME or ~/.cache
  HERALD_LAB_LOG          filter of the log on standard error [default: info,kube_client=off]
  HERALD_LAB_WAIT_FACTOR  number by which every wait is multiplied, for a slow machine [default: 1]

docs/lab.md is the manual. Commands that make or change a cluster need root.";

/// A real Kubernetes cluster on one machine, in network namespaces.
#[derive(Debug, Parser)]
#[command(name = "herald-lab", version = VERSION, after_help = ENVIRONMENT)]
pub(crate) struct Cli {
    /// ID of the laboratory.
    #[arg(long, global = true, env = "HERALD_LAB_ID", default_value_t = LabId::default())]
    id: LabId,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bring a laboratory up and leave it standing.
    Up(UpArgs),
    /// Take a laboratory down; nothing of it is left.
    Down {
        /// All laboratories of this machine.
        #[arg(long)]
        all: bool,
    },
    /// Show which laboratories are up.
    Status,
    /// Run a command on a host: `exec node1 -- ip address`.
    Exec {
        /// switch, control, node1..., client1...
        host: String,
        /// Command and arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// kubectl as cluster admin.
    #[command(disable_help_flag = true)]
    Kubectl {
        /// Arguments of kubectl.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Helm as cluster admin. It is built into the cache if it is not there.
    #[command(disable_help_flag = true)]
    Helm {
        /// Arguments of Helm.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Print the shell definitions for a laboratory: `eval "$(herald-lab env)"`, then `kubectl get nodes`.
    Env,
    /// Load an image (an OCI or docker archive) into every node.
    Load {
        /// The archive.
        archive: PathBuf,
    },
    /// Gather logs, objects and recordings in a folder.
    Collect {
        /// The folder.
        directory: PathBuf,
    },
    /// Inject, list or heal faults.
    Fault(fault::Args),
    /// Watch an address from a client.
    Probe(probe::Args),
    /// Run scenarios.
    Run(scenario::Args),
    /// Inject faults into a laboratory while two clients watch.
    Drill(drill::Args),
    /// Show a cluster with Herald and a client while a speaker is killed.
    Demo {
        #[command(flatten)]
        up: UpArgs,
        /// Leave the cluster up.
        #[arg(long)]
        keep: bool,
    },
    /// Measure what docs/benchmarks.md reports.
    Bench(UpArgs),
    /// Measure the time from the installation to a Service's address, by each way of installing.
    BenchInstall {
        #[command(flatten)]
        up: UpArgs,
        /// Installations by each way.
        #[arg(long, default_value_t = 3)]
        repeat: usize,
    },
    /// Measure the effect of faults on clients.
    BenchFailover {
        /// Directory of ready-made binaries; missing ones are built.
        #[arg(long, env = "KUBEBUILDER_ASSETS")]
        bin_dir: Option<PathBuf>,
        #[command(flatten)]
        options: failover::Options,
    },
    /// Measure many Services at once: times, writes, CPU, memory, a restart.
    BenchScale {
        #[command(flatten)]
        up: UpArgs,
        #[command(flatten)]
        load: scale::Load,
    },
    /// Measure what an answer costs, and what rest costs: beside the kernel and a minimal responder, under floods.
    BenchCost {
        #[command(flatten)]
        up: UpArgs,
        #[command(flatten)]
        options: cost::Options,
    },
    /// Build the cluster's binaries and Herald's static programs, and cache them. Needs no root.
    Build,
    /// Build Helm, with which the chart is tested, keep it, and print its path. Needs no root.
    BuildHelm,
    /// Write the one-file manifests deploy/*.yaml from the directories there.
    Manifests,
    /// Write deploy/helm/golden, what the Helm chart makes of some values.
    Golden,
    /// Build Herald's image as an OCI archive in target/image.
    Image {
        /// Build the image of the laboratory's workload too.
        #[arg(long)]
        workload: bool,
    },
    /// Run scenarios that need bonding, VLANs, VRFs, IPVS and cgroup version 2, and ordinary ones, on a laboratory of
    /// their own, and report.
    KernelTest {
        /// Names of scenarios; all of them if omitted.
        names: Vec<String>,
        /// An archive of Herald's image; the images are built if omitted.
        #[arg(long, requires = "echo_image")]
        herald_image: Option<PathBuf>,
        /// An archive of the workload's image.
        #[arg(long, requires = "herald_image")]
        echo_image: Option<PathBuf>,
    },
    /// Build user-mode Linux from Debian's kernel source and cache it. Needs no root.
    VmKernel {
        /// Number of parallel compile jobs; the number of processors if omitted.
        #[arg(long)]
        jobs: Option<usize>,
    },
    /// Run `kernel-test` in user-mode Linux, independent of the kernel of this machine.
    VmTest {
        /// Names of scenarios; all of `kernel-test` if omitted.
        names: Vec<String>,
    },
    #[command(hide = true, name = "vm-guest")]
    VmGuest { shared: PathBuf },
    #[command(hide = true, name = "probe-agent")]
    ProbeAgent(probe::AgentArgs),
    #[command(hide = true, name = "host-start")]
    HostStart { lab: LabId, host: String },
    #[command(hide = true, name = "host-init")]
    HostInit { spec: PathBuf, ready: PathBuf },
    #[command(hide = true)]
    Bystander { lab: LabId, node: String },
    #[command(hide = true)]
    Warden { lab: LabId },
}

#[derive(Debug, Args)]
struct UpArgs {
    /// Worker nodes.
    #[arg(long, default_value_t = Spec::default().nodes)]
    nodes: u8,
    /// Hosts outside the cluster.
    #[arg(long, default_value_t = Spec::default().clients)]
    clients: u8,
    /// Layer-2 segments.
    #[arg(long, default_value_t = Spec::default().segments)]
    segments: u8,
    /// Mode of kube-proxy.
    #[arg(long, value_enum, default_value_t)]
    proxy: ProxyMode,
    /// Directory of ready-made binaries; missing ones are built.
    #[arg(long, env = "KUBEBUILDER_ASSETS")]
    bin_dir: Option<PathBuf>,
}

impl Cli {
    /// Runs the chosen command.
    pub(crate) fn run(self) -> Result<()> {
        let Self { id, verb } = self;
        match verb {
            Verb::Up(arguments) => up(id, arguments),
            Verb::Down { all } => down(id, all),
            Verb::Status => status(),
            Verb::Exec { host, command } => exec(&Lab::open(&id)?, &host, &command),
            Verb::Kubectl { arguments } => replace(Lab::open(&id)?.kubectl(arguments)),
            Verb::Helm { arguments } => helm(&Lab::open(&id)?, &arguments),
            Verb::Env => env(&Lab::open(&id)?),
            Verb::Load { archive } => Lab::open(&id)?.load_image(&archive),
            Verb::Collect { directory } => Lab::open(&id)?.collect(&directory),
            Verb::Fault(arguments) => fault::run(arguments, &Lab::open(&id)?),
            Verb::Probe(arguments) => probe::run(arguments, &Lab::open(&id)?),
            Verb::Run(arguments) => scenario::run(&arguments, || Lab::open(&id)),
            Verb::Drill(arguments) => drill::run(&arguments, || Lab::open(&id)),
            Verb::Demo { up, keep } => demo::run(&up.spec(id), keep, &progress()?),
            Verb::Bench(up) => first_light::run(&up.spec(id), &progress()?),
            Verb::BenchInstall { up, repeat } => bench::install::run(&up.spec(id), repeat, &progress()?),
            Verb::BenchFailover { bin_dir, options } => {
                failover::run(&Spec { id, bin_dir, ..Spec::default() }, &options, &progress()?)
            }
            Verb::BenchScale { up, load } => scale::run(&up.spec(id), load, &progress()?),
            Verb::BenchCost { up, options } => cost::run(&up.spec(id), &options, &progress()?),
            Verb::Build => build(),
            Verb::BuildHelm => say(&format!("{}\n", binaries::helm(&progress()?)?.display())),
            Verb::Manifests => manifests::write(&progress()?),
            Verb::Golden => chart::write_golden(&progress()?),
            Verb::Image { workload } => image(workload),
            Verb::KernelTest { names, herald_image, echo_image } => {
                kernel_test(id, &names, herald_image.zip(echo_image))
            }
            Verb::VmKernel { jobs } => vm::build(jobs.unwrap_or_else(processors), &progress()?).map(drop),
            Verb::VmTest { names } => vm_test::run(&names, processors(), &progress()?),
            Verb::VmGuest { shared } => vm::become_first_process(&shared),
            Verb::ProbeAgent(arguments) => probe::run_agent(arguments),
            Verb::HostStart { lab, host } => cluster::start_host(&lab, &host),
            Verb::HostInit { spec, ready } => cluster::init::run(&spec, &ready),
            Verb::Bystander { lab, node } => cluster::stand_by(&lab, &node),
            Verb::Warden { lab } => cluster::guard(&lab),
        }
    }
}

impl UpArgs {
    fn spec(self, id: LabId) -> Spec {
        let Self { nodes, clients, segments, proxy, bin_dir } = self;
        Spec { id, nodes, clients, segments, proxy, bin_dir }
    }
}

fn up(id: LabId, arguments: UpArgs) -> Result<()> {
    let progress = progress()?;
    let mut lab = Lab::up(&arguments.spec(id), &progress)?;
    lab.detach()?;
    progress.step(format!("lab {0} is up: `herald-lab --id {0} kubectl get nodes`", lab.id()));
    Ok(())
}

fn kernel_test(id: LabId, names: &[String], images: Option<(PathBuf, PathBuf)>) -> Result<()> {
    let progress = progress()?;
    let scenarios = kernel_test::chosen(names)?;
    let images = match images {
        Some((herald, echo)) => testbed::Images { herald, echo },
        None => testbed::Images::build(&progress)?,
    };
    kernel_test::run(&Spec { id, ..Spec::default() }, &scenarios, &images, &progress)
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// Returns progress that is printed and that SIGINT and SIGTERM interrupt.
fn progress() -> Result<Progress> {
    let progress = Progress::printing();
    interrupt_on_signals(progress.clone())?;
    Ok(progress)
}

fn build() -> Result<()> {
    let progress = progress()?;
    binaries::provide(None, &progress)?;
    binaries::gateway_definition(&progress)?;
    binaries::build_static(&progress)?;
    Ok(())
}

fn image(workload: bool) -> Result<()> {
    let images = testbed::Images::build(&progress()?)?;
    if workload {
        say(&format!("{}\n", images.export_echo()?.display()))?;
    }
    say(&format!("{}\n", images.export()?.display()))
}

/// Turns SIGINT and SIGTERM into an interruption, so that everything is taken down in order.
fn interrupt_on_signals(progress: Progress) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        progress.interrupt();
    });
    Ok(())
}

fn down(id: LabId, all: bool) -> Result<()> {
    let ids = if all { Paths::known_ids()? } else { vec![id] };
    for id in ids {
        cluster::tear_down(&id)?;
        say(&format!("lab {id} is down\n"))?;
    }
    Ok(())
}

fn status() -> Result<()> {
    let ids = Paths::known_ids()?;
    if ids.is_empty() {
        return say("no lab is up\n");
    }
    let mut text = String::new();
    for id in ids {
        let Some(record) = Record::read(&Paths::of(&id))? else {
            text += &format!("{id}: crashed before it was recorded; the next `up` clears it\n");
            continue;
        };
        let state = match record.phase {
            _ if record.is_abandoned() => "abandoned; the next `up` clears it",
            Phase::Starting => "coming up",
            Phase::Owned => "up, owned by a running program",
            Phase::Detached => "up",
        };
        let left = Leftovers::of(&id)?;
        text += &format!("{id}: {state}; kube-proxy {}, {} processes\n", record.spec.proxy, left.processes.len());
        for host in cluster::Plan::of(&record.spec).hosts {
            let power = match record.hosts.get(&host.name) {
                Some(processes) if processes.init.is_alive() => "on",
                _ => "off",
            };
            let addresses: Vec<String> = host
                .ports
                .iter()
                .map(|port| format!("{}={},{}", port.interface, port.ipv4.addr(), port.ipv6.addr()))
                .collect();
            text += &format!("  {:<9} {power:<4} {}\n", host.name, addresses.join(" "));
        }
    }
    say(&text)
}

/// Prints a text. A reader that closes the pipe early is not an error.
fn say(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("writing the answer"),
        _ => Ok(()),
    }
}

fn exec(lab: &Lab, host: &str, command: &[OsString]) -> Result<()> {
    let Some((program, arguments)) = command.split_first() else { bail!("no command given") };
    let host = lab.host(host)?;
    // The switch has no processes of its own: it consists of its network namespace.
    let mut command = if host.role() == Role::Switch { lab.switch_command(program) } else { host.command(program)? };
    command.args(arguments);
    replace(command)
}

/// Replaces this process with the command, so that the caller sees its exit status and signals.
fn replace(mut command: Command) -> Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("starting {command:?}"))
}

fn helm(lab: &Lab, arguments: &[OsString]) -> Result<()> {
    let mut command = lab.admin_command(&binaries::helm(&progress()?)?);
    command.args(arguments);
    replace(command)
}

fn env(lab: &Lab) -> Result<()> {
    let program = std::env::current_exe().context("finding the own program")?;
    // sudo(8) sets the variable.
    say(&shell_definitions(&program.display().to_string(), lab.id(), std::env::var_os("SUDO_UID").is_some()))
}

/// Returns the definitions of shell functions for a laboratory. For a user of sudo they call sudo, which passes no variable on:
/// therefore the option `--id`.
fn shell_definitions(program: &str, id: &LabId, by_sudo: bool) -> String {
    let quoted = format!("'{}'", program.replace('\'', r"'\''"));
    let sudo = if by_sudo { "sudo " } else { "" };
    format!(
        "export HERALD_LAB_ID={id}\nherald-lab() {{ {sudo}{quoted} --id {id} \"$@\"; }}\n\
         kubectl() {{ herald-lab kubectl \"$@\"; }}\nhelm() {{ herald-lab helm \"$@\"; }}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_functions_call_sudo_where_the_user_did() {
        let definition = |by_sudo| {
            let text = shell_definitions("/it's/herald-lab", &LabId::default(), by_sudo);
            text.lines().nth(1).unwrap_or_default().to_owned()
        };
        let id = LabId::default();
        assert_eq!(definition(false), format!(r#"herald-lab() {{ '/it'\''s/herald-lab' --id {id} "$@"; }}"#));
        assert_eq!(definition(true), format!(r#"herald-lab() {{ sudo '/it'\''s/herald-lab' --id {id} "$@"; }}"#));
    }
}
