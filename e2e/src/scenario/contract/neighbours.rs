//! What stands beside a Service of type LoadBalancer and must work with it, or be left alone.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use herald_crds::names;
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::{Value, json};

use super::{Row, answers, caught_up, change, create, endpoint, finalizers, told, told_once, version};
use crate::scenario::Scene;

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

/// One exchange on a port of the echo servers.
const EXCHANGE: Duration = Duration::from_millis(500);

/// Node port, cluster IP and address answer at once; the node port answers before, meanwhile and after.
fn layers(scene: &Scene<'_>) -> Result<()> {
    let service = create(scene, "layers", json!({"type": "NodePort", "loadBalancerClass": null}))?;
    let cluster_ip: IpAddr = service.spec.and_then(|spec| spec.cluster_ip).context("a cluster IP")?.parse()?;
    let port = scene.node_port("layers")?.context("a node port")?;
    let (client, node) = (scene.client()?, scene.bed.lab().nodes()?.into_iter().next().context("a node")?);
    let by_node_port = SocketAddr::new(node.addresses(0)[0], u16::try_from(port)?);
    answers(scene, &client, by_node_port)?;

    change(scene, "layers", json!({"spec": {"type": "LoadBalancer", "loadBalancerClass": names::CLASS}}))?;
    let address = scene.external_ip("layers")?;
    scene.announcer(address)?;
    scene.reachable(address)?;
    answers(scene, &client, by_node_port)?;
    answers(scene, &node, SocketAddr::new(cluster_ip, 80))?;
    // From inside as well, where kube-proxy answers without the segment.
    answers(scene, &node, SocketAddr::new(address, 80))?;

    change(scene, "layers", json!({"spec": {"type": "NodePort", "loadBalancerClass": null}}))?;
    scene.eventually("the Service to be released", || {
        Ok((finalizers(scene, "layers")?.is_empty() && scene.virtual_ip(address)?.is_none()).then_some(()))
    })?;
    scene.silent(address)?;
    ensure!(scene.node_port("layers")? == Some(port), "the node port is kept");
    answers(scene, &client, by_node_port).map(drop)
}

/// Every port on one address, also by the name of the container's port; ports come and go, the address stays.
fn many_ports(scene: &Scene<'_>) -> Result<()> {
    let web = json!({"name": "web", "port": 8000, "targetPort": "http"});
    let ports = json!([
        {"name": "http", "port": 80, "targetPort": 8080},
        web,
        {"name": "echo", "port": 9000, "targetPort": "echo"},
    ]);
    create(scene, "ports", json!({"ports": ports}))?;
    let (address, client) = (scene.external_ip("ports")?, scene.client()?);
    scene.announcer(address)?;
    scene.reachable(address)?;
    answers(scene, &client, SocketAddr::new(address, 8000))?;
    spoken(scene, address, 9000, "tcp")?;

    let more = json!({"name": "more", "port": 8001, "targetPort": 8080});
    change(scene, "ports", json!({"spec": {"ports": [web, more]}}))?;
    answers(scene, &client, SocketAddr::new(address, 8001))?;
    answers(scene, &client, SocketAddr::new(address, 8000))?;
    scene.eventually("the port that was removed to be closed", || Ok(scene.fetch(address).is_err().then_some(())))?;
    ensure!(scene.ingress("ports")? == [address], "the address stays");
    told_once(scene, "ports", "EnsuredLoadBalancer")
}

/// TCP and UDP of one number on one address.
fn mixed_protocols(scene: &Scene<'_>) -> Result<()> {
    let port = |name: &str, protocol: &str| json!({"name": name, "protocol": protocol, "port": 53, "targetPort": 9000});
    create(scene, "dns", json!({"ports": [port("stream", "TCP"), port("datagram", "UDP")]}))?;
    let address = scene.external_ip("dns")?;
    scene.announcer(address)?;
    spoken(scene, address, 53, "tcp")?;
    spoken(scene, address, 53, "udp")?;
    one_address_without_complaint(scene, "dns", address)
}

/// SCTP is taken; what carries it is kube-proxy's and the kernel's.
fn sctp(scene: &Scene<'_>) -> Result<()> {
    let ports = json!([{"name": "sctp", "protocol": "SCTP", "port": 9001, "targetPort": 9001}]);
    create(scene, "sctp", json!({"ports": ports, "allocateLoadBalancerNodePorts": false}))?;
    let address = scene.external_ip("sctp")?;
    let node = scene.announcer(address)?;
    scene.answered_by(address, &node)?;
    one_address_without_complaint(scene, "sctp", address)?;
    scene.kubectl_here(&["delete", "service", "sctp", "--timeout=60s"]).map(drop)
}

fn one_address_without_complaint(scene: &Scene<'_>, name: &str, address: IpAddr) -> Result<()> {
    ensure!(scene.ingress(name)? == [address], "one address for all ports");
    let conditions = scene.service(name)?.status.and_then(|status| status.conditions).unwrap_or_default();
    ensure!(conditions.iter().all(|c| c.type_ != "LoadBalancerPortsError"), "{conditions:?}");
    ensure!(conditions.iter().all(|c| c.status == "True"), "{conditions:?}");
    Ok(())
}

