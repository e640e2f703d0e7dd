//! `make bench-install`: how long a Service waits for its address and its announcement, from the command that installs Herald
//! on, by each way of installing.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use herald_crds::names;
use serde::Serialize;

use super::first_light::{milliseconds, next};
use crate::bench::stamps::{Announced, Ingress, listen, watch_ingress};
use crate::testbed::chart::{Helm, RELEASE};
use crate::testbed::manifests::{Manifest, chart};
use crate::testbed::{Images, TestNamespace, Testbed, install};
use herald_lab::cluster::Spec;
use herald_lab::progress::Progress;

/// The user's own objects: a pool and a Service.
const SERVICE: &str = "web";

/// A way of installing Herald that docs/install.md describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Way {
    File,
    Kustomize,
    Helm,
}

impl Way {
    const ALL: [Self; 3] = [Self::File, Self::Kustomize, Self::Helm];

    /// Returns the command as the documentation has it.
    fn documented(self) -> &'static str {
        match self {
            Self::File => "kubectl apply -f deploy/herald.yaml",
            Self::Kustomize => "kubectl apply -k deploy/herald",
            Self::Helm => "helm install herald deploy/helm/herald",
        }
    }
}

/// The times of one installation, in milliseconds from the start of its command.
#[derive(Clone, Copy, Debug, Serialize)]
struct Run {
    way: Way,
    /// The command that installs Herald has ended.
    installed: f64,
    /// `kubectl apply` of the pool and the Service has ended.
    applied: f64,
    /// The Service's status shows an address.
    external_ip: f64,
    /// A client has seen the first announcement of that address.
    announced: f64,
}

/// Runs the benchmark on a laboratory of its own, prints a table and writes `target/bench/install.json`.
///
/// # Errors
/// When a step fails or exceeds its time limit.
pub fn run(spec: &Spec, repeat: usize, progress: &Progress) -> Result<()> {
    ensure!(repeat > 0, "--repeat 0 measures nothing");
    let images = Images::build(progress)?;
    let bed = Testbed::up(spec, &images, progress)?;
    let ns = TestNamespace::named(&bed, "bench", 200)?;
    let bench = Bench {
        helm: Helm::new(progress)?,
        ingress: watch_ingress(&ns)?,
        announcements: listen(&ns.client()?)?,
        objects: ns.bed.lab().paths().run().join("pool-and-service.yaml"),
        ns: &ns,
    };
    bench.write_objects()?;
    bench.remove()?;
    let mut runs = Vec::new();
    for round in 1..=repeat {
        for way in Way::ALL {
            progress.step(format!("{}, {round} of {repeat}", way.documented()));
            runs.push(bench.install(way)?);
            install::wait_for_rollout(ns.bed.lab())?;
            bench.remove()?;
        }
    }
    report(&runs)?;
    bed.into_lab().down()
}

/// The laboratory, and what looks at it.
struct Bench<'a> {
    ns: &'a TestNamespace<'a>,
    helm: Helm,
    ingress: Receiver<Ingress>,
    announcements: Receiver<Announced>,
    objects: PathBuf,
}

