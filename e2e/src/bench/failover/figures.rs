//! The benchmark's figures, summarised over the runs of each phase.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::drill::{Family, Observation, PhaseResult, Policy};
use crate::testbed::at_rest::AtRest;
use herald_lab::cluster::ProxyMode;

/// The smallest number of samples for which a 99th percentile is given.
const ENOUGH_FOR_P99: usize = 100;

/// One line of the report: one phase, seen by clients of one family and policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) scenario: String,
    pub(super) family: Family,
    pub(super) policy: Policy,
    pub(super) proxy: ProxyMode,
    /// Addresses on the node that the fault hits.
    pub(super) addresses: usize,
    /// Samples: runs, or addresses in a row of announcements.
    pub(super) n: usize,
    /// The sum over all runs, like the next three.
    pub(super) lost: usize,
    pub(super) resets: usize,
    pub(super) failed_connections: usize,
    pub(super) owner_moves: usize,
    pub(super) two_macs_ms_max: f64,
    /// In a row of announcements: the time from the fault to the first announcement.
    pub(super) answer_gap_ms: Spread,
    /// `None` where traffic was not measured.
    pub(super) data_gap_ms: Option<Spread>,
    #[serde(skip)]
    pub(super) metallb: Option<&'static str>,
}

/// Herald's requests to the API server at rest, after the runs of a drill.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Rest {
    pub(super) after: String,
    pub(super) proxy: ProxyMode,
    #[serde(flatten)]
    pub(super) seen: AtRest,
}

/// Minimum, median, 99th percentile and maximum of some samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    /// `None` for fewer than 100 samples.
    pub(super) p99: Option<f64>,
    pub(super) max: f64,
}

impl Spread {
    /// Returns `None` if there are no samples.
    pub(super) fn of(mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        let (&min, &max) = (samples.first()?, samples.last()?);
        let n = samples.len();
        Some(Self {
            min,
            // The lower middle one of an even number of samples: a value that was really measured.
            median: samples[(n - 1) / 2],
            // The smallest sample that at least 99 % of the samples do not exceed.
            p99: (n >= ENOUGH_FOR_P99).then(|| samples[(n * 99).div_ceil(100) - 1]),
            max,
        })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { min, median, p99, max } = self;
        write!(f, "{min:.0} / {median:.0} / ")?;
        p99.map_or(Ok(()), |p99| write!(f, "{p99:.0} / "))?;
        write!(f, "{max:.0}")
    }
}

/// Returns the rows for the runs of one phase. `suffix` distinguishes laboratories of another size.
pub(super) fn rows(runs: &[PhaseResult], proxy: ProxyMode, suffix: &str, addresses: usize) -> Vec<Row> {
    let Some(first) = runs.first() else { return Vec::new() };
    let scenario = format!("{}{suffix}", first.phase.name);
    let mut groups: BTreeMap<(Policy, Family), Vec<_>> = BTreeMap::new();
    for seen in runs.iter().flat_map(|run| &run.seen) {
        groups.entry((seen.target.policy, Family::of(seen.target.address))).or_default().push(seen);
    }
    let mut rows = Vec::new();
    for ((policy, family), seen) in groups {
        let of = |figure: fn(&Observation) -> f64| Spread::of(seen.iter().map(|seen| figure(seen)).collect());
        let (Some(answer_gap_ms), data_gap_ms) = (of(|seen| seen.answer_gap_ms), of(|seen| seen.data_gap_ms)) else {
            continue;
        };
        rows.push(Row {
            scenario: scenario.clone(),
            family,
            policy,
            proxy,
            addresses,
            n: seen.len(),
            lost: seen.iter().map(|seen| seen.lost).sum(),
            resets: seen.iter().map(|seen| seen.resets).sum(),
            failed_connections: seen.iter().map(|seen| seen.failed_connections).sum(),
            owner_moves: seen.iter().map(|seen| seen.moves).sum(),
            two_macs_ms_max: seen.iter().map(|seen| seen.two_macs_ms).fold(0.0, f64::max),
            answer_gap_ms,
            data_gap_ms,
            metallb: first.phase.metallb,
        });
    }
    for family in [Family::V4, Family::V6] {
        let times: Vec<f64> = runs
            .iter()
            .flat_map(|run| &run.bystanders)
            .filter(|bystanders| bystanders.family == family)
            .map(|bystanders| bystanders.announced_after_ms)
            .collect();
        let n = times.len();
        rows.extend(Spread::of(times).map(|answer_gap_ms| Row {
            scenario: format!("{scenario}-announced"),
            family,
            policy: Policy::Cluster,
            proxy,
            addresses,
            n,
            lost: 0,
            resets: 0,
            failed_connections: 0,
            owner_moves: n,
            two_macs_ms_max: 0.0,
            answer_gap_ms,
            data_gap_ms: None,
            metallb: None,
        }));
    }
    rows
}

/// Returns the rows as a Markdown table.
pub(super) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| fault | kube-proxy | address | n | answers missing, ms | traffic missing, ms | lost | resets | failed | moves \
         | two MACs, ms | MetalLB |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let Row { scenario, family, policy, proxy, n, lost, resets, failed_connections, owner_moves, .. } = row;
        let data = row.data_gap_ms.map_or_else(|| "-".to_owned(), |spread| spread.to_string());
        text += &format!(
            "| {scenario} | {proxy} | {family} {policy} | {n} | {} | {data} | {lost} | {resets} | \
             {failed_connections} | {owner_moves} | {:.0} | {} |\n",
            row.answer_gap_ms,
            row.two_macs_ms_max,
            row.metallb.unwrap_or("-"),
        );
    }
    text
}

