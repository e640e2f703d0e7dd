//! The factor of all time limits on slow machines: a machine that is slower than those for which the limits were
//! chosen, such as one without hardware virtualisation, sets `HERALD_LAB_WAIT_FACTOR`. Scenarios that judge a time by
//! such a limit prove nothing there.

use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::{Context, Result};

/// Name of the environment variable.
pub const VARIABLE: &str = "HERALD_LAB_WAIT_FACTOR";

/// The largest factor. An hour becomes four days, and a machine that needs more cannot run a cluster.
const LARGEST: u32 = 100;

/// Returns a limit times the factor in the environment, which is 1 by default.
///
/// # Errors
/// When the variable is not a whole number from 1 to 100.
pub fn scaled(limit: Duration) -> Result<Duration> {
    let text = std::env::var_os(VARIABLE);
    let factor = text.map_or(Ok(NonZeroU32::MIN), |text| parse(&text.to_string_lossy()))?;
    Ok(limit * factor.get())
}

/// Returns the limit as kubectl's option `--timeout`.
///
/// # Errors
/// When [`scaled`] fails.
pub fn kubectl_timeout(limit: Duration) -> Result<String> {
    Ok(format!("--timeout={}s", scaled(limit)?.as_secs()))
}

fn parse(text: &str) -> Result<NonZeroU32> {
    let number = text.parse().ok().filter(|number: &NonZeroU32| number.get() <= LARGEST);
    number.with_context(|| {
        format!("{VARIABLE}={text:?}: write a whole number from 1 to {LARGEST}, by which all waits are multiplied")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_case::test_case;

    #[test_case("1", Some(1))]
    #[test_case("5", Some(5))]
    #[test_case("100", Some(100))]
    #[test_case("101", None; "too large")]
    #[test_case("0", None; "zero")]
    #[test_case("2.5", None; "a fraction")]
    #[test_case("", None; "empty")]
    fn factor_is_parsed(text: &str, factor: Option<u32>) {
        assert_eq!(parse(text).ok().map(NonZeroU32::get), factor);
    }

    #[test]
    fn refusal_names_variable_value_and_remedy() {
        assert_eq!(
            parse("fast").unwrap_err().to_string(),
            "HERALD_LAB_WAIT_FACTOR=\"fast\": write a whole number from 1 to 100, by which all waits are multiplied"
        );
    }
}
