//! I2: an address with a live eligible candidate is answered again within the bound of the fault.

use std::time::Duration;

use super::{Invariant, Violation};
use crate::names::AddrIx;

/// The unanswered addresses, with the time since when.
#[derive(Debug)]
pub struct Answered {
    missing: Vec<Option<Duration>>,
}

impl Answered {
    /// Returns the check for a number of addresses, all still unanswered.
    pub fn new(addresses: usize) -> Self {
        Self { missing: vec![Some(Duration::ZERO); addresses] }
    }

    /// Notes whether an address that should be answered is. Returns whether it has just ceased to be answered.
    pub fn update(&mut self, now: Duration, address: AddrIx, answered: bool) -> bool {
        let missing = &mut self.missing[address];
        match (answered, missing.is_some()) {
            (true, _) => {
                *missing = None;
                false
            }
            (false, true) => false,
            (false, false) => {
                *missing = Some(now);
                true
            }
        }
    }

    /// Returns since when an address has not been answered.
    pub fn missing_since(&self, address: AddrIx) -> Option<Duration> {
        self.missing[address]
    }

    /// Returns the violation, if an address has not been answered for longer than the bound.
    pub fn overdue(&self, now: Duration, address: AddrIx, bound: Duration) -> Option<Violation> {
        let since = self.missing[address].filter(|since| now >= *since + bound)?;
        Some(Violation {
            invariant: Invariant::Unanswered,
            at: now,
            seen: format!(
                "address {address} has not been answered since {:.3} s; the bound is {:.3} s",
                since.as_secs_f64(),
                bound.as_secs_f64()
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_after_the_bound() {
        let ms = Duration::from_millis;
        let mut check = Answered::new(2);
        check.update(ms(0), 1, true);
        assert!(check.update(ms(100), 1, false));
        assert!(!check.update(ms(150), 1, false), "the first moment counts");
        assert_eq!(check.overdue(ms(249), 1, ms(150)), None);
        assert_eq!(check.overdue(ms(250), 1, ms(150)).unwrap().invariant, Invariant::Unanswered);
        check.update(ms(300), 1, true);
        assert_eq!(check.overdue(ms(900), 1, ms(150)), None);
    }
}
