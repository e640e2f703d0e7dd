//! The controllers of a laboratory: killed, and asked whether they are back.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::fault::{Faults, PodChoice};
use crate::scenario::{Scene, install};

/// Where a controller serves metrics and health.
const PORT: u16 = 7476;
/// A restarted leader goes on with its lease at once; one that has to wait for another's does so for 15 s.
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// Kills every controller and waits until one leads and has listed everything: from the signal to that.
pub(super) fn restart(scene: &Scene<'_>) -> Result<Duration> {
    let lab = scene.bed.lab();
    let faults = Faults::of(lab);
    let choice = PodChoice {
        namespace: install::NAMESPACE.to_owned(),
        selector: Some("app.kubernetes.io/component=controller".to_owned()),
        ..PodChoice::default()
    };
    let pods = faults.pods(&choice)?;
    let mut pages = Vec::new();
    for pod in &pods {
        let path = "jsonpath={.status.podIP}";
        let address = install::kubectl(lab, &["get", "pod", "-n", &pod.namespace, &pod.name, "-o", path])?;
        let address: IpAddr = address.trim().parse().with_context(|| format!("the address of {pod}: {address:?}"))?;
        pages.push((lab.host(&pod.node)?, SocketAddr::new(address, PORT)));
    }
    let begun = Instant::now();
    for pod in &pods {
        faults.signal(pod, Signal::SIGKILL)?;
    }
    scene.bed.wait_for("a controller that leads and has listed everything", BACK_WITHIN, || {
        let leads = pages.iter().any(|(node, page)| {
            // Nobody listens while the container starts.
            let get = |path| node.inside(|| get(*page, path)).unwrap_or_default();
            get("/metrics").contains("\nherald_controller_leader 1\n") && get("/readyz").ends_with("ok\n")
        });
        Ok(leads.then(|| begun.elapsed()))
    })
}

fn get(from: SocketAddr, path: &str) -> Result<String> {
    let limit = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&from, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {from}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{from}{path} answered {answer}");
    Ok(answer)
}