impl Bench<'_> {
    /// Writes the file with a pool and a Service.
    fn write_objects(&self) -> Result<()> {
        let pool = self.ns.pool_yaml("bench", &[self.ns.range(1, 100)]);
        let class = names::CLASS;
        let text = format!(
            "{pool}\n---\n{{apiVersion: v1, kind: Service, metadata: {{name: {SERVICE}, namespace: {}}}, spec: {{type: \
             LoadBalancer, loadBalancerClass: {class}, selector: {{app: echo}}, ports: [{{port: 80}}]}}}}\n",
            self.ns.namespace
        );
        std::fs::write(&self.objects, text).with_context(|| self.objects.display().to_string())
    }

    /// Installs Herald, applies the pool and the Service, and returns when the address is announced.
    fn install(&self, way: Way) -> Result<Run> {
        while self.ingress.try_recv().is_ok() {}
        while self.announcements.try_recv().is_ok() {}
        // An empty cache is the state of a machine that never saw Herald's kinds.
        let cache = tempfile::tempdir().context("making a directory for the cache of kubectl and Helm")?;
        let begun = Instant::now();
        match way {
            Way::File => self.kubectl(&["apply", "-f"], &Manifest::CLASS.file(), cache.path())?,
            Way::Kustomize => self.kubectl(&["apply", "-k"], &Manifest::CLASS.directory(), cache.path())?,
            Way::Helm => {
                let mut command = self.ns.bed.lab().admin_command(self.helm.program());
                command.env("KUBECACHEDIR", cache.path());
                let chart = chart();
                let chart = chart.to_str().context("the chart's path")?;
                let args = ["install", RELEASE, chart, "--namespace", install::NAMESPACE, "--create-namespace"];
                self.helm.run(command, &args)?;
            }
        }
        let installed = Instant::now();
        self.kubectl(&["apply", "-f"], &self.objects, cache.path())?;
        let applied = Instant::now();
        let (shown, address) = self.external_ip()?;
        let announced = next(&self.announcements, "an announcement", |seen: &Announced| seen.address == address)?.at;
        let since = |moment| milliseconds(begun, moment);
        Ok(Run {
            way,
            installed: since(installed),
            applied: since(applied),
            external_ip: since(shown),
            announced: since(announced),
        })
    }

    /// Waits for the Service's address, and returns when it came.
    fn external_ip(&self) -> Result<(Instant, IpAddr)> {
        next(&self.ingress, "an EXTERNAL-IP", |seen: &Ingress| seen.service == SERVICE)
            .map(|seen| (seen.at, seen.address))
    }

    /// Runs kubectl as the cluster's administrator.
    fn kubectl(&self, verb: &[&str], what: &Path, cache: &Path) -> Result<()> {
        let mut command: Command = self.ns.bed.lab().kubectl(verb);
        let output = command.arg(what).arg("--cache-dir").arg(cache).output().context("starting kubectl")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {} {}: {errors}", verb.join(" "), what.display());
        Ok(())
    }

    /// Takes the Service and everything of Herald away; the images stay on the nodes.
    fn remove(&self) -> Result<()> {
        let lab = self.ns.bed.lab();
        self.ns.kubectl_here(&["delete", "service", SERVICE, "--ignore-not-found"])?;
        let helm = |args: &[&str]| self.helm.run(lab.admin_command(self.helm.program()), args);
        if helm(&["status", RELEASE, "--namespace", install::NAMESPACE]).is_ok() {
            helm(&["uninstall", RELEASE, "--namespace", install::NAMESPACE, "--wait"])?;
        }
        install::uninstall(lab)?;
        self.ns.eventually("the namespace to go", || Ok((!self.ns.namespace_exists(install::NAMESPACE)?).then_some(())))
    }
}

/// Prints a row for each way and moment, and writes all runs to a file.
fn report(runs: &[Run]) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "| command | until | median, s | runs, s |\n|---|---|---|---|")?;
    for way in Way::ALL {
        let of_way = |time: fn(&Run) -> f64| runs.iter().filter(|run| run.way == way).map(time).collect::<Vec<_>>();
        for (until, times) in [
            ("the command ends", of_way(|run| run.installed)),
            ("`kubectl apply` of pool and Service ends", of_way(|run| run.applied)),
            ("EXTERNAL-IP", of_way(|run| run.external_ip)),
            ("first announcement", of_way(|run| run.announced)),
        ] {
            writeln!(out, "{}", row(way.documented(), until, times))?;
        }
    }
    let directory = herald_lab::binaries::workspace()?.join("target/bench");
    std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let file = directory.join("install.json");
    std::fs::write(&file, serde_json::to_vec_pretty(runs)?).with_context(|| file.display().to_string())?;
    writeln!(out, "\nwritten to {}", file.display()).context("printing")
}

/// Returns a row of the table: the median, which is the lower middle one of an even number, and all times in ascending order.
fn row(command: &str, until: &str, mut times: Vec<f64>) -> String {
    times.sort_by(f64::total_cmp);
    let seconds = |time: &f64| format!("{:.1}", time / 1000.0);
    let median = times.get(times.len().saturating_sub(1) / 2).map_or_else(|| "-".to_owned(), seconds);
    let all = times.iter().map(seconds).collect::<Vec<_>>().join(", ");
    format!("| `{command}` | {until} | {median} | {all} |")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_has_the_median_and_all_times_in_ascending_order() {
        assert_eq!(row("make", "end", vec![3000.0, 1049.0, 2000.0]), "| `make` | end | 2.0 | 1.0, 2.0, 3.0 |");
        assert_eq!(row("make", "end", vec![2000.0, 1000.0]), "| `make` | end | 1.0 | 1.0, 2.0 |");
    }
}
