//! The command `herald-lab fault`.

use std::io::{self, Write};

use anyhow::{Context, Result, bail};
use clap::{Subcommand, ValueEnum};
use ipnet::IpNet;
use nix::sys::signal::Signal;

use super::executor::Faults;
use super::frame::{self, Frame};
use super::model::{ApiServerFault, Direction, Fault, Link, Percent};
use super::pods::{PodChoice, PodFound};
use crate::cluster::Lab;
use crate::probe::Mac;

/// Inject faults and heal them again.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the faults in force.
    List,
    /// Undo every fault in force.
    HealAll,
    /// Send a signal to a container: kill or term to its first process, stop or cont to all of them.
    Signal {
        /// The signal.
        signal: ContainerSignal,
        #[command(flatten)]
        pods: PodChoice,
        /// Act on all matching pods instead of a single one.
        #[arg(long)]
        all: bool,
    },
    /// Delete a pod.
    DeletePod {
        #[command(flatten)]
        pods: PodChoice,
        /// Act on all matching pods instead of a single one.
        #[arg(long)]
        all: bool,
        /// Grace period in seconds; 0 removes the object at once.
        #[arg(long)]
        grace: Option<u32>,
    },
    /// Cut the power of a node or client: its link goes down, then its processes are killed.
    PowerOff {
        /// The host.
        host: String,
    },
    /// Undo `power-off`.
    PowerOn {
        /// The host.
        host: String,
    },
    /// Pull a host's cable.
    Cut {
        #[command(flatten)]
        link: LinkArgs,
        /// Drop only the frames of one direction (as seen by the host); the host keeps its carrier.
        #[arg(long)]
        only: Option<Direction>,
    },
    /// Drop a share of a host's frames.
    Loss {
        /// Percentage of the frames.
        percent: Percent,
        #[command(flatten)]
        link: LinkArgs,
        /// Direction of the frames, as seen by the host.
        #[arg(long, default_value = "both")]
        direction: Direction,
    },
    /// Undo `cut` and `loss` of a host's link.
    Restore {
        #[command(flatten)]
        link: LinkArgs,
    },
    /// Split a segment into groups of hosts, as in `node1,node2 node3,client1`. Hosts in no group reach all others.
    Partition {
        /// The groups; the hosts of a group are separated by commas.
        #[arg(required = true, num_args = 2..)]
        groups: Vec<String>,
        /// Number of the segment.
        #[arg(long, default_value_t = 0)]
        segment: u8,
    },
    /// Undo `partition`.
    Join {
        /// Number of the segment.
        #[arg(long, default_value_t = 0)]
        segment: u8,
    },
    /// Drop all frames of one EtherType at the switch.
    DropEthertype {
        /// The EtherType in hexadecimal, as in 0x88b5.
        #[arg(value_parser = ethertype)]
        ethertype: u16,
        /// Number of the segment.
        #[arg(long, default_value_t = 0)]
        segment: u8,
    },
    /// Undo `drop-ethertype`.
    PassEthertype {
        /// The EtherType in hexadecimal.
        #[arg(value_parser = ethertype)]
        ethertype: u16,
        /// Number of the segment.
        #[arg(long, default_value_t = 0)]
        segment: u8,
    },
    /// Stop or hang the API server, or let it run again.
    ApiServer {
        /// The new state.
        order: ApiServerOrder,
    },
    /// Stop a node's kubelet, so that the node becomes NotReady (after about 20 s).
    NotReady {
        /// The node.
        node: String,
    },
    /// Undo `not-ready`.
    Ready {
        /// The node.
        node: String,
    },
    /// Cordon a node.
    Cordon {
        /// The node.
        node: String,
    },
    /// Undo `cordon` and `drain`.
    Uncordon {
        /// The node.
        node: String,
    },
    /// Cordon a node and evict its pods.
    Drain {
        /// The node.
        node: String,
    },
    /// Plug one more interface of a host into a segment.
    AddInterface {
        #[command(flatten)]
        link: LinkArgs,
        /// Its address with the prefix length.
        #[arg(long)]
        address: Option<IpNet>,
    },
    /// Undo `add-interface`, for all added interfaces of a host.
    RemoveInterfaces {
        /// The host.
        host: String,
    },
    /// Give a host one more address, like a stranger that takes the address of another host.
    AddAddress {
        #[command(flatten)]
        link: LinkArgs,
        /// The address with the prefix length, usually /32 or /128.
        address: IpNet,
    },
    /// Undo `add-address`, for all added addresses of a host.
    RemoveAddresses {
        /// The host.
        host: String,
    },
    /// Give a host's interface another link-layer address.
    ChangeMac {
        #[command(flatten)]
        link: LinkArgs,
        /// The address.
        mac: Mac,
    },
    /// Undo `change-mac`.
    RestoreMac {
        #[command(flatten)]
        link: LinkArgs,
    },
    /// Give a host's interface another MTU.
    ChangeMtu {
        #[command(flatten)]
        link: LinkArgs,
        /// The new MTU in bytes.
        #[arg(value_parser = clap::value_parser!(u16).range(68..))]
        mtu: u16,
    },
    /// Undo `change-mtu`.
    RestoreMtu {
        #[command(flatten)]
        link: LinkArgs,
    },
    /// Set a host's interface down.
    InterfaceDown {
        /// The host.
        host: String,
        /// The interface.
        interface: String,
    },
    /// Undo `interface-down`.
    InterfaceUp {
        /// The host.
        host: String,
        /// The interface.
        interface: String,
    },
    /// Remove an address from a host's interface.
    LoseAddress {
        /// The host.
        host: String,
        /// The interface.
        interface: String,
        /// The address with the prefix length.
        address: IpNet,
    },
    /// Undo `lose-address`, for all lost addresses of a host.
    RegainAddresses {
        /// The host.
        host: String,
    },
    /// Send a frame, given in hexadecimal and starting with the destination address.
    SendFrame {
        /// The host.
        host: String,
        /// The frame.
        frame: Frame,
        /// The host's interface.
        #[arg(long, default_value = "eth0")]
        interface: String,
    },
}

