//! The execution of faults.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::containers::Container;
use super::frame::{self, Frame};
use super::journal::Journal;
use super::model::{ApiServerFault, Fault};
use super::pods::{self, PodChoice, PodFound};
use super::steps::{self, Step};
use super::wire;
use crate::cluster::{Lab, netns};
use crate::progress::Progress;

/// A released or continued API server is ready again after 2 to 5 s; the rest is a margin for a busy machine.
const API_READY_WITHIN: Duration = Duration::from_secs(60);

/// The faults of one laboratory.
#[derive(Debug)]
pub struct Faults<'a> {
    lab: &'a Lab,
}

impl<'a> Faults<'a> {
    /// Returns the faults of this laboratory.
    #[must_use]
    pub fn of(lab: &'a Lab) -> Self {
        Self { lab }
    }

    /// Returns the faults in force, in the order of their injection.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub fn active(&self) -> Result<Vec<Fault>> {
        Ok(Journal::open(self.lab.paths())?.faults().to_vec())
    }

    /// Injects a fault. A fault that cannot be in force at the same time is healed first.
    ///
    /// # Errors
    /// If the laboratory cannot have the fault, or a step fails; the completed steps are then undone.
    pub fn inject(&self, fault: Fault) -> Result<()> {
        let steps = steps::inject(&fault, self.lab.plan())?;
        let mut journal = Journal::open(self.lab.paths())?;
        let replaced: Vec<Fault> = journal.faults().iter().filter(|earlier| fault.replaces(earlier)).cloned().collect();
        for earlier in replaced {
            if earlier == fault {
                journal.retain(|kept| *kept != earlier)?;
            } else {
                self.undo(&earlier, &mut journal)?;
            }
        }
        // The journal is written first: a process that ends in the middle leaves a fault that can be healed.
        journal.add(fault.clone())?;
        let done = self.carry_out(&steps, &mut journal).and_then(|()| self.apply_wire(&journal));
        if let Err(error) = done {
            return match self.undo(&fault, &mut journal) {
                Ok(()) => Err(error),
                Err(undo) => Err(error.context(format!("and undoing it failed: {undo:#}"))),
            };
        }
        Ok(())
    }

    /// Heals a fault; does nothing if it is not in force.
    ///
    /// # Errors
    /// If a step fails; the fault then stays in the journal.
    pub fn heal(&self, fault: &Fault) -> Result<()> {
        self.heal_where(|active| active == fault).map(drop)
    }

    /// Heals all faults and returns them.
    ///
    /// # Errors
    /// If a fault could not be healed; all others are.
    pub fn heal_all(&self) -> Result<Vec<Fault>> {
        self.heal_where(|_| true)
    }

    /// Heals the matching faults and returns them.
    ///
    /// # Errors
    /// If a fault could not be healed; all others are.
    pub fn heal_where(&self, fits: impl Fn(&Fault) -> bool) -> Result<Vec<Fault>> {
        let mut journal = Journal::open(self.lab.paths())?;
        let mut fitting: Vec<Fault> = journal.faults().iter().filter(|fault| fits(fault)).cloned().collect();
        fitting.sort_by_key(steps::heal_order);
        let mut healed = Vec::new();
        let mut failures = Vec::new();
        for fault in fitting {
            match self.undo(&fault, &mut journal) {
                Ok(()) => healed.push(fault),
                Err(error) => failures.push(format!("{fault}: {error:#}")),
            }
        }
        if failures.is_empty() { Ok(healed) } else { bail!("not healed: {}", failures.join("; ")) }
    }

    /// Evicts the pods of a node and leaves it cordoned.
    ///
    /// # Errors
    /// If the node does not exist or the evictions do not end within two minutes.
    pub fn drain(&self, node: &str) -> Result<()> {
        let drain = steps::drain(node, self.lab.plan())?;
        self.inject(Fault::Cordoned { node: node.to_owned() })?;
        self.carry_out(&[drain], &mut Journal::open(self.lab.paths())?)
    }

    /// Returns the matching pods according to the API server. The result can be used while the API server is away.
    ///
    /// # Errors
    /// If no pod matches, a pod has several containers and none was chosen, or the API server does not answer.
    pub fn pods(&self, choice: &PodChoice) -> Result<Vec<PodFound>> {
        pods::find(self.lab, choice)
    }

    /// Sends a signal such as SIGKILL or SIGTERM to the first process of a container. ([`Faults::freeze`] and
    /// [`Faults::thaw`] stop and continue it.)
    ///
    /// # Errors
    /// If the container does not run or its node is off.
    pub fn signal(&self, pod: &PodFound, signal: Signal) -> Result<()> {
        self.container(pod)?.signal(signal)
    }

    /// Sends SIGTERM to the first process of a container, waits until it has ended, and returns the time this took.
    ///
    /// # Errors
    /// If the container does not run, or does not end within the limit.
    pub fn terminate(&self, pod: &PodFound, within: Duration) -> Result<Duration> {
        let container = self.container(pod)?;
        let begun = Instant::now();
        container.signal(Signal::SIGTERM)?;
        Progress::quiet().wait_for(&format!("container {} of {pod} to end", pod.container), within, || {
            Ok(container.first_has_ended().then_some(()))
        })?;
        Ok(begun.elapsed())
    }

    /// Stops all processes of a container (SIGSTOP).
    ///
    /// # Errors
    /// If the container does not run or its node is off.
    pub fn freeze(&self, pod: &PodFound) -> Result<()> {
        let Container { id: container, .. } = self.container(pod)?;
        self.inject(Fault::Frozen { node: pod.node.clone(), pod: pod.to_string(), container })
    }

    /// Continues the frozen containers of a pod (SIGCONT).
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn thaw(&self, pod: &PodFound) -> Result<()> {
        let name = pod.to_string();
        self.heal_where(|fault| matches!(fault, Fault::Frozen { pod, .. } if *pod == name)).map(drop)
    }

    /// Deletes a pod without waiting until it is gone. `grace` is in seconds; 0 removes the object at once.
    ///
    /// # Errors
    /// If the API server refuses or does not answer.
    pub fn delete_pod(&self, pod: &PodFound, grace: Option<u32>) -> Result<()> {
        let PodFound { namespace, name, .. } = pod;
        let mut kubectl = self.lab.kubectl(["--request-timeout=30s", "delete", "pod", name]);
        kubectl.args(["--namespace", namespace, "--wait=false"]);
        match grace {
            Some(0) => kubectl.args(["--force", "--grace-period=0"]),
            Some(seconds) => kubectl.arg(format!("--grace-period={seconds}")),
            None => &mut kubectl,
        };
        netns::run(&mut kubectl)
    }

    /// Sends a whole Ethernet frame from an interface of a host.
    ///
    /// # Errors
    /// If the bytes do not form a frame (14 to 1,514 bytes), the host has no such interface, or the link is down.
    pub fn send_frame(&self, host: &str, interface: &str, bytes: &[u8]) -> Result<()> {
        frame::send(&self.lab.host(host)?, interface, &Frame::try_from(bytes)?)
    }

    /// Returns the number of the next interface of a host: eth*number*.
    ///
    /// # Errors
    /// If the journal cannot be read, or no number is left.
    pub fn next_interface(&self, host: &str) -> Result<u8> {
        let taken: Vec<u8> = self
            .active()?
            .iter()
            .filter_map(|fault| match fault {
                Fault::InterfaceAdded { link, number, .. } if link.host == host => Some(*number),
                _ => None,
            })
            .collect();
        let free = (self.lab.plan().segments..=u8::MAX).find(|number| !taken.contains(number));
        free.with_context(|| format!("{host} has no number left for another interface"))
    }

    fn container(&self, pod: &PodFound) -> Result<Container> {
        Container::of(pod, &self.lab.host(&pod.node)?, self.lab.bin_dir())
    }

    fn undo(&self, fault: &Fault, journal: &mut Journal) -> Result<()> {
        let steps = steps::heal(fault, self.lab.plan())?;
        self.carry_out(&steps, journal)?;
        if matches!(fault, Fault::ApiServer(ApiServerFault::Stopped | ApiServerFault::Hung)) {
            self.await_api_server()?;
        }
        journal.retain(|kept| kept != fault)?;
        self.apply_wire(journal)
    }

    fn await_api_server(&self) -> Result<()> {
        let ready = || {
            let mut ask = self.lab.kubectl(["--request-timeout=2s", "get", "--raw", "/readyz"]);
            let output = ask.stdin(Stdio::null()).output().context("starting kubectl")?;
            Ok(output.status.success().then_some(()))
        };
        Progress::quiet().wait_for("the API server to be ready", API_READY_WITHIN, ready)
    }

    fn apply_wire(&self, journal: &Journal) -> Result<()> {
        let rules = wire::ruleset(journal.faults(), self.lab.plan());
        let mut nft = self.lab.switch_command("nft");
        nft.args(["--file", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = nft.spawn().context("starting nft")?;
        let mut input = child.stdin.take().context("nft has no input")?;
        let written = input.write_all(rules.as_bytes());
        drop(input);
        let output = child.wait_with_output().context("waiting for nft")?;
        if !output.status.success() {
            bail!("the switch refuses its rules: {}\n{rules}", String::from_utf8_lossy(&output.stderr).trim());
        }
        written.context("writing to nft")
    }

    fn carry_out(&self, steps: &[Step], journal: &mut Journal) -> Result<()> {
        steps.iter().try_for_each(|step| self.step(step, journal))
    }

    fn step(&self, step: &Step, journal: &mut Journal) -> Result<()> {
        match step {
            Step::SwitchIp(args) => netns::run(self.lab.switch_command("ip").args(args)),
            Step::HostIp { host, args } => netns::run(self.lab.host(host)?.net_command("ip").args(args)),
            Step::Unplug(port) => self.unplug(port),
            Step::Kubectl(args) => netns::run(self.lab.kubectl(["--request-timeout=30s"]).args(args)),
            Step::SignalService { host, service, signal } => {
                let host = self.lab.host(host)?;
                // A service that was restarted meanwhile is no longer stopped.
                if *signal == "CONT" && host.service_pid(service)?.is_none() {
                    return Ok(());
                }
                host.signal_service(service, signal)
            }
            Step::HoldService { host, service } => self.lab.host(host)?.hold_service(service),
            Step::ReleaseService { host, service } => self.lab.host(host)?.release_service(service),
            Step::Power { host, on: false } => self.power_off(host, journal),
            Step::Power { host, on: true } => self.power_on(host, journal),
            Step::Freeze { container, frozen } => {
                let signal = if *frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
                Container::with_id(container)?.signal_all(signal)
            }
        }
    }

    fn unplug(&self, port: &str) -> Result<()> {
        let there = netns::inside(&self.lab.switch_netns(), || Ok(nix::net::if_::if_nametoindex(port).is_ok()))?;
        if there { netns::run(self.lab.switch_command("ip").args(["link", "delete", port])) } else { Ok(()) }
    }

    fn power_off(&self, host: &str, journal: &mut Journal) -> Result<()> {
        // The laboratory sets down the ports it created itself; added ones are removed here and created again at
        // power-on.
        for fault in journal.faults() {
            if let Fault::InterfaceAdded { link, number, .. } = fault
                && link.host == host
            {
                self.unplug(&steps::added_port(host, *number))?;
            }
        }
        self.lab.power_off(host)?;
        journal.retain(|fault| !fault.ends_with_power_of(host))
    }

    fn power_on(&self, host: &str, journal: &mut Journal) -> Result<()> {
        if self.lab.host(host)?.init().is_some() {
            return Ok(());
        }
        self.lab.power_on(host)?;
        let cabling: Vec<Fault> = journal.faults().iter().filter(|fault| fault.is_cabling_of(host)).cloned().collect();
        for fault in cabling {
            let steps = steps::inject(&fault, self.lab.plan())?;
            self.carry_out(&steps, journal)?;
        }
        Ok(())
    }
}
