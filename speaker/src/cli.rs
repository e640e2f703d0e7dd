//! The command line: `herald-speaker` runs the speaker, `herald-speaker inspect` shows what the running one knows.

use std::ffi::OsString;

use clap::{Args as _, Command, CommandFactory, FromArgMatches};

use crate::{args::Args, inspect::InspectArgs};

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Cli {
    /// Run the speaker.
    Run(Args),
    /// Show what the running one knows.
    Inspect(InspectArgs),
}

impl Cli {
    /// Reads the command line of this process; ends it with a message where it makes no sense.
    pub fn parse() -> Self {
        Self::read(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    /// It makes no sense, or asks for help.
    pub fn read<T: Into<OsString> + Clone>(words: impl IntoIterator<Item = T>) -> Result<Self, clap::Error> {
        let matches = command().try_get_matches_from(words)?;
        match matches.subcommand_matches("inspect") {
            Some(inspect) => InspectArgs::from_arg_matches(inspect).map(Self::Inspect),
            None => Args::from_arg_matches(&matches).map(Self::Run),
        }
    }
}

/// The flags that running needs are no flags of a subcommand.
fn command() -> Command {
    let inspect = InspectArgs::augment_args(Command::new("inspect"));
    Args::command().subcommand(inspect).subcommand_negates_reqs(true).args_conflicts_with_subcommands(true)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use test_case::test_case;

    use super::*;
    use crate::inspect::Format;

    #[test]
    fn is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn without_a_subcommand_it_runs() {
        let Ok(Cli::Run(args)) = Cli::read(["herald-speaker", "--node-name", "a"]) else { panic!("it does not run") };
        assert_eq!(args.run.node_name, "a");
    }

    #[test_case(&["inspect"], Some(("/run/herald", Format::Table)))]
    #[test_case(&["inspect", "-o", "json", "--state-dir=/tmp/x"], Some(("/tmp/x", Format::Json)))]
    #[test_case(&["inspect", "-o", "yaml"], None)]
    #[test_case(&["--node-name=a", "inspect"], None; "flags of the other command")]
    fn inspects(words: &[&str], expected: Option<(&str, Format)>) {
        let read = Cli::read(["herald-speaker"].iter().chain(words));
        let inspected = match read {
            Ok(Cli::Inspect(args)) => Some((args.state_dir, args.output)),
            _ => None,
        };
        assert_eq!(inspected, expected.map(|(dir, format)| (PathBuf::from(dir), format)));
    }
}
