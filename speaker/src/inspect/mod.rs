//! `herald-speaker inspect`: the knowledge of the running speaker of this node, for a person to read.
//!
//! The running speaker listens on a Unix socket in its state directory. A client writes a line: `table` or `json`,
//! which the speaker answers with the report, or `health`, which it answers with the facts that the kubelet's probes
//! ask for ([`check`](crate::check)). [`table`] makes the report readable, [`socket`] has both ends.

pub mod socket;
pub mod table;

use std::{path::PathBuf, str::FromStr};

use clap::{Args, ValueEnum};
use herald_crds::speaker_status::LinkStatus;
use herald_protocol::inspect::Snapshot;
use serde::Serialize;

/// The directory in which the running speaker keeps its state and its socket.
pub const DEFAULT_STATE_DIR: &str = "/run/herald";

/// Shows what the running speaker of this node knows: peers, addresses, their owners, and the next in line.
#[derive(Clone, Debug, Args)]
pub struct InspectArgs {
    /// The state directory of the running speaker.
    #[arg(long, env = "HERALD_STATE_DIR", default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,

    /// The format of the report.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// The format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables, for a person.
    Table,
    /// JSON, for a program.
    Json,
}

impl Format {
    /// Returns the word that asks for the format.
    pub fn word(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Json => "json",
        }
    }
}

/// A question to the running speaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The question for the whole report.
    Report(Format),
    /// The question for the facts that the kubelet's probes ask for, as JSON.
    Health,
}

impl Question {
    /// Returns the word of the question.
    pub fn word(self) -> &'static str {
        match self {
            Self::Report(format) => format.word(),
            Self::Health => "health",
        }
    }
}

/// The error for a word that is not a question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a question: write table, json or health")]
pub struct ParseQuestionError(String);

impl FromStr for Question {
    type Err = ParseQuestionError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let all = [Self::Report(Format::Table), Self::Report(Format::Json), Self::Health];
        let found = all.into_iter().find(|question| question.word() == word);
        found.ok_or_else(|| ParseQuestionError(word.to_owned()))
    }
}

/// The knowledge of a speaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Herald's version.
    pub version: String,
    /// The name of this node.
    pub node: String,
    /// Time since the speaker started, in milliseconds.
    pub uptime_ms: u64,
    /// The speaker's segments.
    pub segments: Vec<SegmentReport>,
    /// The links of the node that have addresses, each with the use made of it.
    pub links: Vec<LinkStatus>,
    /// Number of links beyond those in `links`.
    pub links_left_out: usize,
}

/// One segment in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentReport {
    /// The interface's name.
    pub interface: String,
    /// The engine's knowledge of the segment.
    #[serde(flatten)]
    pub snapshot: Snapshot,
}

impl Report {
    /// Returns the report as text.
    ///
    /// # Errors
    /// If the serializer fails, which it never does for plain values in memory; its type allows it.
    pub fn render(&self, format: Format) -> serde_json::Result<String> {
        match format {
            Format::Table => Ok(table::render(self)),
            Format::Json => serde_json::to_string_pretty(self).map(|text| text + "\n"),
        }
    }
}
