//! The benchmark's table and its file.

use std::io::{self, Write};

use anyhow::{Context, Result};
use serde::Serialize;

use super::latency::Quantiles;

/// The figures of one number of addresses, one family and one flood.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    /// Number of Services, each with one address of each family.
    pub(super) addresses: u16,
    pub(super) family: &'static str,
    /// Frames per second that the flood reached.
    pub(super) flood_pps: f64,
    /// Answers for Herald's addresses.
    pub(super) vip_us: Quantiles,
    /// Answers of the same nodes' kernels for the nodes' own addresses.
    pub(super) kernel_us: Quantiles,
    /// Answers of minimal responders on the same nodes.
    pub(super) floor_us: Quantiles,
    /// One speaker.
    pub(super) speaker: Program,
    /// All controllers.
    pub(super) controller: Program,
}

/// What a program costs at rest, or under the flood, without the processes that the kubelet starts to probe it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Program {
    /// Of one core.
    pub(super) cpu_percent: f64,
    /// Of the largest process, MiB.
    pub(super) rss_mb: f64,
    pub(super) api_requests_per_s: f64,
}

/// Prints the table and writes the file.
pub(super) fn print(rows: &[Row]) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "| addresses | family | flood, frames/s | Herald p50 / p99, us | kernel | minimal responder | p50: times the kernel's, times \
         the minimal | speaker: CPU of a core, RSS, requests/s | controllers |\n|---|---|---|---|---|---|---|---|---|"
    )?;
    for row in rows {
        let quantiles = |of: Quantiles| {
            let lost = if of.lost > 0 { format!(", {} lost", of.lost) } else { String::new() };
            format!("{:.0} / {:.0}{lost}", of.p50, of.p99)
        };
        let program = |of: Program| {
            let Program { cpu_percent, rss_mb, api_requests_per_s } = of;
            format!("{cpu_percent:.2} %, {rss_mb:.1} MiB, {api_requests_per_s:.2}")
        };
        let (kernel, floor) = (row.vip_us.p50 / row.kernel_us.p50, row.vip_us.p50 / row.floor_us.p50);
        writeln!(
            out,
            "| {} | {} | {:.0} | {} | {} | {} | {kernel:.2}, {floor:.2} | {} | {} |",
            row.addresses,
            row.family,
            row.flood_pps,
            quantiles(row.vip_us),
            quantiles(row.kernel_us),
            quantiles(row.floor_us),
            program(row.speaker),
            program(row.controller),
        )?;
    }
    let directory = herald_lab::binaries::workspace()?.join("target/bench");
    std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let file = directory.join("cost.json");
    std::fs::write(&file, serde_json::to_vec_pretty(rows)?).with_context(|| file.display().to_string())?;
    writeln!(out, "\nwritten to {}", file.display()).context("printing")
}
