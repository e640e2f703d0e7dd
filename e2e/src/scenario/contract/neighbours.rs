//! Objects and features next to a Service of type LoadBalancer that must work with it or be left alone.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use herald_crds::names;
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::{Value, json};

use super::{Row, answers, caught_up, change, create, endpoint, finalizers, told, told_once, version};
use crate::testbed::TestNamespace;

pub(super) const ROWS: &[Row] = &[
    Row { name: "LB>NodePort>ClusterIP", check: layers },
    Row { name: "multi-port, named targetPort", check: many_ports },
    Row { name: "mixed protocols", check: mixed_protocols },
    Row { name: "selector-less, manual slices", check: manual_slices },
    Row { name: "endpoint outside the cluster", check: outside },
    Row { name: "more than 1000 endpoints", check: many_endpoints },
    Row { name: "internal LB annotations", check: internal_annotations },
    Row { name: "Ingress", check: ingress },
    Row { name: "SCTP", check: sctp },
];

/// Timeout of one exchange on a port of the echo servers.
const EXCHANGE: Duration = Duration::from_millis(500);

/// Node port, cluster IP and address answer at the same time; the node port answers before, during and after the change
/// of type.
fn layers(ns: &TestNamespace<'_>) -> Result<()> {
    let service = create(ns, "layers", json!({"type": "NodePort", "loadBalancerClass": null}))?;
    let cluster_ip: IpAddr = service.spec.and_then(|spec| spec.cluster_ip).context("a cluster IP")?.parse()?;
    let port = ns.node_port("layers")?.context("a node port")?;
    let (client, node) = (ns.client()?, ns.bed.lab().nodes()?.into_iter().next().context("a node")?);
    let by_node_port = SocketAddr::new(node.addresses(0)[0], u16::try_from(port)?);
    answers(ns, &client, by_node_port)?;

    change(ns, "layers", json!({"spec": {"type": "LoadBalancer", "loadBalancerClass": names::CLASS}}))?;
    let address = ns.external_ip("layers")?;
    ns.announcer(address)?;
    ns.reachable(address)?;
    answers(ns, &client, by_node_port)?;
    answers(ns, &node, SocketAddr::new(cluster_ip, 80))?;
    // The address must also answer inside the cluster, where kube-proxy serves it without the segment.
    answers(ns, &node, SocketAddr::new(address, 80))?;

    change(ns, "layers", json!({"spec": {"type": "NodePort", "loadBalancerClass": null}}))?;
    ns.eventually("the Service to be released", || {
        Ok((finalizers(ns, "layers")?.is_empty() && ns.virtual_ip(address)?.is_none()).then_some(()))
    })?;
    ns.silent(address)?;
    ensure!(ns.node_port("layers")? == Some(port), "the node port is kept");
    answers(ns, &client, by_node_port).map(drop)
}

/// Every port answers on one address, also by the name of the container's port; ports come and go, and the address
/// stays.
fn many_ports(ns: &TestNamespace<'_>) -> Result<()> {
    let web = json!({"name": "web", "port": 8000, "targetPort": "http"});
    let ports = json!([
        {"name": "http", "port": 80, "targetPort": 8080},
        web,
        {"name": "echo", "port": 9000, "targetPort": "echo"},
    ]);
    create(ns, "ports", json!({"ports": ports}))?;
    let (address, client) = (ns.external_ip("ports")?, ns.client()?);
    ns.announcer(address)?;
    ns.reachable(address)?;
    answers(ns, &client, SocketAddr::new(address, 8000))?;
    spoken(ns, address, 9000, "tcp")?;

    let more = json!({"name": "more", "port": 8001, "targetPort": 8080});
    change(ns, "ports", json!({"spec": {"ports": [web, more]}}))?;
    answers(ns, &client, SocketAddr::new(address, 8001))?;
    answers(ns, &client, SocketAddr::new(address, 8000))?;
    ns.eventually("the port that was removed to be closed", || Ok(ns.fetch(address).is_err().then_some(())))?;
    ensure!(ns.ingress("ports")? == [address], "the address stays");
    told_once(ns, "ports", "EnsuredLoadBalancer")
}

/// TCP and UDP with the same number on one address.
fn mixed_protocols(ns: &TestNamespace<'_>) -> Result<()> {
    let port = |name: &str, protocol: &str| json!({"name": name, "protocol": protocol, "port": 53, "targetPort": 9000});
    create(ns, "dns", json!({"ports": [port("stream", "TCP"), port("datagram", "UDP")]}))?;
    let address = ns.external_ip("dns")?;
    ns.announcer(address)?;
    spoken(ns, address, 53, "tcp")?;
    spoken(ns, address, 53, "udp")?;
    one_address_without_complaint(ns, "dns", address)
}

