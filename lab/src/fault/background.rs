//! Work that continues in a host's network until it is ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};

use crate::cluster::Host;

/// A flag that requests the end of the work.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn is_asked_for(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A thread in a host's network namespace. Dropping the value ends the thread.
#[derive(Debug)]
pub(super) struct Background<T> {
    stop: Stop,
    thread: Option<JoinHandle<Result<T>>>,
}

impl<T: Send + 'static> Background<T> {
    /// Opens the resources of the work inside the host's network, and starts the work there.
    ///
    /// # Errors
    /// If the resources cannot be opened.
    pub(super) fn start<S>(
        host: &Host,
        open: impl FnOnce() -> Result<S> + Send + 'static,
        work: impl FnOnce(S, &Stop) -> Result<T> + Send + 'static,
    ) -> Result<Self> {
        let stop = Stop::default();
        let (opened, is_open): (_, Receiver<()>) = channel();
        let (host, asked) = (host.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            host.inside(move || {
                let opened_with = open()?;
                // The receiver is gone if the starter has given up.
                if opened.send(()).is_err() {
                    asked.0.store(true, Ordering::Relaxed);
                }
                work(opened_with, &asked)
            })
        });
        let started = is_open.recv();
        let background = Self { stop, thread: Some(thread) };
        if started.is_ok() {
            return Ok(background);
        }
        background.end()?;
        bail!("it ended before it began")
    }

    /// Requests the end, waits for it, and returns the result of the work.
    ///
    /// # Errors
    /// When the work failed.
    pub(super) fn end(mut self) -> Result<T> {
        self.stop.0.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it has been ended already")?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        self.stop.0.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // `end` reports errors of the thread; here only its end matters.
            drop(thread.join());
        }
    }
}
