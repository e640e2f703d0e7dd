//! `herald-sim`: runs histories by the thousand, or one again.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the command line front; it talks to a person")]

use std::{
    collections::BTreeMap,
    fs,
    io::IsTerminal,
    path::PathBuf,
    process::ExitCode,
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use clap::Parser;
use herald_protocol::mutation::Mutation;
use herald_sim::{
    check::Invariant,
    history::{History, Shape},
    measure::Samples,
    mutations,
    report::Report,
    runner::{self, Totals},
    shrink::shrink,
    world::{self, Detail},
};

/// Simulates Herald's segment protocol: many histories from as many seeds, or one again.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Number of seeds to run.
    #[arg(long, default_value_t = 3000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Number of nodes; if absent, each seed has its own, 1 to 50, mostly 3 to 12.
    #[arg(long)]
    nodes: Option<usize>,
    /// Number of addresses; if absent, each seed has its own, 1 to 50.
    #[arg(long)]
    addresses: Option<usize>,
    /// Runs this one seed and prints each event.
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: looks for the smallest history that violates the same invariant, and prints that one.
    #[arg(long, requires = "seed")]
    shrink: bool,
    /// With --seed: prints each frame as well.
    #[arg(long, requires = "seed")]
    frames: bool,
    /// Writes the result to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Breaks a rule of the protocol on purpose, as in `IgnoreEpoch`.
    #[arg(long, value_parser = mutation)]
    mutation: Option<Mutation>,
    /// Measures: in each history one node loses power, and each frame is lost with this probability (0 to 0.5).
    #[arg(long, value_name = "LOSS")]
    measure: Option<f64>,
    /// Number of nodes, the first ones, with a second interface on the same wire; if absent, each seed has its own
    /// number, mostly none.
    #[arg(long, value_name = "NODES")]
    second_interfaces: Option<usize>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let shape = Shape {
        nodes: arguments.nodes,
        addresses: arguments.addresses,
        power_off_at_loss: arguments.measure,
        mutation: arguments.mutation,
        second_interfaces: arguments.second_interfaces,
    };
    anyhow::ensure!(shape.nodes.is_none_or(|n| (1..=2000).contains(&n)), "--nodes: 1 to 2000");
    anyhow::ensure!(shape.addresses.is_none_or(|n| (1..=20_000).contains(&n)), "--addresses: 1 to 20000");
    let totals = match arguments.seed {
        Some(seed) => replay(seed, shape, &arguments),
        None => many(&arguments, shape),
    };
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&Report::new(&totals, shape))?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        fs::write(path, text + "\n").with_context(|| format!("cannot write the result to {}", path.display()))?;
    }
    Ok(if totals.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one seed and prints each event.
fn replay(seed: u64, shape: Shape, arguments: &Arguments) -> Totals {
    let detail = if arguments.frames { Detail::Frames } else { Detail::Events };
    let mut history = History::generate(seed, shape);
    if arguments.shrink {
        match world::run(&history, Detail::Nothing).violation {
            Some(violation) => history = shrink(&history, violation.invariant).0,
            None => println!("seed {seed} violates nothing: there is nothing to shrink"),
        }
    }
    print!("{history}");
    let started = Instant::now();
    let outcome = world::run(&history, detail);
    outcome.trace.iter().for_each(|line| println!("{line}"));
    let verdict = outcome.violation.as_ref().map_or_else(|| "no violation".to_owned(), |v| format!("VIOLATED: {v}"));
    println!("{verdict}");
    Totals {
        seeds: 1,
        simulated: outcome.simulated,
        wall: started.elapsed(),
        violations: outcome.violation.map(|violation| (seed, violation)).into_iter().collect(),
        detect: outcome.detect,
        takeover: outcome.takeover,
        frames: outcome.frames,
        node_seconds: outcome.node_seconds,
        peak: outcome.peak,
    }
}

fn many(arguments: &Arguments, shape: Shape) -> Totals {
    let terminal = std::io::stderr().is_terminal();
    let every = if terminal { Duration::from_millis(250) } else { Duration::from_secs(10) };
    let last = Mutex::new(Instant::now());
    let progress = |totals: &Totals| {
        let Ok(mut last) = last.try_lock() else { return };
        if last.elapsed() < every {
            return;
        }
        *last = Instant::now();
        let line = format!(
            "{} of {} seeds, {:.0} s simulated in {:.0} s, {} violations",
            totals.seeds,
            arguments.seeds,
            totals.simulated.as_secs_f64(),
            totals.wall.as_secs_f64(),
            totals.violations.len()
        );
        if terminal {
            eprint!("\r{line}   ");
        } else {
            eprintln!("{line}");
        }
    };
    let hangs = |seed| {
        eprintln!("seed {seed} hangs: a call of a machine does not return");
        std::process::exit(1);
    };
    let totals = runner::run(arguments.first, arguments.seeds, shape, &progress, &hangs);
    if terminal {
        eprintln!();
    }
    summary(&totals, shape);
    totals
}

/// Number of seeds that are shown of each invariant.
const SHOWN: usize = 8;

fn summary(totals: &Totals, shape: Shape) {
    let (simulated, wall) = (totals.simulated.as_secs_f64(), totals.wall.as_secs_f64());
    println!(
        "{} histories, {simulated:.0} s simulated in {wall:.1} s ({:.1} times as fast)",
        totals.seeds,
        simulated / wall
    );
    println!(
        "frames: {:.1} per second and node, at most {} in one second",
        totals.frames_per_s_per_node(),
        totals.peak
    );
    times("power-off to verdict", &totals.detect);
    times("power-off to take-over", &totals.takeover);
    if totals.violations.is_empty() {
        println!("no invariant was violated");
        return;
    }
    println!("{} seeds violate an invariant:", totals.violations.len());
    let mut by_invariant: BTreeMap<Invariant, Vec<_>> = BTreeMap::new();
    for (seed, violation) in &totals.violations {
        by_invariant.entry(violation.invariant).or_default().push((seed, violation));
    }
    for (invariant, seeds) in &by_invariant {
        println!("{invariant}: {} seeds, for example", seeds.len());
        for (seed, violation) in seeds.iter().take(SHOWN) {
            println!("  seed {seed}: {violation}");
        }
    }
    if let Some((seed, _)) = totals.violations.first() {
        let also = |name: &str, value: Option<usize>| value.map(|value| format!(" {name}={value}")).unwrap_or_default();
        let (nodes, addresses) = (also("NODES", shape.nodes), also("ADDRESSES", shape.addresses));
        println!("replay with: make sim SEED={seed}{nodes}{addresses}");
    }
}

fn times(what: &str, samples: &Samples) {
    let summary = samples.summary();
    let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"));
    if !samples.is_empty() {
        let (min, median, p99, max) = (ms(summary.min), ms(summary.median), ms(summary.p99), ms(summary.max));
        println!("{what}: min {min}, median {median}, p99 {p99}, max {max} ms ({} samples)", samples.len());
    }
}

fn mutation(name: &str) -> anyhow::Result<Mutation> {
    let known = mutations::ALL;
    known.into_iter().find(|mutation| format!("{mutation:?}") == name).ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|mutation| format!("{mutation:?}")).collect();
        anyhow!("there is no mutation {name:?}; there are {}", names.join(", "))
    })
}
