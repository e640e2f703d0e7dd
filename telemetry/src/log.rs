//! The log: lines of text or of JSON on standard output, and a filter that can be changed at run time.
//!
//! A caller that logs never waits: a thread writes the lines. A program that ends therefore waits for its last lines
//! ([`flush`]), and so does one that panics.

mod queue;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt,
    io::{self, IsTerminal},
    panic::PanicHookInfo,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use tracing::dispatcher::{Dispatch, SetGlobalDefaultError, set_global_default};
use tracing_subscriber::{
    EnvFilter,
    filter::ParseError,
    reload::{Error as ReloadError, Handle},
};

use queue::LineQueue;

/// Time for which a program that ends waits for its last lines to be written: a working reader takes them in
/// milliseconds, and the kubelet kills the speaker 5 s after it has asked the speaker to end.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The lines of this process, once the log is started.
static LINES: OnceLock<LineQueue> = OnceLock::new();

/// Flags of the log.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct LogArgs {
    /// Log filter, as `tracing_subscriber::EnvFilter` reads it: a level (info), or target=level pairs.
    #[arg(long, env = "HERALD_LOG", default_value = "info")]
    pub log: String,

    /// Log lines of JSON.
    #[arg(long, env = "HERALD_LOG_JSON", default_value_t = false, action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub log_json: bool,
}

/// The reason why the log does not start, or its filter does not change.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The text is not a filter.
    #[error("{text:?} is not a log filter ({source}): write a level (info), or target=level pairs (info,kube=debug)")]
    Filter {
        /// The text as given.
        text: String,
        /// The parser's error.
        #[source]
        source: ParseError,
    },
    /// The log was started before.
    #[error("the log was started before")]
    Started(#[from] SetGlobalDefaultError),
    /// The kernel cannot start the thread.
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(#[source] io::Error),
    /// The log has ended.
    #[error("the log does not accept another filter")]
    Reload(#[from] ReloadError),
}

/// The log of this process. Clones share one log.
#[derive(Clone)]
pub struct Log {
    /// The filter at the start.
    first: String,
    present: Arc<Mutex<String>>,
    replace: Arc<dyn Fn(EnvFilter) -> Result<(), ReloadError> + Send + Sync>,
    lines: LineQueue,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("first", &self.first).field("present", &self.present).finish_non_exhaustive()
    }
}

impl LogArgs {
    /// Starts the log of this process, on standard output. A panic is logged, too.
    ///
    /// # Errors
    /// If the filter cannot be read, the log was started before, or the kernel cannot start its thread.
    pub fn start(&self) -> Result<Log, LogError> {
        let colours = io::stdout().is_terminal();
        let lines = LineQueue::default();
        let (log, dispatch) = self.make(&lines, colours)?;
        set_global_default(dispatch)?;
        let args = self.clone();
        lines.write_to(io::stdout(), move |dropped| args.notice(dropped, colours)).map_err(LogError::Thread)?;
        LINES.get_or_init(|| lines);
        std::panic::set_hook(Box::new(log_panic));
        Ok(log)
    }

    /// Returns a log whose lines are never written.
    #[cfg(test)]
    pub(crate) fn quiet(&self) -> (Log, Dispatch) {
        self.make(&LineQueue::default(), false).unwrap()
    }

    fn make(&self, queue: &LineQueue, colours: bool) -> Result<(Log, Dispatch), LogError> {
        let Self { log, log_json } = self;
        let filter = parse(log)?;
        let lines = tracing_subscriber::fmt().with_ansi(colours).with_writer(queue.clone());
        // The two branches differ in type: the formatter is part of the subscriber's type.
        if *log_json {
            let lines = lines.json().with_env_filter(filter).with_filter_reloading();
            Ok((Log::new(log, lines.reload_handle(), queue), lines.finish().into()))
        } else {
            let lines = lines.with_env_filter(filter).with_filter_reloading();
            Ok((Log::new(log, lines.reload_handle(), queue), lines.finish().into()))
        }
    }

    /// Returns the line that reports the number of dropped lines, whatever the filter.
    fn notice(&self, dropped: u64, colours: bool) -> Vec<u8> {
        let line = LineQueue::default();
        let args = Self { log: "warn".to_owned(), log_json: self.log_json };
        // The text `warn` is a valid filter.
        if let Ok((_, dispatch)) = args.make(&line, colours) {
            tracing::dispatcher::with_default(&dispatch, || {
                tracing::warn!(lines = dropped, "log lines were dropped here: the log was not read fast enough");
            });
        }
        line.take()
    }
}

/// Waits until the lines of this process are written, for a second at most. A program calls this last.
pub fn flush() {
    if let Some(lines) = LINES.get() {
        lines.flush(LAST_LINES);
    }
}

/// Logs a panic. The hook of `std` prints on standard error instead, where it would wait for a reader that may be
/// stuck.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(%panic, backtrace, "this is a bug, and the program ends");
    flush();
}

