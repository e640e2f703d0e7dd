//! What a long operation is doing, whether it was interrupted, and waiting on conditions.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::wait_factor;

/// How often a condition is looked at: short against the seconds that things take here, long against the
/// cost of a look (a file, a socket, one request).
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Tells a person what is going on, and the operation that it should stop.
///
/// Clones share the clock and the interruption.
#[derive(Clone, Debug)]
pub struct Progress {
    started: Instant,
    quiet: bool,
    interrupted: Arc<AtomicBool>,
}

impl Progress {
    /// Prints each step to standard error with the seconds since now.
    #[must_use]
    pub fn printing() -> Self {
        Self { started: Instant::now(), quiet: false, interrupted: Arc::default() }
    }

    /// Prints nothing.
    #[must_use]
    pub fn quiet() -> Self {
        Self { quiet: true, ..Self::printing() }
    }

    /// Time since this progress began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Announces a step.
    pub fn step(&self, what: impl std::fmt::Display) {
        if self.quiet {
            return;
        }
        let line = format!("[{:6.1}s] {what}\n", self.elapsed().as_secs_f64());
        // Nobody listens any more (a closed pipe): the operation goes on all the same.
        if let Err(error) = std::io::stderr().write_all(line.as_bytes()) {
            tracing::debug!("nobody reads the progress: {error}");
        }
    }

    /// Asks the operation to stop at its next check.
    pub fn interrupt(&self) {
        self.interrupted.store(true, Ordering::SeqCst);
    }

    /// # Errors
    /// When the operation was interrupted.
    pub fn check(&self) -> Result<()> {
        if self.interrupted.load(Ordering::SeqCst) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Looks at a condition until it holds (`Ok(Some(_))`).
    ///
    /// # Errors
    /// When the condition itself fails, when `within` times the [`wait_factor`] passes first (the message says what was
    /// waited for), or when the operation was interrupted.
    pub fn wait_for<T>(&self, what: &str, within: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let within = wait_factor::scaled(within)?;
        let begun = Instant::now();
        loop {
            self.check()?;
            if let Some(found) = look()? {
                return Ok(found);
            }
            if begun.elapsed() > within {
                bail!("waited {:.0} s in vain for {what}", within.as_secs_f64());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_holds_later_is_waited_for() {
        let mut looks = 0;
        let found = Progress::quiet().wait_for("the third look", Duration::from_secs(5), || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn giving_up_says_what_was_waited_for() {
        let error = Progress::quiet().wait_for::<()>("godot", Duration::ZERO, || Ok(None)).unwrap_err();
        assert_eq!(error.to_string(), "waited 0 s in vain for godot");
    }

    #[test]
    fn an_interruption_ends_a_wait() {
        let progress = Progress::quiet();
        progress.clone().interrupt();
        let error = progress.wait_for::<()>("godot", Duration::from_secs(60), || Ok(None)).unwrap_err();
        assert_eq!(error.to_string(), "interrupted");
    }
}