/// Herald accepts SCTP; kube-proxy and the kernel carry it.
fn sctp(ns: &TestNamespace<'_>) -> Result<()> {
    let ports = json!([{"name": "sctp", "protocol": "SCTP", "port": 9001, "targetPort": 9001}]);
    create(ns, "sctp", json!({"ports": ports, "allocateLoadBalancerNodePorts": false}))?;
    let address = ns.external_ip("sctp")?;
    let node = ns.announcer(address)?;
    ns.answered_by(address, &node)?;
    one_address_without_complaint(ns, "sctp", address)?;
    ns.kubectl_here(&["delete", "service", "sctp", "--timeout=60s"]).map(drop)
}

fn one_address_without_complaint(ns: &TestNamespace<'_>, name: &str, address: IpAddr) -> Result<()> {
    ensure!(ns.ingress(name)? == [address], "one address for all ports");
    let conditions = ns.service(name)?.status.and_then(|status| status.conditions).unwrap_or_default();
    ensure!(conditions.iter().all(|c| c.type_ != "LoadBalancerPortsError"), "{conditions:?}");
    ensure!(conditions.iter().all(|c| c.status == "True"), "{conditions:?}");
    Ok(())
}

/// Slices written by hand: the policy Cluster serves them. With Local the Service has a Warning; the node named in a
/// slice announces its address, and no node does while no slice names one.
fn manual_slices(ns: &TestNamespace<'_>) -> Result<()> {
    let (pod, node) = endpoint(ns)?;
    create(ns, "manual-local", json!({"selector": null, "externalTrafficPolicy": "Local"}))?;
    ns.apply(&slice("manual-local", &json!([{"addresses": [pod]}]), 8080).to_string())?;
    let local = ns.external_ip("manual-local")?;
    told_once(ns, "manual-local", "LocalWithoutSelector")?;
    let note = ns.assigned("manual-local")?.context("a condition")?;
    ensure!(note.status == "True" && note.message.contains("nodeName"), "the note says what to write: {note:?}");

    create(ns, "manual", json!({"selector": null}))?;
    ns.apply(&slice("manual", &json!([{"addresses": [pod]}]), 8080).to_string())?;
    let address = ns.external_ip("manual")?;
    ns.announcer(address)?;
    ns.reachable(address)?;

    // This Service was created first and would be announced by now.
    ns.silent(local)?;
    ensure!(ns.ingress("manual-local")? == [local], "the Service has its address all the same");
    ns.apply(&slice("manual-local", &json!([{"addresses": [pod], "nodeName": node}]), 8080).to_string())?;
    ensure!(ns.announcer(local)? == node, "the node that is named");
    ns.answered_by(local, &node)?;
    ns.reachable(local)?;
    Ok(())
}

/// An endpoint that is not a pod and not on a node: the API server of the laboratory.
fn outside(ns: &TestNamespace<'_>) -> Result<()> {
    let server = ns.bed.lab().control()?.addresses(0)[0];
    let ports = json!([{"name": "http", "port": 443, "targetPort": 6443}]);
    create(ns, "outside", json!({"selector": null, "ports": ports}))?;
    ns.apply(&slice("outside", &json!([{"addresses": [server]}]), 6443).to_string())?;
    let address = ns.external_ip("outside")?;
    ns.announcer(address)?;
    let (client, to) = (ns.client()?, SocketAddr::new(address, 443));
    ns.eventually(&format!("a connection to {to}"), || {
        Ok(client.inside(|| Ok(TcpStream::connect_timeout(&to, EXCHANGE)?)).is_ok().then_some(()))
    })
}

/// 1,001 endpoints in eleven slices, of which only the last is on a node: that node announces.
fn many_endpoints(ns: &TestNamespace<'_>) -> Result<()> {
    let (pod, node) = endpoint(ns)?;
    create(ns, "many", json!({"selector": null, "externalTrafficPolicy": "Local"}))?;
    let mut slices = Vec::new();
    for number in 0..10 {
        // No host has these addresses. They are on no node, so Local sends nothing there.
        let nowhere = (1..=100).map(|last| json!({"addresses": [Ipv4Addr::new(10, 250, number, last)]}));
        let mut slice = slice("many", &nowhere.collect(), 8080);
        slice["metadata"]["name"] = json!(format!("many-{number}"));
        slices.push(slice);
    }
    slices.push(slice("many", &json!([{"addresses": [pod], "nodeName": node}]), 8080));
    ns.apply(&json!({"apiVersion": "v1", "kind": "List", "items": slices}).to_string())?;
    let address = ns.external_ip("many")?;
    ensure!(ns.announcer(address)? == node, "{node} has the only endpoint that is on a node");
    ns.answered_by(address, &node)?;
    ns.reachable(address)?;
    Ok(())
}

