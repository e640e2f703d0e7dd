//! The end of a program by an error: one sentence on standard error.

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

/// Writes to standard error why a program ends, and returns its exit status.
///
/// Backtraces are left out, whatever `RUST_BACKTRACE` is set to: the errors that end a program are those of its
/// surroundings, not of its code.
pub fn failed(program: &str, error: &(dyn Error + 'static)) -> ExitCode {
    // A program without standard error still ends with its status.
    drop(writeln!(io::stderr(), "{program}: {}", sentence(error)));
    ExitCode::FAILURE
}

/// Returns the messages of an error and of its causes. A message that ends with a remedy contains its cause already.
fn sentence(error: &(dyn Error + 'static)) -> String {
    let mut sentence = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let message = cause.to_string();
        if !sentence.contains(&message) {
            sentence.push_str(": ");
            sentence.push_str(&message);
        }
        next = cause.source();
    }
    sentence
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error("cannot listen: choose another port")]
        Listen(#[source] io::Error),
        #[error("no API server: {0}; set KUBECONFIG")]
        Api(#[source] Box<Self>),
        #[error("stopped")]
        Stopped,
    }

    #[test_case(Failure::Stopped, "stopped"; "no cause")]
    #[test_case(Failure::Listen(io::Error::other("in use")), "cannot listen: choose another port: in use"; "a cause")]
    #[test_case(Failure::Api(Box::new(Failure::Stopped)), "no API server: stopped; set KUBECONFIG"; "a cause that the message contains")]
    fn sentence_has_each_cause_once(error: Failure, expected: &str) {
        assert_eq!(sentence(&error), expected);
    }
}
