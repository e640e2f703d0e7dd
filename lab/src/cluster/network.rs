//! The wire: a switch namespace with a bridge per segment, and a cable from each host to it. Cables are created inside
//! the switch's namespace, so nothing ever appears in the machine's own.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::netns;
use super::plan::{HostPlan, Plan, Port, Role, absent_gateways, bridge_name, pod_networks};

/// Creates the switch's namespace and its bridges.
pub(super) fn create_switch(plan: &Plan) -> Result<()> {
    let name = plan.netns_name("switch");
    netns::add(&name)?;
    // The settings come first: new interfaces inherit the defaults.
    settings(&name, &switch_settings())?;
    ip_batch(&name, &switch_script(plan.segments))
}

/// Creates a host's namespace and connects it to the switch.
pub(super) fn create_host(plan: &Plan, host: &HostPlan) -> Result<()> {
    let name = plan.netns_name(&host.name);
    netns::add(&name)?;
    settings(&name, &host_settings(host.role))?;
    ip_batch(&plan.netns_name("switch"), &cable_script(host, &name))?;
    ip_batch(&name, &host_script(plan, host))?;
    if let Role::Node(number) = host.role {
        nft(&name, &masquerade(number))?;
    }
    Ok(())
}

/// Gives an interface of a host the addresses and routes of its first interface in the plan.
pub(super) fn give_first_addresses(plan: &Plan, host: &HostPlan, interface: &str) -> Result<()> {
    let ports = host.ports.iter().take(1).map(|port| Port { interface: interface.to_owned(), ..port.clone() });
    let renamed = HostPlan { ports: ports.collect(), ..host.clone() };
    ip_batch(&plan.netns_name(&host.name), &host_script(plan, &renamed))
}

/// Disconnects a host and removes its namespace, with all state of its kernel (bridges, rules, connections).
pub(super) fn remove_host(plan: &Plan, host: &HostPlan) -> Result<()> {
    let switch = plan.netns_name("switch");
    // Some ports may be missing after an earlier power-on that failed half-way.
    let present = netns::inside(&netns::path(&switch), || {
        fs::read_to_string("/proc/thread-self/net/dev").context("listing the switch's ports")
    })?;
    let script: String = host
        .ports
        .iter()
        .filter(|port| has_interface(&present, &port.switch_port))
        .map(|port| format!("link delete {}\n", port.switch_port))
        .collect();
    ip_batch(&switch, &script)?;
    netns::delete(&plan.netns_name(&host.name))
}

/// Returns whether /proc/net/dev, which has a line `name: counters` for each interface, lists this one.
fn has_interface(proc_net_dev: &str, name: &str) -> bool {
    proc_net_dev.lines().filter_map(|line| line.split_once(':')).any(|(listed, _)| listed.trim() == name)
}

/// Sets all ports of a host down or up at the switch; no frame passes a port that is down.
pub(super) fn set_ports(plan: &Plan, host: &HostPlan, up: bool) -> Result<()> {
    let state = if up { "up" } else { "down" };
    let script: String = host.ports.iter().map(|port| format!("link set {} {state}\n", port.switch_port)).collect();
    ip_batch(&plan.netns_name("switch"), &script)
}

type Setting = (&'static str, &'static str);

/// The switch sends nothing by itself, and bridges without consulting a firewall.
fn switch_settings() -> Vec<Setting> {
    vec![
        ("net/ipv6/conf/all/disable_ipv6", "1"),
        ("net/ipv6/conf/default/disable_ipv6", "1"),
        ("net/bridge/bridge-nf-call-iptables", "0"),
        ("net/bridge/bridge-nf-call-ip6tables", "0"),
        ("net/bridge/bridge-nf-call-arptables", "0"),
    ]
}

fn host_settings(role: Role) -> Vec<Setting> {
    let mut settings = vec![
        // Addresses are usable at once, without duplicate address detection.
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_ra", "0"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
    ];
    if let Role::Node(_) = role {
        settings.extend([
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv6/conf/default/forwarding", "1"),
            ("net/ipv4/conf/all/route_localnet", "1"),
            ("net/ipv4/conf/default/route_localnet", "1"),
            ("net/bridge/bridge-nf-call-iptables", "1"),
            ("net/bridge/bridge-nf-call-ip6tables", "1"),
        ]);
    }
    settings
}

/// Returns the commands for the bridges. No spanning tree and no forwarding delay: a port forwards as soon as it is up.
/// No multicast snooping: multicast reaches every port, as on a switch without knowledge of groups. (Address and MAC
/// ageing keep their defaults.)
fn switch_script(segments: u8) -> String {
    (0..segments)
        .map(|segment| {
            let bridge = bridge_name(segment);
            format!(
                "link add {bridge} address 02:00:00:ff:{segment:02x}:01 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
                 link set {bridge} up\n"
            )
        })
        .collect()
}

fn cable_script(host: &HostPlan, netns: &str) -> String {
    host.ports
        .iter()
        .map(|port| {
            format!(
                "link add {0} type veth peer name {1} address {2} netns {netns}\nlink set {0} master {3} up\n",
                port.switch_port,
                port.interface,
                port.mac,
                bridge_name(port.segment),
            )
        })
        .collect()
}

