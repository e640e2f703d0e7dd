//! Lines on their way to standard output: a caller that logs never waits for the reader.
//!
//! Standard output of a container is a pipe to the container runtime, which holds 64 KiB (pipe(7)): some 300 lines.
//! While the runtime hangs, a write to the pipe does not return. The lines are therefore queued, a thread writes them,
//! and lines that do not fit are dropped and counted.
//!
//! `tracing-appender` does not serve here: at its end it prints to standard output where the queue is full, so a
//! program whose output is stuck would not end (tokio-rs/tracing `tracing-appender/src/non_blocking.rs`, `Drop for
//! WorkerGuard`); and it cannot report, once there is room, how many lines are missing.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// Maximum of queued bytes: some 8,000 lines, four times what a take-over of 1,000 addresses writes.
const MOST_BYTES: usize = 2 << 20;

/// The queued lines. Clones share one queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct LineQueue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Signals that there is something to write.
    filled: Condvar,
    /// Signals that nothing is queued and nothing is being written.
    idle: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    items: VecDeque<Item>,
    /// The length of all queued lines, in bytes.
    bytes: usize,
    /// Whether an item is being written.
    writing: bool,
    /// Lines dropped since the start.
    dropped: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Item {
    Line(Vec<u8>),
    /// The number of lines that were dropped here.
    Gap(u64),
}

impl LineQueue {
    /// Starts the thread that writes the queued lines. `notice` makes a line that reports a number of dropped lines.
    ///
    /// # Errors
    /// If the kernel cannot start the thread.
    pub(crate) fn write_to(
        &self,
        out: impl Write + Send + 'static,
        notice: impl Fn(u64) -> Vec<u8> + Send + 'static,
    ) -> io::Result<()> {
        let queue = self.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || queue.write_all(out, notice)).map(drop)
    }

    /// Returns the number of lines dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Takes and returns the queued lines, which are then not written.
    pub(crate) fn take(&self) -> Vec<u8> {
        let mut waiting = self.lock();
        waiting.bytes = 0;
        let lines = waiting.items.drain(..).map(|item| match item {
            Item::Line(line) => line,
            Item::Gap(_) => Vec::new(),
        });
        lines.flatten().collect()
    }

    /// Waits until all lines are written, for `patience` at most, since the reader may be stuck. Returns whether all
    /// are written.
    pub(crate) fn flush(&self, patience: Duration) -> bool {
        let busy = |waiting: &mut Waiting| waiting.writing || !waiting.items.is_empty();
        let waited = self.0.idle.wait_timeout_while(self.lock(), patience, busy);
        let (_guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out()
    }

    fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.bytes + line.len() > MOST_BYTES {
            waiting.dropped += 1;
            if let Some(Item::Gap(lines)) = waiting.items.back_mut() {
                *lines += 1;
            } else {
                waiting.items.push_back(Item::Gap(1));
            }
        } else {
            waiting.bytes += line.len();
            waiting.items.push_back(Item::Line(line.to_vec()));
        }
        self.0.filled.notify_one();
    }

    /// Writes for as long as the program runs.
    fn write_all(&self, mut out: impl Write, notice: impl Fn(u64) -> Vec<u8>) {
        loop {
            let line = match self.next() {
                Item::Line(line) => line,
                Item::Gap(lines) => notice(lines),
            };
            // A failed write cannot be reported anywhere; the next line may succeed.
            drop(out.write_all(&line).and_then(|()| out.flush()));
        }
    }

    /// Waits for the next item.
    fn next(&self) -> Item {
        let mut waiting = self.lock();
        waiting.writing = false;
        loop {
            if let Some(item) = waiting.items.pop_front() {
                if let Item::Line(line) = &item {
                    waiting.bytes -= line.len();
                }
                waiting.writing = true;
                return item;
            }
            self.0.idle.notify_all();
            waiting = self.0.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // The lock is held to move a line, never while one is written.
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer of one line: `tracing_subscriber` writes each with one call.
impl Write for &LineQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineQueue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A reader that announces each line and takes it when it is allowed to.
    struct Reader {
        asked: mpsc::Sender<Vec<u8>>,
        may: mpsc::Receiver<()>,
    }

    impl Write for Reader {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.asked.send(line.to_vec()).map_err(io::Error::other)?;
            self.may.recv().map_err(io::Error::other)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn queue() -> (LineQueue, mpsc::Receiver<Vec<u8>>, mpsc::Sender<()>) {
        let (asked, lines) = mpsc::channel();
        let (let_go, may) = mpsc::channel();
        let queue = LineQueue::default();
        queue.write_to(Reader { asked, may }, |lines| format!("{lines} dropped").into_bytes()).unwrap();
        (queue, lines, let_go)
    }

    #[test]
    fn stuck_reader_blocks_no_caller_and_dropped_lines_are_counted() {
        let (queue, lines, let_go) = queue();
        let line = vec![b'x'; 1024];
        queue.push(&line);
        lines.recv().unwrap();
        // The first line is being written; 2,048 more fit.
        for _ in 0..10_000 {
            queue.push(&line);
        }
        assert_eq!(queue.dropped(), 10_000 - 2048);
        assert!(!queue.flush(Duration::from_millis(1)), "the end does not wait for ever");
        // The reader reads again, and another line arrives.
        let_go.send(()).unwrap();
        assert_eq!(lines.recv().unwrap(), line);
        queue.push(b"the next");
        for _ in 1..2048 {
            let_go.send(()).unwrap();
            assert_eq!(lines.recv().unwrap(), line);
        }
        for expected in ["7952 dropped", "the next"] {
            let_go.send(()).unwrap();
            assert_eq!(lines.recv().unwrap(), expected.as_bytes());
        }
        let_go.send(()).unwrap();
        assert!(queue.flush(Duration::from_secs(60)));
        assert_eq!(lines.try_recv(), Err(mpsc::TryRecvError::Empty), "it is said once");
    }

    #[test]
    fn all_lines_are_written_when_a_flush_returns() {
        let (queue, lines, let_go) = queue();
        for number in 0..100 {
            queue.push(format!("{number}").as_bytes());
            let_go.send(()).unwrap();
        }
        assert!(queue.flush(Duration::from_secs(60)));
        let written: Vec<_> = lines.try_iter().map(|line| String::from_utf8(line).unwrap()).collect();
        assert_eq!(written, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
        assert_eq!(queue.dropped(), 0);
    }
}
