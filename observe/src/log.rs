//! The log: lines of text or of JSON on standard output, and a filter that can be changed while the program runs.

use std::{
    fmt,
    io::IsTerminal,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::dispatcher::{Dispatch, SetGlobalDefaultError, set_global_default};
use tracing_subscriber::{
    EnvFilter,
    filter::ParseError,
    fmt::MakeWriter,
    reload::{Error as ReloadError, Handle},
};

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

/// Why the log does not start, or its filter does not change.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Text that is no filter.
    #[error("{text:?} is no log filter ({source}): write a level (info), or target=level pairs (info,kube=debug)")]
    Filter {
        /// As given.
        text: String,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// The program has a log already.
    #[error("the log was started before")]
    Started(#[from] SetGlobalDefaultError),
    /// The log has ended.
    #[error("the log takes no other filter")]
    Reload(#[from] ReloadError),
}

/// The log of this process. Clones are the same log.
#[derive(Clone)]
pub struct Log {
    /// The filter it was started with.
    first: String,
    present: Arc<Mutex<String>>,
    replace: Arc<dyn Fn(EnvFilter) -> Result<(), ReloadError> + Send + Sync>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("first", &self.first).field("present", &self.present).finish_non_exhaustive()
    }
}

impl LogArgs {
    /// Starts the log of this process, on standard output.
    ///
    /// # Errors
    /// The filter cannot be read, or there is a log already.
    pub fn start(&self) -> Result<Log, LogError> {
        let (log, dispatch) = self.make(std::io::stdout, std::io::stdout().is_terminal())?;
        set_global_default(dispatch)?;
        Ok(log)
    }

    /// A log that writes nowhere.
    #[cfg(test)]
    pub(crate) fn quiet(&self) -> (Log, Dispatch) {
        self.make(std::io::sink, false).unwrap()
    }

    fn make<W>(&self, writer: W, colours: bool) -> Result<(Log, Dispatch), LogError>
    where
        W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    {
        let Self { log, log_json } = self;
        let filter = parse(log)?;
        let lines = tracing_subscriber::fmt().with_ansi(colours).with_writer(writer);
        // Two types: what formats is part of the subscriber's.
        if *log_json {
            let lines = lines.json().with_env_filter(filter).with_filter_reloading();
            Ok((Log::new(log, lines.reload_handle()), lines.finish().into()))
        } else {
            let lines = lines.with_env_filter(filter).with_filter_reloading();
            Ok((Log::new(log, lines.reload_handle()), lines.finish().into()))
        }
    }
}

impl Log {
    fn new<S: 'static>(first: &str, handle: Handle<EnvFilter, S>) -> Self {
        Self {
            first: first.to_owned(),
            present: Arc::new(Mutex::new(first.to_owned())),
            replace: Arc::new(move |filter| handle.reload(filter)),
        }
    }

    /// The filter now.
    pub fn filter(&self) -> String {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the filter; the empty text brings back the one it was started with. Returns the filter now.
    ///
    /// # Errors
    /// It cannot be read: nothing changes.
    pub fn change(&self, text: &str) -> Result<String, LogError> {
        let text = match text.trim() {
            "" => &self.first,
            text => text,
        };
        let filter = parse(text)?;
        // Held until the filter is in force, so that what is told is what filters.
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
    use std::io::{self, Write};

    use test_case::test_case;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn with_log(json: bool, run: impl FnOnce(&Log)) -> String {
        let lines = Lines::default();
        let args = LogArgs { log: "info".to_owned(), log_json: json };
        let (log, dispatch) = args.make(lines.clone(), false).unwrap();
        tracing::dispatcher::with_default(&dispatch, || run(&log));
        drop(dispatch);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test_case(false; "text")]
    #[test_case(true; "json")]
    fn the_filter_changes_while_it_runs(json: bool) {
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
    fn what_is_no_filter_changes_nothing() {
        with_log(false, |log| {
            let error = log.change("herald=loud").unwrap_err().to_string();
            assert!(error.starts_with("\"herald=loud\" is no log filter"), "{error}");
            assert_eq!(log.filter(), "info");
        });
    }
}
