//! The states into which a laboratory can be put.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::probe::Mac;

/// A state that can be undone later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Fault {
    /// A node or client has no power.
    PoweredOff {
        /// The host.
        host: String,
    },
    /// A cable is unplugged: the host loses its carrier.
    Cut(Link),
    /// The switch silently drops frames of one host.
    Dropping {
        /// The host's link.
        link: Link,
        /// Direction of the frames.
        direction: Direction,
        /// Share of the frames.
        percent: Percent,
    },
    /// The switch drops all frames of one EtherType, as with port security or a private VLAN.
    EtherTypeDropped {
        /// Number of the segment.
        segment: u8,
        /// The EtherType.
        ethertype: u16,
    },
    /// A segment is split. Hosts in no group reach all others, so the control plane stays reachable unless it is in a
    /// group.
    Partition {
        /// Number of the segment.
        segment: u8,
        /// Groups of hosts that still reach each other.
        groups: Vec<BTreeSet<String>>,
    },
    /// The API server does not answer.
    ApiServer(ApiServerFault),
    /// A node's kubelet is stopped, so that the node becomes NotReady; its pods and its network continue to work.
    KubeletStopped {
        /// The node.
        node: String,
    },
    /// A node accepts no new pods.
    Cordoned {
        /// The node.
        node: String,
    },
    /// All processes of a container are stopped.
    Frozen {
        /// The node it runs on.
        node: String,
        /// Namespace and name of its pod.
        pod: String,
        /// The runtime's ID of the container.
        container: String,
    },
    /// A host has an additional interface.
    InterfaceAdded {
        /// The host, and the segment of the interface.
        link: Link,
        /// Number of the interface: it is eth*number*.
        number: u8,
        /// Its address, if it has one.
        address: Option<IpNet>,
    },
    /// A host has an additional address, for which its kernel answers. If another host has the address too, this one is
    /// a stranger that took it.
    AddressAdded {
        /// The host's interface.
        link: Link,
        /// The address, with the length of its prefix.
        address: IpNet,
    },
    /// A host's interface has another link-layer address.
    MacChanged {
        /// The host's interface.
        link: Link,
        /// The new link-layer address.
        mac: Mac,
    },
    /// A host's interface has another MTU: longer frames are refused by the sender and dropped by the receiver.
    MtuChanged {
        /// The host's interface.
        link: Link,
        /// The new MTU in bytes.
        mtu: u16,
    },
    /// A host's interface is set down, as by an administrator or a network daemon. It loses its IPv6 addresses.
    InterfaceDown {
        /// The host.
        host: String,
        /// The interface's name.
        interface: String,
    },
    /// A host's interface has lost an address, as when its lease ends.
    AddressRemoved {
        /// The host.
        host: String,
        /// The interface's name.
        interface: String,
        /// The address, with the length of its prefix.
        address: IpNet,
    },
}

/// A host's connection to a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The host.
    pub host: String,
    /// Number of the segment.
    pub segment: u8,
}

/// Direction of frames, as seen by the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// Frames that the host sends: it hears the others, and they do not hear it.
    Out,
    /// Frames that the host should receive: the others hear it, and it does not hear them.
    In,
    /// Both directions.
    Both,
}

/// The way in which the API server does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ApiServerFault {
    /// Its process is gone: connections are refused.
    Stopped,
    /// Its process is stopped with a signal: connections hang.
    Hung,
}

/// A percentage from 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Percent(u8);

/// The error for a text or number that is not a valid percentage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a percentage of frames to drop: write a whole number from 1 to 100")]
pub struct NotAPercentage(String);

impl Percent {
    /// 100 %.
    pub const ALL: Self = Self(100);

    /// Returns the number.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Percent {
    type Error = NotAPercentage;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        if (1..=100).contains(&number) { Ok(Self(number)) } else { Err(NotAPercentage(number.to_string())) }
    }
}

impl From<Percent> for u8 {
    fn from(percent: Percent) -> Self {
        percent.0
    }
}

impl FromStr for Percent {
    type Err = NotAPercentage;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<u8>()
            .ok()
            .and_then(|number| Self::try_from(number).ok())
            .ok_or_else(|| NotAPercentage(text.to_owned()))
    }
}

