//! Faults of the wire as one ruleset of the switch, as a pure function of the faults in force.
//!
//! The rules are in nftables' bridge family, in the switch's namespace. The prerouting hook sees a frame once, when it
//! arrives from a port and before the bridge learns its source; the forward hook sees each copy that is about to leave
//! by a port. (The netdev family's ingress hook could replace only the first.)

use std::collections::BTreeSet;
use std::fmt::Write;

use super::model::{Direction, Fault, Link, Percent};
use super::steps::added_port;
use crate::cluster::Plan;

/// The only table of this module.
pub const TABLE: &str = "herald_faults";

/// Returns the input of `nft -f -` that replaces the rules in force by those of `faults`, in one step.
#[must_use]
pub fn ruleset(faults: &[Fault], plan: &Plan) -> String {
    let mut arriving = Vec::new();
    let mut leaving = Vec::new();
    for fault in faults {
        match fault {
            Fault::Dropping { link, direction, percent } => {
                let ports = ports_of(&link.host, link.segment, faults, plan);
                if *direction != Direction::In {
                    arriving.push(format!("iifname {ports}{}", share(*percent)));
                }
                if *direction != Direction::Out {
                    leaving.push(format!("oifname {ports}{}", share(*percent)));
                }
            }
            Fault::EtherTypeDropped { segment, ethertype } => {
                let hosts = plan.hosts.iter().map(|host| host.name.as_str());
                let ports = Ports::of(hosts, *segment, faults, plan);
                arriving.push(format!("iifname {ports} ether type 0x{ethertype:04x}"));
            }
            Fault::Partition { segment, groups } => {
                let ports: Vec<Ports> = groups
                    .iter()
                    .map(|group| Ports::of(group.iter().map(String::as_str), *segment, faults, plan))
                    .collect();
                for (index, from) in ports.iter().enumerate() {
                    for to in ports.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, to)| to) {
                        leaving.push(format!("iifname {from} oifname {to}"));
                    }
                }
            }
            Fault::PoweredOff { .. }
            | Fault::Cut(_)
            | Fault::ApiServer(_)
            | Fault::KubeletStopped { .. }
            | Fault::Cordoned { .. }
            | Fault::Frozen { .. }
            | Fault::InterfaceAdded { .. }
            | Fault::AddressAdded { .. }
            | Fault::MacChanged { .. }
            | Fault::MtuChanged { .. }
            | Fault::InterfaceDown { .. }
            | Fault::AddressRemoved { .. } => {}
        }
    }
    // The table is declared first, so that deleting it does not fail if it does not exist yet.
    let mut text = format!("table bridge {TABLE}\ndelete table bridge {TABLE}\n");
    if arriving.is_empty() && leaving.is_empty() {
        return text;
    }
    text += &format!("table bridge {TABLE} {{\n");
    for (chain, hook, rules) in [("arriving", "prerouting", &arriving), ("leaving", "forward", &leaving)] {
        text += &format!("  chain {chain} {{\n    type filter hook {hook} priority filter; policy accept;\n");
        for rule in rules {
            // The counter shows in `nft list ruleset` how many frames the fault has dropped.
            text += &format!("    {rule} counter drop\n");
        }
        text += "  }\n";
    }
    text + "}\n"
}

/// Returns the condition that matches this percentage of the frames.
fn share(percent: Percent) -> String {
    if percent == Percent::ALL { String::new() } else { format!(" numgen random mod 100 < {}", percent.get()) }
}

fn ports_of(host: &str, segment: u8, faults: &[Fault], plan: &Plan) -> Ports {
    Ports::of(std::iter::once(host), segment, faults, plan)
}

/// Ports of the switch.
struct Ports(BTreeSet<String>);

impl Ports {
    /// Returns the ports of hosts in a segment, including those added later.
    fn of<'a>(hosts: impl Iterator<Item = &'a str>, segment: u8, faults: &[Fault], plan: &Plan) -> Self {
        let mut ports = BTreeSet::new();
        for name in hosts {
            ports.extend(plan.host(name).and_then(|host| host.port(segment)).map(|port| port.switch_port.clone()));
            ports.extend(faults.iter().filter_map(|fault| match fault {
                Fault::InterfaceAdded { link: Link { host, segment: added }, number, .. }
                    if host == name && *added == segment =>
                {
                    Some(added_port(host, *number))
                }
                _ => None,
            }));
        }
        Self(ports)
    }
}

impl std::fmt::Display for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("{ ")?;
        for (index, port) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            f.write_char('"')?;
            f.write_str(port)?;
            f.write_char('"')?;
        }
        f.write_str(" }")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::steps::tests::plan;
    use test_case::test_case;

    fn link(host: &str) -> Link {
        Link { host: host.into(), segment: 0 }
    }

    fn dropping(host: &str, direction: Direction, percent: u8) -> Fault {
        Fault::Dropping { link: link(host), direction, percent: Percent::try_from(percent).unwrap() }
    }

    fn added(host: &str) -> Fault {
        Fault::InterfaceAdded { link: link(host), number: 2, address: None }
    }

    fn group(hosts: &[&str]) -> BTreeSet<String> {
        hosts.iter().map(|&host| host.to_owned()).collect()
    }

    /// Returns the rules of a chain.
    fn rules(text: &str, chain: &str) -> Vec<String> {
        let lines = text.lines().map(str::trim).skip_while(|line| *line != format!("chain {chain} {{"));
        lines.skip(2).take_while(|line| *line != "}").map(str::to_owned).collect()
    }

    #[test_case(&[dropping("node1", Direction::Out, 100)],
        &[r#"iifname { "node1-0" } counter drop"#], &[]; "a mute host")]
    #[test_case(&[dropping("node1", Direction::In, 100)],
        &[], &[r#"oifname { "node1-0" } counter drop"#]; "a deaf host")]
    #[test_case(&[dropping("node2", Direction::Both, 30)],
        &[r#"iifname { "node2-0" } numgen random mod 100 < 30 counter drop"#],
        &[r#"oifname { "node2-0" } numgen random mod 100 < 30 counter drop"#]; "a bad cable")]
    #[test_case(&[added("node1"), dropping("node1", Direction::Out, 100)],
        &[r#"iifname { "node1-0", "node1-2" } counter drop"#], &[]; "an added port of the same segment counts")]
    #[test_case(&[Fault::EtherTypeDropped { segment: 0, ethertype: 0x88b5 }],
        &[r#"iifname { "client1-0", "control-0", "node1-0", "node2-0" } ether type 0x88b5 counter drop"#], &[]; "one EtherType")]
    #[test_case(&[Fault::Partition { segment: 0, groups: vec![group(&["node1"]), group(&["node2", "client1"])] }],
        &[], &[
            r#"iifname { "node1-0" } oifname { "client1-0", "node2-0" } counter drop"#,
            r#"iifname { "client1-0", "node2-0" } oifname { "node1-0" } counter drop"#,
        ]; "a partition")]
    fn wire_faults_become_rules(faults: &[Fault], arriving: &[&str], leaving: &[&str]) {
        let text = ruleset(faults, &plan());
        assert_eq!((rules(&text, "arriving"), rules(&text, "leaving")), (owned(arriving), owned(leaving)), "{text}");
    }

    fn owned(rules: &[&str]) -> Vec<String> {
        rules.iter().map(|&rule| rule.to_owned()).collect()
    }

    #[test]
    fn table_is_deleted_without_wire_faults() {
        let text = ruleset(&[Fault::Cut(link("node1")), added("node1")], &plan());
        assert_eq!(text, "table bridge herald_faults\ndelete table bridge herald_faults\n");
    }
}
