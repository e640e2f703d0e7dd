//! The durations of scenarios, compared with their budgets, and the failures.

use std::fmt;
use std::time::Duration;

/// Number of the slowest scenarios that are listed.
const SLOWEST_NAMED: usize = 10;

/// Lines of a failure that are repeated at the end: a drill with four addresses breaks about this many promises.
const FAILURE_LINES: usize = 16;

/// A scenario that has run.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    name: &'static str,
    took: Duration,
    budget: Duration,
    failure: Option<String>,
}

/// The scenarios that have run. The output lists the ten slowest, every one over its budget, and at the end the
/// failures with a few lines each, because a reader of a long log sees only its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunReport {
    rows: Vec<Row>,
}

impl RunReport {
    /// Adds a scenario that has run, with the reason of its failure if it failed.
    pub fn add(&mut self, name: &'static str, took: Duration, budget: Duration, failure: Option<String>) {
        self.rows.push(Row { name, took, budget, failure });
    }
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = self.rows.clone();
        rows.sort_by_key(|row| std::cmp::Reverse(row.took));
        let sum: Duration = rows.iter().map(|row| row.took).sum();
        writeln!(f, "{} scenarios took {} s, counted one by one; the slowest:\n", rows.len(), sum.as_secs())?;
        writeln!(f, "| scenario | seconds | budget |\n|---|---|---|")?;
        for Row { name, took, budget, .. } in rows.iter().take(SLOWEST_NAMED) {
            writeln!(f, "| {name} | {} | {} |", took.as_secs(), budget.as_secs())?;
        }
        let over: Vec<_> = rows.iter().filter(|row| row.took > row.budget).collect();
        if over.is_empty() {
            writeln!(f, "\nNone took longer than its budget.")?;
        } else {
            writeln!(f, "\nOver their budgets:")?;
        }
        for Row { name, took, budget, .. } in over {
            writeln!(
                f,
                "  {name}: {} s of {} s; alone: make e2e ONLY='{name} --exact'",
                took.as_secs(),
                budget.as_secs()
            )?;
        }
        for Row { name, failure, .. } in &self.rows {
            let Some(failure) = failure else { continue };
            writeln!(f, "\nFAILED: {name}; alone: make e2e ONLY='{name} --exact'")?;
            for line in failure.lines().take_while(|line| !line.is_empty()).take(FAILURE_LINES) {
                writeln!(f, "  {line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(rows: &[(&'static str, u64, u64)]) -> RunReport {
        let mut ledger = RunReport::default();
        for (name, took, budget) in rows {
            ledger.add(name, Duration::from_secs(*took), Duration::from_secs(*budget), None);
        }
        ledger
    }

    #[test]
    fn slowest_come_first_and_those_over_budget_are_named() {
        let text = ledger(&[("quick", 3, 10), ("slow", 40, 30)]).to_string();
        let (slow, quick) = (text.find("| slow | 40 | 30 |"), text.find("| quick | 3 | 10 |"));
        assert!(slow.is_some() && slow < quick, "{text}");
        assert!(text.contains("slow: 40 s of 30 s; alone: make e2e ONLY='slow --exact'"), "{text}");
        assert!(!text.contains("quick: "), "{text}");
    }

    #[test]
    fn scenario_over_budget_is_named_outside_the_slowest_ten() {
        let mut rows: Vec<_> = (0..10).map(|_| ("slow", 40, 50)).collect();
        rows.push(("short", 5, 4));
        let text = ledger(&rows).to_string();
        assert!(!text.contains("| short |") && text.contains("short: 5 s of 4 s"), "{text}");
    }

    #[test]
    fn failures_come_last_without_their_reports() {
        let mut ledger = ledger(&[("fine", 3, 10)]);
        let failure = "two nodes answered for 9 ms\n3 connections were reset\n\n10.0.0.1\n  ARP 9 sent";
        ledger.add("broken", Duration::from_secs(4), Duration::from_secs(10), Some(failure.to_owned()));
        let text = ledger.to_string();
        let last = "FAILED: broken; alone: make e2e ONLY='broken --exact'\n  two nodes answered for 9 ms\n  3 connections were reset\n";
        assert!(text.ends_with(last), "{text}");
        assert!(!text.contains("FAILED: fine"), "{text}");
    }

    #[test]
    fn long_failure_is_cut_to_its_first_lines() {
        let mut ledger = RunReport::default();
        let failure: Vec<String> = (1..=40).map(|line| format!("line {line}")).collect();
        ledger.add("long", Duration::from_secs(1), Duration::from_secs(10), Some(failure.join("\n")));
        let text = ledger.to_string();
        assert!(text.contains("line 16\n") && !text.contains("line 17"), "{text}");
    }
}
