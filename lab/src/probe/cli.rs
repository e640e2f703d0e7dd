//! The command `herald-lab probe`.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use super::agent;
use super::analysis::Report;
use super::sample::Mac;
use super::session::Probe;
use super::spec::{ProbeSpec, Probers};
use crate::cluster::Lab;

/// Probe addresses from a client every 10 ms and report the results.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<ProbeCommand>,
    /// The addresses. A port, as in 192.0.2.10:80 or [2001:db8::10]:80, is the port of the TCP and the UDP echo.
    #[arg(value_name = "ADDRESS[:PORT]", required = true)]
    targets: Vec<Target>,
    /// The host to probe from.
    #[arg(long, default_value = "client1")]
    client: String,
    /// Length of the run.
    #[arg(long = "for", value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// The probers to run.
    #[arg(long, value_enum, default_value_t = Which::All)]
    only: Which,
    /// The client's interface for ARP and neighbour discovery, instead of the interface of the route.
    #[arg(long)]
    interface: Option<String>,
    /// Print the report as JSON.
    #[arg(long, conflicts_with = "samples")]
    json: bool,
    /// Print every sample, as JSON.
    #[arg(long)]
    samples: bool,
}

#[derive(Debug, Subcommand)]
enum ProbeCommand {
    /// Solicit an address (ARP or neighbour discovery) and list all hosts that answer.
    Arp {
        /// The address.
        address: IpAddr,
        /// The host to probe from.
        #[arg(long, default_value = "client1")]
        client: String,
        /// The client's interface, instead of the interface of the route.
        #[arg(long)]
        interface: Option<String>,
    },
}

/// The probers of a run.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Which {
    /// All probers.
    All,
    /// UDP and TCP.
    Traffic,
    /// ARP and neighbour discovery.
    Neighbour,
}

impl From<Which> for Probers {
    fn from(which: Which) -> Self {
        match which {
            Which::All => Self::ALL,
            Which::Traffic => Self::TRAFFIC,
            Which::Neighbour => Self::NEIGHBOUR,
        }
    }
}

/// An address with an optional port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Target {
    address: IpAddr,
    port: Option<u16>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self { address, port: None });
        }
        text.parse::<SocketAddr>()
            .map(|target| Self { address: target.ip(), port: Some(target.port()) })
            .map_err(|_| "write ADDRESS or ADDRESS:PORT, and an IPv6 address with a port as [ADDRESS]:PORT".to_owned())
    }
}

/// Runs `herald-lab probe`.
///
/// # Errors
/// If the client does not exist or is off, an address cannot be probed from it, or the output is closed.
pub fn run(args: Args, lab: &Lab) -> Result<()> {
    let Args { command, targets, client, duration, only, interface, json, samples } = args;
    if let Some(ProbeCommand::Arp { address, client, interface }) = command {
        return who_has(lab, &client, address, interface);
    }
    let mut spec = ProbeSpec::all(targets.iter().map(|target| target.address)).with(only.into());
    spec.interface = interface;
    if let Some(port) = common_port(&targets)? {
        spec = spec.port(port);
    }
    let running = Probe::start(lab, &client, &spec)?;
    // The length of the run was given, so there is no condition to wait for.
    std::thread::sleep(duration);
    let seen = running.samples()?;
    let mut out = io::stdout().lock();
    if samples {
        serde_json::to_writer(&mut out, &seen)?;
        return out.write_all(b"\n").context("cannot print the samples");
    }
    let report = Report::of(&seen);
    if json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        return out.write_all(b"\n").context("cannot print the report");
    }
    write!(out, "{report}").context("cannot print the report")
}

fn common_port(targets: &[Target]) -> Result<Option<u16>> {
    let mut ports = targets.iter().filter_map(|target| target.port);
    let Some(first) = ports.next() else { return Ok(None) };
    if targets.iter().any(|target| target.port != Some(first)) {
        bail!("give all addresses of one run the same port ({first}), or run a probe for each port");
    }
    Ok(Some(first))
}

/// Time for which answers are collected: the solicitations are 10 ms apart, so there are 30 of them.
const WHO_HAS: Duration = Duration::from_millis(300);

fn who_has(lab: &Lab, client: &str, address: IpAddr, interface: Option<String>) -> Result<()> {
    let probers = Probers { announcements: false, ..Probers::NEIGHBOUR };
    let mut spec = ProbeSpec::all([address]).with(probers);
    spec.interface = interface;
    let running = Probe::start(lab, client, &spec)?;
    std::thread::sleep(WHO_HAS);
    let report = running.stop()?;
    let mut out = io::stdout().lock();
    let macs = report.target(address).and_then(|target| target.neighbour.as_ref()).map_or(&[][..], |seen| &seen.macs);
    if macs.is_empty() {
        return writeln!(out, "no host answers for {address} on the segment of {client}").context("cannot print");
    }
    for seen in macs {
        let owner = owner(lab, seen.mac).unwrap_or_else(|| "not a port of this lab".to_owned());
        let cover = if seen.covered > 0 { ", as another node answers" } else { "" };
        writeln!(out, "{address} is at {} ({owner}{cover})", seen.mac).context("cannot print")?;
    }
    Ok(())
}

/// Returns the host and interface with this MAC.
fn owner(lab: &Lab, mac: Mac) -> Option<String> {
    let mut ports = lab.plan().hosts.iter().flat_map(|host| host.ports.iter().map(move |port| (host, port)));
    let (host, port) = ports.find(|(_, port)| Mac::from(port.mac) == mac)?;
    Some(format!("{} {}", host.name, port.interface))
}

/// The probing process, which the laboratory starts inside a client.
#[derive(Debug, clap::Args)]
pub struct AgentArgs {
    /// The probe specification as JSON.
    #[arg(long)]
    spec: String,
    /// Length of the run; without it the run lasts until the input ends or SIGTERM.
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
}

/// Runs the probers in the network namespace of this process and prints the samples.
///
/// # Errors
/// If the specification is invalid, or an address cannot be probed from here.
pub fn run_agent(args: AgentArgs) -> Result<()> {
    let AgentArgs { spec, duration } = args;
    let spec: ProbeSpec = serde_json::from_str(&spec).context("--spec is not a probe specification")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(agent::run(&spec, duration))
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_case::test_case;

    #[test_case("192.0.2.10", Some(("192.0.2.10", None)); "v4")]
    #[test_case("192.0.2.10:80", Some(("192.0.2.10", Some(80))); "v4 with port")]
    #[test_case("2001:db8::10", Some(("2001:db8::10", None)); "v6")]
    #[test_case("[2001:db8::10]:80", Some(("2001:db8::10", Some(80))); "v6 with port")]
    #[test_case("example.com:80", None; "a name")]
    #[test_case("192.0.2.10:", None; "no port after the colon")]
    fn target_is_parsed(text: &str, expected: Option<(&str, Option<u16>)>) {
        let expected = expected.map(|(address, port)| Target { address: address.parse().unwrap(), port });
        assert_eq!(text.parse().ok(), expected);
    }

    #[test]
    fn all_targets_must_have_one_port() {
        let target = |text: &str| text.parse::<Target>().unwrap();
        assert_eq!(common_port(&[target("192.0.2.1"), target("192.0.2.2")]).unwrap(), None);
        assert_eq!(common_port(&[target("192.0.2.1:80"), target("[::1]:80")]).unwrap(), Some(80));
        assert!(common_port(&[target("192.0.2.1:80"), target("192.0.2.2")]).is_err());
    }
}
