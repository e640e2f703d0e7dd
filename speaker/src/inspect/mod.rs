//! `herald-speaker inspect`: what the running speaker of this node knows, for a person to read.
//!
//! The running speaker listens on a Unix socket in its state directory. A client writes a line, `table` or `json`, and is
//! sent the report, or `health`, and is sent what the kubelet's probes ask for ([`check`](crate::check)); [`table`] makes
//! the report readable, [`socket`] has both ends.

pub mod socket;
pub mod table;

use std::{path::PathBuf, str::FromStr};

use clap::{Args, ValueEnum};
use herald_crds::speaker_status::LinkStatus;
use herald_protocol::inspect::Snapshot;
use serde::Serialize;

/// Where the running speaker keeps its state and its socket.
pub const DEFAULT_STATE_DIR: &str = "/run/herald";

/// Shows what the running speaker of this node knows: peers, addresses, who owns them, who is next.
#[derive(Clone, Debug, Args)]
pub struct InspectArgs {
    /// The state directory of the running speaker.
    #[arg(long, env = "HERALD_STATE_DIR", default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,

    /// How to write it.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables for a person.
    Table,
    /// JSON, for a program.
    Json,
}

impl Format {
    /// How it is asked for.
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
    /// All that it knows.
    Report(Format),
    /// What the kubelet's probes ask for, as JSON.
    Health,
}

impl Question {
    /// How it is asked.
    pub fn word(self) -> &'static str {
        match self {
            Self::Report(format) => format.word(),
            Self::Health => "health",
        }
    }
}

/// A word that is no question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no question: write table, json or health")]
pub struct ParseQuestionError(String);

impl FromStr for Question {
    type Err = ParseQuestionError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let all = [Self::Report(Format::Table), Self::Report(Format::Json), Self::Health];
        let found = all.into_iter().find(|question| question.word() == word);
        found.ok_or_else(|| ParseQuestionError(word.to_owned()))
    }
}

/// All that a speaker knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Herald's version.
    pub version: String,
    /// This node.
    pub node: String,
    /// Since the speaker started, in milliseconds.
    pub uptime_ms: u64,
    /// Its segments.
    pub segments: Vec<SegmentReport>,
    /// The links of the node that have addresses, each with what is done with it.
    pub links: Vec<LinkStatus>,
    /// How many more there are.
    pub links_left_out: usize,
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentReport {
    /// Interface name.
    pub interface: String,
    /// What is known there.
    #[serde(flatten)]
    pub snapshot: Snapshot,
}

impl Report {
    /// The report as text.
    ///
    /// # Errors
    /// Writing plain values into memory never fails; the serializer's type says that it may.
    pub fn render(&self, format: Format) -> serde_json::Result<String> {
        match format {
            Format::Table => Ok(table::render(self)),
            Format::Json => serde_json::to_string_pretty(self).map(|text| text + "\n"),
        }
    }
}