/// Returns the requests at rest as a Markdown table.
pub(super) fn rest_table(rests: &[Rest]) -> String {
    let mut text = String::from(
        "| at rest after | kube-proxy | requests of the busiest speaker a second | of the controllers | writes |\n\
         |---|---|---|---|---|\n",
    );
    for Rest { after, proxy, seen: AtRest { busiest_speaker_per_s, controllers_per_s, writes } } in rests {
        let writes = writes.len();
        text += &format!("| {after} | {proxy} | {busiest_speaker_per_s:.2} | {controllers_per_s:.2} | {writes} |\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::drill::{Bounds, FirstAnnouncement, Observation, Phase, Promise, Target};
    use herald_lab::probe::Mac;
    use test_case::test_case;

    #[test_case(&[3.0], Some((3.0, 3.0, None, 3.0)); "one")]
    #[test_case(&[4.0, 1.0, 3.0, 2.0], Some((1.0, 2.0, None, 4.0)); "an even number")]
    #[test_case(&[], None; "none")]
    fn spread_has_minimum_median_and_maximum(samples: &[f64], expected: Option<(f64, f64, Option<f64>, f64)>) {
        let found = Spread::of(samples.to_vec()).map(|s| (s.min, s.median, s.p99, s.max));
        assert_eq!(found, expected);
    }

    #[test_case(99, None; "too few")]
    #[test_case(100, Some(99.0))]
    #[test_case(200, Some(198.0))]
    fn percentile_needs_100_samples(n: u32, p99: Option<f64>) {
        assert_eq!(Spread::of((1..=n).map(f64::from).collect()).unwrap().p99, p99);
    }

    fn run(answer_gap_ms: f64, lost: usize) -> PhaseResult {
        let seen = |address: &str, policy| Observation {
            target: Target { address: address.parse().unwrap(), policy },
            lost,
            resets: 0,
            failed_connections: 0,
            moves: 1,
            two_macs_ms: answer_gap_ms / 10.0,
            answer_gap_ms,
            data_gap_ms: 0.0,
            macs: vec![Mac([2; 6])],
            moved_after_ms: None,
            unanswered_at_the_end: false,
        };
        let promise = Promise::NOTHING;
        PhaseResult {
            phase: Phase {
                name: "fault",
                act: |_| Ok(()),
                cluster: promise,
                local: promise,
                bounds: Bounds::CONTEST,
                metallb: Some("5 s"),
            },
            seen: vec![seen("192.0.2.1", Policy::Cluster), seen("2001:db8::1", Policy::Local)],
            bystanders: vec![FirstAnnouncement { family: Family::V6, announced_after_ms: answer_gap_ms }],
            nodes_stalled: Duration::ZERO,
            void: false,
            reports: String::new(),
        }
    }

    #[test]
    fn rows_sum_up_runs_by_policy_and_family() {
        let rows = rows(&[run(100.0, 1), run(300.0, 2)], ProxyMode::Nftables, "-2-nodes", 6);
        let told: Vec<_> = rows.iter().map(|r| (r.scenario.as_str(), r.family, r.policy, r.n, r.lost)).collect();
        let expected = [
            ("fault-2-nodes", Family::V4, Policy::Cluster, 2, 3),
            ("fault-2-nodes", Family::V6, Policy::Local, 2, 3),
            ("fault-2-nodes-announced", Family::V6, Policy::Cluster, 2, 0),
        ];
        assert_eq!(told, expected);
        assert_eq!((rows[0].owner_moves, rows[0].two_macs_ms_max, rows[0].answer_gap_ms.max), (2, 30.0, 300.0));
        assert_eq!(rows[2].data_gap_ms, None);
    }

    #[test]
    fn requests_at_rest_are_a_row() {
        let seen = AtRest { busiest_speaker_per_s: 0.4, controllers_per_s: 1.0, writes: vec!["a write".to_owned()] };
        let rest = Rest { after: "fault".to_owned(), proxy: ProxyMode::Nftables, seen };
        assert_eq!(rest_table(&[rest]).lines().last(), Some("| fault | nftables | 0.40 | 1.00 | 1 |"));
    }

    #[test]
    fn row_has_all_figures_in_json_and_table() {
        let rows = rows(&[run(100.0, 0)], ProxyMode::Iptables, "", 4);
        let json = serde_json::to_value(&rows[0]).unwrap();
        let gap = serde_json::json!({"min": 100.0, "median": 100.0, "p99": null, "max": 100.0});
        let none = serde_json::json!({"min": 0.0, "median": 0.0, "p99": null, "max": 0.0});
        assert_eq!(
            json,
            serde_json::json!({
                "scenario": "fault", "family": "IPv4", "policy": "Cluster", "proxy": "iptables", "addresses": 4,
                "n": 1, "lost": 0, "resets": 0, "failed_connections": 0, "owner_moves": 1, "two_macs_ms_max": 10.0,
                "answer_gap_ms": gap, "data_gap_ms": none,
            })
        );
        let table = table(&rows[..1]);
        let line = table.lines().last().unwrap();
        assert_eq!(
            line,
            "| fault | iptables | IPv4 Cluster | 1 | 100 / 100 / 100 | 0 / 0 / 0 | 0 | 0 | 0 | 1 | 10 | 5 s |"
        );
    }
}
