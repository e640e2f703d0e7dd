//! The progress of a long operation, its interruption, and waits for conditions.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::wait_factor;

/// Interval at which a condition is evaluated: short compared with the seconds that steps take here, long compared with
/// the cost of an evaluation (a file, a socket, one request).
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Reports the progress of an operation to the user, and an interruption to the operation.
///
/// Clones share the clock and the interruption.
#[derive(Clone, Debug)]
pub struct Progress {
    started: Instant,
    quiet: bool,
    interrupted: Arc<AtomicBool>,
}

impl Progress {
    /// Returns progress that prints each step to standard error with the seconds since now.
    #[must_use]
    pub fn printing() -> Self {
        Self { started: Instant::now(), quiet: false, interrupted: Arc::default() }
    }

    /// Returns progress that prints nothing.
    #[must_use]
    pub fn quiet() -> Self {
        Self { quiet: true, ..Self::printing() }
    }

    /// Returns the time since this progress began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Reports a step.
    pub fn step(&self, what: impl std::fmt::Display) {
        if self.quiet {
            return;
        }
        let line = format!("[{:6.1}s] {what}\n", self.elapsed().as_secs_f64());
        // The operation continues even if the pipe is closed.
        if let Err(error) = std::io::stderr().write_all(line.as_bytes()) {
            tracing::debug!("cannot write the progress: {error}");
        }
    }

    /// Requests that the operation stops at its next check.
    pub fn interrupt(&self) {
        self.interrupted.store(true, Ordering::SeqCst);
    }

    /// Checks for an interruption.
    ///
    /// # Errors
    /// When the operation was interrupted.
    pub fn check(&self) -> Result<()> {
        if self.interrupted.load(Ordering::SeqCst) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Evaluates a condition until it holds (`Ok(Some(_))`).
    ///
    /// # Errors
    /// When the condition itself fails, when `within` times the [`wait_factor`] passes first (the message names the
    /// condition), or when the operation was interrupted.
    pub fn wait_for<T>(&self, what: &str, within: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let within = wait_factor::scaled(within)?;
        let begun = Instant::now();
        loop {
            self.check()?;
            if let Some(found) = look()? {
                return Ok(found);
            }
            if begun.elapsed() > within {
                bail!("gave up waiting for {what} after {:.0} s", within.as_secs_f64());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_ends_when_the_condition_holds() {
        let mut looks = 0;
        let found = Progress::quiet().wait_for("the third look", Duration::from_secs(5), || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn timeout_names_the_condition() {
        let error = Progress::quiet().wait_for::<()>("godot", Duration::ZERO, || Ok(None)).unwrap_err();
        assert_eq!(error.to_string(), "gave up waiting for godot after 0 s");
    }

    #[test]
    fn interruption_ends_a_wait() {
        let progress = Progress::quiet();
        progress.clone().interrupt();
        let error = progress.wait_for::<()>("godot", Duration::from_secs(60), || Ok(None)).unwrap_err();
        assert_eq!(error.to_string(), "interrupted");
    }
}
