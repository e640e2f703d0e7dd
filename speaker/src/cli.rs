//! The command line: `herald-speaker` runs the speaker, `herald-speaker inspect` shows what the running one knows,
//! `herald-speaker check` is for the kubelet's probes.

use std::ffi::OsString;

use clap::{Args as _, Command, CommandFactory, FromArgMatches};

use crate::{args::Args, check::CheckArgs, inspect::InspectArgs};

/// The command that the command line asks for.
#[derive(Clone, Debug)]
pub enum Cli {
    /// Run the speaker.
    Run(Args),
    /// Show what the running speaker knows.
    Inspect(InspectArgs),
    /// Ask the running speaker whether it is live or ready.
    Check(CheckArgs),
}

impl Cli {
    /// Reads the command line of this process, which is of this version; ends the process with a message where the line
    /// makes no sense.
    pub fn parse(version: &'static str) -> Self {
        Self::read(version, std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    /// If the command line makes no sense, or asks for help or the version.
    fn read<T: Into<OsString> + Clone>(
        version: &'static str,
        words: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let matches = command().version(version).try_get_matches_from(words)?;
        match matches.subcommand() {
            Some(("inspect", inspect)) => InspectArgs::from_arg_matches(inspect).map(Self::Inspect),
            Some(("check", check)) => CheckArgs::from_arg_matches(check).map(Self::Check),
            _ => Args::from_arg_matches(&matches).map(Self::Run),
        }
    }
}

/// Returns the description of the command line. A subcommand does not take the flags that running needs.
fn command() -> Command {
    let inspect = InspectArgs::augment_args(Command::new("inspect"));
    let check = CheckArgs::augment_args(Command::new("check"));
    let command = Args::command().subcommands([inspect, check]);
    command.subcommand_negates_reqs(true).args_conflicts_with_subcommands(true)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use test_case::test_case;

    use super::*;
    use crate::{check::What, inspect::Format};

    #[test]
    fn command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn speaker_runs_without_a_subcommand() {
        let Ok(Cli::Run(args)) = Cli::read("1.2.3", ["herald-speaker", "--node-name", "a"]) else {
            panic!("it does not run")
        };
        assert_eq!(args.run.node_name, "a");
    }

    #[test]
    fn version_is_that_of_the_program() {
        let answer = Cli::read("1.2.3 (abc, 2026-12-01)", ["herald-speaker", "--version"]).unwrap_err();
        assert_eq!(answer.to_string(), "herald-speaker 1.2.3 (abc, 2026-12-01)\n");
    }

    #[test_case(&["inspect"], Some(("/run/herald", Format::Table)))]
    #[test_case(&["inspect", "-o", "json", "--state-dir=/tmp/x"], Some(("/tmp/x", Format::Json)))]
    #[test_case(&["inspect", "-o", "yaml"], None)]
    #[test_case(&["--node-name=a", "inspect"], None; "flags of the other command")]
    fn inspect_is_read(words: &[&str], expected: Option<(&str, Format)>) {
        let read = Cli::read("1.2.3", ["herald-speaker"].iter().chain(words));
        let inspected = match read {
            Ok(Cli::Inspect(args)) => Some((args.state_dir, args.output)),
            _ => None,
        };
        assert_eq!(inspected, expected.map(|(dir, format)| (PathBuf::from(dir), format)));
    }

    #[test_case(&["check", "live"], Some(What::Live))]
    #[test_case(&["check", "ready"], Some(What::Ready))]
    #[test_case(&["check"], None; "nothing to ask for")]
    fn check_is_read(words: &[&str], expected: Option<What>) {
        let checked = match Cli::read("1.2.3", ["herald-speaker"].iter().chain(words)) {
            Ok(Cli::Check(args)) => Some(args.what),
            _ => None,
        };
        assert_eq!(checked, expected);
    }
}
