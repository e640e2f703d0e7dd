//! `herald-lab kernel-test`: scenarios that need kernel features which most machines lack, and ordinary ones that
//! measure no time, on a laboratory of their own, with a report. The command runs on any machine whose kernel has these
//! features; `vm-test` runs it in a virtual one.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::scenario::{self, Scenario};
use crate::testbed::{Images, Testbed};
use herald_lab::cluster::preflight::{self, Feature};
use herald_lab::cluster::{ProxyMode, Spec};
use herald_lab::progress::Progress;

/// Ordinary scenarios that judge no time and need no third node.
const ORDINARY: [&str; 3] = ["first-light", "local-policy", "interfaces"];

/// Returns the scenarios with these names; without names, all scenarios of this test.
///
/// # Errors
/// When a name is unknown.
pub fn chosen(names: &[String]) -> Result<Vec<Scenario>> {
    let all = scenario::catalogue();
    if names.is_empty() {
        let meant = |scenario: &Scenario| !scenario.needs.is_empty() || ORDINARY.contains(&scenario.name);
        return Ok(all.into_iter().filter(meant).collect());
    }
    names.iter().map(|name| scenario::named(name)).collect()
}

/// Brings a laboratory up and runs all scenarios on it, even after one has failed. Prints a report.
///
/// # Errors
/// When the kernel lacks a feature, the laboratory does not come up, or a scenario failed.
pub fn run(base: &Spec, scenarios: &[Scenario], images: &Images, progress: &Progress) -> Result<()> {
    let needed: Vec<Feature> = scenarios.iter().flat_map(|scenario| scenario.needs).copied().collect();
    preflight::check_features(&needed)?;
    // Two nodes: one that announces and one that must not. IPVS mode, which no other test uses.
    let spec = Spec { nodes: 2, clients: 1, segments: 1, proxy: ProxyMode::Ipvs, ..base.clone() };
    let begun = Instant::now();
    let bed = Testbed::up(&spec, images, progress)?;
    let mut report = Report { machine: machine()?, up: begun.elapsed(), rows: Vec::new() };
    for scenario in scenarios {
        progress.check()?;
        progress.step(format!("scenario {}: {}", scenario.name, scenario.about));
        let begun = Instant::now();
        let failure = scenario::run_on(&bed, scenario).err().map(|error| format!("{error:#}"));
        let took = begun.elapsed();
        let word = failure.as_ref().map_or_else(|| "passed".to_owned(), |said| format!("FAILED: {said}"));
        progress.step(format!("scenario {} after {} s: {word}", scenario.name, took.as_secs()));
        report.rows.push(Row { name: scenario.name, about: scenario.about, failure, took });
    }
    let swept = bed.swept();
    bed.into_lab().down().and(swept)?;
    say(&report)?;
    let failed: Vec<&str> = report.rows.iter().filter(|row| row.failure.is_some()).map(|row| row.name).collect();
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// Returns a description of the machine for the report, with the properties that make results of kernels differ.
fn machine() -> Result<String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel's version")?;
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").context("/proc/self/cgroup")?;
    let version = if cgroups.lines().all(|line| line.starts_with("0::")) { "2 alone" } else { "1" };
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    Ok(format!("{today}, Linux {}, cgroup version {version}, kube-proxy in IPVS mode, two nodes", kernel.trim()))
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    name: &'static str,
    about: &'static str,
    failure: Option<String>,
    took: Duration,
}

/// The results of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Report {
    machine: String,
    up: Duration,
    rows: Vec<Row>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}; the cluster with Herald took {} s\n", self.machine, self.up.as_secs())?;
        writeln!(f, "| scenario | | result | seconds |\n|---|---|---|---|")?;
        for Row { name, about, failure, took } in &self.rows {
            let result = if failure.is_some() { "FAILED" } else { "passed" };
            writeln!(f, "| {name} | {about} | {result} | {} |", took.as_secs())?;
        }
        for Row { name, failure, .. } in &self.rows {
            if let Some(said) = failure {
                writeln!(f, "\n{name} failed: {said}")?;
            }
        }
        let failed = self.rows.iter().filter(|row| row.failure.is_some()).count();
        writeln!(f, "\n{} passed, {failed} failed", self.rows.len() - failed)
    }
}

#[expect(clippy::print_stdout, reason = "the report is what the command is for")]
fn say(report: &Report) -> Result<()> {
    print!("{report}");
    std::io::Write::flush(&mut std::io::stdout()).context("printing the report")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_scenarios_and_those_with_needs_are_chosen() {
        let names: Vec<&str> = chosen(&[]).unwrap().iter().map(|scenario| scenario.name).collect();
        for name in ORDINARY.iter().chain(&["cgroup-v2", "ipvs", "vlan", "bond", "vrf"]) {
            assert!(names.contains(name), "{name} is missing in {names:?}");
        }
        assert_eq!(names.len(), 8);
    }

    #[test]
    fn unknown_name_is_refused() {
        let error = chosen(&["bonds".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("no scenario bonds"), "{error}");
    }

    #[test]
    fn report_counts_failures_and_gives_reasons() {
        let row = |name, failure: Option<&str>| Row {
            name,
            about: "what it shows",
            failure: failure.map(ToOwned::to_owned),
            took: Duration::from_secs(12),
        };
        let rows = vec![row("vlan", None), row("bond", Some("bond0 is not a segment"))];
        let report = Report { machine: "Linux 6.12".to_owned(), up: Duration::from_secs(150), rows };
        assert_eq!(
            report.to_string(),
            "\nLinux 6.12; the cluster with Herald took 150 s\n\n| scenario | | result | seconds |\n|---|---|---|---|\n\
             | vlan | what it shows | passed | 12 |\n| bond | what it shows | FAILED | 12 |\n\n\
             bond failed: bond0 is not a segment\n\n1 passed, 1 failed\n"
        );
    }
}
