//! The benchmark's table and its file.

use std::io::{self, Write};

use anyhow::{Context, Result};
use serde::Serialize;

use super::ledger::RunReport;
use crate::testbed::at_rest::AtRest;

/// The results. Times are in seconds from before the first create, memory is in MiB.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub(super) services: u16,
    pub(super) dual_stack: bool,
    /// Until the last create returned.
    pub(super) create_s: f64,
    /// Until the last Service's address was seen.
    pub(super) last_ingress_s: f64,
    /// Time between the two values above.
    pub(super) tail_s: f64,
    /// From the last create's return until the last IPv4 address was first announced.
    pub(super) first_frame_tail_s: f64,
    /// API writes, refused ones among them.
    pub(super) writes: PerProgram<usize>,
    /// CPU seconds until Herald was at rest again, of all processes of a program.
    pub(super) cpu_s: Cpu,
    /// Resident memory of the largest process of each program, with all Services in place.
    pub(super) rss_mb: PerProgram<f64>,
    /// From SIGKILL to every controller until one leads and has listed everything.
    pub(super) restart_s: f64,
    /// API writes after that restart.
    pub(super) restart_writes: usize,
    /// Requests at rest before the burst.
    pub(super) at_rest_before: AtRest,
    /// Requests at rest with all Services in place.
    pub(super) at_rest: AtRest,
}

/// One figure for each of Herald's programs.
#[derive(Debug, Serialize)]
pub(super) struct PerProgram<T> {
    pub(super) controller: T,
    pub(super) speakers: T,
}

/// CPU seconds.
#[derive(Debug, Serialize)]
pub(super) struct Cpu {
    pub(super) controller: f64,
    pub(super) speakers: f64,
    pub(super) apiserver: f64,
}

/// Prints the table and the ledgers, and writes the file.
pub(super) fn print(figures: &Figures, writes: &RunReport, restart: &RunReport) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(table(figures).as_bytes())?;
    out.write_all(ledger("Writes", writes, figures.services).as_bytes())?;
    if restart.total() > 0 {
        out.write_all(ledger("Writes after the restart", restart, figures.services).as_bytes())?;
    }
    let directory = herald_lab::binaries::workspace()?.join("target/bench");
    std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let file = directory.join("scale.json");
    std::fs::write(&file, serde_json::to_vec_pretty(figures)?).with_context(|| file.display().to_string())?;
    writeln!(out, "\nwritten to {}", file.display()).context("printing")
}

fn table(figures: &Figures) -> String {
    let Figures { services, dual_stack, create_s, last_ingress_s, tail_s, first_frame_tail_s, .. } = figures;
    let n = f64::from(*services);
    let families = if *dual_stack { "two addresses each" } else { "one address each" };
    let writes = figures.writes.controller + figures.writes.speakers;
    let per = |total: usize| total as f64 / n;
    let cpu = |seconds: f64| format!("{seconds:.2} s, {:.2} ms a Service", seconds * 1000.0 / n);
    let rows = [
        ("Services".to_owned(), format!("{services}, {families}")),
        ("last create returned after".to_owned(), format!("{create_s:.2} s")),
        ("last address seen after".to_owned(), format!("{last_ingress_s:.2} s")),
        ("tail: last create to last address".to_owned(), format!("{tail_s:.2} s")),
        ("tail: last create to last first announcement".to_owned(), format!("{first_frame_tail_s:.2} s")),
        ("API writes a Service".to_owned(), format!("{:.2}", per(writes))),
        ("... of the controller".to_owned(), format!("{:.2}", per(figures.writes.controller))),
        ("... of the speakers".to_owned(), format!("{:.2}", per(figures.writes.speakers))),
        ("CPU of the controllers".to_owned(), cpu(figures.cpu_s.controller)),
        ("CPU of the speakers".to_owned(), cpu(figures.cpu_s.speakers)),
        ("CPU of the API server".to_owned(), cpu(figures.cpu_s.apiserver)),
        ("RSS of the largest controller".to_owned(), format!("{:.1} MiB", figures.rss_mb.controller)),
        ("RSS of the largest speaker".to_owned(), format!("{:.1} MiB", figures.rss_mb.speakers)),
        ("SIGKILL of both controllers to one that leads".to_owned(), format!("{:.2} s", figures.restart_s)),
        ("API writes after it".to_owned(), figures.restart_writes.to_string()),
        ("at rest before the burst".to_owned(), figures.at_rest_before.to_string()),
        ("at rest after it".to_owned(), figures.at_rest.to_string()),
    ];
    let lines = rows.iter().map(|(what, value)| format!("| {what} | {value} |\n"));
    format!("| what | |\n|---|---|\n{}", lines.collect::<String>())
}

fn ledger(title: &str, ledger: &RunReport, services: u16) -> String {
    let lines = ledger.entries().map(|(entry, count)| {
        let each = count as f64 / f64::from(services);
        format!("| {} | {} | {} | {} | {count} | {each:.2} |\n", entry.account, entry.verb, entry.resource, entry.code)
    });
    let head = "| account | verb | resource | code | requests | a Service |\n|---|---|---|---|---|---|\n";
    format!("\n{title}:\n\n{head}{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_and_table_have_all_figures() {
        let at_rest = |busiest_speaker_per_s| AtRest { busiest_speaker_per_s, controllers_per_s: 1.0, writes: vec![] };
        let figures = Figures {
            services: 100,
            dual_stack: false,
            create_s: 1.0,
            last_ingress_s: 1.5,
            tail_s: 0.5,
            first_frame_tail_s: 0.75,
            writes: PerProgram { controller: 300, speakers: 100 },
            cpu_s: Cpu { controller: 0.5, speakers: 0.25, apiserver: 5.0 },
            rss_mb: PerProgram { controller: 12.0, speakers: 9.0 },
            restart_s: 2.0,
            restart_writes: 0,
            at_rest_before: at_rest(0.25),
            at_rest: at_rest(0.5),
        };
        let json = serde_json::to_value(&figures).unwrap();
        let expected = serde_json::json!({"services": 100, "dual_stack": false, "create_s": 1.0, "last_ingress_s": 1.5,
            "tail_s": 0.5, "first_frame_tail_s": 0.75, "writes": {"controller": 300, "speakers": 100},
            "cpu_s": {"controller": 0.5, "speakers": 0.25, "apiserver": 5.0},
            "rss_mb": {"controller": 12.0, "speakers": 9.0}, "restart_s": 2.0, "restart_writes": 0,
            "at_rest_before": {"busiest_speaker_per_s": 0.25, "controllers_per_s": 1.0, "writes": []},
            "at_rest": {"busiest_speaker_per_s": 0.5, "controllers_per_s": 1.0, "writes": []}});
        assert_eq!(json, expected);
        let table = table(&figures);
        assert!(table.contains("| API writes a Service | 4.00 |"), "{table}");
        assert!(table.contains("| CPU of the controllers | 0.50 s, 5.00 ms a Service |"), "{table}");
        let rest = "| at rest after it | a speaker 0.50 requests a second at most, the controllers 1.00, 0 writes |";
        assert!(table.contains(rest), "{table}");
    }
}
