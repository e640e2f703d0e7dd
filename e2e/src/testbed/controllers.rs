//! The controllers of a laboratory: their leadership according to the pages they serve, and their failures.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::testbed::{TestNamespace, install};
use herald_lab::cluster::Host;
use herald_lab::fault::{Faults, PodChoice, PodFound};

/// Port on which a controller serves metrics and health.
const PORT: u16 = 7476;
/// The lease of another controller has to expire, which takes 15 s and is checked every 2 s. A killed container
/// restarts after a pause that the kubelet doubles from 10 s.
pub(crate) const SOME_LEADER_WITHIN: Duration = Duration::from_secs(60);

/// A replica of the controller.
pub(crate) struct Controller {
    pub(crate) pod: PodFound,
    node: Host,
    page: SocketAddr,
}

impl Controller {
    /// Returns whether it holds the lease by its own account; `None` while it does not answer because its container
    /// starts or is frozen.
    pub(crate) fn leads(&self) -> Option<bool> {
        let metrics = self.get("/metrics").ok()?;
        Some(metrics.contains("\nherald_controller_leader 1\n"))
    }

    /// Returns the address of its pod.
    pub(crate) fn address(&self) -> IpAddr {
        self.page.ip()
    }

    /// Returns whether it has listed everything.
    pub(crate) fn is_ready(&self) -> bool {
        self.get("/readyz").is_ok_and(|answer| answer.ends_with("ok\n"))
    }

    fn get(&self, path: &str) -> Result<String> {
        self.node.inside(|| get(self.page, path))
    }
}

/// Returns every present replica that is not terminating.
pub(crate) fn all(ns: &TestNamespace<'_>) -> Result<Vec<Controller>> {
    let lab = ns.bed.lab();
    let choice = PodChoice {
        namespace: install::NAMESPACE.to_owned(),
        selector: Some("app.kubernetes.io/component=controller".to_owned()),
        ..PodChoice::default()
    };
    let found = Faults::of(lab).pods(&choice)?;
    found
        .into_iter()
        .filter(|pod| !pod.ending)
        .map(|pod| {
            let path = "jsonpath={.status.podIP}";
            let address = install::kubectl(lab, &["get", "pod", "-n", &pod.namespace, &pod.name, "-o", path])?;
            let address: IpAddr =
                address.trim().parse().with_context(|| format!("the address of {pod}: {address:?}"))?;
            Ok(Controller { node: lab.host(&pod.node)?, page: SocketAddr::new(address, PORT), pod })
        })
        .collect()
}

/// Waits until one of the controllers leads and has listed everything; returns its index.
pub(crate) fn leader(ns: &TestNamespace<'_>, among: &[Controller]) -> Result<usize> {
    ns.bed.wait_for("a controller that leads and has listed everything", SOME_LEADER_WITHIN, || {
        Ok(among.iter().position(|controller| controller.leads() == Some(true) && controller.is_ready()))
    })
}

/// Kills every controller, waits until one leads and has listed everything, and returns the time from the signal.
pub(crate) fn restart(ns: &TestNamespace<'_>) -> Result<Duration> {
    let controllers = all(ns)?;
    let faults = Faults::of(ns.bed.lab());
    let begun = Instant::now();
    for controller in &controllers {
        faults.signal(&controller.pod, Signal::SIGKILL)?;
    }
    leader(ns, &controllers)?;
    Ok(begun.elapsed())
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