impl Log {
    fn new<S: 'static>(first: &str, handle: Handle<EnvFilter, S>, lines: &LineQueue) -> Self {
        Self {
            first: first.to_owned(),
            present: Arc::new(Mutex::new(first.to_owned())),
            replace: Arc::new(move |filter| handle.reload(filter)),
            lines: lines.clone(),
        }
    }

    /// Returns the number of lines dropped since the program started, because they were not read fast enough.
    pub fn lines_dropped(&self) -> u64 {
        self.lines.dropped()
    }

    /// Returns the present filter.
    pub fn filter(&self) -> String {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the filter; the empty text restores the filter of the start. Returns the new filter.
    ///
    /// # Errors
    /// If the text cannot be read as a filter; the filter stays.
    pub fn change(&self, text: &str) -> Result<String, LogError> {
        let text = match text.trim() {
            "" => &self.first,
            text => text,
        };
        let filter = parse(text)?;
        // The lock is held until the filter is in force, so that the reported filter is the one that filters.
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        (self.replace)(filter)?;
        text.clone_into(&mut present);
        Ok(text.to_owned())
    }
}

fn parse(text: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(text).map_err(|source| LogError::Filter { text: text.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn args(json: bool) -> LogArgs {
        LogArgs { log: "info".to_owned(), log_json: json }
    }

    fn with_log(json: bool, run: impl FnOnce(&Log)) -> String {
        let lines = LineQueue::default();
        let (log, dispatch) = args(json).make(&lines, false).unwrap();
        tracing::dispatcher::with_default(&dispatch, || run(&log));
        String::from_utf8(lines.take()).unwrap()
    }

    #[test_case(false; "text")]
    #[test_case(true; "json")]
    fn dropped_lines_are_reported_in_the_format_of_the_log(json: bool) {
        let loud = LogArgs { log: "error".to_owned(), ..args(json) };
        let line = String::from_utf8(loud.notice(7, false)).unwrap();
        assert_eq!(line.lines().count(), 1, "{line}");
        let said = if json { "\"lines\":7" } else { "lines=7" };
        assert!(line.contains("dropped") && line.contains("WARN") && line.contains(said), "{line}");
        assert_eq!(line.starts_with('{'), json);
    }

    #[test_case(false; "text")]
    #[test_case(true; "json")]
    fn filter_changes_at_run_time(json: bool) {
        let written = with_log(json, |log| {
            tracing::debug!("before");
            assert_eq!(log.change(" debug\n").unwrap(), "debug");
            tracing::debug!("between");
            assert_eq!(log.filter(), "debug");
            assert_eq!(log.change("").unwrap(), "info");
            tracing::debug!("after");
            tracing::info!(service = "ns/web", "told");
        });
        let lines: Vec<_> = written.lines().collect();
        assert_eq!(lines.len(), 2, "{written}");
        assert!(lines[0].contains("between") && lines[1].contains("told"), "{written}");
        assert_eq!(lines.iter().all(|line| line.starts_with('{') && line.ends_with('}')), json);
    }

    #[test]
    fn unreadable_filter_changes_nothing() {
        with_log(false, |log| {
            let error = log.change("herald=loud").unwrap_err().to_string();
            assert!(error.starts_with("\"herald=loud\" is not a log filter"), "{error}");
            assert_eq!(log.filter(), "info");
        });
    }
}