/// Slices written by hand: the policy Cluster serves them. Local has a Warning, and is announced by the node that a slice
/// names, and by none while none does.
fn manual_slices(scene: &Scene<'_>) -> Result<()> {
    let (pod, node) = endpoint(scene)?;
    create(scene, "manual-local", json!({"selector": null, "externalTrafficPolicy": "Local"}))?;
    scene.apply(&slice("manual-local", &json!([{"addresses": [pod]}]), 8080).to_string())?;
    let local = scene.external_ip("manual-local")?;
    told_once(scene, "manual-local", "LocalWithoutSelector")?;
    let note = scene.assigned("manual-local")?.context("a condition")?;
    ensure!(note.status == "True" && note.message.contains("nodeName"), "what to write: {note:?}");

    create(scene, "manual", json!({"selector": null}))?;
    scene.apply(&slice("manual", &json!([{"addresses": [pod]}]), 8080).to_string())?;
    let address = scene.external_ip("manual")?;
    scene.announcer(address)?;
    scene.reachable(address)?;

    // The other came first, and would be announced by now.
    scene.silent(local)?;
    ensure!(scene.ingress("manual-local")? == [local], "the Service has its address all the same");
    scene.apply(&slice("manual-local", &json!([{"addresses": [pod], "nodeName": node}]), 8080).to_string())?;
    ensure!(scene.announcer(local)? == node, "the node that is named");
    scene.answered_by(local, &node)?;
    scene.reachable(local)?;
    Ok(())
}

/// An endpoint that is no pod and on no node: the API server of the laboratory.
fn outside(scene: &Scene<'_>) -> Result<()> {
    let server = scene.bed.lab().control()?.addresses(0)[0];
    let ports = json!([{"name": "http", "port": 443, "targetPort": 6443}]);
    create(scene, "outside", json!({"selector": null, "ports": ports}))?;
    scene.apply(&slice("outside", &json!([{"addresses": [server]}]), 6443).to_string())?;
    let address = scene.external_ip("outside")?;
    scene.announcer(address)?;
    let (client, to) = (scene.client()?, SocketAddr::new(address, 443));
    scene.eventually(&format!("a connection to {to}"), || {
        Ok(client.inside(|| Ok(TcpStream::connect_timeout(&to, EXCHANGE)?)).is_ok().then_some(()))
    })
}

/// 1,001 endpoints in eleven slices, of which only the last is on a node: that node announces.
fn many_endpoints(scene: &Scene<'_>) -> Result<()> {
    let (pod, node) = endpoint(scene)?;
    create(scene, "many", json!({"selector": null, "externalTrafficPolicy": "Local"}))?;
    let mut slices = Vec::new();
    for number in 0..10 {
        // Nobody has these; they are on no node, so Local sends nothing there.
        let nowhere = (1..=100).map(|last| json!({"addresses": [Ipv4Addr::new(10, 250, number, last)]}));
        let mut slice = slice("many", &nowhere.collect(), 8080);
        slice["metadata"]["name"] = json!(format!("many-{number}"));
        slices.push(slice);
    }
    slices.push(slice("many", &json!([{"addresses": [pod], "nodeName": node}]), 8080));
    scene.apply(&json!({"apiVersion": "v1", "kind": "List", "items": slices}).to_string())?;
    let address = scene.external_ip("many")?;
    ensure!(scene.announcer(address)? == node, "{node} has the only endpoint that is on a node");
    scene.answered_by(address, &node)?;
    scene.reachable(address)?;
    Ok(())
}

/// An EndpointSlice written by hand.
fn slice(service: &str, endpoints: &Value, port: u16) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{service}-by-hand"), "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": port}], "endpoints": endpoints,
    })
}

/// The annotations by which nine clouds make a load balancer internal.
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

/// Each is added; nothing is written, and nothing told.
fn internal_annotations(scene: &Scene<'_>) -> Result<()> {
    let mut last = create(scene, "clouds", json!({}))?;
    let address = scene.external_ip("clouds")?;
    told_once(scene, "clouds", "EnsuredLoadBalancer")?;
    for (annotation, value) in INTERNAL {
        last = change(scene, "clouds", json!({"metadata": {"annotations": {*annotation: value}}}))?;
    }
    caught_up(scene, "clouds")?;
    ensure!(version(&scene.service("clouds")?)? == version(&last)?, "it was written to");
    ensure!(scene.ingress("clouds")? == [address], "the address stays");
    let events = scene.events("clouds")?;
    ensure!(events.len() == 1, "that of the assignment, and no other: {events:?}");
    Ok(())
}

/// An Ingress names a Service of ours, as for an Ingress controller: the Service has its address, the Ingress is not
/// touched.
fn ingress(scene: &Scene<'_>) -> Result<()> {
    create(scene, "controller", json!({}))?;
    let address = scene.external_ip("controller")?;
    scene.apply(
        "{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: controller}, \
         spec: {defaultBackend: {service: {name: controller, port: {number: 80}}}}}",
    )?;
    let seen = || scene.get::<Ingress>("controller")?.context("the Ingress");
    let before = seen()?;
    caught_up(scene, "ingress")?;
    ensure!(seen()? == before, "it was written to: {:?}", seen()?);
    ensure!(scene.ingress("controller")? == [address], "{address} stays");
    ensure!(told(scene, "controller", "EnsuredLoadBalancer")? <= 1, "assigned once");
    Ok(())
}

/// Waits until the echo server answers the client on this port, by this protocol.
fn spoken(scene: &Scene<'_>, address: IpAddr, port: u16, protocol: &str) -> Result<()> {
    let (client, to) = (scene.client()?, SocketAddr::new(address, port));
    let ask = || client.inside(|| if protocol == "udp" { datagram(to) } else { first_line(to) });
    scene.eventually(&format!("an answer of {to} by {protocol}"), || {
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