#[derive(Debug, Clone, clap::Args)]
struct LinkArgs {
    /// The host.
    host: String,
    /// Number of the segment.
    #[arg(long, default_value_t = 0)]
    segment: u8,
}

impl From<LinkArgs> for Link {
    fn from(LinkArgs { host, segment }: LinkArgs) -> Self {
        Self { host, segment }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ContainerSignal {
    Kill,
    Term,
    Stop,
    Cont,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ApiServerOrder {
    /// End it and prevent its restart: connections are refused.
    Stop,
    /// Stop its process with a signal: connections hang.
    Hang,
    /// Let it run.
    Start,
}

fn ethertype(text: &str) -> Result<u16, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    // Values below 0x0600 in this field are a length (IEEE 802.3).
    match u16::from_str_radix(digits, 16) {
        Ok(ethertype) if ethertype >= 0x0600 => Ok(ethertype),
        _ => Err("write four hexadecimal digits from 0600 on, as in 0x88b5".to_owned()),
    }
}

/// Runs `herald-lab fault`.
///
/// # Errors
/// If the laboratory cannot have the fault, or injecting or healing it fails.
pub fn run(args: Args, lab: &Lab) -> Result<()> {
    let Args { verb } = args;
    let faults = Faults::of(lab);
    match verb {
        Verb::List => tell(&faults.active()?, "nothing is broken"),
        Verb::HealAll => healed(&faults, |_| true),
        Verb::Signal { signal, pods, all } => {
            for pod in chosen(&faults, &pods, all)? {
                match signal {
                    ContainerSignal::Kill => faults.signal(&pod, Signal::SIGKILL)?,
                    ContainerSignal::Term => faults.signal(&pod, Signal::SIGTERM)?,
                    ContainerSignal::Stop => faults.freeze(&pod)?,
                    ContainerSignal::Cont => faults.thaw(&pod)?,
                }
                say(&format!("{signal:?}: container {} of {pod} on {}", pod.container, pod.node))?;
            }
            Ok(())
        }
        Verb::DeletePod { pods, all, grace } => {
            for pod in chosen(&faults, &pods, all)? {
                faults.delete_pod(&pod, grace)?;
                say(&format!("deleted {pod} on {}", pod.node))?;
            }
            Ok(())
        }
        Verb::PowerOff { host } => injected(&faults, Fault::PoweredOff { host }),
        Verb::PowerOn { host } => healed_one(&faults, &Fault::PoweredOff { host }),
        Verb::Cut { link, only: None } => injected(&faults, Fault::Cut(link.into())),
        Verb::Cut { link, only: Some(direction) } => {
            injected(&faults, Fault::Dropping { link: link.into(), direction, percent: Percent::ALL })
        }
        Verb::Loss { percent, link, direction } => {
            injected(&faults, Fault::Dropping { link: link.into(), direction, percent })
        }
        Verb::Restore { link } => {
            let wanted = Link::from(link);
            healed(&faults, |fault| matches!(fault, Fault::Cut(link) | Fault::Dropping { link, .. } if *link == wanted))
        }
        Verb::Partition { groups, segment } => {
            let groups = groups.iter().map(|group| group.split(',').map(str::to_owned).collect()).collect();
            injected(&faults, Fault::Partition { segment, groups })
        }
        Verb::Join { segment: wanted } => {
            healed(&faults, |fault| matches!(fault, Fault::Partition { segment, .. } if *segment == wanted))
        }
        Verb::DropEthertype { ethertype, segment } => injected(&faults, Fault::EtherTypeDropped { segment, ethertype }),
        Verb::PassEthertype { ethertype, segment } => {
            healed_one(&faults, &Fault::EtherTypeDropped { segment, ethertype })
        }
        Verb::ApiServer { order: ApiServerOrder::Stop } => injected(&faults, Fault::ApiServer(ApiServerFault::Stopped)),
        Verb::ApiServer { order: ApiServerOrder::Hang } => injected(&faults, Fault::ApiServer(ApiServerFault::Hung)),
        Verb::ApiServer { order: ApiServerOrder::Start } => {
            healed(&faults, |fault| matches!(fault, Fault::ApiServer(_)))
        }
        Verb::NotReady { node } => injected(&faults, Fault::KubeletStopped { node }),
        Verb::Ready { node } => healed_one(&faults, &Fault::KubeletStopped { node }),
        Verb::Cordon { node } => injected(&faults, Fault::Cordoned { node }),
        Verb::Uncordon { node } => healed_one(&faults, &Fault::Cordoned { node }),
        Verb::Drain { node } => {
            faults.drain(&node)?;
            say(&format!("{node} is drained and cordoned"))
        }
        Verb::AddInterface { link, address } => {
            let number = faults.next_interface(&link.host)?;
            injected(&faults, Fault::InterfaceAdded { link: link.into(), number, address })
        }
        Verb::RemoveInterfaces { host } => {
            healed(&faults, |fault| matches!(fault, Fault::InterfaceAdded { link, .. } if link.host == host))
        }
        Verb::AddAddress { link, address } => injected(&faults, Fault::AddressAdded { link: link.into(), address }),
        Verb::RemoveAddresses { host } => {
            healed(&faults, |fault| matches!(fault, Fault::AddressAdded { link, .. } if link.host == host))
        }
        Verb::ChangeMac { link, mac } => injected(&faults, Fault::MacChanged { link: link.into(), mac }),
        Verb::RestoreMac { link } => {
            let wanted = Link::from(link);
            healed(&faults, |fault| matches!(fault, Fault::MacChanged { link, .. } if *link == wanted))
        }
        Verb::ChangeMtu { link, mtu } => injected(&faults, Fault::MtuChanged { link: link.into(), mtu }),
        Verb::RestoreMtu { link } => {
            let wanted = Link::from(link);
            healed(&faults, |fault| matches!(fault, Fault::MtuChanged { link, .. } if *link == wanted))
        }
        Verb::InterfaceDown { host, interface } => injected(&faults, Fault::InterfaceDown { host, interface }),
        Verb::InterfaceUp { host, interface } => healed_one(&faults, &Fault::InterfaceDown { host, interface }),
        Verb::LoseAddress { host, interface, address } => {
            injected(&faults, Fault::AddressRemoved { host, interface, address })
        }
        Verb::RegainAddresses { host: wanted } => {
            healed(&faults, |fault| matches!(fault, Fault::AddressRemoved { host, .. } if *host == wanted))
        }
        Verb::SendFrame { host, frame, interface } => frame::send(&lab.host(&host)?, &interface, &frame),
    }
}

/// Returns the matching pods; an error for more than one unless `all` is set.
fn chosen(faults: &Faults<'_>, choice: &PodChoice, all: bool) -> Result<Vec<PodFound>> {
    let pods = faults.pods(choice)?;
    if pods.len() > 1 && !all {
        let names: Vec<String> = pods.iter().map(|pod| format!("{pod} on {}", pod.node)).collect();
        bail!("{} pods fit: {}. Name one by --pod or --node, or say --all", pods.len(), names.join(", "));
    }
    Ok(pods)
}

fn injected(faults: &Faults<'_>, fault: Fault) -> Result<()> {
    let text = fault.to_string();
    faults.inject(fault)?;
    say(&text)
}

fn healed_one(faults: &Faults<'_>, fault: &Fault) -> Result<()> {
    healed(faults, |active| active == fault)
}

fn healed(faults: &Faults<'_>, fits: impl Fn(&Fault) -> bool) -> Result<()> {
    let mended: Vec<String> = faults.heal_where(fits)?.iter().map(|fault| format!("healed: {fault}")).collect();
    tell(&mended, "nothing to heal")
}

fn tell<T: ToString>(lines: &[T], nothing: &str) -> Result<()> {
    if lines.is_empty() {
        return say(nothing);
    }
    lines.iter().try_for_each(|line| say(&line.to_string()))
}

fn say(line: &str) -> Result<()> {
    writeln!(io::stdout().lock(), "{line}").context("cannot print")
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_case::test_case;

    #[test_case("0x88b5", Some(0x88b5))]
    #[test_case("0806", Some(0x0806); "without the prefix")]
    #[test_case("0x0100", None; "a length")]
    #[test_case("arp", None; "a name")]
    #[test_case("0x123456", None; "too long")]
    fn ethertype_is_parsed(text: &str, expected: Option<u16>) {
        assert_eq!(ethertype(text).ok(), expected);
    }
}