impl Fault {
    /// Returns whether the two faults cannot be in force at once, so that the later one replaces the earlier one.
    #[must_use]
    pub fn replaces(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (
                Self::Dropping { link, direction, percent: _ },
                Self::Dropping { link: other, direction: other_direction, percent: _ },
            ) => link == other && direction == other_direction,
            (Self::Partition { segment, groups: _ }, Self::Partition { segment: other, groups: _ }) => segment == other,
            (Self::ApiServer(_), Self::ApiServer(_)) => true,
            (Self::MacChanged { link, mac: _ }, Self::MacChanged { link: other, mac: _ })
            | (Self::MtuChanged { link, mtu: _ }, Self::MtuChanged { link: other, mtu: _ }) => link == other,
            _ => self == earlier,
        }
    }

    /// Returns whether the state belongs to running processes or to the kernel, and thus ends when this host loses
    /// power.
    #[must_use]
    pub fn ends_with_power_of(&self, name: &str) -> bool {
        match self {
            Self::KubeletStopped { node } | Self::Frozen { node, .. } => node == name,
            Self::AddressAdded { link, .. } | Self::MacChanged { link, .. } | Self::MtuChanged { link, .. } => {
                link.host == name
            }
            Self::InterfaceDown { host, .. } | Self::AddressRemoved { host, .. } => host == name,
            Self::PoweredOff { .. }
            | Self::Cut(_)
            | Self::Dropping { .. }
            | Self::EtherTypeDropped { .. }
            | Self::Partition { .. }
            | Self::ApiServer(_)
            | Self::Cordoned { .. }
            | Self::InterfaceAdded { .. } => false,
        }
    }

    /// Returns whether the state belongs to this host's cables, which are plugged in again when it gets power back.
    #[must_use]
    pub fn is_cabling_of(&self, name: &str) -> bool {
        matches!(self, Self::Cut(link) | Self::InterfaceAdded { link, .. } if link.host == name)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on lan{}", self.host, self.segment)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoweredOff { host } => write!(f, "{host} is powered off"),
            Self::Cut(link) => write!(f, "the link of {link} is cut"),
            Self::Dropping { link, direction, percent } => {
                let which = match direction {
                    Direction::Out => "from",
                    Direction::In => "to",
                    Direction::Both => "from and to",
                };
                write!(f, "{} % of the frames {which} {link} are dropped", percent.get())
            }
            Self::EtherTypeDropped { segment, ethertype } => {
                write!(f, "lan{segment} drops EtherType 0x{ethertype:04x}")
            }
            Self::Partition { segment, groups } => {
                let groups: Vec<String> =
                    groups.iter().map(|group| group.iter().cloned().collect::<Vec<_>>().join(",")).collect();
                write!(f, "lan{segment} is partitioned into {}", groups.join(" | "))
            }
            Self::ApiServer(ApiServerFault::Stopped) => f.write_str("the API server is stopped"),
            Self::ApiServer(ApiServerFault::Hung) => f.write_str("the API server hangs"),
            Self::KubeletStopped { node } => write!(f, "the kubelet of {node} hangs"),
            Self::Cordoned { node } => write!(f, "{node} is cordoned"),
            Self::Frozen { node, pod, container: _ } => write!(f, "a container of {pod} on {node} is frozen"),
            Self::InterfaceAdded { link, number, address } => {
                write!(f, "{link} has an added interface eth{number}")?;
                address.map_or(Ok(()), |address| write!(f, " with {address}"))
            }
            Self::AddressAdded { link, address } => write!(f, "{link} has the added address {address}"),
            Self::MacChanged { link, mac } => write!(f, "{link} has the link-layer address {mac}"),
            Self::MtuChanged { link, mtu } => write!(f, "{link} has an MTU of {mtu} bytes"),
            Self::InterfaceDown { host, interface } => write!(f, "{interface} of {host} is down"),
            Self::AddressRemoved { host, interface, address } => {
                write!(f, "{interface} of {host} lacks its address {address}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_case::test_case;

    #[test_case("1", true)]
    #[test_case("100", true)]
    #[test_case("0", false; "zero")]
    #[test_case("101", false)]
    #[test_case("300", false; "beyond a byte")]
    #[test_case("-5", false)]
    #[test_case("half", false)]
    fn percentage_is_validated(text: &str, fits: bool) {
        assert_eq!(text.parse::<Percent>().is_ok(), fits);
    }

    fn dropping(host: &str, direction: Direction, percent: u8) -> Fault {
        let link = Link { host: host.into(), segment: 0 };
        Fault::Dropping { link, direction, percent: Percent::try_from(percent).unwrap() }
    }

    #[test]
    fn later_fault_replaces_one_at_the_same_place() {
        let cut = |host: &str| Fault::Cut(Link { host: host.into(), segment: 0 });
        let mtu = |host: &str, mtu| Fault::MtuChanged { link: Link { host: host.into(), segment: 0 }, mtu };
        let table = [
            (dropping("node1", Direction::In, 10), dropping("node1", Direction::In, 20), true),
            (dropping("node1", Direction::In, 10), dropping("node1", Direction::Out, 10), false),
            (dropping("node1", Direction::In, 10), dropping("node2", Direction::In, 10), false),
            (cut("node1"), cut("node1"), true),
            (cut("node1"), cut("node2"), false),
            (Fault::ApiServer(ApiServerFault::Hung), Fault::ApiServer(ApiServerFault::Stopped), true),
            (cut("node1"), Fault::PoweredOff { host: "node1".into() }, false),
            (mtu("node1", 1300), mtu("node1", 1400), true),
            (mtu("node1", 1300), mtu("node2", 1300), false),
        ];
        for (earlier, later, expected) in table {
            assert_eq!(later.replaces(&earlier), expected, "{later} after {earlier}");
        }
    }

    #[test]
    fn faults_survive_json() {
        let faults = vec![
            dropping("node1", Direction::Both, 30),
            Fault::ApiServer(ApiServerFault::Hung),
            Fault::Partition { segment: 0, groups: vec![["node1".into()].into(), ["node2".into()].into()] },
            Fault::InterfaceAdded {
                link: Link { host: "node1".into(), segment: 1 },
                number: 2,
                address: Some("10.30.0.1/16".parse().unwrap()),
            },
            Fault::AddressAdded {
                link: Link { host: "client1".into(), segment: 0 },
                address: "10.10.100.1/32".parse().unwrap(),
            },
            Fault::MacChanged { link: Link { host: "node1".into(), segment: 0 }, mac: Mac([2, 0, 0, 7, 0, 0x11]) },
            Fault::MtuChanged { link: Link { host: "node1".into(), segment: 0 }, mtu: 1300 },
            Fault::AddressRemoved {
                host: "node1".into(),
                interface: "eth1".into(),
                address: "10.30.0.1/16".parse().unwrap(),
            },
        ];
        let text = serde_json::to_string(&faults).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Fault>>(&text).unwrap(), faults);
    }
}
