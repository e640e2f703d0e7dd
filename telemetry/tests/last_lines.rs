//! The last lines of a program. Each test starts itself again, as the program.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    io::Read,
    process::{Child, Command, Stdio},
};

use herald_telemetry::log::{self, LogArgs};

/// The variable that is set for the program, and not for the test.
const PROGRAM: &str = "HERALD_TEST_PROGRAM";

/// Starts the program whose test has this name. Returns `None` in the program itself, which then has a log.
fn start(test: &str) -> Option<Child> {
    if std::env::var_os(PROGRAM).is_some() {
        LogArgs { log: "info".to_owned(), log_json: false }.start().unwrap();
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(PROGRAM, "1").stdout(Stdio::piped()).stderr(Stdio::null());
    Some(command.spawn().unwrap())
}

fn read(child: &mut Child) -> String {
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn program_that_ends_writes_its_last_lines() {
    let Some(mut child) = start("program_that_ends_writes_its_last_lines") else {
        for number in 0..1000 {
            tracing::info!(number, "a line");
        }
        log::flush();
        std::process::exit(0);
    };
    let text = read(&mut child);
    assert_eq!(text.matches("a line").count(), 1000);
    assert!(text.contains("number=999"));
}

#[test]
fn program_that_panics_says_where() {
    let Some(mut child) = start("program_that_panics_says_where") else {
        tracing::info!("before");
        panic!("a bug of the test's");
    };
    let text = read(&mut child);
    assert!(
        text.contains("before") && text.contains("last_lines.rs") && text.contains("a bug of the test's"),
        "{text}"
    );
}

#[test]
fn program_whose_log_is_not_read_ends() {
    let Some(mut child) = start("program_whose_log_is_not_read_ends") else {
        // The lines exceed the pipe and the queue together.
        for number in 0..50_000 {
            tracing::info!(number, "a line that no reader reads");
        }
        log::flush();
        std::process::exit(7);
    };
    assert_eq!(child.wait().unwrap().code(), Some(7));
    // The content of the pipe is read only now.
    assert!(read(&mut child).contains("number=0"));
}