/// Returns an EndpointSlice as a user would write it.
fn slice(service: &str, endpoints: &Value, port: u16) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{service}-by-hand"), "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": port}], "endpoints": endpoints,
    })
}

/// The annotations that make a load balancer internal in nine clouds.
const INTERNAL: &[(&str, &str)] = &[
    ("networking.gke.io/load-balancer-type", "Internal"),
    ("service.beta.kubernetes.io/aws-load-balancer-internal", "true"),
    ("service.beta.kubernetes.io/azure-load-balancer-internal", "true"),
    ("service.kubernetes.io/ibm-load-balancer-cloud-provider-ip-type", "private"),
    ("service.beta.kubernetes.io/openstack-internal-load-balancer", "true"),
    ("service.beta.kubernetes.io/cce-load-balancer-internal-vpc", "true"),
    ("service.kubernetes.io/qcloud-loadbalancer-internal-subnetid", "subnet-xxxxx"),
    ("service.beta.kubernetes.io/alibaba-cloud-loadbalancer-address-type", "intranet"),
    ("service.beta.kubernetes.io/oci-load-balancer-internal", "true"),
];

/// Adds each annotation; Herald writes nothing and posts no event.
fn internal_annotations(ns: &TestNamespace<'_>) -> Result<()> {
    let mut last = create(ns, "clouds", json!({}))?;
    let address = ns.external_ip("clouds")?;
    told_once(ns, "clouds", "EnsuredLoadBalancer")?;
    for (annotation, value) in INTERNAL {
        last = change(ns, "clouds", json!({"metadata": {"annotations": {*annotation: value}}}))?;
    }
    caught_up(ns, "clouds")?;
    ensure!(version(&ns.service("clouds")?)? == version(&last)?, "it was written to");
    ensure!(ns.ingress("clouds")? == [address], "the address stays");
    let events = ns.events("clouds")?;
    ensure!(events.len() == 1, "that of the assignment, and no other: {events:?}");
    Ok(())
}

/// An Ingress refers to a Service of ours, as for an Ingress controller: the Service has its address, and Herald does
/// not touch the Ingress.
fn ingress(ns: &TestNamespace<'_>) -> Result<()> {
    create(ns, "controller", json!({}))?;
    let address = ns.external_ip("controller")?;
    ns.apply(
        "{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: controller}, \
         spec: {defaultBackend: {service: {name: controller, port: {number: 80}}}}}",
    )?;
    let seen = || ns.get::<Ingress>("controller")?.context("the Ingress");
    let before = seen()?;
    caught_up(ns, "ingress")?;
    ensure!(seen()? == before, "it was written to: {:?}", seen()?);
    ensure!(ns.ingress("controller")? == [address], "{address} stays");
    ensure!(told(ns, "controller", "EnsuredLoadBalancer")? <= 1, "assigned once");
    Ok(())
}

/// Waits until the echo server answers the client on this port with this protocol.
fn spoken(ns: &TestNamespace<'_>, address: IpAddr, port: u16, protocol: &str) -> Result<()> {
    let (client, to) = (ns.client()?, SocketAddr::new(address, port));
    let ask = || client.inside(|| if protocol == "udp" { datagram(to) } else { first_line(to) });
    ns.eventually(&format!("an answer of {to} by {protocol}"), || {
        let answer = ask().ok().and_then(|answer| serde_json::from_str::<Value>(&answer).ok());
        Ok(answer.filter(|answer| answer["proto"] == protocol).map(drop))
    })
}

fn datagram(to: SocketAddr) -> Result<String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(EXCHANGE))?;
    socket.send_to(b"1", to)?;
    let mut answer = [0; 1500];
    let (length, _) = socket.recv_from(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

fn first_line(to: SocketAddr) -> Result<String> {
    let stream = TcpStream::connect_timeout(&to, EXCHANGE)?;
    stream.set_read_timeout(Some(EXCHANGE))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}
