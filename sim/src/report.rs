//! The result as a file.

use serde::Serialize;

use crate::{history::Shape, measure::Summary, runner::Totals};

/// The content that `--json` writes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Number of seeds that were run.
    pub seeds: u64,
    /// Number of nodes, if it is the same in all seeds.
    pub nodes: Option<usize>,
    /// Number of addresses, if it is the same in all seeds.
    pub addresses: Option<usize>,
    /// Simulated seconds.
    pub simulated_s: f64,
    /// Seconds that the run took.
    pub wall_s: f64,
    /// Number of seeds that violate an invariant.
    pub violations: usize,
    /// The first seed that violates an invariant.
    pub first_violation_seed: Option<u64>,
    /// From a node's power-off to the verdict at the node that then claims.
    pub detect_ms: Summary,
    /// From a node's power-off to the first answer or announcement of another node.
    pub takeover_ms: Summary,
    /// Frames of the protocol per second and node.
    pub frames_per_s_per_node: f64,
}

impl Report {
    /// Returns the report of a run.
    pub fn new(totals: &Totals, shape: Shape) -> Self {
        let round = |value: f64| (value * 100.0).round() / 100.0;
        Self {
            seeds: totals.seeds,
            nodes: shape.nodes,
            addresses: shape.addresses,
            simulated_s: round(totals.simulated.as_secs_f64()),
            wall_s: round(totals.wall.as_secs_f64()),
            violations: totals.violations.len(),
            first_violation_seed: totals.violations.first().map(|(seed, _)| *seed),
            detect_ms: totals.detect.summary(),
            takeover_ms: totals.takeover.summary(),
            frames_per_s_per_node: round(totals.frames_per_s_per_node()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_has_the_promised_fields() {
        let json = serde_json::to_value(Report::new(&Totals::default(), Shape::default())).unwrap();
        let mut fields: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(
            fields,
            [
                "addresses",
                "detect_ms",
                "first_violation_seed",
                "frames_per_s_per_node",
                "nodes",
                "seeds",
                "simulated_s",
                "takeover_ms",
                "violations",
                "wall_s"
            ]
        );
        assert!(json["detect_ms"]["p99"].is_null());
    }
}
