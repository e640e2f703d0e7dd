//! How long scenarios took, held against what they should take.

use std::fmt;
use std::time::Duration;

/// How many of the slowest are named.
const SLOWEST_NAMED: usize = 10;

/// A scenario that ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    name: &'static str,
    took: Duration,
    budget: Duration,
}

/// The times of the scenarios that ran. Displayed, it names the ten slowest, and every one over its budget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    rows: Vec<Row>,
}

impl Ledger {
    /// Adds a scenario that ran.
    pub fn add(&mut self, name: &'static str, took: Duration, budget: Duration) {
        self.rows.push(Row { name, took, budget });
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = self.rows.clone();
        rows.sort_by_key(|row| std::cmp::Reverse(row.took));
        let sum: Duration = rows.iter().map(|row| row.took).sum();
        writeln!(f, "{} scenarios took {} s, counted one by one; the slowest:\n", rows.len(), sum.as_secs())?;
        writeln!(f, "| scenario | seconds | budget |\n|---|---|---|")?;
        for Row { name, took, budget } in rows.iter().take(SLOWEST_NAMED) {
            writeln!(f, "| {name} | {} | {} |", took.as_secs(), budget.as_secs())?;
        }
        let over: Vec<_> = rows.iter().filter(|row| row.took > row.budget).collect();
        if over.is_empty() {
            return writeln!(f, "\nNone took longer than its budget.");
        }
        writeln!(f, "\nOver their budgets:")?;
        for Row { name, took, budget } in over {
            writeln!(
                f,
                "  {name}: {} s of {} s; alone: make e2e ONLY='{name} --exact'",
                took.as_secs(),
                budget.as_secs()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(rows: &[(&'static str, u64, u64)]) -> Ledger {
        let mut ledger = Ledger::default();
        for (name, took, budget) in rows {
            ledger.add(name, Duration::from_secs(*took), Duration::from_secs(*budget));
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
    fn one_outside_the_slowest_ten_is_named_when_it_is_over_its_budget() {
        let mut rows: Vec<_> = (0..10).map(|_| ("slow", 40, 50)).collect();
        rows.push(("short", 5, 4));
        let text = ledger(&rows).to_string();
        assert!(!text.contains("| short |") && text.contains("short: 5 s of 4 s"), "{text}");
    }
}