fn host_script(plan: &Plan, host: &HostPlan) -> String {
    let mut script = String::from("link set lo up\n");
    for port in &host.ports {
        let interface = &port.interface;
        script += &format!(
            "link set {interface} up\naddress add {} dev {interface}\naddress add {} dev {interface}\n",
            port.ipv4, port.ipv6
        );
        for subnet in port.neighbour_subnets() {
            script += &format!("route add {subnet} dev {interface}\n");
        }
    }
    if matches!(host.role, Role::Node(_) | Role::Control) {
        let (v4, v6) = absent_gateways();
        script += &format!("route add default via {v4}\nroute add default via {v6}\n");
        for node in plan.nodes().filter(|node| node.name != host.name) {
            if let (Role::Node(number), Some(port)) = (node.role, node.port(0)) {
                let (pods_v4, pods_v6) = pod_networks(number);
                script += &format!(
                    "route add {pods_v4} via {}\nroute add {pods_v6} via {}\n",
                    port.ipv4.addr(),
                    port.ipv6.addr()
                );
            }
        }
    }
    script
}

/// Returns the rules that give pods their node's address towards hosts outside the cluster.
fn masquerade(node: u8) -> String {
    let (own_v4, own_v6) = pod_networks(node);
    let (all_v4, all_v6) = super::plan::POD_NETWORKS;
    let (nodes_v4, nodes_v6) = super::plan::node_subnets(0);
    format!(
        "table inet lab {{\n\
           chain pods-to-outside {{\n\
             type nat hook postrouting priority 110; policy accept;\n\
             ip saddr {own_v4} ip daddr != {{ {all_v4}, {nodes_v4} }} masquerade\n\
             ip6 saddr {own_v6} ip6 daddr != {{ {all_v6}, {nodes_v6} }} masquerade\n\
           }}\n\
         }}\n"
    )
}

fn settings(netns_name: &str, settings: &[Setting]) -> Result<()> {
    // /proc/sys/net shows the network namespace of the thread that opens it.
    netns::inside(&netns::path(netns_name), || {
        for (setting, value) in settings {
            let file = Path::new("/proc/sys").join(setting);
            fs::write(&file, value).with_context(|| format!("{} in {netns_name}", file.display()))?;
        }
        Ok(())
    })
}

fn ip_batch(netns_name: &str, script: &str) -> Result<()> {
    fed(Command::new("ip").args(["-netns", netns_name, "-batch", "-"]), script)
}

fn nft(netns_name: &str, script: &str) -> Result<()> {
    fed(super::host::netns_command(&netns::path(netns_name), "nft").args(["-f", "-"]), script)
}

/// Runs a command with `script` on its standard input.
fn fed(command: &mut Command, script: &str) -> Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes()).with_context(|| format!("feeding {command:?}"))?;
    }
    let output = child.wait_with_output().with_context(|| format!("waiting for {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}\n{script}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::spec::Spec;
    use super::*;

    fn plan() -> Plan {
        Plan::of(&Spec { nodes: 2, clients: 1, segments: 2, bin_dir: None, ..Spec::default() })
    }

    #[test]
    fn node_has_routes_to_clients_and_to_other_nodes_pods() {
        let plan = plan();
        assert_eq!(
            host_script(&plan, plan.host("node1").unwrap()),
            "link set lo up\n\
             link set eth0 up\naddress add 10.10.0.11/16 dev eth0\naddress add fd00:10:10::11/64 dev eth0\n\
             route add 10.20.0.0/16 dev eth0\nroute add fd00:10:20::/64 dev eth0\n\
             link set eth1 up\naddress add 10.11.0.11/16 dev eth1\naddress add fd00:10:11::11/64 dev eth1\n\
             route add 10.21.0.0/16 dev eth1\nroute add fd00:10:21::/64 dev eth1\n\
             route add default via 10.10.0.1\nroute add default via fd00:10:10::1\n\
             route add 10.200.2.0/24 via 10.10.0.12\nroute add fd00:200:2::/64 via fd00:10:10::12\n"
        );
    }

    #[test]
    fn client_has_no_default_route() {
        let plan = plan();
        assert!(!host_script(&plan, plan.host("client1").unwrap()).contains("default"));
    }

    #[test]
    fn interfaces_are_found_by_their_whole_name() {
        let listing = "Inter-|   Receive\n face |bytes\n  lan0: 1 2\nnode12-0: 3 4\n";
        assert!(has_interface(listing, "node12-0"));
        assert!(!has_interface(listing, "node1-0"));
    }

    #[test]
    fn cable_ends_in_the_hosts_namespace() {
        let plan = plan();
        assert_eq!(
            cable_script(plan.host("client1").unwrap(), "hl-herald-client1"),
            "link add client1-0 type veth peer name eth0 address 02:00:00:01:00:11 netns hl-herald-client1\n\
             link set client1-0 master lan0 up\n\
             link add client1-1 type veth peer name eth1 address 02:00:00:01:01:11 netns hl-herald-client1\n\
             link set client1-1 master lan1 up\n"
        );
    }
}
